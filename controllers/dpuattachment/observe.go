// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package dpuattachment

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/cluster-api/util/conditions"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/internal/scope"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/vpc"
)

var yes = vpc.Finding{Answer: vpc.Yes}

// observe reads everything but the claim. It fails only where the management cluster does not answer; what others do not
// answer is an Unknown in the observation. Fresh takes no reading from before the pass.
func (r *Reconciler) observe(ctx context.Context, attachment *infrav1.DPUAttachment, fresh bool) (*observation, error) {
	o := &observation{now: r.Clock.Now(), fresh: fresh, attachment: attachment, stateBefore: attachment.Status.State}
	o.memory, o.memoryErr = memoryOf(attachment)
	if o.provenDetached() && o.askedToDetach() {
		return o, nil
	}
	fabric, err := r.Fabrics.ForSource(ctx, attachment.Spec.Server.Source)
	if unusable, ok := scope.AsUnusable(err); ok {
		o.fabricFound = vpc.Finding{Answer: vpc.Unknown, Reason: unusable.Reason, Message: unusable.Error()}
		if unusable.Reason == infrav1.SourceUnknownReason {
			o.fabricFound.Answer = vpc.No
		}
		return o, nil
	}
	if err != nil {
		return nil, err
	}
	o.fabric, o.fabricFound, o.place = fabric, yes, vpc.PlaceOf(r.Installation, fabric.Object)
	o.notBefore = r.readingsSince(o)
	if err := r.observeAdmission(ctx, o); err != nil {
		return nil, err
	}
	if err := r.observeRivals(ctx, o); err != nil {
		return nil, err
	}
	if err := r.observeCards(ctx, o); err != nil {
		return nil, err
	}
	r.observePosture(o)
	r.observeAdopted(ctx, o)
	r.observeAround(ctx, o)
	o.network = r.observeNetwork(ctx, o)
	r.observeOVN(ctx, o)
	return o, nil
}

// observeRivals looks for another attachment that wrote to the server's DPUs and is not proven detached.
func (r *Reconciler) observeRivals(ctx context.Context, o *observation) error {
	list := &infrav1.DPUAttachmentList{}
	if err := r.Client.List(ctx, list, client.MatchingFields{serverIndex: byServer(o.attachment)[0]}); err != nil {
		return fmt.Errorf("list the DPUAttachments of a server: %w", err)
	}
	for i := range list.Items {
		other := &list.Items[i]
		if other.UID == o.attachment.UID {
			continue
		}
		wrote, err := memoryOf(other)
		if (err != nil || wrote.touched()) && other.Status.State != infrav1.AttachmentStateDetached {
			o.rival = other.Name
			return nil
		}
	}
	return nil
}

// observeNetwork says whether the TenantVPC can take the ports.
func (r *Reconciler) observeNetwork(ctx context.Context, o *observation) vpc.Finding {
	if o.tenant == nil {
		return vpc.Finding{Answer: vpc.No, Reason: infrav1.VPCNotFoundReason, Message: "there is no TenantVPC " + o.attachment.Spec.VPCName}
	}
	if o.askedToDetach() {
		return yes // Nothing hangs on it: evidence is read from the DPU cluster.
	}
	if o.around == nil {
		o.around = r.Readings.Surroundings(ctx, o.fabric.Object.Name, o.fabric.DPF, o.fabric.Namespace(), o.notBefore)
		o.readAt(o.around.Started())
	}
	objects, err := o.around.Objects(o.place, o.tenant, o.wantedInterfaces())
	if err != nil {
		return unreachable(err)
	}
	return vpc.CheckObjects(o.place, o.tenant, o.wantedInterfaces(), objects)
}

func unreachable(err error) vpc.Finding {
	return vpc.Finding{Answer: vpc.Unknown, Reason: infrav1.FabricUnreachableReason, Message: err.Error()}
}

