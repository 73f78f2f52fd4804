// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maassim_test

import (
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/canonical/gomaasclient/entity"
	"github.com/canonical/gomaasclient/entity/node"
	. "github.com/onsi/gomega"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/maassim"
)

var bluefield = maassim.Device{
	VendorID: "15b3", ProductID: "a2dc", VendorName: "Mellanox Technologies", ProductName: "MT43244 BlueField-3",
}

func fleet() []maassim.Machine {
	return []maassim.Machine{
		{SystemID: "big111", CPUCount: 64, MemoryMiB: 262144, StorageMB: 4e6},
		{SystemID: "small1", CPUCount: 4, MemoryMiB: 8192, StorageMB: 1e5, Tags: []string{"old"}},
		{SystemID: "dpu111", CPUCount: 32, Zone: "az1", Pool: "gold", Tags: []string{"dpu"}, Devices: []maassim.Device{bluefield}},
		{SystemID: "arm111", CPUCount: 48, Architecture: "arm64"},
		{SystemID: "broken", CPUCount: 1, MemoryMiB: 1024, Status: maassim.StatusBroken},
	}
}

func TestAllocateConstraints(t *testing.T) {
	cases := map[string]struct {
		form url.Values
		want string // system ID; empty for 409
	}{
		"nothing: the cheapest":     {url.Values{}, "small1"},
		"system_id":                 {url.Values{"system_id": {"big111"}}, "big111"},
		"any of several system_ids": {url.Values{"system_id": {"big111", "dpu111", "zzzzzz"}}, "dpu111"},
		"a system_id not Ready":     {url.Values{"system_id": {"broken"}}, ""},
		"tags":                      {url.Values{"tags": {"dpu"}}, "dpu111"},
		"all tags, comma separated": {url.Values{"tags": {"dpu,old"}}, ""},
		"not_tags":                  {url.Values{"not_tags": {"old"}}, "dpu111"},
		"zone":                      {url.Values{"zone": {"az1"}}, "dpu111"},
		"not_in_zone":               {url.Values{"not_in_zone": {"default"}}, "dpu111"},
		"pool":                      {url.Values{"pool": {"gold"}}, "dpu111"},
		"not_in_pool":               {url.Values{"not_in_pool": {"default"}}, "dpu111"},
		"arch":                      {url.Values{"arch": {"arm64"}}, "arm111"},
		"full arch":                 {url.Values{"arch": {"arm64/generic"}}, "arm111"},
		"cpu_count":                 {url.Values{"cpu_count": {"33"}, "arch": {"amd64"}}, "big111"},
		"mem":                       {url.Values{"mem": {"100000"}}, "big111"},
		"storage":                   {url.Values{"storage": {"root:2000"}}, "big111"},
		"storage of two disks":      {url.Values{"storage": {"root:1,data:1"}}, ""},
		"devices":                   {url.Values{"devices": {"vendor_id=15b3,product_id=a2dc"}}, "dpu111"},
		"other devices":             {url.Values{"devices": {"vendor_id=15b3,product_id=a2d6"}}, ""},
		"name":                      {url.Values{"name": {"node-arm111.maas"}}, "arm111"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			l := newLab(t, maassim.Timing{}, fleet()...)
			answer := l.raw(http.MethodPost, "machines/?op=allocate", l.oauth(tenantKey, nil), tc.form)
			owned := ""
			for _, m := range l.region.Machines() {
				if m.Owner == "tenant" {
					owned += m.SystemID
				}
			}
			g.Expect(owned).To(Equal(tc.want), answer.body)
			if tc.want == "" {
				g.Expect(answer.code).To(Equal(http.StatusConflict))
				g.Expect(answer.header).NotTo(HaveKey("Retry-After"))
			} else {
				g.Expect(answer.body).To(ContainSubstring(`"system_id": "` + tc.want + `"`))
			}
		})
	}
}

