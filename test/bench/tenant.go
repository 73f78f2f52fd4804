// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
	"sigs.k8s.io/cluster-api/util/conditions"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
)

const (
	wingNamespace = "wing"
	tenant        = "tenant"
	bootstrap     = "bootstrap"
	subnet        = "nodes"
	userData      = "## template: jinja\n#cloud-config\nwrite_files: []\n"

	// writers is how many objects are written at once.
	writers         = 16
	clusterPatience = time.Minute
)

// register makes what operator and tenant make, up to the clusters, and what the fabric wing would say of it.
func (w *world) register(ctx context.Context) error {
	for _, name := range []string{wingNamespace, tenant} {
		if err := w.create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}); err != nil {
			return err
		}
	}
	if err := w.create(ctx, secret(tenant, bootstrap, "value", userData)); err != nil {
		return err
	}
	vpc := &infrav1.TenantVPC{
		ObjectMeta: metav1.ObjectMeta{Namespace: tenant, Name: "vpc"},
		Spec:       infrav1.TenantVPCSpec{FabricName: "fabric", Subnets: []infrav1.VPCSubnet{{Name: subnet, CIDR: "10.64.0.0/16"}}},
	}
	vpc.Status.Subnets = []infrav1.VPCSubnetStatus{{Name: subnet, CIDR: "10.64.0.0/16", ExternallyRouted: ptr.To(true)}}
	conditions.Set(vpc, metav1.Condition{Type: infrav1.ReadyCondition, Status: metav1.ConditionTrue, Reason: infrav1.ReadyReason})
	if err := w.createWithStatus(ctx, vpc, vpc.DeepCopy()); err != nil {
		return err
	}
	for _, s := range w.sites {
		if err := w.registerSite(ctx, s); err != nil {
			return fmt.Errorf("register %s: %w", s.name, err)
		}
	}
	return nil
}

