// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package dpfsim

import (
	"context"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"maps"
	"sync"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

const (
	kubeletTick    = 100 * time.Millisecond
	kubeletCall    = 10 * time.Second
	leaseNamespace = "kube-node-lease"
	kubeletWriters = 8
)

// kubeletState is what the loop has last made of one DPU.
type kubeletState struct {
	node       corev1.ConditionStatus // of the Node's condition Ready; "" without Node
	ovsHealthy corev1.ConditionStatus
	bootID     string
	starts     int
	marked     bool // the agent has written its annotations since the boot
	installing string
	installs   int       // whose Node is gone
	renewed    time.Time // of the lease
	lastAlive  time.Time
}

// kubelets plays the kubelet, the problem detector and the start of the OVN VPC agent on every DPU, and the controller that
// marks silent Nodes, until ctx ends.
func (f *Fabric) kubelets(ctx context.Context) error {
	states := map[string]*kubeletState{}
	tick := func(ctx context.Context) (bool, error) {
		names := f.hardware.names()
		for _, name := range names {
			if states[name] == nil {
				states[name] = &kubeletState{}
			}
		}
		work := make(chan string)
		var writers sync.WaitGroup
		for range min(kubeletWriters, len(names)) {
			writers.Go(func() {
				for name := range work {
					if err := f.kubelet(ctx, name, states[name]); err != nil && ctx.Err() == nil {
						f.log.Error(err, "kubelet", "dpu", name)
					}
				}
			})
		}
		for _, name := range names {
			work <- name
		}
		close(work)
		writers.Wait()
		f.plane.sync()
		return false, nil
	}
	return ignoreStopped(wait.PollUntilContextCancel(ctx, kubeletTick, true, tick))
}

func (f *Fabric) kubelet(ctx context.Context, name string, state *kubeletState) error {
	ctx, cancel := context.WithTimeout(ctx, kubeletCall)
	defer cancel()
	c, ok := f.hardware.get(name)
	if !ok {
		return nil
	}
	if err := f.follow(ctx, name); err != nil {
		return err
	}
	if c.installing != state.installing {
		state.installing = c.installing
		f.lookAt(ctx, name)
	}
	if c.installs != state.installs || c.installing != "" && state.node != "" {
		return f.removeNode(ctx, c, state)
	}
	if c.installing != "" {
		return nil
	}
	now := f.clock.Now()
	if !f.hardware.running(name) || f.faults.has(NodeNotReady, name) {
		if state.node == corev1.ConditionTrue && now.Sub(state.lastAlive) >= f.options.Timing.NodeGrace {
			return f.nodeSilent(ctx, name, state)
		}
		return nil
	}
	state.lastAlive = now
	ovs := corev1.ConditionTrue
	if f.faults.has(OVSProblem, name) {
		ovs = corev1.ConditionFalse
	}
	started := state.bootID != c.bootID || state.starts != c.starts
	if c.nodeless && !started {
		return nil // a kubelet registers its Node when it starts, and never again
	}
	if started || state.node != corev1.ConditionTrue || state.ovsHealthy != ovs {
		uid, err := f.nodeReady(ctx, c, ovs)
		if err != nil {
			return err
		}
		first := state.node == "" || c.nodeless
		state.marked = state.marked && !started
		state.node, state.bootID, state.starts, state.ovsHealthy = corev1.ConditionTrue, c.bootID, c.starts, ovs
		f.hardware.change(name, func(c *card) { c.nodeless, c.settled, c.nodeUID = false, false, uid })
		if first {
			f.lookAt(ctx, name)
		}
	}
	if !state.marked && !f.faults.has(AgentDown, name) {
		if err := f.agentStarts(ctx, name); err != nil {
			return err
		}
		state.marked = true
	}
	if now.Sub(state.renewed) >= f.options.Timing.Heartbeat {
		if err := f.renewLease(ctx, name); err != nil {
			return err
		}
		state.renewed = now
	}
	return nil
}

// lookAt has the DPU controller look at a DPU.
func (f *Fabric) lookAt(ctx context.Context, name string) {
	f.poke(ctx, f.wake, kindDPU, f.options.Namespace+"/"+name)
}

// removeNode takes the Node away, as DPF does when it reinstalls a DPU.
// unsure: when exactly DPF does; here at once.
func (f *Fabric) removeNode(ctx context.Context, c card, state *kubeletState) error {
	if err := f.deleteNode(ctx, c.Name); err != nil {
		return err
	}
	lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: leaseNamespace, Name: c.Name}}
	if err := client.IgnoreNotFound(f.dpuCluster.Delete(ctx, lease)); err != nil {
		return fmt.Errorf("delete lease: %w", err)
	}
	*state = kubeletState{installing: state.installing, installs: c.installs}
	return nil
}

