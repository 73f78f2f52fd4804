// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package ovn

import (
	"encoding/json"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
)

// script answers as it is told to, and otherwise like a southbound database without rows.
func script(t *testing.T, answers map[string]string) *front {
	return newFront(t, nil, func(method string, params []json.RawMessage) string {
		key := method
		if method == "transact" && len(params) > 0 && string(params[0]) == `"_Server"` {
			key = "_Server"
		}
		if said, ok := answers[key]; ok {
			return said
		}
		switch key {
		case "list_dbs":
			return `"result":["OVN_Southbound","OVN_Northbound"],"error":null`
		case "get_schema":
			if string(params[0]) == `"OVN_Northbound"` {
				return `"result":` + northboundSchema
			}
			return `"result":` + currentSchema
		default:
			return `"result":[{"rows":[]},{"rows":[]},{"rows":[]},{"rows":[]}],"error":null`
		}
	})
}

// TestSenselessAnswers: whatever a server answers, it is a typed error, and the next question is well.
func TestSenselessAnswers(t *testing.T) {
	rows := func(port, chassis, datapath, private string) string {
		return `"result":[{"rows":[` + port + `]},{"rows":[` + chassis + `]},{"rows":[` + datapath + `]},{"rows":[` + private + `]}],"error":null`
	}
	for _, tt := range []struct {
		name, method, answer string
		kind                 Kind
		says                 string
	}{
		{"no JSON", "transact", `{"result" nonsense`, Malformed, "no JSON-RPC"},
		{"no id", "transact", `{"result":[],"error":null,"id":null}`, Malformed, "another question"},
		{"id left out", "transact", `{"result":[],"error":null}`, Malformed, "another question"},
		{"another id", "transact", `{"result":[],"error":null,"id":99}`, Malformed, "another question"},
		{"an array", "transact", `{"a":` + strings.Repeat("[", 20000), Malformed, "no JSON-RPC"},
		{"too long", "transact", `"result":"` + strings.Repeat("x", 100<<10) + `"`, Malformed, "longer than allowed"},
		{"another form", "transact", `"result":{"rows":1},"error":null`, Malformed, "not of the form expected"},
		{"too few results", "transact", `"result":[{"rows":[]}],"error":null`, Malformed, "1 results of 4 operations"},
		{"a refusal", "transact", `"result":null,"error":{"error":"unknown database"}`, Refused, "unknown database"},
		{"an operation refused", "transact", `"result":[{"rows":[]},{"error":"constraint violation","details":"because"},null,null],"error":null`, Refused, `select on Chassis: "constraint violation" ("because")`},
		{"a commit refused", "transact", `"result":[{"rows":[]},{"rows":[]},{"rows":[]},{"rows":[]},{"error":"not owner"}],"error":null`, Refused, `the transaction: "not owner"`},
		{"a long refusal", "transact", `"result":null,"error":"` + strings.Repeat("x", 5000) + `"`, Refused, "xxx..."},
		{"no such database", "list_dbs", `"result":["Open_vSwitch"],"error":null`, Refused, "no database OVN_Southbound"},
		{"a schema that is none", "get_schema", `"result":7,"error":null`, Malformed, "not of the form expected"},
		{"a schema of something else", "get_schema", `"result":{"name":"OVN_Southbound","tables":{"Port_Binding":{"columns":{}},"Chassis":{"columns":{"name":{}}}}}`, Malformed, "no table Port_Binding with columns logical_port"},
		{"a chassis without a name", "transact", rows("", `{"_uuid":["uuid","c"],"name":""}`, "", ""), Malformed, "row of Chassis"},
		{"a chassis with a strange value", "transact", rows("", `{"_uuid":["uuid","c"],"name":"c","nb_cfg":"7"}`, "", ""), Malformed, "row of Chassis"},
		{"a strange private chassis", "transact", rows("", "", "", `{"name":["uuid","x"]}`), Malformed, "row of Chassis_Private"},
		{"a strange datapath", "transact", rows("", "", `{"_uuid":["uuid","d"],"external_ids":["map",[["name"]]]}`, ""), Malformed, "row of Datapath_Binding"},
		{"an empty array", "transact", rows(`{"logical_port":[]}`, "", "", ""), Malformed, "logical_port"},
		{"a dangling chassis", "transact", rows(`{"logical_port":"p","chassis":["uuid","c"]}`, "", "", ""), Malformed, "refers to no row of Chassis"},
		{"two chassis", "transact", rows(`{"logical_port":"p","chassis":["set",[["uuid","c"],["uuid","d"]]]}`, "", "", ""), Malformed, "chassis"},
		{"up is no boolean", "transact", rows(`{"logical_port":"p","up":"true"}`, "", "", ""), Malformed, "up"},
		{"up is nothing", "transact", rows(`{"logical_port":"p","up":["set",[null]]}`, "", "", ""), Malformed, "up"},
		{"mac is a number", "transact", rows(`{"logical_port":"p","mac":7}`, "", "", ""), Malformed, "mac"},
		{"datapath is a string", "transact", rows(`{"logical_port":"p","datapath":"x"}`, "", "", ""), Malformed, "datapath"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := NewWithT(t)
			answers := map[string]string{tt.method: tt.answer}
			f := script(t, answers)
			c := newClient(t, Config{Southbound: "tcp:" + f.address, Timeout: 5 * time.Second, MaxAnswer: 64 << 10})
			reading, err := c.Read(t.Context())
			g.Expect(KindOf(err)).To(Equal(tt.kind), "%v", err)
			g.Expect(err).To(MatchError(ContainSubstring(tt.says)))
			g.Expect(len(err.Error())).To(BeNumerically("<", 500))
			g.Expect(reading.Err).To(Equal(err))
			delete(answers, tt.method)
			_, err = c.Read(t.Context())
			g.Expect(err).NotTo(HaveOccurred())
			g.Eventually(f.connections).Should(Equal(1))
		})
	}
}

