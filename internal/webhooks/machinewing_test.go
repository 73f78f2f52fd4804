// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package webhooks

import (
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
)

func TestMaasCluster(t *testing.T) {
	ready := []client.Object{newIdentity(nil), newVPC(nodes())}
	inside := newMaasCluster(func(c *infrav1.MaasCluster) { c.Spec.ControlPlaneEndpoint.Host = "10.64.0.7" })
	closed := newIdentity(func(i *infrav1.MaasClusterIdentity) { i.Spec.AllowedNamespaces = nil })
	runCases(t, maasClusterValidator, []verdictCase[*infrav1.MaasCluster]{
		{name: "everything is there", world: ready, object: newMaasCluster(nil)},
		{name: "no identity yet", world: []client.Object{newVPC(nodes())}, object: newMaasCluster(nil), warned: `MaasClusterIdentity "rack-a" does not exist yet`},
		{name: "no VPC yet", world: []client.Object{newIdentity(nil)}, object: newMaasCluster(nil), warned: `TenantVPC "red" does not exist yet`},
		{
			name: "the VPC lives in the fabric's own cluster", object: newMaasCluster(nil),
			world: []client.Object{newIdentity(func(i *infrav1.MaasClusterIdentity) { i.Spec.FabricAccess = &infrav1.FabricAccess{} })},
		},
		{name: "namespace not allowed", world: []client.Object{closed, newVPC(nodes())}, object: newMaasCluster(nil), refused: `does not allow namespace "red"`},
		{
			name: "namespace allowed by label", object: newMaasCluster(nil),
			world: []client.Object{newVPC(nodes()), newIdentity(func(i *infrav1.MaasClusterIdentity) {
				i.Spec.AllowedNamespaces = &infrav1.AllowedNamespaces{Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"rack": "a"}}}
			})},
		},
		{
			name: "namespace not allowed by label", object: newMaasCluster(nil), refused: "does not allow namespace",
			world: []client.Object{newVPC(nodes()), newIdentity(func(i *infrav1.MaasClusterIdentity) {
				i.Spec.AllowedNamespaces = &infrav1.AllowedNamespaces{Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"rack": "b"}}}
			})},
		},
		{
			name: "a namespace taken off the list keeps its clusters", world: []client.Object{closed, newVPC(nodes())},
			old: newMaasCluster(nil), object: with(newMaasCluster(nil), func(c *infrav1.MaasCluster) { c.Labels = map[string]string{"x": "y"} }),
		},
		{
			name: "isolation required and no VPC", world: ready, refused: "requires isolation",
			object: newMaasCluster(func(c *infrav1.MaasCluster) { c.Spec.VPCName = "" }),
		},
		{
			name: "isolation optional and no VPC", object: newMaasCluster(func(c *infrav1.MaasCluster) { c.Spec.VPCName = "" }),
			world: []client.Object{newIdentity(func(i *infrav1.MaasClusterIdentity) { i.Spec.Isolation = infrav1.IsolationOptional })},
		},
		{name: "endpoint inside the VPC", world: ready, object: inside, refused: "endpointReachability: Asserted"},
		{
			name: "endpoint inside a pool of the fabric", object: inside, refused: "tenant pool 10.64.0.0/10",
			world: []client.Object{newIdentity(nil), with(newVPC(), func(v *infrav1.TenantVPC) { v.Status.TenantPools = []string{"10.64.0.0/10"} })},
		},
		{
			name: "endpoint inside the VPC, vouched for", world: ready,
			object: with(inside, func(c *infrav1.MaasCluster) { c.Spec.EndpointReachability = infrav1.EndpointReachabilityAsserted }),
		},
		{
			name: "endpoint set later, inside the VPC", world: ready, object: inside, refused: "nobody can dial in",
			old: newMaasCluster(func(c *infrav1.MaasCluster) { c.Spec.ControlPlaneEndpoint = clusterv1.APIEndpoint{} }),
		},
		{name: "endpoint inside, admitted before", world: ready, old: inside, object: with(inside, func(c *infrav1.MaasCluster) { moving(c) })},
		{
			name: "endpoint inside an adopted VPC", object: inside, refused: "nobody can dial in",
			world: []client.Object{newIdentity(nil), with(newVPC(), func(v *infrav1.TenantVPC) {
				v.Spec.Adopt = &infrav1.VPCAdoption{Name: "theirs"}
				v.Status.Subnets = []infrav1.VPCSubnetStatus{{Name: "nodes", CIDR: "10.64.0.0/24"}}
			})},
		},
		{name: "topology dry run", world: ready, dryRun: true, object: with(inside, func(c *infrav1.MaasCluster) { topologyAsks(c) })},
		{name: "the annotation alone exempts nothing", world: ready, object: with(inside, func(c *infrav1.MaasCluster) { topologyAsks(c) }), refused: "nobody can dial in"},
		{
			name: "deleting", world: ready, object: with(inside, func(c *infrav1.MaasCluster) { deleting(c) }),
			old: newMaasCluster(func(c *infrav1.MaasCluster) { c.Spec.ControlPlaneEndpoint = clusterv1.APIEndpoint{} }),
		},
		{
			name: "zone not allowed", object: newMaasCluster(func(c *infrav1.MaasCluster) { c.Spec.FailureDomains = []string{"z2"} }), refused: "choose among z1",
			world: []client.Object{newVPC(nodes()), newIdentity(func(i *infrav1.MaasClusterIdentity) { i.Spec.AllowedZones = []string{"z1"} })},
		},
	})
}

