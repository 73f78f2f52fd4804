// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package dpufabric

import (
	"errors"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/cluster-api/util/conditions"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/internal/scope"
)

func fabric(name string, age time.Duration, sources ...string) infrav1.DPUFabric {
	f := infrav1.DPUFabric{ObjectMeta: metav1.ObjectMeta{Name: name, CreationTimestamp: metav1.NewTime(time.Unix(1e9, 0).Add(-age))}}
	for _, source := range sources {
		f.Spec.ClaimSources = append(f.Spec.ClaimSources, infrav1.ClaimSource{Name: source})
	}
	return f
}

func TestPlanDeletion(t *testing.T) {
	mine, older := fabric("dpf", time.Hour, "maas", "shared"), fabric("older", 2*time.Hour, "shared")
	server := infrav1.DPUServer{ObjectMeta: metav1.ObjectMeta{Name: "maas.abc"}}
	held := server
	held.Status.Holder = &infrav1.DPUServerHolder{Namespace: "red", Name: "x"}
	attached := func(source, servedBy string) infrav1.DPUAttachment {
		return infrav1.DPUAttachment{
			ObjectMeta: metav1.ObjectMeta{Namespace: "red", Name: "x"},
			Spec:       infrav1.DPUAttachmentSpec{Server: infrav1.AttachmentServer{Source: source}},
			Status:     infrav1.DPUAttachmentStatus{FabricName: servedBy},
		}
	}
	for _, c := range []struct {
		name   string
		seen   needs
		needed string
		forget int
		done   bool
	}{
		{name: "nobody", done: true},
		{name: "a TenantVPC", seen: needs{tenants: []infrav1.TenantVPC{{ObjectMeta: metav1.ObjectMeta{Namespace: "red", Name: "v"}, Spec: infrav1.TenantVPCSpec{FabricName: "dpf"}}}}, needed: "TenantVPC red/v"},
		{name: "another fabric's TenantVPC", seen: needs{tenants: []infrav1.TenantVPC{{Spec: infrav1.TenantVPCSpec{FabricName: "older"}}}}, done: true},
		{name: "an attachment of its source", seen: needs{attachments: []infrav1.DPUAttachment{attached("maas", "")}}, needed: "DPUAttachment red/x"},
		{name: "an attachment it served", seen: needs{attachments: []infrav1.DPUAttachment{attached("gone", "dpf")}}, needed: "DPUAttachment red/x"},
		{name: "an attachment of a source it lost", seen: needs{attachments: []infrav1.DPUAttachment{attached("shared", "older")}}, done: true},
		{name: "a held server", seen: needs{servers: []infrav1.DPUServer{server, held}}, needed: "DPUServer maas.abc"},
		{name: "free servers", seen: needs{servers: []infrav1.DPUServer{server}}, forget: 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.seen.fabric, c.seen.fabrics = &mine, []infrav1.DPUFabric{mine, older}
			d := planDeletion(c.seen)
			if d.done != c.done || len(d.forget) != c.forget {
				t.Errorf("done %v, forget %d; want %v, %d", d.done, len(d.forget), c.done, c.forget)
			}
			if got := strings.Join(d.neededBy, ","); !strings.HasPrefix(got, c.needed) || (c.needed == "") != (got == "") {
				t.Errorf("needed by %q, want %q", got, c.needed)
			}
		})
	}
}

