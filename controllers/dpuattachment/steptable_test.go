// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package dpuattachment

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/vpcv1alpha1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/vpc"
)

// faultBook is where operators read the table.
const faultBook = "../../docs/book/fabric-faults.md"

// answered is what follows from one answer: the changes to the scene that stand for it, what is decided, and what people read.
type answered struct {
	change  func(*observation)
	want    expected
	happens string
}

// stepRow is one step of an attachment's life and the question it hangs on.
type stepRow struct {
	step, question   string
	scene            func(*testing.T) *observation
	yes, no, unknown answered
}

var errNoAnswer = errors.New("no answer")

func dpfAway(o *observation)     { o.resolved, o.cards = unreachable(errNoAnswer), nil }
func clusterAway(o *observation) { o.cards[0].evidence.ClusterError = errNoAnswer }
func nodeSilent(o *observation) {
	o.cards[0].evidence.Node.Status.Conditions[0].Status = corev1.ConditionUnknown
}

func detaching(o *observation) *observation {
	o.attachment.Spec.State = infrav1.AttachmentStateDetached
	return o
}

func unpluggedNow(h *vpc.Holder, o *observation) {
	h.Plugged, h.Unplugged = true, ptr.To(o.cards[0].evidence.Stretch(now))
}

var stepRows = []stepRow{
	{
		step: "resolve", question: "Are the server's DPUs found, and those it was first seen with?",
		scene: func(*testing.T) *observation { return scene().asked(yes) },
		yes:   answered{func(*observation) {}, expected{step: vpc.StepJoin, attached: "False/AttachingVPC"}, "The preflight follows."},
		no: answered{func(o *observation) { o.resolved = refused(infrav1.BindingChangedReason, "others") },
			expected{attached: "False/NotStarted", resolved: "False/BindingChanged", pace: paceRefused}, "Nothing is written. The server is refused; the machine takes another."},
		unknown: answered{dpfAway, expected{attached: "False/NotStarted", resolved: "Unknown/FabricUnreachable"}, "Nothing is written; asked again."},
	},
	{
		step: "preflight", question: "Is the DPU installed, alive, at rest, held off from DPF's reinstalling, and nobody's?",
		scene:   func(*testing.T) *observation { return scene().asked(yes) },
		yes:     answered{func(*observation) {}, expected{step: vpc.StepJoin, attached: "False/AttachingVPC"}, "First write: the VPC's label and the record of who holds the DPU."},
		no:      answered{nodeSilent, expected{attached: "False/NotStarted", resolved: "False/DPUNotReady"}, "Nothing is written until it is."},
		unknown: answered{clusterAway, expected{attached: "False/NotStarted", resolved: "Unknown/FabricUnreachable"}, "Nothing is written; asked again."},
	},
	{
		step: "join", question: "Does MAAS hold the server under the claim, in this very pass?",
		scene:   func(*testing.T) *observation { return scene().authorized() },
		yes:     answered{func(o *observation) { o.asked(yes) }, expected{step: vpc.StepJoin, attached: "False/AttachingVPC"}, "The label is written. A write without an answer is not repeated: the record on the DPU tells."},
		no:      answered{func(o *observation) { o.asked(lostIt) }, expected{attached: "False/NotStarted", resolved: "Unknown/NotStarted", pace: paceRefused}, "Nothing is written."},
		unknown: answered{func(o *observation) { o.asked(unknown) }, expected{attached: "False/NotStarted", resolved: "Unknown/NotStarted"}, "Nothing is written; asked again."},
	},
	{
		step: "mark", question: "Has DPF marked the Node with that VPC?",
		scene: func(t *testing.T) *observation {
			return scene().authorized().record(t, plainly, false, true).asked(yes)
		},
		yes: answered{func(*observation) {}, expected{step: vpc.StepPlug, attached: "False/AttachingPort"}, "Plugging follows."},
		no: answered{func(o *observation) { delete(o.cards[0].evidence.Node.Labels, vpcv1alpha1.NodeVPCLabel) },
			expected{attached: "False/AttachingVPC"}, "No port is plugged. With another VPC's mark: `ForeignVPC`."},
		unknown: answered{clusterAway, expected{attached: "Unknown/FabricUnreachable"}, "No port is plugged; asked again."},
	},
	{
		step: "plug", question: "Does the Node live, and does MAAS still hold the server under the claim?",
		scene: func(t *testing.T) *observation {
			return scene().authorized().record(t, plainly, false, true).asked(yes)
		},
		yes: answered{func(*observation) {}, expected{step: vpc.StepPlug, attached: "False/AttachingPort"}, "Second write: the ports' labels."},
		no: answered{func(o *observation) { o.asked(lostIt) }, expected{step: vpc.StepLeave, attached: "False/DetachingVPC"},
			"No port is plugged; the DPU leaves the VPC. A dead Node: `DPUNotReady`, until it lives."},
		unknown: answered{func(o *observation) { o.asked(unknown) }, expected{attached: "False/AttachingPort"}, "No port is plugged; asked again."},
	},
	{
		step: "prove attached", question: "Is each port, and no other, connected on its network, on a living Node of that VPC alone?",
		scene:   func(t *testing.T) *observation { return scene().authorized().attached(t).asked(yes) },
		yes:     answered{func(*observation) {}, expected{proven: infrav1.AttachmentStateAttached, attached: "True/Attached", pace: paceSteady}, "The hand-over follows."},
		no:      answered{func(o *observation) { o.cards[0].evidence.Interfaces = nil }, expected{attached: "False/AttachingPort"}, "No machine is deployed; asked again."},
		unknown: answered{nodeSilent, expected{attached: "Unknown/DPUNotReady"}, "No machine is deployed; asked again."},
	},
	{
		step: "bind", question: "Where the fabric names OVN's databases: is each port, and no other, bound to the DPU's chassis, on its switch, with its MAC address?",
		scene:   func(t *testing.T) *observation { return scene().authorized().attached(t).bound(false).asked(yes) },
		yes:     answered{func(*observation) {}, expected{proven: infrav1.AttachmentStateAttached, attached: "True/Attached", pace: paceSteady}, "The hand-over follows."},
		no:      answered{unbind, expected{attached: "False/AttachingPort", pace: paceOVN}, "No machine is deployed; asked again within 2 s. A port of somebody else on the chassis: `DPUResolved=False/ForeignVPC`."},
		unknown: answered{ovnAway, expected{attached: "Unknown/FabricUnreachable", pace: paceOVN}, "No machine is deployed; asked again within 2 s. ServiceInterfaces alone are no proof there."},
	},
	{
		step: "barrier on", question: "Where the fabric asks for barriers: have the server's own DPUs and the VPC's living ones programmed that, and then once more?",
		scene: func(t *testing.T) *observation {
			return scene().authorized().attached(t).bound(true).asked(yes).passing(infrav1.AttachmentStateAttached)
		},
		yes:     answered{func(*observation) {}, expected{proven: infrav1.AttachmentStateAttached, attached: "True/Attached", pace: paceSteady}, "The hand-over follows."},
		no:      answered{hung, expected{attached: "False/WaitingForBarrier", pace: paceOVN}, "No machine is deployed; asked again within 2 s. The condition says for which chassis, and since when."},
		unknown: answered{ovnAway, expected{attached: "Unknown/FabricUnreachable", pace: paceOVN}, "No machine is deployed. Both barriers are raised again once it answers."},
	},
	{
		step: "hand-over", question: "Does MAAS still hold the server under the claim, after the ports were proven attached?",
		scene:   func(t *testing.T) *observation { return scene().authorized().attached(t) },
		yes:     answered{func(o *observation) { o.asked(yes) }, expected{proven: infrav1.AttachmentStateAttached, attached: "True/Attached", pace: paceSteady}, "The proof is given; the machine wing deploys."},
		no:      answered{func(o *observation) { o.asked(lostIt) }, expected{step: vpc.StepUnplug, attached: "False/DetachingPort"}, "The ports are taken off again; MAAS is not touched."},
		unknown: answered{func(o *observation) { o.asked(unknown) }, expected{attached: "Unknown/MaasUnreachable"}, "No proof is given; asked again."},
	},
	{
		step: "steady", question: "Is everything as it was proven?",
		scene:   func(t *testing.T) *observation { return scene().running(t).asked(unknown) },
		yes:     answered{func(*observation) {}, expected{proven: infrav1.AttachmentStateAttached, attached: "True/Attached", pace: paceSteady}, "The proof is renewed, three times within `proofMaxAgeSeconds`, also while MAAS is away."},
		no:      answered{func(o *observation) { o.cards[0].evidence.Interfaces = nil }, expected{attached: "False/EvidenceMissing"}, "The proof is taken back. See the table of drift."},
		unknown: answered{nodeSilent, expected{keep: true, attached: "Unknown/EvidenceMissing"}, "The last proof stands until `proofMaxAgeSeconds`; then the machine's `Isolated` is Unknown. Nothing is written."},
	},
	{
		step: "unplug", question: "Does the Node live?",
		scene:   func(t *testing.T) *observation { return detaching(scene().running(t)) },
		yes:     answered{func(*observation) {}, expected{step: vpc.StepUnplug, attached: "False/DetachingPort"}, "First write: the ports' labels go, and the record keeps the Node's UID, boot and since when it is Ready."},
		no:      answered{nodeSilent, expected{attached: "False/DPUNotReady"}, "Nothing is written: a DPU that does not speak could not show that it let go. After `detachTimeoutSeconds`: `DetachUnproven`, and the server is held."},
		unknown: answered{clusterAway, expected{attached: "Unknown/FabricUnreachable"}, "Nothing is written; asked again. After `detachTimeoutSeconds`: `DetachUnproven`, and the server is held."},
	},
	{
		step: "prove unplugged", question: "Are the ports gone, and did the Node live through it in one stretch?",
		scene: func(t *testing.T) *observation {
			o := detaching(scene())
			return o.record(t, func(h *vpc.Holder) { unpluggedNow(h, o) }, false, true)
		},
		yes: answered{func(*observation) {}, expected{step: vpc.StepLeave, attached: "False/DetachingVPC"}, "Leaving follows."},
		no: answered{func(o *observation) {
			o.cards[0].evidence.Interfaces = scene().attached(new(testing.T)).cards[0].evidence.Interfaces
		},
			expected{attached: "False/DetachingPort"}, "Waited for. After `detachTimeoutSeconds`: `DetachUnproven`, and the server is held."},
		unknown: answered{func(o *observation) { o.cards[0].evidence.Node.Status.NodeInfo.BootID = "other" },
			expected{needsClaim: true, attached: "False/DetachUnproven", pace: paceRefused}, "What vanished while nobody looked proves nothing: the ports are plugged and unplugged once more, as soon as MAAS confirms the claim."},
	},
	{
		step: "leave", question: "Is the Node's mark gone?",
		scene: func(t *testing.T) *observation {
			return detaching(scene()).record(t, func(h *vpc.Holder) { h.Detached = true }, false, false)
		},
		yes:     answered{func(*observation) {}, expected{proven: infrav1.AttachmentStateDetached, attached: "False/Detached", pace: paceDone}, "Proven detached."},
		no:      answered{func(o *observation) { o.cards[0].evidence.Node.Labels[vpcv1alpha1.NodeVPCLabel] = "x_y" }, expected{attached: "False/DetachingVPC"}, "Waited for."},
		unknown: answered{clusterAway, expected{attached: "Unknown/FabricUnreachable"}, "Waited for; asked again."},
	},
	{
		step: "prove detached", question: "Is the DPU out of the VPC, alive and Ready?",
		scene: func(t *testing.T) *observation {
			return detaching(scene()).record(t, func(h *vpc.Holder) { h.Detached = true }, false, false)
		},
		yes:     answered{func(*observation) {}, expected{proven: infrav1.AttachmentStateDetached, attached: "False/Detached", pace: paceDone}, "The machine wing powers the server off and releases it. From now on it is history: nothing takes it back."},
		no:      answered{nodeSilent, expected{attached: "Unknown/DPUNotReady"}, "Waited for. After `detachTimeoutSeconds`: `DetachUnproven`, and the server is held."},
		unknown: answered{dpfAway, expected{keep: true, attached: "Unknown/FabricUnreachable", resolved: "Unknown/FabricUnreachable"}, "Waited for; asked again. After `detachTimeoutSeconds`: `DetachUnproven`, and the server is held."},
	},
	{
		step: "unbind", question: "Where the fabric names OVN's databases: does the DPU's chassis claim no port, and is the port's Port_Binding gone?",
		scene: func(t *testing.T) *observation { return leftInOVN(t, false) },
		yes:   answered{func(*observation) {}, expected{proven: infrav1.AttachmentStateDetached, attached: "False/Detached", pace: paceDone}, "Proven detached."},
		no: answered{func(o *observation) { o.ovn.Bindings = append(o.ovn.Bindings, o.binding()) }, expected{attached: "False/DetachingPort", pace: paceOVN},
			"Waited for. After `detachTimeoutSeconds`: `DetachUnproven`, and the server is held."},
		unknown: answered{ovnAway, expected{attached: "Unknown/FabricUnreachable", pace: paceOVN}, "Waited for; asked again. After `detachTimeoutSeconds`: `DetachUnproven`, and the server is held."},
	},
	{
		step: "barrier off", question: "Where the fabric asks for barriers: have the server's own DPUs and the living ones of the VPC it left programmed that, and then once more?",
		scene:   func(t *testing.T) *observation { return leftInOVN(t, true).passing(infrav1.AttachmentStateDetached) },
		yes:     answered{func(*observation) {}, expected{proven: infrav1.AttachmentStateDetached, attached: "False/Detached", pace: paceDone}, "Proven detached."},
		no:      answered{hung, expected{attached: "False/WaitingForBarrier", pace: paceOVN}, "Waited for. After `detachTimeoutSeconds`: `DetachUnproven`, and the server is held."},
		unknown: answered{ovnAway, expected{attached: "Unknown/FabricUnreachable", pace: paceOVN}, "Waited for; both barriers are raised again once it answers. After `detachTimeoutSeconds`: `DetachUnproven`, and the server is held."},
	},
}