func TestMaasClusterTemplate(t *testing.T) {
	template := &infrav1.MaasClusterTemplate{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "t"}}
	changed := with(template, func(t *infrav1.MaasClusterTemplate) { t.Spec.Template.Spec.VPCName = "red" })
	runCases(t, func(references) *validator[*infrav1.MaasClusterTemplate] { return maasClusterTemplateValidator() },
		[]verdictCase[*infrav1.MaasClusterTemplate]{
			{name: "create", object: template},
			{name: "change", old: template, object: changed, refused: "is immutable"},
			{name: "dry run of the topology controller", dryRun: true, old: template, object: with(changed, func(t *infrav1.MaasClusterTemplate) { topologyAsks(t) })},
			{name: "dry run of somebody else", dryRun: true, old: template, object: changed, refused: "is immutable"},
			{name: "metadata", old: template, object: with(template, func(t *infrav1.MaasClusterTemplate) { moving(t) })},
		})
}

func TestMaasMachine(t *testing.T) {
	machine := &infrav1.MaasMachine{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "m-1", Labels: map[string]string{clusterv1.ClusterNameLabel: "red"}},
		Spec: infrav1.MaasMachineSpec{MachineConstraints: infrav1.MachineConstraints{
			Image: "ubuntu/noble", Ports: []infrav1.MachinePort{{Name: "tenant", Subnet: "nodes"}},
		}},
	}
	change := func(f func(*infrav1.MaasMachine)) *infrav1.MaasMachine { return with(machine, f) }
	ready := []client.Object{newCluster(), newMaasCluster(nil), newIdentity(nil), newVPC(nodes())}
	noVPC := []client.Object{newCluster(), newMaasCluster(func(c *infrav1.MaasCluster) { c.Spec.VPCName = "" }), newIdentity(func(i *infrav1.MaasClusterIdentity) {
		i.Spec.Isolation = infrav1.IsolationOptional
	})}
	noPorts := change(func(m *infrav1.MaasMachine) { m.Spec.Ports = nil })
	quick := change(func(m *infrav1.MaasMachine) { m.Spec.Release.Erase = infrav1.ReleaseEraseQuick })
	overridden := func(action infrav1.OverrideAction) *infrav1.MaasMachine {
		return change(func(m *infrav1.MaasMachine) {
			m.Spec.Override = &infrav1.MachineOverride{Override: infrav1.Override{Action: action, By: "op", Reason: "why"}}
		})
	}
	runCases(t, maasMachineValidator, []verdictCase[*infrav1.MaasMachine]{
		{name: "everything is there", world: ready, object: machine},
		{name: "no cluster yet", object: noPorts},
		{name: "another provider's cluster", object: noPorts, world: []client.Object{with(newCluster(), func(c *clusterv1.Cluster) { c.Spec.InfrastructureRef.Kind = "OtherCluster" })}},
		{name: "no ports where isolation is required", world: ready, object: noPorts, refused: "name at least one DPU port"},
		{name: "no ports where isolation is optional", world: noVPC, object: noPorts},
		{name: "ports and no VPC", world: noVPC, object: machine, refused: "has no vpcName"},
		{name: "VPC missing", world: []client.Object{newCluster(), newMaasCluster(nil), newIdentity(nil)}, object: machine, warned: "does not exist yet"},
		{name: "subnet missing", world: ready, object: change(func(m *infrav1.MaasMachine) { m.Spec.Ports[0].Subnet = "storage" }), warned: `has no subnet "storage" yet`},
		{name: "erase weaker than the minimum", world: ready, object: quick, refused: "write Secure or stronger"},
		{name: "erase as the minimum", world: ready, object: change(func(m *infrav1.MaasMachine) { m.Spec.Release.Erase = infrav1.ReleaseEraseSecure })},
		{name: "erase stronger than the minimum", world: ready, object: change(func(m *infrav1.MaasMachine) { m.Spec.Release.Erase = infrav1.ReleaseEraseFull })},
		{name: "erase made weaker later", world: ready, old: machine, object: quick, refused: "write Secure or stronger"},
		{name: "erase weaker, admitted before", world: ready, old: quick, object: with(quick, func(m *infrav1.MaasMachine) { moving(m) })},
		{
			name: "pool not allowed", object: change(func(m *infrav1.MaasMachine) { m.Spec.ResourcePool = "gpu" }), refused: "choose among general",
			world: []client.Object{newCluster(), newMaasCluster(nil), newVPC(nodes()), newIdentity(func(i *infrav1.MaasClusterIdentity) { i.Spec.AllowedPools = []string{"general"} })},
		},
		{name: "abandoned", world: ready, old: machine, object: overridden(infrav1.OverrideAbandon)},
		{name: "adoption", world: ready, object: overridden(infrav1.OverrideAdoptServer), refused: "AdoptServer is not supported yet: leave override out"},
		{name: "adoption asked for later", world: ready, old: machine, object: overridden(infrav1.OverrideAdoptServer), refused: "claim it by a tag that no other server has"},
		{name: "adoption instead of abandoning", world: ready, old: overridden(infrav1.OverrideAbandon), object: overridden(infrav1.OverrideAdoptServer), refused: "is not supported yet"},
		{
			name: "adoption, admitted before", world: ready, old: overridden(infrav1.OverrideAdoptServer),
			object: with(overridden(infrav1.OverrideAdoptServer), func(m *infrav1.MaasMachine) { moving(m) }),
		},
		{
			name: "adoption, being deleted", world: ready, old: machine,
			object: with(overridden(infrav1.OverrideAdoptServer), func(m *infrav1.MaasMachine) { deleting(m) }),
		},
		{name: "its own claim", world: ready, object: change(func(m *infrav1.MaasMachine) { m.Spec.Claim = &infrav1.MachineClaim{Token: newToken(t, "m-1")} })},
		{
			name: "a copied claim", world: ready, refused: "was made for another object",
			object: change(func(m *infrav1.MaasMachine) { m.Spec.Claim = &infrav1.MachineClaim{Token: newToken(t, "m-2")} }),
		},
		{
			name: "a copied claim written later", world: ready, old: machine, refused: "was made for another object",
			object: change(func(m *infrav1.MaasMachine) { m.Spec.Claim = &infrav1.MachineClaim{Token: newToken(t, "m-2")} }),
		},
	})
}

