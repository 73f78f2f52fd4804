// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package dpuattachment

import (
	"slices"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/posture"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/vpc"
)

// bmcSaid is a card whose checks passed, but for secure boot.
func bmcSaid(boot vpc.Answer) []posture.CardReading {
	reading := posture.Reading{At: now}
	for _, check := range posture.Checks {
		result := posture.Result{Check: check, Answer: vpc.Yes}
		if check == posture.SecureBoot {
			result = posture.Result{Check: check, Answer: boot, Message: "repair it"}
		}
		reading.Results = append(reading.Results, result)
	}
	return []posture.CardReading{{Device: "d1", Known: true, Reading: reading}}
}

func pending() []posture.CardReading { return []posture.CardReading{{Device: "d1"}} }

func saidBefore(o *observation, reason string) {
	o.attachment.Status.Conditions = append(o.attachment.Status.Conditions, metav1.Condition{
		Type: infrav1.PostureVerifiedCondition, Status: metav1.ConditionTrue, Reason: reason,
	})
}

// TestPosture: nothing is written for a server that is not known to be as the fabric enforces, and nothing of it touches a
// tenant who has the server.
func TestPosture(t *testing.T) {
	marked := func(t *testing.T) *observation {
		return scene().authorized().record(t, plainly, false, true).asked(yes)
	}
	fresh := func(*testing.T) *observation { return scene().asked(yes) }
	running := func(t *testing.T) *observation { return scene().running(t).asked(yes) }
	for name, c := range map[string]struct {
		o    func(*testing.T) *observation
		mode infrav1.PostureMode
		bmcs []posture.CardReading

		said   string
		step   vpc.Step
		proven infrav1.AttachmentState
		pace   pace
	}{
		"off":                       {fresh, infrav1.PostureOff, nil, "True/PostureOff", vpc.StepJoin, "", paceTransition},
		"enforced, not asked":       {fresh, infrav1.PostureEnforce, nil, "Unknown/NotStarted", vpc.StepDone, "", paceRefused},
		"enforced, being asked":     {fresh, infrav1.PostureEnforce, pending(), "Unknown/PostureChecking", vpc.StepDone, "", paceTransition},
		"enforced, good":            {fresh, infrav1.PostureEnforce, bmcSaid(vpc.Yes), "True/PostureVerified", vpc.StepJoin, "", paceTransition},
		"enforced, bad":             {fresh, infrav1.PostureEnforce, bmcSaid(vpc.No), "False/PostureFailed", vpc.StepDone, "", paceRefused},
		"enforced, unknown":         {fresh, infrav1.PostureEnforce, bmcSaid(vpc.Unknown), "Unknown/PostureUnknown", vpc.StepDone, "", paceRefused},
		"enforced, bad on the way":  {marked, infrav1.PostureEnforce, bmcSaid(vpc.No), "False/PostureFailed", vpc.StepDone, "", paceRefused},
		"enforced, good on the way": {marked, infrav1.PostureEnforce, bmcSaid(vpc.Yes), "True/PostureVerified", vpc.StepPlug, "", paceTransition},
		"warned, being asked":       {fresh, infrav1.PostureWarn, pending(), "Unknown/PostureChecking", vpc.StepJoin, "", paceTransition},
		"warned, bad":               {fresh, infrav1.PostureWarn, bmcSaid(vpc.No), "False/PostureWarning", vpc.StepJoin, "", paceTransition},
		"warned, unknown":           {fresh, infrav1.PostureWarn, bmcSaid(vpc.Unknown), "Unknown/PostureWarning", vpc.StepJoin, "", paceTransition},
		"running, bad":              {running, infrav1.PostureEnforce, bmcSaid(vpc.No), "False/PostureFailed", vpc.StepDone, infrav1.AttachmentStateAttached, paceSteady},
		"running, unknown":          {running, infrav1.PostureEnforce, bmcSaid(vpc.Unknown), "Unknown/PostureUnknown", vpc.StepDone, infrav1.AttachmentStateAttached, paceSteady},
		"running, being asked":      {running, infrav1.PostureEnforce, pending(), "True/before", vpc.StepDone, infrav1.AttachmentStateAttached, paceSteady},
		"running, not asked":        {running, infrav1.PostureEnforce, nil, "True/before", vpc.StepDone, infrav1.AttachmentStateAttached, paceSteady},
	} {
		t.Run(name, func(t *testing.T) {
			o := c.o(t)
			saidBefore(o, "before")
			o.fabric.Object.Spec.Posture.Mode, o.bmcs = c.mode, c.bmcs
			d := decide(o)
			if got := string(d.posture.status) + "/" + d.posture.reason; got != c.said {
				t.Errorf("said %s, want %s", got, c.said)
			}
			step := vpc.StepDone
			if d.write != nil {
				step = d.write.step
			}
			if step != c.step || d.proven != c.proven || d.pace != c.pace {
				t.Errorf("step %v, proven %q, pace %v; want %v, %q, %v (%s)", step, d.proven, d.pace, c.step, c.proven, c.pace, d.attached.message)
			}
		})
	}
}