// deleteNode takes the Node's object away, and with it what the cluster runs there.
// unsure: whether anything is left of OVN's flows then; here the OVN controller lives on and obeys its database.
func (f *Fabric) deleteNode(ctx context.Context, name string) error {
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}
	f.hardware.change(name, func(c *card) { c.nodeless = true })
	if err := client.IgnoreNotFound(f.dpuCluster.Delete(ctx, node)); err != nil {
		return fmt.Errorf("delete Node %s: %w", name, err)
	}
	return nil
}

// nodeReady registers the Node if it is not there and reports it healthy.
func (f *Fabric) nodeReady(ctx context.Context, c card, ovs corev1.ConditionStatus) (types.UID, error) {
	node := &corev1.Node{}
	err := f.dpuCluster.Get(ctx, client.ObjectKey{Name: c.Name}, node)
	if apierrors.IsNotFound(err) {
		node = f.newNode(c)
		err = f.dpuCluster.Create(ctx, node)
	}
	if err != nil {
		return "", fmt.Errorf("register Node: %w", err)
	}
	before := node.DeepCopy()
	now := metav1.Time{Time: f.clock.Now()}
	setNodeCondition(node, corev1.NodeReady, corev1.ConditionTrue, "KubeletReady", now)
	for _, pressure := range []corev1.NodeConditionType{corev1.NodeMemoryPressure, corev1.NodeDiskPressure, corev1.NodePIDPressure} {
		setNodeCondition(node, pressure, corev1.ConditionFalse, "KubeletHasNoPressure", now)
	}
	for _, healthy := range []corev1.NodeConditionType{"DPUModeCorrect", "SRIOVHealthy", "UplinkHealthy", "OVSvSwitchdHealthy", "OVSDBHealthy", "MTUConfigured"} {
		setNodeCondition(node, healthy, corev1.ConditionTrue, "Healthy", now)
	}
	setNodeCondition(node, "OVSHealthy", ovs, map[corev1.ConditionStatus]string{corev1.ConditionTrue: "Healthy", corev1.ConditionFalse: "OVSDegraded"}[ovs], now)
	node.Status.NodeInfo = corev1.NodeSystemInfo{
		BootID: c.bootID, MachineID: c.Serial, SystemUUID: c.Serial, Architecture: "arm64", OperatingSystem: "linux",
		OSImage: "Ubuntu 24.04 LTS", KernelVersion: "6.8.0-bluefield", KubeletVersion: "v1.34.1", ContainerRuntimeVersion: "containerd://2.1.4",
	}
	if err := f.dpuCluster.Status().Patch(ctx, node, client.StrategicMergeFrom(before)); err != nil {
		return "", fmt.Errorf("report Node Ready: %w", err)
	}
	return node.UID, nil
}

// newNode is what a kubelet registers. A card seeded as Ready has had its labels from DPF already; any other gets them later.
func (f *Fabric) newNode(c card) *corev1.Node {
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: c.Name, Labels: map[string]string{
		corev1.LabelHostname: c.Name, corev1.LabelArchStable: "arm64", corev1.LabelOSStable: "linux",
	}}}
	if c.settled {
		applied := f.ownLabels(c.DPU)
		maps.Copy(applied, c.TemplateLabels)
		maps.Copy(node.Labels, applied)
		node.Annotations = map[string]string{annotationLastApplied: record(applied)}
	}
	if c.ForeignVPC != "" {
		node.Labels[claimLabel] = claimValue(c.ForeignVPC)
	}
	return node
}

