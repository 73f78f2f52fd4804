// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package dpuattachment

import (
	"context"
	"errors"
	"reflect"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/internal/scope"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/vpc"
)

type zeroes struct{}

func (zeroes) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// admissible is an attachment with everything that stands behind it.
type admissible struct {
	attachment *infrav1.DPUAttachment
	fabric     *infrav1.DPUFabric
	tenant     *infrav1.TenantVPC
	machine    *infrav1.MaasMachine
	capi       *clusterv1.Machine
}

func newAdmissible(t *testing.T) *admissible {
	t.Helper()
	fitting, err := maas.NewToken(zeroes{}, "red", "m")
	if err != nil {
		t.Fatal(err)
	}
	a := &admissible{
		attachment: scene().attachment,
		fabric: &infrav1.DPUFabric{ObjectMeta: metav1.ObjectMeta{Name: "f"}, Spec: infrav1.DPUFabricSpec{
			AllowedNamespaces: &infrav1.AllowedNamespaces{Names: []string{"red"}},
			ClaimSources:      []infrav1.ClaimSource{{Name: "s", Namespaces: []infrav1.ClaimNamespace{{Name: "red"}}}},
		}},
		tenant: &infrav1.TenantVPC{
			ObjectMeta: metav1.ObjectMeta{Namespace: "red", Name: "net"},
			Spec:       infrav1.TenantVPCSpec{FabricName: "f", Subnets: []infrav1.VPCSubnet{{Name: "workers"}}},
		},
		machine: &infrav1.MaasMachine{
			ObjectMeta: metav1.ObjectMeta{Namespace: "red", Name: "m", OwnerReferences: []metav1.OwnerReference{{
				APIVersion: clusterv1.GroupVersion.String(), Kind: "Machine", Name: "owner", UID: "1", Controller: ptr.To(true),
			}}},
			Spec: infrav1.MaasMachineSpec{Claim: &infrav1.MachineClaim{Token: fitting}},
		},
		capi: &clusterv1.Machine{
			ObjectMeta: metav1.ObjectMeta{Namespace: "red", Name: "owner", UID: "1"},
			Spec: clusterv1.MachineSpec{InfrastructureRef: clusterv1.ContractVersionedObjectReference{
				APIGroup: infrav1.GroupVersion.Group, Kind: "MaasMachine", Name: "m",
			}},
		},
	}
	a.attachment.Spec.Server.Token = fitting
	return a
}

