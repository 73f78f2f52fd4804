// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package scope

import (
	"cmp"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// line is who stands where at one moment. It decides without changing anything but itself.
type line struct {
	now      time.Time
	lately   time.Duration
	free     int
	settling bool

	// have are the servers of each cluster, asking the allocations under way for it.
	have, asking map[types.NamespacedName]int
	// busy are the machines with an allocation under way, wanted the Wants of these.
	busy   map[types.NamespacedName]bool
	wanted map[string]int
	scarce map[string]scarcity
	// waiting may be served, longest first, contending are the clusters that would get a server if it were theirs to have.
	waiting    []*waiter
	contending map[types.NamespacedName]bool
}

// line looks at everybody. The caller holds the lock.
func (t *Turns) line(now time.Time) *line {
	l := &line{
		now: now, lately: t.lately(), free: t.size - len(t.granted), settling: now.Before(t.settled), scarce: t.scarce,
		have: map[types.NamespacedName]int{}, asking: map[types.NamespacedName]int{},
		busy: map[types.NamespacedName]bool{}, wanted: map[string]int{}, contending: map[types.NamespacedName]bool{},
	}
	for _, cluster := range t.holding {
		l.have[cluster]++
	}
	for machine, server := range t.taken {
		if _, shown := t.holding[machine]; !shown {
			l.have[server.cluster]++
		}
	}
	failing := func(cluster types.NamespacedName) bool {
		failed, ok := t.failing[cluster]
		// One failure is bad luck; who fails again and again must not hold up the others.
		return ok && failed.count > 1 && now.Sub(failed.at) < l.lately
	}
	for grant := range t.granted {
		l.asking[grant.Cluster]++
		l.busy[grant.Machine] = true
		l.wanted[grant.Wants]++
		// An allocation may hang for a minute.
		if now.Sub(grant.since) < forgetAfter*t.interval && !failing(grant.Cluster) {
			l.contending[grant.Cluster] = true
		}
	}
	for _, w := range t.waiting {
		if _, served := t.holding[w.Machine]; served || l.busy[w.Machine] || l.refused(w.Wants) {
			continue
		}
		l.waiting = append(l.waiting, w)
		if !failing(w.Cluster) {
			l.contending[w.Cluster] = true
		}
	}
	slices.SortFunc(l.waiting, func(a, b *waiter) int {
		return cmp.Or(a.since.Compare(b.since), cmp.Compare(a.Machine.String(), b.Machine.String()))
	})
	return l
}

// refused reports that nothing was free for these Wants a moment ago.
func (l *line) refused(wants string) bool {
	scarcity, ok := l.scarce[wants]
	return ok && l.now.Before(scarcity.until)
}

// judge says whether the machine may allocate now.
func (l *line) judge(w *waiter) Verdict {
	_, scarce := l.scarce[w.Wants]
	switch {
	case l.refused(w.Wants), scarce && l.wanted[w.Wants] > 0:
		return TurnRefused // Where nothing was free, one at a time finds out whether there is now.
	case l.free <= 0, l.busy[w.Machine]:
		return TurnBusy
	case l.settling && l.share(w.Cluster) > 0, l.before(w.Cluster):
		return TurnAfter
	}
	return TurnGranted
}

// share is what the cluster will have if all goes well.
func (l *line) share(cluster types.NamespacedName) int { return l.have[cluster] + l.asking[cluster] }

// before reports that another cluster that can be served would be overtaken. What is under way for that one may fail, and does
// not count; what is under way for this one may not, and does.
func (l *line) before(cluster types.NamespacedName) bool {
	share := l.share(cluster)
	for other := range l.contending {
		if other != cluster && l.have[other] < share {
			return true
		}
	}
	return false
}

// next returns who is to be woken: of those who may allocate now, the longest waiting of a cluster with the fewest servers. Who
// failed a moment ago comes back by itself.
func (l *line) next() *waiter {
	var first *waiter
	for _, w := range l.waiting {
		if !w.failed.IsZero() && l.now.Sub(w.failed) < l.lately {
			continue
		}
		if (first == nil || l.share(w.Cluster) < l.share(first.Cluster)) && l.judge(w) == TurnGranted {
			first = w
		}
	}
	return first
}

// grant counts the machine as allocating.
func (l *line) grant(w *waiter) {
	l.free--
	l.asking[w.Cluster]++
	l.busy[w.Machine] = true
	l.wanted[w.Wants]++
}
