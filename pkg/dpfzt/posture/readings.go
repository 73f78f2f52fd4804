// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package posture

import (
	"cmp"
	"context"
	"errors"
	"sync"
	"time"

	"k8s.io/utils/clock"
)

const (
	// MaxAge is how old a reading may be before the BMC is asked again without need.
	MaxAge = 10 * time.Minute
	// mostInFlight is how many BMCs of a fabric are asked at once.
	mostInFlight = 16
	// mostPatient of them may be those that did not answer swiftly: the others never wait for these.
	mostPatient = 8
	// mostHopeless of these may be those that did not answer with patience either, so that one that is only slow has its turn.
	mostHopeless = 4
	// patientRequest bounds one request to a BMC, patientTotal a reading.
	patientRequest = 10 * time.Second
	patientTotal   = 30 * time.Second
	// swiftRequest is for cards not known to be slow: one that takes longer is asked again, with patience, behind the others.
	swiftRequest = 2 * time.Second
	// firstRetry is when a BMC is asked again after a reading that was not good; it doubles up to MaxAge, up to answeredRetry
	// where the BMC answers, and up to urgentRetry where somebody waits.
	firstRetry    = 30 * time.Second
	answeredRetry = 2 * time.Minute
	urgentRetry   = time.Minute
	// refusedPause is for how long refused credentials are not tried again unless they change: BMCs lock users out.
	refusedPause = 5 * time.Minute
	// forgetAfter is when a card is forgotten that nobody asks for.
	forgetAfter = time.Hour
)

var (
	errNoAddress = errors.New("DPF does not say the address of its BMC: look at bmcIp of the DPUDevice")
	errRefused   = errors.New("its BMC refused the credentials, which are not tried again for some minutes: renew username and password in its Secret")
)

// Call describes one finished reading.
type Call struct {
	Card    Card
	Reading Reading
}

// Options of Readings. Zero durations and numbers take the defaults.
type Options struct {
	// Access returns what a card is asked with. It is called for every reading, so that what was renewed counts.
	Access func(ctx context.Context, device string) (Access, error)
	// Observe, if set, is told of every reading after it ended. It must not block.
	Observe func(Call)
	// Clock measures time; nil means the real one.
	Clock clock.PassiveClock
	// Swift, Patient, Total bound requests and readings; Retry is the first pause after a reading that was not good.
	Swift, Patient, Total, Retry time.Duration
}

// Readings asks the BMCs of one fabric for everybody, in the background. Who asks never waits.
type Readings struct {
	options Options
	ctx     context.Context
	stop    context.CancelFunc

	mu    sync.Mutex
	cards map[string]*cardReadings
	// inFlight are the readings under way, patient those of them that are slow, hopeless those of these that stalled before.
	inFlight, patient, hopeless int
	turn                        int
}

// cardReadings is what is kept of one card.
type cardReadings struct {
	card    Card
	last    Reading
	known   bool
	version string
	refused time.Time
	// bad counts the readings since the last good one.
	bad int
	// slow says that the last reading took patience, stalled that it was not answered even so.
	slow, stalled bool

	// running says that it is being asked since began.
	running        bool
	began          time.Time
	wanted, urgent bool
	// turn orders those that wait; asked is when somebody asked last.
	turn  int
	asked time.Time
}

// NewReadings returns Readings that nobody has asked for yet. They end with Close.
func NewReadings(options Options) *Readings {
	if options.Clock == nil {
		options.Clock = clock.RealClock{}
	}
	options.Swift, options.Patient = cmp.Or(options.Swift, swiftRequest), cmp.Or(options.Patient, patientRequest)
	options.Total, options.Retry = cmp.Or(options.Total, patientTotal), cmp.Or(options.Retry, firstRetry)
	r := &Readings{options: options, cards: map[string]*cardReadings{}}
	r.ctx, r.stop = context.WithCancel(context.Background())
	return r
}

// Close ends what is under way. What it would have answered is lost.
func (r *Readings) Close() { r.stop() }

// Latest returns the last reading of a card, and whether it was begun at or after since. Where it was not, the card is asked
// in the background; where a check did not pass it is asked again after a while. Who is urgent comes before who is not.
func (r *Readings) Latest(card Card, since time.Time, urgent bool) (Reading, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.options.Clock.Now()
	kept, ok := r.cards[card.Device]
	if !ok || kept.card != card {
		// Nothing that was read at another address, or of another serial number, is about this card.
		if ok {
			kept.card, kept.known, kept.last, kept.bad, kept.slow, kept.stalled = card, false, Reading{}, 0, false, false
			kept.version, kept.refused = "", time.Time{}
		} else {
			kept = &cardReadings{card: card}
			r.cards[card.Device] = kept
		}
	}
	kept.asked = now
	fresh := kept.known && !kept.last.At.Before(since)
	retry := kept.known && !kept.last.Good() && now.Sub(kept.last.At) >= r.retryAfter(kept, urgent)
	underWay := kept.running && !kept.began.Before(since)
	if (!fresh || retry) && !underWay {
		if !kept.wanted {
			r.turn++
			kept.turn = r.turn
		}
		kept.wanted, kept.urgent = true, kept.urgent || urgent
		r.pump()
	}
	return kept.last, fresh
}

