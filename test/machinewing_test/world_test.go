// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

// Package machinewing_test runs the machine wing's controllers against the MAAS simulator, with a fabric wing that proves
// whatever it is asked for, and kills and confuses them at every step.
package machinewing_test

import (
	"context"
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/go-logr/logr"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/utils/ptr"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
	"sigs.k8s.io/cluster-api/util/conditions"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/controllers/maasmachine"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/internal/scope"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/maassim"
)

const (
	tenant      = "red"
	wing        = "machine-wing"
	account     = "capi"
	accountKey  = "consumer1:token1:secret1"
	strangerKey = "consumer2:token2:secret2"
	source      = "maas-a"
	machineName = "red-worker-1"
	userData    = "## template: jinja\n#cloud-config\nsecret: join-me\n"

	poll   = 15 * time.Millisecond
	window = time.Second
)

func TestMain(m *testing.M) {
	ctrl.SetLogger(logr.Discard())
	os.Exit(m.Run())
}

// world is a management cluster, a MAAS and a fabric around one MaasMachine.
type world struct {
	*testing.T
	*WithT
	region  *maassim.Region
	address string
	objects client.Client
	process *process
	options options
	// deleted counts the machines deleted so far.
	deleted int
	// refuse lets the fabric refuse servers, by reason.
	refuse map[string]string
	// unproven keeps the fabric from proving detachment.
	unproven bool
	// violations of I3 and I4, seen at the moment of the call.
	violations []string
}

// options of a world.
type options struct {
	servers int
	// plain servers have no DPUs.
	plain bool
	// ports asks for a port on the VPC.
	ports bool
	// releaseTimeout is when MAAS gives a release up.
	releaseTimeout time.Duration
	// identity changes the identity.
	identity func(*infrav1.MaasClusterIdentity)
}

func scheme(t *testing.T) *runtime.Scheme {
	t.Helper()
	s := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, clusterv1.AddToScheme, infrav1.AddToScheme} {
		if err := add(s); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// newWorld is a world with everything in it, and a machine wing that was just started.
func newWorld(t *testing.T, o options) *world {
	t.Helper()
	w := newEmptyWorld(t, o)
	field, extract := maasmachine.IndexSystemID()
	w.objects = fake.NewClientBuilder().WithScheme(scheme(t)).
		WithStatusSubresource(&infrav1.MaasMachine{}, &infrav1.MaasClusterIdentity{}, &infrav1.DPUAttachment{}, &infrav1.MaasCluster{}).
		WithIndex(&infrav1.MaasMachine{}, field, extract).
		WithObjects(w.manifests()...).Build()
	w.restart(0)
	return w
}

// newEmptyWorld has a MAAS and no management cluster.
func newEmptyWorld(t *testing.T, o options) *world {
	t.Helper()
	w := &world{T: t, WithT: NewWithT(t), refuse: map[string]string{}, options: o}
	w.region = maassim.New(maassim.Options{Timing: maassim.Timing{
		PowerOff: 5 * time.Millisecond, PowerOn: 5 * time.Millisecond, Deploy: 20 * time.Millisecond, Erase: 10 * time.Millisecond,
		ReleaseTimeout: o.releaseTimeout,
	}})
	w.region.AddUser(account, accountKey, false)
	w.region.AddUser("stranger", strangerKey, false)
	for i := range o.servers {
		server := maassim.Machine{SystemID: serverID(i)}
		if !o.plain {
			server.Devices = []maassim.Device{{VendorID: maas.VendorMellanox, ProductID: maas.ProductBlueField3}}
		}
		w.Expect(w.region.AddMachine(server)).To(Succeed())
	}
	base, wait, err := w.region.Serve(t.Context(), nil)
	w.Expect(err).NotTo(HaveOccurred())
	t.Cleanup(func() {
		if err := wait(); err != nil {
			t.Errorf("region: %v", err)
		}
	})
	w.address = base + "/MAAS"
	return w
}

func serverID(i int) string { return fmt.Sprintf("srv%03d", i) }

func (w *world) identity() *infrav1.MaasClusterIdentity {
	identity := &infrav1.MaasClusterIdentity{
		ObjectMeta: metav1.ObjectMeta{Name: "identity", UID: "identity", Generation: 1},
		Spec: infrav1.MaasClusterIdentitySpec{
			Endpoint: w.address, SecretRef: infrav1.LocalSecretReference{Name: "maas"}, Source: source,
			AllowedNamespaces: &infrav1.AllowedNamespaces{Names: []string{tenant}},
			Isolation:         infrav1.IsolationRequired,
			PortIsolation:     infrav1.PortIsolationRequirementNotAssertedAccepted,
		},
	}
	if w.options.identity != nil {
		w.options.identity(identity)
	}
	return identity
}

func (w *world) secret() *corev1.Secret {
	return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: wing, Name: "maas"}, Data: map[string][]byte{scope.IdentitySecretKey: []byte(accountKey)}}
}

func (w *world) bootstrapSecret() *corev1.Secret {
	return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: tenant, Name: "bootstrap"}, Data: map[string][]byte{"value": []byte(userData)}}
}