func TestAllocateRefusals(t *testing.T) {
	l := newLab(t, maassim.Timing{}, maassim.Machine{SystemID: "abc123"})
	cases := map[string]struct {
		form url.Values
		code int
		body string
	}{
		"unknown constraint": {url.Values{"foo": {"1"}}, 400, `{"foo": ["No such constraint."]}`},
		"deploy's parameter": {url.Values{"install_kvm": {"true"}}, 400, `{"install_kvm": ["No such constraint."]}`},
		"twin that is not":   {url.Values{"not_zone": {"az1"}}, 400, `{"not_zone": ["No such constraint."]}`},
		"unknown tag":        {url.Values{"tags": {"nope"}}, 400, `{"tags": ["No such tag(s): 'nope'."]}`},
		"unknown pool":       {url.Values{"pool": {"nope"}}, 400, `{"pool": ["No such pool(s): nope."]}`},
		"unknown zone":       {url.Values{"zone": {"nope"}}, 400, `{"zone": ["No such zone(s): nope."]}`},
		"bad boolean":        {url.Values{"dry_run": {"maybe"}}, 400, "Invalid dry_run: Value should be 'true' or 'false'"},
		"bad number":         {url.Values{"cpu_count": {"x"}}, 400, `{"cpu_count": ["Invalid CPU count: number required."]}`},
		"bad arch":           {url.Values{"arch": {"vax"}}, 400, `{"arch": ["Architecture not recognised."]}`},
		"bad devices":        {url.Values{"devices": {"foo"}}, 400, `{"devices": ["Unknown devices constraint: 'foo"]}`},
		"unknown system_id":  {url.Values{"system_id": {"zzzzzz"}, "agent_name": {"t"}}, 409, "No machine with system ID zzzzzz available."},
		"too much": {url.Values{"mem": {"9999999"}, "agent_name": {"t"}}, 409,
			`No available machine matches constraints: [('agent_name', ['t']), ('mem', ['9999999'])] (resolved to "mem=9999999.0")`},
		"long agent_name": {url.Values{"agent_name": {strings.Repeat("x", 256)}}, 400,
			`{"agent_name": ["Ensure this value has at most 255 characters (it has 256)."]}`},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			answer := l.raw(http.MethodPost, "machines/?op=allocate", l.oauth(tenantKey, nil), tc.form)
			g.Expect(answer.code).To(Equal(tc.code), answer.body)
			if strings.HasPrefix(tc.body, "{") {
				g.Expect(answer.header.Get("Content-Type")).To(Equal("application/json"))
				g.Expect(answer.body).To(MatchJSON(tc.body))
			} else {
				g.Expect(answer.body).To(Equal(tc.body))
			}
			g.Expect(l.region.Journal()).To(BeEmpty())
		})
	}
}

func TestAllocateDryRunTakesNothing(t *testing.T) {
	g := NewWithT(t)
	l := newLab(t, maassim.Timing{}, maassim.Machine{SystemID: "abc123"})
	m, err := l.tenant.Machines.Allocate(&entity.MachineAllocateParams{DryRun: true})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(m.SystemID).To(Equal("abc123"))
	g.Expect(m.Status).To(Equal(node.StatusReady))
	g.Expect(l.state("abc123").Status).To(Equal(maassim.StatusReady))
	g.Expect(l.region.Journal()).To(BeEmpty())
}

// TestAllocateIsAtomicButNotIdempotent: one winner per machine, and one token may hold many.
func TestAllocateIsAtomicButNotIdempotent(t *testing.T) {
	g := NewWithT(t)
	machines := []maassim.Machine{{SystemID: "aaaaaa"}, {SystemID: "bbbbbb"}, {SystemID: "cccccc"}}
	l := newLab(t, maassim.Timing{}, machines...)
	var wait sync.WaitGroup
	codes := make([]int, 8)
	for i := range codes {
		header := l.oauth(tenantKey, nil)
		wait.Go(func() {
			codes[i] = l.raw(http.MethodPost, "machines/?op=allocate", header, url.Values{"agent_name": {"same"}}).code
		})
	}
	wait.Wait()
	won := 0
	for _, code := range codes {
		if code == http.StatusOK {
			won++
		} else {
			g.Expect(code).To(Equal(http.StatusConflict))
		}
	}
	g.Expect(won).To(Equal(3))
	found, err := l.tenant.Machines.Get(&entity.MachinesParams{AgentName: []string{"same"}})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(found).To(HaveLen(3))
	answer := l.raw(http.MethodPost, "machines/?op=allocate", l.oauth(tenantKey, nil), url.Values{})
	g.Expect(answer.body).To(Equal("No machine available."))
}
