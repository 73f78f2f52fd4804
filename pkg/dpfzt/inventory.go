// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package dpfzt

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/provisioningv1alpha1"
)

// Inventory is what DPF knows of all servers and cards at one moment. One that is shared is not to be changed.
type Inventory struct {
	started time.Time
	nodes   []provisioningv1alpha1.DPUNode
	devices map[string]*provisioningv1alpha1.DPUDevice
	dpus    map[string][]*provisioningv1alpha1.DPU
}

// Started is when the reading started, if Readings made it.
func (i *Inventory) Started() time.Time { return i.started }

// ReadInventory reads all servers and cards.
func ReadInventory(ctx context.Context, reader client.Reader, namespace string) (*Inventory, error) {
	nodes := &provisioningv1alpha1.DPUNodeList{}
	if err := reader.List(ctx, nodes, client.InNamespace(namespace)); err != nil {
		return nil, fmt.Errorf("list DPUNodes: %w", err)
	}
	devices := &provisioningv1alpha1.DPUDeviceList{}
	if err := reader.List(ctx, devices, client.InNamespace(namespace)); err != nil {
		return nil, fmt.Errorf("list DPUDevices: %w", err)
	}
	dpus := &provisioningv1alpha1.DPUList{}
	if err := reader.List(ctx, dpus, client.InNamespace(namespace)); err != nil {
		return nil, fmt.Errorf("list DPUs: %w", err)
	}
	inventory := &Inventory{
		nodes:   nodes.Items,
		devices: make(map[string]*provisioningv1alpha1.DPUDevice, len(devices.Items)),
		dpus:    make(map[string][]*provisioningv1alpha1.DPU, len(dpus.Items)),
	}
	for i := range devices.Items {
		inventory.devices[devices.Items[i].Name] = &devices.Items[i]
	}
	for i := range dpus.Items {
		card := strings.ToLower(dpus.Items[i].Spec.DPUDeviceName)
		inventory.dpus[card] = append(inventory.dpus[card], &dpus.Items[i])
	}
	return inventory, nil
}

// Values are the values of a label of the DPUNodes, in order, without repetition.
func (i *Inventory) Values(labelKey string) []string {
	var values []string
	for n := range i.nodes {
		if value := i.nodes[n].Labels[labelKey]; value != "" {
			values = append(values, value)
		}
	}
	slices.Sort(values)
	return slices.Compact(values)
}

// Server assembles the server whose DPUNodes carry the label with one of the values. Errors are ResolveErrors.
func (i *Inventory) Server(labelKey string, values []string) (Server, error) {
	var nodes []provisioningv1alpha1.DPUNode
	for n := range i.nodes {
		if slices.Contains(values, i.nodes[n].Labels[labelKey]) {
			nodes = append(nodes, i.nodes[n])
		}
	}
	if len(nodes) == 0 {
		return Server{}, resolveError(infrav1.ServerNotMappedReason, "no DPUNode has the label %s=%s", labelKey, values[0])
	}
	return i.assemble(nodes)
}

// assemble follows the references from a server's DPUNodes to its DPUs.
func (i *Inventory) assemble(nodes []provisioningv1alpha1.DPUNode) (Server, error) {
	server := Server{}
	seen := map[string]string{}
	for n := range nodes {
		for _, ref := range nodes[n].Spec.DPUs {
			name := strings.ToLower(ref.Name)
			if other, twice := seen[name]; twice {
				return Server{}, resolveError(infrav1.AmbiguousDPUReason, "DPUDevice %s is listed by DPUNodes %s and %s: it can be in one server only", name, other, nodes[n].Name)
			}
			seen[name] = nodes[n].Name
			device := i.devices[name]
			if device == nil {
				return Server{}, resolveError(infrav1.ServerNotMappedReason, "DPUNode %s lists DPUDevice %s, which does not exist", nodes[n].Name, name)
			}
			member, err := i.member(&nodes[n], device)
			if err != nil {
				return Server{}, err
			}
			server.Members = append(server.Members, member)
		}
	}
	if len(server.Members) == 0 {
		return Server{}, resolveError(infrav1.ServerNotMappedReason, "DPUNode %s lists no DPUDevice", nodes[0].Name)
	}
	server.sort()
	return server, nil
}

func (i *Inventory) member(node *provisioningv1alpha1.DPUNode, device *provisioningv1alpha1.DPUDevice) (Member, error) {
	dpus := i.dpus[device.Name]
	if len(dpus) > 1 {
		return Member{}, resolveError(infrav1.AmbiguousDPUReason, "DPUDevice %s has %d DPUs, %s and %s among them: DPF has not finished replacing one", device.Name, len(dpus), dpus[0].Name, dpus[1].Name)
	}
	member := Member{Node: node, Device: device}
	if len(dpus) == 1 {
		member.DPU = dpus[0]
	}
	return member, nil
}
