// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package dpfsim

import (
	"net/netip"
	"testing"

	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

func TestAddressPool(t *testing.T) {
	ipam := func(subnet string, exclude ...any) map[string]any {
		return map[string]any{"ipv4": map[string]any{"dhcp": true, "subnet": subnet, "excludeIPs": exclude}}
	}
	for _, test := range []struct {
		name  string
		ipam  map[string]any
		ports int
		want  []string
	}{
		{"lowest after the gateway", ipam("10.0.0.0/24"), 2, []string{"10.0.0.2", "10.0.0.3"}},
		{"subnet given by a host address", ipam("10.0.0.77/24"), 1, []string{"10.0.0.2"}},
		{"excluded address and range", ipam("10.0.0.0/24", map[string]any{"ip": "10.0.0.2"},
			map[string]any{"range": map[string]any{"start": "10.0.0.4", "end": "10.0.0.9"}}), 2, []string{"10.0.0.3", "10.0.0.10"}},
		{"full, without broadcast", ipam("10.0.0.0/29"), 6, []string{"10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6", ""}},
	} {
		t.Run(test.name, func(t *testing.T) {
			g := NewWithT(t)
			object := &unstructured.Unstructured{Object: map[string]any{"spec": map[string]any{
				"vpcName": "v", "bridgedNetwork": map[string]any{"ipam": test.ipam},
			}}}
			spec, err := readSpec[virtualNetworkSpec](object)
			g.Expect(err).NotTo(HaveOccurred())
			_, pool, err := networkOf("ns", "n", spec)
			g.Expect(err).NotTo(HaveOccurred())
			for i := range test.ports {
				var want netip.Addr
				if test.want[i] != "" {
					want = netip.MustParseAddr(test.want[i])
				}
				port := string(rune('a' + i))
				g.Expect(pool.allocate(port)).To(Equal(want))
				g.Expect(pool.allocate(port)).To(Equal(want), "stable")
			}
			pool.release("a")
			g.Expect(pool.allocate("later")).To(Equal(netip.MustParseAddr(test.want[0])), "freed")
		})
	}
}

func TestHostMACs(t *testing.T) {
	c := card{DPU: DPU{PF0MAC: "58:A2:E1:73:04:A2", NumberOfPFs: 2}}
	for _, test := range []struct {
		f    function
		want string
	}{
		{function{0, noVF}, "58:a2:e1:73:04:a2"},
		{function{1, noVF}, "58:a2:e1:73:04:a3"},
		{function{2, noVF}, ""},
		{function{0, 3}, "5a:a2:e1:73:08:a2"},
	} {
		mac, ok := c.hostMAC(test.f)
		if mac != test.want || ok != (test.want != "") {
			t.Errorf("hostMAC(%v) = %q, %v; want %q", test.f, mac, ok, test.want)
		}
	}
}
