// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package machinewing_test

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/controllers/maasmachine"
)

// apiServer is a management cluster's API server in memory. It gives UIDs and counts generations as the real one does, and
// tells listeners of every version of every object, in the order of the writes.
type apiServer struct {
	// client is what everybody uses.
	client client.WithWatch

	raw client.WithWatch
	// mu is held for writing during a write, so that nobody sees half of one, and guards what follows.
	mu        sync.RWMutex
	made      int
	versions  []func(object client.Object, deleted bool)
	listeners []*listener
	// judge has an error for each Get that is to fail.
	judge func(client.ObjectKey, client.Object) error
}

// refuse lets a judge decide over each Get; nil lets all through.
func (a *apiServer) refuse(judge func(client.ObjectKey, client.Object) error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.judge = judge
}

func newAPIServer(scheme *runtime.Scheme) *apiServer {
	field, extract := maasmachine.IndexSystemID()
	a := &apiServer{raw: fake.NewClientBuilder().WithScheme(scheme).WithRESTMapper(mapperOf(scheme)).
		WithStatusSubresource(&infrav1.MaasMachine{}, &infrav1.MaasClusterIdentity{}, &infrav1.DPUAttachment{}, &infrav1.MaasCluster{},
			&infrav1.TenantVPC{}, &infrav1.DPUServer{}, &clusterv1.Cluster{}).
		WithIndex(&infrav1.MaasMachine{}, field, extract).Build()}
	a.client = interceptor.NewClient(a.raw, a.funcs())
	return a
}

// mapperOf maps every kind and every list of the scheme, as discovery does.
func mapperOf(scheme *runtime.Scheme) meta.RESTMapper {
	mapper := meta.NewDefaultRESTMapper(scheme.PrioritizedVersionsAllGroups())
	for kind := range scheme.AllKnownTypes() {
		scope := meta.RESTScopeNamespace
		if slices.Contains([]string{"MaasClusterIdentity", "DPUServer", "DPUFabric", "Namespace", "Node"}, strings.TrimSuffix(kind.Kind, "List")) {
			scope = meta.RESTScopeRoot
		}
		mapper.Add(kind, scope)
	}
	return mapper
}

func (a *apiServer) funcs() interceptor.Funcs {
	return interceptor.Funcs{
		Create: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.CreateOption) error {
			return a.write(ctx, o, func() error { a.stamp(o); return c.Create(ctx, o, opts...) })
		},
		Delete: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.DeleteOption) error {
			return a.write(ctx, o, func() error { return c.Delete(ctx, o, opts...) })
		},
		Update: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.UpdateOption) error {
			return a.write(ctx, o, func() error { return c.Update(ctx, o, opts...) })
		},
		Patch: func(ctx context.Context, c client.WithWatch, o client.Object, patch client.Patch, opts ...client.PatchOption) error {
			return a.write(ctx, o, func() error { return c.Patch(ctx, o, patch, opts...) })
		},
		SubResourceUpdate: func(ctx context.Context, c client.Client, sub string, o client.Object, opts ...client.SubResourceUpdateOption) error {
			return a.write(ctx, o, func() error { return c.SubResource(sub).Update(ctx, o, opts...) })
		},
		SubResourcePatch: func(ctx context.Context, c client.Client, sub string, o client.Object, patch client.Patch, opts ...client.SubResourcePatchOption) error {
			return a.write(ctx, o, func() error { return c.SubResource(sub).Patch(ctx, o, patch, opts...) })
		},
		Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
			a.mu.RLock()
			defer a.mu.RUnlock()
			if a.judge != nil {
				if err := a.judge(key, o); err != nil {
					return err
				}
			}
			return c.Get(ctx, key, o, opts...)
		},
		List: func(ctx context.Context, c client.WithWatch, list client.ObjectList, opts ...client.ListOption) error {
			a.mu.RLock()
			defer a.mu.RUnlock()
			return c.List(ctx, list, opts...)
		},
	}
}

