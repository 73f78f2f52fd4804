// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package dpufabric

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/internal/scope"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/provisioningv1alpha1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/vpcv1alpha1"
)

// probesInFlight bounds how many claim sources and DPU clusters of a fabric are asked at once.
const probesInFlight = 8

// observation is what is known about a fabric.
type observation struct {
	probed
	servers []infrav1.DPUServer
	// unwatched is what is not watched now, and why.
	unwatched map[string]error
}

// probed is what the fabric's systems answered. Not to be changed.
type probed struct {
	at         time.Time
	uid        types.UID
	generation int64

	// unusable says why there are no clients at all.
	unusable *scope.UnusableError
	// dpf is why the DPF management cluster could not be asked; dpuClusters likewise, by name; sources by name, with nil for
	// those that answer.
	dpf         error
	dpuClusters map[string]error
	sources     map[string]error
	// ovn are why OVN's databases could not be asked, by name, with nil for those that answer; nil where the fabric names none.
	ovn map[string]error
	// accounts are those behind the sources that answer; used are the sources that attachments use.
	accounts map[string]string
	used     map[string]bool
}

// observe counts the servers each time; the systems are asked again only where the last answers are as old as that.
func (r *Reconciler) observe(ctx context.Context, object *infrav1.DPUFabric, maxAge time.Duration) (*observation, error) {
	servers, err := r.serversOf(ctx, r.Client, object.Name)
	if err != nil {
		return nil, err
	}
	now := r.Clock.Now()
	known := r.recall(object.Name)
	if known == nil || known.uid != object.UID || known.generation != object.Generation || now.Sub(known.at) >= maxAge {
		if known, err = r.probe(ctx, object); err != nil {
			return nil, err
		}
		known.at, known.uid, known.generation = now, object.UID, object.Generation
		r.remember(object.Name, known)
	}
	return &observation{probed: *known, servers: servers, unwatched: r.Watches.Unwatched(object.Name)}, nil
}

func (r *Reconciler) recall(name string) *probed {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.known[name]
}

// remember keeps what a fabric's systems answered; nil forgets it.
func (r *Reconciler) remember(name string, known *probed) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if known == nil {
		delete(r.known, name)
		return
	}
	if r.known == nil {
		r.known = map[string]*probed{}
	}
	r.known[name] = known
}

// probe asks the fabric's systems.
func (r *Reconciler) probe(ctx context.Context, object *infrav1.DPUFabric) (*probed, error) {
	seen := &probed{}
	fabric, err := r.Fabrics.Get(ctx, object.Name)
	if unusable, ok := scope.AsUnusable(err); ok {
		seen.unusable = unusable
		return seen, nil
	}
	if err != nil {
		return nil, err
	}
	all := &infrav1.DPUFabricList{}
	if err := r.Client.List(ctx, all); err != nil {
		return nil, fmt.Errorf("list DPUFabrics: %w", err)
	}

	names := make([]string, 0, len(object.Spec.ClaimSources))
	for i := range object.Spec.ClaimSources {
		names = append(names, object.Spec.ClaimSources[i].Name)
	}
	var (
		mu   sync.Mutex
		wait sync.WaitGroup
	)
	seen.accounts = map[string]string{}
	seen.sources = askAll(names, func(name string) error {
		account, err := probeSource(ctx, fabric, all.Items, name)
		if err == nil {
			mu.Lock()
			defer mu.Unlock()
			seen.accounts[name] = account
		}
		return err
	})
	if seen.used, err = r.usedSources(ctx); err != nil {
		return nil, err
	}
	if fabric.ProbeOVN != nil {
		wait.Go(func() { seen.ovn = fabric.ProbeOVN(ctx) })
	}
	seen.dpuClusters, seen.dpf = probeDPF(ctx, fabric)
	wait.Wait()
	return seen, nil
}

// askAll asks about each name, some at a time, so that one that hangs does not hold up the others.
func askAll(names []string, ask func(name string) error) map[string]error {
	var (
		wait    sync.WaitGroup
		mu      sync.Mutex
		answers = make(map[string]error, len(names))
		slots   = make(chan struct{}, probesInFlight)
	)
	for _, name := range names {
		wait.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			err := ask(name)
			mu.Lock()
			defer mu.Unlock()
			answers[name] = err
		})
	}
	wait.Wait()
	return answers
}

