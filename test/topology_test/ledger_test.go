// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package topology_test

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"sync"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	toolscache "k8s.io/client-go/tools/cache"
	bootstrapv1 "sigs.k8s.io/cluster-api/api/bootstrap/kubeadm/v1beta2"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
)

// kind is a kind that the ledger keeps.
type kind string

const (
	machineTemplates   kind = "MaasMachineTemplate"
	bootstrapTemplates kind = "KubeadmConfigTemplate"
	machineSets        kind = "MachineSet"
	machines           kind = "Machine"
	maasMachines       kind = "MaasMachine"
)

var kinds = map[kind]client.Object{
	machineTemplates:   &infrav1.MaasMachineTemplate{},
	bootstrapTemplates: &bootstrapv1.KubeadmConfigTemplate{},
	machineSets:        &clusterv1.MachineSet{},
	machines:           &clusterv1.Machine{},
	maasMachines:       &infrav1.MaasMachine{},
}

// ledger remembers all objects of clusters that ever were in a namespace, as they were last.
type ledger struct {
	mu     sync.Mutex
	ever   map[kind]map[string]client.Object
	living map[kind]map[string]bool
}

// keepLedger writes the ledger until ctx ends.
func keepLedger(ctx context.Context, config *rest.Config, scheme *runtime.Scheme, namespace string) (*ledger, error) {
	l := &ledger{ever: map[kind]map[string]client.Object{}, living: map[kind]map[string]bool{}}
	told, err := cache.New(config, cache.Options{Scheme: scheme, DefaultNamespaces: map[string]cache.Config{namespace: {}}})
	if err != nil {
		return nil, err
	}
	for k, object := range kinds {
		l.ever[k], l.living[k] = map[string]client.Object{}, map[string]bool{}
		informer, err := told.GetInformer(ctx, object, cache.BlockUntilSynced(false))
		if err != nil {
			return nil, err
		}
		_, err = informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
			AddFunc:    func(o any) { l.write(k, o, true) },
			UpdateFunc: func(_, o any) { l.write(k, o, true) },
			DeleteFunc: func(o any) { l.write(k, o, false) },
		})
		if err != nil {
			return nil, err
		}
	}
	go func() { _ = told.Start(ctx) }()
	if !told.WaitForCacheSync(ctx) {
		return nil, fmt.Errorf("the ledger could not be opened: %w", ctx.Err())
	}
	return l, nil
}

func (l *ledger) write(k kind, o any, living bool) {
	if unknown, ok := o.(toolscache.DeletedFinalStateUnknown); ok {
		o = unknown.Obj
	}
	object, ok := o.(client.Object)
	if !ok || object.GetLabels()[clusterv1.ClusterNameLabel] == "" {
		return // what belongs to a class belongs to no cluster
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ever[k][object.GetName()], l.living[k][object.GetName()] = object, living
}

// everSeen are the names of all that ever were, livingNow those that are.
func (l *ledger) everSeen(k kind) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return sorted(l.ever[k])
}

func (l *ledger) livingNow(k kind) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.DeleteFunc(sorted(l.ever[k]), func(name string) bool { return !l.living[k][name] })
}

// last is an object as it was last, which must have been seen.
func last[T client.Object](l *ledger, k kind, name string) T {
	l.mu.Lock()
	defer l.mu.Unlock()
	object, ok := l.ever[k][name].(T)
	if !ok {
		panic(fmt.Sprintf("the ledger has no %s %s but %s", k, name, reflect.TypeOf(l.ever[k][name])))
	}
	return object
}

func sorted(m map[string]client.Object) []string {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// page is how the ledger stood at one time.
type page map[kind][]string

func (l *ledger) page() page {
	p := page{}
	for k := range kinds {
		p[k] = l.everSeen(k)
	}
	return p
}

// since are the objects of a kind that are new since the page was written.
func (l *ledger) since(p page, k kind) []string {
	return slices.DeleteFunc(l.everSeen(k), func(name string) bool { return slices.Contains(p[k], name) })
}
