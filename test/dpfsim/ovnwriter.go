// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package dpfsim

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// ovnCall bounds one change to OVN. A big deployment takes its time.
const ovnCall = 20 * time.Second

// northbound runs a write of the northbound database, where there is one.
func (f *Fabric) northbound(ctx context.Context, write func(context.Context, OVN) error) error {
	if f.options.OVN == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, ovnCall)
	defer cancel()
	if err := write(ctx, f.options.OVN); err != nil {
		return fmt.Errorf("northbound database: %w", err)
	}
	return nil
}

func (f *Fabric) ensureNetwork(ctx context.Context, network *unstructured.Unstructured) error {
	return f.northbound(ctx, func(ctx context.Context, ovn OVN) error {
		written, err := ovnNetwork(network)
		if err != nil {
			return err
		}
		return ovn.EnsureNetwork(ctx, written)
	})
}

func (f *Fabric) ensureVPC(ctx context.Context, vpc *unstructured.Unstructured, spec vpcSpec, networks []*unstructured.Unstructured, nodes []*corev1.Node) error {
	return f.northbound(ctx, func(ctx context.Context, ovn OVN) error {
		written := OVNVPC{Namespace: vpc.GetNamespace(), Name: vpc.GetName(), InterNetworkAccess: spec.InterNetworkAccess}
		for _, network := range networks {
			n, err := ovnNetwork(network)
			if err != nil {
				return err
			}
			written.Networks = append(written.Networks, n)
		}
		for _, node := range nodes {
			n, err := ovnNode(node)
			if err != nil {
				return err
			}
			written.Nodes = append(written.Nodes, n)
		}
		return ovn.EnsureVPC(ctx, written)
	})
}

// connectPort puts a logical port, and says whether its address is still to come.
func (f *Fabric) connectPort(ctx context.Context, si *unstructured.Unstructured, node *corev1.Node, port logicalPort, pool *addressPool) (pending bool, err error) {
	id := interfaceID(si.GetNamespace(), si.GetName())
	if f.options.OVN == nil {
		f.plane.addLogical(id, port, pool)
		return false, nil
	}
	err = f.northbound(ctx, func(ctx context.Context, ovn OVN) error {
		join, err := joinAddress(node)
		if err != nil {
			return err
		}
		port.address, err = ovn.EnsurePort(ctx, OVNPort{
			ID: id, Namespace: si.GetNamespace(), VPC: port.network.VPC, Network: port.network.Name, ServiceInterface: si.GetName(),
			Node: port.node, MAC: port.mac, DHCP: pool != nil, ExternallyRouted: port.network.ExternallyRouted, Join: join,
		})
		return err
	})
	if err != nil {
		return false, err
	}
	f.plane.addLogical(id, port, nil)
	return pool != nil && port.mac != "unknown" && !port.address.IsValid(), nil
}

func (f *Fabric) disconnectPort(ctx context.Context, id string) error {
	err := f.northbound(ctx, func(ctx context.Context, ovn OVN) error { return ovn.RemovePort(ctx, id) })
	if err == nil {
		f.plane.dropLogical(id)
	}
	return err
}

// loseNorthbound empties the database and what is known of it.
func (f *Fabric) loseNorthbound(ctx context.Context) error {
	err := f.northbound(ctx, func(ctx context.Context, ovn OVN) error { return ovn.LoseNorthbound(ctx) })
	if err == nil {
		f.plane.loseNorthbound()
	}
	return err
}

// ovnNetwork reads a DPUVirtualNetwork.
func ovnNetwork(object *unstructured.Unstructured) (OVNNetwork, error) {
	spec, err := readSpec[virtualNetworkSpec](object)
	if err != nil {
		return OVNNetwork{}, err
	}
	network, pool, err := networkOf(object.GetNamespace(), object.GetName(), spec)
	if err != nil {
		return OVNNetwork{}, err
	}
	written := OVNNetwork{Network: network, DHCP: pool != nil, Masquerade: spec.Masquerade == nil || *spec.Masquerade}
	if pool != nil {
		for _, r := range pool.excluded {
			written.Excluded = append(written.Excluded, OVNRange{First: r.first, Last: r.last})
		}
	}
	written.Join, err = joinAddress(object)
	return written, err
}

// joinAddress is where the router of a Node or of a network is in the join network of its VPC.
func joinAddress(object client.Object) (netip.Prefix, error) {
	prefix, err := addressIn(object.GetAnnotations()[annotationLRP])
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("%s: annotation %s: %w", object.GetName(), annotationLRP, err)
	}
	return prefix, nil
}

func addressIn(annotation string) (netip.Prefix, error) {
	var address struct {
		IPv4 netip.Prefix `json:"ipv4"`
	}
	if err := json.Unmarshal([]byte(annotation), &address); err != nil {
		return netip.Prefix{}, err
	}
	return address.IPv4, nil
}

// ovnNode reads what the agent wrote on its Node.
func ovnNode(node *corev1.Node) (OVNNode, error) {
	var gateway struct {
		IP struct {
			IPv4 netip.Prefix `json:"ipv4"`
		} `json:"gateway-ip"`
		MAC     string `json:"gateway-interface-mac"`
		NextHop struct {
			IPv4 netip.Addr `json:"ipv4"`
		} `json:"nexthop"`
	}
	join, joinErr := joinAddress(node)
	err := json.Unmarshal([]byte(node.Annotations[annotationGateway]), &gateway)
	if err = errors.Join(joinErr, err); err != nil {
		return OVNNode{}, fmt.Errorf("node %s: %w", node.Name, err)
	}
	return OVNNode{Name: node.Name, Join: join, Gateway: gateway.IP.IPv4, GatewayMAC: gateway.MAC, NextHop: gateway.NextHop.IPv4}, nil
}
