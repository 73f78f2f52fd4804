// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maasmachine

import (
	"context"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	gomegatypes "github.com/onsi/gomega/types"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/events"
	clocktesting "k8s.io/utils/clock/testing"
	"k8s.io/utils/ptr"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
	"sigs.k8s.io/cluster-api/util/conditions"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/internal/scope"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
)

const (
	tenant     = "red"
	sourceName = "maas-a"
	// poll is the interval by the scene's clock, which goes on by one each step.
	poll = 5 * time.Second
)

// scene is a management cluster with machines, a MAAS, and a fabric that proves whatever it is asked for.
type scene struct {
	*testing.T
	*WithT
	objects    client.WithWatch
	region     *region
	clock      *clocktesting.FakeClock
	events     *events.FakeRecorder
	reconciler *Reconciler
	turns      *scope.Turns
	// broken says why the identity cannot be used.
	broken error
	// ports says that machines are made with a port.
	ports bool
}

// newScene has servers with one DPU each.
func newScene(t *testing.T, serverIDs ...string) *scene {
	t.Helper()
	s := &scene{
		T: t, WithT: NewWithT(t), region: newRegion(serverIDs...), ports: true,
		clock: clocktesting.NewFakeClock(now), events: events.NewFakeRecorder(1000),
	}
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, clusterv1.AddToScheme, infrav1.AddToScheme} {
		s.Expect(add(scheme)).To(Succeed())
	}
	field, extract := IndexSystemID()
	s.objects = fake.NewClientBuilder().WithScheme(scheme).
		WithStatusSubresource(&infrav1.MaasMachine{}, &infrav1.MaasClusterIdentity{}, &infrav1.DPUAttachment{}).
		WithIndex(&infrav1.MaasMachine{}, field, extract).
		WithObjects(s.manifests(serverIDs)...).Build()
	s.restart()
	return s
}

func (s *scene) manifests(serverIDs []string) []client.Object {
	meta := func(name string) metav1.ObjectMeta { return metav1.ObjectMeta{Namespace: tenant, Name: name} }
	cluster := &clusterv1.Cluster{ObjectMeta: meta("c"), Spec: clusterv1.ClusterSpec{
		InfrastructureRef: clusterv1.ContractVersionedObjectReference{APIGroup: infrav1.GroupVersion.Group, Kind: "MaasCluster", Name: "c"},
	}}
	cluster.Status.Initialization.InfrastructureProvisioned = ptr.To(true)
	vpc := &infrav1.TenantVPC{ObjectMeta: meta("vpc")}
	vpc.Status.Subnets = []infrav1.VPCSubnetStatus{
		{Name: "nodes", CIDR: "10.64.0.0/24", ExternallyRouted: ptr.To(true)}, {Name: "storage", CIDR: "10.65.0.0/24"},
	}
	conditions.Set(vpc, metav1.Condition{Type: infrav1.ReadyCondition, Status: metav1.ConditionTrue, Reason: infrav1.ReadyReason})
	objects := []client.Object{
		cluster, vpc,
		&infrav1.MaasCluster{ObjectMeta: meta("c"), Spec: infrav1.MaasClusterSpec{IdentityRef: infrav1.IdentityReference{Name: "identity"}, VPCName: "vpc"}},
		&corev1.Secret{ObjectMeta: meta("bootstrap"), Data: map[string][]byte{"value": []byte("#cloud-config")}},
		&infrav1.MaasClusterIdentity{
			ObjectMeta: metav1.ObjectMeta{Name: "identity", UID: "identity"},
			Spec: infrav1.MaasClusterIdentitySpec{
				Source: sourceName, AllowedNamespaces: &infrav1.AllowedNamespaces{Names: []string{tenant}},
				Isolation: infrav1.IsolationOptional, PortIsolation: infrav1.PortIsolationRequirementNotAssertedAccepted,
			},
		},
	}
	for _, id := range serverIDs {
		objects = append(objects, &infrav1.DPUServer{
			ObjectMeta: metav1.ObjectMeta{Name: infrav1.DPUServerName(sourceName, id)},
			Spec:       infrav1.DPUServerSpec{FabricName: "fabric", Source: sourceName, SystemID: id},
			Status:     infrav1.DPUServerStatus{Eligibility: infrav1.Eligible, DPUs: []infrav1.BoundDPU{{DPUDevice: "dpu-" + id}}},
		})
	}
	return objects
}

