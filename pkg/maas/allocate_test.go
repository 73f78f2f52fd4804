// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maas

import (
	"context"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func TestAllocateSendsItsConstraints(t *testing.T) {
	r := newRegion(t, respond(200, machineJSON))
	machine, err := r.client(t).Allocate(context.Background(), "token", Constraints{
		SystemIDs: []string{"a", "b"}, Zone: "z1", Zones: []string{"z1", "z2"}, Pools: []string{"p1"}, NotPools: []string{"p2"},
		Tags: []string{"x", "y"}, NotTags: []string{"n", ""}, Architecture: "amd64/generic", MinCPU: 8, MinMemoryMiB: 1024, MinDiskGB: 100,
		Devices: []DeviceMatch{{VendorID: VendorMellanox}},
	}, "for m-1")
	if err != nil || machine.SystemID != "abc123" || !machine.IsDPU || machine.ParentSystemID != "def456" {
		t.Fatalf("got %+v, %v", machine, err)
	}
	request := r.only(t)
	want := map[string][]string{
		"system_id": {"a", "b"}, "zone": {"z1"}, "pool": {"p1"}, "not_in_pool": {"p2"}, "tags": {"x", "y"}, "not_tags": {"n"},
		"arch": {"amd64/generic"}, "cpu_count": {"8"}, "mem": {"1024"}, "storage": {"disk:100"}, "devices": {"vendor_id=15b3"},
		"agent_name": {"token"}, "comment": {"for m-1"},
	}
	if request.method != http.MethodPost || request.path != "/MAAS/api/2.0/machines/" || request.operation != "allocate" {
		t.Errorf("request is %+v", request)
	}
	if !reflect.DeepEqual(map[string][]string(request.form), want) {
		t.Errorf("form is %v, want %v", request.form, want)
	}
}

// What allocate cannot express is turned into system IDs, and none of it is sent.
func TestAllocateResolvesWhatItCanNotSay(t *testing.T) {
	listed := "[" + machineWith("m1", "null", StatusReady, "") + "," + machineWith("m2", "null", StatusReady, "") + "]"
	tests := []struct {
		name        string
		constraints Constraints
		list        string
		query, form map[string][]string
		want        string
	}{
		{
			name: "excluded machines", constraints: Constraints{NotSystemIDs: []string{"m3"}, Zone: "z1", MinCPU: 4}, list: listed,
			query: map[string][]string{"not_id": {"m3"}, "zone": {"z1"}, "cpu_count": {"4"}, "status": {"ready"}},
			form:  map[string][]string{"system_id": {"m1", "m2"}, "zone": {"z1"}, "cpu_count": {"4"}},
		},
		{
			name: "several zones and pools", constraints: Constraints{Zones: []string{"z1", "z2"}, Pools: []string{"p1", "p2"}, SystemIDs: []string{"m1", "m2", "m9"}}, list: listed,
			query: map[string][]string{"zone": {"z1", "z2"}, "pool": {"p1", "p2"}, "id": {"m1", "m2", "m9"}, "status": {"ready"}},
			form:  map[string][]string{"system_id": {"m1", "m2"}},
		},
		{
			name: "excluded from those offered", constraints: Constraints{SystemIDs: []string{"m1", "m2"}, NotSystemIDs: []string{"m2"}},
			form: map[string][]string{"system_id": {"m1"}},
		},
		{name: "all those offered are excluded", constraints: Constraints{SystemIDs: []string{"m1"}, NotSystemIDs: []string{"m1"}}, want: "no-match"},
		{
			name: "nothing is free", constraints: Constraints{NotSystemIDs: []string{"m3"}}, list: "[]",
			query: map[string][]string{"not_id": {"m3"}, "status": {"ready"}}, want: "no-match",
		},
		{name: "a zone that is not allowed", constraints: Constraints{Zone: "z3", Zones: []string{"z1"}}, want: "invalid constraint"},
		{name: "a pool that is not allowed", constraints: Constraints{Pool: "p3", Pools: []string{"p1"}}, want: "invalid constraint"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRegion(t, func(w http.ResponseWriter, req *http.Request) {
				if req.Method == http.MethodGet {
					respond(200, tt.list)(w, req)
					return
				}
				respond(200, machineJSON)(w, req)
			})
			before := slices.Clone(tt.constraints.SystemIDs)
			_, err := r.client(t).Allocate(context.Background(), "token", tt.constraints, "")
			if kinds(err) != tt.want {
				t.Errorf("error is %q (%v), want %q", kinds(err), err, tt.want)
			}
			if !slices.Equal(before, tt.constraints.SystemIDs) {
				t.Error("the caller's slice was changed")
			}
			var query, form map[string][]string
			for _, request := range r.seen() {
				if request.method == http.MethodGet {
					query = request.query
				} else {
					form = maps.Clone(request.form)
					delete(form, "agent_name")
				}
			}
			if !reflect.DeepEqual(query, tt.query) || !reflect.DeepEqual(form, tt.form) {
				t.Errorf("listed %v, want %v; allocated %v, want %v", query, tt.query, form, tt.form)
			}
		})
	}
}

func TestAllocateWhenListingFails(t *testing.T) {
	r := newRegion(t, respond(400, `{"zone": ["No such zone(s): z2."]}`))
	_, err := r.client(t).Allocate(context.Background(), "token", Constraints{Zones: []string{"z1", "z2"}}, "")
	if kinds(err) != "invalid constraint" || r.only(t).method != http.MethodGet {
		t.Errorf("error is %q (%v)", kinds(err), err)
	}
}

func TestAllocateNeedsAToken(t *testing.T) {
	r := newRegion(t, respond(200, machineJSON))
	for _, token := range []string{"", strings.Repeat("t", 256)} {
		if _, err := r.client(t).Allocate(context.Background(), token, Constraints{}, ""); kinds(err) != "argument" {
			t.Errorf("error is %v", err)
		}
	}
	if len(r.seen()) != 0 {
		t.Error("the server was asked")
	}
}
