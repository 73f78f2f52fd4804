// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maascluster

import (
	"net/netip"
	"slices"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/cluster-api/util/conditions"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
)

func good() Observation {
	return Observation{
		Owned: true, IsolationRequired: true, Zones: []string{"a", "b"}, Endpoint: "192.0.2.10", VPCName: "vpc",
		Subnets: []netip.Prefix{netip.MustParsePrefix("10.64.0.0/24")}, Routed: true,
	}
}

func TestDecide(t *testing.T) {
	problem := &Problem{Reason: "Broken", Message: "broken"}
	cases := map[string]struct {
		change func(*Observation)
		reason string
	}{
		"good":                       {func(*Observation) {}, infrav1.ReadyReason},
		"no owner":                   {func(o *Observation) { o.Owned = false }, infrav1.NotStartedReason},
		"identity":                   {func(o *Observation) { o.Identity = problem }, "Broken"},
		"VPC":                        {func(o *Observation) { o.VPC = problem }, "Broken"},
		"no VPC, isolation required": {func(o *Observation) { o.VPCName = "" }, infrav1.IsolationRequiredReason},
		"no VPC, isolation optional": {func(o *Observation) { o.VPCName, o.IsolationRequired = "", false }, infrav1.ReadyReason},
		"no endpoint":                {func(o *Observation) { o.Endpoint = "" }, infrav1.EndpointMissingReason},
		"no zone":                    {func(o *Observation) { o.Zones = nil }, infrav1.NoZoneReason},
		"endpoint inside":            {func(o *Observation) { o.Endpoint = "10.64.0.9" }, infrav1.EndpointInsideVPCReason},
		"endpoint inside a pool": {func(o *Observation) {
			o.Endpoint, o.Pools = "10.65.0.9", []netip.Prefix{netip.MustParsePrefix("10.64.0.0/10")}
		}, infrav1.EndpointInsideVPCReason},
		"endpoint inside, asserted":        {func(o *Observation) { o.Endpoint, o.EndpointAsserted = "10.64.0.9", true }, infrav1.ReadyReason},
		"endpoint by name":                 {func(o *Observation) { o.Endpoint = "api.example.com" }, infrav1.ReadyReason},
		"no way out":                       {func(o *Observation) { o.Routed = false }, infrav1.SubnetNotExternallyRoutedReason},
		"no way out, asserted":             {func(o *Observation) { o.Routed, o.EndpointAsserted = false, true }, infrav1.ReadyReason},
		"deleting with machines":           {func(o *Observation) { o.Deleting, o.Machines = true, 1 }, infrav1.MachinesRemainReason},
		"deleting, all broken, no machine": {func(o *Observation) { *o = Observation{Deleting: true} }, ""},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			o := good()
			c.change(&o)
			step := decide(o)
			if step.Ready.Reason != c.reason {
				t.Errorf("Ready says %q, want %q", step.Ready.Reason, c.reason)
			}
			if step.Provision != (c.reason == infrav1.ReadyReason) {
				t.Errorf("provision is %v", step.Provision)
			}
			if step.DropFinalizer != (o.Deleting && o.Machines == 0) {
				t.Errorf("drop is %v", step.DropFinalizer)
			}
		})
	}
}

func TestProvisionedIsNeverTakenBack(t *testing.T) {
	object := &infrav1.MaasCluster{}
	report(object, decide(good()))
	broken := good()
	broken.VPC = &Problem{Reason: infrav1.VPCNotReadyReason}
	report(object, decide(broken))
	if !ptr.Deref(object.Status.Initialization.Provisioned, false) {
		t.Error("provisioned flipped back")
	}
	if conditions.IsTrue(object, infrav1.ReadyCondition) || conditions.Get(object, infrav1.VPCReadyCondition).Status != metav1.ConditionFalse {
		t.Error("the conditions do not say that the VPC is not ready")
	}
	if len(object.Status.FailureDomains) != 2 || !ptr.Deref(object.Status.FailureDomains[0].ControlPlane, false) {
		t.Errorf("failure domains: %+v", object.Status.FailureDomains)
	}
}

func TestCommonZones(t *testing.T) {
	for _, c := range []struct{ identity, wanted, common []string }{
		{[]string{"a", "b"}, nil, []string{"a", "b"}},
		{[]string{"a", "b"}, []string{"b", "c"}, []string{"b"}},
		{nil, []string{"b"}, []string{}},
	} {
		if got := commonZones(c.identity, c.wanted); !slices.Equal(got, c.common) {
			t.Errorf("%v and %v: %v", c.identity, c.wanted, got)
		}
	}
}
