// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package webhooks

import (
	"testing"

	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
)

func TestTenantVPC(t *testing.T) {
	fabric := []client.Object{newFabric()}
	storage := infrav1.VPCSubnet{Name: "storage", CIDR: "10.64.1.0/24"}
	subnet := func(change func(*infrav1.VPCSubnet)) *infrav1.TenantVPC {
		s := nodes()
		change(&s)
		return newVPC(s)
	}
	excluded := func(exclusion string) *infrav1.TenantVPC {
		return subnet(func(s *infrav1.VPCSubnet) { s.ExcludeIPs = []string{exclusion} })
	}
	detached := newAttachment(t, func(a *infrav1.DPUAttachment) {
		a.Spec.State, a.Status.State = infrav1.AttachmentStateDetached, infrav1.AttachmentStateDetached
	})
	askedOnly := newAttachment(t, func(a *infrav1.DPUAttachment) { a.Spec.State = infrav1.AttachmentStateDetached })
	stale := newAttachment(t, func(a *infrav1.DPUAttachment) {
		a.Spec.State, a.Status.State, a.Generation = infrav1.AttachmentStateDetached, infrav1.AttachmentStateDetached, 2
	})
	// seen is the VPC nodes+storage with what the fabric said of subnet storage.
	seen := func(change func(*infrav1.VPCSubnetStatus)) *infrav1.TenantVPC {
		v := newVPC(nodes(), storage)
		s := infrav1.VPCSubnetStatus{Name: storage.Name, CIDR: storage.CIDR, Used: ptr.To[int32](0), Claimed: ptr.To[int32](0)}
		change(&s)
		v.Status.Subnets = []infrav1.VPCSubnetStatus{s}
		return v
	}
	// leaving is the VPC without storage, which the fabric still has.
	leaving := func(claimed int32) *infrav1.TenantVPC {
		return with(seen(func(s *infrav1.VPCSubnetStatus) { s.Claimed = ptr.To(claimed) }), func(v *infrav1.TenantVPC) { v.Spec.Subnets = v.Spec.Subnets[:1] })
	}
	adopting := newVPC()
	adopting.Spec.Adopt = &infrav1.VPCAdoption{Name: "theirs"}
	permitting := with(newFabric(), func(f *infrav1.DPUFabric) {
		f.Spec.Backend.OVNVPC = &infrav1.OVNVPCBackend{AdoptionKeyPrefixes: []string{"site.example/"}}
	})
	runCases(t, tenantVPCValidator, []verdictCase[*infrav1.TenantVPC]{
		{name: "adoption", world: []client.Object{permitting}, object: adopting},
		{name: "adoption nobody permits yet", world: fabric, object: adopting, warned: "permits no adoption yet"},
		{name: "excluded all", world: fabric, object: excluded("10.64.0.0-10.64.0.255"), refused: "leave no address of 10.64.0.0/24"},
		{name: "excluded all but one", world: fabric, object: excluded("10.64.0.0-10.64.0.253")},
		{name: "remove a subnet with a port nobody stands for", world: fabric, old: seen(func(s *infrav1.VPCSubnetStatus) { s.Used = ptr.To[int32](3) }), object: newVPC(nodes()), refused: `"storage" is in use by 3 ports on the fabric`},
		{name: "remove a subnet the fabric says nothing of", world: fabric, old: seen(func(s *infrav1.VPCSubnetStatus) { s.Used = nil }), object: newVPC(nodes()), warned: "removed when it says that there are none"},
		{name: "remove a subnet without ports", world: fabric, old: seen(func(*infrav1.VPCSubnetStatus) {}), object: newVPC(nodes())},
		{name: "remove a subnet proven free for an older generation", world: []client.Object{newFabric(), stale}, old: newVPC(nodes(), storage), object: newVPC(storage), refused: "MaasMachine m-1"},
		{name: "replace a subnet by one that overlaps", world: fabric, old: seen(func(*infrav1.VPCSubnetStatus) {}), object: newVPC(nodes(), infrav1.VPCSubnet{Name: "new", CIDR: "10.64.1.0/25"}), warned: `made when subnet "storage" (10.64.1.0/24), which was removed, is gone`},
		{name: "overlap with one that is leaving", world: fabric, old: leaving(0), object: newVPC(nodes(), infrav1.VPCSubnet{Name: "new", CIDR: "10.64.1.0/25"}), warned: "is gone from the fabric"},
		{name: "overlap with one that cannot leave", world: fabric, old: leaving(2), object: newVPC(nodes(), infrav1.VPCSubnet{Name: "new", CIDR: "10.64.1.0/25"}), refused: "used by 2 ports"},
		{name: "take the name of one that cannot leave", world: fabric, old: leaving(2), object: newVPC(nodes(), infrav1.VPCSubnet{Name: "storage", CIDR: "10.64.2.0/24"}), refused: "take another name"},
		{name: "beside one that is leaving", world: fabric, old: leaving(2), object: newVPC(nodes(), infrav1.VPCSubnet{Name: "new", CIDR: "10.64.2.0/24"})},
		{name: "everything is there", world: fabric, object: newVPC(nodes(), storage)},
		{name: "no fabric yet", object: newVPC(nodes()), warned: `DPUFabric "dpf-a" does not exist yet`},
		{
			name: "namespace not allowed", object: newVPC(nodes()), refused: `DPUFabric "dpf-a" does not allow namespace "red"`,
			world: []client.Object{with(newFabric(), func(f *infrav1.DPUFabric) { f.Spec.AllowedNamespaces = nil })},
		},
		{
			name: "namespace taken off the list", old: newVPC(nodes()), object: newVPC(nodes(), storage),
			world: []client.Object{with(newFabric(), func(f *infrav1.DPUFabric) { f.Spec.AllowedNamespaces = nil })},
		},
		{name: "outside the pools", world: fabric, object: subnet(func(s *infrav1.VPCSubnet) { s.CIDR = "10.65.0.0/24" }), refused: "choose a network inside 10.64.0.0/16, 10.80.0.0/16"},
		{name: "larger than a pool", world: fabric, object: subnet(func(s *infrav1.VPCSubnet) { s.CIDR = "10.64.0.0/12" }), refused: "outside the tenant pools"},
		{name: "in the second pool", world: fabric, object: subnet(func(s *infrav1.VPCSubnet) { s.CIDR = "10.80.0.0/24" })},
		{name: "outside the pools, admitted before", world: []client.Object{with(newFabric(), func(f *infrav1.DPUFabric) { f.Spec.TenantPools = []string{"10.80.0.0/16"} })}, old: newVPC(nodes()), object: newVPC(nodes())},
		{name: "overlapping", world: fabric, object: newVPC(nodes(), infrav1.VPCSubnet{Name: "half", CIDR: "10.64.0.128/25"}), refused: `overlaps subnet "nodes"`},
		{name: "made to overlap later", world: fabric, old: newVPC(nodes()), object: newVPC(nodes(), infrav1.VPCSubnet{Name: "half", CIDR: "10.64.0.128/25"}), refused: "must not overlap"},
		{name: "excluded address", world: fabric, object: excluded("10.64.0.10")},
		{name: "excluded range", world: fabric, object: excluded("10.64.0.10-10.64.0.20")},
		{name: "excluded nonsense", world: fabric, object: excluded("10.64.0.300"), refused: "is neither an IPv4 address nor a range"},
		{name: "excluded backwards", world: fabric, object: excluded("10.64.0.20-10.64.0.10"), refused: "write 10.64.0.10-10.64.0.20"},
		{name: "excluded outside", world: fabric, object: excluded("10.64.0.250-10.64.1.5"), refused: "name addresses of 10.64.0.0/24"},
		{name: "remove a subnet", world: fabric, old: newVPC(nodes(), storage), object: newVPC(storage)},
		{name: "remove a subnet in use", world: []client.Object{newFabric(), newAttachment(t, nil)}, old: newVPC(nodes(), storage), object: newVPC(storage), refused: "MaasMachine m-1"},
		{name: "remove a subnet that is not proven free", world: []client.Object{newFabric(), askedOnly}, old: newVPC(nodes(), storage), object: newVPC(storage), refused: "MaasMachine m-1"},
		{name: "remove a subnet that is proven free", world: []client.Object{newFabric(), detached}, old: newVPC(nodes(), storage), object: newVPC(storage)},
		{name: "remove another subnet than the one in use", world: []client.Object{newFabric(), newAttachment(t, nil)}, old: newVPC(nodes(), storage), object: newVPC(nodes())},
	})
	runRemovals(t, tenantVPCValidator, []removal[*infrav1.TenantVPC]{
		{name: "unused", world: []client.Object{detached}, object: newVPC(nodes())},
		{name: "in use", world: []client.Object{newAttachment(t, nil)}, object: newVPC(nodes()), warned: "its deletion waits"},
	})
}

