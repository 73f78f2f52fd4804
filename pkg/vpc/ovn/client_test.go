// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package ovn

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/vpc"

	. "github.com/onsi/gomega"
)

// TestReadsEverySchema: what an older schema lacks is left out, and what a newer one adds does not matter.
func TestReadsEverySchema(t *testing.T) {
	for _, tt := range []struct {
		name, schema string
		up, private  bool
	}{{"old", oldSchema, false, false}, {"current", currentSchema, true, true}, {"newer", newerSchema, true, true}} {
		t.Run(tt.name, func(t *testing.T) {
			g := NewWithT(t)
			m := newMemory(t, nil, tt.schema)
			fill(m, tt.up, tt.private)
			before := time.Now()
			reading, err := newClient(t, Config{Southbound: "tcp:" + m.address}).Read(t.Context())
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(reading.Err).NotTo(HaveOccurred())
			g.Expect(reading.Started).To(BeTemporally(">=", before))
			g.Expect(reading.Bindings).To(ConsistOf(
				vpc.Binding{
					LogicalPort: "ns_p1", Switch: "ns_red_aSwitch", Chassis: "dpu1", Up: true, MACs: []string{"02:aa:00:00:00:01"},
					Addresses: []netip.Addr{netip.MustParseAddr("10.64.0.5"), netip.MustParseAddr("fd00::5")},
				},
				vpc.Binding{LogicalPort: "ns_p2", Switch: "ns_red_aSwitch", Chassis: "dpu2", Up: !tt.up, MACs: []string{"02:aa:00:00:00:02", "unknown"}},
				vpc.Binding{LogicalPort: "ns_p3", Switch: "ns_red_aSwitch"},
			))
			config := int64(3)
			if tt.private {
				config = 7
			}
			g.Expect(reading.Chassis).To(ConsistOf(vpc.Chassis{Name: "dpu1", Config: config}, vpc.Chassis{Name: "dpu2", Config: 4}))
		})
	}
}

func TestRaise(t *testing.T) {
	g := NewWithT(t)
	north := northbound(t)
	c := newClient(t, Config{Southbound: "tcp:127.0.0.1:1", Northbound: "tcp:" + north.address})
	for want := int64(42); want < 45; want++ {
		g.Expect(c.Raise(t.Context())).To(Equal(want))
	}
	_, err := newClient(t, Config{Southbound: "tcp:127.0.0.1:1"}).Raise(t.Context())
	g.Expect(KindOf(err)).To(Equal(Refused))
}

// TestAsksNothingElse: over everything a client does, these are all the requests that reach the databases. There is one write.
func TestAsksNothingElse(t *testing.T) {
	g := NewWithT(t)
	south, north := newMemory(t, nil, newerSchema), northbound(t)
	fill(south, true, true)
	c := newClient(t, Config{Southbound: "tcp:" + south.address, Northbound: "tcp:" + north.address})
	work := func() {
		for range 3 {
			_, err := c.Read(t.Context())
			g.Expect(err).NotTo(HaveOccurred())
			_, err = c.Raise(t.Context())
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(c.Probe(t.Context())).To(Succeed())
			g.Expect(c.Addresses(t.Context())).To(Equal(map[string][]netip.Addr{"ns_p2": {netip.MustParseAddr("10.64.0.6")}}))
		}
	}
	work()
	south.stop()
	north.stop()
	_, err := c.Read(t.Context())
	g.Expect(err).To(HaveOccurred())
	_, err = c.Raise(t.Context())
	g.Expect(err).To(HaveOccurred())
	south.start()
	north.start()
	work()
	c.Close()

	g.Expect(distinct(south.log())).To(ConsistOf(
		`reply "probe" ["are you there"]`,
		`list_dbs []`,
		`get_schema ["OVN_Southbound"]`,
		`transact ["OVN_Southbound",`+
			`{"where":[["type","==",""]],"op":"select","table":"Port_Binding","columns":["logical_port","mac","chassis","datapath","up"]},`+
			`{"where":[],"op":"select","table":"Chassis","columns":["_uuid","name","nb_cfg"]},`+
			`{"where":[],"op":"select","table":"Datapath_Binding","columns":["_uuid","external_ids"]},`+
			`{"where":[],"op":"select","table":"Chassis_Private","columns":["name","nb_cfg"]}]`,
	))
	g.Expect(distinct(north.log())).To(ConsistOf(
		`reply "probe" ["are you there"]`,
		`list_dbs []`,
		`get_schema ["OVN_Northbound"]`,
		`echo []`,
		`transact ["OVN_Northbound",`+
			`{"op":"mutate","table":"NB_Global","mutations":[["nb_cfg","+=",1]],"where":[["nb_cfg","\u003e=",0]]},`+
			`{"where":[],"op":"select","table":"NB_Global","columns":["nb_cfg"]}]`,
		`transact ["OVN_Northbound",{"where":[],"op":"select","table":"NB_Global","columns":["nb_cfg"]}]`,
		`transact ["OVN_Northbound",{"where":[],"op":"select","table":"Logical_Switch_Port","columns":["name","dynamic_addresses"]}]`,
	))
}