// usedSources are the claim sources that attachments name.
func (r *Reconciler) usedSources(ctx context.Context) (map[string]bool, error) {
	attachments := &infrav1.DPUAttachmentList{}
	if err := r.APIReader.List(ctx, attachments); err != nil {
		return nil, fmt.Errorf("list DPUAttachments: %w", err)
	}
	used := map[string]bool{}
	for i := range attachments.Items {
		used[attachments.Items[i].Spec.Server.Source] = true
	}
	return used, nil
}

// probeSource asks MAAS whose key the fabric has, unless it has just said so.
func probeSource(ctx context.Context, fabric *scope.Fabric, all []infrav1.DPUFabric, name string) (account string, err error) {
	if owner := scope.SourceOwner(all, name); owner != nil && owner.Name != fabric.Object.Name {
		return "", &scope.UnusableError{
			Reason:  infrav1.SourceNameTakenReason,
			Message: fmt.Sprintf("claim source %s belongs to the older DPUFabric %s: give it another name here", name, owner.Name),
		}
	}
	verifier, err := fabric.Verifier(ctx, name)
	if err != nil {
		return "", err
	}
	if err := verifier.Probe(ctx); err != nil {
		if _, ok := scope.AsUnusable(err); ok {
			return "", err
		}
		return "", scope.ClaimSourceError(name, err)
	}
	return verifier.Account, nil
}

// probeDPF asks for what every attachment needs: the VPCs in DPF, and the Nodes of each DPU cluster.
func probeDPF(ctx context.Context, fabric *scope.Fabric) (map[string]error, error) {
	name := fabric.Object.Name
	if err := fabric.DPF.List(ctx, &vpcv1alpha1.DPUVPCList{}, client.InNamespace(fabric.Namespace()), client.Limit(1)); err != nil {
		return nil, scope.FabricError(name, "list DPUVPCs", err)
	}
	clusters := &provisioningv1alpha1.DPUClusterList{}
	if err := fabric.DPF.List(ctx, clusters); err != nil {
		return nil, scope.FabricError(name, "list DPUClusters", err)
	}
	keys := map[string]client.ObjectKey{}
	names := make([]string, 0, len(clusters.Items))
	for i := range clusters.Items {
		key := client.ObjectKeyFromObject(&clusters.Items[i])
		keys[key.String()] = key
		names = append(names, key.String())
	}
	answers := askAll(names, func(cluster string) error {
		reader, err := fabric.DPUCluster(ctx, keys[cluster])
		if err != nil {
			return err
		}
		return scope.FabricError(name, "list Nodes of DPUCluster "+cluster, reader.List(ctx, &corev1.NodeList{}, client.Limit(1)))
	})
	return answers, nil
}

// serversOf are the servers a fabric remembers, by what cannot change in them: labels can be edited away.
func (r *Reconciler) serversOf(ctx context.Context, reader client.Reader, fabric string) ([]infrav1.DPUServer, error) {
	list := &infrav1.DPUServerList{}
	if err := reader.List(ctx, list); err != nil {
		return nil, fmt.Errorf("list the DPUServers of DPUFabric %s: %w", fabric, err)
	}
	return slices.DeleteFunc(list.Items, func(server infrav1.DPUServer) bool { return server.Spec.FabricName != fabric }), nil
}

// observeNeeds reads, uncached, who needs a fabric that is to go.
func (r *Reconciler) observeNeeds(ctx context.Context, fabric *infrav1.DPUFabric) (needs, error) {
	seen := needs{fabric: fabric}
	tenants := &infrav1.TenantVPCList{}
	if err := r.APIReader.List(ctx, tenants); err != nil {
		return needs{}, fmt.Errorf("list TenantVPCs: %w", err)
	}
	attachments := &infrav1.DPUAttachmentList{}
	if err := r.APIReader.List(ctx, attachments); err != nil {
		return needs{}, fmt.Errorf("list DPUAttachments: %w", err)
	}
	fabrics := &infrav1.DPUFabricList{}
	if err := r.APIReader.List(ctx, fabrics); err != nil {
		return needs{}, fmt.Errorf("list DPUFabrics: %w", err)
	}
	servers, err := r.serversOf(ctx, r.APIReader, fabric.Name)
	if err != nil {
		return needs{}, err
	}
	seen.tenants, seen.attachments, seen.fabrics, seen.servers = tenants.Items, attachments.Items, fabrics.Items, servers
	return seen, nil
}
