// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package checker

import (
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
)

const (
	token    = "v1.token.red"
	redVPC   = "dpf_red"
	blueVPC  = "dpf_blue"
	othersV  = "dpf_others"
	portMAC  = "b8:3f:d2:00:00:01"
	otherMAC = "b8:3f:d2:00:00:02"
)

var start = time.Date(2026, 11, 21, 10, 0, 0, 0, time.UTC)

func at(seconds int) time.Time { return start.Add(time.Duration(seconds) * time.Second) }

// fakeMAAS and fakeFabric are facts without a system behind them.
type fakeMAAS struct {
	machines []Machine
	effects  []Effect
}

func (f *fakeMAAS) Machines() []Machine { return f.machines }
func (f *fakeMAAS) Effects() []Effect   { return f.effects }

type fakeFabric struct {
	plugs   []Plug
	changes []LabelChange
	leak    bool
	// looked is called when it is first asked for its plugs, after it told of them.
	looked func()
}

func (f *fakeFabric) Plugs() []Plug {
	plugs := slices.Clone(f.plugs)
	if looked := f.looked; looked != nil {
		f.looked = nil
		looked()
	}
	return plugs
}
func (f *fakeFabric) LabelChanges() []LabelChange { return f.changes }
func (f *fakeFabric) Reachable(_, _ string) bool  { return f.leak }

// world is one whole good life: claimed, attached, deployed, provisioned, detached, off, released, Ready.
type world struct {
	maas     *fakeMAAS
	fabric   *fakeFabric
	recorder *Recorder
}

func goodLife() *world {
	effect := func(s int, operation string, from, to int) Effect {
		return Effect{Time: at(s), User: "capi", Operation: operation, SystemID: "srv1", Owner: "capi", Token: token, From: from, To: to, PoweredOn: true}
	}
	byMAAS := func(e Effect) Effect { e.User = ""; return e }
	machine := func(s int, provisioned bool, isolated string) machineRecord {
		return machineRecord{Seen: at(s), UID: "m", Namespace: "red", Name: "m", Token: token, SystemID: "srv1", Ports: 1, Provisioned: provisioned, Isolated: isolated}
	}
	attachment := func(s int, asked, proven string) attachmentRecord {
		return attachmentRecord{
			Seen: at(s), UID: "a", Namespace: "red", Name: "a", Source: "rack", SystemID: "srv1", Token: token, VPC: "red", Asked: asked, Proven: proven,
			Current: true, ProvenAt: at(s), ValidUntil: at(s + 300), Authorized: "True", MACs: []string{portMAC}, DPUs: []string{"dpu1"},
		}
	}
	gone := machine(60, true, "")
	gone.Deleted = true
	return &world{
		maas: &fakeMAAS{
			machines: []Machine{{SystemID: "srv1", Status: maasReady}},
			effects: []Effect{
				effect(1, "allocate", maasReady, 10), effect(2, "set_workload_annotations", 10, 10),
				effect(12, "deploy", 10, 9), byMAAS(effect(20, "deployed", 9, maasDeployed)),
				effect(40, "power_off", maasDeployed, maasDeployed), effect(45, "release", maasDeployed, maasReleasing),
				byMAAS(effect(50, "released", maasReleasing, maasReady)),
			},
		},
		fabric: &fakeFabric{
			plugs: []Plug{
				{MAC: portMAC, VPC: redVPC, Network: "n", From: at(8), To: at(35)},
				{MAC: otherMAC, VPC: othersV, Network: "n", From: at(-100)},
			},
			changes: []LabelChange{{Time: at(5), DPU: "dpu1", Key: "ours/vpc", Who: "wing"}},
		},
		recorder: &Recorder{
			dpfSpace: "dpf", vpcs: map[string]string{"red/red": redVPC, "blue/blue": blueVPC}, heldBy: map[string][]string{},
			machines:    []machineRecord{machine(0, false, ""), machine(21, true, "True"), gone},
			attachments: []attachmentRecord{attachment(3, "Attached", ""), attachment(10, "Attached", "Attached"), attachment(36, "Detached", "Detached")},
		},
	}
}

func (w *world) check() Verdict {
	c := Checker{MAAS: w.maas, Fabric: w.fabric, Recorder: w.recorder, Inventory: Inventory{
		Servers:  []Server{{SystemID: "srv1", MACs: []string{portMAC}, DPUs: []string{"dpu1"}}, {SystemID: "srv2", MACs: []string{otherMAC}}},
		Accounts: []string{"capi"}, ForeignVPCs: []string{othersV}, LabelPrefix: "ours/",
	}}
	return c.Check()
}

