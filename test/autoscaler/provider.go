// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package autoscaler

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/scale"
	"k8s.io/client-go/tools/cache"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
)

const (
	byProviderID = "provider-id"
	// cachePatience is how long caches may take to fill, where no right is missing. cluster-autoscaler itself waits for ever: a right
	// that is missing shows as silence.
	cachePatience = time.Minute
)

// Provider is what the autoscaler sees of Cluster API and of one workload cluster.
type Provider struct {
	discovery Discovery

	discoverer discovery.DiscoveryInterface
	dynamic    dynamic.Interface
	scales     scale.ScalesGetter
	workload   kubernetes.Interface

	management dynamicinformer.DynamicSharedInformerFactory
	caches     map[string]informers.GenericInformer // of Cluster API's kinds, by resource
	nodes      cache.SharedIndexInformer
	stop       chan struct{}

	mu      sync.Mutex
	refused error // why a cache could not be filled last
	// forbidden is closed once a right was missing.
	forbidden chan struct{}
}

// Open fills the caches. management and workload are all that the Provider may use; Close ends it.
func Open(ctx context.Context, management, workload *rest.Config, discover Discovery) (*Provider, error) {
	p := &Provider{
		discovery: discover, caches: map[string]informers.GenericInformer{}, stop: make(chan struct{}), forbidden: make(chan struct{}),
	}
	if err := p.connect(management, workload); err != nil {
		return nil, err
	}
	version, err := p.clusterAPIVersion()
	if err != nil {
		return nil, err
	}
	p.management = dynamicinformer.NewFilteredDynamicSharedInformerFactory(p.dynamic, 0, discover.Namespace, nil)
	// MachinePools are none of ours, but where the kind exists, nothing begins before they could be listed.
	for _, name := range []string{"machinedeployments", "machinesets", "machines", "machinepools"} {
		p.caches[name] = p.management.ForResource(clusterv1.GroupVersion.WithResource(name))
	}
	factory := informers.NewSharedInformerFactory(p.workload, 0)
	p.nodes = factory.Core().V1().Nodes().Informer()
	if err := p.index(); err != nil {
		return nil, err
	}
	synced := []cache.InformerSynced{p.nodes.HasSynced}
	for _, informer := range p.caches {
		if err := informer.Informer().SetWatchErrorHandler(p.noteRefusal); err != nil {
			return nil, err
		}
		synced = append(synced, informer.Informer().HasSynced)
	}
	if err := p.nodes.SetWatchErrorHandler(p.noteRefusal); err != nil {
		return nil, err
	}
	p.management.Start(p.stop)
	factory.Start(p.stop)
	if err := p.wait(ctx, synced...); err != nil {
		p.Close()
		return nil, fmt.Errorf("filling the caches of Cluster API %s and of Nodes: %w", version, err)
	}
	return p, nil
}

// Close ends what Open started.
func (p *Provider) Close() { close(p.stop) }

func (p *Provider) connect(management, workload *rest.Config) error {
	var err error
	if p.dynamic, err = dynamic.NewForConfig(management); err != nil {
		return err
	}
	if p.discoverer, err = discovery.NewDiscoveryClientForConfig(management); err != nil {
		return err
	}
	mapper := restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(p.discoverer))
	p.scales, err = scale.NewForConfig(management, mapper, dynamic.LegacyAPIPathResolverFunc, scale.NewDiscoveryScaleKindResolver(p.discoverer))
	if err != nil {
		return err
	}
	p.workload, err = kubernetes.NewForConfig(workload)
	return err
}

// clusterAPIVersion is the version the API server prefers, which is the one the autoscaler reads.
func (p *Provider) clusterAPIVersion() (string, error) {
	groups, err := p.discoverer.ServerGroups()
	if err != nil {
		return "", err
	}
	for _, group := range groups.Groups {
		if group.Name != clusterv1.GroupVersion.Group {
			continue
		}
		if group.PreferredVersion.Version != clusterv1.GroupVersion.Version {
			return "", fmt.Errorf("the preferred version of Cluster API is %s; this driver reads %s only", group.PreferredVersion.Version, clusterv1.GroupVersion.Version)
		}
		return group.PreferredVersion.Version, nil
	}
	return "", errors.New("the management cluster has no Cluster API")
}

