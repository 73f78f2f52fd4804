// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package scope

import "time"

const (
	// idleFeed is how often MAAS' event feed is asked while nobody waits for a machine.
	idleFeed = time.Minute
	// forgetAfter is for how many intervals nobody may ask for a machine before it is no longer read.
	forgetAfter = 3
	// longestWait is how many intervals old a reading may be for somebody who waits; who accepts an older one, and than a
	// minute, only wants to know that nothing changed.
	longestWait = 12
)

// want is what is known of one machine where it is decided what to read.
type want struct {
	systemID string
	// maxAge is how old a reading may be for who waits; zero if nobody waits.
	maxAge time.Duration
	// readAt is when the question of the last reading that counts was sent; zero if none counts.
	readAt time.Time
	// event says that MAAS recorded something about the machine since.
	event bool
	// watched says that an object is to be woken if the machine changes.
	watched bool
}

// coverage is the time for which MAAS' event feed tells of what happened to the machines. The zero value covers nothing.
type coverage struct{ since, until time.Time }

// covers reports that a reading of then has only grown old, because an event would have ended it.
func (c coverage) covers(readAt, now time.Time) bool {
	return !c.since.IsZero() && !readAt.Before(c.since) && !now.After(c.until)
}

// accepted is how old a reading of then may be now for somebody who accepts maxAge.
func (c coverage) accepted(maxAge time.Duration, readAt, now time.Time, interval time.Duration) time.Duration {
	if c.covers(readAt, now) {
		return maxAge
	}
	return min(maxAge, interval)
}

// due returns the machines to read now: those somebody cares for that MAAS recorded something about, and those whose reading
// will be too old for who waits before ahead has passed.
func due(wants []want, now time.Time, ahead, interval time.Duration, feed coverage) []string {
	var ids []string
	for i := range wants {
		w := &wants[i]
		switch {
		case w.event && (w.watched || w.maxAge > 0):
		case w.maxAge == 0:
			continue
		case w.readAt.IsZero():
		default:
			// No reading can be younger than the interval at which it is made.
			maxAge := feed.accepted(max(w.maxAge, interval), w.readAt, now, interval)
			if now.Add(ahead).Before(w.readAt.Add(maxAge)) {
				continue
			}
		}
		ids = append(ids, w.systemID)
	}
	return ids
}

// feedDue reports that the feed is to be asked, so long after it was asked last: at every poll while somebody waits, else as often
// as idle says.
func feedDue(wants []want, since, idle time.Duration) bool {
	watched := false
	for i := range wants {
		if wants[i].maxAge > 0 {
			return true
		}
		watched = watched || wants[i].watched
	}
	return watched && since >= idle
}

// waits reports that who accepts a reading so old waits for a change, rather than to be told of one.
func waits(maxAge, interval time.Duration) bool { return maxAge <= max(idleFeed, longestWait*interval) }