// observeCards finds the server's DPUs and reads what there is to know of each.
func (r *Reconciler) observeCards(ctx context.Context, o *observation) error {
	pinned, err := r.pinnedCards(ctx, o)
	if err != nil {
		return err
	}
	place, err := r.labelPlaces.Of(ctx, o.fabric.Object.Name, o.fabric.DPF)
	if err != nil {
		o.resolved = unreachable(err)
		return nil
	}
	query := dpfzt.Query{
		Namespace: o.fabric.Namespace(), LabelKey: o.fabric.Object.Spec.ServerLabelKey,
		Values: dpfzt.LabelValues(o.fabric.Object, o.attachment.Spec.Server.Source, o.attachment.Spec.Server.SystemID),
	}
	asked := r.macsOf(ctx, o, pinned, &query)
	server, err := r.findServer(ctx, o, query)
	o.resolved = asked.unless(resolveFinding(err))
	if o.resolved.Answer == vpc.Yes {
		o.resolved = checkPinned(server, pinned)
	}
	if o.resolved.Answer == vpc.Unknown {
		return nil
	}
	// Cards that are remembered count even if they are not found by the server any more.
	if strays := o.straysOf(server); len(strays) > 0 {
		found, err := dpfzt.FindCards(ctx, o.fabric.DPF, o.fabric.Namespace(), strays)
		if finding := resolveFinding(err); finding.Answer != vpc.Yes {
			o.resolved = finding
			return nil
		}
		server.Members = append(server.Members, found.Members...)
	}
	if finding := o.assign(server); o.resolved.Answer == vpc.Yes {
		o.resolved = finding
	}
	o.states = r.Readings.States(ctx, o.fabric.Object.Name, o.fabric.DPUCluster, o.dpuClusters(), o.notBefore)
	for i := range o.cards {
		key, _ := o.cards[i].member.ClusterKey()
		o.cards[i].evidence = o.states[key].Evidence(o.cards[i].member, place).For(o.holder())
	}
	for _, state := range o.states {
		o.readAt(state.Started())
	}
	return nil
}

// readAt makes the pass speak of a time when none of its readings had started yet: a proof is as old as what it was made from.
func (o *observation) readAt(started time.Time) {
	if !started.IsZero() && started.Before(o.now) {
		o.now, o.shared = started, true
	}
}

// readingsSince is when a reading must have started to count in this pass: since it began, or, where it only renews a proof, lately
// and since something was seen to change.
func (r *Reconciler) readingsSince(o *observation) time.Time {
	proven := o.attachment.Status.ProvenAt
	if o.fresh || o.stateBefore != infrav1.AttachmentStateAttached || !o.sameClaim() || o.askedToDetach() || o.memory.DetachingSince != nil || proven == nil {
		return o.now
	}
	notBefore := o.now.Add(-dpfzt.UnwatchedMaxAge)
	if r.Watches.CoversAll(o.fabric.Object.Name) {
		notBefore = o.now.Add(-dpfzt.SteadyMaxAge)
	}
	for _, since := range []time.Time{proven.Time, r.Watches.WokenAt(client.ObjectKeyFromObject(o.attachment))} {
		if since.After(notBefore) {
			notBefore = since
		}
	}
	return notBefore
}

// findServer finds the server's cards: among all that were read for everybody, where an older reading will do, else by asking
// for them alone.
func (r *Reconciler) findServer(ctx context.Context, o *observation, query dpfzt.Query) (dpfzt.Server, error) {
	if !o.notBefore.Before(o.now) || len(query.MACs) > 0 {
		return dpfzt.FindServer(ctx, o.fabric.DPF, query)
	}
	inventory, err := r.Readings.Inventory(ctx, o.fabric.Object.Name, o.fabric.DPF, query.Namespace, o.notBefore)
	if err != nil {
		return dpfzt.Server{}, err
	}
	server, err := inventory.Server(query.LabelKey, query.Values)
	if err != nil {
		return dpfzt.FindServer(ctx, o.fabric.DPF, query)
	}
	o.readAt(inventory.Started())
	return server, nil
}

// dpuClusters are those the server's cards have joined.
func (o *observation) dpuClusters() []types.NamespacedName {
	var keys []types.NamespacedName
	for i := range o.cards {
		if key, joined := o.cards[i].member.ClusterKey(); joined && !slices.Contains(keys, key) {
			keys = append(keys, key)
		}
	}
	return keys
}

func resolveFinding(err error) vpc.Finding {
	var resolve *dpfzt.ResolveError
	switch {
	case err == nil:
		return yes
	case errors.As(err, &resolve):
		return vpc.Finding{Answer: vpc.No, Reason: resolve.Reason, Message: resolve.Message}
	default:
		return unreachable(err)
	}
}

// pinnedCards are the DPUDevices the fabric remembers of the server, nil if it does not know the server yet.
func (r *Reconciler) pinnedCards(ctx context.Context, o *observation) ([]infrav1.BoundDPU, error) {
	name := infrav1.DPUServerName(o.attachment.Spec.Server.Source, o.attachment.Spec.Server.SystemID)
	server := &infrav1.DPUServer{}
	switch err := r.Client.Get(ctx, client.ObjectKey{Name: name}, server); {
	case apierrors.IsNotFound(err):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("read DPUServer %s: %w", name, err)
	}
	if healthy := conditions.Get(server, infrav1.HealthyCondition); healthy != nil {
		o.unpowered = healthy.Reason == infrav1.DPUUnpoweredWithHostReason
	}
	return server.Status.DPUs, nil
}