func TestMaasMachineTemplate(t *testing.T) {
	template := &infrav1.MaasMachineTemplate{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "t", Labels: map[string]string{clusterv1.ClusterNameLabel: "red"}},
	}
	template.Spec.Template.Spec.Ports = []infrav1.MachinePort{{Name: "tenant", Subnet: "nodes"}}
	ready := []client.Object{newCluster(), newMaasCluster(nil), newIdentity(nil), newVPC(nodes())}
	noPorts := with(template, func(t *infrav1.MaasMachineTemplate) { t.Spec.Template.Spec.Ports = nil })
	changed := with(template, func(t *infrav1.MaasMachineTemplate) { t.Spec.Template.Spec.Image = "ubuntu/jammy" })
	runCases(t, maasMachineTemplateValidator, []verdictCase[*infrav1.MaasMachineTemplate]{
		{name: "create", world: ready, object: template},
		{name: "no ports where isolation is required", world: ready, object: noPorts, refused: "spec.template.spec.ports: Required"},
		{name: "of a cluster that is not known", world: ready, object: with(noPorts, func(t *infrav1.MaasMachineTemplate) { t.Labels = nil })},
		{name: "change", world: ready, old: template, object: changed, refused: "is immutable"},
		{name: "dry run of the topology controller", dryRun: true, old: template, object: with(changed, func(t *infrav1.MaasMachineTemplate) { topologyAsks(t) })},
		{name: "metadata", old: noPorts, world: ready, object: with(noPorts, func(t *infrav1.MaasMachineTemplate) { moving(t) })},
	})
}