// TestPostureOnTheWayOff repeats what was said: no BMC is asked to let a server go.
func TestPostureOnTheWayOff(t *testing.T) {
	o := scene().running(t).asked(yes)
	saidBefore(o, "before")
	o.attachment.Spec.State = infrav1.AttachmentStateDetached
	o.fabric.Object.Spec.Posture.Mode, o.bmcs = infrav1.PostureEnforce, bmcSaid(vpc.No)
	d := decide(o)
	if d.posture.reason != "before" || d.write == nil || d.write.step != vpc.StepUnplug {
		t.Errorf("said %s, write %+v", d.posture.reason, d.write)
	}
}

// stub notes who is asked for since when.
type stub struct {
	devices []string
	awaited []string
	since   time.Time
	urgent  bool
	reading posture.Reading
}

func (s *stub) Latest(card posture.Card, since time.Time, urgent bool) (posture.Reading, bool) {
	s.devices, s.since, s.urgent = append(s.devices, card.Device), since, urgent
	return s.reading, len(s.reading.Results) > 0 && !s.reading.At.Before(since)
}

func (s *stub) Await(device string, attachment types.NamespacedName) {
	s.awaited = append(s.awaited, device+" "+attachment.String())
}

// TestObservePosture: a server is handed over by what all its cards answered lately, and since it was claimed.
func TestObservePosture(t *testing.T) {
	created := now.Add(-time.Minute)
	detached := now.Add(-30 * time.Second)
	for name, c := range map[string]struct {
		change func(*observation)
		age    time.Duration
		asked  bool
		since  time.Time
		urgent bool
		known  bool
	}{
		"young":           {func(*observation) {}, 30 * time.Second, true, created, true, true},
		"older than it":   {func(*observation) {}, 2 * time.Minute, true, created, true, false},
		"old attachment":  {func(o *observation) { o.attachment.CreationTimestamp = metav1.NewTime(now.Add(-time.Hour)) }, 4 * time.Minute, true, now.Add(-5 * time.Minute), true, true},
		"too old for it":  {func(o *observation) { o.attachment.CreationTimestamp = metav1.NewTime(now.Add(-time.Hour)) }, 6 * time.Minute, true, now.Add(-5 * time.Minute), true, false},
		"off":             {func(o *observation) { o.fabric.Object.Spec.Posture.Mode = infrav1.PostureOff }, 0, false, time.Time{}, false, false},
		"not admitted":    {func(o *observation) { o.admission = refused(infrav1.NamespaceNotAllowedReason, "no") }, 0, false, time.Time{}, false, false},
		"asked to detach": {func(o *observation) { o.attachment.Spec.State = infrav1.AttachmentStateDetached }, 0, false, time.Time{}, false, false},
		"detached under this claim": {func(o *observation) {
			o.attachment.Status = infrav1.DPUAttachmentStatus{State: infrav1.AttachmentStateDetached, TokenHash: maas.TokenHash(token), ProvenAt: ptr.To(metav1.NewTime(detached))}
		}, 40 * time.Second, true, detached, true, false},
		"running": {func(o *observation) {
			o.attachment.Status = infrav1.DPUAttachmentStatus{State: infrav1.AttachmentStateAttached, TokenHash: maas.TokenHash(token)}
		}, time.Hour, true, now.Add(-posture.MaxAge), false, true},
	} {
		o := scene()
		o.attachment.CreationTimestamp = metav1.NewTime(created)
		o.fabric.Object.Spec.Posture.Mode = infrav1.PostureEnforce
		o.cards = append(o.cards, o.freeCard("d2", nil))
		s := &stub{reading: bmcSaid(vpc.Yes)[0].Reading}
		s.reading.At = now.Add(-c.age)
		o.fabric.Posture = s
		c.change(o)
		(&Reconciler{}).observePosture(o)
		if !c.asked {
			if len(s.devices) > 0 {
				t.Errorf("%s: BMCs were asked", name)
			}
			continue
		}
		if !slices.Equal(s.devices, []string{"d1", "d2"}) || !slices.Equal(s.awaited, []string{"d1 red/a", "d2 red/a"}) || !s.since.Equal(c.since) || s.urgent != c.urgent {
			t.Errorf("%s: asked %v since %s, urgent %t, awaits %v; want since %s, urgent %t", name, s.devices, s.since, s.urgent, s.awaited, c.since, c.urgent)
		}
		if len(o.bmcs) != 2 || o.bmcs[0].Known != c.known || o.bmcs[1].Known != c.known {
			t.Errorf("%s: %+v, want known %t", name, o.bmcs, c.known)
		}
	}
}
