// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

// Package maasmachine claims, attaches, deploys and gives back servers, one MaasMachine at a time. A pass observes MAAS, the
// fabric's objects and the API server, decides on one step without any I/O, does it, and reports.
package maasmachine

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/client-go/tools/events"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
	"sigs.k8s.io/cluster-api/controllers/clustercache"
	"sigs.k8s.io/cluster-api/util"
	"sigs.k8s.io/cluster-api/util/conditions"
	"sigs.k8s.io/cluster-api/util/predicates"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/source"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/internal/scope"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
)

const (
	systemIDIndex = "status.systemID"

	defaultPollInterval  = 5 * time.Second
	defaultAuditInterval = 10 * time.Minute
	// ownedWithin is how long Cluster API may take from making a MaasMachine to making its Machine.
	ownedWithin = 10 * time.Second
	// defaultRefusalGrace lets what the fabric has not seen yet pass before a server is given back for it.
	defaultRefusalGrace = 20 * time.Second
	// unknownGraces is how many times longer the fabric may not know whether it refuses.
	unknownGraces = 15
	// defaultDeployDeadline counts where the identity says nothing.
	defaultDeployDeadline = time.Hour
	// defaultReleaseDeadline likewise.
	defaultReleaseDeadline = time.Hour
	// defaultPassesPerIdentity is a quarter of the workers a controller has by default.
	defaultPassesPerIdentity = 12
	// ownedMaxAge is how old the list of the account's machines may be in the search for a lost one.
	ownedMaxAge = 20 * time.Second
)

// Reconciler reconciles MaasMachines.
type Reconciler struct {
	// Client reads from the cache and writes.
	Client client.Client
	// APIReader reads bootstrap Secrets past the cache.
	APIReader client.Reader
	// Scope turns identities into clients.
	Scope scope.Identities
	// ClusterCache reads Nodes of workload clusters for addresses. May be nil.
	ClusterCache clustercache.ClusterCache
	// Recorder tells people of transitions. May be nil.
	Recorder events.EventRecorder
	// Clock defaults to the real one.
	Clock clock.PassiveClock
	// WatchFilterValue restricts the machines to those with that watch label.
	WatchFilterValue string

	// PollInterval is how often what is under way is looked at. Default 5 s.
	PollInterval time.Duration
	// AuditInterval is how often what is settled is looked at, and what failed for good is tried again. Default 10 min.
	AuditInterval time.Duration
	// OutcomeWindow is for how long the effect of a call whose answer was lost can still appear. Default maas.OutcomeWindow.
	OutcomeWindow time.Duration
	// RefusalGrace is for how long the fabric must refuse a server before it is given back. Default 20 s.
	RefusalGrace time.Duration

	// BootstrapRole and ServiceAccount ("namespace:name") name the RoleBinding a tenant's namespace needs, for the condition
	// that asks for it.
	BootstrapRole, ServiceAccount string

	// PassesPerIdentity is how many machines of one identity are reconciled at once, so that a MAAS that hangs does not keep all
	// workers. Default 12.
	PassesPerIdentity int

	once     sync.Once
	memory   *memory
	bulkhead *bulkhead
}

// complete fills in the defaults.
func (r *Reconciler) complete() {
	r.PollInterval = cmp.Or(r.PollInterval, defaultPollInterval)
	r.AuditInterval = cmp.Or(r.AuditInterval, defaultAuditInterval)
	r.OutcomeWindow = cmp.Or(r.OutcomeWindow, maas.OutcomeWindow)
	r.RefusalGrace = cmp.Or(r.RefusalGrace, defaultRefusalGrace)
	r.BootstrapRole = cmp.Or(r.BootstrapRole, "maas-dpu-bootstrap-secrets")
	r.ServiceAccount = cmp.Or(r.ServiceAccount, "maas-dpu-machine-system:maas-dpu-machine-controller-manager")
	if r.Clock == nil {
		r.Clock = clock.RealClock{}
	}
	if r.memory == nil {
		r.memory = newMemory()
	}
	if r.bulkhead == nil {
		r.bulkhead = newBulkhead(cmp.Or(r.PassesPerIdentity, defaultPassesPerIdentity))
	}
}