// fabricObjects are a TenantVPC and what the fabric knows of the servers.
func (w *world) fabricObjects(servers int) []client.Object {
	vpc := &infrav1.TenantVPC{
		ObjectMeta: metav1.ObjectMeta{Namespace: tenant, Name: "vpc"},
		Spec:       infrav1.TenantVPCSpec{FabricName: "fabric", Subnets: []infrav1.VPCSubnet{{Name: "nodes", CIDR: "10.64.0.0/24"}}},
	}
	vpc.Status.Subnets = []infrav1.VPCSubnetStatus{{Name: "nodes", CIDR: "10.64.0.0/24", ExternallyRouted: ptr.To(true)}}
	conditions.Set(vpc, metav1.Condition{Type: infrav1.ReadyCondition, Status: metav1.ConditionTrue, Reason: infrav1.ReadyReason})
	objects := []client.Object{vpc}
	for i := range servers {
		objects = append(objects, &infrav1.DPUServer{
			ObjectMeta: metav1.ObjectMeta{Name: infrav1.DPUServerName(source, serverID(i))},
			Spec:       infrav1.DPUServerSpec{FabricName: "fabric", Source: source, SystemID: serverID(i)},
			Status: infrav1.DPUServerStatus{Eligibility: infrav1.Eligible, DPUs: []infrav1.BoundDPU{
				{DPUDevice: "dpu-" + serverID(i), Ports: []infrav1.DPUServerPort{{PF: ptr.To[int32](0)}}},
			}},
		})
	}
	return objects
}

// manifests are all objects as tenant and operator made them, up to the MaasMachine owned by its Machine.
func (w *world) manifests() []client.Object {
	meta := func(name string) metav1.ObjectMeta {
		return metav1.ObjectMeta{Namespace: tenant, Name: name, UID: "uid", Labels: map[string]string{clusterv1.ClusterNameLabel: "red"}}
	}
	identity := w.identity()
	// Shorter than the API server would take, so that lost answers are waited for in test time.
	identity.Spec.Deadlines = infrav1.Deadlines{CallSeconds: ptr.To[int32](2), AllocateSeconds: ptr.To[int32](2)}
	cluster := &clusterv1.Cluster{ObjectMeta: meta("red"), Spec: clusterv1.ClusterSpec{
		InfrastructureRef: clusterv1.ContractVersionedObjectReference{APIGroup: infrav1.GroupVersion.Group, Kind: "MaasCluster", Name: "red"},
	}}
	cluster.Status.Initialization.InfrastructureProvisioned = ptr.To(true)
	machine := &clusterv1.Machine{ObjectMeta: meta(machineName), Spec: clusterv1.MachineSpec{
		ClusterName: "red", Bootstrap: clusterv1.Bootstrap{DataSecretName: ptr.To("bootstrap")},
	}}
	maasMachine := &infrav1.MaasMachine{ObjectMeta: meta(machineName), Spec: infrav1.MaasMachineSpec{
		MachineConstraints: infrav1.MachineConstraints{Image: "ubuntu/noble"},
	}}
	maasMachine.OwnerReferences = []metav1.OwnerReference{{
		APIVersion: clusterv1.GroupVersion.String(), Kind: "Machine", Name: machineName, UID: machine.UID, Controller: ptr.To(true),
	}}
	maasCluster := &infrav1.MaasCluster{ObjectMeta: meta("red"), Spec: infrav1.MaasClusterSpec{IdentityRef: infrav1.IdentityReference{Name: "identity"}}}
	objects := []client.Object{identity, cluster, machine, maasMachine, maasCluster, w.secret(), w.bootstrapSecret()}
	if w.options.ports {
		maasMachine.Spec.Ports = []infrav1.MachinePort{{Name: "net0", PF: ptr.To[int32](0), Subnet: "nodes"}}
		maasCluster.Spec.VPCName = "vpc"
		objects = append(objects, w.fabricObjects(w.options.servers)...)
	}
	return objects
}

// fabric does what the fabric wing would have done since the last call.
func (w *world) fabric() {
	w.Helper()
	w.Expect(w.prove(w.Context())).To(Succeed())
}

func (w *world) prove(ctx context.Context) error {
	list := &infrav1.DPUAttachmentList{}
	if err := w.objects.List(ctx, list); err != nil {
		return err
	}
	for i := range list.Items {
		if err := w.proveOne(ctx, &list.Items[i]); err != nil {
			return err
		}
	}
	return nil
}

