// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package scope

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
)

const (
	// unreadAudit is after how long servers that are watched and were never read are listed.
	unreadAudit = time.Minute
	// auditRetry is for how long an audit that failed is not tried again.
	auditRetry = time.Minute
)

// Wakes implements Fabrics.
func (f *fabrics) Wakes() <-chan event.GenericEvent { return f.wakes.out }

// Poller implements Fabrics.
func (f *fabrics) Poller() manager.Runnable {
	f.polled.Store(true)
	return &claimPoller{fabrics: f, running: map[*rememberedVerifier]context.CancelFunc{}}
}

// claimPoller follows the claims of every source that is in use, each in goroutines of its own, so that one that hangs delays no
// other.
type claimPoller struct {
	*fabrics
	running map[*rememberedVerifier]context.CancelFunc
	group   sync.WaitGroup
}

var _ manager.LeaderElectionRunnable = &claimPoller{}

// NeedLeaderElection implements manager.LeaderElectionRunnable: who does not reconcile asks nothing.
func (p *claimPoller) NeedLeaderElection() bool { return true }

// Start polls until the context ends.
func (p *claimPoller) Start(ctx context.Context) error {
	defer p.group.Wait()
	p.group.Go(func() { p.wakes.run(ctx) })
	ticker := p.clock.NewTicker(p.options.PollInterval)
	defer ticker.Stop()
	for {
		p.match(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C():
		}
	}
}

// match starts following the sources that came into use, and forgets those that no longer exist.
func (p *claimPoller) match(ctx context.Context) {
	list := &infrav1.DPUFabricList{}
	if err := p.options.Client.List(ctx, list); err != nil {
		if ctx.Err() == nil {
			log.FromContext(ctx).Error(err, "Cannot list DPUFabrics")
		}
		return
	}
	inUse := p.verifiersOf(list.Items)
	for followed, stop := range p.running {
		if _, ok := inUse[followed]; !ok {
			stop()
			delete(p.running, followed)
		}
	}
	for verifier, fabric := range inUse {
		if _, runs := p.running[verifier]; runs {
			continue
		}
		followed, stop := context.WithCancel(ctx)
		p.running[verifier] = stop
		logger := log.FromContext(ctx).WithName("claims").WithValues("DPUFabric", fabric, "source", verifier.source)
		followed = log.IntoContext(followed, logger)
		p.group.Go(func() { p.follow(followed, fabric, verifier) })
		p.group.Go(func() { p.audit(followed, fabric, verifier) })
	}
}

// verifiersOf returns the clients that are in use, with their fabric's name. It forgets those of sources and fabrics that are gone.
func (p *claimPoller) verifiersOf(existing []infrav1.DPUFabric) map[*rememberedVerifier]string {
	objects := make(map[types.UID]*infrav1.DPUFabric, len(existing))
	for i := range existing {
		objects[existing[i].UID] = &existing[i]
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	inUse := map[*rememberedVerifier]string{}
	maps.DeleteFunc(p.memory, func(name string, memory *fabricMemory) bool {
		object, ok := objects[memory.uid]
		if !ok {
			memory.close()
			return true
		}
		memory.mu.Lock()
		defer memory.mu.Unlock()
		maps.DeleteFunc(memory.verifiers, func(source string, verifier *rememberedVerifier) bool {
			if claimSource(object, source) == nil {
				verifier.close()
				return true
			}
			inUse[verifier] = name
			return false
		})
		return false
	})
	return inUse
}

// account returns whose claims the client sees, if it is still the one to be used. Who reconciles says why it is not.
func (p *claimPoller) account(ctx context.Context, fabric string, followed *rememberedVerifier) (account string, ok bool) {
	object := &infrav1.DPUFabric{}
	if err := p.options.Client.Get(ctx, client.ObjectKey{Name: fabric}, object); err != nil {
		return "", false
	}
	verifier, err := p.verifier(ctx, object, p.remember(object), followed.source)
	return verifier.Account, err == nil && verifier.readings == followed.readings
}

// follow follows the event feed of one source until the context ends.
func (p *claimPoller) follow(ctx context.Context, fabric string, followed *rememberedVerifier) {
	f := &follower{readings: followed.readings}
	for {
		start := p.clock.Now()
		pause := p.options.PollInterval
		if f.due() {
			if _, ok := p.account(ctx, fabric, followed); ok {
				pause = max(pause, f.poll(ctx, log.FromContext(ctx)))
			}
		}
		if !p.sleep(ctx, max(pause-p.clock.Now().Sub(start), p.options.PollInterval/5)) {
			return
		}
	}
}

// audit lists the servers of one source's account once in a while until the context ends.
func (p *claimPoller) audit(ctx context.Context, fabric string, followed *rememberedVerifier) {
	for {
		pause := p.options.PollInterval
		if followed.readings.auditDue(p.options.AuditInterval) {
			if err := p.auditOnce(ctx, fabric, followed); err != nil && ctx.Err() == nil {
				log.FromContext(ctx).Error(err, "Cannot audit the claims of a source")
				pause = max(pause, min(auditRetry, p.options.AuditInterval))
			}
		}
		if !p.sleep(ctx, pause) {
			return
		}
	}
}

func (p *claimPoller) auditOnce(ctx context.Context, fabric string, followed *rememberedVerifier) error {
	account, ok := p.account(ctx, fabric, followed)
	if !ok {
		return nil
	}
	attachments := &infrav1.DPUAttachmentList{}
	if err := p.options.Client.List(ctx, attachments); err != nil {
		return fmt.Errorf("list DPUAttachments: %w", err)
	}
	watched := make(map[types.NamespacedName]string, len(attachments.Items))
	for i := range attachments.Items {
		if a := &attachments.Items[i]; a.Spec.Server.Source == followed.source && a.Spec.State == infrav1.AttachmentStateAttached {
			watched[client.ObjectKeyFromObject(a)] = a.Spec.Server.SystemID
		}
	}
	followed.readings.retainWatchers(func(systemID string, object types.NamespacedName) bool { return watched[object] == systemID })
	return followed.readings.auditClaims(ctx, account)
}

// sleep reports whether the time passed before the context ended.
func (p *claimPoller) sleep(ctx context.Context, pause time.Duration) bool {
	timer := p.clock.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C():
		return true
	}
}
