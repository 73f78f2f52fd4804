// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package fabricwing_test

import (
	"fmt"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/vpc"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/dpfsim"
)

// played is a row on a tenant of its own.
type played struct {
	driftRow
	*tenancy
	began   time.Time
	undo    func()
	seen    said
	noticed time.Duration
	// settled is how long after its end, or after it was seen, the proof was good again.
	settled time.Duration
	counted dpfsim.WriteCount
}

// begin changes something.
func (p *played) begin() {
	p.Eventually(p.proven(p.attachment)).Should(Equal(attachedState), p.last())
	p.Eventually(p.attached()).Should(BeTrue(), p.last())
	p.Expect(writes(p.d)).To(Equal(dpfsim.WriteCount{Attach: 2}), "the way on")
	p.began = time.Now()
	p.undo = p.change(p.tenancy)
}

// notice waits until it is said.
func (p *played) notice() {
	if p.again != nil {
		p.Eventually(func() bool { return p.again(p.tenancy) }).Should(BeTrue())
		p.noticed = time.Since(p.began)
		return
	}
	p.Eventually(func() bool {
		var found bool
		p.seen, found = p.history.find(p.began, p.sees, p.states, p.says...)
		return found
	}).Should(BeTrue(), func() string { return fmt.Sprintf("never saw %s %q: %s", p.sees, p.says, p.last()()) })
	p.noticed = p.seen.at.Sub(p.began)
	for _, c := range p.seen.conditions {
		for _, secret := range []string{"rival", "theirs"} {
			p.Expect(c.Message).NotTo(ContainSubstring(secret), "the tenant is told somebody else's name")
		}
	}
}

// finish has the drift end as its row says.
func (p *played) finish() {
	back := time.Now()
	switch p.ending {
	case repaired, remade, lifted:
		if p.ending == lifted {
			p.undo()
		}
		p.Eventually(p.attached()).Should(BeTrue(), p.last())
		p.settled = time.Since(back)
	case stays:
		p.Expect(p.attached()()).To(BeFalse())
	case detaches:
		p.Eventually(p.proven(p.attachment)).Should(Equal(detachedState), p.last())
	}
	want := p.writes
	want.Attach += 2
	p.counted = writes(p.d)
	p.Expect(p.counted).To(Equal(want), "writes on the DPU")
	p.detach(p.attachment)
}

// states says what the proof must be in a version: one that is contradicted is taken back, one of which something was seen counts
// no more; and where somebody else may reach the tenant, the server is to be powered off.
func (p *played) states(v said) bool {
	if wanted := map[bool]infrav1.RequestedAction{true: infrav1.RequestedActionPowerOff}[p.powerOff]; v.action != wanted {
		return false
	}
	if p.ending == detaches {
		return true
	}
	switch v.conditions[infrav1.AttachedCondition].Status {
	case metav1.ConditionFalse:
		return v.state != attachedState
	default:
		return v.state == attachedState
	}
}

// newTenancy attaches a new server for a new machine to a new VPC.
func (w *wing) newTenancy(f *facts, name string, seed func(*dpfsim.DPU)) *tenancy {
	w.t.Helper()
	y := w.askTenancy(f, name, seed)
	w.Eventually(w.proven(y.attachment)).Should(Equal(attachedState), y.last())
	return y
}

// askTenancy asks for it.
func (w *wing) askTenancy(f *facts, name string, seed func(*dpfsim.DPU)) *tenancy {
	w.t.Helper()
	y := &tenancy{wing: w, name: name, facts: f, d: w.newServer(seed)}
	f.add(y.d)
	w.newTenant("red", name)
	y.token = w.machine(f, "red", name, y.d.SystemID)
	y.attachment = w.attach("red", name, name, name, y.d.SystemID, y.token)
	y.history = follow(w.t, y.attachment)
	return y
}

func (y *tenancy) attached() func() bool {
	return func() bool {
		ready := y.reason(y.attachment, infrav1.AttachedCondition)() == "True/"+infrav1.AttachedReason
		return ready && y.attachment.Status.State == attachedState && y.reason(y.attachment, infrav1.DPUResolvedCondition)() == "True/"+infrav1.ResolvedReason
	}
}

// last is what the attachment says now, for a failure's message.
func (y *tenancy) last() func() string {
	return func() string {
		a := &infrav1.DPUAttachment{}
		if err := world.Hub.Get(y.t.Context(), client.ObjectKeyFromObject(y.attachment), a); err != nil {
			return err.Error()
		}
		text := fmt.Sprintf("state %q, DPU %s, writes %+v", a.Status.State, y.d.Name, writes(y.d))
		for _, c := range a.Status.Conditions {
			text += fmt.Sprintf("\n%s=%s/%s %s", c.Type, c.Status, c.Reason, c.Message)
		}
		return text
	}
}

