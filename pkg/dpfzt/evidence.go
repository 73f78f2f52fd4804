// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package dpfzt

import (
	"context"
	"errors"
	"fmt"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/svcv1alpha1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/vpc"
)

// DPUClusters returns a reader of the DPU cluster behind a DPUCluster object.
type DPUClusters func(ctx context.Context, dpuCluster types.NamespacedName) (client.Reader, error)

// errNotJoined says that a DPU has no DPU cluster yet.
var errNotJoined = errors.New("DPF has not yet joined it to a DPU cluster")

// ClusterKey is the DPUCluster a member has joined; ok is false before.
func (m Member) ClusterKey() (key types.NamespacedName, ok bool) {
	if m.DPU == nil || m.DPU.Spec.Cluster.Name == "" {
		return types.NamespacedName{}, false
	}
	namespace := m.DPU.Spec.Cluster.Namespace
	if namespace == "" {
		namespace = m.DPU.Namespace
	}
	return types.NamespacedName{Namespace: namespace, Name: m.DPU.Spec.Cluster.Name}, true
}

// evidence is what the member's own objects say.
func (m Member) evidence(place LabelPlace) vpc.Evidence {
	return vpc.Evidence{Server: m.Node, Device: m.Device, DPU: m.DPU, Carriers: m.carriers(place)}
}

// ReadEvidence reads what there is to know of one DPU. What cannot be read is said in the evidence, which then proves nothing.
func ReadEvidence(ctx context.Context, clusters DPUClusters, member Member, place LabelPlace) vpc.Evidence {
	evidence := member.evidence(place)
	key, joined := member.ClusterKey()
	if !joined {
		evidence.ClusterError = errNotJoined
		return evidence
	}
	reader, err := clusters(ctx, key)
	if err == nil {
		err = readNode(ctx, reader, member.DPU.Name, &evidence)
	}
	evidence.ClusterError = err
	return evidence
}

// readNode reads the interfaces before the Node: only then does a Node that lives say that its agents saw them go.
func readNode(ctx context.Context, reader client.Reader, name string, evidence *vpc.Evidence) error {
	interfaces := &svcv1alpha1.ServiceInterfaceList{}
	if err := reader.List(ctx, interfaces); err != nil {
		return fmt.Errorf("list ServiceInterfaces: %w", err)
	}
	for i := range interfaces.Items {
		if node := interfaces.Items[i].Spec.Node; node != nil && *node == name {
			evidence.Interfaces = append(evidence.Interfaces, interfaces.Items[i])
		}
	}
	node := &corev1.Node{}
	switch err := reader.Get(ctx, client.ObjectKey{Name: name}, node); {
	case apierrors.IsNotFound(err):
		return nil
	case err != nil:
		return fmt.Errorf("read Node %s: %w", name, err)
	}
	evidence.Node = node
	lease := &coordinationv1.Lease{}
	switch err := reader.Get(ctx, client.ObjectKey{Namespace: corev1.NamespaceNodeLease, Name: name}, lease); {
	case apierrors.IsNotFound(err):
		return nil
	case err != nil:
		return fmt.Errorf("read Lease %s: %w", name, err)
	}
	evidence.Lease = lease
	return nil
}

// ClusterState is everything of a DPU cluster that evidence is made of, read at once for many DPUs.
type ClusterState struct {
	err        error
	nodes      map[string]*corev1.Node
	leases     map[string]*coordinationv1.Lease
	interfaces map[string][]svcv1alpha1.ServiceInterface
}

// ReadClusterState reads a whole DPU cluster. A failure is kept and said in all evidence made of it.
func ReadClusterState(ctx context.Context, clusters DPUClusters, key types.NamespacedName) *ClusterState {
	state := &ClusterState{
		nodes: map[string]*corev1.Node{}, leases: map[string]*coordinationv1.Lease{}, interfaces: map[string][]svcv1alpha1.ServiceInterface{},
	}
	reader, err := clusters(ctx, key)
	if err == nil {
		err = state.read(ctx, reader)
	}
	state.err = err
	return state
}

func (s *ClusterState) read(ctx context.Context, reader client.Reader) error {
	interfaces := &svcv1alpha1.ServiceInterfaceList{}
	if err := reader.List(ctx, interfaces); err != nil {
		return fmt.Errorf("list ServiceInterfaces: %w", err)
	}
	for i := range interfaces.Items {
		if node := interfaces.Items[i].Spec.Node; node != nil {
			s.interfaces[*node] = append(s.interfaces[*node], interfaces.Items[i])
		}
	}
	nodes := &corev1.NodeList{}
	if err := reader.List(ctx, nodes); err != nil {
		return fmt.Errorf("list Nodes: %w", err)
	}
	for i := range nodes.Items {
		s.nodes[nodes.Items[i].Name] = &nodes.Items[i]
	}
	leases := &coordinationv1.LeaseList{}
	if err := reader.List(ctx, leases, client.InNamespace(corev1.NamespaceNodeLease)); err != nil {
		return fmt.Errorf("list Leases of Nodes: %w", err)
	}
	for i := range leases.Items {
		s.leases[leases.Items[i].Name] = &leases.Items[i]
	}
	return nil
}

// Evidence of one member of the cluster.
func (s *ClusterState) Evidence(member Member, place LabelPlace) vpc.Evidence {
	evidence := member.evidence(place)
	switch {
	case member.DPU == nil || s == nil:
		evidence.ClusterError = errNotJoined
	case s.err != nil:
		evidence.ClusterError = s.err
	default:
		evidence.Node, evidence.Lease = s.nodes[member.DPU.Name], s.leases[member.DPU.Name]
		evidence.Interfaces = s.interfaces[member.DPU.Name]
	}
	return evidence
}