// IndexSystemID is the extractor of the index the controller needs on MaasMachines, by the name returned.
func IndexSystemID() (field string, extract client.IndexerFunc) {
	return systemIDIndex, func(object client.Object) []string {
		machine, ok := object.(*infrav1.MaasMachine)
		if !ok || serverOf(machine) == "" {
			return nil
		}
		return []string{serverOf(machine)}
	}
}

// SetupWithManager adds the controller to the manager.
func (r *Reconciler) SetupWithManager(ctx context.Context, mgr ctrl.Manager, options controller.Options) error {
	r.once.Do(r.complete)
	if err := ctx.Err(); err != nil {
		return err
	}
	field, extract := IndexSystemID()
	if err := mgr.GetFieldIndexer().IndexField(ctx, &infrav1.MaasMachine{}, field, extract); err != nil {
		return fmt.Errorf("index MaasMachines by server: %w", err)
	}
	log := mgr.GetLogger().WithValues("controller", "maasmachine")
	ofCluster, err := util.ClusterToTypedObjectsMapper(mgr.GetClient(), &infrav1.MaasMachineList{}, mgr.GetScheme())
	if err != nil {
		return fmt.Errorf("map Clusters to MaasMachines: %w", err)
	}
	filtered := builder.WithPredicates(predicates.ResourceHasFilterLabel(mgr.GetScheme(), log, r.WatchFilterValue))
	build := ctrl.NewControllerManagedBy(mgr).
		Named("maasmachine").
		For(&infrav1.MaasMachine{}, filtered, builder.WithPredicates(moreThanStatus())).
		WithOptions(options).
		Watches(&clusterv1.Machine{},
			handler.EnqueueRequestsFromMapFunc(util.MachineToInfrastructureMapFunc(infrav1.GroupVersion.WithKind("MaasMachine"))), filtered).
		Watches(&clusterv1.Cluster{}, handler.EnqueueRequestsFromMapFunc(ofCluster),
			builder.WithPredicates(predicates.ClusterPausedTransitionsOrInfrastructureProvisioned(mgr.GetScheme(), log))).
		Watches(&infrav1.DPUAttachment{}, handler.EnqueueRequestsFromMapFunc(machineOfAttachment)).
		Watches(&infrav1.MaasClusterIdentity{}, handler.EnqueueRequestsFromMapFunc(r.machinesOfIdentity),
			builder.WithPredicates(identityChanged())).
		Watches(&infrav1.MaasClusterIdentity{}, handler.Funcs{UpdateFunc: r.serversListed})
	if wakes := r.Scope.Wakes(); wakes != nil {
		build = build.WatchesRawSource(source.Channel(wakes, &handler.EnqueueRequestForObject{}))
	}
	if r.ClusterCache != nil {
		build = build.WatchesRawSource(r.ClusterCache.GetClusterSource("maasmachine", ofCluster))
	}
	return build.Complete(r)
}

func machineOfAttachment(_ context.Context, object client.Object) []ctrl.Request {
	attachment, ok := object.(*infrav1.DPUAttachment)
	if !ok {
		return nil
	}
	return []ctrl.Request{{NamespacedName: client.ObjectKey{Namespace: attachment.Namespace, Name: attachment.Spec.MachineName}}}
}

