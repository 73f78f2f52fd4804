// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package topology_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/util/retry"
	"k8s.io/utils/ptr"
	bootstrapv1 "sigs.k8s.io/cluster-api/api/bootstrap/kubeadm/v1beta2"
	controlplanev1 "sigs.k8s.io/cluster-api/api/controlplane/kubeadm/v1beta2"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
	"sigs.k8s.io/cluster-api/util/conditions"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/demo"
)

const (
	tenantName        = "red"
	className         = "maas-dpu"
	workerClass       = "default-worker"
	poolName          = "workers"
	kubernetesVersion = "v1.36.3"

	// The TenantVPC's subnets and images that MAAS can deploy.
	firstSubnet, secondSubnet = "nodes", "batch"
	secondCIDR                = "10.64.1.0/24"
	firstImage, secondImage   = "ubuntu/noble", "ubuntu/jammy"

	pollEvery = 100 * time.Millisecond
	// patience is for what controllers do by themselves, rollWithin for servers that come and go one after the other.
	patience   = 2 * time.Minute
	rollWithin = 5 * time.Minute
)

// topologyCluster is the one cluster of the test, and the tenant who changes it.
type topologyCluster struct {
	tenant *demo.Tenant
	// user acts as the tenant, operator with all rights.
	user, operator client.Client
	ledger         *ledger
	key            client.ObjectKey
	host           string
	port           int32
}

func newScheme() *runtime.Scheme {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		clientgoscheme.AddToScheme, clusterv1.AddToScheme, controlplanev1.AddToScheme, bootstrapv1.AddToScheme, infrav1.AddToScheme,
	} {
		utilruntime.Must(add(scheme))
	}
	return scheme
}

// newTopologyCluster admits the tenant, with a VPC of two subnets and the class; the cluster itself is yet to be created.
func newTopologyCluster(t *testing.T) *topologyCluster {
	t.Helper()
	c := &topologyCluster{key: client.ObjectKey{Namespace: tenantName, Name: tenantName}}
	var err error
	if c.tenant, err = world.NewTenant(suite, tenantName); err != nil {
		t.Fatal(err)
	}
	scheme := newScheme()
	if c.operator, err = client.New(world.Lab.Management(), client.Options{Scheme: scheme}); err != nil {
		t.Fatal(err)
	}
	config, err := world.Config(suite, tenantName+"-admin")
	if err != nil {
		t.Fatal(err)
	}
	if c.user, err = client.New(config, client.Options{Scheme: scheme}); err != nil {
		t.Fatal(err)
	}
	if c.host, c.port, err = world.Lab.FreeEndpoint(); err != nil {
		t.Fatal(err)
	}
	if c.ledger, err = keepLedger(suite, world.Lab.Management(), scheme, tenantName); err != nil {
		t.Fatal(err)
	}
	if err := c.tenant.CreateVPC(suite); err != nil {
		t.Fatal(err)
	}
	vpc := &infrav1.TenantVPC{}
	change(t, c.user, c.key, vpc, func() {
		vpc.Spec.Subnets = append(vpc.Spec.Subnets, infrav1.VPCSubnet{Name: secondSubnet, CIDR: secondCIDR, ExternallyRouted: ptr.To(true)})
	})
	c.applyClass(t)
	c.letWingReadBootstrapData(t)
	return c
}

// applyClass applies the class that is shipped, as the tenant and with strict validation.
func (c *topologyCluster) applyClass(t *testing.T) {
	t.Helper()
	for _, object := range classObjects(t) {
		object.SetNamespace(tenantName)
		strict := client.WithFieldValidation(c.user, metav1.FieldValidationStrict)
		if err := strict.Apply(suite, client.ApplyConfigurationFromUnstructured(object), client.FieldOwner("tenant")); err != nil {
			t.Fatalf("apply %s %s: %v", object.GetKind(), object.GetName(), err)
		}
	}
}

