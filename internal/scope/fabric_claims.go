// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package scope

import (
	"context"
	"errors"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
)

// Verifier asks one claim source's MAAS who holds a server. What is asked at the same time is asked together, and a claim that is
// watched is followed by MAAS' event feed and an audit.
type Verifier struct {
	maas.Verifier

	// Account is the MAAS user that owns the claims of the source.
	Account string

	// readings are shared with everybody who asks the source; nil if each asks for itself.
	readings *Readings
	// maxAge is how old a reading of a watched claim may be.
	maxAge time.Duration
	// probe asks whose key it is if that was not asked lately; nil asks always.
	probe func(ctx context.Context) error
}

// Held is what MAAS said of a claim. Machine is set unless MAAS does not show it.
type Held struct {
	maas.Ownership
	Machine maas.Machine
}

// Standing is what is known of a watched claim without asking.
type Standing int

const (
	// StandingUnknown says that nothing was read that counts.
	StandingUnknown Standing = iota
	// StandingHeld says that the server is held under the claim, by the last reading, which nothing has ended since.
	StandingHeld
	// StandingDoubtful says that the last reading does not agree with the claim: ask Confirm, which alone decides.
	StandingDoubtful
)

var errStale = errors.New("the account's servers have not been listed for long")

// Probe asks MAAS whether it takes the key, at most about once a minute.
func (v Verifier) Probe(ctx context.Context) error {
	if v.probe != nil {
		return v.probe(ctx)
	}
	_, err := v.WhoAmI(ctx)
	return err
}

// Confirm says whether the server is held under the token, by answers to questions that were sent after the call. Yes comes from
// one question by token for all who ask at the same time. No is MAAS' word about this very server, which is read by itself: that a
// list does not hold it, or is refused, says nothing. An error is no answer.
func (v Verifier) Confirm(ctx context.Context, token, systemID string) (Held, error) {
	if v.readings == nil || !maas.Token(token).Valid() {
		return v.confirmAlone(ctx, token, systemID)
	}
	held, listed, err := v.readings.listedUnder(ctx, v.Account, token, systemID)
	if err != nil || listed {
		return held, err
	}
	return v.confirmAlone(ctx, token, systemID)
}

// Recheck is Confirm for a claim that MAAS has refused: no more than the question by token is sent as long as the last reading of
// the server, which an event ends, agrees with the refusal.
func (v Verifier) Recheck(ctx context.Context, token, systemID string) (Held, error) {
	if v.readings == nil || !maas.Token(token).Valid() {
		return v.confirmAlone(ctx, token, systemID)
	}
	held, listed, err := v.readings.listedUnder(ctx, v.Account, token, systemID)
	if err != nil || listed {
		return held, err
	}
	machine, err := v.readings.Machine(ctx, systemID, v.maxAge)
	if err == nil {
		if ownership := machine.ClaimedBy(v.Account, token); ownership.No() {
			return Held{Ownership: ownership, Machine: machine}, nil
		}
	}
	if refusal, ok := refusalOf(err); ok {
		return refusal, nil
	}
	return v.confirmAlone(ctx, token, systemID)
}

// Watch wakes the DPUAttachment whenever a reading of the server differs from the one before.
func (v Verifier) Watch(systemID string, object types.NamespacedName) {
	if v.readings != nil {
		v.readings.Watch(systemID, object)
	}
}

// Standing says what is known of a watched claim. It asks nothing. An error says why it is not known: MAAS does not answer.
func (v Verifier) Standing(token, systemID string) (Standing, error) {
	if v.readings == nil {
		return StandingUnknown, nil
	}
	return v.readings.standing(v.Account, token, systemID, v.maxAge)
}

// Follows reports whether the claim on a server is followed once it is watched. If not, nobody tells of a loss: ask.
func (v Verifier) Follows(systemID string) bool { return v.readings != nil && sharable(systemID) }

// confirmAlone asks about this server only.
func (v Verifier) confirmAlone(ctx context.Context, token, systemID string) (Held, error) {
	var sent time.Time
	if v.readings != nil {
		sent = v.readings.clock.Now()
	}
	machine, ownership, err := v.ConfirmClaim(ctx, v.Account, token, systemID)
	if refusal, ok := refusalOf(err); ok {
		if v.readings != nil {
			v.readings.note(systemID, nil, sent)
		}
		return refusal, nil
	}
	if err != nil {
		return Held{}, err
	}
	if v.readings != nil {
		v.readings.note(systemID, &machine, sent)
	}
	if ownership.Yes() && releasing(machine.Status) {
		ownership = maas.Ownership{Reason: "MAAS is releasing the server"}
	}
	return Held{Ownership: ownership, Machine: machine}, nil
}

