// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package posture

import (
	"fmt"
	"strings"
	"testing"
	"time"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/answer"
)

var (
	modes   = []infrav1.PostureMode{infrav1.PostureEnforce, infrav1.PostureWarn, infrav1.PostureOff}
	answers = []answer.Answer{answer.Yes, answer.No, answer.Unknown}
)

// reading has one answer for a check, and Yes for the others.
func reading(check Check, a answer.Answer) Reading {
	r := Reading{At: time.Unix(1, 0)}
	for _, c := range Checks {
		result := Result{Check: c, Answer: answer.Yes, Message: "fine"}
		if c == check {
			result.Answer, result.Message = a, "look here"
		}
		r.Results = append(r.Results, result)
	}
	return r
}

// TestDecide goes through every mode, with and without an override, of every check with every answer.
func TestDecide(t *testing.T) {
	for _, check := range Checks[1:] {
		for _, mode := range append([]infrav1.PostureMode{""}, modes...) {
			for _, override := range append([]infrav1.PostureMode{""}, modes...) {
				asked := infrav1.Posture{Mode: mode}
				if override != "" {
					asked.Overrides = []infrav1.PostureOverride{{Check: string(check), Mode: override}}
				}
				effective := override
				if effective == "" {
					effective = mode
				}
				for _, a := range answers {
					name := fmt.Sprintf("%s: mode %q, override %q, answer %s", check, mode, override, a)
					checkVerdict(t, name, Decide(asked, []CardReading{{Device: "d", Known: true, Reading: reading(check, a)}}), mode, effective, a, check)
				}
			}
		}
	}
}

func checkVerdict(t *testing.T, name string, got Verdict, mode, effective infrav1.PostureMode, a answer.Answer, check Check) {
	t.Helper()
	want := Verdict{Answer: answer.Yes, Reason: infrav1.PostureVerifiedReason}
	switch {
	case (mode == "" || mode == infrav1.PostureOff) && (effective == "" || effective == infrav1.PostureOff):
		want.Reason = infrav1.PostureOffReason
	case a == answer.Yes || effective == infrav1.PostureOff:
	case effective == infrav1.PostureWarn:
		want = Verdict{Answer: a, Reason: infrav1.PostureWarningReason}
	case a == answer.No:
		want = Verdict{Answer: a, Reason: infrav1.PostureFailedReason, Refuses: true}
	default:
		want = Verdict{Answer: a, Reason: infrav1.PostureUnknownReason, Refuses: true}
	}
	if got.Answer != want.Answer || got.Reason != want.Reason || got.Refuses != want.Refuses {
		t.Errorf("%s: got %s %s refuses=%t, want %s %s refuses=%t", name, got.Answer, got.Reason, got.Refuses, want.Answer, want.Reason, want.Refuses)
	}
	said := strings.Contains(got.Message, string(check)) && strings.Contains(got.Message, "look here") && strings.Contains(got.Message, "DPUDevice d")
	if said != (want.Answer != answer.Yes) {
		t.Errorf("%s: message %q", name, got.Message)
	}
}

// TestIdentityIsAskedAsStrictlyAsTheStrictest, since no other answer says anything without it.
func TestIdentityIsAskedAsStrictlyAsTheStrictest(t *testing.T) {
	for _, mode := range modes {
		for _, override := range modes {
			asked := infrav1.Posture{Mode: mode, Overrides: []infrav1.PostureOverride{{Check: string(SecureBoot), Mode: override}}}
			want := infrav1.PostureOff
			for _, strict := range []infrav1.PostureMode{infrav1.PostureWarn, infrav1.PostureEnforce} {
				if mode == strict || override == strict {
					want = strict
				}
			}
			if got := ModeOf(asked, Identity); got != want {
				t.Errorf("mode %s, one %s: identity is %s, want %s", mode, override, got, want)
			}
			for _, a := range []answer.Answer{answer.No, answer.Unknown} {
				if got := Decide(asked, []CardReading{{Device: "d", Known: true, Reading: reading(Identity, a)}}); got.Refuses != (want == infrav1.PostureEnforce) {
					t.Errorf("mode %s, one %s, identity %s: refuses=%t", mode, override, a, got.Refuses)
				}
			}
		}
	}
}

// TestSeveralCards of a server count all, and so do those that are being asked, and that there is none.
func TestSeveralCards(t *testing.T) {
	good := CardReading{Device: "a", Known: true, Reading: reading(SecureBoot, answer.Yes)}
	bad := CardReading{Device: "b", Known: true, Reading: reading(SecureBoot, answer.No)}
	mute := CardReading{Device: "c", Known: true, Reading: failed(time.Unix(1, 0), &UnreachableError{Address: "192.0.2.1:443"})}
	pending := CardReading{Device: "d"}
	for name, c := range map[string]struct {
		cards  []CardReading
		want   answer.Answer
		reason string
		warns  string
	}{
		"good":                {[]CardReading{good}, answer.Yes, infrav1.PostureVerifiedReason, infrav1.PostureVerifiedReason},
		"one bad":             {[]CardReading{good, bad}, answer.No, infrav1.PostureFailedReason, infrav1.PostureWarningReason},
		"one mute":            {[]CardReading{good, mute}, answer.Unknown, infrav1.PostureUnknownReason, infrav1.PostureWarningReason},
		"one pending":         {[]CardReading{good, pending}, answer.Unknown, infrav1.PostureCheckingReason, infrav1.PostureCheckingReason},
		"mute and bad":        {[]CardReading{mute, bad}, answer.No, infrav1.PostureFailedReason, infrav1.PostureWarningReason},
		"bad and pending":     {[]CardReading{pending, bad}, answer.No, infrav1.PostureFailedReason, infrav1.PostureWarningReason},
		"mute and pending":    {[]CardReading{pending, mute}, answer.Unknown, infrav1.PostureCheckingReason, infrav1.PostureWarningReason},
		"no card to be asked": {nil, answer.Unknown, infrav1.PostureUnknownReason, infrav1.PostureUnknownReason},
	} {
		got := Decide(infrav1.Posture{Mode: infrav1.PostureEnforce}, c.cards)
		if got.Answer != c.want || got.Reason != c.reason || got.Refuses != (c.want != answer.Yes) {
			t.Errorf("%s, enforced: %s %s refuses=%t: %s", name, got.Answer, got.Reason, got.Refuses, got.Message)
		}
		got = Decide(infrav1.Posture{Mode: infrav1.PostureWarn}, c.cards)
		if got.Answer != c.want || got.Reason != c.warns || got.Refuses {
			t.Errorf("%s, warned: %s %s refuses=%t: %s", name, got.Answer, got.Reason, got.Refuses, got.Message)
		}
	}
	if message := Decide(infrav1.Posture{Mode: infrav1.PostureEnforce}, []CardReading{mute}).Message; strings.Count(message, "192.0.2.1") != 1 {
		t.Errorf("a BMC that does not answer is said more than once: %s", message)
	}
}