// agentStarts is what the OVN VPC agent does first: say where the DPU is in OVN.
func (f *Fabric) agentStarts(ctx context.Context, name string) error {
	node := &corev1.Node{}
	if err := f.dpuCluster.Get(ctx, client.ObjectKey{Name: name}, node); err != nil {
		return fmt.Errorf("agent: get Node: %w", err)
	}
	if err := annotate(ctx, f.dpuCluster, node, agentAnnotations(name)); err != nil {
		return fmt.Errorf("agent: annotate Node: %w", err)
	}
	return nil
}

// nodeSilent is what the control plane makes of a Node whose kubelet says nothing.
func (f *Fabric) nodeSilent(ctx context.Context, name string, state *kubeletState) error {
	node := &corev1.Node{}
	if err := f.dpuCluster.Get(ctx, client.ObjectKey{Name: name}, node); err != nil {
		return client.IgnoreNotFound(err)
	}
	before := node.DeepCopy()
	setNodeCondition(node, corev1.NodeReady, corev1.ConditionUnknown, "NodeStatusUnknown", metav1.Time{Time: f.clock.Now()})
	if err := f.dpuCluster.Status().Patch(ctx, node, client.StrategicMergeFrom(before)); err != nil {
		return fmt.Errorf("report Node silent: %w", err)
	}
	state.node = corev1.ConditionUnknown
	return nil
}

func (f *Fabric) renewLease(ctx context.Context, name string) error {
	now := metav1.MicroTime{Time: f.clock.Now()}
	spec := coordinationv1.LeaseSpec{HolderIdentity: &name, LeaseDurationSeconds: ptr.To[int32](40), RenewTime: &now}
	lease := &coordinationv1.Lease{}
	err := f.dpuCluster.Get(ctx, client.ObjectKey{Namespace: leaseNamespace, Name: name}, lease)
	switch {
	case apierrors.IsNotFound(err):
		lease = &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: leaseNamespace, Name: name}, Spec: spec}
		// The first DPUs may be faster than the API server is with this namespace.
		if err := create(ctx, f.dpuCluster, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: leaseNamespace}}); err != nil {
			return err
		}
		err = f.dpuCluster.Create(ctx, lease)
	case err == nil:
		lease.Spec = spec
		err = f.dpuCluster.Update(ctx, lease)
	}
	if err != nil {
		return fmt.Errorf("renew lease: %w", err)
	}
	return nil
}

func setNodeCondition(node *corev1.Node, t corev1.NodeConditionType, status corev1.ConditionStatus, reason string, now metav1.Time) {
	for i := range node.Status.Conditions {
		c := &node.Status.Conditions[i]
		if c.Type != t {
			continue
		}
		if c.Status != status {
			c.LastTransitionTime = now
		}
		c.Status, c.Reason, c.LastHeartbeatTime = status, reason, now
		return
	}
	node.Status.Conditions = append(node.Status.Conditions, corev1.NodeCondition{
		Type: t, Status: status, Reason: reason, LastHeartbeatTime: now, LastTransitionTime: now,
	})
}

// agentAnnotations are what the OVN VPC agent writes on its Node when it starts.
func agentAnnotations(name string) map[string]string {
	hash := fnv.New32a()
	_, _ = hash.Write([]byte(name))
	sum := hash.Sum32()
	host := fmt.Sprintf("%d.%d", byte(sum>>8), byte(sum)|1)
	value := func(v any) string {
		data, err := json.Marshal(v)
		if err != nil {
			return ""
		}
		return string(data)
	}
	return map[string]string{
		annotationVTEP:    value(map[string]string{"ipv4": "198.18." + host + "/16"}),
		annotationChassis: name,
		annotationGateway: value(map[string]any{
			"gateway-ip":            map[string]string{"ipv4": "198.19." + host + "/16"},
			"gateway-interface-mac": fmt.Sprintf("0a:58:%02x:%02x:%02x:%02x", byte(sum>>24), byte(sum>>16), byte(sum>>8), byte(sum)),
			"nexthop":               map[string]string{"ipv4": "198.19.0.1"},
		}),
	}
}