func (r *Readings) retryAfter(kept *cardReadings, urgent bool) time.Duration {
	pause := min(r.options.Retry<<min(max(kept.bad-1, 0), 5), MaxAge)
	if kept.last.Err == nil {
		pause = min(pause, max(answeredRetry, r.options.Retry))
	}
	if urgent {
		pause = min(pause, max(urgentRetry, r.options.Retry))
	}
	return pause
}

// pump begins readings as long as there is room. The caller holds the lock.
func (r *Readings) pump() {
	for r.inFlight < mostInFlight && r.ctx.Err() == nil {
		next := r.next()
		if next == nil {
			return
		}
		next.running, next.began, next.wanted, next.urgent = true, r.options.Clock.Now(), false, false
		r.count(next.slow, next.stalled, 1)
		go r.read(next, next.card, next.slow, next.stalled)
	}
}

// count notes that a reading began or ended. The caller holds the lock.
func (r *Readings) count(slow, stalled bool, by int) {
	r.inFlight += by
	if slow {
		r.patient += by
	}
	if slow && stalled {
		r.hopeless += by
	}
}

// next is the card whose turn it is: the urgent ones first, then who came first. The caller holds the lock.
func (r *Readings) next() *cardReadings {
	var best *cardReadings
	for _, kept := range r.cards {
		if !kept.wanted || kept.running || kept.slow && (r.patient >= mostPatient || kept.stalled && r.hopeless >= mostHopeless) {
			continue
		}
		if best == nil || kept.urgent && !best.urgent || kept.urgent == best.urgent && kept.turn < best.turn {
			best = kept
		}
	}
	return best
}

// read makes one reading. One that found the BMC slow without patience is made again with patience.
func (r *Readings) read(kept *cardReadings, card Card, slow, stalled bool) {
	reading, version := r.ask(kept, card, slow)
	again := reading.stalled && !slow
	r.mu.Lock()
	r.count(slow, stalled, -1)
	kept.running = false
	if kept.card == card {
		r.keep(kept, reading, version, again)
	}
	r.forget()
	r.pump()
	r.mu.Unlock()
	if r.options.Observe != nil && !again {
		r.options.Observe(Call{Card: card, Reading: reading})
	}
}

// keep notes a reading. The caller holds the lock.
func (r *Readings) keep(kept *cardReadings, reading Reading, version string, again bool) {
	if again {
		kept.slow = true
		if !kept.wanted {
			r.turn++
			kept.wanted, kept.turn = true, r.turn
		}
		return
	}
	// One that answers swiftly again goes with the others again.
	kept.slow = kept.slow && (reading.stalled || reading.Took >= r.options.Swift)
	kept.stalled = kept.slow && reading.stalled
	kept.last, kept.known, kept.version = reading, true, version
	kept.bad++
	if reading.Good() {
		kept.bad = 0
	}
	switch {
	case isRefused(reading.Err):
		kept.refused = reading.At
	case !errors.Is(reading.Err, errRefused):
		kept.refused = time.Time{}
	}
}

func (r *Readings) ask(kept *cardReadings, card Card, slow bool) (Reading, string) {
	at := r.options.Clock.Now()
	if !card.BMC.IsValid() {
		return failed(at, errNoAddress), ""
	}
	ctx, cancel := context.WithTimeout(r.ctx, r.options.Total)
	defer cancel()
	access, err := r.options.Access(ctx, card.Device)
	if err != nil {
		return failed(at, err), ""
	}
	r.mu.Lock()
	locked := !kept.refused.IsZero() && kept.version == access.Version && at.Sub(kept.refused) < refusedPause
	r.mu.Unlock()
	if locked {
		return failed(at, errRefused), access.Version
	}
	limits := Limits{Request: r.options.Swift, Total: r.options.Total, Impatient: true}
	if slow {
		limits = Limits{Request: r.options.Patient, Total: r.options.Total}
	}
	return Read(ctx, card, access, limits, r.options.Clock.Now), access.Version
}

// forget drops the cards nobody asks for. The caller holds the lock.
func (r *Readings) forget() {
	now := r.options.Clock.Now()
	for device, kept := range r.cards {
		if !kept.running && now.Sub(kept.asked) > forgetAfter {
			delete(r.cards, device)
		}
	}
}
