// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package dpuserver

import (
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/posture"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/vpc"
)

// postureNow is when all of it is judged.
var postureNow = now

// answered is a card whose checks passed, but for secure boot.
func answered(device string, boot vpc.Answer) posture.CardReading {
	reading := posture.Reading{At: postureNow.Add(-time.Minute)}
	for _, check := range posture.Checks {
		result := posture.Result{Check: check, Answer: vpc.Yes, Message: "fine"}
		if check == posture.SecureBoot {
			result.Answer, result.Message = boot, "boot is "+boot.String()
		}
		reading.Results = append(reading.Results, result)
	}
	return posture.CardReading{Device: device, Known: true, Reading: reading}
}

// told is a DPUServer that says so of its last reading.
func told(boot metav1.ConditionStatus, age time.Duration) *infrav1.DPUServer {
	at := metav1.NewTime(postureNow.Add(-age))
	server := &infrav1.DPUServer{}
	for _, check := range posture.Checks {
		result := infrav1.PostureResult{Name: string(check), Status: metav1.ConditionTrue, ObservedAt: &at, Message: "as before"}
		if check == posture.SecureBoot {
			result.Status = boot
		}
		server.Status.Posture = append(server.Status.Posture, result)
	}
	return server
}

// TestJudgePosture: a server is eligible again only by what was read since it was let go, and stays so over a restart.
func TestJudgePosture(t *testing.T) {
	pending := posture.CardReading{Device: "b"}
	for name, c := range map[string]struct {
		mode   infrav1.PostureMode
		object *infrav1.DPUServer
		freed  bool
		cards  []posture.CardReading

		enforced vpc.Answer
		reason   string
		results  int
	}{
		"off":                           {mode: infrav1.PostureOff, object: told(metav1.ConditionFalse, time.Minute), enforced: vpc.Yes},
		"good":                          {cards: []posture.CardReading{answered("a", vpc.Yes)}, enforced: vpc.Yes, results: 5},
		"bad":                           {cards: []posture.CardReading{answered("a", vpc.No)}, enforced: vpc.No, reason: infrav1.PostureFailedReason, results: 5},
		"unknown":                       {cards: []posture.CardReading{answered("a", vpc.Unknown)}, enforced: vpc.Unknown, reason: infrav1.PostureUnknownReason, results: 5},
		"bad, only warned of":           {mode: infrav1.PostureWarn, cards: []posture.CardReading{answered("a", vpc.No)}, enforced: vpc.Yes, results: 5},
		"second card bad":               {cards: []posture.CardReading{answered("a", vpc.Yes), answered("b", vpc.No)}, enforced: vpc.No, reason: infrav1.PostureFailedReason, results: 5},
		"second card pending":           {cards: []posture.CardReading{answered("a", vpc.Yes), pending}, enforced: vpc.Unknown, reason: infrav1.PostureCheckingReason},
		"never asked":                   {cards: []posture.CardReading{pending}, enforced: vpc.Unknown, reason: infrav1.PostureCheckingReason},
		"restarted, was good":           {object: told(metav1.ConditionTrue, time.Minute), cards: []posture.CardReading{pending}, enforced: vpc.Yes, results: 5},
		"restarted, was bad":            {object: told(metav1.ConditionFalse, time.Minute), cards: []posture.CardReading{pending}, enforced: vpc.No, reason: infrav1.PostureFailedReason, results: 5},
		"restarted after long":          {object: told(metav1.ConditionTrue, time.Hour), cards: []posture.CardReading{pending}, enforced: vpc.Unknown, reason: infrav1.PostureCheckingReason, results: 5},
		"let go, was good":              {object: told(metav1.ConditionTrue, time.Minute), freed: true, cards: []posture.CardReading{pending}, enforced: vpc.Unknown, reason: infrav1.PostureCheckingReason},
		"let go, was bad":               {object: told(metav1.ConditionFalse, time.Minute), freed: true, cards: []posture.CardReading{pending}, enforced: vpc.Unknown, reason: infrav1.PostureCheckingReason},
		"let go, read since":            {object: told(metav1.ConditionFalse, time.Minute), freed: true, cards: []posture.CardReading{answered("a", vpc.Yes)}, enforced: vpc.Yes, results: 5},
		"was good, is bad":              {object: told(metav1.ConditionTrue, time.Minute), cards: []posture.CardReading{answered("a", vpc.No)}, enforced: vpc.No, reason: infrav1.PostureFailedReason, results: 5},
		"no cards are known, were good": {object: told(metav1.ConditionTrue, time.Minute), enforced: vpc.Yes, results: 5},
	} {
		if c.mode == "" {
			c.mode = infrav1.PostureEnforce
		}
		s := &server{object: c.object, bmcs: bmcs{asked: infrav1.Posture{Mode: c.mode}, freed: c.freed, cards: c.cards}}
		results, finding := judgePosture(s, postureNow)
		if finding.Answer != c.enforced || finding.Reason != c.reason || len(results) != c.results {
			t.Errorf("%s: %s %q, %d results; want %s %q, %d: %s", name, finding.Answer, finding.Reason, len(results), c.enforced, c.reason, c.results, finding.Message)
		}
	}
}

// TestDescribePosture takes the worst of all cards, names them, and is never longer than the API takes.
func TestDescribePosture(t *testing.T) {
	older := answered("b", vpc.No)
	older.Reading.At = postureNow.Add(-2 * time.Minute)
	older.Reading.Results[4].Message = strings.Repeat("é", 2000)
	asked := infrav1.Posture{Mode: infrav1.PostureEnforce, Overrides: []infrav1.PostureOverride{{Check: string(posture.DPUMode), Mode: infrav1.PostureOff}}}
	results := describePosture(asked, []posture.CardReading{answered("a", vpc.Unknown), older})
	if len(results) != 4 {
		t.Fatalf("%d results, want those of the checks asked: %v", len(results), results)
	}
	boot := results[3]
	if boot.Name != string(posture.SecureBoot) || boot.Status != metav1.ConditionFalse || len(boot.Message) > longestResult || !strings.HasPrefix(boot.Message, "DPUDevice b: ") {
		t.Errorf("secure boot: %+v", boot)
	}
	if !boot.ObservedAt.Time.Equal(older.Reading.At) {
		t.Errorf("observed at %s, want when the first was asked: %s", boot.ObservedAt, older.Reading.At)
	}
}

// TestAnIneligibleServer is one that is free and healthy and may not be handed out.
func TestAnIneligibleServer(t *testing.T) {
	s := &server{resolved: vpc.Finding{Answer: vpc.Yes}, cards: []card{goodCard()}}
	s.bmcs = bmcs{asked: infrav1.Posture{Mode: infrav1.PostureEnforce}, cards: []posture.CardReading{answered("a", vpc.No)}}
	j := judge(s, "i", now)
	if j.free.Answer != vpc.Yes || j.healthy.Answer != vpc.Yes || j.ready.Answer != vpc.No || j.ready.Reason != infrav1.PostureFailedReason {
		t.Errorf("free %s, healthy %s, ready %s %s", j.free.Answer, j.healthy.Answer, j.ready.Answer, j.ready.Reason)
	}
	object := &infrav1.DPUServer{}
	describeServer(object, j)
	if object.Status.Eligibility != infrav1.Ineligible || len(object.Status.Posture) != 5 {
		t.Errorf("eligibility %s, %d results", object.Status.Eligibility, len(object.Status.Posture))
	}
}
