// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package autoscaler

import "time"

// backoff keeps groups whose machines did not become Nodes in time from being scaled up for a while that doubles each time.
type backoff struct {
	initial, longest, forgottenAfter time.Duration

	groups map[string]backedOff
}

type backedOff struct {
	duration      time.Duration
	until, failed time.Time
}

// fail starts or prolongs a group's wait.
//
// unsure: newer releases add up to some jitter.
func (b *backoff) fail(group string, now time.Time) (until time.Time) {
	duration := b.initial
	if known, found := b.groups[group]; found {
		duration = known.duration
		// Several failures at once count as one.
		if known.until.Before(now) {
			duration = min(2*known.duration, b.longest)
		}
	}
	until = now.Add(duration)
	b.groups[group] = backedOff{duration: duration, until: until, failed: now}
	return until
}

func (b *backoff) waits(group string, now time.Time) bool { return b.groups[group].until.After(now) }

// forget drops what failed long ago, so that the next wait is a short one.
func (b *backoff) forget(now time.Time) {
	for group, known := range b.groups {
		if known.failed.Add(b.forgottenAfter).Before(now) {
			delete(b.groups, group)
		}
	}
}
