// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package scope

import (
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/provisioningv1alpha1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/svcv1alpha1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/vpcv1alpha1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/vpc"
)

// AttachmentServerIndex finds DPUAttachments by the name of their DPUServer; memberIndex finds DPUServers by their cards.
const (
	AttachmentServerIndex = "dpuattachment.server"
	memberIndex           = "dpuserver.member"
)

// AttachmentServer is the indexer of AttachmentServerIndex.
func AttachmentServer(object client.Object) []string {
	attachment, ok := object.(*infrav1.DPUAttachment)
	if !ok {
		return nil
	}
	return []string{infrav1.DPUServerName(attachment.Spec.Server.Source, attachment.Spec.Server.SystemID)}
}

// IndexFabricWatches adds the index that FabricWatches need besides AttachmentServerIndex, which the controller of
// DPUAttachments adds.
func IndexFabricWatches(ctx context.Context, indexer client.FieldIndexer) error {
	err := indexer.IndexField(ctx, &infrav1.DPUServer{}, memberIndex, func(object client.Object) []string {
		server, ok := object.(*infrav1.DPUServer)
		if !ok {
			return nil
		}
		var members []string
		for _, bound := range server.Status.DPUs {
			members = append(members, cardNames{dpu: bound.DPU, device: bound.DPUDevice, node: bound.DPUNode}.keys(server.Spec.FabricName)...)
		}
		return members
	})
	if err != nil {
		return fmt.Errorf("index DPUServers by their cards: %w", err)
	}
	return nil
}

// cardNames are what a card is called: its DPU, which is also its Node in the DPU cluster, its DPUDevice and its DPUNode. Any may
// be unknown.
type cardNames struct{ dpu, device, node string }

func (c cardNames) keys(fabric string) []string {
	var keys []string
	for kind, name := range map[string]string{"dpu": c.dpu, "device": strings.ToLower(c.device), "node": c.node} {
		if name != "" {
			keys = append(keys, fabric+"/"+kind+"/"+name)
		}
	}
	return keys
}

// changed wakes those whom the change of an object concerns; before or after is nil if it did not exist.
func (f *fabricWatch) changed(ctx context.Context, before, after client.Object) {
	present := after
	if present == nil {
		present = before
	}
	switch object := present.(type) {
	case *provisioningv1alpha1.DPU:
		f.wakeCards(ctx, cardNames{dpu: object.Name, device: object.Spec.DPUDeviceName})
	case *provisioningv1alpha1.DPUDevice:
		f.wakeCards(ctx, cardNames{device: object.Name})
	case *provisioningv1alpha1.DPUNode:
		f.wakeServer(ctx, before, after)
		f.wakeCards(ctx, cardNames{node: object.Name})
	case *provisioningv1alpha1.DPUNodeMaintenance:
		f.wakeCards(ctx, cardNames{node: object.Spec.DPUNodeName})
	case *corev1.Node:
		f.wakeCards(ctx, cardNames{dpu: object.Name})
	case *svcv1alpha1.ServiceInterface:
		f.wakeCards(ctx, cardNames{dpu: ptr.Deref(object.Spec.Node, "")})
		if before == nil || after == nil {
			f.wakeNetwork(object)
		}
	case *vpcv1alpha1.DPUVirtualNetwork:
		f.wakeTenant(ctx, present, statusOnly(before, after) && networkReady(before) == networkReady(after))
	case *svcv1alpha1.DPUServiceInterface:
		f.wakeTenant(ctx, present, statusOnly(before, after))
		f.wakeSelected(ctx, before, after, interfaceSelector)
	case *vpcv1alpha1.DPUVPC:
		f.wakeTenant(ctx, present, statusOnly(before, after) && vpcReady(before) == vpcReady(after))
		f.wakeSelected(ctx, before, after, vpcSelector)
	}
}

// statusOnly reports whether nothing but the status of an object changed.
func statusOnly(before, after client.Object) bool {
	if before == nil || after == nil {
		return false
	}
	return before.GetGeneration() == after.GetGeneration() && before.GetUID() == after.GetUID() &&
		before.GetDeletionTimestamp().Equal(after.GetDeletionTimestamp()) &&
		labels.Equals(before.GetLabels(), after.GetLabels()) && labels.Equals(before.GetAnnotations(), after.GetAnnotations())
}

func networkReady(object client.Object) bool {
	network, ok := object.(*vpcv1alpha1.DPUVirtualNetwork)
	return ok && meta.IsStatusConditionTrue(network.Status.Conditions, vpcv1alpha1.ReadyCondition)
}

func vpcReady(object client.Object) bool {
	found, ok := object.(*vpcv1alpha1.DPUVPC)
	return ok && meta.IsStatusConditionTrue(found.Status.Conditions, vpcv1alpha1.ReadyCondition)
}