// stamp gives a new object what the API server gives it.
func (a *apiServer) stamp(object client.Object) {
	a.made++
	object.SetUID(types.UID(fmt.Sprintf("uid-%03d", a.made)))
	object.SetCreationTimestamp(metav1.NewTime(time.Now().Truncate(time.Second)))
	object.SetGeneration(1)
}

// write does one write and tells of it. A changed spec is a new generation.
func (a *apiServer) write(ctx context.Context, object client.Object, do func() error) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	before, err := a.load(ctx, object)
	if err != nil {
		return err
	}
	if err := do(); err != nil {
		return err
	}
	after, err := a.load(ctx, object)
	if err != nil {
		return err
	}
	if before != nil && after != nil && !reflect.DeepEqual(a.spec(before), a.spec(after)) {
		after.SetGeneration(before.GetGeneration() + 1)
		if err := a.raw.Update(ctx, after); err != nil {
			return err
		}
		if err := a.copy(after, object); err != nil {
			return err
		}
	}
	a.tell(before, after)
	return nil
}

// load returns an object as it is; nil if it is not there.
func (a *apiServer) load(ctx context.Context, object client.Object) (client.Object, error) {
	kind, err := apiutil.GVKForObject(object, a.raw.Scheme())
	if err != nil {
		return nil, err
	}
	made, err := a.raw.Scheme().New(kind)
	if err != nil {
		return nil, err
	}
	loaded := made.(client.Object)
	err = a.raw.Get(context.WithoutCancel(ctx), client.ObjectKeyFromObject(object), loaded)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	return loaded, err
}

func (a *apiServer) copy(from, to client.Object) error {
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(from)
	if err != nil {
		return err
	}
	if u, ok := to.(*unstructured.Unstructured); ok {
		u.Object = content
		return nil
	}
	reflect.ValueOf(to).Elem().Set(reflect.ValueOf(from.DeepCopyObject()).Elem())
	return nil
}

func (a *apiServer) spec(object client.Object) any {
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(object)
	if err != nil {
		return err
	}
	return content["spec"]
}

// asUnstructured is an object with its kind.
func (a *apiServer) asUnstructured(object client.Object) *unstructured.Unstructured {
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(object)
	if err != nil {
		panic(err) // Every kind of ours can be written down.
	}
	u := &unstructured.Unstructured{Object: content}
	u.SetGroupVersionKind(a.kindOf(object))
	return u
}

func (a *apiServer) kindOf(object client.Object) schema.GroupVersionKind {
	kind, err := apiutil.GVKForObject(object, a.raw.Scheme())
	if err != nil {
		panic(err) // Nothing else was created.
	}
	return kind
}

// watchVersions calls note for every version of every object written from now on. It must not use the API server.
func (a *apiServer) watchVersions(note func(object client.Object, deleted bool)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.versions = append(a.versions, note)
}

func (a *apiServer) tell(before, after client.Object) {
	last := after
	if last == nil {
		last = before
	}
	if last == nil {
		return
	}
	for _, note := range a.versions {
		note(last, after == nil)
	}
	for _, l := range a.listeners {
		if l.kind == a.kindOf(last) {
			l.push(version{before: before, after: after})
		}
	}
}

// vanish takes an object away whatever finalizers it has, as clusterctl move does with what it has moved.
func (a *apiServer) vanish(ctx context.Context, object client.Object) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	before, err := a.load(ctx, object)
	if err != nil || before == nil {
		return err
	}
	object.SetResourceVersion(before.GetResourceVersion())
	object.SetFinalizers(nil)
	if err := a.raw.Update(ctx, object); err != nil {
		return err
	}
	// One that was being deleted went with its last finalizer.
	if err := client.IgnoreNotFound(a.raw.Delete(ctx, object)); err != nil {
		return err
	}
	a.tell(before, nil)
	return nil
}
