// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

// Package hosted runs control planes for clusters that have none on their own servers: a real etcd and kube-apiserver on the
// operator's side for each HostedControlPlane, a kind that exists in the lab only. It stands for the products that do this and
// keeps to Cluster API's contract for control planes that are managed externally.
package hosted

import (
	"context"
	_ "embed" // for the kind
	"fmt"
	"slices"
	"time"

	"github.com/go-logr/logr"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/wait"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/lab/controlplane"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/lab/proc"
)

const (
	interval       = 500 * time.Millisecond
	establishedFor = time.Minute
	fieldOwner     = client.FieldOwner("hosted-control-planes")
)

// Kind is the control plane's, for Cluster.spec.controlPlaneRef.
var Kind = schema.GroupVersionKind{Group: "controlplane.lab.dpucloud.github.com", Version: "v1", Kind: "HostedControlPlane"}

//go:embed crd.yaml
var definition []byte

// Kubelets are the servers that may join: a rack.
type Kubelets interface {
	Serve(ctx context.Context, endpoint string, server *controlplane.RunningAPIServer) error
	Withdraw(ctx context.Context, endpoint string) error
}

// Options configure Planes; all but Log are needed.
type Options struct {
	// Management has all rights in the management cluster.
	Management *rest.Config
	// Supervisor runs the processes, and ends them with the lab.
	Supervisor *proc.Supervisor
	// Bin is the directory with etcd and kube-apiserver, Dir is scratch.
	Bin, Dir string
	Kubelets Kubelets
	Log      logr.Logger
}

// Planes looks after all HostedControlPlanes of a management cluster.
type Planes struct {
	options Options
	client  client.Client
	planes  map[client.ObjectKey]*plane
}

// New returns Planes that do nothing before Run.
func New(options Options) (*Planes, error) {
	if options.Log.GetSink() == nil {
		options.Log = logr.Discard()
	}
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, clusterv1.AddToScheme} {
		if err := add(scheme); err != nil {
			return nil, err
		}
	}
	c, err := client.New(options.Management, client.Options{Scheme: scheme})
	if err != nil {
		return nil, err
	}
	return &Planes{options: options, client: c, planes: map[client.ObjectKey]*plane{}}, nil
}

// Install defines the kind and waits until it is served.
func (p *Planes) Install(ctx context.Context) error {
	object := &unstructured.Unstructured{}
	if err := yaml.Unmarshal(definition, &object.Object); err != nil {
		return err
	}
	if err := p.client.Apply(ctx, client.ApplyConfigurationFromUnstructured(object), fieldOwner, client.ForceOwnership); err != nil {
		return fmt.Errorf("define %s: %w", Kind.Kind, err)
	}
	return wait.PollUntilContextTimeout(ctx, interval, establishedFor, true, func(ctx context.Context) (bool, error) {
		err := p.client.List(ctx, list())
		return err == nil, nil
	})
}

// Run brings control planes up and down until ctx ends. What runs then is the supervisor's to end.
func (p *Planes) Run(ctx context.Context) error {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		objects := list()
		if err := p.client.List(ctx, objects); err != nil {
			if ctx.Err() == nil && !apimeta.IsNoMatchError(err) {
				p.options.Log.Error(err, "listing hosted control planes")
			}
			continue
		}
		for i := range objects.Items {
			object := &objects.Items[i]
			if err := p.reconcile(ctx, object); err != nil && ctx.Err() == nil {
				p.options.Log.Error(err, "hosting a control plane", "object", client.ObjectKeyFromObject(object))
			}
		}
	}
}

func list() *unstructured.UnstructuredList {
	objects := &unstructured.UnstructuredList{}
	objects.SetGroupVersionKind(Kind.GroupVersion().WithKind(Kind.Kind + "List"))
	return objects
}

func (p *Planes) reconcile(ctx context.Context, object *unstructured.Unstructured) error {
	key := client.ObjectKeyFromObject(object)
	if object.GetDeletionTimestamp() != nil {
		return p.end(ctx, key, object)
	}
	cluster, err := p.owner(ctx, object)
	if err != nil || cluster == nil {
		return err // a control plane without a cluster waits for one
	}
	if cluster.Spec.Paused != nil && *cluster.Spec.Paused {
		return nil
	}
	if p.planes[key] != nil {
		return p.report(ctx, object)
	}
	if !slices.Contains(object.GetFinalizers(), finalizer) {
		before := object.DeepCopy()
		object.SetFinalizers(append(object.GetFinalizers(), finalizer))
		if err := p.client.Patch(ctx, object, client.MergeFrom(before)); err != nil {
			return err
		}
	}
	endpoint, err := p.endpoint(ctx, object, cluster)
	if err != nil {
		return err
	}
	started, err := p.start(ctx, object, cluster, endpoint)
	if err != nil {
		return err
	}
	p.planes[key] = started
	return p.report(ctx, object)
}