func TestReport(t *testing.T) {
	unreachable := scope.FabricError("dpf", "list DPUVPCs", errors.New("connection refused"))
	refused := &scope.UnusableError{Reason: infrav1.CredentialsRefusedReason, Message: "no"}
	for _, c := range []struct {
		name    string
		seen    observation
		reasons map[string]string
		ready   metav1.ConditionStatus
	}{
		{"all well", observation{probed: probed{dpuClusters: map[string]error{"c": nil}, sources: map[string]error{"maas": nil}}}, nil, metav1.ConditionTrue},
		{"no Secret", observation{probed: probed{unusable: &scope.UnusableError{Reason: infrav1.SecretNotFoundReason}}},
			map[string]string{infrav1.CredentialsValidCondition: infrav1.SecretNotFoundReason}, metav1.ConditionFalse},
		{"DPF away", observation{probed: probed{dpf: unreachable, sources: map[string]error{"maas": nil}}},
			map[string]string{infrav1.DPFReachableCondition: infrav1.FabricUnreachableReason, infrav1.CredentialsValidCondition: infrav1.FabricUnreachableReason}, metav1.ConditionUnknown},
		{"DPF refuses", observation{probed: probed{dpf: refused}},
			map[string]string{infrav1.CredentialsValidCondition: infrav1.CredentialsRefusedReason}, metav1.ConditionFalse},
		{"no DPU cluster", observation{}, map[string]string{infrav1.DPFReachableCondition: infrav1.DPUClusterUnreachableReason}, metav1.ConditionFalse},
		{"DPU cluster away", observation{probed: probed{dpuClusters: map[string]error{"a": nil, "b": unreachable}}},
			map[string]string{infrav1.DPFReachableCondition: infrav1.DPUClusterUnreachableReason}, metav1.ConditionFalse},
		{"OVN answers", observation{probed: probed{dpuClusters: map[string]error{"c": nil}, ovn: map[string]error{"southbound": nil, "northbound": nil}}}, nil, metav1.ConditionTrue},
		{"a database of OVN is away", observation{probed: probed{dpuClusters: map[string]error{"c": nil}, ovn: map[string]error{"southbound": nil, "northbound": errors.New("no route")}}},
			map[string]string{infrav1.OVNReachableCondition: infrav1.OVNUnreachableReason}, metav1.ConditionFalse},
		{"no Secret for OVN", observation{probed: probed{dpuClusters: map[string]error{"c": nil}, ovn: map[string]error{"southbound": refused}}},
			map[string]string{infrav1.OVNReachableCondition: infrav1.CredentialsRefusedReason}, metav1.ConditionFalse},
		{"MAAS refuses", observation{probed: probed{dpuClusters: map[string]error{"c": nil}, sources: map[string]error{"maas": refused, "other": nil}}},
			map[string]string{infrav1.ClaimSourcesReadyCondition: infrav1.CredentialsRefusedReason}, metav1.ConditionFalse},
		{"not watched", observation{probed: probed{dpuClusters: map[string]error{"c": nil}}, unwatched: map[string]error{"DPU of DPF": refused}},
			map[string]string{infrav1.ChangesWatchedCondition: infrav1.PollingReason}, metav1.ConditionTrue},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := fabric("dpf", 0, "maas")
			f.Spec.Backend.OVNVPC = &infrav1.OVNVPCBackend{}
			if c.seen.ovn != nil || c.seen.unusable != nil {
				f.Spec.Backend.OVNVPC.OVN = &infrav1.OVNEndpoints{}
			} else {
				conditions.Set(&f, metav1.Condition{Type: infrav1.OVNReachableCondition, Status: metav1.ConditionFalse, Reason: "Left"})
			}
			c.seen.servers = []infrav1.DPUServer{{Status: infrav1.DPUServerStatus{Eligibility: infrav1.Eligible}}, {}}
			report(&f, &c.seen)
			if *f.Status.Servers != 2 || *f.Status.EligibleServers != 1 {
				t.Errorf("%d servers, %d eligible; want 2, 1", *f.Status.Servers, *f.Status.EligibleServers)
			}
			if named := f.Spec.Backend.OVNVPC.OVN != nil; conditions.Has(&f, infrav1.OVNReachableCondition) != named {
				t.Errorf("OVNReachable is %+v", conditions.Get(&f, infrav1.OVNReachableCondition))
			}
			for condition, reason := range c.reasons {
				if conditions.IsTrue(&f, condition) || conditions.GetReason(&f, condition) != reason {
					t.Errorf("%s is %+v, want %s", condition, conditions.Get(&f, condition), reason)
				}
			}
			if got := conditions.Get(&f, infrav1.ReadyCondition).Status; got != c.ready {
				t.Errorf("Ready is %s, want %s", got, c.ready)
			}
		})
	}
}

// TestAccountsArePinned: as long as attachments use a source, the account that holds their claims is remembered.
func TestAccountsArePinned(t *testing.T) {
	changed := &scope.UnusableError{Reason: infrav1.AccountChangedReason, Message: "another account's key"}
	pinned := []infrav1.ClaimSourceStatus{{Name: "maas", Account: "capi"}}
	for _, c := range []struct {
		name  string
		known []infrav1.ClaimSourceStatus
		seen  observation
		want  string
	}{
		{name: "first sight", seen: observation{probed: probed{accounts: map[string]string{"maas": "capi"}}}, want: "capi"},
		{name: "no answer", known: pinned, seen: observation{probed: probed{sources: map[string]error{"maas": errors.New("no route")}}}, want: "capi"},
		{
			name: "changed while used", known: pinned, want: "capi",
			seen: observation{probed: probed{sources: map[string]error{"maas": changed}, used: map[string]bool{"maas": true}}},
		},
		{name: "changed while unused", known: pinned, seen: observation{probed: probed{sources: map[string]error{"maas": changed}}}},
		{name: "source dropped", known: []infrav1.ClaimSourceStatus{{Name: "old", Account: "capi"}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := fabric("dpf", time.Hour, "maas")
			f.Status.ClaimSources = c.known
			reportAccounts(&f, &c.seen)
			got := ""
			if len(f.Status.ClaimSources) > 0 {
				got = f.Status.ClaimSources[0].Account
			}
			if got != c.want {
				t.Errorf("pinned %q, want %q", got, c.want)
			}
		})
	}
}