func TestDPUAttachment(t *testing.T) {
	vpc := []client.Object{newVPC(nodes())}
	runCases(t, dpuAttachmentValidator, []verdictCase[*infrav1.DPUAttachment]{
		{name: "its own token", world: vpc, object: newAttachment(t, nil)},
		{name: "another machine's token", world: vpc, object: newAttachment(t, func(a *infrav1.DPUAttachment) { a.Spec.MachineName = "m-2" }), refused: "was not made for MaasMachine red/m-2"},
		{name: "another namespace's token", object: newAttachment(t, func(a *infrav1.DPUAttachment) { a.Namespace = "blue" }), refused: "was not made for MaasMachine blue/m-1"},
		{name: "no VPC yet", object: newAttachment(t, nil), warned: "does not exist yet"},
		{name: "no subnet yet", world: vpc, object: newAttachment(t, func(a *infrav1.DPUAttachment) { a.Spec.Ports[0].Subnet = "storage" }), warned: `has no subnet "storage" yet`},
	})
}

func TestDPUServer(t *testing.T) {
	server := &infrav1.DPUServer{Spec: infrav1.DPUServerSpec{FabricName: "dpf-a", Source: "rack-a", SystemID: "abc123"}}
	server.Name = infrav1.DPUServerName("rack-a", "abc123")
	runCases(t, dpuServerValidator, []verdictCase[*infrav1.DPUServer]{
		{name: "everything is there", world: []client.Object{newFabric()}, object: server},
		{name: "no fabric yet", object: server, warned: "does not exist yet"},
		{name: "no source yet", world: []client.Object{newFabric()}, object: with(server, func(s *infrav1.DPUServer) { s.Spec.Source = "rack-b" }), warned: `no claim source "rack-b" yet`},
	})
	runRemovals(t, dpuServerValidator, []removal[*infrav1.DPUServer]{
		{name: "free", object: server},
		{
			name: "held", refused: "is held by DPUAttachment red/a-1",
			object: with(server, func(s *infrav1.DPUServer) { s.Status.Holder = &infrav1.DPUServerHolder{Namespace: "red", Name: "a-1"} }),
		},
	})
}

