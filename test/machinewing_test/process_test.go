// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package machinewing_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/controllers/maascluster"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/controllers/maasclusteridentity"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/controllers/maasmachine"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/internal/scope"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
)

// workers is how many objects of a kind a process reconciles at once, of which those of one identity get a quarter.
const workers = 20

var errKilled = errors.New("the process was killed")

// process is one run of the machine wing: a manager with its controllers, which may be killed. What is dead has no effect any
// more, neither on the API server nor on MAAS.
type process struct {
	name  string
	world *world
	kill  context.CancelFunc
	// ended is closed when nothing of it runs any more.
	ended chan struct{}

	mu      sync.Mutex
	killed  bool
	killAt  int
	effects []string
}

// dead says that the process was killed.
func (p *process) dead() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.killed
}

// die kills the process at once. It does not wait for its end.
func (p *process) die() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.killed = true
	p.kill()
}

// effected notes something that outlives the process, which dies of it if its time has come.
func (p *process) effected(name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.effects = append(p.effects, name)
	if len(p.effects) == p.killAt {
		p.killed = true
		p.kill()
	}
}

// done are the effects so far.
func (p *process) done() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string(nil), p.effects...)
}

// start runs a fresh process that dies after its killAt-th effect; 0 lets it live.
func (w *world) start(killAt int) *process {
	w.Helper()
	ctx, cancel := context.WithCancel(w.Context())
	w.mu.Lock()
	w.started++
	p := &process{name: fmt.Sprintf("%s%d", w.options.account, w.started), world: w, kill: cancel, killAt: killAt, ended: make(chan struct{})}
	w.processes = append(w.processes, p)
	w.mu.Unlock()
	for _, s := range w.sites {
		s.gate.enter(p)
	}
	mgr, err := p.manager(ctx)
	w.Expect(err).NotTo(HaveOccurred())
	go func() {
		defer close(p.ended)
		// A killed process ends as it likes.
		if err := mgr.Start(ctx); err != nil && ctx.Err() == nil {
			w.Errorf("%s: %v", p.name, err)
		}
	}()
	w.Cleanup(func() { cancel(); <-p.ended })
	return p
}

// enter lets a process through.
func (g *gate) enter(p *process) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.processes[p.name] = p
}

// manager is one over the API server in memory, or over the real one.
func (p *process) manager(ctx context.Context) (ctrl.Manager, error) {
	w := p.world
	options := ctrl.Options{
		Scheme: w.scheme, Logger: w.logger(p.name),
		Metrics:                 metricsserver.Options{BindAddress: "0"},
		Controller:              config.Controller{SkipNameValidation: ptr.To(true), UsePriorityQueue: ptr.To(false)},
		Client:                  client.Options{Cache: &client.CacheOptions{DisableFor: []client.Object{&corev1.Secret{}}}},
		GracefulShutdownTimeout: ptr.To(10 * time.Second),
	}
	server := w.config
	if w.api != nil {
		objects := p.mortal(w.api.client)
		server = &rest.Config{Host: "http://127.0.0.1:1"}
		options.MapperProvider = func(*rest.Config, *http.Client) (meta.RESTMapper, error) { return w.api.raw.RESTMapper(), nil }
		options.NewClient = func(*rest.Config, client.Options) (client.Client, error) { return objects, nil }
		options.NewCache = func(*rest.Config, cache.Options) (cache.Cache, error) { return newInformers(ctx, w.api, objects), nil }
	}
	mgr, err := ctrl.NewManager(server, options)
	if err != nil {
		return nil, err
	}
	return mgr, p.setUp(ctx, mgr)
}