func TestMaasClusterIdentity(t *testing.T) {
	key := []byte("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
	broken := []byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
	bundle := func(pem []byte) *infrav1.MaasClusterIdentity {
		return newIdentity(func(i *infrav1.MaasClusterIdentity) { i.Spec.CABundle = pem })
	}
	runCases(t, maasClusterIdentityValidator, []verdictCase[*infrav1.MaasClusterIdentity]{
		{name: "no bundle", object: newIdentity(nil)},
		{name: "a bundle of two", object: bundle(append(newCertificate(t), newCertificate(t)...))},
		{name: "no PEM", object: bundle([]byte("hello")), refused: "holds no PEM certificate"},
		{name: "a key", object: bundle(key), refused: "only CERTIFICATE is meant"},
		{name: "a broken certificate", object: bundle(broken), refused: "cannot be parsed"},
		{name: "a bundle broken later", old: newIdentity(nil), object: bundle(broken), refused: "cannot be parsed"},
		{name: "a broken bundle, admitted before", old: bundle(broken), object: with(bundle(broken), func(i *infrav1.MaasClusterIdentity) { moving(i) })},
		{name: "nobody allowed", object: newIdentity(func(i *infrav1.MaasClusterIdentity) { i.Spec.AllowedNamespaces = nil }), warned: "no namespace may use this identity"},
		{
			name: "zones, pools and namespaces taken away",
			old: newIdentity(func(i *infrav1.MaasClusterIdentity) {
				i.Spec.AllowedZones, i.Spec.AllowedPools = []string{"z1", "z2"}, []string{"general", "gpu"}
				i.Spec.AllowedNamespaces.Names = []string{"red", "blue"}
			}),
			object: newIdentity(func(i *infrav1.MaasClusterIdentity) {
				i.Spec.AllowedZones, i.Spec.AllowedPools = []string{"z1"}, []string{"gpu"}
				i.Spec.AllowedNamespaces.Names = []string{"red"}
			}),
		},
		{
			name: "without breaker, deadlines and release policy", object: newIdentity(func(i *infrav1.MaasClusterIdentity) {
				i.Spec.CircuitBreaker, i.Spec.Deadlines, i.Spec.Release = infrav1.CircuitBreaker{}, infrav1.Deadlines{}, infrav1.IdentityRelease{}
			}),
		},
		{
			name: "a selector that is none", refused: "is no label selector",
			object: newIdentity(func(i *infrav1.MaasClusterIdentity) {
				i.Spec.AllowedNamespaces.Selector = &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "a", Operator: "Like"}}}
			}),
		},
	})
	machine := &infrav1.MaasMachine{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "m-1"},
		Spec:       infrav1.MaasMachineSpec{Claim: &infrav1.MachineClaim{IdentityName: "rack-a"}},
	}
	other := newMaasCluster(func(c *infrav1.MaasCluster) { c.Spec.IdentityRef.Name = "rack-b" })
	runRemovals(t, maasClusterIdentityValidator, []removal[*infrav1.MaasClusterIdentity]{
		{name: "unused", world: []client.Object{other}, object: newIdentity(nil)},
		{name: "used by a cluster", world: []client.Object{newMaasCluster(nil)}, object: newIdentity(nil), refused: "in use by MaasCluster red/red"},
		{name: "used by a machine's claim", world: []client.Object{machine}, object: newIdentity(nil), refused: "in use by MaasMachine red/m-1"},
		{name: "moved away", world: []client.Object{machine}, object: newIdentity(func(i *infrav1.MaasClusterIdentity) { moving(i) })},
		{
			name: "with held servers", refused: "release abc123 with erase in MAAS first",
			object: newIdentity(func(i *infrav1.MaasClusterIdentity) { i.Status.Held = []infrav1.HeldServer{{SystemID: "abc123"}} }),
		},
	})
}