func (w *world) proveOne(ctx context.Context, a *infrav1.DPUAttachment) error {
	if a.DeletionTimestamp != nil {
		if a.Spec.State == infrav1.AttachmentStateDetached && a.Status.State == infrav1.AttachmentStateDetached {
			controllerutil.RemoveFinalizer(a, infrav1.DPUAttachmentFinalizer)
			return w.objects.Update(ctx, a)
		}
		return nil
	}
	if controllerutil.AddFinalizer(a, infrav1.DPUAttachmentFinalizer) {
		if err := w.objects.Update(ctx, a); err != nil {
			return err
		}
	}
	reason, refused := w.refuse[a.Spec.Server.SystemID]
	attached := metav1.Condition{Type: infrav1.AttachedCondition, Status: metav1.ConditionTrue, Reason: infrav1.AttachedReason}
	a.Status.TokenHash, a.Status.ObservedGeneration = maas.TokenHash(a.Spec.Server.Token), a.Generation
	a.Status.State = a.Spec.State
	a.Status.ValidUntil = &metav1.Time{Time: time.Now().Add(time.Minute).Truncate(time.Minute).Add(time.Minute)}
	switch {
	case a.Spec.State == infrav1.AttachmentStateAttached && refused:
		a.Status.State = ""
		conditions.Set(a, metav1.Condition{Type: infrav1.DPUResolvedCondition, Status: metav1.ConditionFalse, Reason: reason})
		attached = metav1.Condition{Type: infrav1.AttachedCondition, Status: metav1.ConditionFalse, Reason: reason}
	case a.Spec.State == infrav1.AttachmentStateDetached && w.unproven:
		a.Status.State = ""
		attached = metav1.Condition{Type: infrav1.AttachedCondition, Status: metav1.ConditionUnknown, Reason: infrav1.DetachUnprovenReason}
	case a.Spec.State == infrav1.AttachmentStateDetached:
		attached = metav1.Condition{Type: infrav1.AttachedCondition, Status: metav1.ConditionFalse, Reason: infrav1.DetachedReason}
	}
	conditions.Set(a, attached)
	return w.objects.Status().Update(ctx, a)
}

// proven is what the fabric has proven of a server under a claim, as of now; "" if nothing, or no attachment.
func (w *world) proven(systemID string) (state infrav1.AttachmentState, exists bool) {
	list := &infrav1.DPUAttachmentList{}
	if err := w.objects.List(w.Context(), list); err != nil {
		return "", true
	}
	for _, a := range list.Items {
		if a.Spec.Server.SystemID == systemID {
			return a.Status.State, true
		}
	}
	return "", false
}

// machine returns the MaasMachine; nil if it is gone.
func (w *world) machine() *infrav1.MaasMachine {
	w.Helper()
	m := &infrav1.MaasMachine{}
	err := w.objects.Get(w.Context(), client.ObjectKey{Namespace: tenant, Name: machineName}, m)
	if apierrors.IsNotFound(err) {
		return nil
	}
	w.Expect(err).NotTo(HaveOccurred())
	return m
}

func (w *world) provisioned() bool {
	m := w.machine()
	return m != nil && ptr.Deref(m.Status.Initialization.Provisioned, false)
}

func (w *world) gone() bool { return w.machine() == nil }

// until reconciles until done, restarting the process whenever it was killed.
func (w *world) until(done func() bool, what string) {
	w.Helper()
	w.Eventually(func() bool {
		w.step()
		return done()
	}).WithTimeout(20*time.Second).WithPolling(poll).Should(BeTrue(), func() string {
		m := w.machine()
		if m == nil {
			return what + ": the machine is gone"
		}
		text := fmt.Sprintf("%s: server %q, avoided %v\n", what, m.Status.SystemID, m.Status.AvoidedServers)
		for _, c := range m.Status.Conditions {
			text += fmt.Sprintf("%s=%s %s: %s\n", c.Type, c.Status, c.Reason, c.Message)
		}
		for _, s := range w.region.Machines() {
			text += fmt.Sprintf("%s %s owner %q power %s %v\n", s.SystemID, s.StatusName, s.Owner, s.Power, s.Annotations)
		}
		return text
	})
}

// step is one reconcile and one pass of the fabric.
func (w *world) step() {
	w.Helper()
	if w.process.dead() {
		w.restart(0)
	}
	if _, err := w.process.reconciler.Reconcile(w.Context(), request()); err != nil && !w.process.dead() && !apierrors.IsConflict(err) {
		w.Logf("reconcile: %v", err)
	}
	w.fabric()
	w.suspects()
}

func request() ctrl.Request {
	return ctrl.Request{NamespacedName: client.ObjectKey{Namespace: tenant, Name: machineName}}
}

func (w *world) remove() {
	w.Helper()
	w.Expect(w.objects.Delete(w.Context(), w.machine())).To(Succeed())
}

// server returns the state of a server.
func (w *world) server(id string) maassim.MachineState {
	w.Helper()
	servers := w.region.Machines()
	i := slices.IndexFunc(servers, func(m maassim.MachineState) bool { return m.SystemID == id })
	w.Expect(i).To(BeNumerically(">=", 0))
	return servers[i]
}

// owned are the servers of our account.
func (w *world) owned() []maassim.MachineState {
	return slices.DeleteFunc(w.region.Machines(), func(m maassim.MachineState) bool { return m.Owner != account })
}

// count counts accepted effects of an operation.
func (w *world) count(operation string) int {
	n := 0
	for _, effect := range w.region.Journal() {
		if effect.Operation == operation {
			n++
		}
	}
	return n
}
