// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package scope

import (
	"context"
	"sync"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
)

// Poller implements Identities.
func (i *identities) Poller() manager.Runnable {
	return &poller{identities: i, running: map[types.UID]context.CancelFunc{}}
}

// poller follows MAAS for every identity that is in use, each in a goroutine of its own, so that one that hangs delays no other.
type poller struct {
	*identities
	running map[types.UID]context.CancelFunc
	group   sync.WaitGroup
}

var _ manager.LeaderElectionRunnable = &poller{}

// NeedLeaderElection implements manager.LeaderElectionRunnable: who does not reconcile asks nothing.
func (p *poller) NeedLeaderElection() bool { return true }

// Start polls until the context ends.
func (p *poller) Start(ctx context.Context) error {
	defer p.group.Wait()
	p.group.Go(func() { p.wakes.run(ctx) })
	ticker := p.Clock.NewTicker(p.PollInterval)
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

// match starts following the identities that came into use, and forgets those that no longer exist.
func (p *poller) match(ctx context.Context) {
	list := &infrav1.MaasClusterIdentityList{}
	if err := p.Client.List(ctx, list); err != nil {
		if ctx.Err() == nil {
			log.FromContext(ctx).Error(err, "Cannot list MaasClusterIdentities")
		}
		return
	}
	exist := make(map[types.UID]bool, len(list.Items))
	for i := range list.Items {
		exist[list.Items[i].UID] = true
	}
	p.retain(exist)
	for uid, stop := range p.running {
		if !exist[uid] {
			stop()
			delete(p.running, uid)
		}
	}
	for uid, kept := range p.inUse() {
		if _, runs := p.running[uid]; runs {
			continue
		}
		followed, stop := context.WithCancel(ctx)
		p.running[uid] = stop
		p.group.Go(func() { p.follow(followed, kept) })
	}
}

// follow polls one identity until the context ends.
func (p *poller) follow(ctx context.Context, kept *account) {
	f := &follower{readings: kept.readings, fallback: func() {
		if p.ObserveFallback != nil {
			p.ObserveFallback(kept.identity)
		}
	}}
	logger := log.FromContext(ctx).WithName("poller").WithValues("MaasClusterIdentity", kept.identity)
	for {
		start := p.Clock.Now()
		pause := p.PollInterval
		if f.due() {
			// An identity that cannot be used, or is another one by now, is not asked; who reconciles says so.
			if identity, err := p.Get(ctx, kept.identity); err == nil && identity.Readings == kept.readings {
				pause = max(pause, f.poll(ctx, logger))
			}
		}
		kept.allocations.nudge()
		timer := p.Clock.NewTimer(max(pause-p.Clock.Now().Sub(start), p.PollInterval/5))
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C():
		}
	}
}