func (p *Provider) index() error {
	err := p.caches["machines"].Informer().AddIndexers(cache.Indexers{byProviderID: func(object any) ([]string, error) {
		machine, err := machineOf(object)
		if err != nil || machine.Spec.ProviderID == "" {
			return nil, err
		}
		return []string{lastSegment(machine.Spec.ProviderID)}, nil
	}})
	if err != nil {
		return err
	}
	return p.nodes.AddIndexers(cache.Indexers{byProviderID: func(object any) ([]string, error) {
		node, ok := object.(*corev1.Node)
		if !ok || node.Spec.ProviderID == "" {
			return nil, nil
		}
		return []string{lastSegment(node.Spec.ProviderID)}, nil
	}})
}

func (p *Provider) noteRefusal(_ *cache.Reflector, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if apierrors.IsForbidden(err) && !apierrors.IsForbidden(p.refused) {
		close(p.forbidden)
	}
	if !apierrors.IsForbidden(p.refused) {
		p.refused = err
	}
}

func (p *Provider) wait(ctx context.Context, synced ...cache.InformerSynced) error {
	ctx, cancel := context.WithTimeout(ctx, cachePatience)
	defer cancel()
	go func() {
		select {
		case <-p.forbidden:
			cancel()
		case <-ctx.Done():
		}
	}()
	if cache.WaitForCacheSync(ctx.Done(), synced...) {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return errors.Join(context.Cause(ctx), p.refused)
}

// infrastructure reads the template a group's machines are made from, in the first version of its group that has the kind.
func (p *Provider) infrastructure(ctx context.Context, namespace string, ref clusterv1.ContractVersionedObjectReference) (*unstructured.Unstructured, error) {
	resource, err := p.resourceOf(ref)
	if err != nil {
		return nil, err
	}
	informer := p.management.ForResource(resource)
	// One that runs refuses the handler, and has it.
	_ = informer.Informer().SetWatchErrorHandler(p.noteRefusal)
	p.management.Start(p.stop)
	if err := p.wait(ctx, informer.Informer().HasSynced); err != nil {
		return nil, fmt.Errorf("filling the cache of %s: %w", resource.Resource, err)
	}
	object, err := informer.Lister().ByNamespace(namespace).Get(ref.Name)
	if err != nil {
		return nil, err
	}
	template, ok := object.(*unstructured.Unstructured)
	if !ok {
		return nil, fmt.Errorf("the cache holds a %T", object)
	}
	return template, nil
}

func (p *Provider) resourceOf(ref clusterv1.ContractVersionedObjectReference) (schema.GroupVersionResource, error) {
	groups, err := p.discoverer.ServerGroups()
	if err != nil {
		return schema.GroupVersionResource{}, err
	}
	for _, group := range groups.Groups {
		if group.Name != ref.APIGroup {
			continue
		}
		for _, version := range group.Versions {
			served, err := p.discoverer.ServerResourcesForGroupVersion(version.GroupVersion)
			if err != nil {
				return schema.GroupVersionResource{}, err
			}
			for _, r := range served.APIResources {
				if r.Kind == ref.Kind {
					// The plural is guessed, not read.
					return schema.GroupVersionResource{Group: ref.APIGroup, Version: version.Version, Resource: pluralOf(ref.Kind)}, nil
				}
			}
		}
	}
	return schema.GroupVersionResource{}, fmt.Errorf("nobody serves the kind %s of %s", ref.Kind, ref.APIGroup)
}

func machineOf(object any) (*clusterv1.Machine, error) { return as[clusterv1.Machine](object) }

// as reads a cached object in its own type.
func as[T any](object any) (*T, error) {
	found, ok := object.(*unstructured.Unstructured)
	if !ok {
		return nil, fmt.Errorf("the cache holds a %T", object)
	}
	into := new(T)
	return into, runtime.DefaultUnstructuredConverter.FromUnstructured(found.Object, into)
}