func (a *admissible) reconciler(t *testing.T, funcs interceptor.Funcs) *Reconciler {
	t.Helper()
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{corev1.AddToScheme, clusterv1.AddToScheme, infrav1.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	builder := fake.NewClientBuilder().WithScheme(scheme).WithInterceptorFuncs(funcs)
	if a.tenant != nil {
		builder.WithObjects(a.tenant)
	}
	if a.machine != nil {
		builder.WithObjects(a.machine)
	}
	if a.capi != nil {
		builder.WithObjects(a.capi)
	}
	c := builder.Build()
	return &Reconciler{Client: c, APIReader: c}
}

func (a *admissible) observe() *observation {
	return &observation{now: now, attachment: a.attachment, fabric: &scope.Fabric{Object: a.fabric}}
}

func TestAdmission(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(*admissible)
		reason string
	}{
		{"with everything behind it", func(*admissible) {}, ""},
		{"no namespace allowed", func(a *admissible) { a.fabric.Spec.AllowedNamespaces = nil }, infrav1.NamespaceNotAllowedReason},
		{"namespace not the source's", func(a *admissible) { a.fabric.Spec.ClaimSources[0].Namespaces = nil }, infrav1.NamespaceNotAllowedReason},
		{"token of another machine", func(a *admissible) { a.attachment.Spec.MachineName = "other" }, infrav1.TokenMismatchReason},
		{"token of another namespace", func(a *admissible) {
			a.attachment.Namespace = "blue"
			a.fabric.Spec.AllowedNamespaces.Names = []string{"blue"}
			a.fabric.Spec.ClaimSources[0].Namespaces[0].Name = "blue"
		}, infrav1.TokenMismatchReason},
		{"no TenantVPC", func(a *admissible) { a.tenant = nil }, infrav1.VPCNotFoundReason},
		{"TenantVPC of another fabric", func(a *admissible) { a.tenant.Spec.FabricName = "g" }, infrav1.VPCNotReadyReason},
		{"no such subnet", func(a *admissible) { a.attachment.Spec.Ports[0].Subnet = "x" }, infrav1.SubnetNotFoundReason},
		{"no MaasMachine", func(a *admissible) { a.machine = nil }, infrav1.MachineNotConsentingReason},
		{"MaasMachine without claim", func(a *admissible) { a.machine.Spec.Claim = nil }, infrav1.MachineNotConsentingReason},
		{"MaasMachine with another claim", func(a *admissible) { a.machine.Spec.Claim.Token = token }, infrav1.MachineNotConsentingReason},
		{"MaasMachine without owner", func(a *admissible) { a.machine.OwnerReferences = nil }, infrav1.MachineNotConsentingReason},
		{"MaasMachine of no controller", func(a *admissible) { a.machine.OwnerReferences[0].Controller = nil }, infrav1.MachineNotConsentingReason},
		{"MaasMachine of another kind", func(a *admissible) { a.machine.OwnerReferences[0].Kind = "ConfigMap" }, infrav1.MachineNotConsentingReason},
		{"MaasMachine of another group", func(a *admissible) { a.machine.OwnerReferences[0].APIVersion = "x/v1" }, infrav1.MachineNotConsentingReason},
		{"no Machine", func(a *admissible) { a.capi = nil }, infrav1.MachineNotConsentingReason},
		{"a Machine made anew", func(a *admissible) { a.capi.UID = "2" }, infrav1.MachineNotConsentingReason},
		{"a Machine that refers to another", func(a *admissible) { a.capi.Spec.InfrastructureRef.Name = "x" }, infrav1.MachineNotConsentingReason},
		{"a Machine that refers to another kind", func(a *admissible) { a.capi.Spec.InfrastructureRef.Kind = "X" }, infrav1.MachineNotConsentingReason},
		{"a Machine that refers to another group", func(a *admissible) { a.capi.Spec.InfrastructureRef.APIGroup = "x" }, infrav1.MachineNotConsentingReason},
		{"the namespace's word is enough", func(a *admissible) {
			a.fabric.Spec.ClaimSources[0].Namespaces[0].Consent = infrav1.ClaimConsentNamespace
			a.machine, a.capi = nil, nil
		}, ""},
		{"whoever goes needs no leave", func(a *admissible) {
			a.attachment.Spec.State = infrav1.AttachmentStateDetached
			a.machine, a.capi, a.tenant, a.fabric.Spec.AllowedNamespaces = nil, nil, nil, nil
		}, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a := newAdmissible(t)
			tc.change(a)
			o := a.observe()
			if err := a.reconciler(t, interceptor.Funcs{}).observeAdmission(t.Context(), o); err != nil {
				t.Fatal(err)
			}
			if (o.admission.Answer == vpc.Yes) != (tc.reason == "") || o.admission.Reason != tc.reason {
				t.Errorf("got %+v, want %s", o.admission, tc.reason)
			}
		})
	}
}

func TestAdmissionWithoutAnswer(t *testing.T) {
	a := newAdmissible(t)
	down := errors.New("no answer")
	for _, kind := range []client.Object{&infrav1.TenantVPC{}, &infrav1.MaasMachine{}, &clusterv1.Machine{}} {
		r := a.reconciler(t, interceptor.Funcs{
			Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, object client.Object, options ...client.GetOption) error {
				if reflect.TypeOf(object) == reflect.TypeOf(kind) {
					return down
				}
				return c.Get(ctx, key, object, options...)
			},
		})
		o := a.observe()
		if err := r.observeAdmission(t.Context(), o); !errors.Is(err, down) || o.admission.Answer == vpc.Yes {
			t.Errorf("%T: %v, admission %+v", kind, err, o.admission)
		}
	}
}

// answers is a MAAS that answers one thing.
type answers struct {
	maas.Verifier
	machine   maas.Machine
	ownership maas.Ownership
	err       error
}

