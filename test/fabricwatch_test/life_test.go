// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package fabricwatch_test

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	"sigs.k8s.io/cluster-api/util/conditions"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	ctrlsource "sigs.k8s.io/controller-runtime/pkg/source"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/controllers/dpuattachment"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/controllers/dpuserver"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/controllers/tenantvpc"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/internal/scope"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/vpc"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/dpfsim"
)

const account = "wing-red"

// holding is a MAAS in which every claim holds.
type holding struct {
	maas.Verifier
	mu     sync.Mutex
	tokens map[string]string
}

func (h *holding) machine(systemID string) maas.Machine {
	machine := maas.Machine{SystemID: systemID, Status: maas.StatusReady, PowerState: maas.PowerOn}
	if token := h.tokens[systemID]; token != "" {
		machine.Owner, machine.Annotations = account, map[string]string{maas.AnnotationToken: maas.TokenHash(token)}
	}
	return machine
}

func (h *holding) ConfirmClaim(_ context.Context, owner, token, systemID string) (maas.Machine, maas.Ownership, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	machine := h.machine(systemID)
	return machine, machine.ClaimedBy(owner, token), nil
}

func (h *holding) MachinesByID(_ context.Context, systemIDs ...string) ([]maas.Machine, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	var machines []maas.Machine
	for _, id := range systemIDs {
		machines = append(machines, h.machine(id))
	}
	return machines, nil
}

// claimed are the real fabrics, but for MAAS.
type claimed struct {
	scope.Fabrics
	maas *holding
}

func (c claimed) wrap(fabric *scope.Fabric, err error) (*scope.Fabric, error) {
	if err == nil {
		fabric.Verifier = func(context.Context, string) (scope.Verifier, error) {
			return scope.Verifier{Verifier: c.maas, Account: account}, nil
		}
	}
	return fabric, err
}

func (c claimed) Get(ctx context.Context, name string) (*scope.Fabric, error) {
	return c.wrap(c.Fabrics.Get(ctx, name))
}

func (c claimed) ForSource(ctx context.Context, name string) (*scope.Fabric, error) {
	return c.wrap(c.Fabrics.ForSource(ctx, name))
}

// wing is a fabric wing that runs, with watches, and counts its requests.
type wing struct {
	*WithT
	maas    *holding
	watches *scope.FabricWatches

	mu    sync.Mutex
	calls map[string]int
}

// newWing starts the controllers as internal/manager does.
func newWing(t *testing.T, poll time.Duration) *wing {
	t.Helper()
	w := &wing{WithT: NewWithT(t), maas: &holding{tokens: map[string]string{}}, calls: map[string]int{}}
	w.SetDefaultEventuallyTimeout(patience)
	w.SetDefaultEventuallyPollingInterval(interval)
	mgr := newManager(w.WithT)
	fabrics := claimed{maas: w.maas, Fabrics: scope.NewFabrics(scope.FabricsOptions{
		Client: mgr.GetClient(), APIReader: mgr.GetAPIReader(), Namespace: wingNamespace, Installation: installation,
		Observe: func(call scope.FabricCall) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.calls[call.Target]++
		},
	})}
	w.Expect(scope.IndexFabricWatches(t.Context(), mgr.GetFieldIndexer())).To(Succeed())
	w.watches = scope.NewFabricWatches(scope.FabricWatchesOptions{Fabrics: fabrics, Client: mgr.GetClient(), Installation: installation})
	w.Expect(mgr.Add(w.watches)).To(Succeed())
	readings := dpfzt.NewReadings(clock.RealClock{}, w.watches.NodesLapsed)
	options := controller.Options{MaxConcurrentReconciles: 50}
	w.Expect((&tenantvpc.Reconciler{
		Client: mgr.GetClient(), APIReader: mgr.GetAPIReader(), Fabrics: fabrics, Recorder: mgr.GetEventRecorder("tenantvpc"),
		Clock: clock.RealClock{}, Installation: installation, PollInterval: poll,
		Sources: []ctrlsource.Source{w.watches.TenantVPCs()}, Watches: w.watches, Readings: readings,
	}).SetupWithManager(t.Context(), mgr, options)).To(Succeed())
	w.Expect((&dpuserver.Reconciler{
		Client: mgr.GetClient(), APIReader: mgr.GetAPIReader(), Fabrics: fabrics, Recorder: mgr.GetEventRecorder("dpuserver"),
		Clock: clock.RealClock{}, Installation: installation, PollInterval: poll,
		Sources: []ctrlsource.Source{w.watches.DPUFabrics()}, Readings: readings,
	}).SetupWithManager(t.Context(), mgr, options)).To(Succeed())
	w.Expect((&dpuattachment.Reconciler{
		Client: mgr.GetClient(), APIReader: mgr.GetAPIReader(), Fabrics: fabrics, Recorder: mgr.GetEventRecorder("dpuattachment"),
		Clock: clock.RealClock{}, Installation: installation, PollInterval: poll,
		Sources: []ctrlsource.Source{w.watches.Attachments()}, Watches: w.watches, Readings: readings,
	}).SetupWithManager(t.Context(), mgr, options)).To(Succeed())
	t.Cleanup(runManager(t, mgr))
	w.Eventually(func() bool { return w.watches.CoversAll(fabricName) && w.watches.Covers(fabricName, theDPUCluster) }).Should(BeTrue())
	return w
}

