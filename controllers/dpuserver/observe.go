// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package dpuserver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/internal/scope"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/vpc"
)

// observation is all that a pass over a fabric's servers knows.
type observation struct {
	now     time.Time
	fabric  *infrav1.DPUFabric
	servers []server
	// inventory says whether DPF could be read. Unknown means that of servers and cards nothing is known.
	inventory vpc.Finding
	// cards are all DPF knows, also those of no server; ignored are the labels that stand for no server.
	cards   []card
	ignored []string
	// attachments are those of all fabrics.
	attachments []infrav1.DPUAttachment
}

// server is what is known of one server.
type server struct {
	source, systemID string
	// macs are those by which it may be found, besides those pinned, where no label leads to it.
	macs []string
	// object is nil if the server is seen for the first time.
	object *infrav1.DPUServer
	// resolved says whether its cards were found. Unknown means that DPF does not answer, and nothing is known.
	resolved vpc.Finding
	cards    []card
	// holder is the attachment of this installation that holds the server or is about to.
	holder *infrav1.DPUServerHolder
	// attachments are the names, "namespace/name", of all that exist for it.
	attachments []string
	// hostOff says that MAAS saw the host off. It is asked only for servers with a DPU that does not live.
	hostOff bool
	// bmcs is what the BMCs of its cards answered.
	bmcs bmcs
}

type card struct {
	member   dpfzt.Member
	evidence vpc.Evidence
}

func (s *server) name() string { return infrav1.DPUServerName(s.source, s.systemID) }

// observe reads everything. It returns nil if the fabric is gone.
func (r *Reconciler) observe(ctx context.Context, name string) (*observation, error) {
	object := &infrav1.DPUFabric{}
	switch err := r.Client.Get(ctx, client.ObjectKey{Name: name}, object); {
	case apierrors.IsNotFound(err):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("read DPUFabric %s: %w", name, err)
	}
	o := &observation{now: r.Clock.Now(), fabric: object}
	if err := r.observeKnown(ctx, o); err != nil {
		return nil, err
	}
	fabric, err := r.Fabrics.Get(ctx, name)
	if err == nil {
		err = r.observeDPF(ctx, fabric, o)
	}
	o.inventory = vpc.Finding{Answer: vpc.Yes}
	if err != nil {
		o.inventory, o.cards = unreachable(err), nil
		// What is known of the servers is known no more; that they exist is.
		for i := range o.servers {
			o.servers[i].resolved, o.servers[i].cards = unreachable(err), nil
		}
	}
	if err := r.observeAttachments(ctx, o); err != nil {
		return nil, err
	}
	if fabric != nil {
		r.observePower(ctx, fabric, o)
	}
	r.observePosture(fabric, o)
	slices.SortFunc(o.servers, func(a, b server) int { return cmp.Compare(a.name(), b.name()) })
	return o, nil
}

func unreachable(err error) vpc.Finding {
	finding := vpc.Finding{Answer: vpc.Unknown, Reason: infrav1.FabricUnreachableReason, Message: err.Error()}
	if unusable, ok := scope.AsUnusable(err); ok {
		finding.Reason = unusable.Reason
	}
	return finding
}

// observeKnown reads the servers the fabric remembers.
func (r *Reconciler) observeKnown(ctx context.Context, o *observation) error {
	list := &infrav1.DPUServerList{}
	if err := r.Client.List(ctx, list); err != nil {
		return fmt.Errorf("list DPUServers: %w", err)
	}
	for i := range list.Items {
		object := &list.Items[i]
		if object.Spec.FabricName != o.fabric.Name || !object.DeletionTimestamp.IsZero() {
			continue
		}
		o.servers = append(o.servers, server{source: object.Spec.Source, systemID: object.Spec.SystemID, object: object})
	}
	return nil
}

// observeDPF reads DPF and every DPU cluster once.
func (r *Reconciler) observeDPF(ctx context.Context, fabric *scope.Fabric, o *observation) error {
	place, err := r.labelPlaces.Of(ctx, fabric.Object.Name, fabric.DPF)
	if err != nil {
		return err
	}
	inventory, err := r.Readings.Inventory(ctx, fabric.Object.Name, fabric.DPF, fabric.Namespace(), o.now)
	if err != nil {
		return err
	}
	for _, value := range inventory.Values(fabric.Object.Spec.ServerLabelKey) {
		source, systemID, ok := parseLabel(fabric.Object, value)
		if !ok {
			o.ignored = append(o.ignored, value)
			continue
		}
		known := func(s server) bool { return s.source == source && s.systemID == systemID }
		if !slices.ContainsFunc(o.servers, known) {
			o.servers = append(o.servers, server{source: source, systemID: systemID})
		}
	}
	r.observeMACs(ctx, fabric, o, inventory)
	all := inventory.Cards()
	var joined []types.NamespacedName
	for _, member := range all {
		if key, ok := member.ClusterKey(); ok && !slices.Contains(joined, key) {
			joined = append(joined, key)
		}
	}
	// Side by side: one that hangs does not hold up the others.
	clusters := r.Readings.States(ctx, fabric.Object.Name, fabric.DPUCluster, joined, o.now)
	for i := range o.servers {
		s := &o.servers[i]
		found, err := s.find(fabric.Object, inventory)
		s.resolved = resolveFinding(err)
		for _, member := range found.Members {
			key, _ := member.ClusterKey()
			s.cards = append(s.cards, card{member: member, evidence: clusters[key].Evidence(member, place)})
		}
	}
	for _, member := range all {
		key, _ := member.ClusterKey()
		o.cards = append(o.cards, card{member: member, evidence: clusters[key].Evidence(member, place)})
	}
	return nil
}