// TestRaiseChecksItsResults: an operation that failed is an error though the request as such did not fail.
func TestRaiseChecksItsResults(t *testing.T) {
	for _, tt := range []struct {
		name, answer string
		kind         Kind
		says         string
	}{
		{"refused", `"result":[{"error":"permission error","details":"RBAC"},null],"error":null`, Refused, `mutate on NB_Global: "permission error"`},
		{"no row", `"result":[{"count":0},{"rows":[]}],"error":null`, Malformed, "not one row"},
		{"no count", `"result":[{},{"rows":[{"nb_cfg":7}]}],"error":null`, Malformed, "not one row"},
		{"no value", `"result":[{"count":1},{"rows":[{}]}],"error":null`, Malformed, "nb_cfg"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := NewWithT(t)
			f := script(t, map[string]string{"transact": tt.answer})
			c := newClient(t, Config{Southbound: "tcp:127.0.0.1:1", Northbound: "tcp:" + f.address})
			_, err := c.Raise(t.Context())
			g.Expect(KindOf(err)).To(Equal(tt.kind))
			g.Expect(err).To(MatchError(ContainSubstring(tt.says)))
			sent := 0
			for _, asked := range f.log() {
				if strings.HasPrefix(asked, "transact") {
					sent++
				}
			}
			g.Expect(sent).To(Equal(1))
		})
	}
}

// TestOnlyTheLeaderIsBelieved: a member of a cluster may lag behind it.
func TestOnlyTheLeaderIsBelieved(t *testing.T) {
	g := NewWithT(t)
	member := func(leader string) map[string]string {
		return map[string]string{
			"list_dbs": `"result":["_Server","OVN_Southbound"],"error":null`,
			"_Server":  `"result":[{"rows":[{"model":"clustered","connected":true,"leader":` + leader + `}]}],"error":null`,
		}
	}
	follower, leader := script(t, member("false")), script(t, member("true"))
	_, err := newClient(t, Config{Southbound: "tcp:" + follower.address}).Read(t.Context())
	g.Expect(KindOf(err)).To(Equal(Refused))
	g.Expect(err).To(MatchError(ContainSubstring("does not lead")))
	both := newClient(t, Config{Southbound: "tcp:" + follower.address + ",tcp:" + leader.address})
	for range 2 {
		_, err = both.Read(t.Context())
		g.Expect(err).NotTo(HaveOccurred())
	}
	g.Expect(follower.log()).NotTo(ContainElement(ContainSubstring("OVN_Southbound\",{")))
	g.Expect(slices.DeleteFunc(leader.log(), func(s string) bool { return !strings.Contains(s, `"_Server"`) })).To(HaveLen(3))
}

func TestAddresses(t *testing.T) {
	for _, tt := range []struct {
		elements  []string
		macs      []string
		addresses []string
	}{
		{elements: []string{"0A:00:00:00:00:01 10.0.0.4"}, macs: []string{"0a:00:00:00:00:01"}, addresses: []string{"10.0.0.4"}},
		{elements: []string{"0a:00:00:00:00:01 10.0.0.4 fd00::4", "0a:00:00:00:00:02"}, macs: []string{"0a:00:00:00:00:01", "0a:00:00:00:00:02"}, addresses: []string{"10.0.0.4", "fd00::4"}},
		{elements: []string{"0a:00:00:00:00:01 dynamic"}, macs: []string{"0a:00:00:00:00:01"}},
		{elements: []string{"dynamic"}},
		{elements: []string{"unknown"}, macs: []string{"unknown"}},
		{elements: []string{"router"}},
		{elements: []string{"fe:00:64:40:00:01 100.64.0.1/16 fd00::1/64"}, macs: []string{"fe:00:64:40:00:01"}, addresses: []string{"100.64.0.1", "fd00::1"}},
		{elements: []string{"", "nonsense", "0a:00:00:00:00"}},
	} {
		t.Run(strings.Join(tt.elements, ","), func(t *testing.T) {
			g := NewWithT(t)
			macs, found := addresses(tt.elements)
			var texts []string
			for _, address := range found {
				texts = append(texts, netip.Addr.String(address))
			}
			g.Expect(macs).To(Equal(tt.macs))
			g.Expect(texts).To(Equal(tt.addresses))
		})
	}
}

// FuzzRead: no rows make the reading panic.
func FuzzRead(f *testing.F) {
	var s schema
	if err := json.Unmarshal([]byte(currentSchema), &s); err != nil {
		f.Fatal(err)
	}
	f.Add(`{"logical_port":"p","chassis":["set",[]],"up":["set",[]],"mac":["set",["a"]],"datapath":["uuid","d"]}`, `{"_uuid":["uuid","c"],"name":"c","external_ids":["map",[["a","b"]]]}`)
	f.Add(`{"logical_port":[],"chassis":[[]]}`, `{"external_ids":["map",[[]]]}`)
	f.Fuzz(func(_ *testing.T, port, other string) {
		var a, b row
		if json.Unmarshal([]byte(port), &a) != nil || json.Unmarshal([]byte(other), &b) != nil {
			return
		}
		_, _ = read(&s, map[string][]row{portBinding: {a}, chassis: {b}})
		_, _ = read(&s, map[string][]row{portBinding: {a}, datapathBinding: {b}, chassisPrivate: {b}})
	})
}