func TestGoodLifeBreaksNothing(t *testing.T) {
	verdict := goodLife().check()
	if !verdict.Holds() {
		t.Errorf("findings in a good life:\n%s", verdict)
	}
	for _, invariant := range []string{"I2", "I3", "I4", "I5", "I6", "I7", "I8"} {
		if verdict.Observations[invariant] == 0 {
			t.Errorf("%s was not observed at all", invariant)
		}
	}
	if unchecked := verdict.Unchecked(); !slices.Equal(unchecked, []string{"I1"}) {
		t.Errorf("unchecked = %v, want only I1, for no server is allocated", unchecked)
	}
}

// TestEachBreachIsFound breaks a good life in one way after the other.
func TestEachBreachIsFound(t *testing.T) {
	breaches := []struct {
		name, invariant string
		breach          func(*world)
	}{
		{"a server allocated for nobody", "I1", func(w *world) {
			w.maas.machines = []Machine{{SystemID: "srv1", Status: 10, Owner: "capi", AgentName: token}}
		}},
		{"a server allocated under no token", "I1", func(w *world) {
			w.maas.machines, w.maas.effects = []Machine{{SystemID: "srv1", Status: 10, Owner: "capi"}}, []Effect{}
		}},
		{"one token in two machines", "I1", func(w *world) {
			w.maas.machines = []Machine{{SystemID: "srv1", Status: 10, Owner: "capi", AgentName: token}}
			w.recorder.machines = []machineRecord{{UID: "m", Token: token}, {UID: "n", Token: token}}
		}},
		{"two servers deployed under one token", "I2", func(w *world) {
			second := w.maas.effects[2]
			second.SystemID = "srv2"
			w.maas.effects = append(w.maas.effects, second)
			w.maas.machines = []Machine{
				{SystemID: "srv1", Status: 6, Owner: "capi", AgentName: token}, {SystemID: "srv2", Status: 6, Owner: "capi", AgentName: token},
			}
		}},
		{"a server annotated for another machine", "I2", func(w *world) {
			w.maas.effects[1].Annotations = map[string]string{"maas-dpu.namespace": "red", "maas-dpu.name": "other"}
		}},
		{"two attachments hold one server", "I2", func(w *world) {
			second := w.recorder.attachments[1]
			second.UID, second.Name = "b", "b"
			w.recorder.attachments = append(w.recorder.attachments[:2:2], second)
		}},
		{"a port on two networks", "I2", func(w *world) {
			w.fabric.plugs = append(w.fabric.plugs, Plug{MAC: portMAC, VPC: redVPC, Network: "m", From: at(30), To: at(34)})
		}},
		{"deployed without proof", "I3", func(w *world) { w.recorder.attachments = w.recorder.attachments[:1] }},
		{"deployed on a stale proof", "I3", func(w *world) { w.recorder.attachments[1].ValidUntil = at(11) }},
		{"deployed on a proof of an older generation", "I3", func(w *world) { w.recorder.attachments[1].Current = false }},
		{"deployed without attachment", "I3", func(w *world) { w.recorder.attachments = nil }},
		{"deployed without ports while plugged", "I3", func(w *world) {
			for i := range w.recorder.machines {
				w.recorder.machines[i].Ports = 0
			}
		}},
		{"deployed while unplugged", "I3", func(w *world) { w.fabric.plugs[0].From = at(13) }},
		{"deployed on another VPC", "I3", func(w *world) { w.fabric.plugs[0].VPC = blueVPC }},
		{"released without proof of detachment", "I4", func(w *world) { w.recorder.attachments = w.recorder.attachments[:2] }},
		{"released while plugged", "I4", func(w *world) { w.fabric.plugs[0].To = at(47) }},
		{"back in the pool while plugged", "I4", func(w *world) { w.fabric.plugs[0].To = time.Time{} }},
		{"somebody else's server released", "I5", func(w *world) { w.maas.effects[5].Owner = "others" }},
		{"touched under an unknown token", "I5", func(w *world) { w.maas.effects[4].Token = "v1.unknown" }},
		{"a foreign label changed", "I5", func(w *world) { w.fabric.changes[0].Key = "dpu.nvidia.com/x" }},
		{"a foreign VPC left", "I5", func(w *world) { w.fabric.plugs[1].To = at(20) }},
		{"called Attached while unplugged", "I6", func(w *world) { w.fabric.plugs[0].From = at(11) }},
		{"called Detached while plugged", "I6", func(w *world) { w.fabric.plugs[0].To = at(37) }},
		{"a DPU changed while the claim was unknown", "I6", func(w *world) {
			w.recorder.attachments[0].Authorized, w.recorder.attachments[0].AuthorizedSince = "Unknown", at(3)
		}},
		{"provisioned before Deployed", "I7", func(w *world) { w.maas.effects[3].Time = at(22) }},
		{"provisioned without proof", "I7", func(w *world) { w.recorder.attachments[1].ProvenAt = at(22) }},
		{"provisioned taken back", "I7", func(w *world) {
			w.recorder.machines[2].Deleted, w.recorder.machines[2].Provisioned = false, false
		}},
		{"Isolated on a stale proof", "I7", func(w *world) { w.recorder.attachments[1].ValidUntil = at(20) }},
		{"plugged into another tenant's VPC", "I8", func(w *world) { w.fabric.plugs[0].VPC = blueVPC }},
		{"plugged without claim", "I8", func(w *world) { w.fabric.plugs[0].From = at(0) }},
		{"plugged into nobody's VPC", "I8", func(w *world) { w.fabric.plugs[0].VPC = "dpf_nobody" }},
		{"two tenants reach each other", "I8", func(w *world) {
			w.fabric.plugs[0].To, w.fabric.leak = time.Time{}, true
		}},
	}
	for _, b := range breaches {
		t.Run(b.name, func(t *testing.T) {
			w := goodLife()
			b.breach(w)
			verdict := w.check()
			if !slices.ContainsFunc(verdict.Findings, func(f Finding) bool { return f.Invariant == b.invariant }) {
				t.Errorf("no finding against %s:\n%s", b.invariant, verdict)
			}
		})
	}
}

