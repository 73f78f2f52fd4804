// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/lab"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/lab/controlplane"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/lab/proc"
)

const (
	stopTimeout  = time.Minute
	probeTimeout = 2 * time.Second
	glance       = 100 * time.Millisecond
)

// world is a management cluster with the manager under test, MAAS regions and a fabric that proves everything at once.
type world struct {
	options Options
	// name of the scenario, or its part.
	name string
	lab  *lab.Lab
	// objects reads and writes past any cache.
	objects  client.Client
	machines *machineWatch
	manager  *proc.Process
	// profiler is an address, metrics a URL of the manager.
	profiler, metrics string
	sites             []*site

	stop  context.CancelFunc
	group *errgroup.Group
	ctx   context.Context
}

// newWorld starts everything and registers the sites, each with a cluster that is ready for machines. down must be called,
// also after an error.
func newWorld(ctx context.Context, o Options, name string, sites ...*site) (*world, error) {
	w := &world{options: o, name: name, sites: sites, machines: newMachineWatch()}
	running, stop := context.WithCancel(ctx)
	w.stop = stop
	w.group, w.ctx = errgroup.WithContext(running)
	started, err := lab.Start(ctx, lab.Options{Repo: o.Repo, Dir: filepath.Join(o.Dir, name), Log: o.Log})
	if err != nil {
		return w, fmt.Errorf("start the lab: %w", err)
	}
	w.lab = started
	capi := filepath.Join(w.lab.Bin(), "config", "capi-core", "crd")
	if err := w.lab.ApplyFiles(ctx, w.lab.Management(), filepath.Join(o.Repo, "config", "crd", "bases"),
		filepath.Join(capi, "cluster.x-k8s.io_clusters.yaml"), filepath.Join(capi, "cluster.x-k8s.io_machines.yaml")); err != nil {
		return w, err
	}
	unlimited := rest.CopyConfig(w.lab.Management())
	unlimited.QPS = -1
	if w.objects, err = client.New(unlimited, client.Options{Scheme: newScheme()}); err != nil {
		return w, err
	}
	for _, s := range sites {
		if err := s.serve(w.ctx, w.group); err != nil {
			return w, err
		}
	}
	if err := w.startWatching(ctx, unlimited); err != nil {
		return w, err
	}
	if err := w.register(ctx); err != nil {
		return w, err
	}
	if err := w.startManager(ctx); err != nil {
		return w, err
	}
	return w, w.awaitClusters(ctx)
}

func newScheme() *runtime.Scheme {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, clusterv1.AddToScheme, infrav1.AddToScheme} {
		if err := add(scheme); err != nil {
			panic(err) // A kind that is registered twice is a mistake of this program.
		}
	}
	return scheme
}

// startWatching runs the fabric and the watch on machines.
func (w *world) startWatching(ctx context.Context, config *rest.Config) error {
	mgr, err := ctrl.NewManager(config, managerOptions())
	if err != nil {
		return err
	}
	if err := (&fabric{client: mgr.GetClient()}).setup(mgr); err != nil {
		return err
	}
	informer, err := mgr.GetCache().GetInformer(ctx, &infrav1.MaasMachine{})
	if err != nil {
		return err
	}
	if _, err := informer.AddEventHandler(w.machines); err != nil {
		return err
	}
	w.group.Go(func() error { return mgr.Start(w.ctx) })
	if !mgr.GetCache().WaitForCacheSync(ctx) {
		return errors.New("the watches did not start")
	}
	return nil
}

func managerOptions() ctrl.Options {
	return ctrl.Options{
		Scheme:     newScheme(),
		Metrics:    metricsserver.Options{BindAddress: "0"},
		Controller: config.Controller{SkipNameValidation: ptr.To(true), UsePriorityQueue: ptr.To(false)},
		Cache:      cache.Options{DefaultTransform: cache.TransformStripManagedFields()},
	}
}