// machinesOfIdentity are those with a claim under the identity, and those without any claim, which may wait for it.
func (r *Reconciler) machinesOfIdentity(ctx context.Context, object client.Object) []ctrl.Request {
	list := &infrav1.MaasMachineList{}
	if err := r.Client.List(ctx, list); err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "Cannot list MaasMachines")
		return nil
	}
	var requests []ctrl.Request
	for i := range list.Items {
		if claim := list.Items[i].Spec.Claim; claim == nil || claim.IdentityName == object.GetName() {
			requests = append(requests, ctrl.Request{NamespacedName: client.ObjectKeyFromObject(&list.Items[i])})
		}
	}
	return requests
}

// moreThanStatus lets through what others change. The status is the controller's own: without this, saying that no server is
// free would at once ask for one again.
func moreThanStatus() predicate.Predicate {
	return predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
		before, after := e.ObjectOld, e.ObjectNew
		return before.GetGeneration() != after.GetGeneration() ||
			!before.GetDeletionTimestamp().Equal(after.GetDeletionTimestamp()) ||
			!maps.Equal(before.GetLabels(), after.GetLabels()) ||
			!maps.Equal(before.GetAnnotations(), after.GetAnnotations()) ||
			!slices.Equal(before.GetFinalizers(), after.GetFinalizers()) ||
			!equality.Semantic.DeepEqual(before.GetOwnerReferences(), after.GetOwnerReferences()) ||
			before.GetResourceVersion() == after.GetResourceVersion() // The periodic resync.
	}}
}

// identityChanged lets through what may change an answer: the spec, and whether the identity can be used.
func identityChanged() predicate.Predicate {
	return predicate.Funcs{
		CreateFunc: func(event.CreateEvent) bool { return false }, // Every machine is reconciled at the start anyway.
		UpdateFunc: func(e event.UpdateEvent) bool {
			before, ok1 := e.ObjectOld.(*infrav1.MaasClusterIdentity)
			after, ok2 := e.ObjectNew.(*infrav1.MaasClusterIdentity)
			return ok1 && ok2 && (before.Generation != after.Generation || breakerOpen(before) != breakerOpen(after) ||
				conditions.IsTrue(before, infrav1.ReadyCondition) != conditions.IsTrue(after, infrav1.ReadyCondition))
		},
	}
}

func breakerOpen(identity *infrav1.MaasClusterIdentity) bool {
	return identity.Status.Breaker != nil && ptr.Deref(identity.Status.Breaker.Open, false)
}

// serversListed wakes the machines whose server the identity has listed, or no longer lists, as suspect or held: some wait for
// that before they go on.
func (r *Reconciler) serversListed(ctx context.Context, e event.UpdateEvent, queue workqueue.TypedRateLimitingInterface[ctrl.Request]) {
	before, ok1 := e.ObjectOld.(*infrav1.MaasClusterIdentity)
	after, ok2 := e.ObjectNew.(*infrav1.MaasClusterIdentity)
	if !ok1 || !ok2 {
		return
	}
	for id := range relisted(&before.Status, &after.Status) {
		list := &infrav1.MaasMachineList{}
		if err := r.Client.List(ctx, list, client.MatchingFields{systemIDIndex: id}); err != nil {
			ctrl.LoggerFrom(ctx).Error(err, "Cannot list MaasMachines")
			return
		}
		for i := range list.Items {
			queue.Add(ctrl.Request{NamespacedName: client.ObjectKeyFromObject(&list.Items[i])})
		}
	}
}

// relisted are the servers of which two statuses say different things.
func relisted(before, after *infrav1.MaasClusterIdentityStatus) sets.Set[string] {
	listings := func(status *infrav1.MaasClusterIdentityStatus) sets.Set[[2]string] {
		all := sets.New[[2]string]()
		for _, held := range status.Held {
			all.Insert([2]string{held.SystemID})
		}
		for _, suspect := range status.Suspects {
			for _, machine := range suspect.Machines {
				all.Insert([2]string{suspect.SystemID, machine})
			}
		}
		return all
	}
	changed := sets.New[string]()
	for listing := range listings(before).SymmetricDifference(listings(after)) {
		changed.Insert(listing[0])
	}
	return changed
}