// playDPF runs DPF's controllers until the test ends.
func playDPF(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- world.sim.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("DPF simulator: %v", err)
		}
	})
}

// fleet makes servers, and an attachment for each.
func (w *wing) fleet(t *testing.T, count int) (dpus []dpfsim.DPU, attachments []*infrav1.DPUAttachment) {
	t.Helper()
	for n := range count {
		dpus = append(dpus, dpfsim.DPU{
			Name: fmt.Sprintf("dpu-%03d", n), Serial: fmt.Sprintf("MT%03d", n), SystemID: fmt.Sprintf("sys%03d", n), Device: fmt.Sprintf("mt%03d", n),
			Node: fmt.Sprintf("server-%03d", n), PF0MAC: fmt.Sprintf("58:A2:E1:00:%02X:%02X", 2+n/256, n%256), StandbyPower: true,
		})
	}
	w.Expect(world.sim.Seed(t.Context(), dpus)).To(Succeed())
	create(t, world.hub.client, &infrav1.TenantVPC{
		ObjectMeta: metav1.ObjectMeta{Namespace: "red", Name: "life"},
		Spec:       infrav1.TenantVPCSpec{FabricName: fabricName, Subnets: []infrav1.VPCSubnet{{Name: "workers", CIDR: "10.64.0.0/20"}}},
	})
	for n, d := range dpus {
		name := fmt.Sprintf("m-%03d", n)
		token, err := maas.NewToken(random(n), "red", name)
		w.Expect(err).NotTo(HaveOccurred())
		w.maas.mu.Lock()
		w.maas.tokens[d.SystemID] = token
		w.maas.mu.Unlock()
		attachment := &infrav1.DPUAttachment{
			ObjectMeta: metav1.ObjectMeta{Namespace: "red", Name: name},
			Spec: infrav1.DPUAttachmentSpec{
				State: infrav1.AttachmentStateAttached, MachineName: name, VPCName: "life",
				Server: infrav1.AttachmentServer{Source: source, SystemID: d.SystemID, Token: token},
				Ports:  []infrav1.MachinePort{{Name: "p0", Subnet: "workers"}},
			},
		}
		w.Expect(world.hub.client.Create(t.Context(), attachment)).To(Succeed())
		t.Cleanup(func() {
			ctx := context.WithoutCancel(t.Context())
			_ = world.hub.client.Delete(ctx, attachment)
			_ = world.hub.client.Patch(ctx, attachment, client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`)))
		})
		attachments = append(attachments, attachment)
	}
	return dpus, attachments
}

func state(t *testing.T, attachment *infrav1.DPUAttachment) func() infrav1.AttachmentState {
	return func() infrav1.AttachmentState {
		if err := world.hub.client.Get(t.Context(), client.ObjectKeyFromObject(attachment), attachment); err != nil {
			return infrav1.AttachmentState(err.Error())
		}
		return attachment.Status.State
	}
}

// TestLifeByWatches attaches, notices drift and detaches although nothing is polled within the hour: watches do it all. With
// FABRIC_DPUS set it polls as usual, and says how many requests that many steady attachments cost.
func TestLifeByWatches(t *testing.T) {
	count, poll := 3, time.Hour
	if asked, err := strconv.Atoi(os.Getenv("FABRIC_DPUS")); err == nil {
		count, poll = asked, 5*time.Second
	}
	playDPF(t)
	w := newWing(t, poll)
	begun := time.Now()
	dpus, attachments := w.fleet(t, count)
	for _, attachment := range attachments {
		w.Eventually(state(t, attachment)).WithTimeout(10 * patience).Should(Equal(infrav1.AttachmentStateAttached))
	}
	t.Logf("%d attached after %s", count, time.Since(begun).Round(time.Millisecond))
	if poll < time.Hour {
		w.measure(t)
	}

	// Who unplugs a running tenant's port behind our back is seen, and only there.
	begun = time.Now()
	world.sim.Inject(dpfsim.Fault{Kind: dpfsim.Relabel, Target: dpus[0].Name, Value: vpc.PortKey(0) + "-"})
	w.Eventually(func() bool {
		_ = state(t, attachments[0])()
		return conditions.IsTrue(attachments[0], infrav1.AttachedCondition)
	}).WithTimeout(noticed).Should(BeFalse())
	t.Logf("drift noticed after %s", time.Since(begun).Round(time.Millisecond))
	w.Expect(state(t, attachments[1])()).To(Equal(infrav1.AttachmentStateAttached))

	begun = time.Now()
	detach := client.RawPatch(types.MergePatchType, []byte(`{"spec":{"state":"Detached"}}`))
	w.Expect(world.hub.client.Patch(t.Context(), attachments[1], detach)).To(Succeed())
	w.Eventually(state(t, attachments[1])).Should(Equal(infrav1.AttachmentStateDetached))
	t.Logf("detached after %s", time.Since(begun).Round(time.Millisecond))
}

// measure counts the requests of a minute in which nothing happens.
func (w *wing) measure(t *testing.T) {
	t.Helper()
	counted := func() map[string]int {
		w.mu.Lock()
		defer w.mu.Unlock()
		calls := w.calls
		w.calls = map[string]int{}
		return calls
	}
	for range 2 {
		counted()
		select {
		case <-t.Context().Done():
			return
		case <-time.After(time.Minute):
		}
		t.Logf("requests in a minute: %v", counted())
	}
}
