// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maasmachine

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
	"sigs.k8s.io/cluster-api/util/conditions"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/internal/scope"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
)

// allocate asks MAAS for a server, if it is the machine's turn.
func (p *pass) allocate(ctx context.Context, step Step) (Step, error) {
	holding, err := p.holding(ctx)
	if err != nil {
		return step, err
	}
	turn := p.turn()
	grant, verdict := p.identity.Allocations.Take(turn, holding)
	switch verdict {
	case scope.TurnGranted:
	case scope.TurnAfter:
		return wait(PaceTurn, saysNo(infrav1.ServerClaimedCondition, infrav1.WaitingForTurnReason, fmt.Sprintf(
			"clusters with fewer servers of the identity that wait for one are served first; this one has %d", count(holding, turn.Cluster)))), nil
	case scope.TurnRefused:
		return p.scarce(), nil
	default:
		return p.busy(step), nil
	}
	outcome := scope.OutcomeFailed
	defer func() { grant.Done(outcome) }()
	m, sent, refused, err := p.claim(ctx)
	switch {
	case err != nil:
		if apierrors.IsConflict(err) {
			outcome = scope.OutcomeConflict
		}
		return step, err
	case maas.IsUnknownOutcome(refused):
		return p.notAllocated(refused), nil
	case refused != nil:
		p.answered()
		if maas.IsNoMatch(refused) {
			outcome = scope.OutcomeRefused
		}
		return p.notAllocated(refused), nil
	}
	outcome = scope.OutcomeTaken
	p.learn(m, sent)
	p.r.memory.update(p.machine.UID, func(known *memo) { known.toldScarce = false })
	owner := p.machine.UID
	if !p.o.AllocateUntil.IsZero() {
		owner = "" // An earlier allocation may have given the token a server too: MAAS is asked for all of them.
	}
	p.r.memory.give(p.identity.Object.UID, m.SystemID, owner, p.r.Clock.Now().Add(longWaits*p.r.PollInterval))
	p.log.Info("Allocated a server", "systemID", m.SystemID, "claim", maas.TokenHash(p.token()))
	return p.recordServer(ctx, Step{Action: ActionRecordServer, Pace: PaceNow, SystemID: m.SystemID})
}

// claim allocates one of the servers that may be taken; those under suspicion come last. That MAAS may be asked is stored first,
// so that a lost answer is looked for. The first error is MAAS' or the fabric's, the second the management cluster's API server's.
func (p *pass) claim(ctx context.Context) (m maas.Machine, sent time.Time, refused, failed error) {
	bound := secondsOr(p.identity.Object.Spec.Deadlines.AllocateSeconds, maas.DefaultAllocateTimeout)
	asking, cancel := context.WithTimeout(ctx, bound)
	defer cancel()
	offers, err := p.choose(asking, p.constraints())
	if err != nil {
		return m, sent, err, nil
	}
	now := p.now()
	if err := p.persistStatus(ctx, func(s *infrav1.MaasMachineStatus) { s.LastAllocateTime = &now }); err != nil {
		return m, sent, nil, err
	}
	p.r.memory.update(p.machine.UID, func(known *memo) { known.answered = time.Time{} })
	for _, offer := range offers {
		sent = p.r.Clock.Now()
		m, refused = p.identity.MAAS.Allocate(asking, p.token(), offer, p.comment())
		if !maas.IsNoMatch(refused) {
			break
		}
	}
	return m, sent, refused, nil
}

// answered forgets an allocation by which nothing was taken. The next pass may still be shown it: it need not look for a server.
func (p *pass) answered() {
	if at := p.machine.Status.LastAllocateTime; at != nil {
		p.r.memory.update(p.machine.UID, func(known *memo) { known.answered = at.Time })
	}
	p.machine.Status.LastAllocateTime = nil
}

// turn says who asks, and for what: machines that want the same are refused together.
func (p *pass) turn() scope.Turn {
	pfs := make([]int32, 0, len(p.machine.Spec.Ports))
	for _, port := range p.machine.Spec.Ports {
		pfs = append(pfs, ptr.Deref(port.PF, 0))
	}
	slices.Sort(pfs)
	avoided := p.avoided()
	slices.Sort(avoided)
	// What cannot be encoded, and nothing here is of that kind, would be wanted alike.
	wants, _ := json.Marshal(struct {
		Constraints maas.Constraints
		PFs         []int32
		Avoided     []string
	}{p.constraints(), pfs, avoided})
	sum := sha256.Sum256(wants)
	return scope.Turn{Machine: client.ObjectKeyFromObject(p.machine), Cluster: clusterOf(p.machine), Wants: hex.EncodeToString(sum[:])}
}

