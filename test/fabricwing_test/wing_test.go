// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package fabricwing_test

import (
	"context"
	"errors"
	"fmt"
	"runtime/pprof"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr"
	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/util/retry"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/cluster-api/util/conditions"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	requests "sigs.k8s.io/controller-runtime/pkg/source"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/controllers/dpuattachment"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/controllers/dpuserver"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/controllers/tenantvpc"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/internal/scope"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/provisioningv1alpha1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/vpc"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/dpfsim"
)

// shiftedClock is the real time, or later.
type shiftedClock struct {
	clock.RealClock
	shift atomic.Int64
}

func (c *shiftedClock) Now() time.Time { return c.RealClock.Now().Add(time.Duration(c.shift.Load())) }

func (c *shiftedClock) Since(at time.Time) time.Duration { return c.Now().Sub(at) }

// maasStub says who holds which server.
type maasStub struct {
	maas.Verifier
	mu     sync.Mutex
	tokens map[string]string
	off    map[string]bool
	down   bool
	calls  int
}

func (m *maasStub) hold(systemID, token string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.tokens[systemID] = token
}

func (m *maasStub) setDown(down bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.down = down
}

func (m *maasStub) setOff(systemID string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.off[systemID] = true
}

func (m *maasStub) setOn(systemID string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.off, systemID)
}

var errMAASDown = errors.New("maas: no answer")

func (m *maasStub) machine(systemID string) maas.Machine {
	machine := maas.Machine{SystemID: systemID, Status: maas.StatusReady, PowerState: maas.PowerOn, Interfaces: nicsOf(systemID)}
	if m.off[systemID] {
		machine.PowerState = maas.PowerOff
	}
	if token := m.tokens[systemID]; token != "" {
		machine.Owner, machine.Annotations = account, map[string]string{maas.AnnotationToken: maas.TokenHash(token)}
	}
	return machine
}

func (m *maasStub) ConfirmClaim(_ context.Context, owner, token, systemID string) (maas.Machine, maas.Ownership, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.calls++
	if m.down {
		return maas.Machine{}, maas.Ownership{}, errMAASDown
	}
	machine := m.machine(systemID)
	return machine, machine.ClaimedBy(owner, token), nil
}

func (m *maasStub) MachinesByID(_ context.Context, systemIDs ...string) ([]maas.Machine, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.down {
		return nil, errMAASDown
	}
	var machines []maas.Machine
	for _, id := range systemIDs {
		machines = append(machines, m.machine(id))
	}
	return machines, nil
}

// fabrics are the real ones, but for MAAS and for what a test does to writes.
type fabrics struct {
	scope.Fabrics
	wing *wing
}

func (f fabrics) wrap(fabric *scope.Fabric, err error) (*scope.Fabric, error) {
	if err != nil {
		return nil, err
	}
	if f.wing.maas != nil {
		fabric.Verifier = func(context.Context, string) (scope.Verifier, error) {
			return scope.Verifier{Verifier: f.wing.maas, Account: account}, nil
		}
	}
	if f.wing.ovn != nil {
		f.wing.ovn.serve(fabric)
	}
	inner, ok := fabric.DPF.(client.WithWatch)
	if !ok {
		inner = withoutWatch{fabric.DPF}
	}
	fabric.DPF = interceptor.NewClient(inner, interceptor.Funcs{
		Patch: func(ctx context.Context, c client.WithWatch, object client.Object, patch client.Patch, options ...client.PatchOption) error {
			if f.wing.hooks.dpfAway.Load() {
				return errAway
			}
			err := c.Patch(ctx, object, patch, options...)
			if patch.Type() == types.JSONPatchType && err == nil {
				return f.wing.hooks.written(object.GetName())
			}
			return err
		},
		Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, object client.Object, options ...client.GetOption) error {
			if f.wing.hooks.dpfAway.Load() {
				return errAway
			}
			return c.Get(ctx, key, object, options...)
		},
		List: func(ctx context.Context, c client.WithWatch, list client.ObjectList, options ...client.ListOption) error {
			if f.wing.hooks.dpfAway.Load() {
				return errAway
			}
			return c.List(ctx, list, options...)
		},
	})
	cluster := fabric.DPUCluster
	fabric.DPUCluster = func(ctx context.Context, key types.NamespacedName) (client.Reader, error) {
		if f.wing.hooks.clusterAway.Load() {
			return nil, errAway
		}
		return cluster(ctx, key)
	}
	return fabric, nil
}

func (f fabrics) Get(ctx context.Context, name string) (*scope.Fabric, error) {
	return f.wrap(f.Fabrics.Get(ctx, name))
}