func distinct(all []string) []string {
	seen := map[string]bool{}
	var once []string
	for _, one := range all {
		if !seen[one] {
			seen[one] = true
			once = append(once, one)
		}
	}
	return once
}

// TestSurvivesRestart: a connection that was lost is made anew, and no increment is made twice.
func TestSurvivesRestart(t *testing.T) {
	g := NewWithT(t)
	south, north := newMemory(t, nil, currentSchema), northbound(t)
	c := newClient(t, Config{Southbound: "tcp:" + south.address, Northbound: "tcp:" + north.address})
	for want := int64(42); want < 52; want++ {
		g.Expect(c.Raise(t.Context())).To(Equal(want))
		_, err := c.Read(t.Context())
		g.Expect(err).NotTo(HaveOccurred())
		for _, m := range []*memory{south, north} {
			m.stop()
			m.start()
		}
	}
}

// TestHungServer: a question ends with its deadline, holds one request, and the next is well once the server is.
func TestHungServer(t *testing.T) {
	g := NewWithT(t)
	south, other := newMemory(t, nil, currentSchema), newMemory(t, nil, currentSchema)
	fill(south, true, true)
	c := newClient(t, Config{Southbound: "tcp:" + south.address, Timeout: 300 * time.Millisecond})
	_, err := c.Read(t.Context())
	g.Expect(err).NotTo(HaveOccurred())
	asked := len(south.log())

	resume := south.hang()
	var wait sync.WaitGroup
	for range 5 {
		wait.Go(func() {
			reading, err := c.Read(t.Context())
			g.Expect(KindOf(err)).To(Equal(Unreachable))
			g.Expect(err).To(MatchError(ContainSubstring("OVN's southbound database at tcp:" + south.address + " does not answer: no answer in time")))
			g.Expect(reading.Err).To(Equal(err))
			g.Expect(reading.Bindings).To(BeEmpty())
		})
	}
	_, err = newClient(t, Config{Southbound: "tcp:" + other.address}).Read(t.Context())
	g.Expect(err).NotTo(HaveOccurred())
	wait.Wait()
	// All five began at once, and four of them only waited for their turn.
	g.Expect(len(south.log()) - asked).To(BeNumerically("<=", 2))

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = c.Read(ctx)
	g.Expect(err).To(MatchError(context.Canceled))

	resume()
	reading, err := c.Read(t.Context())
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(reading.Bindings).To(HaveLen(3))
}

// TestRaiseIsSentOnce: of an increment whose answer was lost nobody knows; it is not repeated.
func TestRaiseIsSentOnce(t *testing.T) {
	g := NewWithT(t)
	north := northbound(t)
	answer, lose := north.answer, false
	north.answer = func(method string, params []json.RawMessage) string {
		said := answer(method, params)
		if lose && method == "transact" {
			lose = false
			north.drop()
		}
		return said
	}
	c := newClient(t, Config{Southbound: "tcp:127.0.0.1:1", Northbound: "tcp:" + north.address, Timeout: 300 * time.Millisecond})
	g.Expect(c.Raise(t.Context())).To(Equal(int64(42)))
	lose = true
	_, err := c.Raise(t.Context())
	g.Expect(KindOf(err)).To(Equal(Unreachable))
	g.Expect(c.Raise(t.Context())).To(Equal(int64(44)))
}

// TestClose: connections end, what is under way fails, and nothing is asked later.
func TestClose(t *testing.T) {
	g := NewWithT(t)
	south := newMemory(t, nil, currentSchema)
	c := newClient(t, Config{Southbound: "tcp:" + south.address})
	_, err := c.Read(t.Context())
	g.Expect(err).NotTo(HaveOccurred())
	resume := south.hang()
	defer resume()
	failed := make(chan error)
	asked := len(south.log())
	go func() {
		_, err := c.Read(t.Context())
		failed <- err
	}()
	g.Eventually(south.log).Should(HaveLen(asked + 1))
	c.Close()
	g.Eventually(failed).Should(Receive(MatchError(errClosed)))
	_, err = c.Read(t.Context())
	g.Expect(err).To(MatchError(errClosed))
	g.Expect(c.southbound.open.ended).To(BeClosed())
}

func TestObserves(t *testing.T) {
	g := NewWithT(t)
	north := northbound(t)
	var calls []string
	c := newClient(t, Config{
		Southbound: "tcp:" + north.address, Northbound: "tcp:" + north.address,
		Observe: func(call Call) { calls = append(calls, fmt.Sprintf("%s %s", call.Operation, call.Kind)) },
	})
	_, err := c.Raise(t.Context())
	g.Expect(err).NotTo(HaveOccurred())
	_, err = c.Read(t.Context())
	g.Expect(err).To(MatchError(ContainSubstring("it has no database OVN_Southbound")))
	g.Expect(calls).To(Equal([]string{"Raise ", "Read refused"}))
}
