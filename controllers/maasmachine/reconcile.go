// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maasmachine

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	kerrors "k8s.io/apimachinery/pkg/util/errors"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
	clusterctlv1 "sigs.k8s.io/cluster-api/cmd/clusterctl/api/v1alpha3"
	"sigs.k8s.io/cluster-api/util"
	"sigs.k8s.io/cluster-api/util/finalizers"
	"sigs.k8s.io/cluster-api/util/labels"
	"sigs.k8s.io/cluster-api/util/patch"
	"sigs.k8s.io/cluster-api/util/paused"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/internal/scope"
)

// crowded is after how long a pass comes back that found as many of its identity under way as may be.
const crowded = 500 * time.Millisecond

// passTimeout bounds a pass; every call in it has a deadline of its own.
const passTimeout = 5 * time.Minute

// pass is one reconcile of one machine: what was read, and the way to write.
type pass struct {
	r   *Reconciler
	log logr.Logger

	machine     *infrav1.MaasMachine
	owner       *clusterv1.Machine
	cluster     *clusterv1.Cluster
	maasCluster *infrav1.MaasCluster
	// account is the identity's object, which can be read where the identity cannot be used.
	account    *infrav1.MaasClusterIdentity
	identity   *scope.Identity
	fabric     *scope.FabricAccess
	attachment *infrav1.DPUAttachment

	patcher *patch.Helper
	// stored is the machine as the API server has it, as far as this pass knows.
	stored *infrav1.MaasMachine
	o      Observation
	gone   bool
}

func (p *pass) token() string { return p.machine.Spec.Claim.Token }

func (p *pass) renewPatcher() error {
	patcher, err := patch.NewHelper(p.machine, p.r.Client)
	if err != nil {
		return fmt.Errorf("prepare the patch of MaasMachine: %w", err)
	}
	p.patcher, p.stored = patcher, p.machine.DeepCopy()
	return nil
}

// Reconcile does one step of one machine.
func (r *Reconciler) Reconcile(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	ctx, cancel := context.WithTimeout(ctx, passTimeout)
	defer cancel()
	r.once.Do(r.complete)
	machine := &infrav1.MaasMachine{}
	if err := r.Client.Get(ctx, request.NamespacedName, machine); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if !r.ours(machine) {
		return ctrl.Result{}, nil
	}
	p := &pass{r: r, machine: machine, log: ctrl.LoggerFrom(ctx)}
	if err := p.readOwners(ctx); err != nil {
		return ctrl.Result{}, err
	}
	ctx = ctrl.LoggerInto(ctx, p.log)
	if left := p.madeFor(); left > 0 {
		return ctrl.Result{RequeueAfter: left}, nil
	}
	if added, err := finalizers.EnsureFinalizer(ctx, r.Client, machine, infrav1.MaasMachineFinalizer); added || err != nil {
		return ctrl.Result{}, err
	}
	if stop, requeue, err := paused.EnsurePausedCondition(ctx, r.Client, p.cluster, machine); stop || err != nil {
		return ctrl.Result{}, err
	} else if requeue {
		return ctrl.Result{RequeueAfter: time.Millisecond}, nil
	}
	if !machine.DeletionTimestamp.IsZero() && !controllerutil.ContainsFinalizer(machine, infrav1.MaasMachineFinalizer) {
		return ctrl.Result{}, nil
	}
	if err := p.observeCluster(ctx); err != nil {
		return ctrl.Result{}, err
	}
	leave, ok := r.bulkhead.enter(p.identityName())
	if !ok {
		return ctrl.Result{RequeueAfter: jitter(crowded, 1)}, nil
	}
	defer leave()
	result, err := p.run(ctx)
	if onlyConflicts(err) {
		// The cache was behind: what was decided is decided again on the newest version.
		return ctrl.Result{RequeueAfter: jitter(100*time.Millisecond, 1)}, nil
	}
	return result, err
}

// madeFor is for how long nothing is written to a new machine that no Machine owns: whoever makes it is not done. Cluster API gives
// up a machine if it meets newer versions of it before the Machine is made, and makes another beside it.
func (p *pass) madeFor() time.Duration {
	if p.owner != nil || !p.machine.DeletionTimestamp.IsZero() || controllerutil.ContainsFinalizer(p.machine, infrav1.MaasMachineFinalizer) {
		return 0
	}
	return min(p.machine.CreationTimestamp.Add(ownedWithin).Sub(p.r.Clock.Now()), ownedWithin)
}