// TestFactsThatComeBetweenTwoReadings lets something happen after the data plane was read, and before the API server is.
func TestFactsThatComeBetweenTwoReadings(t *testing.T) {
	w := goodLife()
	plugs, attachments := w.fabric.plugs, w.recorder.attachments
	w.fabric.plugs, w.recorder.attachments = nil, nil
	w.fabric.looked = func() { w.fabric.plugs, w.recorder.attachments = plugs, attachments }
	if verdict := w.check(); !verdict.Holds() {
		t.Errorf("findings in a good life that goes on while it is looked at:\n%s", verdict)
	}
	w = goodLife()
	w.fabric.plugs[0].To, w.fabric.leak = time.Time{}, true
	w.fabric.looked = func() {
		w.fabric.looked = func() { w.fabric.leak = false }
	}
	if verdict := w.check(); !slices.ContainsFunc(verdict.Findings, func(f Finding) bool { return f.Invariant == "I8" && f.momentary }) {
		t.Errorf("two tenants reached each other for a moment, and nothing is found:\n%s", verdict)
	}
}

// TestUnknownClaim says when a DPU may be changed by whoever said the claim was unknown.
func TestUnknownClaim(t *testing.T) {
	version := func(seen int, authorized string, since int) attachmentRecord {
		return attachmentRecord{
			Seen: at(seen), UID: "a", Namespace: "red", Name: "a", Asked: "Attached", Authorized: authorized, AuthorizedSince: at(since), DPUs: []string{"dpu1"},
		}
	}
	asked := version(20, "Unknown", 1)
	asked.Asked = "Detached"
	for _, c := range []struct {
		name      string
		changed   int
		then      []attachmentRecord
		forbidden bool
	}{
		{"before it was confirmed", 7, []attachmentRecord{version(20, "True", 8)}, true},
		{"by the pass that confirmed it, long before it said so", 9, []attachmentRecord{version(20, "True", 8)}, false},
		{"by the pass that remembered the write before it made it", 9, []attachmentRecord{version(10, "Unknown", 1), version(20, "True", 8)}, false},
		{"by the pass that found it lost", 9, []attachmentRecord{version(20, "False", 8)}, false},
		{"under a clock that was shifted", 9, []attachmentRecord{version(20, "True", 50)}, true},
		{"on the way off", 18, []attachmentRecord{asked}, false},
		{"before the way off", 9, []attachmentRecord{asked}, true},
		{"while nothing was said", 9, nil, true},
	} {
		w := goodLife()
		w.recorder.attachments = append([]attachmentRecord{version(1, "Unknown", 1)}, c.then...)
		w.fabric.changes[0].Time = at(c.changed)
		found := slices.ContainsFunc(w.check().Findings, func(f Finding) bool {
			return f.Invariant == "I6" && strings.Contains(f.Text, "was unknown")
		})
		if found != c.forbidden {
			t.Errorf("a DPU was changed %s: found %t", c.name, found)
		}
	}
}

