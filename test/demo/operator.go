// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/cluster-api/util/conditions"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/dpfsim"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/maassim"
)

const (
	machineNamespace = "maas-dpu-machine-system"
	fabricNamespace  = "maas-dpu-fabric-system"
	tenantPool       = "10.64.0.0/10"

	// The account the fabric wing has on DPF's side, as config/dpf binds it.
	dpfAccount = "maas-dpu-fabric"
)

// register makes what an operator makes once: rights on DPF's side, Secrets, the fabric and the identity.
func (w *World) register(ctx, _ context.Context) error {
	if err := w.Lab.ApplyKustomization(ctx, w.Lab.DPFManagement(), "config/dpf/management"); err != nil {
		return err
	}
	if err := w.Lab.ApplyKustomization(ctx, w.Lab.DPUCluster(), "config/dpf/dpucluster"); err != nil {
		return err
	}
	path, err := w.Lab.ServiceAccountKubeconfig(ctx, w.Lab.DPFManagement(), dpfNamespace, dpfAccount)
	if err != nil {
		return err
	}
	kubeconfig, err := os.ReadFile(filepath.Clean(path))
	if err != nil {
		return err
	}
	objects := []client.Object{
		secret(machineNamespace, MaasSecret, "apiKey", []byte(w.maasKey)),
		secret(fabricNamespace, MaasSecret, "apiKey", []byte(w.maasKey)),
		secret(fabricNamespace, KubeconfigSecret, "kubeconfig", kubeconfig),
		bmcSecret(),
		w.fabric(),
		w.identity(),
	}
	for _, object := range objects {
		if err := w.Operator.Create(ctx, object); err != nil {
			return fmt.Errorf("create %T %s: %w", object, object.GetName(), err)
		}
	}
	return w.waitRegistered(ctx)
}

func secret(namespace, name, key string, value []byte) *corev1.Secret {
	return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Data: map[string][]byte{key: value}}
}

func (w *World) fabric() *infrav1.DPUFabric {
	fabric := &infrav1.DPUFabric{ObjectMeta: metav1.ObjectMeta{Name: fabricName}}
	fabric.Spec.Backend = infrav1.FabricBackend{Type: infrav1.FabricBackendOVNVPC, OVNVPC: &infrav1.OVNVPCBackend{
		KubeconfigSecretRef: infrav1.LocalSecretReference{Name: KubeconfigSecret}, IsolationClassName: dpfsim.IsolationClassName,
	}}
	w.askOVN(fabric)
	fabric.Spec.ClaimSources = []infrav1.ClaimSource{{
		Name: source, Endpoint: w.maasEndpoint, CABundle: w.maasCA.CertPEM, SecretRef: infrav1.LocalSecretReference{Name: MaasSecret},
	}}
	fabric.Spec.AllowedNamespaces = &infrav1.AllowedNamespaces{}
	for _, tenant := range w.options.Tenants {
		fabric.Spec.ClaimSources[0].Namespaces = append(fabric.Spec.ClaimSources[0].Namespaces, infrav1.ClaimNamespace{Name: tenant})
		fabric.Spec.AllowedNamespaces.Names = append(fabric.Spec.AllowedNamespaces.Names, tenant)
	}
	fabric.Spec.TenantPools = []string{tenantPool}
	w.askPosture(fabric)
	fabric.Spec.ProvisioningNetwork = infrav1.ProvisioningNetwork{PortIsolation: infrav1.PortIsolationAsserted, Fabrics: []string{provisioningSpace}}
	return fabric
}

func (w *World) identity() *infrav1.MaasClusterIdentity { return w.NewIdentity(source) }

