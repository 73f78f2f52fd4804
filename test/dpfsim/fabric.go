// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package dpfsim

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"golang.org/x/sync/errgroup"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/cluster"
	"sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

// Fabric is a running imitation of DPF and its DPUs. All methods may be called at any time, also while Run runs.
type Fabric struct {
	options  Options
	log      logr.Logger
	clock    clock.Clock
	scheme   *runtime.Scheme
	hardware *hardware
	plane    *plane
	journal  *journal
	faults   *faultSet
	pace     *pace
	cards    cards

	mu      sync.Mutex
	place   LabelPlace // of the release that runs
	restart func()     // of the controllers; nil before Run

	// Clients without cache; the controllers have cached ones of their own.
	management, dpuCluster client.Client
	// wake has a DPU looked at whose hardware changed.
	wake, wakeVPC, wakeNetwork chan event.GenericEvent
}

// New connects to both API servers. Nothing is written before InstallCRDs or Seed.
func New(options Options) (*Fabric, error) {
	if err := options.complete(); err != nil {
		return nil, err
	}
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, apiextensionsv1.AddToScheme} {
		if err := add(scheme); err != nil {
			return nil, fmt.Errorf("dpfsim: scheme: %w", err)
		}
	}
	options.Management, options.DPUCluster = unthrottled(options.Management), unthrottled(options.DPUCluster)
	f := &Fabric{
		options: options, log: options.Log, clock: options.Clock, scheme: scheme,
		hardware: newHardware(options.Clock, options.Timing.Boot), journal: newJournal(options.Clock),
		faults: &faultSet{}, pace: newPace(options), place: options.LabelPlace,
		wake: make(chan event.GenericEvent), wakeVPC: make(chan event.GenericEvent), wakeNetwork: make(chan event.GenericEvent),
	}
	f.plane = newPlane(options.Clock, f.journal,
		func(dpu string) bool { return f.faults.has(OVNControllerHung, dpu) }, f.hardware.running,
		func(dpu string, fn function) string {
			c, _ := f.hardware.get(dpu)
			mac, _ := c.hostMAC(fn)
			return mac
		})
	var err error
	if f.management, err = client.New(options.Management, client.Options{Scheme: scheme}); err != nil {
		return nil, fmt.Errorf("dpfsim: management cluster: %w", err)
	}
	if f.dpuCluster, err = client.New(options.DPUCluster, client.Options{Scheme: scheme}); err != nil {
		return nil, fmt.Errorf("dpfsim: DPU cluster: %w", err)
	}
	return f, nil
}

// unthrottled lets a thousand DPUs share one client.
func unthrottled(c *rest.Config) *rest.Config {
	c = rest.CopyConfig(c)
	c.QPS, c.Burst = -1, 0
	return c
}

// world is what a controller of DPF works with: cached clients of both clusters under DPF's own name.
type world struct {
	*Fabric
	management, dpuCluster client.Client
	remote                 cluster.Cluster
}

// Run plays DPF until ctx ends. The CRDs must be installed; DPUs may be seeded before or after.
func (f *Fabric) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	journal, err := f.startJournal(ctx)
	if err != nil {
		return ignoreStopped(err)
	}
	group.Go(journal)
	for _, loop := range []func(context.Context) error{f.kubelets, f.sweeper, f.runControllers} {
		group.Go(func() error { return loop(ctx) })
	}
	return group.Wait()
}

// runControllers runs DPF's, again and again when they are restarted.
func (f *Fabric) runControllers(ctx context.Context) error {
	for {
		running, cancel := context.WithCancel(ctx)
		f.mu.Lock()
		f.restart = cancel
		f.mu.Unlock()
		err := f.controllers(running)
		restarted := running.Err() != nil && ctx.Err() == nil
		cancel()
		if !restarted {
			return err
		}
		if err != nil {
			f.log.Info("stopped while starting", "error", err.Error())
		}
	}
}

// Restart stops DPF's controllers and starts them anew, which has them look at everything.
func (f *Fabric) Restart() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.journal.add(Effect{Kind: EffectFault, Change: "restart of DPF's controllers"})
	if f.restart != nil {
		f.restart()
	}
}

func (f *Fabric) controllers(ctx context.Context) error {
	mgr, err := manager.New(f.options.Management, manager.Options{
		Scheme: f.scheme, Logger: f.log, Metrics: metricsserver.Options{BindAddress: "0"},
		Client:     client.Options{Cache: &client.CacheOptions{Unstructured: true}},
		Controller: config.Controller{SkipNameValidation: ptr.To(true), UsePriorityQueue: ptr.To(false)},
	})
	if err != nil {
		return fmt.Errorf("dpfsim: management cluster: %w", err)
	}
	remote, err := cluster.New(f.options.DPUCluster, func(o *cluster.Options) {
		o.Scheme, o.Logger = f.scheme, f.log
		o.Client.Cache = &client.CacheOptions{Unstructured: true}
	})
	if err != nil {
		return fmt.Errorf("dpfsim: DPU cluster: %w", err)
	}
	if err := mgr.Add(remote); err != nil {
		return fmt.Errorf("dpfsim: DPU cluster: %w", err)
	}
	w := world{Fabric: f, remote: remote,
		management: noting{client.WithFieldOwner(mgr.GetClient(), controllersOwner), f.journal, false},
		dpuCluster: noting{client.WithFieldOwner(remote.GetClient(), controllersOwner), f.journal, true},
	}
	for _, setup := range []func(manager.Manager, world) error{
		setupDPUSet, setupDPU, setupDSI, setupSIS, setupVPC, setupVirtualNetwork, setupServiceInterface, setupAgent, setupCredentials,
	} {
		if err := setup(mgr, w); err != nil {
			return fmt.Errorf("dpfsim: %w", err)
		}
	}
	return mgr.Start(ctx)
}

