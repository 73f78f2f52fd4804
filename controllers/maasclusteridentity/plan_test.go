// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maasclusteridentity

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/cluster-api/util/conditions"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
)

func TestDecide(t *testing.T) {
	unreachable := &Problem{Reason: infrav1.MaasUnreachableReason, Message: "no answer"}
	refused := &Problem{Reason: infrav1.CredentialsRefusedReason, Message: "no"}
	cases := map[string]struct {
		o           Observation
		credentials metav1.ConditionStatus
		reason      string
		drop        bool
	}{
		"good":                   {Observation{Zones: []string{"a"}}, metav1.ConditionTrue, infrav1.ReadyReason, false},
		"refused":                {Observation{Unusable: refused}, metav1.ConditionFalse, infrav1.CredentialsRefusedReason, false},
		"unreachable":            {Observation{Unusable: unreachable}, metav1.ConditionUnknown, infrav1.MaasUnreachableReason, false},
		"no zone":                {Observation{Unknown: []string{"x"}}, metav1.ConditionTrue, infrav1.NoZoneReason, false},
		"deleting, machines":     {Observation{Deleting: true, Machines: 1, Zones: []string{"a"}}, metav1.ConditionTrue, infrav1.InUseReason, false},
		"deleting, clusters":     {Observation{Deleting: true, Clusters: 1, Unusable: refused}, metav1.ConditionFalse, infrav1.InUseReason, false},
		"deleting, free":         {Observation{Deleting: true, Zones: []string{"a"}}, "", "", true},
		"deleting, free, broken": {Observation{Deleting: true, Unusable: unreachable}, "", "", true},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			step := decide(c.o)
			if step.Credentials.Status != c.credentials || step.Ready.Reason != c.reason || step.DropFinalizer != c.drop {
				t.Errorf("got %+v", step)
			}
		})
	}
}

func TestHeldServers(t *testing.T) {
	before, now := metav1.NewTime(time.Now().Add(-time.Hour)), metav1.Now()
	machine := func(name, id, reason string) infrav1.MaasMachine {
		m := infrav1.MaasMachine{ObjectMeta: metav1.ObjectMeta{Namespace: "red", Name: name}}
		m.Status.SystemID = id
		conditions.Set(&m, metav1.Condition{Type: infrav1.ReleasedCondition, Status: metav1.ConditionFalse, Reason: reason})
		return m
	}
	annotated := func(status maas.Status, hold string) maas.Machine {
		return maas.Machine{Status: status, Annotations: map[string]string{
			maas.AnnotationToken: "hash", maas.AnnotationHold: hold, maas.AnnotationNamespace: "red", maas.AnnotationName: "gone",
		}}
	}
	known := []infrav1.HeldServer{{SystemID: "abandoned", Reason: "Abandoned", Since: before}}
	machines := []infrav1.MaasMachine{
		machine("held", "held", infrav1.HeldReason), machine("fine", "fine", infrav1.NotReleasedReason), machine("again", "again", infrav1.ReleasingReason),
	}
	owned := map[string]maas.Machine{
		"abandoned": annotated(maas.StatusDeployed, "Abandoned"),
		"again":     annotated(maas.StatusDeployed, infrav1.DetachUnprovenReason), // Its machine goes on releasing it.
		"going":     annotated(maas.StatusReleasing, "Abandoned"),
		"clean":     annotated(maas.StatusDeployed, ""),
		"strange":   {Annotations: map[string]string{maas.AnnotationHold: "x"}},
	}
	got := heldServers(known, machines, owned, now)
	if len(got) != 2 || got[0].SystemID != "abandoned" || got[1].SystemID != "held" {
		t.Fatalf("held: %+v", got)
	}
	if !got[0].Since.Equal(&before) || !got[1].Since.Equal(&now) || got[0].Machine != "red/gone" || got[1].Machine != "red/held" {
		t.Errorf("held: %+v", got)
	}
	if got := heldServers(known, nil, nil, now); len(got) != 1 || got[0].SystemID != "abandoned" {
		t.Errorf("without an answer of MAAS what was known is forgotten: %+v", got)
	}
	if got := heldServers(known, nil, map[string]maas.Machine{}, now); len(got) != 0 {
		t.Errorf("what MAAS no longer holds is still listed: %+v", got)
	}
}

// TestAccountIsPinned: as long as a server is held under the account, a key of another one does not replace it.
func TestAccountIsPinned(t *testing.T) {
	changed := &Problem{Reason: infrav1.AccountChangedReason, Message: "another account's key"}
	for name, c := range map[string]struct {
		o    Observation
		want string
	}{
		"no machine uses it": {Observation{Unusable: changed}, ""},
		"a machine uses it":  {Observation{Unusable: changed, Machines: 1}, "capi"},
		"a server is held":   {Observation{Unusable: changed, Held: []infrav1.HeldServer{{SystemID: "abc"}}}, "capi"},
		"MAAS is away":       {Observation{Unusable: &Problem{Reason: infrav1.MaasUnreachableReason}}, "capi"},
	} {
		t.Run(name, func(t *testing.T) {
			object := &infrav1.MaasClusterIdentity{Status: infrav1.MaasClusterIdentityStatus{Account: "capi"}}
			report(object, c.o, decide(c.o))
			if object.Status.Account != c.want {
				t.Errorf("account %q, want %q", object.Status.Account, c.want)
			}
		})
	}
}
