// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package dpfzt

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/provisioningv1alpha1"
)

// Member is one card of a server. References lead from one object to the next; no name is ever computed.
type Member struct {
	Node   *provisioningv1alpha1.DPUNode
	Device *provisioningv1alpha1.DPUDevice
	// DPU is nil while DPF has not made one for the card.
	DPU *provisioningv1alpha1.DPU
}

// Server is a server with its cards, by name of their DPUDevices.
type Server struct {
	Members []Member
}

// ResolveError says why no server, or no single DPU, could be found. It is an answer, not a failure to get one.
type ResolveError struct {
	// Reason is a condition reason of the API.
	Reason  string
	Message string
}

// Error implements error.
func (e *ResolveError) Error() string { return e.Message }

func resolveError(reason, format string, args ...any) error {
	return &ResolveError{Reason: reason, Message: fmt.Sprintf(format, args...)}
}

// Query asks for a server.
type Query struct {
	// Namespace is DPF's.
	Namespace string
	// LabelKey and Values are the label of a DPUNode that stands for the server, and how it may be written.
	LabelKey string
	Values   []string
	// MACs are those of the server's network interfaces. Where no DPUNode carries the label, a card with one of them as PF0
	// leads to the server. Empty where the fabric does not allow that.
	MACs []string
}

// LabelValues are the values of the server label that mean a server. Where a fabric has several sources, a plain system ID
// could mean servers of two.
func LabelValues(fabric *infrav1.DPUFabric, source, systemID string) []string {
	full := infrav1.DPUServerName(source, systemID)
	if len(fabric.Spec.ClaimSources) == 1 {
		return []string{systemID, full}
	}
	return []string{full}
}

// FindServer reads the server. Errors are ResolveErrors where DPF answered.
func FindServer(ctx context.Context, reader client.Reader, query Query) (Server, error) {
	nodes, err := findNodes(ctx, reader, query)
	if err != nil {
		return Server{}, err
	}
	if len(nodes) == 0 {
		return Server{}, resolveError(infrav1.ServerNotMappedReason, "no DPUNode has the label %s=%s: label the DPUNode of this server", query.LabelKey, query.Values[0])
	}
	inventory := Inventory{devices: map[string]*provisioningv1alpha1.DPUDevice{}, dpus: map[string][]*provisioningv1alpha1.DPU{}}
	for i := range nodes {
		for _, ref := range nodes[i].Spec.DPUs {
			if err := inventory.readCard(ctx, reader, query.Namespace, strings.ToLower(ref.Name)); err != nil {
				return Server{}, err
			}
		}
	}
	return inventory.assemble(nodes)
}

// FindCards reads cards by the names of their DPUDevices. Those that are gone are left out.
func FindCards(ctx context.Context, reader client.Reader, namespace string, names []string) (Server, error) {
	inventory := Inventory{devices: map[string]*provisioningv1alpha1.DPUDevice{}, dpus: map[string][]*provisioningv1alpha1.DPU{}}
	server := Server{}
	for _, name := range names {
		if err := inventory.readCard(ctx, reader, namespace, name); err != nil {
			return Server{}, err
		}
		device := inventory.devices[name]
		if device == nil {
			continue
		}
		member, err := inventory.member(nil, device)
		if err != nil {
			return Server{}, err
		}
		server.Members = append(server.Members, member)
	}
	return server, nil
}

func findNodes(ctx context.Context, reader client.Reader, query Query) ([]provisioningv1alpha1.DPUNode, error) {
	requirement, err := labels.NewRequirement(query.LabelKey, selection.In, query.Values)
	if err != nil {
		return nil, resolveError(infrav1.ServerNotMappedReason, "serverLabelKey %s or the system ID cannot be a label: %v", query.LabelKey, err)
	}
	list := &provisioningv1alpha1.DPUNodeList{}
	err = reader.List(ctx, list, client.InNamespace(query.Namespace), client.MatchingLabelsSelector{Selector: labels.NewSelector().Add(*requirement)})
	if err != nil {
		return nil, fmt.Errorf("list DPUNodes of the server: %w", err)
	}
	if len(list.Items) > 0 || len(query.MACs) == 0 {
		return list.Items, nil
	}
	return findNodesByMAC(ctx, reader, query)
}

// findNodesByMAC finds the DPUNodes that list a card whose PF0 is one of the server's interfaces.
func findNodesByMAC(ctx context.Context, reader client.Reader, query Query) ([]provisioningv1alpha1.DPUNode, error) {
	devices := &provisioningv1alpha1.DPUDeviceList{}
	if err := reader.List(ctx, devices, client.InNamespace(query.Namespace)); err != nil {
		return nil, fmt.Errorf("list DPUDevices: %w", err)
	}
	cards, err := cardsByMAC(devices.Items, query.LabelKey, query.MACs)
	if err != nil || len(cards) == 0 {
		return nil, err
	}
	all := &provisioningv1alpha1.DPUNodeList{}
	if err := reader.List(ctx, all, client.InNamespace(query.Namespace)); err != nil {
		return nil, fmt.Errorf("list DPUNodes: %w", err)
	}
	return nodesOfCards(all.Items, query.LabelKey, cards)
}

// readCard reads a DPUDevice and its DPUs.
func (i *Inventory) readCard(ctx context.Context, reader client.Reader, namespace, name string) error {
	device := &provisioningv1alpha1.DPUDevice{}
	switch err := reader.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, device); {
	case apierrors.IsNotFound(err):
		return nil
	case err != nil:
		return fmt.Errorf("read DPUDevice %s: %w", name, err)
	}
	i.devices[name] = device
	dpus := &provisioningv1alpha1.DPUList{}
	err := reader.List(ctx, dpus, client.InNamespace(namespace), client.MatchingLabels{provisioningv1alpha1.DPUDeviceNameLabel: name})
	if err == nil && len(dpus.Items) == 0 {
		// The label is a help, the reference in the spec is what counts.
		err = reader.List(ctx, dpus, client.InNamespace(namespace))
	}
	if err != nil {
		return fmt.Errorf("list DPUs of DPUDevice %s: %w", name, err)
	}
	for n := range dpus.Items {
		if strings.EqualFold(dpus.Items[n].Spec.DPUDeviceName, name) {
			i.dpus[name] = append(i.dpus[name], &dpus.Items[n])
		}
	}
	return nil
}

// Port returns the one card a port is on.
func (s Server) Port(port infrav1.MachinePort) (Member, error) {
	selector := labels.Everything()
	if port.DPUSelector != nil {
		var err error
		if selector, err = metav1.LabelSelectorAsSelector(port.DPUSelector); err != nil {
			return Member{}, resolveError(infrav1.AmbiguousDPUReason, "dpuSelector of port %s: %v", port.Name, err)
		}
	}
	var matching []Member
	names := []string{}
	for _, member := range s.Members {
		names = append(names, member.Device.Name)
		if selector.Matches(labels.Set(member.Device.Labels)) {
			matching = append(matching, member)
		}
	}
	if len(matching) == 1 {
		return matching[0], nil
	}
	slices.Sort(names)
	return Member{}, resolveError(infrav1.AmbiguousDPUReason, "port %s matches %d of the server's DPUDevices (%s): write a dpuSelector that matches exactly one",
		port.Name, len(matching), strings.Join(names, ", "))
}

func (s *Server) sort() {
	slices.SortFunc(s.Members, func(a, b Member) int { return cmp.Compare(a.Device.Name, b.Device.Name) })
}