// setUp adds the controllers as the machine wing does.
func (p *process) setUp(ctx context.Context, mgr ctrl.Manager) error {
	w := p.world
	objects, reader := mgr.GetClient(), mgr.GetAPIReader()
	if w.api != nil {
		reader = objects
	}
	identities := scope.NewIdentities(scope.IdentityOptions{
		Client: objects, APIReader: reader, Namespace: wing, PollInterval: w.options.poll, NewMAAS: p.connect,
	})
	if err := mgr.Add(identities.Poller()); err != nil {
		return err
	}
	options := controller.Options{MaxConcurrentReconciles: workers}
	if err := (&maasclusteridentity.Reconciler{
		Client: objects, Scope: identities, Recorder: w.tells, PollInterval: w.options.poll, AuditInterval: w.options.audit,
	}).SetupWithManager(ctx, mgr, options); err != nil {
		return err
	}
	if err := (&maascluster.Reconciler{
		Client: objects, Scope: identities, Recorder: w.tells, PollInterval: w.options.poll,
	}).SetupWithManager(ctx, mgr, options); err != nil {
		return err
	}
	return (&maasmachine.Reconciler{
		Client: objects, APIReader: reader, Scope: identities, Recorder: w.tells,
		PollInterval: w.options.poll, AuditInterval: w.options.audit, OutcomeWindow: w.options.window, RefusalGrace: time.Nanosecond,
		PassesPerIdentity: workers / 4,
	}).SetupWithManager(ctx, mgr, options)
}

// connect makes the process' own way to MAAS, which ends with it.
func (p *process) connect(config maas.Config) (scope.MAAS, error) {
	config.Endpoint = strings.TrimSuffix(config.Endpoint, "/MAAS") + "/" + p.name + "/MAAS"
	made, err := maas.New(config)
	if err != nil {
		return nil, err
	}
	return made, nil
}

// mortal is the API server as a process reaches it: each write is an effect, and the dead write nothing.
func (p *process) mortal(objects client.WithWatch) client.WithWatch {
	write := func(name string, o client.Object, do func() error) error {
		if p.dead() {
			return errKilled
		}
		if err := do(); err != nil {
			return err
		}
		p.effected(fmt.Sprintf("%s %s", name, p.world.api.kindOf(o).Kind))
		if p.dead() {
			return errKilled
		}
		return nil
	}
	return interceptor.NewClient(objects, interceptor.Funcs{
		Create: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.CreateOption) error {
			return write("create", o, func() error { return c.Create(ctx, o, opts...) })
		},
		Update: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.UpdateOption) error {
			return write("update", o, func() error { return c.Update(ctx, o, opts...) })
		},
		Delete: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.DeleteOption) error {
			return write("delete", o, func() error { return c.Delete(ctx, o, opts...) })
		},
		Patch: func(ctx context.Context, c client.WithWatch, o client.Object, patch client.Patch, opts ...client.PatchOption) error {
			return write("patch", o, func() error { return c.Patch(ctx, o, patch, opts...) })
		},
		SubResourcePatch: func(ctx context.Context, c client.Client, sub string, o client.Object, patch client.Patch, opts ...client.SubResourcePatchOption) error {
			return write("patch "+sub+" of", o, func() error { return c.SubResource(sub).Patch(ctx, o, patch, opts...) })
		},
		SubResourceUpdate: func(ctx context.Context, c client.Client, sub string, o client.Object, opts ...client.SubResourceUpdateOption) error {
			return write("update "+sub+" of", o, func() error { return c.SubResource(sub).Update(ctx, o, opts...) })
		},
	})
}

// supervise keeps as many processes running as the world has replicas: whoever was killed is replaced by a fresh one.
func (w *world) supervise() {
	w.Helper()
	for range w.options.replicas - len(w.living()) {
		w.start(0)
	}
}

// living are the processes that were not killed.
func (w *world) living() []*process {
	w.mu.Lock()
	defer w.mu.Unlock()
	var living []*process
	for _, p := range w.processes {
		if !p.dead() {
			living = append(living, p)
		}
	}
	return living
}

// stop kills whatever runs.
func (w *world) stop() {
	for _, p := range w.living() {
		p.die()
		<-p.ended
	}
}
