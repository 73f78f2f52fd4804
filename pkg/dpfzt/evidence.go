// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package dpfzt

import (
	"context"
	"errors"
	"fmt"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/provisioningv1alpha1"
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

// ClusterState is everything of a DPU cluster that evidence is made of, read at once for many DPUs. It is shared: nothing in it
// is to be changed.
type ClusterState struct {
	started    time.Time
	err        error
	all        []svcv1alpha1.ServiceInterface
	nodes      map[string]*corev1.Node
	leases     map[string]*coordinationv1.Lease
	interfaces map[string][]svcv1alpha1.ServiceInterface
}

// Started is when the reading started: what is said in it was true then or later.
func (s *ClusterState) Started() time.Time { return s.started }

// Err is why the DPU cluster could not be read; nil if it was.
func (s *ClusterState) Err() error { return s.err }

// Interfaces are all ServiceInterfaces of a namespace, in no order. They are not to be changed.
func (s *ClusterState) Interfaces(namespace string) []*svcv1alpha1.ServiceInterface {
	var found []*svcv1alpha1.ServiceInterface
	for i := range s.all {
		if s.all[i].Namespace == namespace {
			found = append(found, &s.all[i])
		}
	}
	return found
}

// read reads the interfaces before the Nodes, and those before their leases: only then does a Node that lives say that its
// agents saw an interface go.
func (s *ClusterState) read(ctx context.Context, reader client.Reader) error {
	interfaces := &svcv1alpha1.ServiceInterfaceList{}
	if err := reader.List(ctx, interfaces); err != nil {
		return fmt.Errorf("list ServiceInterfaces: %w", err)
	}
	s.all = interfaces.Items
	s.nodes, s.leases = map[string]*corev1.Node{}, map[string]*coordinationv1.Lease{}
	s.interfaces = map[string][]svcv1alpha1.ServiceInterface{}
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

// Has reports whether the DPU cluster was read and has a Node of that name.
func (s *ClusterState) Has(node string) bool { return s != nil && s.err == nil && s.nodes[node] != nil }

// Alive says whether a Node of the cluster is Ready and its kubelet has renewed its lease lately.
func (s *ClusterState) Alive(node string, now time.Time) vpc.Finding {
	dpu := &provisioningv1alpha1.DPU{ObjectMeta: metav1.ObjectMeta{Name: node}}
	return s.Evidence(Member{DPU: dpu}, LabelsOnDPU).Alive(now)
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