func (a answers) ConfirmClaim(context.Context, string, string, string) (maas.Machine, maas.Ownership, error) {
	return a.machine, a.ownership, a.err
}

func TestObserveClaim(t *testing.T) {
	for _, tc := range []struct {
		name    string
		answers answers
		failure error
		want    vpc.Answer
		reason  string
	}{
		{"held", answers{ownership: maas.Ownership{Answer: maas.Yes}}, nil, vpc.Yes, ""},
		{"not held", answers{ownership: maas.Ownership{Answer: maas.No}}, nil, vpc.No, infrav1.ClaimNotConfirmedReason},
		{"unclear", answers{ownership: maas.Ownership{}}, nil, vpc.Unknown, infrav1.ClaimNotConfirmedReason},
		{"no such server", answers{err: &maas.NotFoundError{Call: maas.Call{Object: "machine abc"}}}, nil, vpc.No, infrav1.ClaimNotConfirmedReason},
		{"another account's", answers{err: &maas.ForbiddenError{Call: maas.Call{Object: "machine abc"}}}, nil, vpc.No, infrav1.ClaimNotConfirmedReason},
		{"a list that is not found", answers{err: &maas.NotFoundError{Call: maas.Call{Operation: "list by ID"}}}, nil, vpc.Unknown, infrav1.MaasUnreachableReason},
		{"a list that is refused", answers{err: &maas.ForbiddenError{Call: maas.Call{Operation: "list by ID"}}}, nil, vpc.Unknown, infrav1.MaasUnreachableReason},
		{"being released", answers{machine: maas.Machine{Status: maas.StatusReleasing}, ownership: maas.Ownership{Answer: maas.Yes}}, nil, vpc.Unknown, infrav1.ClaimNotConfirmedReason},
		{"key refused", answers{err: &maas.UnauthorizedError{}}, nil, vpc.Unknown, infrav1.CredentialsRefusedReason},
		{"no answer", answers{err: context.DeadlineExceeded}, nil, vpc.Unknown, infrav1.MaasUnreachableReason},
		{"no Secret", answers{}, &scope.UnusableError{Reason: infrav1.SecretNotFoundReason}, vpc.Unknown, infrav1.SecretNotFoundReason},
	} {
		t.Run(tc.name, func(t *testing.T) {
			o := scene()
			o.fabric.Verifier = func(context.Context, string) (scope.Verifier, error) {
				return scope.Verifier{Verifier: tc.answers, Account: "a"}, tc.failure
			}
			(&Reconciler{Clock: clock.RealClock{}}).observeClaim(t.Context(), o)
			if !o.claim.asked || o.claim.finding.Answer != tc.want || o.claim.finding.Reason != tc.reason || (o.claim.machine != nil) != (tc.want == vpc.Yes) {
				t.Errorf("got %+v", o.claim)
			}
		})
	}
}

// TestFollowedClaim: what is read of a running tenant's claim is said, and neither asked for again nor taken for a loss.
func TestFollowedClaim(t *testing.T) {
	for _, tc := range []struct {
		name     string
		standing vpc.Finding
		want     string
	}{
		{"stands", yes, "True/" + infrav1.AuthorizedReason},
		{"not read yet", vpc.Finding{}, "True/" + infrav1.AuthorizedReason},
		{"MAAS away", vpc.Finding{Answer: vpc.Unknown, Reason: infrav1.MaasUnreachableReason}, "Unknown/" + infrav1.MaasUnreachableReason},
	} {
		t.Run(tc.name, func(t *testing.T) {
			o := scene().authorized().attached(t)
			o.attachment.Status.State, o.attachment.Status.TokenHash = infrav1.AttachmentStateAttached, maas.TokenHash(token)
			o.stateBefore = infrav1.AttachmentStateAttached
			o.claim = claim{followed: true, standing: tc.standing}
			d := decide(o)
			if got := string(d.authorized.status) + "/" + d.authorized.reason; got != tc.want || d.needsClaim {
				t.Errorf("got %s, asks %t; want %s without asking", got, d.needsClaim, tc.want)
			}
			if d.proven != infrav1.AttachmentStateAttached || d.write != nil {
				t.Errorf("proven %q, writes %+v", d.proven, d.write)
			}
		})
	}
}
