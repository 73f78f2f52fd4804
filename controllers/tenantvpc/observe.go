// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package tenantvpc

import (
	"context"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/internal/scope"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/provisioningv1alpha1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/svcv1alpha1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/vpcv1alpha1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/vpc"
)

// observation is all that a plan is made from, read in this pass.
type observation struct {
	tenant *infrav1.TenantVPC
	place  vpc.Place
	fabric *infrav1.DPUFabric
	// allowed says whether the fabric admits the namespace; if not, nothing new is made.
	allowed bool

	// vpc is the DPUVPC of the TenantVPC's name, whoever made it; nil when there is none.
	vpc *vpcv1alpha1.DPUVPC
	// networks and interfaces are all in DPF's namespace, whoever made them.
	networks   []vpcv1alpha1.DPUVirtualNetwork
	interfaces []svcv1alpha1.DPUServiceInterface

	// attachments are those of the TenantVPC.
	attachments []infrav1.DPUAttachment
	// ports are in DPF's namespace of every DPU cluster, on whatever network; portsUnknown says why they could not be read.
	ports        []port
	portsUnknown error
	// began is when the pass began; shared says that ports were read before.
	began  time.Time
	shared bool
}

// port is a ServiceInterface in a DPU cluster; set is the DPUServiceInterface it comes from.
type port struct{ name, node, network, set string }

// observe reads everything. Unless it is to be fresh, ports may have been read for others shortly before.
func (r *Reconciler) observe(ctx context.Context, tenant *infrav1.TenantVPC, fresh bool) (*scope.Fabric, *observation, error) {
	fabric, err := r.Fabrics.Get(ctx, tenant.Spec.FabricName)
	if err != nil {
		return nil, nil, err
	}
	seen := &observation{tenant: tenant, fabric: fabric.Object, place: vpc.PlaceOf(r.Installation, fabric.Object), began: r.Clock.Now()}
	seen.allowed, err = scope.NamespaceAllowed(ctx, r.Client, fabric.Object.Spec.AllowedNamespaces, tenant.Namespace)
	if err != nil {
		return nil, nil, fmt.Errorf("DPUFabric %s: %w", fabric.Object.Name, err)
	}
	if err := r.observeAttachments(ctx, seen); err != nil {
		return nil, nil, err
	}
	if err := observeDPF(ctx, fabric, seen); err != nil {
		return nil, nil, err
	}
	notBefore := seen.began
	if !fresh {
		notBefore = notBefore.Add(-dpfzt.UnwatchedMaxAge)
		if r.Watches.CoversAll(fabric.Object.Name) {
			notBefore = seen.began.Add(-dpfzt.SteadyMaxAge)
		}
		if woken := r.Watches.TenantWokenAt(client.ObjectKeyFromObject(tenant)); woken.After(notBefore) {
			notBefore = woken
		}
	}
	seen.ports, seen.portsUnknown = r.observePorts(ctx, fabric, seen, notBefore)
	return fabric, seen, nil
}

func (r *Reconciler) observeAttachments(ctx context.Context, seen *observation) error {
	list := &infrav1.DPUAttachmentList{}
	if err := r.APIReader.List(ctx, list, client.InNamespace(seen.tenant.Namespace)); err != nil {
		return fmt.Errorf("list DPUAttachments in namespace %s: %w", seen.tenant.Namespace, err)
	}
	for i := range list.Items {
		if list.Items[i].Spec.VPCName == seen.tenant.Name {
			seen.attachments = append(seen.attachments, list.Items[i])
		}
	}
	return nil
}

func observeDPF(ctx context.Context, fabric *scope.Fabric, seen *observation) error {
	name := fabric.Object.Name
	dpuVPC := &vpcv1alpha1.DPUVPC{}
	key := client.ObjectKey{Namespace: seen.place.Namespace, Name: seen.place.VPCName(seen.tenant)}
	switch err := fabric.DPF.Get(ctx, key, dpuVPC); {
	case err == nil:
		seen.vpc = dpuVPC
	case !apierrors.IsNotFound(err):
		return scope.FabricError(name, "get DPUVPC "+key.String(), err)
	}

	networks := &vpcv1alpha1.DPUVirtualNetworkList{}
	if err := fabric.DPF.List(ctx, networks, client.InNamespace(seen.place.Namespace)); err != nil {
		return scope.FabricError(name, "list DPUVirtualNetworks", err)
	}
	interfaces := &svcv1alpha1.DPUServiceInterfaceList{}
	if err := fabric.DPF.List(ctx, interfaces, client.InNamespace(seen.place.Namespace)); err != nil {
		return scope.FabricError(name, "list DPUServiceInterfaces", err)
	}
	seen.networks, seen.interfaces = networks.Items, interfaces.Items
	return nil
}

// observePorts reads every DPU cluster, side by side: a port counts wherever it is.
func (r *Reconciler) observePorts(ctx context.Context, fabric *scope.Fabric, seen *observation, notBefore time.Time) ([]port, error) {
	clusters := &provisioningv1alpha1.DPUClusterList{}
	if err := fabric.DPF.List(ctx, clusters); err != nil {
		return nil, scope.FabricError(fabric.Object.Name, "list DPUClusters", err)
	}
	var keys []types.NamespacedName
	for i := range clusters.Items {
		cluster := &clusters.Items[i]
		if cluster.Spec.Kubeconfig == "" && (cluster.Status.Phase == provisioningv1alpha1.DPUClusterPhasePending ||
			cluster.Status.Phase == provisioningv1alpha1.DPUClusterPhaseCreating) {
			continue // It has no API server yet, and so no port.
		}
		keys = append(keys, client.ObjectKeyFromObject(cluster))
	}
	var ports []port
	states := r.Readings.States(ctx, fabric.Object.Name, fabric.DPUCluster, keys, notBefore)
	for _, key := range keys {
		state := states[key]
		if err := state.Err(); err != nil {
			return nil, scope.FabricError(fabric.Object.Name, "read DPUCluster "+key.String(), err)
		}
		seen.shared = seen.shared || state.Started().Before(seen.began)
		for _, found := range state.Interfaces(fabric.Namespace()) {
			ports = append(ports, port{
				name: found.Name, node: ptr.Deref(found.Spec.Node, ""), network: dpfzt.NetworkOf(&found.Spec),
				set: found.Labels[svcv1alpha1.SetNameLabel],
			})
		}
	}
	return ports, nil
}

// networkOf is the network an interface is on, or empty.
func networkOf(spec *svcv1alpha1.InterfaceSpec) string { return dpfzt.NetworkOf(spec) }
