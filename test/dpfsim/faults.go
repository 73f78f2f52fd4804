// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package dpfsim

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
)

// Fault is one thing gone wrong.
type Fault struct {
	Kind FaultKind
	// Target and Value are said with each kind.
	Target, Value string
}

type faultSet struct {
	mu     sync.Mutex
	next   int
	active map[int]Fault
}

func (s *faultSet) add(f Fault) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.active == nil {
		s.active = map[int]Fault{}
	}
	s.next++
	s.active[s.next] = f
	return s.next
}

func (s *faultSet) drop(id int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.active[id]
	delete(s.active, id)
	return ok
}

// find returns the value of an active fault.
func (s *faultSet) find(kind FaultKind, target string) (value string, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.active {
		if f.Kind == kind && f.Target == target {
			return f.Value, true
		}
	}
	return "", false
}

func (s *faultSet) has(kind FaultKind, target string) bool {
	_, ok := s.find(kind, target)
	return ok
}

// claimLabel is how Nodes are put into the VPCs of others.
const claimLabel = "dpfsim.dpucloud.example/claimed-by"

func claimValue(vpc string) string { return strings.ReplaceAll(vpc, "/", ".") }

// Inject puts a fault in and returns what takes it out again, which may be called more than once. What a fault does to
// objects is done before Inject returns; should an API server refuse, the log and the journal say so.
func (f *Fabric) Inject(fault Fault) (remove func()) {
	id := f.faults.add(fault)
	f.journal.add(Effect{Kind: EffectFault, Change: strings.TrimSpace(fmt.Sprintf("%s %s %s", fault.Kind, fault.Target, fault.Value))})
	ctx, cancel := context.WithTimeout(context.Background(), faultCall)
	defer cancel()
	f.faultFailed(fault, f.begin(ctx, fault))
	return func() { f.remove(id, fault) }
}

func (f *Fabric) begin(ctx context.Context, fault Fault) error {
	switch fault.Kind {
	case NorthboundLost:
		return f.loseNorthbound(ctx)
	case Reprovision:
		f.hardware.setInstalling(fault.Target, phaseInstalling)
		return f.wipe(ctx, fault.Target)
	case OVNControllerHung:
		return f.follow(ctx, fault.Target)
	case DPUReboot:
		f.hardware.setRebooting(fault.Target, true)
		err := f.follow(ctx, fault.Target)
		f.plane.sync()
		return err
	case NodeDeleted:
		return f.deleteNode(ctx, fault.Target)
	case DPUReplaced:
		return f.management.Delete(ctx, f.object(kindDPU, fault.Target, nil))
	case ReinstallWanted:
		f.hardware.change(fault.Target, func(c *card) { c.owner = "" })
		f.lookAt(ctx, fault.Target)
	case DPUPhase:
		f.lookAt(ctx, fault.Target)
	case NetworkNotReady:
		f.poke(ctx, f.wakeNetwork, kindVirtualNetwork, fault.Target)
	case VPCNotReady:
		f.poke(ctx, f.wakeVPC, kindVPC, fault.Target)
	case CredentialsRotated:
		return f.rotateCredentials(ctx, fault.Target, fault.Value == "revoke")
	case DPUClusterUnreachable:
		return f.reportDPUCluster(ctx, f.options.DPUClusterName, false)
	case StrayDPUCluster:
		stray := f.object(kindDPUCluster, fault.Target, map[string]any{"type": "static", "kubeconfig": "none", "maxNodes": int64(1)})
		if err := create(ctx, f.management, stray); err != nil {
			return err
		}
		return f.reportDPUCluster(ctx, fault.Target, false)
	case VPCClaim, QuietVPCClaim:
		return f.claim(ctx, fault.Target, fault.Value)
	case Relabel:
		return f.relabel(ctx, fault.Target, fault.Value)
	}
	return nil
}

func (f *Fabric) remove(id int, fault Fault) {
	if !f.faults.drop(id) {
		return
	}
	f.journal.add(Effect{Kind: EffectFault, Change: strings.TrimSpace(fmt.Sprintf("%s %s removed", fault.Kind, fault.Target))})
	ctx, cancel := context.WithTimeout(context.Background(), faultCall)
	defer cancel()
	f.faultFailed(fault, f.end(ctx, fault))
}