// sees is what the conditions say.
func (e expected) sees() string {
	if e.resolved == "" || e.resolved == "True/Resolved" || e.resolved == "Unknown/NotStarted" {
		return fmt.Sprintf("`Attached=%s`", e.attached)
	}
	return fmt.Sprintf("`DPUResolved=%s`", e.resolved)
}

func (r stepRow) lines() []string {
	var lines []string
	for _, a := range []struct {
		name string
		answered
	}{{"yes", r.yes}, {"no", r.no}, {"unknown", r.unknown}} {
		step, question := "", ""
		if a.name == "yes" {
			step, question = r.step, r.question
		}
		lines = append(lines, fmt.Sprintf("| %s | %s | %s | %s | %s |", step, question, a.name, a.want.sees(), a.happens))
	}
	return lines
}

// TestStepTable plays each answer at each step, and holds the book to it.
func TestStepTable(t *testing.T) {
	var lines []string
	for _, row := range stepRows {
		lines = append(lines, row.lines()...)
		for name, a := range map[string]answered{"yes": row.yes, "no": row.no, "unknown": row.unknown} {
			t.Run(row.step+"/"+name, func(t *testing.T) {
				o := row.scene(t)
				a.change(o)
				check(t, o, a.want)
				if d := decide(o); name == "unknown" && d.raise != nil {
					t.Error("raised a barrier on an unknown answer")
				}
				if d := decide(o); name == "unknown" && d.write != nil {
					t.Errorf("wrote %s on an unknown answer", d.write.step)
				}
			})
		}
	}
	text, err := os.ReadFile(faultBook)
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(text), "\n|---|---|---|---|---|\n")
	table, _, _ = strings.Cut(table, "\n\n")
	for i, line := range strings.Split(strings.TrimSpace(table), "\n") {
		if i >= len(lines) || line != lines[i] {
			t.Fatalf("row %d of the table of steps in %s is not what is played; the table should be\n%s", i+1, faultBook, strings.Join(lines, "\n"))
		}
	}
	if got := strings.Count(strings.TrimSpace(table), "\n") + 1; got != len(lines) {
		t.Fatalf("the table of steps in %s has %d rows, want\n%s", faultBook, got, strings.Join(lines, "\n"))
	}
}

// TestNothingIsWrittenAfterTheTimeout holds the server whatever does not answer, and goes on when it does.
func TestNothingIsWrittenAfterTheTimeout(t *testing.T) {
	for name, away := range map[string]func(*observation){"DPF": dpfAway, "DPU cluster": clusterAway, "Node": nodeSilent} {
		t.Run(name, func(t *testing.T) {
			late := func() *observation {
				o := detaching(scene().running(t))
				o.memory.DetachingSince = ptr.To(metav1.NewTime(now.Add(-time.Hour)))
				return o
			}
			o := late()
			away(o)
			if d := decide(o); d.write != nil || d.attached.reason != infrav1.DetachUnprovenReason || d.proven != "" {
				t.Errorf("decided %+v", d)
			}
			if d := decide(late()); d.write == nil || d.write.step != vpc.StepUnplug {
				t.Errorf("back again: decided %+v", d)
			}
		})
	}
}