// controller begins the set-up of one of DPF's controllers.
func (w world) controller(mgr manager.Manager, name string) *builder.Builder {
	return builder.ControllerManagedBy(mgr).Named(name).WithOptions(controller.Options{MaxConcurrentReconciles: 16})
}

// played wraps a controller: a stalled one does nothing, and a lost race is not an error.
func (w world) played(name string, do reconcile.Func) reconcile.Reconciler {
	return reconcile.Func(func(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
		if w.faults.has(ControllerStalled, name) || remoteControllers[name] && w.faults.has(DPUClusterUnreachable, "") {
			return reconcile.Result{RequeueAfter: stalledRetry}, nil
		}
		if value, ok := w.faults.find(ControllerSlow, name); ok {
			delay, err := time.ParseDuration(value)
			if err != nil {
				return reconcile.Result{}, fmt.Errorf("fault ControllerSlow: %w", err)
			}
			if left := w.pace.wait("slow/"+name+"/"+request.String(), delay); left > 0 {
				return reconcile.Result{RequeueAfter: left}, nil
			}
		}
		result, err := do(ctx, request)
		if apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err) {
			return reconcile.Result{RequeueAfter: raceRetry}, nil
		}
		return result, err
	})
}

// remoteControllers can do nothing while the management side does not reach the DPU cluster.
// unsure: which of their conditions say so; here none changes.
var remoteControllers = map[string]bool{ControllerVPC: true, ControllerServiceInterface: true}

// controllersOwner is the field manager of everything DPF writes.
const controllersOwner = "dpfsim-controllers"

const (
	stalledRetry = 200 * time.Millisecond
	raceRetry    = 20 * time.Millisecond
)

// SetHostPower switches a server, named by the serial number of its card or by its MAAS system ID. A card without standby
// power goes down and comes up with it.
func (f *Fabric) SetHostPower(server string, on bool) {
	changed := f.hardware.setHostPower(server, on)
	for _, name := range changed {
		f.journal.add(Effect{Kind: EffectPower, Object: "DPU " + f.options.Namespace + "/" + name, Change: map[bool]string{true: "boots", false: "down"}[on]})
	}
	ctx, cancel := context.WithTimeout(context.Background(), faultCall)
	defer cancel()
	for _, name := range changed {
		if err := f.follow(ctx, name); err != nil {
			f.log.Error(err, "power", "dpu", name)
		}
	}
	f.plane.sync()
}

// FinishInstall ends the installation of a DPU that was seeded with a phase.
func (f *Fabric) FinishInstall(dpu string) { f.hardware.setInstalling(dpu, "") }

// Ports lists every host port OVN has on a network, sorted by DPU and function: the truth of the data plane, including ports
// whose objects are gone.
func (f *Fabric) Ports() []Port { return f.plane.ports() }

// Lease is what OVN's DHCP gives a host with this MAC address now; ok is false if nobody would answer it.
func (f *Fabric) Lease(mac string) (address netip.Addr, network Network, ok bool) {
	return f.plane.lease(mac)
}

// Reachable says whether two hosts can talk through their ports: both plugged, in one VPC, and on one network or on two that
// the VPC connects.
func (f *Fabric) Reachable(macA, macB string) bool { return f.plane.reachable(macA, macB) }

// Journal lists everything that happened since Run began, oldest first: changes outside status of DPF's objects in both
// clusters and of the Nodes, every plug and unplug, power, and faults.
func (f *Fabric) Journal() []Effect { return f.journal.snapshot() }

// Writes counts, per DPU or DPUDevice name, the changes others made to it since Run began.
func (f *Fabric) Writes() map[string]WriteCount { return f.journal.writeCounts() }

// pace makes things take time: the controllers ask it again until it says that their delay has passed.
type pace struct {
	mu     sync.Mutex
	clock  clock.PassiveClock
	jitter float64
	random *rand.Rand
	delays map[string]delay
}

type delay struct {
	since time.Time
	takes time.Duration
}

func newPace(options Options) *pace {
	random := rand.New(rand.NewPCG(options.Seed, 0))
	return &pace{clock: options.Clock, jitter: options.Jitter, random: random, delays: map[string]delay{}}
}

// wait starts a delay when asked for the first time and returns what is left of it; at zero it is over and forgotten.
func (p *pace) wait(key string, takes time.Duration) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	d, ok := p.delays[key]
	if !ok {
		d = delay{since: p.clock.Now(), takes: takes + time.Duration(float64(takes)*p.jitter*p.random.Float64())}
		p.delays[key] = d
	}
	if left := d.takes - p.clock.Since(d.since); left > 0 {
		return left
	}
	delete(p.delays, key)
	return 0
}

// forget drops a delay whose cause is gone.
func (p *pace) forget(key string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.delays, key)
}

// ignoreStopped turns the error of a loop whose context ended into success.
func ignoreStopped(err error) error {
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}