// checkPinned compares the cards found with those pinned at the first sight.
func checkPinned(server dpfzt.Server, pinned []infrav1.BoundDPU) vpc.Finding {
	if len(pinned) == 0 {
		return yes
	}
	changed := vpc.Finding{Answer: vpc.No, Reason: infrav1.BindingChangedReason, Message: "the server's DPUs are not those it was first seen with: an operator confirms the change by spec.override Rebind of its DPUServer"}
	if len(pinned) != len(server.Members) {
		return changed
	}
	for _, member := range server.Members {
		i := slices.IndexFunc(pinned, func(b infrav1.BoundDPU) bool { return b.DPUDevice == member.Device.Name })
		if i < 0 || pinned[i].SerialNumber != member.Device.Spec.SerialNumber || !samePorts(pinned[i].Ports, member) {
			return changed
		}
	}
	return yes
}

// samePorts compares PF0, the only function whose MAC address DPF tells. One that is not known on either side is no change.
func samePorts(pinned []infrav1.DPUServerPort, member dpfzt.Member) bool {
	mac := vpc.NormalizeMAC(member.Device.Status.PF0MAC)
	for _, port := range pinned {
		if ptr.Deref(port.PF, -1) == 0 && port.MAC != "" && mac != "" && port.MAC != mac {
			return false
		}
	}
	return true
}

// straysOf are the remembered cards that are not among those found.
func (o *observation) straysOf(server dpfzt.Server) []string {
	var strays []string
	for _, device := range slices.Sorted(maps.Keys(o.memory.Cards)) {
		if !slices.ContainsFunc(server.Members, func(m dpfzt.Member) bool { return m.Device.Name == device }) {
			strays = append(strays, device)
		}
	}
	return strays
}

// assign says which port is on which card: the one it was plugged on, or the one that its selector matches.
func (o *observation) assign(server dpfzt.Server) vpc.Finding {
	ports := map[string][]infrav1.MachinePort{}
	finding := yes
	for _, port := range o.attachment.Spec.Ports {
		device, remembered := o.memory.cardOf(port.Name)
		if !remembered {
			member, err := server.Port(port)
			if err != nil {
				finding = resolveFinding(err)
				continue
			}
			device = member.Device.Name
		}
		for _, other := range ports[device] {
			if ptr.Deref(other.PF, 0) == ptr.Deref(port.PF, 0) {
				finding = vpc.Finding{Answer: vpc.No, Reason: infrav1.AmbiguousDPUReason, Message: fmt.Sprintf("ports %s and %s are both PF %d of DPUDevice %s", other.Name, port.Name, ptr.Deref(port.PF, 0), device)}
			}
		}
		ports[device] = append(ports[device], port)
	}
	for _, member := range server.Members {
		c := card{device: member.Device.Name, member: member, ports: ports[member.Device.Name]}
		c.want = o.wantOf(c)
		o.cards = append(o.cards, c)
	}
	slices.SortFunc(o.cards, func(a, b card) int { return strings.Compare(a.device, b.device) })
	return finding
}

// wantOf is what is asked of a card. Names follow from the TenantVPC's own name, so that they are known when it is gone.
func (o *observation) wantOf(c card) vpc.Want {
	tenant := o.tenant
	if tenant == nil {
		tenant = &infrav1.TenantVPC{}
		tenant.Namespace, tenant.Name = o.attachment.Namespace, o.attachment.Spec.VPCName
	}
	name := o.place.VPCName(tenant)
	want := vpc.Want{
		Namespace: o.place.Namespace, VPCName: name, VPCLabels: map[string]string{vpc.VPCKey: name}, Claim: o.holder(),
		Before: o.memory.Cards[c.device].Before, LogicalPorts: o.memory.Cards[c.device].LogicalPorts,
	}
	for _, port := range c.ports {
		pf := ptr.Deref(port.PF, 0)
		wanted := vpc.WantedPort{
			PF: pf, Network: o.place.NetworkName(tenant, port.Subnet), Interface: o.place.InterfaceName(tenant, port.Subnet, pf),
		}
		if pf == 0 {
			wanted.MAC = vpc.NormalizeMAC(c.member.Device.Status.PF0MAC)
		}
		want.Ports = append(want.Ports, wanted)
	}
	return want
}