func (f *Fabric) end(ctx context.Context, fault Fault) error {
	switch fault.Kind {
	case Reprovision:
		f.hardware.setInstalling(fault.Target, "")
	case DPUReboot:
		f.hardware.setRebooting(fault.Target, false)
	case OVNControllerHung:
		return f.follow(ctx, fault.Target)
	case NodeDeleted:
		f.hardware.change(fault.Target, func(c *card) { c.starts++ })
	case ReinstallWanted:
		return f.withdrawReinstall(ctx, fault.Target)
	case DPUPhase:
		f.lookAt(ctx, fault.Target)
	case NetworkNotReady:
		f.poke(ctx, f.wakeNetwork, kindVirtualNetwork, fault.Target)
	case VPCNotReady:
		f.poke(ctx, f.wakeVPC, kindVPC, fault.Target)
	case DPUClusterUnreachable:
		return f.reportDPUCluster(ctx, f.options.DPUClusterName, true)
	case StrayDPUCluster:
		return client.IgnoreNotFound(f.management.Delete(ctx, f.object(kindDPUCluster, fault.Target, nil)))
	case VPCClaim, QuietVPCClaim:
		return f.relabel(ctx, fault.Target, claimLabel+"-")
	}
	return nil
}

// withdrawReinstall lets a card go on with what it has, if DPF has not begun to install it.
func (f *Fabric) withdrawReinstall(ctx context.Context, name string) error {
	dpu := newObject(kindDPU)
	if err := f.management.Get(ctx, client.ObjectKey{Namespace: f.options.Namespace, Name: name}, dpu); err != nil {
		return err
	}
	withdrawn := false
	f.hardware.change(name, func(c *card) {
		if withdrawn = c.owner == ""; withdrawn {
			c.owner = dpu.GetUID()
		}
	})
	if !withdrawn {
		return nil
	}
	c, _ := f.hardware.get(name)
	err := f.management.Delete(ctx, f.object(kindDPUNodeMaintenance, maintenanceName(c.Node), nil))
	r := newReport(f.clock, dpu)
	setPhase(r, phaseReady, "")
	return errors.Join(client.IgnoreNotFound(err), r.write(ctx, f.management), f.reportServer(ctx, c.Node, true))
}

// reportDPUCluster says whether a DPUCluster answers.
func (f *Fabric) reportDPUCluster(ctx context.Context, name string, answers bool) error {
	object := newObject(kindDPUCluster)
	if err := f.management.Get(ctx, client.ObjectKey{Namespace: f.options.Namespace, Name: name}, object); err != nil {
		return err
	}
	r := newReport(f.clock, object)
	r.set(map[bool]string{true: "Ready", false: "NotReady"}[answers], "phase")
	r.condition("Ready", answers, map[bool]string{true: reasonSuccess, false: reasonError}[answers], "")
	return r.write(ctx, f.management)
}

const (
	faultCall = 30 * time.Second
	// pokeWait is for controllers that are being restarted, which look at everything anyway.
	pokeWait = 5 * time.Second
)

// poke has a controller look at an object, "namespace/name".
func (f *Fabric) poke(ctx context.Context, controller chan event.GenericEvent, kind schema.GroupVersionKind, target string) {
	object := newObject(kind)
	namespace, name, _ := strings.Cut(target, "/")
	object.SetNamespace(namespace)
	object.SetName(name)
	ctx, cancel := context.WithTimeout(ctx, pokeWait)
	defer cancel()
	select {
	case controller <- event.GenericEvent{Object: object}:
	case <-ctx.Done():
	}
}

func (f *Fabric) faultFailed(fault Fault, err error) {
	if err != nil {
		f.log.Error(err, "fault has not taken place", "kind", fault.Kind, "target", fault.Target)
		f.journal.add(Effect{Kind: EffectFault, Change: fmt.Sprintf("%s %s failed: %v", fault.Kind, fault.Target, err)})
	}
}

// claim lets somebody else's VPC, made if need be, select a Node.
func (f *Fabric) claim(ctx context.Context, dpu, vpc string) error {
	if err := f.ensureForeignVPC(ctx, vpc); err != nil {
		return err
	}
	return f.relabel(ctx, dpu, claimLabel+"="+claimValue(vpc))
}

func (f *Fabric) relabel(ctx context.Context, node, change string) error {
	before := &corev1.Node{}
	if err := f.dpuCluster.Get(ctx, client.ObjectKey{Name: node}, before); err != nil {
		return err
	}
	after := before.DeepCopy()
	if after.Labels == nil {
		after.Labels = map[string]string{}
	}
	if key, gone := strings.CutSuffix(change, "-"); gone {
		delete(after.Labels, key)
	} else {
		key, value, _ := strings.Cut(change, "=")
		after.Labels[key] = value
	}
	return f.dpuCluster.Patch(ctx, after, client.MergeFrom(before))
}
