// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maassim_test

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"

	"github.com/canonical/gomaasclient/entity"
	"github.com/canonical/gomaasclient/entity/event"
	. "github.com/onsi/gomega"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/maassim"
)

func TestListFilters(t *testing.T) {
	l := newLab(t, maassim.Timing{}, append(fleet(), maassim.Machine{SystemID: "nic111", PoweredOn: true, Interfaces: []maassim.Interface{
		{Name: "eth0", MAC: "02:AA:00:00:00:01", Mode: "AUTO", Subnet: "10.20.0.0/24", Fabric: "prov"},
	}})...)
	l.allocate(l.tenant, "dpu111", "tok")
	all := "big111 small1 dpu111 arm111 broken nic111"
	cases := map[string]struct{ query, want string }{
		"everything":              {"", all},
		"id":                      {"id=big111&id=arm111", "big111 arm111"},
		"not_id":                  {"not_id=big111", strings.TrimPrefix(all, "big111 ")},
		"unknown id":              {"id=zzzzzz", ""},
		"system_id":               {"system_id=arm111", "arm111"},
		"hostname":                {"hostname=node-arm111", "arm111"},
		"mac_address":             {"mac_address=02:aa:00:00:00:01", "nic111"},
		"agent_name":              {"agent_name=tok", "dpu111"},
		"unknown agent_name":      {"agent_name=nope", ""},
		"status":                  {"status=allocated&status=broken", "dpu111 broken"},
		"not_status":              {"not_status=ready", "dpu111 broken"},
		"owner":                   {"owner=tenant", "dpu111"},
		"not_owner":               {"not_owner=tenant&status=broken", "broken"},
		"power_state":             {"power_state=on", "nic111"},
		"tags":                    {"tags=dpu", "dpu111"},
		"all of the tags":         {"tags=dpu&tags=old", ""},
		"not_tags":                {"not_tags=old&cpu_count=1&mem=1&arch=amd64&zone=default&pool=default", "big111 broken nic111"},
		"cpu and memory":          {"cpu_count=32&mem=65536", "big111 dpu111 arm111"},
		"zone":                    {"zone=az1", "dpu111"},
		"not_in_zone":             {"not_in_zone=default", "dpu111"},
		"not_in_pool":             {"not_in_pool=default", "dpu111"},
		"arch":                    {"arch=arm64", "arm111"},
		"devices":                 {"devices=vendor_id%3D15b3", "dpu111"},
		"fabrics":                 {"fabrics=prov", "nic111"},
		"subnets":                 {"subnets=cidr:10.20.0.0/24", "nic111"},
		"and between the filters": {"status=allocated&tags=old", ""},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			answer := l.raw(http.MethodGet, "machines/?"+tc.query, l.oauth(tenantKey, nil), nil)
			g.Expect(answer.code).To(Equal(200), answer.body)
			found := []string{}
			for line := range strings.SplitSeq(answer.body, "\n") {
				// The machine's own identifier stands two levels deep, its parts' deeper.
				if id, ok := strings.CutPrefix(line, `        "system_id": "`); ok {
					found = append(found, strings.TrimSuffix(strings.TrimSuffix(id, ","), `"`))
				}
			}
			g.Expect(strings.Join(found, " ")).To(Equal(tc.want))
		})
	}
}

func TestListRefusals(t *testing.T) {
	l := newLab(t, maassim.Timing{})
	for query, want := range map[string]string{
		"foo=1":           `{"foo": ["No such constraint."]}`,
		"tags=nope":       `{"tags": ["No such tag(s): 'nope'."]}`,
		"pool=nope":       `{"pool": ["No such pool(s): nope."]}`,
		"zone=nope":       `{"zone": ["No such zone(s): nope."]}`,
		"owner=nope":      `{"owner": ["No such owner: 'nope'."]}`,
		"status=Bad":      `{"status": ["Select a valid choice. Bad is not one of the available choices."]}`,
		"power_state=dim": `{"power_state": ["Select a valid choice. dim is not one of the available choices."]}`,
	} {
		t.Run(query, func(t *testing.T) {
			answer := l.raw(http.MethodGet, "machines/?"+query, l.oauth(tenantKey, nil), nil)
			NewWithT(t).Expect(answer.code).To(Equal(400))
			NewWithT(t).Expect(answer.body).To(MatchJSON(want))
		})
	}
}

func TestListAllocatedAndRegistered(t *testing.T) {
	g := NewWithT(t)
	l := newLab(t, maassim.Timing{}, fleet()...)
	l.allocate(l.tenant, "dpu111", "a")
	l.allocate(l.other, "big111", "b")
	mine, err := l.tenant.Machines.ListAllocated()
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(mine).To(HaveLen(1))
	g.Expect(mine[0].SystemID).To(Equal("dpu111"))
	mac := l.state("big111").Spec.Interfaces[0].MAC
	g.Expect(l.raw(http.MethodGet, "machines/?op=is_registered&mac_address="+mac, l.oauth(tenantKey, nil), nil).body).To(Equal("true"))
	g.Expect(l.raw(http.MethodGet, "machines/?op=is_registered&mac_address=00:00:00:00:00:00", l.oauth(tenantKey, nil), nil).body).To(Equal("false"))
}

