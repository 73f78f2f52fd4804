// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package dpfsim

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/go-logr/logr"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	toolscache "k8s.io/client-go/tools/cache"
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

	// Clients without cache; the controllers have cached ones of their own.
	management, dpuCluster client.Client
	// wake has a DPU looked at whose hardware changed.
	wake chan event.GenericEvent
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
		faults: &faultSet{}, pace: newPace(options.Clock), wake: make(chan event.GenericEvent),
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
	mgr, err := manager.New(f.options.Management, manager.Options{
		Scheme: f.scheme, Logger: f.log, Metrics: metricsserver.Options{BindAddress: "0"},
		Client:     client.Options{Cache: &client.CacheOptions{Unstructured: true}},
		Controller: config.Controller{SkipNameValidation: ptr.To(true)},
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
		management: client.WithFieldOwner(mgr.GetClient(), "dpfsim-controllers"),
		dpuCluster: client.WithFieldOwner(remote.GetClient(), "dpfsim-controllers"),
	}
	for _, setup := range []func(manager.Manager, world) error{
		setupDPU, setupDSI, setupSIS, setupVPC, setupVirtualNetwork, setupServiceInterface, setupAgent, setupCredentials,
	} {
		if err := setup(mgr, w); err != nil {
			return fmt.Errorf("dpfsim: %w", err)
		}
	}
	if err := f.watchForJournal(ctx, mgr); err != nil {
		return err
	}
	for _, loop := range []func(context.Context) error{f.kubelets, f.sweeper} {
		if err := mgr.Add(manager.RunnableFunc(loop)); err != nil {
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
		if w.faults.has(ControllerStalled, name) {
			return reconcile.Result{RequeueAfter: stalledRetry}, nil
		}
		result, err := do(ctx, request)
		if apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err) {
			return reconcile.Result{RequeueAfter: raceRetry}, nil
		}
		return result, err
	})
}

const (
	stalledRetry = 200 * time.Millisecond
	raceRetry    = 20 * time.Millisecond
)

// watchForJournal records every change to the objects others write.
func (f *Fabric) watchForJournal(ctx context.Context, mgr manager.Manager) error {
	for _, kind := range []schema.GroupVersionKind{kindDPU, kindDPUDevice, kindDSI, kindVPC, kindVirtualNetwork} {
		informer, err := mgr.GetCache().GetInformer(ctx, newObject(kind))
		if err != nil {
			return fmt.Errorf("dpfsim: watch %s: %w", kind.Kind, err)
		}
		_, err = informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
			AddFunc:    func(object any) { f.journal.observe(nil, asObject(object)) },
			UpdateFunc: func(before, after any) { f.journal.observe(asObject(before), asObject(after)) },
			DeleteFunc: func(object any) { f.journal.observe(asObject(object), nil) },
		})
		if err != nil {
			return fmt.Errorf("dpfsim: watch %s: %w", kind.Kind, err)
		}
	}
	return nil
}

func asObject(object any) *unstructured.Unstructured {
	if gone, ok := object.(toolscache.DeletedFinalStateUnknown); ok {
		object = gone.Obj
	}
	u, _ := object.(*unstructured.Unstructured)
	return u
}

// SetHostPower switches a server, named by the serial number of its card or by its MAAS system ID. A card without standby
// power goes down and comes up with it.
func (f *Fabric) SetHostPower(server string, on bool) {
	f.hardware.setHostPower(server, on)
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

// Journal lists everything that happened since Run began, oldest first: changes outside status of DPUs, DPUDevices,
// DPUServiceInterfaces, DPUVPCs and DPUVirtualNetworks, and every plug and unplug.
func (f *Fabric) Journal() []Effect { return f.journal.snapshot() }

// Writes counts, per DPU or DPUDevice name, the changes others made to it since Run began.
func (f *Fabric) Writes() map[string]WriteCount { return f.journal.writeCounts() }

// pace makes things take time: the controllers ask it again until it says that their delay has passed.
type pace struct {
	mu    sync.Mutex
	clock clock.PassiveClock
	since map[string]time.Time
}

func newPace(clk clock.PassiveClock) *pace { return &pace{clock: clk, since: map[string]time.Time{}} }

// wait starts a delay when asked for the first time and returns what is left of it; at zero it is over and forgotten.
func (p *pace) wait(key string, delay time.Duration) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	since, ok := p.since[key]
	if !ok {
		since = p.clock.Now()
		p.since[key] = since
	}
	if left := delay - p.clock.Since(since); left > 0 {
		return left
	}
	delete(p.since, key)
	return 0
}

// forget drops a delay whose cause is gone.
func (p *pace) forget(key string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.since, key)
}

// ignoreStopped turns the error of a loop whose context ended into success.
func ignoreStopped(err error) error {
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}
