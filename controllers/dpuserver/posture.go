// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package dpuserver

import (
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/internal/scope"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/posture"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/vpc"
)

const (
	// resultsMaxAge is how old results may be before they say nothing: the BMCs should have been asked three times since.
	resultsMaxAge = 3 * posture.MaxAge
	// longestResult is what the API takes.
	longestResult = 1024
)

// bmcs is what is known of the BMCs of one server's cards.
type bmcs struct {
	// asked is what the fabric asks of them.
	asked infrav1.Posture
	// freed says that nobody holds the server since this pass: what was read before is of the last tenant's time.
	freed bool
	// cards are the readings since then.
	cards []posture.CardReading
}

// observePosture asks for what the BMCs of all servers' cards answered. It never waits.
func (r *Reconciler) observePosture(fabric *scope.Fabric, o *observation) {
	for i := range o.servers {
		s := &o.servers[i]
		s.bmcs.asked = o.fabric.Spec.Posture
		if fabric == nil || fabric.Posture == nil || s.resolved.Answer != vpc.Yes || !posture.Asks(s.bmcs.asked) {
			continue
		}
		record, _ := holderRecord(s, r.Installation)
		held := s.holder != nil || record != nil
		s.bmcs.freed = !held && s.object != nil && s.object.Status.Holder != nil
		freedAt := r.freedAt(s, o.now)
		since := o.now.Add(-posture.MaxAge)
		if freedAt.After(since) {
			since = freedAt
		}
		waited := !held && (s.bmcs.freed || s.object == nil || len(s.object.Status.Posture) == 0)
		for n := range s.cards {
			card := posture.CardOf(s.cards[n].member.Device)
			reading, fresh := fabric.Posture.Latest(card, since, waited)
			// One that is older is told until there is a newer one, unless it is of the last tenant's time.
			known := fresh || len(reading.Results) > 0 && !reading.At.Before(freedAt)
			s.bmcs.cards = append(s.bmcs.cards, posture.CardReading{Device: card.Device, Known: known, Reading: reading})
		}
	}
}

// freedAt is since when nobody holds the server, as far as this process saw it: what it read was read by it.
func (r *Reconciler) freedAt(s *server, now time.Time) time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s.bmcs.freed {
		if r.freed == nil {
			r.freed = map[string]time.Time{}
		}
		r.freed[s.name()] = now
	}
	return r.freed[s.name()]
}

// waitsForBMCs reports whether the BMCs of some server are being asked whose answer decides.
func (o *observation) waitsForBMCs() bool {
	return slices.ContainsFunc(o.servers, func(s server) bool {
		return s.resolved.Answer == vpc.Yes && slices.ContainsFunc(s.bmcs.cards, func(c posture.CardReading) bool { return !c.Known })
	})
}

// judgePosture says what is to be told of a server's BMCs, and whether it keeps the server from being handed out. Where they
// were not asked since this process began, what was told before still stands. It is pure.
func judgePosture(s *server, now time.Time) ([]infrav1.PostureResult, vpc.Finding) {
	if !posture.Asks(s.bmcs.asked) {
		return nil, vpc.Finding{Answer: vpc.Yes}
	}
	var results []infrav1.PostureResult
	if s.object != nil && !s.bmcs.freed {
		results = s.object.Status.Posture
	}
	unknown := slices.ContainsFunc(s.bmcs.cards, func(c posture.CardReading) bool { return !c.Known })
	if len(s.bmcs.cards) > 0 && !unknown {
		results = describePosture(s.bmcs.asked, s.bmcs.cards)
	}
	verdict := posture.Decide(s.bmcs.asked, []posture.CardReading{restore(results, now)})
	if !verdict.Refuses {
		return results, vpc.Finding{Answer: vpc.Yes}
	}
	return results, vpc.Finding{Answer: verdict.Answer, Reason: verdict.Reason, Message: verdict.Message}
}

// describePosture says for each check that is asked the worst that any card answered.
func describePosture(asked infrav1.Posture, cards []posture.CardReading) []infrav1.PostureResult {
	var results []infrav1.PostureResult
	for _, check := range posture.Checks {
		if posture.ModeOf(asked, check) == infrav1.PostureOff {
			continue
		}
		result := infrav1.PostureResult{Name: string(check), Status: metav1.ConditionTrue}
		var said []string
		for _, answer := range []vpc.Answer{vpc.No, vpc.Unknown, vpc.Yes} {
			for _, card := range cards {
				if read := card.Reading.Result(check); read.Answer == answer && (len(said) == 0 || answer != vpc.Yes) {
					said = append(said, "DPUDevice "+card.Device+": "+read.Message)
					result.Status = worseOf(result.Status, answer)
				}
			}
		}
		result.Message = bounded(strings.ToValidUTF8(strings.Join(said, "; "), ""), longestResult)
		oldest := cards[0].Reading.At
		for _, card := range cards {
			if card.Reading.At.Before(oldest) {
				oldest = card.Reading.At
			}
		}
		at := metav1.NewTime(oldest.Truncate(time.Second))
		result.ObservedAt = &at
		results = append(results, result)
	}
	return results
}

func worseOf(status metav1.ConditionStatus, answer vpc.Answer) metav1.ConditionStatus {
	switch {
	case status == metav1.ConditionFalse || answer == vpc.No:
		return metav1.ConditionFalse
	case status == metav1.ConditionUnknown || answer == vpc.Unknown:
		return metav1.ConditionUnknown
	default:
		return metav1.ConditionTrue
	}
}

// restore reads back what was told, as of one card. What is too old is as good as never asked.
func restore(results []infrav1.PostureResult, now time.Time) posture.CardReading {
	card := posture.CardReading{Known: len(results) > 0}
	for _, result := range results {
		answer := vpc.Unknown
		switch result.Status {
		case metav1.ConditionTrue:
			answer = vpc.Yes
		case metav1.ConditionFalse:
			answer = vpc.No
		}
		if result.ObservedAt == nil || now.Sub(result.ObservedAt.Time) > resultsMaxAge {
			card.Known = false
		}
		card.Reading.Results = append(card.Reading.Results, posture.Result{Check: posture.Check(result.Name), Answer: answer, Message: result.Message})
	}
	return card
}