// restart starts the process anew: what it remembered is gone.
func (s *scene) restart() {
	s.turns = scope.NewTurns(4, poll, s.clock)
	s.reconciler = &Reconciler{
		Client: s.objects, APIReader: s.objects, Recorder: s.events, Clock: s.clock, PollInterval: poll, RefusalGrace: time.Nanosecond,
		Scope: &identities{scene: s, readings: scope.NewReadings(s.region, poll, s.clock)},
	}
}

// identities know one identity.
type identities struct {
	scope.Identities // What no test asks for.
	*scene
	readings *scope.Readings
}

func (i *identities) Get(ctx context.Context, name string) (*scope.Identity, error) {
	if i.broken != nil {
		return nil, i.broken
	}
	object := &infrav1.MaasClusterIdentity{}
	if err := i.objects.Get(ctx, client.ObjectKey{Name: name}, object); err != nil {
		return nil, &scope.UnusableError{Reason: infrav1.IdentityNotFoundReason, Message: "MaasClusterIdentity " + name + " does not exist"}
	}
	return &scope.Identity{Object: object, MAAS: i.region, Account: account, Readings: i.readings, Allocations: i.turns}, nil
}

func (i *identities) FabricAccess(context.Context, *infrav1.MaasClusterIdentity) (*scope.FabricAccess, error) {
	return scope.NewLocalFabricAccess(i.objects, i.objects), nil
}

// add makes a Machine and its MaasMachine.
func (s *scene) add(name string, change ...func(*infrav1.MaasMachine)) {
	s.Helper()
	meta := metav1.ObjectMeta{Namespace: tenant, Name: name, UID: types.UID(name), Labels: map[string]string{clusterv1.ClusterNameLabel: "c"}}
	machine := &clusterv1.Machine{ObjectMeta: meta, Spec: clusterv1.MachineSpec{
		ClusterName: "c", Bootstrap: clusterv1.Bootstrap{DataSecretName: ptr.To("bootstrap")},
	}}
	s.Expect(s.objects.Create(s.Context(), machine)).To(Succeed())
	m := &infrav1.MaasMachine{ObjectMeta: *meta.DeepCopy(), Spec: infrav1.MaasMachineSpec{MachineConstraints: infrav1.MachineConstraints{Image: "ubuntu/noble"}}}
	m.OwnerReferences = []metav1.OwnerReference{{APIVersion: clusterv1.GroupVersion.String(), Kind: "Machine", Name: name, UID: machine.UID}}
	if s.ports {
		m.Spec.Ports = []infrav1.MachinePort{{Name: "net0", Subnet: "nodes"}}
	}
	for _, c := range change {
		c(m)
	}
	s.Expect(s.objects.Create(s.Context(), m)).To(Succeed())
}

// get returns a MaasMachine; nil if it is gone.
func (s *scene) get(name string) *infrav1.MaasMachine {
	s.Helper()
	m := &infrav1.MaasMachine{}
	err := s.objects.Get(s.Context(), client.ObjectKey{Namespace: tenant, Name: name}, m)
	if apierrors.IsNotFound(err) {
		return nil
	}
	s.Expect(err).NotTo(HaveOccurred())
	return m
}

func (s *scene) remove(name string) {
	s.Helper()
	s.Expect(s.objects.Delete(s.Context(), s.get(name))).To(Succeed())
}

// step reconciles a machine once and lets the fabric answer; a poll interval passes.
func (s *scene) step(name string) ctrl.Result {
	s.Helper()
	result, err := s.reconciler.Reconcile(s.Context(), ctrl.Request{NamespacedName: client.ObjectKey{Namespace: tenant, Name: name}})
	s.Expect(err).NotTo(HaveOccurred())
	s.fabric()
	s.clock.Step(poll)
	return result
}

// until reconciles a machine until done.
func (s *scene) until(name string, done func(*infrav1.MaasMachine) bool) {
	s.Helper()
	for range 60 {
		s.step(name)
		if done(s.get(name)) {
			return
		}
	}
	s.Fatalf("%s: not so after 60 passes: %s\nevents %s", name, describe(s.get(name)), strings.Join(s.told(), "\n"))
}