func TestEventsFeed(t *testing.T) {
	g := NewWithT(t)
	l := newLab(t, maassim.Timing{}, maassim.Machine{SystemID: "abc123"}, maassim.Machine{SystemID: "other1"})
	l.deployed(l.tenant, "abc123", "tok")
	l.deployed(l.other, "other1", "theirs")
	feed := func(params entity.EventParams) []entity.Event {
		answer, err := l.tenant.Events.Get(&params)
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(answer.Count).To(Equal(len(answer.Events)))
		return answer.Events
	}
	all := feed(entity.EventParams{Level: event.INFO, Limit: "1000"})
	types := []string{}
	for i, e := range all {
		g.Expect(e.Node).To(Equal("abc123"), "a machine of another account has no events for us")
		if i > 0 {
			g.Expect(e.ID).To(BeNumerically("<", all[i-1].ID), "newest first")
		}
		types = append(types, e.Type)
	}
	g.Expect(types).To(ContainElements("Deployed", "Deploying", "User acquiring node"))
	g.Expect(all[0].Created).To(MatchRegexp(`^[A-Z][a-z]{2}, [0-9]{2} [A-Z][a-z]{2}\. [0-9]{4} [0-9:]{8}$`))

	oldest := all[len(all)-1].ID
	after := feed(entity.EventParams{After: strconv.Itoa(oldest), Limit: "1"})
	g.Expect(after).To(HaveLen(1))
	g.Expect(after[0].ID).To(Equal(all[len(all)-2].ID), "after gives the oldest above the mark")
	before := feed(entity.EventParams{Before: strconv.Itoa(all[0].ID), Limit: "1"})
	g.Expect(before[0].ID).To(Equal(all[1].ID))
	g.Expect(feed(entity.EventParams{AgentName: "tok"})).To(HaveLen(len(all)))
	g.Expect(feed(entity.EventParams{AgentName: "nope"})).To(BeEmpty())
	caused := feed(entity.EventParams{ID: "abc123", Owner: "tenant"})
	g.Expect(caused).To(HaveLen(2), "acquiring and starting; what MAAS did by itself has no user")
	g.Expect(caused).To(HaveEach(HaveField("UserName", "tenant")))
	debug := feed(entity.EventParams{Level: event.DEBUG, Limit: "1000"})
	g.Expect(len(debug)).To(BeNumerically(">", len(all)))

	_, err := l.tenant.Machine.Release("abc123", &entity.MachineReleaseParams{})
	g.Expect(err).NotTo(HaveOccurred())
	g.Eventually(l.status("abc123")).Should(Equal(maassim.StatusReady))
	l.allocate(l.other, "abc123", "new")
	g.Expect(feed(entity.EventParams{})).To(BeEmpty(), "its past goes with its owner")
}

func TestEventsRefusals(t *testing.T) {
	l := newLab(t, maassim.Timing{})
	for query, want := range map[string]string{
		"limit=2000":       "Requested number of events 2000 is greater than limit: 1000",
		"level=nope":       "Unrecognised log level: nope",
		"after=1&before=2": "There is undetermined behaviour when both ``after`` and ``before`` are specified.",
	} {
		answer := l.raw(http.MethodGet, "events/?op=query&"+query, l.oauth(tenantKey, nil), nil)
		NewWithT(t).Expect(answer.code).To(Equal(400))
		NewWithT(t).Expect(answer.body).To(Equal(want))
	}
}

func TestInventoryReads(t *testing.T) {
	g := NewWithT(t)
	l := newLab(t, maassim.Timing{}, maassim.Machine{
		SystemID: "abc123", Devices: []maassim.Device{{VendorID: "8086", ProductID: "1"}, bluefieldOn("p0")},
		Interfaces: []maassim.Interface{
			{Name: "eno1", MAC: "02:00:00:00:01:01", Mode: "AUTO", LinkConnected: true, VLAN: "7"},
			{Name: "p0", MAC: "02:00:00:00:01:02", Vendor: "Mellanox Technologies", LinkConnected: true, Fabric: "dpu"},
		},
	})
	devices, err := l.tenant.NodeDevices.Get("abc123", &entity.NodeDeviceParams{VendorID: "15b3"})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(devices).To(HaveLen(1))
	g.Expect(devices[0].ProductID).To(Equal("a2dc"))
	g.Expect(devices[0].PhysicalNetworkInterface.MACAddress).To(Equal("02:00:00:00:01:02"))
	nics, err := l.tenant.NetworkInterfaces.Get("abc123")
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(nics).To(HaveLen(2))
	g.Expect(nics[0].VLAN.VID).To(Equal(7))
	g.Expect(nics[0].Links[0].Mode).To(Equal("auto"))
	g.Expect(nics[0].Links[0].IPAddress).To(BeEmpty())
	g.Expect(nics[1].Links).To(BeEmpty())
	g.Expect(nics[1].VLAN.ID).NotTo(Equal(nics[0].VLAN.ID))
	zones, err := l.tenant.Zones.Get()
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(zones).To(HaveLen(2))
	pools, err := l.tenant.ResourcePools.Get()
	g.Expect(err).NotTo(HaveOccurred())
	pool, err := l.tenant.ResourcePool.Get(pools[1].ID)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(pool.Name).To(Equal("gold"))
	tags, err := l.tenant.Tags.Get()
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(tags).To(HaveLen(2))
	subnets, err := l.tenant.Subnets.Get()
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(subnets).To(HaveLen(1))
	results, err := l.tenant.NodeResults.Get("abc123", &entity.NodeResultParams{})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(results).To(HaveLen(1))
	v, err := l.tenant.Version.Get()
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(v.Version).To(Equal("3.7.3"))
}