func (f fabrics) ForSource(ctx context.Context, name string) (*scope.Fabric, error) {
	return f.wrap(f.Fabrics.ForSource(ctx, name))
}

// withoutWatch is a client that is never asked to watch.
type withoutWatch struct{ client.Client }

func (withoutWatch) Watch(context.Context, client.ObjectList, ...client.ListOption) (watch.Interface, error) {
	return nil, errors.New("not to be watched")
}

// wing is a running fabric wing and what a test can do with it.
type wing struct {
	*WithT
	t     *testing.T
	maas  *maasStub
	clock *shiftedClock
	hooks *hooks
	// ovn, if there is one, stands for the fabric's OVN databases.
	ovn  *ovnStub
	stop func()
}

// hooks are what a test does to the wing's calls.
type hooks struct {
	// afterWrite is called after each write to a DPU; its error is what the controller sees.
	afterWrite func() error
	// onWrite, if there is one for the object written, is called then with the number of its writes so far.
	onWrite sync.Map
	// dpfAway and clusterAway let DPF, or the cluster of the DPUs, not answer.
	dpfAway, clusterAway atomic.Bool
}

// written counts a write and tells who waits for it.
func (h *hooks) written(object string) error {
	if told, ok := h.onWrite.Load(object); ok {
		told.(func())()
	}
	if h.afterWrite != nil {
		return h.afterWrite()
	}
	return nil
}

var errAway = errors.New("no answer")

// on is the wing in a test of its own.
func (w *wing) on(t *testing.T) *wing {
	t.Helper()
	c := *w
	c.WithT, c.t = NewWithT(t), t
	c.patient()
	return &c
}

func (w *wing) patient() {
	w.SetDefaultEventuallyTimeout(patience)
	w.SetDefaultEventuallyPollingInterval(interval)
	w.SetDefaultConsistentlyDuration(time.Second)
}

// changeFabric patches the fabric that all tests share until the end of the test.
func (w *wing) changeFabric(patch, back string) {
	w.t.Helper()
	apply := func(ctx context.Context, patch string) {
		fabric := &infrav1.DPUFabric{ObjectMeta: metav1.ObjectMeta{Name: fabricName}}
		w.Expect(world.Hub.Patch(ctx, fabric, client.RawPatch(types.MergePatchType, []byte(patch)))).To(Succeed())
	}
	apply(w.t.Context(), patch)
	w.t.Cleanup(func() { apply(context.WithoutCancel(w.t.Context()), back) })
}

func newWing(t *testing.T) *wing {
	t.Helper()
	w := &wing{
		WithT: NewWithT(t), t: t, maas: &maasStub{tokens: map[string]string{}, off: map[string]bool{}}, clock: &shiftedClock{}, hooks: &hooks{},
	}
	w.patient()
	w.start()
	t.Cleanup(func() { w.stop() })
	return w
}

// start runs the controllers as one process would.
func (w *wing) start() {
	w.t.Helper()
	mgr, err := ctrl.NewManager(world.HubConfig, ctrl.Options{
		Scheme: world.Hub.Scheme(), Logger: logr.Discard(), Metrics: metricsserver.Options{BindAddress: "0"},
		Controller: config.Controller{SkipNameValidation: ptr.To(true), UsePriorityQueue: ptr.To(false)},
	})
	w.Expect(err).NotTo(HaveOccurred())
	all := fabrics{wing: w, Fabrics: scope.NewFabrics(scope.FabricsOptions{
		Client: mgr.GetClient(), APIReader: mgr.GetAPIReader(), Namespace: wingNamespace, Installation: installation,
		PostureRetry: 200 * time.Millisecond,
	})}
	const poll = 100 * time.Millisecond
	ctx, cancel := context.WithCancel(context.WithoutCancel(w.t.Context()))
	options := controller.Options{MaxConcurrentReconciles: 4}
	w.Expect(scope.IndexFabricWatches(ctx, mgr.GetFieldIndexer())).To(Succeed())
	watches := scope.NewFabricWatches(scope.FabricWatchesOptions{Fabrics: all, Client: mgr.GetClient(), Installation: installation})
	w.Expect(mgr.Add(watches)).To(Succeed())
	readings := dpfzt.NewReadings(w.clock, watches.NodesLapsed)
	w.Expect((&tenantvpc.Reconciler{
		Client: mgr.GetClient(), APIReader: mgr.GetAPIReader(), Fabrics: all, Recorder: mgr.GetEventRecorder("tenantvpc"),
		Clock: w.clock, Installation: installation, PollInterval: poll, Sources: []requests.Source{watches.TenantVPCs()}, Watches: watches, Readings: readings,
	}).SetupWithManager(ctx, mgr, options)).To(Succeed())
	w.Expect((&dpuattachment.Reconciler{
		Client: mgr.GetClient(), APIReader: mgr.GetAPIReader(), Fabrics: all, Recorder: mgr.GetEventRecorder("dpuattachment"),
		Clock: w.clock, Installation: installation, PollInterval: poll, Sources: []requests.Source{watches.Attachments()}, Watches: watches, Readings: readings,
	}).SetupWithManager(ctx, mgr, options)).To(Succeed())
	w.Expect((&dpuserver.Reconciler{
		Client: mgr.GetClient(), APIReader: mgr.GetAPIReader(), Fabrics: all, Recorder: mgr.GetEventRecorder("dpuserver"),
		Clock: w.clock, Installation: installation, PollInterval: poll, Sources: []requests.Source{watches.DPUFabrics()}, Readings: readings,
	}).SetupWithManager(ctx, mgr, options)).To(Succeed())
	ended := make(chan error, 1)
	go func() { ended <- mgr.Start(ctx) }()
	var once sync.Once
	w.stop = func() {
		once.Do(func() {
			cancel()
			if err := <-ended; err != nil {
				var running strings.Builder
				_ = pprof.Lookup("goroutine").WriteTo(&running, 1)
				w.t.Errorf("manager: %v; what runs:\n%s", err, running.String())
			}
		})
	}
}

