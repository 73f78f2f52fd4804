// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maas

import (
	"context"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func TestMachineIsReadInFull(t *testing.T) {
	r := newRegion(t, respond(200, machineJSON))
	got, err := r.client(t).Machine(context.Background(), "abc123")
	if err != nil {
		t.Fatal(err)
	}
	want := Machine{
		SystemID: "abc123", Hostname: "node-1", FQDN: "node-1.maas", Owner: "capi", Status: StatusAllocated,
		StatusMessage: "Ready", ErrorDescription: "was hot", PowerState: PowerOff, PowerType: "redfish",
		Zone: "az-1", Pool: "default", Tags: []string{"bf3", "rack-7"}, Architecture: "amd64/generic",
		CPUCount: 64, MemoryMiB: 262144, StorageMB: 1920383.410176, Ephemeral: true, IsDPU: true, ParentSystemID: "def456",
		OSystem: "ubuntu", DistroSeries: "noble", HWEKernel: "ga-24.04", Netboot: true,
		HardwareUUID: "33333333-2222-1111-0000-000000000000",
		Hardware:     map[string]string{"system_serial": "S123"},
		Annotations:  map[string]string{"maas-dpu.name": "m-1"}, BootInterfaceID: 5, IPAddresses: []string{"10.0.0.7"},
		Interfaces: []Interface{
			{ID: 5, Name: "eno1", Type: "physical", MAC: "52:54:00:aa:bb:cc", Vendor: "Intel", Product: "X710", Enabled: true,
				Fabric: "provisioning", VLANID: 12, VLANResourceID: 5001,
				Links: []Link{{Mode: "auto", Address: "10.0.0.7", CIDR: "10.0.0.0/24"}, {Mode: "link_up"}}},
			{ID: 6, Name: "enp1s0f0np0", Type: "physical", MAC: "b8:3f:d2:00:00:01", LinkConnected: true},
		},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	request := r.only(t)
	if request.method != http.MethodGet || request.path != "/MAAS/api/2.0/machines/abc123/" || len(request.query) != 0 {
		t.Errorf("request is %+v", request)
	}
	for _, part := range []string{`oauth_signature_method="PLAINTEXT"`, `oauth_signature="%26` + testSecret + `"`, `oauth_consumer_key="ConsumerKeyConsumer"`} {
		if !strings.Contains(request.authorization, part) {
			t.Errorf("authorization lacks %s", part)
		}
	}
}

func TestNotFoundIsConfirmed(t *testing.T) {
	tests := []struct {
		name string
		list http.HandlerFunc
		want string
	}{
		{"MAAS lists nothing", respond(200, "[]"), "not-found"},
		{"MAAS lists the machine", respond(200, "["+machineJSON+"]"), ""},
		{"a proxy answers everything so", respond(404, "<html>404 page not found</html>"), "unavailable"},
		{"MAAS is down", respond(503, "starting"), "retryable"},
		{"null is no list", respond(200, "null"), "malformed"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRegion(t, func(w http.ResponseWriter, req *http.Request) {
				if req.URL.Path == "/MAAS/api/2.0/machines/" {
					tt.list(w, req)
					return
				}
				respond(404, "No Machine matches the given query.")(w, req)
			})
			m, err := r.client(t).Machine(context.Background(), "abc123")
			if kinds(err) != tt.want || (err == nil) != (m.SystemID == "abc123") {
				t.Errorf("got %q (%v), %q", kinds(err), err, m.SystemID)
			}
		})
	}
}

func TestSystemIDsAreGuarded(t *testing.T) {
	r := newRegion(t, respond(200, machineJSON))
	c := r.client(t)
	ctx := context.Background()
	for _, id := range []string{"", " ", "a/b", "..", "a?op=release", "a b", "ä"} {
		calls := map[string]func() error{
			"Machine":      func() error { _, err := c.Machine(ctx, id); return err },
			"MachinesByID": func() error { _, err := c.MachinesByID(ctx, "abc123", id); return err },
			"Matching":     func() error { _, err := c.MachinesMatching(ctx, Constraints{NotSystemIDs: []string{id}}); return err },
			"Allocate":     func() error { _, err := c.Allocate(ctx, "t", Constraints{SystemIDs: []string{id}}, ""); return err },
			"Annotate":     func() error { _, err := c.Annotate(ctx, id, map[string]string{"a": "b"}); return err },
			"Deploy":       func() error { _, err := c.Deploy(ctx, id, DeployRequest{}); return err },
			"PowerOn":      func() error { return c.PowerOn(ctx, id, "") },
			"PowerOff":     func() error { return c.PowerOff(ctx, id, "") },
			"QueryPower":   func() error { _, err := c.QueryPower(ctx, id); return err },
			"Abort":        func() error { return c.Abort(ctx, id, "") },
			"MarkBroken":   func() error { return c.MarkBroken(ctx, id, "") },
			"Release":      func() error { return c.Release(ctx, id, ReleaseRequest{Erase: EraseNone}) },
			"Devices":      func() error { _, err := c.Devices(ctx, id); return err },
		}
		for name, call := range calls {
			if err := call(); kinds(err) != "argument" {
				t.Errorf("%s(%q): %v", name, id, err)
			}
		}
	}
	if seen := r.seen(); len(seen) != 0 {
		t.Errorf("server saw %+v", seen)
	}
}

func TestLists(t *testing.T) {
	ctx := context.Background()
	tests := []struct {
		name  string
		call  func(*Client) ([]Machine, error)
		query map[string][]string
	}{
		{"by token", func(c *Client) ([]Machine, error) { return c.MachinesByToken(ctx, "t1") }, map[string][]string{"agent_name": {"t1"}}},
		{"by tokens", func(c *Client) ([]Machine, error) { return c.MachinesByTokens(ctx, "t1", "t2") }, map[string][]string{"agent_name": {"t1", "t2"}}},
		{"by ID", func(c *Client) ([]Machine, error) { return c.MachinesByID(ctx, "a", "b") }, map[string][]string{"id": {"a", "b"}}},
		{"by owner", func(c *Client) ([]Machine, error) { return c.MachinesOwnedBy(ctx, "capi") }, map[string][]string{"owner": {"capi"}}},
		{"matching", func(c *Client) ([]Machine, error) {
			return c.MachinesMatching(ctx, Constraints{
				SystemIDs: []string{"a"}, NotSystemIDs: []string{"b"}, Zones: []string{"z1", "z2"}, Pool: "p", Pools: []string{"p", "q"},
				NotZones: []string{"z3"}, NotPools: []string{"p3"}, Tags: []string{"x", "y"}, NotTags: []string{"n"},
				Architecture: "amd64", MinCPU: 8, MinMemoryMiB: 1024, MinDiskGB: 100,
				Devices: []DeviceMatch{{VendorID: "15b3", ProductID: "a2dc"}, {VendorID: "15b3"}, {}},
			}, StatusReady, StatusFailedReleasing)
		}, map[string][]string{
			"id": {"a"}, "not_id": {"b"}, "zone": {"z1", "z2"}, "pool": {"p"}, "not_in_zone": {"z3"}, "not_in_pool": {"p3"},
			"tags": {"x", "y"}, "not_tags": {"n"}, "arch": {"amd64"}, "cpu_count": {"8"}, "mem": {"1024"}, "storage": {"disk:100"},
			"devices": {"vendor_id=15b3,product_id=a2dc", "vendor_id=15b3"}, "status": {"ready", "failed_releasing"},
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRegion(t, respond(200, "["+machineJSON+"]"))
			machines, err := tt.call(r.client(t))
			if err != nil || len(machines) != 1 || machines[0].SystemID != "abc123" {
				t.Fatalf("got %+v, %v", machines, err)
			}
			request := r.only(t)
			if request.path != "/MAAS/api/2.0/machines/" || !reflect.DeepEqual(map[string][]string(request.query), tt.query) {
				t.Errorf("query is %v, want %v", request.query, tt.query)
			}
		})
	}
}

func TestListsThatMustNotBeAsked(t *testing.T) {
	ctx := context.Background()
	r := newRegion(t, respond(200, "["+machineJSON+"]"))
	c := r.client(t)
	// Without a value, MAAS would list everything.
	for _, list := range []func() ([]Machine, error){
		func() ([]Machine, error) { return c.MachinesByID(ctx) },
		func() ([]Machine, error) { return c.MachinesByTokens(ctx) },
	} {
		if machines, err := list(); err != nil || machines == nil || len(machines) != 0 {
			t.Errorf("of nothing: %v, %v", machines, err)
		}
	}
	for _, list := range []func() ([]Machine, error){
		func() ([]Machine, error) { return c.MachinesByToken(ctx, "") },
		func() ([]Machine, error) { return c.MachinesByTokens(ctx, "t", "") },
		func() ([]Machine, error) { return c.MachinesOwnedBy(ctx, "") },
		func() ([]Machine, error) { return c.MachinesMatching(ctx, Constraints{}, Status(99)) },
		func() ([]Machine, error) {
			return c.MachinesMatching(ctx, Constraints{Zone: "a", Zones: []string{"b"}})
		},
	} {
		if _, err := list(); kinds(err) != "argument" {
			t.Errorf("error is %v", err)
		}
	}
	if len(r.seen()) != 0 {
		t.Errorf("server saw %+v", r.seen())
	}
}

func TestLongListsAreAskedInParts(t *testing.T) {
	r := newRegion(t, func(w http.ResponseWriter, req *http.Request) {
		var machines []string
		for _, id := range req.URL.Query()["id"] {
			machines = append(machines, machineWith(id, "null", StatusReady, ""))
		}
		respond(200, "["+strings.Join(machines, ",")+"]")(w, req)
	})
	var ids []string
	for i := range 2*idsPerQuery + 1 {
		ids = append(ids, fmt.Sprintf("m%d", i))
	}
	machines, err := r.client(t).MachinesByID(context.Background(), append(slices.Clone(ids), ids[0])...)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for i := range machines {
		got = append(got, machines[i].SystemID)
	}
	if !slices.Equal(got, ids) || len(r.seen()) != 3 {
		t.Errorf("%d machines in %d queries", len(got), len(r.seen()))
	}
}

func TestNames(t *testing.T) {
	ctx := context.Background()
	tests := []struct {
		path string
		call func(*Client) ([]string, error)
	}{
		{"/MAAS/api/2.0/zones/", func(c *Client) ([]string, error) { return c.Zones(ctx) }},
		{"/MAAS/api/2.0/resourcepools/", func(c *Client) ([]string, error) { return c.Pools(ctx) }},
		{"/MAAS/api/2.0/tags/", func(c *Client) ([]string, error) { return c.Tags(ctx) }},
	}
	for _, tt := range tests {
		r := newRegion(t, respond(200, `[{"name": "b", "id": 1}, {"name": "a", "id": 2}]`))
		names, err := tt.call(r.client(t))
		if err != nil || !slices.Equal(names, []string{"b", "a"}) || r.only(t).path != tt.path {
			t.Errorf("%s: %v, %v from %s", tt.path, names, err, r.only(t).path)
		}
		r = newRegion(t, respond(200, `null`))
		if _, err := tt.call(r.client(t)); kinds(err) != "malformed" {
			t.Errorf("%s: null gives %v", tt.path, err)
		}
	}
}

func TestWhoAmI(t *testing.T) {
	r := newRegion(t, respond(200, `{"is_superuser": true, "username": "boss", "email": "", "is_local": true, "resource_uri": "/MAAS/api/2.0/users/boss/"}`))
	account, err := r.client(t).WhoAmI(context.Background())
	if err != nil || account != (Account{Username: "boss", Superuser: true}) || r.only(t).operation != "whoami" {
		t.Errorf("got %+v, %v", account, err)
	}
	r = newRegion(t, respond(200, `{}`))
	if _, err := r.client(t).WhoAmI(context.Background()); kinds(err) != "malformed" {
		t.Errorf("an answer without a name gives %v", err)
	}
}

func TestDevices(t *testing.T) {
	r := newRegion(t, respond(200, `[
    {"id": 7, "bus": 1, "bus_name": "PCIE", "hardware_type": 4, "vendor_id": "15b3", "product_id": "a2dc", "vendor_name": "Mellanox", "product_name": "BlueField-3",
     "pci_address": "0000:03:00.0", "numa_node": 1, "physical_blockdevice": null, "physical_interface": {"id": 6, "mac_address": "B8:3F:D2:00:00:01"}, "system_id": "abc123"},
    {"id": 8, "vendor_id": "8086", "product_id": "a2dc", "physical_interface": null}]`))
	devices, err := r.client(t).Devices(context.Background(), "abc123")
	want := []Device{
		{ID: 7, VendorID: "15b3", ProductID: "a2dc", VendorName: "Mellanox", ProductName: "BlueField-3", PCIAddress: "0000:03:00.0", NUMANode: 1, InterfaceID: 6, MAC: "b8:3f:d2:00:00:01"},
		{ID: 8, VendorID: "8086", ProductID: "a2dc"},
	}
	if err != nil || !reflect.DeepEqual(devices, want) || r.only(t).path != "/MAAS/api/2.0/nodes/abc123/devices/" {
		t.Fatalf("got %+v, %v", devices, err)
	}
	if !devices[0].BlueField() || devices[1].BlueField() || (Device{VendorID: "15b3", ProductID: "1017"}).BlueField() {
		t.Error("BlueField is wrong")
	}
}

func TestStatuses(t *testing.T) {
	if len(statusTexts) != 23 || Status(13).String() != "Releasing failed" || Status(99).String() != "Status 99" {
		t.Error("names are wrong")
	}
	filters := map[string]bool{}
	releasable, aborted, owned := []Status{}, []Status{}, []Status{}
	for s := StatusNew; s <= StatusFailedTesting; s++ {
		if s.filter() == "" || filters[s.filter()] {
			t.Errorf("filter %q of %s is missing or double", s.filter(), s)
		}
		filters[s.filter()] = true
		if s.CanRelease() {
			releasable = append(releasable, s)
		}
		if s.CanAbort() {
			aborted = append(aborted, s)
		}
		if s.HoldsOwner() {
			owned = append(owned, s)
		}
		if s.Free() && s.HoldsOwner() {
			t.Errorf("%s is free and owned", s)
		}
		if s.CanDeploy() != (s == StatusAllocated) || s.Free() != (s == 0 || s == 4) {
			t.Errorf("%s: CanDeploy or Free is wrong", s)
		}
		if s.ReleaseUnderWay() != (s == 12 || s == 14) || s.ReleaseFailed() != (s == 13 || s == 15) {
			t.Errorf("%s: release predicates are wrong", s)
		}
	}
	if !slices.Equal(releasable, []Status{5, 6, 8, 9, 10, 11, 13, 15}) || !slices.Equal(aborted, []Status{1, 9, 14, 21}) {
		t.Errorf("releasable %v, aborted %v", releasable, aborted)
	}
	if !slices.Equal(owned, []Status{5, 6, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22}) {
		t.Errorf("owned %v", owned)
	}
}