// startManager runs the binary as its Deployment would, without webhooks and with all rights.
func (w *world) startManager(ctx context.Context) error {
	ports, err := proc.FreePorts(3)
	if err != nil {
		return err
	}
	health := fmt.Sprintf("http://127.0.0.1:%d/readyz", ports[0])
	w.metrics = fmt.Sprintf("http://127.0.0.1:%d/metrics", ports[1])
	w.profiler = fmt.Sprintf("127.0.0.1:%d", ports[2])
	probe := &http.Client{Timeout: probeTimeout, Transport: &http.Transport{DisableKeepAlives: true}}
	w.manager, err = w.lab.Supervisor().Start(ctx, proc.Spec{
		Name: "manager", Path: w.options.Manager, Tier: controlplane.TierProvider,
		Args: append([]string{
			"--wing=machine", "--wing-namespace=" + wingNamespace, "--kubeconfig=" + w.lab.ManagementKubeconfig(), "--webhook-port=0",
			fmt.Sprintf("--health-addr=127.0.0.1:%d", ports[0]),
			fmt.Sprintf("--diagnostics-address=127.0.0.1:%d", ports[1]), "--insecure-diagnostics",
			"--profiler-address=" + w.profiler, "--poll-interval=" + w.options.PollInterval.String(),
		}, w.options.ManagerArgs...),
		Ready: func(ctx context.Context) error { return get(ctx, probe, health, nil) },
	})
	return err
}

// get fetches a URL; nil only wants the answer to be good.
func get(ctx context.Context, by *http.Client, url string, into io.Writer) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	response, err := by.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answered %s", url, response.Status)
	}
	if into == nil {
		return nil
	}
	_, err = io.Copy(into, response.Body)
	return err
}

// profile records the manager's CPU in the background for as long as said, if it was asked for.
func (w *world) profile(name string, length time.Duration) {
	if w.options.Details == "" {
		return
	}
	w.group.Go(func() error {
		file, err := os.Create(filepath.Join(w.options.Details, name+".pprof"))
		if err != nil {
			return err
		}
		url := fmt.Sprintf("http://%s/debug/pprof/profile?seconds=%d", w.profiler, int(length.Seconds()))
		err = get(w.ctx, http.DefaultClient, url, file)
		if w.ctx.Err() != nil {
			err = nil // The scenario was over first.
		}
		return errors.Join(err, file.Close())
	})
}

func (w *world) usage() (usage, error) { return usageOf(w.manager.PID()) }

// down stops everything.
func (w *world) down(ctx context.Context) error {
	w.stop()
	var errs []error
	if err := w.group.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		errs = append(errs, err)
	}
	if w.options.Details != "" {
		for _, s := range w.sites {
			errs = append(errs, s.calls.save(filepath.Join(w.options.Details, w.name+"-"+s.name+"-calls.csv")))
		}
	}
	if w.lab != nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
		defer cancel()
		errs = append(errs, w.lab.Stop(ctx))
	}
	return errors.Join(errs...)
}

// until waits for something; why says what is missing when it does not come.
func (w *world) until(ctx context.Context, what string, patience time.Duration, done func(context.Context) (bool, string, error)) error {
	why := ""
	err := wait.PollUntilContextTimeout(ctx, glance, patience, true, func(ctx context.Context) (bool, error) {
		if err := w.ctx.Err(); err != nil {
			return false, fmt.Errorf("the world has ended: %w", err)
		}
		if !w.manager.Running() {
			return false, fmt.Errorf("the manager has ended, see %s", w.manager.LogFile())
		}
		ok, missing, err := done(ctx)
		why = missing
		return ok, err
	})
	if err != nil {
		return fmt.Errorf("wait until %s: %w (%s)", what, err, why)
	}
	return nil
}

// pause lets time pass.
func pause(ctx context.Context, length time.Duration) error {
	timer := time.NewTimer(length)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