// serial numbers the cards of all tests.
var serial atomic.Int32

// newServer puts a server with one DPU into the fabric.
func (w *wing) newServer(change func(*dpfsim.DPU)) dpfsim.DPU {
	w.t.Helper()
	n := serial.Add(1)
	d := dpfsim.DPU{
		Name: fmt.Sprintf("dpu-%03d", n), Serial: fmt.Sprintf("MT%03d", n), SystemID: fmt.Sprintf("sys%03d", n),
		Device: fmt.Sprintf("mt%03d", n), Node: fmt.Sprintf("server-%03d", n),
		PF0MAC: fmt.Sprintf("58:A2:E1:00:%02X:%02X", n>>8, n&0xff), StandbyPower: true,
	}
	if change != nil {
		change(&d)
	}
	w.Expect(world.DPF.Seed(w.t.Context(), []dpfsim.DPU{d})).To(Succeed())
	return d
}

// newTenant makes a TenantVPC with one subnet, the same for everybody, and deletes it afterwards.
func (w *wing) newTenant(namespace, name string) {
	w.t.Helper()
	tenant := &infrav1.TenantVPC{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec: infrav1.TenantVPCSpec{
			FabricName: fabricName, Subnets: []infrav1.VPCSubnet{{Name: "workers", CIDR: "10.64.0.0/24"}},
		},
	}
	w.Expect(world.Hub.Create(w.t.Context(), tenant)).To(Succeed())
	w.t.Cleanup(func() {
		ctx := context.WithoutCancel(w.t.Context())
		w.Expect(client.IgnoreNotFound(world.Hub.Delete(ctx, tenant))).To(Succeed())
		w.Eventually(func() error {
			return client.IgnoreNotFound(world.Hub.Get(ctx, client.ObjectKeyFromObject(tenant), tenant))
		}).Should(Succeed())
	})
}

type random byte

func (r random) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(r)
	}
	return len(p), nil
}

// claim makes a token for a machine, and lets MAAS hold the server under it.
func (w *wing) claim(namespace, machine, systemID string) string {
	w.t.Helper()
	token, err := maas.NewToken(random(serial.Add(1)), namespace, machine)
	w.Expect(err).NotTo(HaveOccurred())
	w.maas.hold(systemID, token)
	return token
}