// owner is the Cluster that names the object as its control plane, nil while none does.
func (p *Planes) owner(ctx context.Context, object *unstructured.Unstructured) (*clusterv1.Cluster, error) {
	for _, owner := range object.GetOwnerReferences() {
		if owner.Kind != "Cluster" || owner.APIVersion != clusterv1.GroupVersion.String() {
			continue
		}
		cluster := &clusterv1.Cluster{}
		err := p.client.Get(ctx, client.ObjectKey{Namespace: object.GetNamespace(), Name: owner.Name}, cluster)
		if err != nil {
			return nil, client.IgnoreNotFound(err)
		}
		return cluster, nil
	}
	return nil, nil
}

// endpoint is the one that somebody has chosen, or a new one, which is written down.
func (p *Planes) endpoint(ctx context.Context, object *unstructured.Unstructured, cluster *clusterv1.Cluster) (clusterv1.APIEndpoint, error) {
	chosen := endpointOf(object)
	if chosen.IsZero() {
		chosen = cluster.Spec.ControlPlaneEndpoint
	}
	if chosen.IsZero() {
		var err error
		if chosen, err = p.infrastructureEndpoint(ctx, cluster); err != nil {
			return chosen, err
		}
	}
	if chosen.IsZero() {
		port, err := proc.FreePort()
		if err != nil {
			return chosen, err
		}
		chosen = clusterv1.APIEndpoint{Host: "127.0.0.1", Port: port}
	}
	if chosen.Host != "127.0.0.1" {
		return chosen, fmt.Errorf("the endpoint %s is not on 127.0.0.1, where the lab's control planes live", chosen.String())
	}
	before := object.DeepCopy()
	if err := unstructured.SetNestedMap(object.Object, map[string]any{"host": chosen.Host, "port": int64(chosen.Port)}, "spec", "controlPlaneEndpoint"); err != nil {
		return chosen, err
	}
	return chosen, p.client.Patch(ctx, object, client.MergeFrom(before))
}

// infrastructureEndpoint is what the cluster's infrastructure asks for, which the Cluster takes over only once that is
// provisioned.
func (p *Planes) infrastructureEndpoint(ctx context.Context, cluster *clusterv1.Cluster) (clusterv1.APIEndpoint, error) {
	ref := cluster.Spec.InfrastructureRef
	mapping, err := p.client.RESTMapper().RESTMapping(schema.GroupKind{Group: ref.APIGroup, Kind: ref.Kind})
	if err != nil {
		return clusterv1.APIEndpoint{}, err
	}
	infrastructure := &unstructured.Unstructured{}
	infrastructure.SetGroupVersionKind(mapping.GroupVersionKind)
	if err := p.client.Get(ctx, client.ObjectKey{Namespace: cluster.Namespace, Name: ref.Name}, infrastructure); err != nil {
		return clusterv1.APIEndpoint{}, err // it may come later: not knowing it is no reason to choose another
	}
	return endpointOf(infrastructure), nil
}

func endpointOf(object *unstructured.Unstructured) clusterv1.APIEndpoint {
	host, _, _ := unstructured.NestedString(object.Object, "spec", "controlPlaneEndpoint", "host")
	port, _, _ := unstructured.NestedInt64(object.Object, "spec", "controlPlaneEndpoint", "port")
	return clusterv1.APIEndpoint{Host: host, Port: int32(port)}
}

// report says what the contract asks for.
func (p *Planes) report(ctx context.Context, object *unstructured.Unstructured) error {
	if done, _, _ := unstructured.NestedBool(object.Object, "status", "initialization", "controlPlaneInitialized"); done {
		return nil
	}
	before := object.DeepCopy()
	version, _, _ := unstructured.NestedString(object.Object, "spec", "version")
	object.Object["status"] = map[string]any{
		"initialization":              map[string]any{"controlPlaneInitialized": true},
		"externalManagedControlPlane": true,
		"version":                     version,
		"versions":                    []any{map[string]any{"version": version}},
		"conditions": []any{map[string]any{
			"type": clusterv1.AvailableCondition, "status": string(metav1.ConditionTrue), "reason": clusterv1.AvailableReason,
			"observedGeneration": object.GetGeneration(), "lastTransitionTime": metav1.Now().UTC().Format(time.RFC3339),
		}},
	}
	return p.client.Status().Patch(ctx, object, client.MergeFrom(before))
}
