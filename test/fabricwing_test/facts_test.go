// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package fabricwing_test

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/checker"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/checker/dpffacts"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/dpfsim"
)

// facts let the checker look at the servers of one test: what the stub of MAAS was told, and what the simulator's data plane did.
type facts struct {
	mu      sync.Mutex
	effects []checker.Effect
	servers []checker.Server
	// carriers are the DPUs and DPUDevices that carry labels for the servers.
	carriers []string
	tokens   map[string]string
	record   *checker.Recorder
	end      context.CancelFunc
}

// watched begins to record for the checker, which judges at the end of the test.
func (w *wing) watched() *facts {
	w.t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(w.t.Context()))
	record, err := checker.Record(ctx, world.HubConfig, dpfNamespace)
	w.Expect(err).NotTo(HaveOccurred())
	f := &facts{record: record, end: cancel, tokens: map[string]string{}}
	t := w.t
	t.Cleanup(func() {
		defer cancel()
		c := checker.Checker{MAAS: f, Fabric: f.fabric(), Recorder: record, Lag: checker.WatchLag, Inventory: checker.Inventory{
			Servers: f.servers, Accounts: []string{account}, LabelPrefix: "maas-dpu.dpucloud.io/",
		}}
		verdict := c.Check()
		if !verdict.Holds() {
			t.Errorf("invariants:\n%s", verdict)
		}
		t.Logf("invariants:\n%s", verdict)
	})
	return f
}

// allocated tells the checker that MAAS gave a server to whoever has the token.
func (f *facts) allocated(systemID, token string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.tokens[systemID] = token
	f.effects = append(f.effects, checker.Effect{
		Time: time.Now(), User: "operator", Operation: "allocate", SystemID: systemID, Owner: account, Token: token, From: int(maas.StatusReady), To: int(maas.StatusAllocated),
	})
}

func (f *facts) add(d dpfsim.DPU) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.servers = append(f.servers, checker.Server{SystemID: d.SystemID, MACs: []string{strings.ToLower(d.PF0MAC)}, DPUs: []string{d.Name}})
	f.carriers = append(f.carriers, d.Name, d.Device)
}

// Machines implements checker.MAAS.
func (f *facts) Machines() []checker.Machine {
	f.mu.Lock()
	defer f.mu.Unlock()
	var machines []checker.Machine
	for systemID, token := range f.tokens {
		machines = append(machines, checker.Machine{SystemID: systemID, Status: int(maas.StatusAllocated), Owner: account, AgentName: token})
	}
	return machines
}

// Effects implements checker.MAAS.
func (f *facts) Effects() []checker.Effect {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.effects)
}

func (f *facts) mine(mac string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.ContainsFunc(f.servers, func(s checker.Server) bool { return slices.Contains(s.MACs, mac) })
}

// has reports whether the DPU, or the DPUDevice, is one of the servers'.
func (f *facts) has(name string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Contains(f.carriers, name)
}

// fabric is what became of these servers' ports, and what the wing made of their DPUs' labels: what a test does to a DPU is the
// fault, not the wing's.
func (f *facts) fabric() checker.Fabric {
	return dpffacts.Of(world.DPF, func(e dpfsim.Effect) bool {
		if e.Port != nil {
			return f.mine(strings.ToLower(e.Port.HostMAC))
		}
		_, name, _ := strings.Cut(e.Object, "/")
		return strings.Contains(e.Change, "holder") && f.has(name)
	})
}

// machine makes a MaasMachine with a claim on a server, which MAAS holds under it.
func (w *wing) machine(f *facts, namespace, name, systemID string) string {
	w.t.Helper()
	token := w.claim(namespace, name, systemID)
	object := &infrav1.MaasMachine{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec: infrav1.MaasMachineSpec{
			MachineConstraints: infrav1.MachineConstraints{Image: "ubuntu/noble", Ports: []infrav1.MachinePort{{Name: "p0", Subnet: "workers"}}},
			Claim:              &infrav1.MachineClaim{Token: token, IdentityName: "red", Source: source},
		},
	}
	w.Expect(world.Hub.Create(w.t.Context(), object)).To(Succeed())
	f.allocated(systemID, token)
	return token
}

// said is what one version of an attachment said.
type said struct {
	at         time.Time
	conditions map[string]metav1.Condition
	state      infrav1.AttachmentState
	validUntil time.Time
	action     infrav1.RequestedAction
}

// history is everything an attachment ever said.
type history struct {
	mu       sync.Mutex
	versions []said
}

// follow records every version of an attachment from now on.
func follow(t *testing.T, attachment *infrav1.DPUAttachment) *history {
	t.Helper()
	g := NewWithT(t)
	c, err := client.NewWithWatch(world.HubConfig, client.Options{Scheme: world.Hub.Scheme()})
	g.Expect(err).NotTo(HaveOccurred())
	watching, err := c.Watch(context.WithoutCancel(t.Context()), &infrav1.DPUAttachmentList{}, client.InNamespace(attachment.Namespace), client.MatchingFields{"metadata.name": attachment.Name})
	g.Expect(err).NotTo(HaveOccurred())
	t.Cleanup(watching.Stop)
	h := &history{}
	go func() {
		for e := range watching.ResultChan() {
			if a, ok := e.Object.(*infrav1.DPUAttachment); ok {
				h.note(a)
			}
		}
	}()
	return h
}

func (h *history) note(a *infrav1.DPUAttachment) {
	v := said{at: time.Now(), conditions: map[string]metav1.Condition{}, state: a.Status.State, action: a.Status.RequestedAction}
	for _, c := range a.Status.Conditions {
		v.conditions[c.Type] = c
	}
	if a.Status.ValidUntil != nil {
		v.validUntil = a.Status.ValidUntil.Time
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.versions = append(h.versions, v)
}

// find returns the first version since a moment whose condition, "Attached=False/EvidenceMissing", says all of that. What else must
// be so in it may be nil.
func (h *history) find(since time.Time, sees string, so func(said) bool, says ...string) (said, bool) {
	kind, want, _ := strings.Cut(sees, "=")
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, v := range h.versions {
		c := v.conditions[kind]
		if v.at.Before(since) || string(c.Status)+"/"+c.Reason != want {
			continue
		}
		if so != nil && !so(v) {
			continue
		}
		if !slices.ContainsFunc(says, func(part string) bool { return !strings.Contains(c.Message, part) }) {
			return v, true
		}
	}
	return said{}, false
}