// attach asks for an attachment. Afterwards it is taken away, proven or not.
func (w *wing) attach(namespace, name, vpcName, machine, systemID, token string) *infrav1.DPUAttachment {
	w.t.Helper()
	attachment := &infrav1.DPUAttachment{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec: infrav1.DPUAttachmentSpec{
			State: infrav1.AttachmentStateAttached, MachineName: machine, VPCName: vpcName,
			Server: infrav1.AttachmentServer{Source: source, SystemID: systemID, Token: token},
			Ports:  []infrav1.MachinePort{{Name: "p0", Subnet: "workers"}},
		},
	}
	w.Expect(world.Hub.Create(w.t.Context(), attachment)).To(Succeed())
	w.t.Cleanup(func() {
		ctx := context.WithoutCancel(w.t.Context())
		_ = world.Hub.Delete(ctx, attachment)
		_ = world.Hub.Patch(ctx, attachment, client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`)))
	})
	return attachment
}

func (w *wing) detach(attachment *infrav1.DPUAttachment) {
	w.t.Helper()
	w.Expect(retry.RetryOnConflict(retry.DefaultRetry, func() error {
		return world.Hub.Patch(w.t.Context(), attachment, client.RawPatch(types.MergePatchType, []byte(`{"spec":{"state":"Detached"}}`)))
	})).To(Succeed())
}

// touch has the attachment looked at now.
func (w *wing) touch(attachment *infrav1.DPUAttachment) {
	w.t.Helper()
	patch := fmt.Sprintf(`{"metadata":{"annotations":{"test/touched":"%d"}}}`, serial.Add(1))
	w.Expect(world.Hub.Patch(w.t.Context(), attachment, client.RawPatch(types.MergePatchType, []byte(patch)))).To(Succeed())
}

// proven is what the attachment's status says of its spec; empty if it is of another generation.
func (w *wing) proven(attachment *infrav1.DPUAttachment) func() infrav1.AttachmentState {
	return func() infrav1.AttachmentState {
		if err := world.Hub.Get(w.t.Context(), client.ObjectKeyFromObject(attachment), attachment); err != nil {
			return infrav1.AttachmentState(err.Error())
		}
		if attachment.Status.ObservedGeneration != attachment.Generation {
			return ""
		}
		return attachment.Status.State
	}
}

// reason of a condition, with its status: "False/ForeignVPC".
func (w *wing) reason(object interface {
	client.Object
	conditions.Getter
}, kind string) func() string {
	return func() string {
		if err := world.Hub.Get(w.t.Context(), client.ObjectKeyFromObject(object), object); err != nil {
			return err.Error()
		}
		condition := conditions.Get(object, kind)
		if condition == nil {
			return ""
		}
		return string(condition.Status) + "/" + condition.Reason
	}
}

func (w *wing) server(d dpfsim.DPU) *infrav1.DPUServer {
	return &infrav1.DPUServer{ObjectMeta: metav1.ObjectMeta{Name: infrav1.DPUServerName(source, d.SystemID)}}
}

func (w *wing) eligibility(d dpfsim.DPU) func() infrav1.Eligibility {
	return func() infrav1.Eligibility {
		server := w.server(d)
		if err := world.Hub.Get(w.t.Context(), client.ObjectKeyFromObject(server), server); err != nil {
			return infrav1.Eligibility(err.Error())
		}
		return server.Status.Eligibility
	}
}

// eligibilityReason says why a server is eligible or not.
func (w *wing) eligibilityReason(d dpfsim.DPU) func() string {
	return func() string { return w.reason(w.server(d), infrav1.HealthyCondition)() }
}

// plugged reports whether the card's PF0 carries a tenant's traffic, as OVN has it.
func plugged(d dpfsim.DPU) bool {
	for _, port := range world.DPF.Ports() {
		if port.DPU == d.Name {
			return true
		}
	}
	return false
}

// writes to the card's objects, whichever carries its labels.
func writes(d dpfsim.DPU) dpfsim.WriteCount {
	all := world.DPF.Writes()
	dpu, device := all[d.Name], all[d.Device]
	return dpfsim.WriteCount{Attach: dpu.Attach + device.Attach, Detach: dpu.Detach + device.Detach, Other: dpu.Other + device.Other}
}

func (w *wing) dpu(d dpfsim.DPU) *provisioningv1alpha1.DPU {
	w.t.Helper()
	object := &provisioningv1alpha1.DPU{}
	w.Expect(world.DPFAdmin.Get(w.t.Context(), client.ObjectKey{Namespace: dpfNamespace, Name: d.Name}, object)).To(Succeed())
	return object
}

// carrier is the object that carries the card's labels.
func (w *wing) carrier(d dpfsim.DPU) client.Object {
	w.t.Helper()
	device := &provisioningv1alpha1.DPUDevice{}
	w.Expect(world.DPFAdmin.Get(w.t.Context(), client.ObjectKey{Namespace: dpfNamespace, Name: d.Device}, device)).To(Succeed())
	if device.Annotations[vpc.HolderAnnotation] != "" {
		return device
	}
	return w.dpu(d)
}

// freeByHand takes our labels and record off a card, as an operator would who has checked it.
func (w *wing) freeByHand(d dpfsim.DPU) {
	w.t.Helper()
	patch := fmt.Sprintf(`{"metadata":{"annotations":{%q:null}},"spec":{"cluster":{"nodeLabels":{%q:null,%q:null}}}}`, vpc.HolderAnnotation, vpc.VPCKey, vpc.PortKey(0))
	w.Expect(world.DPFAdmin.Patch(w.t.Context(), w.carrier(d), client.RawPatch(types.MergePatchType, []byte(patch)))).To(Succeed())
}