// refusalOf turns MAAS' word about one server that the account does not see into a No.
func refusalOf(err error) (Held, bool) {
	if err == nil || !maas.IsAboutMachine(err) {
		return Held{}, false
	}
	return Held{Ownership: maas.Ownership{Answer: maas.No, Reason: "MAAS has no such server that the claim's account may see"}}, true
}

// releasing reports that the claim is about to end: MAAS forgets the token first, and owner and annotations at the end.
func releasing(status maas.Status) bool {
	return status == maas.StatusReleasing || status == maas.StatusDiskErasing
}

// listedUnder asks by token, together with others. Listed is false where that does not decide.
func (r *Readings) listedUnder(ctx context.Context, account, token, systemID string) (held Held, listed bool, err error) {
	if r.silent() {
		return Held{}, false, &maas.UnavailableError{Call: maas.Call{Operation: "list by token"}, Err: errSlow}
	}
	query, err := r.askTogether(ctx, token)
	if err != nil {
		return Held{}, false, err
	}
	i := slices.IndexFunc(query.found, func(m maas.Machine) bool { return m.SystemID == systemID })
	if i < 0 {
		return Held{}, false, nil
	}
	machine := query.found[i]
	ownership := machine.ClaimedBy(account, token)
	if ownership.Unannotated && len(query.tokens) == 1 {
		// There is no other token it could have been allocated under.
		ownership = maas.Ownership{Answer: maas.Yes, Reason: "owner and token agree with the claim; not annotated yet"}
	}
	if !ownership.Yes() || releasing(machine.Status) {
		return Held{}, false, nil
	}
	r.note(systemID, &machine, query.sent)
	return Held{Ownership: ownership, Machine: machine}, true, nil
}

// note keeps an answer about a machine that is watched, if it still counts; nil is a machine MAAS does not show.
func (r *Readings) note(systemID string, machine *maas.Machine, sent time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	reading, ok := r.machines[systemID]
	if !ok || sent.Before(reading.changed) || sent.Before(reading.at) {
		return
	}
	reading.keep(machine, sent)
}

// standing implements Verifier.Standing.
func (r *Readings) standing(account, token, systemID string, maxAge time.Duration) (Standing, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.clock.Now()
	if r.trouble != nil && now.Sub(r.heardAt) > forgetAfter*r.interval {
		return StandingUnknown, r.trouble
	}
	reading, ok := r.machines[systemID]
	switch {
	case !ok || reading.at.IsZero():
		return StandingUnknown, nil
	case !reading.listed, !reading.machine.ClaimedBy(account, token).Yes():
		return StandingDoubtful, nil
	case now.Sub(reading.at) > maxAge:
		return StandingUnknown, errStale
	}
	return StandingHeld, nil
}

// auditClaims lists the account's servers and notes which of those watched are not among them: a server that was released and
// given to somebody else leaves no event that the account may see.
func (r *Readings) auditClaims(ctx context.Context, account string) error {
	owned, err := r.Owned(ctx, account, time.Nanosecond)
	if err != nil {
		return err
	}
	r.tell(r.doubtMissing(owned))
	return nil
}

func (r *Readings) doubtMissing(owned map[string]maas.Machine) []types.NamespacedName {
	r.mu.Lock()
	defer r.mu.Unlock()
	var woken []types.NamespacedName
	for id, reading := range r.machines {
		if _, ok := owned[id]; ok || !reading.at.IsZero() || r.ownedAt.Before(reading.changed) || len(reading.watchers) == 0 {
			continue
		}
		reading.keep(nil, r.ownedAt)
		for object := range reading.watchers {
			woken = append(woken, object)
		}
	}
	return woken
}

// auditDue reports that the account's servers are to be listed: some are watched, and they were not listed for so long. What was
// never read, as after a start, and what the event feed may have missed, because it was begun anew, is not kept waiting for that
// long.
func (r *Readings) auditDue(every time.Duration) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	since := r.clock.Now().Sub(r.ownedAt)
	soon := since >= min(unreadAudit, every)
	for _, reading := range r.machines {
		if len(reading.watchers) == 0 {
			continue
		}
		unread := !reading.known && r.ownedAt.Before(reading.changed)
		if since >= every || soon && (unread || r.ownedAt.Before(r.feed.since)) {
			return true
		}
	}
	return false
}

// retainWatchers forgets those who no longer care for a server.
func (r *Readings) retainWatchers(cares func(systemID string, object types.NamespacedName) bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, reading := range r.machines {
		for object := range reading.watchers {
			if !cares(id, object) {
				delete(reading.watchers, object)
			}
		}
	}
}