// wakeCards wakes the attachments of the servers that a card belongs to, as far as anything leads there, and those who keep the
// fabric's servers.
func (f *fabricWatch) wakeCards(ctx context.Context, names ...cardNames) {
	servers := map[string]bool{}
	for _, n := range names {
		if dpu, ok := f.known(types.NamespacedName{}, kindDPU, f.dpfNamespace(), n.dpu).(*provisioningv1alpha1.DPU); ok && n.dpu != "" {
			n.device, n.node = dpu.Spec.DPUDeviceName, dpu.Spec.DPUNodeName
		}
		for _, key := range n.keys(f.name) {
			list := &infrav1.DPUServerList{}
			if err := f.owner.options.Client.List(ctx, list, client.MatchingFields{memberIndex: key}); err != nil {
				f.failed(ctx, err, "list DPUServers of a card")
			}
			for i := range list.Items {
				servers[list.Items[i].Name] = true
			}
		}
		if node, ok := f.known(types.NamespacedName{}, kindDPUNode, f.dpfNamespace(), n.node).(*provisioningv1alpha1.DPUNode); ok {
			servers[f.serverOf(node)] = true
		}
	}
	f.wakeServers(ctx, servers)
	f.owner.fabric.wake(types.NamespacedName{Name: f.name})
}

// wakeServer wakes the attachments of the servers that a DPUNode stands, or stood, for.
func (f *fabricWatch) wakeServer(ctx context.Context, nodes ...client.Object) {
	servers := map[string]bool{}
	for _, object := range nodes {
		if node, ok := object.(*provisioningv1alpha1.DPUNode); ok && node != nil {
			servers[f.serverOf(node)] = true
		}
	}
	f.wakeServers(ctx, servers)
}

// serverOf is the name of the DPUServer a DPUNode is labelled for; empty if it is for none.
func (f *fabricWatch) serverOf(node *provisioningv1alpha1.DPUNode) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	value := node.Labels[f.serverLabelKey]
	switch {
	case value == "":
		return ""
	case strings.Contains(value, "."):
		return value
	case len(f.sources) == 1:
		return infrav1.DPUServerName(f.sources[0], value)
	}
	return ""
}

func (f *fabricWatch) dpfNamespace() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.namespace
}

func (f *fabricWatch) wakeServers(ctx context.Context, servers map[string]bool) {
	var woken []types.NamespacedName
	for name := range servers {
		if name != "" {
			woken = append(woken, f.attachments(ctx, func(*infrav1.DPUAttachment) bool { return true }, client.MatchingFields{AttachmentServerIndex: name})...)
		}
	}
	f.owner.attachments.wake(woken...)
}

func (f *fabricWatch) attachments(ctx context.Context, wanted func(*infrav1.DPUAttachment) bool, options ...client.ListOption) []types.NamespacedName {
	list := &infrav1.DPUAttachmentList{}
	if err := f.owner.options.Client.List(ctx, list, options...); err != nil {
		f.failed(ctx, err, "list DPUAttachments")
		return nil
	}
	var keys []types.NamespacedName
	for i := range list.Items {
		if wanted(&list.Items[i]) {
			keys = append(keys, client.ObjectKeyFromObject(&list.Items[i]))
		}
	}
	return keys
}

// wakeTenant wakes the TenantVPC that an object was made for, or that adopts it, and its attachments unless the change means
// nothing to them: an interface's status changes with every port of the tenant.
func (f *fabricWatch) wakeTenant(ctx context.Context, object client.Object, tenantOnly bool) {
	tenants := f.adopting(ctx, object)
	if owner, mine := f.ownerOf(object); mine {
		tenants = append(tenants, owner)
	}
	f.owner.tenants.wake(tenants...)
	if tenantOnly {
		return
	}
	for _, tenant := range tenants {
		f.owner.attachments.wake(f.attachments(ctx, func(a *infrav1.DPUAttachment) bool { return a.Spec.VPCName == tenant.Name }, client.InNamespace(tenant.Namespace))...)
	}
}

// ownerOf is the TenantVPC of this installation that an object was made for.
func (f *fabricWatch) ownerOf(object client.Object) (types.NamespacedName, bool) {
	parts := strings.Split(object.GetAnnotations()[vpc.OwnerAnnotation], "/")
	if len(parts) < 3 {
		return types.NamespacedName{}, false
	}
	// An installation's name may itself have slashes.
	n := len(parts)
	owner := types.NamespacedName{Namespace: parts[n-2], Name: parts[n-1]}
	return owner, strings.Join(parts[:n-2], "/") == f.owner.options.Installation && owner.Namespace != "" && owner.Name != ""
}

