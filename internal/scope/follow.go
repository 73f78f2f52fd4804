// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package scope

import (
	"context"
	"time"

	"github.com/go-logr/logr"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
)

const (
	// feedPages is how many pages of events are read in one poll; a longer backlog is read in the next ones.
	feedPages = 5
	// feedTimeout bounds one question to the feed, which MAAS answers in 30 ms: those who wait for machines must not wait for it.
	feedTimeout = 10 * time.Second
	// feedTries is how often a feed that fails is tried at once at the next poll; feedRetry is after how long it is then.
	feedTries = 3
	feedRetry = time.Minute
	// claimsPerPoll is how many machines are read in one poll where only claims count: who deploys them reads them too.
	claimsPerPoll = 60
	// feedGap is for how long the feed may go unasked before it is begun anew: it would be a long way to catch up.
	feedGap = 10 * time.Minute
)

// follower keeps the readings of one account young: it follows MAAS' event feed, and reads what changed or has grown too old.
// The feed is an optimisation: its IDs may be committed out of order, and not every change is an event of its level, so that
// readings are renewed all the same when they are as old as those who wait accept. One goroutine uses it.
type follower struct {
	readings *Readings
	// fallback is told of every poll that had to do without the feed. May be nil.
	fallback func()

	epoch  int
	begun  bool
	cursor int64
	asked  time.Time
	// failures are those in a row.
	failures int
	retryAt  time.Time
}

// due reports that MAAS is to be asked something now.
func (f *follower) due() bool {
	r := f.readings
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.clock.Now()
	wants := r.wants(now)
	r.polledUntil = now.Add(forgetAfter * r.interval)
	return feedDue(wants, now.Sub(f.asked), r.idle) || len(due(wants, now, r.interval, r.interval, r.feed)) > 0
}

// poll asks MAAS what is due, and returns how long it wants to be left alone, zero if it did not say.
func (f *follower) poll(ctx context.Context, log logr.Logger) time.Duration {
	r := f.readings
	if !r.clock.Now().Before(f.retryAt) {
		sent := r.clock.Now()
		err := f.follow(ctx)
		r.hear(ctx, sent, err)
		if pause := f.judge(ctx, log, err); pause > 0 {
			return pause
		}
	}
	if f.failures > 0 && f.fallback != nil {
		f.fallback()
	}
	return f.read(ctx, log)
}

// read reads what is due. That others read at this moment is no matter.
func (f *follower) read(ctx context.Context, log logr.Logger) time.Duration {
	r := f.readings
	if err := r.reading.wait(ctx, listByID, false); err != nil {
		return 0
	}
	ids := r.dueNow()
	if r.onlyClaims {
		ids = ids[:min(len(ids), claimsPerPoll)] // The others are due at the next poll.
	}
	if len(ids) == 0 {
		r.reading.pass()
		return 0
	}
	sent := r.clock.Now()
	err := r.readTogether(ctx, ids)
	r.hear(ctx, sent, err)
	if err != nil && ctx.Err() == nil {
		log.Error(err, "Cannot read machines from MAAS", "machines", len(ids))
	}
	return min(maas.RetryAfter(err), longestPause)
}

// follow reads the events since the last time, or finds the place to begin.
func (f *follower) follow(ctx context.Context) error {
	r := f.readings
	client, epoch := r.source()
	sent := r.clock.Now()
	if epoch != f.epoch || sent.Sub(f.asked) > feedGap {
		f.epoch, f.begun = epoch, false
	}
	f.asked = sent
	if !f.begun {
		return f.begin(ctx, client, epoch, sent)
	}
	for range feedPages {
		events, err := askFeed(ctx, client, f.cursor, maas.EventQuery{})
		if err != nil {
			return err
		}
		r.noteEvents(epoch, events)
		if len(events) > 0 {
			f.cursor = events[len(events)-1].ID
		}
		if len(events) < maas.MaxEvents {
			r.cover(epoch, time.Time{}, sent)
			return nil
		}
	}
	return nil
}

// begin finds the newest event; readings from now on are followed.
func (f *follower) begin(ctx context.Context, client Reader, epoch int, sent time.Time) error {
	newest, err := askFeed(ctx, client, -1, maas.EventQuery{Limit: 1})
	if err != nil {
		return err
	}
	f.begun, f.cursor = true, 0
	if len(newest) > 0 {
		f.cursor = newest[len(newest)-1].ID
	}
	f.readings.cover(epoch, sent, sent)
	return nil
}

func askFeed(ctx context.Context, client Reader, after int64, query maas.EventQuery) ([]maas.Event, error) {
	ctx, cancel := context.WithTimeout(ctx, feedTimeout)
	defer cancel()
	return client.Events(ctx, after, query)
}

// judge notes whether the feed works. It returns for how long MAAS wants not to be asked anything.
func (f *follower) judge(ctx context.Context, log logr.Logger, err error) time.Duration {
	if err == nil {
		if f.failures > 0 {
			log.Info("MAAS' event feed is followed again")
		}
		f.failures, f.retryAt = 0, time.Time{}
		return 0
	}
	if ctx.Err() != nil {
		return 0
	}
	f.readings.uncover()
	f.failures++
	if f.failures == 1 {
		log.Error(err, "MAAS' event feed cannot be followed: every machine that is waited for is read at every poll")
	}
	pause := min(maas.RetryAfter(err), longestPause)
	switch {
	case pause > 0:
		f.readings.reading.postpone(err) // MAAS wants not to be asked: nobody reads until then.
	case f.failures > feedTries && !f.readings.onlyClaims: // Nobody reads instead where only claims count.
		f.retryAt = f.readings.clock.Now().Add(feedRetry)
	}
	return pause
}

// cover notes that the feed told all until it was asked then, since a beginning where one is given.
func (r *Readings) cover(epoch int, since, asked time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if epoch != r.epoch {
		return
	}
	if !since.IsZero() {
		r.feed.since = since
	}
	// While nobody waits it is asked once in a while.
	r.feed.until = asked.Add(idleFeed + 2*r.interval)
}

func (r *Readings) uncover() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.feed.until = time.Time{}
}

// dueNow returns what the poller reads now.
func (r *Readings) dueNow() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.clock.Now()
	return due(r.wants(now), now, r.interval, r.interval, r.feed)
}