// TestDriftTable changes one thing after another under running tenants, all at the same time.
func TestDriftTable(t *testing.T) {
	w := newWing(t)
	f := w.watched()
	// Nothing but a watch notices in time, and what exposes a tenant is reacted to.
	w.changeFabric(`{"spec":{"proofMaxAgeSeconds":300,"onIsolationLost":"PowerOff"}}`, `{"spec":{"proofMaxAgeSeconds":30,"onIsolationLost":"Report"}}`)
	var all []*played
	for first := 0; first < len(driftRows); first += driftsAtOnce {
		rows := driftRows[first:min(first+driftsAtOnce, len(driftRows))]
		t.Run(fmt.Sprintf("from %02d", first), func(t *testing.T) {
			all = append(all, playDrifts(w.on(t), f, first, rows)...)
		})
	}
	for _, p := range all {
		t.Logf("%-55s noticed after %5d ms, good again after %6d ms, writes %+v, %s", p.driftRow.name, p.noticed.Milliseconds(), p.settled.Milliseconds(), p.counted, p.ending)
	}
}

// driftsAtOnce is how many rows are played side by side.
const driftsAtOnce = 10

func playDrifts(w *wing, f *facts, first int, rows []driftRow) []*played {
	var all []*played
	for n, row := range rows {
		all = append(all, &played{driftRow: row, tenancy: w.askTenancy(f, fmt.Sprintf("drift-%02d", first+n), row.seed)})
	}
	each := func(step string, play func(*played)) {
		for _, p := range all {
			w.t.Run(step+"/"+p.driftRow.name, func(t *testing.T) {
				p.wing = w.on(t)
				play(p)
			})
			p.wing = w
		}
	}
	each("change", (*played).begin)
	each("notice", (*played).notice)
	each("end", (*played).finish)
	each("detach", func(p *played) {
		p.Eventually(p.proven(p.attachment)).Should(Equal(detachedState), p.last())
		p.Expect(plugged(p.d)).To(BeFalse())
	})
	return all
}

// TestRepairsEnd: whoever takes a label away again and again means it.
func TestRepairsEnd(t *testing.T) {
	w := newWing(t)
	y := w.newTenancy(w.watched(), "again", nil)
	for range 3 {
		start := time.Now()
		y.carrierPatch(removeLabel(vpc.PortKey(0)))
		w.Eventually(func() bool { _, found := y.history.find(start, driftSees, nil, "it is being put back"); return found }).Should(BeTrue(), y.last())
		w.Eventually(y.attached()).Should(BeTrue(), y.last())
	}
	start := time.Now()
	y.carrierPatch(removeLabel(vpc.PortKey(0)))
	w.Eventually(func() bool { _, found := y.history.find(start, driftSees, nil, "not put back any more"); return found }).Should(BeTrue(), y.last())
	w.Consistently(func() dpfsim.WriteCount { return writes(y.d) }).Should(Equal(dpfsim.WriteCount{Attach: 5, Detach: 4}))
	w.detach(y.attachment)
	w.Eventually(w.proven(y.attachment)).Should(Equal(detachedState), y.last())
}

// TestRepairSurvivesACrash ends the wing right after it has put a label back.
func TestRepairSurvivesACrash(t *testing.T) {
	w := newWing(t)
	y := w.newTenancy(w.watched(), "crashed", nil)
	crash := make(chan struct{}, 8)
	w.stop()
	w.hooks.afterWrite = func() error { crash <- struct{}{}; return errMAASDown }
	w.start()
	y.carrierPatch(removeLabel(vpc.PortKey(0)))
	w.Eventually(crash).Should(Receive())
	w.stop()
	w.start()
	w.Eventually(y.attached()).Should(BeTrue(), y.last())
	w.Expect(writes(y.d)).To(Equal(dpfsim.WriteCount{Attach: 3, Detach: 1}))
	w.hooks.afterWrite = nil
	w.detach(y.attachment)
	w.Eventually(w.proven(y.attachment)).Should(Equal(detachedState), y.last())
}

// nodeReady reports whether the DPU's Node is Ready.
func (y *tenancy) nodeReady() func() bool {
	return func() bool {
		node := &corev1.Node{}
		y.Expect(world.DPU.Get(y.t.Context(), client.ObjectKey{Name: y.d.Name}, node)).To(Succeed())
		for _, c := range node.Status.Conditions {
			if c.Type == corev1.NodeReady {
				return c.Status == corev1.ConditionTrue
			}
		}
		return false
	}
}