func resolveFinding(err error) vpc.Finding {
	var resolve *dpfzt.ResolveError
	switch {
	case err == nil:
		return vpc.Finding{Answer: vpc.Yes}
	case errors.As(err, &resolve):
		return vpc.Finding{Answer: vpc.No, Reason: resolve.Reason, Message: resolve.Message}
	default:
		return unreachable(err)
	}
}

// parseLabel says which server a label's value means. Where a fabric has several sources, a plain system ID means none.
func parseLabel(fabric *infrav1.DPUFabric, value string) (source, systemID string, ok bool) {
	first, rest, dotted := strings.Cut(value, ".")
	if !dotted {
		if len(fabric.Spec.ClaimSources) != 1 {
			return "", "", false
		}
		return fabric.Spec.ClaimSources[0].Name, value, true
	}
	named := func(s infrav1.ClaimSource) bool { return s.Name == first }
	return first, rest, rest != "" && slices.ContainsFunc(fabric.Spec.ClaimSources, named)
}

// observeAttachments finds out which attachment holds each server: one that is authorised or has written something, as long as
// it is not proven detached.
func (r *Reconciler) observeAttachments(ctx context.Context, o *observation) error {
	list := &infrav1.DPUAttachmentList{}
	if err := r.Client.List(ctx, list); err != nil {
		return fmt.Errorf("list DPUAttachments: %w", err)
	}
	slices.SortFunc(list.Items, func(a, b infrav1.DPUAttachment) int {
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	o.attachments = list.Items
	for i := range list.Items {
		attachment := &list.Items[i]
		n := slices.IndexFunc(o.servers, func(s server) bool {
			return s.source == attachment.Spec.Server.Source && s.systemID == attachment.Spec.Server.SystemID
		})
		if n < 0 {
			continue
		}
		s := &o.servers[n]
		s.attachments = append(s.attachments, attachment.Namespace+"/"+attachment.Name)
		if s.holder == nil && holds(attachment) {
			s.holder = &infrav1.DPUServerHolder{
				Namespace: attachment.Namespace, Name: attachment.Name, TokenHash: maas.TokenHash(attachment.Spec.Server.Token),
			}
		}
	}
	return nil
}

const (
	// powerMaxAge is how long MAAS' word on a host's power is used: it asks the BMC itself every few minutes only.
	powerMaxAge = time.Minute
)

type powerKey struct{ fabric, source string }

// powerReading is what one source's MAAS said of its hosts' power.
type powerReading struct {
	at  time.Time
	off map[string]bool
	// asked are the servers that were asked for.
	asked []string
}

// observePower asks MAAS whether the hosts of DPUs that do not live are off: one call for all of a source.
func (r *Reconciler) observePower(ctx context.Context, fabric *scope.Fabric, o *observation) {
	suspects := map[string][]string{}
	for i := range o.servers {
		if s := &o.servers[i]; s.silent(o.now) {
			suspects[s.source] = append(suspects[s.source], s.systemID)
		}
	}
	for source, ids := range suspects {
		slices.Sort(ids)
		reading, err := r.readPower(ctx, fabric, source, ids, o.now)
		if err != nil {
			ctrl.LoggerFrom(ctx).Error(err, "MAAS did not say whether the hosts of silent DPUs are off", "source", source)
			continue
		}
		for i := range o.servers {
			if s := &o.servers[i]; s.source == source && reading.off[s.systemID] && slices.Contains(ids, s.systemID) {
				s.hostOff = true
			}
		}
	}
}

func (r *Reconciler) readPower(ctx context.Context, fabric *scope.Fabric, source string, ids []string, now time.Time) (powerReading, error) {
	key := powerKey{fabric: fabric.Object.Name, source: source}
	r.mu.Lock()
	known := r.powers[key]
	r.mu.Unlock()
	if now.Sub(known.at) < powerMaxAge && slices.Equal(known.asked, ids) {
		return known, nil
	}
	verifier, err := fabric.Verifier(ctx, source)
	if err != nil {
		return powerReading{}, err
	}
	machines, err := verifier.MachinesByID(ctx, ids...)
	if err != nil {
		return powerReading{}, err
	}
	reading := powerReading{at: now, off: map[string]bool{}, asked: ids}
	for i := range machines {
		reading.off[machines[i].SystemID] = machines[i].PowerState == maas.PowerOff
	}
	r.mu.Lock()
	r.powers[key] = reading
	r.mu.Unlock()
	return reading, nil
}

// silent reports whether a DPU of the server, once installed, does not live.
func (s *server) silent(now time.Time) bool {
	return slices.ContainsFunc(s.cards, func(c card) bool {
		return c.member.DPU != nil && c.evidence.ClusterError == nil && c.evidence.Alive(now).Answer == vpc.No
	})
}