// identityName is the identity that is asked, or will be; empty if none is known.
func (p *pass) identityName() string {
	switch {
	case p.machine.Spec.Claim != nil:
		return p.machine.Spec.Claim.IdentityName
	case p.maasCluster != nil:
		return p.maasCluster.Spec.IdentityRef.Name
	}
	return ""
}

// ours leaves alone what another instance is to handle, and what clusterctl has moved away.
func (r *Reconciler) ours(machine *infrav1.MaasMachine) bool {
	if r.WatchFilterValue != "" && !labels.HasWatchLabel(machine, r.WatchFilterValue) {
		return false
	}
	_, moved := machine.Annotations[clusterctlv1.DeleteForMoveAnnotation]
	return !moved
}

// readOwners reads Machine and Cluster; either may be gone already.
func (p *pass) readOwners(ctx context.Context) error {
	owner, err := util.GetOwnerMachine(ctx, p.r.Client, p.machine.ObjectMeta)
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("read the Machine of MaasMachine: %w", err)
	}
	if err == nil {
		p.owner = owner
	}
	cluster, err := util.GetClusterFromMetadata(ctx, p.r.Client, p.machine.ObjectMeta)
	if err != nil && !errors.Is(err, util.ErrNoCluster) && !apierrors.IsNotFound(err) {
		return fmt.Errorf("read the Cluster of MaasMachine: %w", err)
	}
	if err == nil {
		p.cluster = cluster
	}
	if p.owner != nil {
		p.log = p.log.WithValues("Machine", client.ObjectKeyFromObject(p.owner))
	}
	if p.cluster != nil {
		p.log = p.log.WithValues("Cluster", client.ObjectKeyFromObject(p.cluster))
	}
	return nil
}

// run observes, decides, acts and reports. The status is stored also where the act failed.
func (p *pass) run(ctx context.Context) (ctrl.Result, error) {
	if err := p.renewPatcher(); err != nil {
		return ctrl.Result{}, err
	}
	observation, err := p.observe(ctx)
	if err != nil {
		return ctrl.Result{}, err
	}
	p.o = observation
	before := slices.Clone(p.machine.Status.Conditions)
	step := decide(observation)
	if p.identity != nil && step.Action != ActionAllocate {
		p.identity.Allocations.Leave(client.ObjectKeyFromObject(p.machine))
	}
	p.log.V(4).Info("Decided", "action", step.Action, "pace", step.Pace, "systemID", observation.SystemID)
	step, err = p.act(ctx, step)
	if p.gone {
		return ctrl.Result{}, nil
	}
	if err != nil {
		return ctrl.Result{}, err
	}
	p.report(p.o, step)
	known := p.reportAddresses(ctx, p.o)
	if err := p.patcher.Patch(ctx, p.machine, patch.WithOwnedConditions{Conditions: ownedConditions}); client.IgnoreNotFound(err) != nil {
		return ctrl.Result{}, err
	}
	p.tell(before)
	return ctrl.Result{RequeueAfter: max(p.after(step.Pace, known), step.After)}, nil
}

func onlyConflicts(err error) bool {
	if err == nil {
		return false
	}
	var aggregate kerrors.Aggregate
	if errors.As(err, &aggregate) {
		for _, one := range aggregate.Errors() {
			if !apierrors.IsConflict(one) {
				return false
			}
		}
		return true
	}
	return apierrors.IsConflict(err)
}

// after is the table of paces.
func (p *pass) after(pace Pace, addressKnown bool) time.Duration {
	poll := p.r.PollInterval
	switch pace {
	case PaceNow:
		return jitter(10*time.Millisecond, 1)
	case PacePoll:
		return jitter(poll, 0.1)
	case PaceTurn:
		return jitter(poll/2, 1)
	case PaceScarce:
		return jitter(poll, 1)
	case PaceSteady:
		return p.steady(addressKnown)
	case PaceRare:
		return jitter(p.r.AuditInterval, 0.1)
	}
	return 0
}

// steady wakes when the proof goes stale, if nothing else does before.
func (p *pass) steady(addressKnown bool) time.Duration {
	next := jitter(p.r.AuditInterval, 0.1)
	if !addressKnown || p.fabric != nil && p.fabric.Remote {
		next = min(next, jitter(4*p.r.PollInterval, 0.5))
	}
	if a := p.o.Attachment; a.Valid {
		next = min(next, max(a.ValidUntil.Sub(p.r.Clock.Now()), 0)+time.Second)
	}
	return next
}

// jitter adds up to factor times d, so that machines that wait for the same do not come back together.
func jitter(d time.Duration, factor float64) time.Duration {
	return d + time.Duration(rand.Float64()*factor*float64(d))
}
