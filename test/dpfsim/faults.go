// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package dpfsim

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// FaultKind is something that goes wrong.
type FaultKind string

const (
	// AgentDown kills or hangs the OVN VPC agent on DPU Target; its kubelet and OVN controller live on.
	AgentDown FaultKind = "AgentDown"
	// AgentForgetsPort makes the agent on DPU Target drop its finalizer without finding the port to unplug.
	AgentForgetsPort FaultKind = "AgentForgetsPort"
	// OVNControllerHung freezes what OVN does on DPU Target: ports carry traffic as they did.
	OVNControllerHung FaultKind = "OVNControllerHung"
	// NodeNotReady silences the kubelet of DPU Target, nothing else.
	NodeNotReady FaultKind = "NodeNotReady"
	// OVSProblem makes the problem detector of DPU Target report OVSHealthy False.
	OVSProblem FaultKind = "OVSProblem"
	// WrongMAC makes the agent on DPU Target take Value for the MAC address of every port.
	WrongMAC FaultKind = "WrongMAC"
	// Reprovision reinstalls DPU Target; the installation ends, with a new Node, when the fault is removed.
	Reprovision FaultKind = "Reprovision"
	// ControllerStalled stops the controller Target (see the Controller constants).
	ControllerStalled FaultKind = "ControllerStalled"
	// DPUClusterUnreachable keeps DPF's management side from the DPU cluster, which stalls every DPUServiceInterface.
	DPUClusterUnreachable FaultKind = "DPUClusterUnreachable"
	// NorthboundLost empties OVN's Northbound database once; the objects go on saying what they said.
	NorthboundLost FaultKind = "NorthboundLost"
	// VPCClaim makes VPC Value ("namespace/name", of somebody else) select the Node of DPU Target, too.
	VPCClaim FaultKind = "VPCClaim"
	// Relabel changes a label on the Node of DPU Target behind DPF's back: Value is "key=value", or "key-" to remove it.
	// Removing the fault does not undo it.
	Relabel FaultKind = "Relabel"
)

// Controllers that can be stalled.
const (
	ControllerDPU                 = "dpu"
	ControllerDPUServiceInterface = "dpuserviceinterface"
	ControllerServiceInterfaceSet = "serviceinterfaceset"
	ControllerVPC                 = "dpuvpc"
	ControllerVirtualNetwork      = "dpuvirtualnetwork"
	ControllerServiceInterface    = "vpc-ovn-controller"
	ControllerCredentials         = "dpuservicecredentialrequest"
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
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	var err error
	switch fault.Kind {
	case NorthboundLost:
		f.plane.loseNorthbound()
	case Reprovision:
		f.hardware.setInstalling(fault.Target, phaseInstalling)
		f.plane.wipe(fault.Target)
	case VPCClaim:
		err = f.claim(ctx, fault.Target, fault.Value)
	case Relabel:
		err = f.relabel(ctx, fault.Target, fault.Value)
	}
	f.faultFailed(fault, err)
	return func() { f.remove(id, fault) }
}

func (f *Fabric) remove(id int, fault Fault) {
	if !f.faults.drop(id) {
		return
	}
	f.journal.add(Effect{Kind: EffectFault, Change: strings.TrimSpace(fmt.Sprintf("%s %s removed", fault.Kind, fault.Target))})
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	switch fault.Kind {
	case Reprovision:
		f.hardware.setInstalling(fault.Target, "")
	case VPCClaim:
		f.faultFailed(fault, f.relabel(ctx, fault.Target, claimLabel+"-"))
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