func bluefieldOn(nic string) maassim.Device {
	d := bluefield
	d.Interface = nic
	return d
}

func TestCallsAreCountedByMachineAndClaim(t *testing.T) {
	g := NewWithT(t)
	l := newLab(t, maassim.Timing{}, maassim.Machine{SystemID: "abc123"})
	l.deployed(l.tenant, "abc123", "tok")
	for range 2 {
		_, err := l.tenant.Machine.Get("abc123")
		g.Expect(err).NotTo(HaveOccurred())
	}
	_, err := l.tenant.Machines.Get(&entity.MachinesParams{AgentName: []string{"tok"}})
	g.Expect(err).NotTo(HaveOccurred())
	_ = l.raw(http.MethodPost, "machines/abc123/?op=release", l.oauth(otherKey, nil), url.Values{})
	call := func(user, operation, id string, code int) maassim.Call {
		return maassim.Call{User: user, Operation: operation, SystemID: id, AgentName: "tok", Code: code}
	}
	g.Expect(l.region.Calls()).To(Equal([]maassim.CallCount{
		{Call: call("other", "release", "abc123", 403), Count: 1},
		{Call: call("tenant", "allocate", "abc123", 200), Count: 1},
		{Call: call("tenant", "deploy", "abc123", 200), Count: 1},
		{Call: call("tenant", "list_machines", "", 200), Count: 1},
		{Call: call("tenant", "read_machine", "abc123", 200), Count: 2},
	}))
}

func TestSingleReads(t *testing.T) {
	l := newLab(t, maassim.Timing{}, maassim.Machine{SystemID: "abc123", Devices: []maassim.Device{bluefield}})
	device, err := l.tenant.NodeDevices.Get("abc123", &entity.NodeDeviceParams{HardwareType: "NETWORK"})
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	NewWithT(t).Expect(device).To(HaveLen(1))
	nics, err := l.tenant.NetworkInterfaces.Get("abc123")
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	for path, want := range map[string]string{
		"nodes/abc123/": `"system_id": "abc123"`,
		"nodes/abc123/devices/" + strconv.Itoa(device[0].ID) + "/":  `"product_id": "a2dc"`,
		"nodes/abc123/interfaces/" + strconv.Itoa(nics[0].ID) + "/": `"name": "eno1"`,
		"zones/az1/":            `"name": "az1"`,
		"resourcepool/gold/":    `"name": "gold"`,
		"tags/dpu/":             `"name": "dpu"`,
		"tags/dpu/?op=machines": `[]`,
		"subnets/1/":            `"cidr": "10.10.0.0/16"`,
		"nodes/":                `"system_id": "abc123"`,
	} {
		t.Run(path, func(t *testing.T) {
			answer := l.raw(http.MethodGet, path, l.oauth(tenantKey, nil), nil)
			NewWithT(t).Expect(answer.code).To(Equal(200))
			NewWithT(t).Expect(answer.body).To(ContainSubstring(want))
		})
	}
	for path, want := range map[string]string{
		"nodes/abc123/devices/1/":    "No NodeDevice matches the given query.",
		"nodes/abc123/interfaces/0/": "No Interface matches the given query.",
		"zones/nope/":                "No Zone matches the given query.",
		"resourcepool/77/":           "No ResourcePool matches the given query.",
		"tags/nope/":                 "No Tag matches the given query.",
		"tags/nope/?op=machines":     "No Tag matches the given query.",
		"subnets/77/":                "No Subnet matches the given query.",
	} {
		t.Run(path, func(t *testing.T) {
			answer := l.raw(http.MethodGet, path, l.oauth(tenantKey, nil), nil)
			NewWithT(t).Expect(answer.code).To(Equal(404))
			NewWithT(t).Expect(answer.body).To(Equal(want))
		})
	}
}