// classObjects is the class with its templates, as it is shipped.
func classObjects(t *testing.T) []*unstructured.Unstructured {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(repo, "templates", "clusterclass-"+className+".yaml"))
	if err != nil {
		t.Fatal(err)
	}
	decoder := utilyaml.NewYAMLOrJSONDecoder(bytes.NewReader(content), 4096)
	var objects []*unstructured.Unstructured
	for {
		object := &unstructured.Unstructured{}
		if err := decoder.Decode(&object.Object); errors.Is(err, io.EOF) {
			return objects
		} else if err != nil {
			t.Fatal(err)
		}
		if len(object.Object) > 0 {
			objects = append(objects, object)
		}
	}
}

// letWingReadBootstrapData is what a tenant does once in a namespace, and the templates carry.
func (c *topologyCluster) letWingReadBootstrapData(t *testing.T) {
	t.Helper()
	binding := &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Namespace: tenantName, Name: "bootstrap-secrets"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "maas-dpu-bootstrap-secrets"},
		Subjects: []rbacv1.Subject{{
			APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind,
			Name: "system:serviceaccount:" + demo.MachineNamespace + ":" + demo.MachineWing,
		}},
	}
	if err := c.user.Create(suite, binding); err != nil {
		t.Fatal(err)
	}
}

// object is the cluster as its tenant writes it, with one control plane machine and so many workers.
func (c *topologyCluster) object(workers int32) *clusterv1.Cluster {
	cluster := &clusterv1.Cluster{ObjectMeta: metav1.ObjectMeta{Namespace: c.key.Namespace, Name: c.key.Name}}
	cluster.Spec.ClusterNetwork.Pods.CIDRBlocks = []string{"192.168.0.0/16"}
	cluster.Spec.ClusterNetwork.Services.CIDRBlocks = []string{"10.128.0.0/12"}
	topology := &cluster.Spec.Topology
	topology.ClassRef.Name = className
	topology.Version = kubernetesVersion
	topology.ControlPlane.Replicas = ptr.To[int32](1)
	// Nobody runs kube-proxy and CoreDNS on simulated servers.
	topology.ControlPlane.Metadata.Annotations = map[string]string{
		controlplanev1.SkipCoreDNSAnnotation: "", controlplanev1.SkipKubeProxyAnnotation: "",
	}
	topology.Workers.MachineDeployments = []clusterv1.MachineDeploymentTopology{{Class: workerClass, Name: poolName, Replicas: ptr.To(workers)}}
	for name, value := range map[string]any{
		"identity": demo.Identity, "vpc": tenantName, "subnet": firstSubnet, "image": firstImage,
		"endpoint": map[string]any{"host": c.host, "port": c.port}, "nameservers": []string{"192.0.2.53"},
	} {
		setVariable(&topology.Variables, name, value)
	}
	return cluster
}

// setVariable sets one of a list, and nil removes it.
func setVariable(variables *[]clusterv1.ClusterVariable, name string, value any) {
	*variables = slices.DeleteFunc(*variables, func(v clusterv1.ClusterVariable) bool { return v.Name == name })
	if value == nil {
		return
	}
	raw, err := json.Marshal(value)
	utilruntime.Must(err)
	*variables = append(*variables, clusterv1.ClusterVariable{Name: name, Value: apiextensionsv1.JSON{Raw: raw}})
}

// pool is the topology's only group of workers.
func pool(topology *clusterv1.Topology) *clusterv1.MachineDeploymentTopology {
	return &topology.Workers.MachineDeployments[0]
}

// get reads the cluster.
func (c *topologyCluster) get(ctx context.Context) (*clusterv1.Cluster, error) {
	cluster := &clusterv1.Cluster{}
	return cluster, c.user.Get(ctx, c.key, cluster)
}

// edit changes the topology as its tenant does.
func (c *topologyCluster) edit(t *testing.T, f func(*clusterv1.Topology)) {
	t.Helper()
	cluster := &clusterv1.Cluster{}
	change(t, c.user, c.key, cluster, func() { f(&cluster.Spec.Topology) })
}