func TestVerdictSaysWhatWasNotObserved(t *testing.T) {
	empty := Verdict{Observations: map[string]int{}}
	if said := empty.String(); strings.Contains(said, "all invariants hold") || !strings.Contains(said, "not observed: I1") {
		t.Errorf("an empty verdict says:\n%s", said)
	}
	sampled := goodLife()
	sampled.maas.effects = nil
	checker := Checker{MAAS: sampled.maas, Recorder: sampled.recorder}
	if verdict := checker.Check(); !slices.Contains(verdict.Sampled, "I3") {
		t.Errorf("without a journal the verdict says it saw the past: %v", verdict.Sampled)
	}
}

func TestMachineWithoutPortsIsReleasedWithoutDetachment(t *testing.T) {
	w := goodLife()
	w.recorder.attachments, w.fabric.plugs = nil, w.fabric.plugs[1:]
	for i := range w.recorder.machines {
		w.recorder.machines[i].Ports = 0
	}
	if verdict := w.check(); !verdict.Holds() {
		t.Errorf("findings in a good life without ports:\n%s", verdict)
	}
	w = goodLife()
	for i := range w.recorder.machines {
		w.recorder.machines[i].Ports = 0
	}
	w.recorder.attachments, w.fabric.plugs[0].To = nil, time.Time{}
	if verdict := w.check(); !slices.ContainsFunc(verdict.Findings, func(f Finding) bool { return f.Invariant == "I4" }) {
		t.Errorf("released while plugged, and nothing is found:\n%s", verdict)
	}
}

func TestSurplusServerThatOthersDeployedIsNotOurs(t *testing.T) {
	w := goodLife()
	byOthers := w.maas.effects[2]
	byOthers.SystemID, byOthers.User = "srv2", "admin"
	w.maas.effects = append(w.maas.effects, byOthers)
	w.maas.machines = []Machine{
		{SystemID: "srv1", Status: 6, Owner: "capi", AgentName: token}, {SystemID: "srv2", Status: 6, Owner: "capi", AgentName: token},
	}
	for _, f := range w.check().Findings {
		if f.Invariant == "I2" {
			t.Errorf("what an administrator deployed is called ours: %s", f.Text)
		}
	}
}

func TestHeldServerIsNoLeak(t *testing.T) {
	w := goodLife()
	w.maas.machines = []Machine{{SystemID: "srv1", Status: 10, Owner: "capi", AgentName: token}}
	w.recorder.heldBy["rack"] = []string{"srv1"}
	for _, f := range w.check().Findings {
		if f.Invariant == "I1" {
			t.Errorf("a held server is called a leak: %s", f.Text)
		}
	}
}

func TestNote(t *testing.T) {
	r := NewRecorder("dpf")
	object := func(kind, name string, content map[string]any) *unstructured.Unstructured {
		u := &unstructured.Unstructured{Object: content}
		u.SetGroupVersionKind(group.WithKind(kind))
		u.SetNamespace("red")
		u.SetName(name)
		u.SetUID(types.UID(name))
		return u
	}
	claim := map[string]any{"spec": map[string]any{"claim": map[string]any{"token": token}}}
	r.Note(object("MaasMachine", "m", claim), false)
	r.Note(object("MaasCluster", "c", map[string]any{}), false)
	if living := r.snapshot().living(); len(living) != 1 || living[0].Token != token {
		t.Errorf("living machines: %+v", living)
	}
	r.Note(object("MaasMachine", "m", claim), true)
	if living := r.snapshot().living(); len(living) != 0 {
		t.Errorf("living machines after the last went: %+v", living)
	}
	r.Note(object("MaasClusterIdentity", "i", map[string]any{"status": map[string]any{"held": []any{map[string]any{"systemID": "srv1"}}}}), false)
	if !r.snapshot().held["srv1"] {
		t.Error("a held server is not known as held")
	}
}
