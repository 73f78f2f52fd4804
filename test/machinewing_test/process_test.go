// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package machinewing_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/controllers/maasmachine"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/internal/scope"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
)

var errKilled = errors.New("the process was killed")

// process is one run of the machine wing: it dies right after its killAt-th effect, and does nothing afterwards.
type process struct {
	reconciler *maasmachine.Reconciler

	mu      sync.Mutex
	killAt  int
	effects []string
	killed  bool
}

// restart starts a fresh process that dies after its killAt-th effect; 0 lets it live.
func (w *world) restart(killAt int) {
	p := &process{killAt: killAt}
	objects := p.mortal(w.objects.(client.WithWatch))
	p.reconciler = &maasmachine.Reconciler{
		Client: objects, APIReader: objects,
		Scope: scope.NewIdentities(scope.IdentityOptions{
			Client: objects, APIReader: objects, Namespace: wing, PollInterval: poll,
			NewMAAS: func(config maas.Config) (scope.MAAS, error) {
				config.Endpoint = w.address
				made, err := maas.New(config)
				if err != nil {
					return nil, err
				}
				w.Cleanup(made.Close)
				return &mortalMAAS{MAAS: made, process: p, world: w}, nil
			},
		}),
		PollInterval: poll, AuditInterval: time.Second, OutcomeWindow: window, RefusalGrace: time.Nanosecond,
	}
	w.process = p
}

func (p *process) dead() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.killed
}

// effect does something that outlives the process, unless it is dead, and dies afterwards if its time has come.
func (p *process) effect(name string, do func() error) error {
	if p.dead() {
		return errKilled
	}
	err := do()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.effects = append(p.effects, name)
	if len(p.effects) == p.killAt {
		p.killed = true
		return fmt.Errorf("%w after %s", errKilled, name)
	}
	return err
}

func (p *process) mortal(objects client.WithWatch) client.WithWatch {
	return interceptor.NewClient(objects, interceptor.Funcs{
		Create: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.CreateOption) error {
			return p.effect(fmt.Sprintf("create %T", o), func() error { return c.Create(ctx, o, opts...) })
		},
		Delete: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.DeleteOption) error {
			return p.effect(fmt.Sprintf("delete %T", o), func() error { return c.Delete(ctx, o, opts...) })
		},
		Patch: func(ctx context.Context, c client.WithWatch, o client.Object, patch client.Patch, opts ...client.PatchOption) error {
			return p.effect(fmt.Sprintf("patch %T", o), func() error { return c.Patch(ctx, o, patch, opts...) })
		},
		SubResourcePatch: func(ctx context.Context, c client.Client, sub string, o client.Object, patch client.Patch, opts ...client.SubResourcePatchOption) error {
			return p.effect(fmt.Sprintf("patch %s of %T", sub, o), func() error { return c.SubResource(sub).Patch(ctx, o, patch, opts...) })
		},
	})
}

// mortalMAAS is MAAS as a mortal process asks it. It also watches I3 and I4 at the moment of the call.
type mortalMAAS struct {
	scope.MAAS
	process *process
	world   *world
}

func (m *mortalMAAS) Allocate(ctx context.Context, token string, c maas.Constraints, comment string) (got maas.Machine, err error) {
	err = m.process.effect("allocate", func() error { got, err = m.MAAS.Allocate(ctx, token, c, comment); return err })
	return got, unknown(err)
}

func (m *mortalMAAS) Annotate(ctx context.Context, id string, annotations map[string]string) (got maas.Machine, err error) {
	err = m.process.effect("annotate", func() error { got, err = m.MAAS.Annotate(ctx, id, annotations); return err })
	return got, unknown(err)
}

func (m *mortalMAAS) Deploy(ctx context.Context, id string, request maas.DeployRequest) (got maas.Machine, err error) {
	state, exists := m.world.proven(id)
	if exists && state != infrav1.AttachmentStateAttached || !exists && len(m.world.machine().Spec.Ports) > 0 {
		m.world.violations = append(m.world.violations, "deployed without proof: "+id)
	}
	err = m.process.effect("deploy", func() error { got, err = m.MAAS.Deploy(ctx, id, request); return err })
	return got, unknown(err)
}

func (m *mortalMAAS) PowerOff(ctx context.Context, id, comment string) error {
	return unknown(m.process.effect("power off", func() error { return m.MAAS.PowerOff(ctx, id, comment) }))
}

func (m *mortalMAAS) Release(ctx context.Context, id string, request maas.ReleaseRequest) error {
	if state, exists := m.world.proven(id); exists && state != infrav1.AttachmentStateDetached {
		m.world.violations = append(m.world.violations, "released without proof: "+id)
	}
	return unknown(m.process.effect("release", func() error { return m.MAAS.Release(ctx, id, request) }))
}

// unknown is what a process would have got that was not killed but lost the answer.
func unknown(err error) error {
	if errors.Is(err, errKilled) {
		return &maas.UnknownOutcomeError{Err: err}
	}
	return err
}