func clusterOf(machine *infrav1.MaasMachine) types.NamespacedName {
	return types.NamespacedName{Namespace: machine.Namespace, Name: machine.Labels[clusterv1.ClusterNameLabel]}
}

// holding are the machines of the identity that have a server, with their clusters. Those who wait come often: they share what is
// a little older.
func (p *pass) holding(ctx context.Context) (map[types.NamespacedName]types.NamespacedName, error) {
	now, identity := p.r.Clock.Now(), p.identity.Object.UID
	if known, ok := p.r.memory.holdersOf(identity, now.Add(-p.r.PollInterval/5)); ok {
		return known, nil
	}
	list := &infrav1.MaasMachineList{}
	if err := p.r.Client.List(ctx, list, client.UnsafeDisableDeepCopy); err != nil {
		return nil, fmt.Errorf("list MaasMachines: %w", err)
	}
	holding := map[types.NamespacedName]types.NamespacedName{}
	for i := range list.Items {
		m := &list.Items[i]
		if m.Spec.Claim != nil && m.Spec.Claim.IdentityName == p.identity.Object.Name && serverOf(m) != "" {
			holding[client.ObjectKeyFromObject(m)] = clusterOf(m)
		}
	}
	p.r.memory.setHolders(identity, holding, now)
	return holding, nil
}

func count(holding map[types.NamespacedName]types.NamespacedName, cluster types.NamespacedName) int {
	n := 0
	for _, of := range holding {
		if of == cluster {
			n++
		}
	}
	return n
}

// busy says nothing new to a machine that is waiting already. It is woken when there is room.
func (p *pass) busy(step Step) Step {
	switch conditions.GetReason(p.machine, infrav1.ServerClaimedCondition) {
	case infrav1.NoServerAvailableReason, infrav1.WaitingForTurnReason:
		return wait(PaceTurn)
	}
	return wait(PaceTurn, step.Say...)
}

func (p *pass) scarce() Step {
	return wait(PaceTurn, saysNo(infrav1.ServerClaimedCondition, infrav1.NoServerAvailableReason, "no server is free that "+p.wanted()+
		": the machine takes the next one; the operator can free or add servers, or ask for less in a new template"))
}

func (p *pass) notAllocated(err error) Step { return p.putOff(err, p.allocateRefused(err)) }

func (p *pass) allocateRefused(err error) Step {
	no := func(reason, message string) Saying { return saysNo(infrav1.ServerClaimedCondition, reason, message) }
	switch {
	case maas.IsUnknownOutcome(err):
		p.log.Error(err, "The answer to an allocation was lost")
		return wait(PacePoll, no(infrav1.AllocateOutcomeUnknownReason,
			"the answer to an allocation was lost: MAAS is searched for the server until it can no longer appear"))
	case maas.IsNoMatch(err):
		return p.scarce()
	case maas.IsInvalidRequest(err):
		return wait(PaceRare, no(infrav1.ConstraintsNeverMatchReason, err.Error()))
	}
	p.log.Error(err, "No server was allocated")
	var fabric *fabricError
	if errors.As(err, &fabric) {
		return wait(PaceScarce, no(fabric.Reason, fabric.Message))
	}
	unusable := scope.UnusableMAAS(p.identity.Object.Name, err)
	return wait(PaceScarce, no(unusable.Reason, unusable.Message))
}

// wanted says what was asked for, in the words of the spec.
func (p *pass) wanted() string {
	c := p.constraints()
	text := "fits"
	add := func(wanted bool, format string, value any) {
		if wanted {
			text += fmt.Sprintf(format, value)
		}
	}
	add(c.Zone != "", ", zone %s", c.Zone)
	add(c.Pool != "", ", pool %s", c.Pool)
	add(len(c.Tags) > 0, ", tags %v", c.Tags)
	add(len(c.NotTags) > 0, ", notTags %v", c.NotTags)
	add(c.Architecture != "", ", architecture %s", c.Architecture)
	add(c.MinCPU > 0, ", minCPU %d", c.MinCPU)
	add(c.MinMemoryMiB > 0, ", minMemory %d", c.MinMemoryMiB)
	add(c.MinDiskGB > 0, ", minDiskSize %d", c.MinDiskGB)
	add(len(p.machine.Spec.Ports) > 0, ", %d DPU port(s)", len(p.machine.Spec.Ports))
	add(len(c.Zones) > 0, ", in one of the zones %v", c.Zones)
	add(len(c.Pools) > 0, ", in one of the pools %v", c.Pools)
	add(len(p.machine.Status.AvoidedServers) > 0, ", other than the %d avoided", len(p.machine.Status.AvoidedServers))
	return text
}
