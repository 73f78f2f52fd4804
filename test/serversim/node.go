// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package serversim

import (
	"context"
	"fmt"
	"maps"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/util/retry"
)

const (
	// kubeletAnnotation tells kwok whether to keep a node's status fresh.
	kubeletAnnotation = "serversim/kubelet"
	kubeletRunning    = "running"
	kubeletSilent     = "silent"

	// A report survives that etcd elects a leader and that the balancer notices a dead server.
	reportInterval = 500 * time.Millisecond
	reportTimeout  = 15 * time.Second

	controlPlaneRole = "node-role.kubernetes.io/control-plane"
	// The API server reaches kubelets by this address: tenant addresses exist in no kernel of the lab.
	kubeletHost = "localhost"
)

// registerNode creates the Node as kubelet and kubeadm would, or takes over the one of that name.
func (r *Rack) registerNode(ctx context.Context, s *server, n *node, version string) error {
	registration := n.config.registration()
	labels := registration.labels()
	maps.Copy(labels, map[string]string{corev1.LabelHostname: s.Hostname, corev1.LabelOSStable: "linux", corev1.LabelArchStable: "amd64"})
	taints := registration.Taints
	if n.controlPlane {
		labels[controlPlaneRole] = ""
		labels[corev1.LabelNodeExcludeBalancers] = ""
		if taints == nil { // kubeadm's default; an empty list means none
			taints = []corev1.Taint{{Key: controlPlaneRole, Effect: corev1.TaintEffectNoSchedule}}
		}
	}
	nodes := n.cluster.clients.CoreV1().Nodes()
	_, err := nodes.Create(ctx, &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: n.name, Labels: labels},
		Spec:       corev1.NodeSpec{ProviderID: registration.kubeletArgument("provider-id"), Taints: taints},
	}, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("registering node %s: %w", n.name, err)
	}
	if r.options.KubeletVersion != nil {
		if deployed := r.options.KubeletVersion(s.SystemID); deployed != "" {
			version = deployed
		}
	}
	err = retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		current, err := nodes.Get(ctx, n.name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if want := registration.kubeletArgument("provider-id"); current.Spec.ProviderID != want {
			return fmt.Errorf("a node of that name has provider ID %s", current.Spec.ProviderID)
		}
		current.Status.Capacity, current.Status.Allocatable = s.resources()
		current.Status.Addresses = []corev1.NodeAddress{
			{Type: corev1.NodeInternalIP, Address: n.address.String()},
			{Type: corev1.NodeHostName, Address: s.Hostname},
			{Type: corev1.NodeInternalDNS, Address: kubeletHost},
		}
		current.Status.NodeInfo.KubeletVersion = version
		current.Status.NodeInfo.OperatingSystem, current.Status.NodeInfo.Architecture = "linux", "amd64"
		current.Status.NodeInfo.SystemUUID = s.SystemID
		_, err = nodes.UpdateStatus(ctx, current, metav1.UpdateOptions{})
		return err
	})
	if err != nil {
		return fmt.Errorf("registering node %s: %w", n.name, err)
	}
	if !r.report(ctx, s, n, true) {
		return fmt.Errorf("node %s cannot report", n.name)
	}
	return nil
}

// report writes the node's conditions: what its kubelet says while it runs, and what the cluster concludes from its
// silence. It says whether that succeeded; a Node that somebody has deleted stays deleted.
func (r *Rack) report(ctx context.Context, s *server, n *node, running bool) bool {
	says := kubeletSilent
	if running {
		says = kubeletRunning
	}
	port := n.cluster.kubeletPort
	if m := r.member(n.cluster, s); m != nil {
		port = m.kubelet.port
	}
	nodes := n.cluster.clients.CoreV1().Nodes()
	write := func(ctx context.Context) error {
		current, err := nodes.Get(ctx, n.name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if current.Annotations == nil {
			current.Annotations = map[string]string{}
		}
		current.Annotations[kubeletAnnotation] = says
		if current, err = nodes.Update(ctx, current, metav1.UpdateOptions{}); err != nil {
			return err
		}
		current.Status.DaemonEndpoints.KubeletEndpoint.Port = port
		current.Status.Conditions = r.conditions(running)
		_, err = nodes.UpdateStatus(ctx, current, metav1.UpdateOptions{})
		return err
	}
	var last error
	err := wait.PollUntilContextTimeout(ctx, reportInterval, reportTimeout, true, func(ctx context.Context) (bool, error) {
		last = write(ctx)
		return last == nil || apierrors.IsNotFound(last), nil
	})
	if err != nil && ctx.Err() == nil {
		r.options.Log.Error(last, "reporting for a node", "node", n.name)
	}
	return err == nil && last == nil
}

func (r *Rack) conditions(running bool) []corev1.NodeCondition {
	now := metav1.NewTime(r.options.Clock.Now())
	var conditions []corev1.NodeCondition
	for kind, reason := range map[corev1.NodeConditionType]string{
		corev1.NodeReady: "KubeletReady", corev1.NodeMemoryPressure: "KubeletHasSufficientMemory",
		corev1.NodeDiskPressure: "KubeletHasNoDiskPressure", corev1.NodePIDPressure: "KubeletHasSufficientPID",
	} {
		condition := corev1.NodeCondition{Type: kind, Status: corev1.ConditionFalse, Reason: reason, LastHeartbeatTime: now, LastTransitionTime: now}
		switch {
		case !running:
			condition.Status, condition.Reason, condition.Message = corev1.ConditionUnknown, "NodeStatusUnknown", "Kubelet stopped posting node status."
		case kind == corev1.NodeReady:
			condition.Status = corev1.ConditionTrue
		}
		conditions = append(conditions, condition)
	}
	return conditions
}

const (
	builtInCPUs      = 64
	builtInMemoryMiB = 512 << 10
	// evictionMiB is what a kubelet keeps by default, so that it can evict before the kernel kills.
	evictionMiB = 100
)

// resources are what the kubelet reports of the server, and what of it Pods may use.
// unsure: how much of the memory the kernel and the firmware keep; 2 % here.
func (s Server) resources() (capacity, allocatable corev1.ResourceList) {
	cpus, memory := s.CPUs, int64(s.MemoryMiB)
	if cpus == 0 {
		cpus = builtInCPUs
	}
	if memory == 0 {
		memory = builtInMemoryMiB
	}
	memory -= memory / 50
	with := func(memoryMiB int64) corev1.ResourceList {
		return corev1.ResourceList{
			corev1.ResourceCPU:    *resource.NewQuantity(int64(cpus), resource.DecimalSI),
			corev1.ResourceMemory: *resource.NewQuantity(memoryMiB<<20, resource.BinarySI),
			corev1.ResourcePods:   *resource.NewQuantity(110, resource.DecimalSI),
		}
	}
	return with(memory), with(memory - evictionMiB)
}
