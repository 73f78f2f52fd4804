// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package dpfsim

import (
	"context"
	"fmt"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"golang.org/x/sync/errgroup"
)

var kindNode = schema.GroupVersionKind{Version: "v1", Kind: "Node"}

var kindsOfDPUCluster = map[string]bool{kindSIS.Kind: true, kindSI.Kind: true, kindNode.Kind: true}

// startJournal records every change in both clusters from before it returns until ctx ends; wait returns when that has ended.
// Its watches are its own: what happens while DPF's controllers are stopped or restarted is in the journal as well.
func (f *Fabric) startJournal(ctx context.Context) (wait func() error, err error) {
	group := &errgroup.Group{}
	for _, part := range []struct {
		config *rest.Config
		kinds  []schema.GroupVersionKind
	}{
		{f.options.Management, []schema.GroupVersionKind{
			kindDPU, kindDPUDevice, kindDPUNode, kindDPUNodeMaintenance, kindDPUCluster, kindDSI, kindVPC, kindVirtualNetwork, kindIsolationClass,
		}},
		{f.options.DPUCluster, []schema.GroupVersionKind{kindSIS, kindSI, kindNode}},
	} {
		objects, err := cache.New(part.config, cache.Options{Scheme: f.scheme})
		if err != nil {
			return nil, fmt.Errorf("dpfsim: journal: %w", err)
		}
		group.Go(func() error { return objects.Start(ctx) })
		for _, kind := range part.kinds {
			if err := f.journalKind(ctx, objects, kind); err != nil {
				return nil, fmt.Errorf("dpfsim: journal: watch %s: %w", kind.Kind, err)
			}
		}
	}
	return group.Wait, nil
}

// journalKind returns when the kind's objects are in the journal.
func (f *Fabric) journalKind(ctx context.Context, objects cache.Cache, kind schema.GroupVersionKind) error {
	informer, err := objects.GetInformer(ctx, newObject(kind))
	if err != nil {
		return err
	}
	registration, err := informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
		AddFunc:    func(object any) { f.journal.observe(nil, asObject(object)) },
		UpdateFunc: func(before, after any) { f.journal.observe(asObject(before), asObject(after)) },
		DeleteFunc: func(object any) {
			gone := asObject(object)
			f.journal.observe(gone, nil)
			if kind == kindNode {
				f.nodeGone(gone)
			}
		},
	})
	if err != nil {
		return err
	}
	if !toolscache.WaitForCacheSync(ctx.Done(), registration.HasSynced) {
		return ctx.Err()
	}
	return nil
}

// nodeGone takes note of a Node somebody deleted.
func (f *Fabric) nodeGone(node *unstructured.Unstructured) {
	f.hardware.change(node.GetName(), func(c *card) {
		if c.nodeUID == node.GetUID() {
			c.nodeless = true
		}
	})
}

func asObject(object any) *unstructured.Unstructured {
	if gone, ok := object.(toolscache.DeletedFinalStateUnknown); ok {
		object = gone.Obj
	}
	u, _ := object.(*unstructured.Unstructured)
	return u
}

// noting tells the journal which versions of objects DPF's own controllers wrote.
type noting struct {
	client.Client
	journal      *journal
	inDPUCluster bool
}

func (c noting) Create(ctx context.Context, object client.Object, options ...client.CreateOption) error {
	err := c.Client.Create(ctx, object, options...)
	if err == nil {
		c.journal.note(c.inDPUCluster, object)
	}
	return err
}

func (c noting) Patch(ctx context.Context, object client.Object, patch client.Patch, options ...client.PatchOption) error {
	before := object.GetResourceVersion()
	err := c.Client.Patch(ctx, object, patch, options...)
	if err == nil && object.GetResourceVersion() != before { // else nothing was written
		c.journal.note(c.inDPUCluster, object)
	}
	return err
}
