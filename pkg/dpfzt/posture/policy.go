// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package posture

import (
	"fmt"
	"slices"
	"strings"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/answer"
)

// ModeOf says what a fabric makes of one check. Identity is asked as strictly as the strictest of the others: they say nothing
// without it.
func ModeOf(asked infrav1.Posture, check Check) infrav1.PostureMode {
	if check == Identity {
		modes := make([]infrav1.PostureMode, 0, len(Checks)-1)
		for _, other := range Checks[1:] {
			modes = append(modes, ModeOf(asked, other))
		}
		for _, mode := range []infrav1.PostureMode{infrav1.PostureEnforce, infrav1.PostureWarn} {
			if slices.Contains(modes, mode) {
				return mode
			}
		}
		return infrav1.PostureOff
	}
	for _, override := range asked.Overrides {
		if override.Check == string(check) {
			return override.Mode
		}
	}
	if asked.Mode == "" {
		return infrav1.PostureOff
	}
	return asked.Mode
}

// Asks reports whether a fabric asks for any check.
func Asks(asked infrav1.Posture) bool { return ModeOf(asked, Identity) != infrav1.PostureOff }

// CardReading is what is known of one card.
type CardReading struct {
	// Device is the name of the DPUDevice; empty if the reading is put together from those of several.
	Device string
	// Known says that the reading is there and young enough. If not, the card is being asked.
	Known   bool
	Reading Reading
}

// Finding is what is known of one check of one card.
type Finding struct {
	Device string
	Mode   infrav1.PostureMode
	// Pending says that the card is being asked.
	Pending bool
	Result
}

// Refuses reports whether the finding keeps a server from being handed over: what is enforced must be known to be good.
func (f Finding) Refuses() bool { return f.Mode == infrav1.PostureEnforce && f.Answer != answer.Yes }

// Verdict is what follows for a server.
type Verdict struct {
	// Answer is Yes if all that is asked passed on all cards, or nothing is asked.
	Answer answer.Answer
	// Refuses says that the server is not to be handed over.
	Refuses bool
	// Reason and Message are those of a condition.
	Reason, Message string
	// Findings are those of the checks that are asked.
	Findings []Finding
}

// Decide says what follows from what the cards of a server answered. It is pure.
func Decide(asked infrav1.Posture, cards []CardReading) Verdict {
	if !Asks(asked) {
		return Verdict{Answer: answer.Yes, Reason: infrav1.PostureOffReason}
	}
	verdict := Verdict{Findings: findings(asked, cards)}
	if len(cards) == 0 {
		verdict.Reason, verdict.Message = infrav1.PostureUnknownReason, "no DPU of the server is known"
		verdict.Refuses = ModeOf(asked, Identity) == infrav1.PostureEnforce
		return verdict
	}
	open := slices.DeleteFunc(slices.Clone(verdict.Findings), func(f Finding) bool { return f.Answer == answer.Yes })
	if len(open) == 0 {
		verdict.Answer, verdict.Reason = answer.Yes, infrav1.PostureVerifiedReason
		return verdict
	}
	refusing := slices.DeleteFunc(slices.Clone(open), func(f Finding) bool { return !f.Refuses() })
	verdict.Refuses = len(refusing) > 0
	verdict.Message = describe(open)
	if !verdict.Refuses {
		verdict.Answer, verdict.Reason = worst(open), infrav1.PostureWarningReason
		if allPending(open) {
			verdict.Reason = infrav1.PostureCheckingReason
		}
		return verdict
	}
	verdict.Answer = worst(refusing)
	switch {
	case verdict.Answer == answer.No:
		verdict.Reason = infrav1.PostureFailedReason
	case slices.ContainsFunc(refusing, func(f Finding) bool { return f.Pending }):
		verdict.Reason = infrav1.PostureCheckingReason
	default:
		verdict.Reason = infrav1.PostureUnknownReason
	}
	return verdict
}

func findings(asked infrav1.Posture, cards []CardReading) []Finding {
	var all []Finding
	for _, card := range cards {
		for _, check := range Checks {
			mode := ModeOf(asked, check)
			if mode == infrav1.PostureOff {
				continue
			}
			finding := Finding{Device: card.Device, Mode: mode, Pending: !card.Known, Result: Result{Check: check, Message: "its BMC is being asked"}}
			if card.Known {
				finding.Result = card.Reading.Result(check)
			}
			all = append(all, finding)
		}
	}
	return all
}

func worst(open []Finding) answer.Answer {
	if slices.ContainsFunc(open, func(f Finding) bool { return f.Answer == answer.No }) {
		return answer.No
	}
	return answer.Unknown
}

func allPending(open []Finding) bool {
	return !slices.ContainsFunc(open, func(f Finding) bool { return !f.Pending })
}

// describe says each thing once: a BMC that does not answer is one sentence, not five.
func describe(open []Finding) string {
	type about struct {
		device, message string
		mode            infrav1.PostureMode
	}
	var order []about
	checks := map[about][]string{}
	for _, f := range open {
		key := about{f.Device, f.Message, f.Mode}
		if checks[key] == nil {
			order = append(order, key)
		}
		checks[key] = append(checks[key], string(f.Check))
	}
	sentences := make([]string, 0, len(order))
	for _, key := range order {
		sentence := fmt.Sprintf("%s (%s): %s", strings.Join(checks[key], ", "), key.mode, key.message)
		if key.device != "" {
			sentence = "DPUDevice " + key.device + ": " + sentence
		}
		sentences = append(sentences, sentence)
	}
	return strings.Join(sentences, "; ")
}