func TestDPUFabric(t *testing.T) {
	pools := func(pools ...string) *infrav1.DPUFabric {
		return with(newFabric(), func(f *infrav1.DPUFabric) { f.Spec.TenantPools = pools })
	}
	other := with(newFabric(), func(f *infrav1.DPUFabric) { f.Name = "dpf-b" })
	renamed := with(newFabric(), func(f *infrav1.DPUFabric) { f.Spec.ClaimSources[0].Name = "rack-b" })
	runCases(t, dpuFabricValidator, []verdictCase[*infrav1.DPUFabric]{
		{name: "alone", object: newFabric()},
		{name: "source taken", world: []client.Object{other}, object: newFabric(), refused: `is a claim source of DPUFabric "dpf-b"`},
		{name: "source taken later", world: []client.Object{other}, old: renamed, object: newFabric(), refused: `is a claim source of DPUFabric "dpf-b"`},
		{name: "pool around OVN's network", object: pools("100.0.0.0/8"), refused: "overlaps 100.64.0.0/16"},
		{name: "pool inside OVN's network", object: pools("100.64.8.0/24"), refused: "overlaps 100.64.0.0/16"},
		{name: "pools overlap", object: pools("10.64.0.0/10", "10.80.0.0/16"), refused: "overlaps pool 10.64.0.0/10"},
		{name: "source with a broken bundle", object: with(newFabric(), func(f *infrav1.DPUFabric) { f.Spec.ClaimSources[0].CABundle = []byte("x") }), refused: "claimSources[0].caBundle"},
		{name: "posture with a broken bundle", object: with(newFabric(), func(f *infrav1.DPUFabric) { f.Spec.Posture.CABundle = []byte("x") }), refused: "posture.caBundle"},
		{name: "posture without credentials", object: with(newFabric(), func(f *infrav1.DPUFabric) { f.Spec.Posture.Mode = infrav1.PostureEnforce }), warned: "posture.secretRef"},
		{name: "one check without credentials", object: with(newFabric(), func(f *infrav1.DPUFabric) {
			f.Spec.Posture.Overrides = []infrav1.PostureOverride{{Check: "SecureBoot", Mode: infrav1.PostureWarn}}
		}), warned: "posture.secretRef"},
		{name: "posture", object: with(newFabric(), func(f *infrav1.DPUFabric) {
			f.Spec.Posture = infrav1.Posture{Mode: infrav1.PostureEnforce, SecretRef: &infrav1.LocalSecretReference{Name: "bmc"}}
		})},
		{name: "drop a source", old: newFabric(), object: renamed},
		{name: "drop a source in use", world: []client.Object{newAttachment(t, nil)}, old: newFabric(), object: renamed, refused: "in use by DPUAttachments red/a-1"},
		{name: "metadata", world: []client.Object{other}, old: newFabric(), object: with(newFabric(), func(f *infrav1.DPUFabric) { moving(f) })},
	})
	runRemovals(t, dpuFabricValidator, []removal[*infrav1.DPUFabric]{
		{name: "unused", object: newFabric()},
		{name: "in use", world: []client.Object{newVPC(nodes())}, object: newFabric(), warned: "TenantVPC red/red"},
	})
}