func describe(m *infrav1.MaasMachine) string {
	if m == nil {
		return "gone"
	}
	text := "server " + m.Status.SystemID
	for _, c := range m.Status.Conditions {
		text += "\n" + c.Type + "=" + string(c.Status) + " " + c.Reason + ": " + c.Message
	}
	return text
}

// fabric proves the attachments as they are asked for.
func (s *scene) fabric() {
	s.Helper()
	list := &infrav1.DPUAttachmentList{}
	s.Expect(s.objects.List(s.Context(), list)).To(Succeed())
	for i := range list.Items {
		a := &list.Items[i]
		if !a.DeletionTimestamp.IsZero() {
			controllerutil.RemoveFinalizer(a, infrav1.DPUAttachmentFinalizer)
			s.Expect(s.objects.Update(s.Context(), a)).To(Succeed())
			continue
		}
		if controllerutil.AddFinalizer(a, infrav1.DPUAttachmentFinalizer) {
			s.Expect(s.objects.Update(s.Context(), a)).To(Succeed())
		}
		a.Status.State, a.Status.TokenHash, a.Status.ObservedGeneration = a.Spec.State, maas.TokenHash(a.Spec.Server.Token), a.Generation
		a.Status.ValidUntil = &metav1.Time{Time: s.clock.Now().Add(time.Hour)}
		s.Expect(s.objects.Status().Update(s.Context(), a)).To(Succeed())
	}
}

// deployed lets MAAS finish what it deploys.
func (s *scene) deployed(status maas.Status) {
	for _, m := range s.region.servers {
		if m.Status == maas.StatusDeploying {
			m.Status = status
		}
	}
}

// up brings a machine to provisioned.
func (s *scene) up(name string) {
	s.Helper()
	s.until(name, func(m *infrav1.MaasMachine) bool {
		s.deployed(maas.StatusDeployed)
		return ptr.Deref(m.Status.Initialization.Provisioned, false)
	})
}

func (s *scene) down(name string) {
	s.Helper()
	s.until(name, func(m *infrav1.MaasMachine) bool { return m == nil })
}

func shows(condition, reason string) func(*infrav1.MaasMachine) bool {
	return func(m *infrav1.MaasMachine) bool { return m != nil && conditions.GetReason(m, condition) == reason }
}

// identity changes the identity's status.
func (s *scene) identity(change func(*infrav1.MaasClusterIdentityStatus)) {
	s.Helper()
	object := &infrav1.MaasClusterIdentity{}
	s.Expect(s.objects.Get(s.Context(), client.ObjectKey{Name: "identity"}, object)).To(Succeed())
	change(&object.Status)
	s.Expect(s.objects.Status().Update(s.Context(), object)).To(Succeed())
}

// configure changes the identity's spec.
func (s *scene) configure(change func(*infrav1.MaasClusterIdentitySpec)) {
	s.Helper()
	object := &infrav1.MaasClusterIdentity{}
	s.Expect(s.objects.Get(s.Context(), client.ObjectKey{Name: "identity"}, object)).To(Succeed())
	change(&object.Spec)
	s.Expect(s.objects.Update(s.Context(), object)).To(Succeed())
}

// told are the events since it was asked last.
func (s *scene) told() []string {
	var told []string
	for {
		select {
		case e := <-s.events.Events:
			told = append(told, e)
		default:
			return told
		}
	}
}

func sayFalse(condition, reason string) gomegatypes.GomegaMatcher {
	return saying(condition, metav1.ConditionFalse, reason)
}

func sayUnknown(condition, reason string) gomegatypes.GomegaMatcher {
	return saying(condition, metav1.ConditionUnknown, reason)
}

func saying(condition string, status metav1.ConditionStatus, reason string) gomegatypes.GomegaMatcher {
	return WithTransform(func(m *infrav1.MaasMachine) metav1.Condition {
		c := conditions.Get(m, condition)
		return metav1.Condition{Status: c.Status, Reason: c.Reason}
	}, Equal(metav1.Condition{Status: status, Reason: reason}))
}