// NewIdentity is a MaasClusterIdentity like World's own by another name, to be changed and created.
func (w *World) NewIdentity(name string) *infrav1.MaasClusterIdentity {
	identity := &infrav1.MaasClusterIdentity{ObjectMeta: metav1.ObjectMeta{Name: name}}
	identity.Spec.Endpoint, identity.Spec.CABundle, identity.Spec.Source = w.maasEndpoint, w.maasCA.CertPEM, source
	identity.Spec.SecretRef = infrav1.LocalSecretReference{Name: MaasSecret}
	identity.Spec.AllowedZones = w.options.Zones
	identity.Spec.AllowedNamespaces = &infrav1.AllowedNamespaces{Names: w.options.Tenants}
	return identity
}

// waitRegistered waits until both say Ready and the fabric knows which servers can be claimed: all good ones and no other.
func (w *World) waitRegistered(ctx context.Context) error {
	good := 0
	for _, s := range w.Servers {
		if s.Good() {
			good++
		}
	}
	return eventually(ctx, 2*time.Minute, "identity and fabric are Ready", func(ctx context.Context) (bool, string, error) {
		identity, fabric := &infrav1.MaasClusterIdentity{}, &infrav1.DPUFabric{}
		if err := w.Operator.Get(ctx, client.ObjectKey{Name: source}, identity); err != nil {
			return false, "", err
		}
		if err := w.Operator.Get(ctx, client.ObjectKey{Name: fabricName}, fabric); err != nil {
			return false, "", err
		}
		eligible := int(ptr.Deref(fabric.Status.EligibleServers, 0))
		why := fmt.Sprintf("identity: %s; fabric: %s; %d of %d servers eligible", readiness(identity), readiness(fabric), eligible, good)
		return conditions.IsTrue(identity, infrav1.ReadyCondition) && conditions.IsTrue(fabric, infrav1.ReadyCondition) && eligible == good, why, nil
	})
}

// WaitBack waits until every server is in the pool again, clean, and on no tenant's VPC.
func (w *World) WaitBack(ctx context.Context) error {
	return eventually(ctx, time.Minute, "every server is Ready and on no tenant's VPC", func(context.Context) (bool, string, error) {
		for _, m := range w.MAAS.Machines() {
			if m.Status != maassim.StatusReady || m.Owner != "" || m.Dirty {
				return false, fmt.Sprintf("server %s is %s, owner %q, dirty %t", m.SystemID, m.StatusName, m.Owner, m.Dirty), nil
			}
		}
		for _, p := range w.Fabric.Ports() {
			if p.VPC != dpfNamespace+"_"+foreignVPC {
				return false, fmt.Sprintf("port %s is still on %s", p.HostMAC, p.VPC), nil
			}
		}
		return true, "", nil
	})
}

func readiness(object conditions.Getter) string {
	ready := conditions.Get(object, infrav1.ReadyCondition)
	if ready == nil {
		return "no Ready condition"
	}
	return fmt.Sprintf("Ready=%s %s %s", ready.Status, ready.Reason, ready.Message)
}

// addTenant makes a namespace and binds its administrator to what tenants may do in it, and nowhere else but for what clusterctl
// asks about the management cluster.
func (w *World) addTenant(ctx context.Context, name string) (*rest.Config, error) {
	user := administrator(name)
	objects := []client.Object{
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}},
		&rbacv1.RoleBinding{
			ObjectMeta: metav1.ObjectMeta{Namespace: name, Name: "tenant"},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "maas-dpu-tenant"},
			Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: user}},
		},
		&rbacv1.ClusterRoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: user + "-clusterctl"},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "maas-dpu-clusterctl"},
			Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: user}},
		},
	}
	for _, object := range objects {
		if err := w.Operator.Create(ctx, object); err != nil {
			return nil, fmt.Errorf("tenant %s: %w", name, err)
		}
	}
	return w.Config(ctx, user)
}

// administrator is the user who administers a tenant's namespace.
func administrator(tenant string) string { return tenant + "-admin" }

func loadKubeconfig(path string) (*rest.Config, error) {
	config, err := clientcmd.BuildConfigFromFlags("", path)
	if err != nil {
		return nil, fmt.Errorf("load %s: %w", path, err)
	}
	return config, nil
}