// reconciled waits until the topology controller has carried out what the cluster says now, or tells why it does not.
func (c *topologyCluster) reconciled(t *testing.T) {
	t.Helper()
	eventually(t, patience, "the topology is reconciled", func(ctx context.Context) string {
		cluster, err := c.get(ctx)
		if err != nil {
			return err.Error()
		}
		return lacks(cluster, clusterv1.ClusterTopologyReconciledCondition)
	})
}

// lacks says what keeps a condition from being True at the object's present generation.
func lacks(o interface {
	client.Object
	conditions.Getter
}, condition string,
) string {
	switch got := conditions.Get(o, condition); {
	case got == nil:
		return "no condition " + condition
	case got.Status != metav1.ConditionTrue:
		return fmt.Sprintf("%s=%s %s: %s", condition, got.Status, got.Reason, got.Message)
	case got.ObservedGeneration != o.GetGeneration():
		return fmt.Sprintf("%s is of generation %d, not %d", condition, got.ObservedGeneration, o.GetGeneration())
	}
	return ""
}

// deployment is the workers' MachineDeployment.
func (c *topologyCluster) deployment(ctx context.Context) (*clusterv1.MachineDeployment, error) {
	list := &clusterv1.MachineDeploymentList{}
	if err := c.user.List(ctx, list, client.InNamespace(c.key.Namespace)); err != nil {
		return nil, err
	}
	if len(list.Items) != 1 {
		return nil, fmt.Errorf("%d MachineDeployments, want 1", len(list.Items))
	}
	return &list.Items[0], nil
}

// workers are the MaasMachines of the MachineDeployment that are not being deleted, by name.
func (c *topologyCluster) workers(ctx context.Context) (map[string]*infrav1.MaasMachine, error) {
	list := &infrav1.MaasMachineList{}
	if err := c.user.List(ctx, list, client.InNamespace(c.key.Namespace), client.HasLabels{clusterv1.MachineDeploymentNameLabel}); err != nil {
		return nil, err
	}
	found := map[string]*infrav1.MaasMachine{}
	for i := range list.Items {
		found[list.Items[i].Name] = &list.Items[i]
	}
	return found, nil
}

// workload acts in the cluster that was made.
func (c *topologyCluster) workload(t *testing.T) client.Client {
	t.Helper()
	kubeconfig := &corev1.Secret{}
	if err := c.user.Get(suite, client.ObjectKey{Namespace: c.key.Namespace, Name: c.key.Name + "-kubeconfig"}, kubeconfig); err != nil {
		t.Fatal(err)
	}
	config, err := clientcmd.RESTConfigFromKubeConfig(kubeconfig.Data["value"])
	if err != nil {
		t.Fatal(err)
	}
	config.Timeout = 10 * time.Second
	workload, err := client.New(config, client.Options{Scheme: newScheme()})
	if err != nil {
		t.Fatal(err)
	}
	return workload
}

// change changes an object, again if somebody else was faster.
func change(t *testing.T, c client.Client, key client.ObjectKey, o client.Object, f func()) {
	t.Helper()
	err := retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		if err := c.Get(suite, key, o); err != nil {
			return err
		}
		f()
		return c.Update(suite, o)
	})
	if err != nil {
		t.Fatalf("change %T %s: %v", o, key, err)
	}
}

// eventually waits until check returns "", which otherwise says why not yet.
func eventually(t *testing.T, timeout time.Duration, what string, check func(ctx context.Context) (whyNot string)) {
	t.Helper()
	why := ""
	err := wait.PollUntilContextTimeout(suite, pollEvery, timeout, true, func(context.Context) (bool, error) {
		// Not the poll's own context: its end would be what the last answer says.
		why = check(suite)
		return why == "", nil
	})
	if err != nil {
		t.Fatalf("%s: not so after %s: %s", what, timeout, why)
	}
}