// adopting are the TenantVPCs of the fabric that adopt a DPUVPC of that name, or whose networks the object is among.
func (f *fabricWatch) adopting(ctx context.Context, object client.Object) []types.NamespacedName {
	name := ""
	switch o := object.(type) {
	case *vpcv1alpha1.DPUVPC:
		name = o.Name
	case *vpcv1alpha1.DPUVirtualNetwork:
		name = o.Spec.VPCName
	}
	if name == "" || object.GetNamespace() != f.dpfNamespace() {
		return nil
	}
	list := &infrav1.TenantVPCList{}
	if err := f.owner.options.Client.List(ctx, list); err != nil {
		f.failed(ctx, err, "list TenantVPCs")
		return nil
	}
	var keys []types.NamespacedName
	for i := range list.Items {
		if adopt := list.Items[i].Spec.Adopt; adopt != nil && adopt.Name == name && list.Items[i].Spec.FabricName == f.name {
			keys = append(keys, client.ObjectKeyFromObject(&list.Items[i]))
		}
	}
	return keys
}

// wakeNetwork wakes the TenantVPC on whose network a port appeared or ceased to be.
func (f *fabricWatch) wakeNetwork(port *svcv1alpha1.ServiceInterface) {
	network, ok := f.known(types.NamespacedName{}, kindNetwork, port.Namespace, dpfzt.NetworkOf(&port.Spec)).(*vpcv1alpha1.DPUVirtualNetwork)
	if !ok {
		return
	}
	if owner, mine := f.ownerOf(network); mine {
		f.owner.tenants.wake(owner)
	}
}

// interfaceSelector and vpcSelector say which Nodes an object takes. DPF reads an absent selector in opposite ways.
func interfaceSelector(object client.Object) labels.Selector {
	dsi, ok := object.(*svcv1alpha1.DPUServiceInterface)
	if !ok || dsi == nil {
		return labels.Nothing()
	}
	if dsi.Spec.Template.Spec.NodeSelector == nil {
		return labels.Everything()
	}
	return selectorOf(dsi.Spec.Template.Spec.NodeSelector)
}

func vpcSelector(object client.Object) labels.Selector {
	found, ok := object.(*vpcv1alpha1.DPUVPC)
	if !ok || found == nil {
		return labels.Nothing()
	}
	return selectorOf(found.Spec.NodeSelector)
}

func selectorOf(selector *metav1.LabelSelector) labels.Selector {
	parsed, err := metav1.LabelSelectorAsSelector(selector)
	if err != nil {
		return labels.Everything() // What DPF makes of it is unknown.
	}
	return parsed
}

// wakeSelected wakes the attachments of all Nodes that an object of somebody else takes, or took.
func (f *fabricWatch) wakeSelected(ctx context.Context, before, after client.Object, selector func(client.Object) labels.Selector) {
	for _, object := range []client.Object{before, after} {
		if object == nil {
			continue
		}
		if _, mine := f.ownerOf(object); mine {
			return // Its TenantVPC's attachments were woken; of others, their Nodes and interfaces tell.
		}
	}
	if statusOnly(before, after) {
		return
	}
	selectors := []labels.Selector{selector(before), selector(after)}
	var cards []cardNames
	for _, target := range f.all() {
		for _, k := range target.kinds {
			if k.name != kindNode {
				continue
			}
			for _, object := range k.informer.GetStore().List() {
				node, ok := object.(*corev1.Node)
				if ok && slices.ContainsFunc(selectors, func(s labels.Selector) bool { return s.Matches(labels.Set(node.Labels)) }) {
					cards = append(cards, cardNames{dpu: node.Name})
				}
			}
		}
	}
	if len(cards) > 0 {
		f.wakeCards(ctx, cards...)
	}
}

// wakeAll wakes everybody on the fabric.
func (f *fabricWatch) wakeAll(ctx context.Context) {
	f.mu.Lock()
	sources := slices.Clone(f.sources)
	f.mu.Unlock()
	f.owner.attachments.wake(f.attachments(ctx, func(a *infrav1.DPUAttachment) bool {
		return a.Status.FabricName == f.name || slices.Contains(sources, a.Spec.Server.Source)
	})...)
	list := &infrav1.TenantVPCList{}
	if err := f.owner.options.Client.List(ctx, list); err != nil {
		f.failed(ctx, err, "list TenantVPCs")
	}
	for i := range list.Items {
		if list.Items[i].Spec.FabricName == f.name {
			f.owner.tenants.wake(client.ObjectKeyFromObject(&list.Items[i]))
		}
	}
	f.owner.fabric.wake(types.NamespacedName{Name: f.name})
}

// failed tells that somebody may not have been woken: he polls.
func (f *fabricWatch) failed(ctx context.Context, err error, doing string) {
	if ctx.Err() == nil {
		ctrl.LoggerFrom(ctx).Error(err, "Unable to find whom a change on the fabric concerns", "doing", doing)
	}
}