func (w *world) registerSite(ctx context.Context, s *site) error {
	if err := w.create(ctx, secret(wingNamespace, s.name, "apiKey", accountKey)); err != nil {
		return err
	}
	identity := &infrav1.MaasClusterIdentity{ObjectMeta: metav1.ObjectMeta{Name: s.name}}
	identity.Spec.Endpoint, identity.Spec.Source = s.endpoint(), s.name
	identity.Spec.SecretRef = infrav1.LocalSecretReference{Name: s.name}
	identity.Spec.AllowedNamespaces = &infrav1.AllowedNamespaces{Names: []string{tenant}}
	if s.allocates > 0 {
		identity.Spec.MaxParallelAllocates = ptr.To(s.allocates)
	}
	if err := w.create(ctx, identity); err != nil {
		return err
	}
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(writers)
	for i := range s.servers {
		group.Go(func() error {
			server := dpuServer(s.name, s.systemID(i))
			return w.createWithStatus(groupCtx, server, server.DeepCopy())
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	cluster := &clusterv1.Cluster{ObjectMeta: metav1.ObjectMeta{Namespace: tenant, Name: s.name}, Spec: clusterv1.ClusterSpec{
		InfrastructureRef:    reference("MaasCluster", s.name),
		ControlPlaneEndpoint: clusterv1.APIEndpoint{Host: "192.0.2.10", Port: 6443},
	}}
	if err := w.create(ctx, cluster); err != nil {
		return err
	}
	return w.create(ctx, &infrav1.MaasCluster{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: tenant, Name: s.name, Labels: map[string]string{clusterv1.ClusterNameLabel: s.name},
			OwnerReferences: []metav1.OwnerReference{{
				APIVersion: clusterv1.GroupVersion.String(), Kind: "Cluster", Name: s.name, UID: cluster.UID,
			}},
		},
		Spec: infrav1.MaasClusterSpec{IdentityRef: infrav1.IdentityReference{Name: s.name}, VPCName: "vpc"},
	})
}

func dpuServer(source, systemID string) *infrav1.DPUServer {
	return &infrav1.DPUServer{
		ObjectMeta: metav1.ObjectMeta{Name: infrav1.DPUServerName(source, systemID)},
		Spec:       infrav1.DPUServerSpec{FabricName: "fabric", Source: source, SystemID: systemID},
		Status: infrav1.DPUServerStatus{Eligibility: infrav1.Eligible, DPUs: []infrav1.BoundDPU{
			{DPUDevice: "dpu-" + systemID, Ports: []infrav1.DPUServerPort{{PF: ptr.To[int32](0)}}},
		}},
	}
}

// awaitClusters plays Cluster API's part for the clusters.
func (w *world) awaitClusters(ctx context.Context) error {
	for _, s := range w.sites {
		key := client.ObjectKey{Namespace: tenant, Name: s.name}
		made := &infrav1.MaasCluster{}
		if err := w.until(ctx, "cluster "+s.name+" is provisioned", clusterPatience, func(ctx context.Context) (bool, string, error) {
			err := w.objects.Get(ctx, key, made)
			return ptr.Deref(made.Status.Initialization.Provisioned, false), conditions.GetMessage(made, infrav1.ReadyCondition), err
		}); err != nil {
			return err
		}
		cluster := &clusterv1.Cluster{}
		if err := w.objects.Get(ctx, key, cluster); err != nil {
			return err
		}
		cluster.Status.Initialization.InfrastructureProvisioned = ptr.To(true)
		if err := w.objects.Status().Update(ctx, cluster); err != nil {
			return err
		}
	}
	return nil
}

// fleet are machines of one site that were created together.
type fleet struct {
	world *world
	site  *site
	names []string
	// start is when the first was created.
	start time.Time

	mu      sync.Mutex
	created map[string]time.Time
}

// createMachines makes count machines as Cluster API does, at once; what of Cluster API they need is there before.
func (w *world) createMachines(ctx context.Context, s *site, prefix string, count int) (*fleet, error) {
	f := &fleet{world: w, site: s, created: map[string]time.Time{}}
	owners := make([]*clusterv1.Machine, count)
	for i := range owners {
		name := fmt.Sprintf("%s-%s%03d", s.name, prefix, i)
		f.names = append(f.names, name)
		owners[i] = &clusterv1.Machine{
			ObjectMeta: metav1.ObjectMeta{Namespace: tenant, Name: name, Labels: map[string]string{clusterv1.ClusterNameLabel: s.name}},
			Spec: clusterv1.MachineSpec{
				ClusterName: s.name, Bootstrap: clusterv1.Bootstrap{DataSecretName: ptr.To(bootstrap)},
				InfrastructureRef: reference("MaasMachine", name),
			},
		}
	}
	if err := together(ctx, count, func(ctx context.Context, i int) error { return w.create(ctx, owners[i]) }); err != nil {
		return nil, err
	}
	f.start = time.Now()
	return f, together(ctx, count, func(ctx context.Context, i int) error {
		machine := maasMachine(owners[i])
		f.mu.Lock()
		f.created[machine.Name] = time.Now()
		f.mu.Unlock()
		return w.create(ctx, machine)
	})
}

func maasMachine(owner *clusterv1.Machine) *infrav1.MaasMachine {
	return &infrav1.MaasMachine{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: tenant, Name: owner.Name, Labels: owner.Labels,
			OwnerReferences: []metav1.OwnerReference{{
				APIVersion: clusterv1.GroupVersion.String(), Kind: "Machine", Name: owner.Name, UID: owner.UID, Controller: ptr.To(true),
			}},
		},
		Spec: infrav1.MaasMachineSpec{MachineConstraints: infrav1.MachineConstraints{
			Image: "ubuntu/noble", Ports: []infrav1.MachinePort{{Name: "net0", PF: ptr.To[int32](0), Subnet: subnet}},
		}},
	}
}

// remove deletes the fleet at once.
func (f *fleet) remove(ctx context.Context) error {
	return together(ctx, len(f.names), func(ctx context.Context, i int) error {
		return f.world.objects.Delete(ctx, &infrav1.MaasMachine{ObjectMeta: metav1.ObjectMeta{Namespace: tenant, Name: f.names[i]}})
	})
}

func reference(kind, name string) clusterv1.ContractVersionedObjectReference {
	return clusterv1.ContractVersionedObjectReference{APIGroup: infrav1.GroupVersion.Group, Kind: kind, Name: name}
}

func secret(namespace, name, key, value string) *corev1.Secret {
	return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Data: map[string][]byte{key: []byte(value)}}
}

// together does something count times, a few at once.
func together(ctx context.Context, count int, do func(context.Context, int) error) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(writers)
	for i := range count {
		group.Go(func() error { return do(ctx, i) })
	}
	return group.Wait()
}

func (w *world) create(ctx context.Context, object client.Object) error {
	if err := w.objects.Create(ctx, object); err != nil {
		return fmt.Errorf("create %T %s: %w", object, object.GetName(), err)
	}
	return nil
}

// createWithStatus creates an object and then gives it the status of another.
func (w *world) createWithStatus(ctx context.Context, object, wanted client.Object) error {
	if err := w.create(ctx, object); err != nil {
		return err
	}
	wanted.SetResourceVersion(object.GetResourceVersion())
	wanted.SetUID(object.GetUID())
	if err := w.objects.Status().Update(ctx, wanted); err != nil {
		return fmt.Errorf("write the status of %T %s: %w", object, object.GetName(), err)
	}
	return nil
}
