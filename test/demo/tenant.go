// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/utils/ptr"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
	"sigs.k8s.io/cluster-api/util/conditions"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
)

const (
	// KubernetesVersion is that of all clusters.
	KubernetesVersion = "v1.36.3"
	subnetName        = "nodes"
	// subnetCIDR is the same for every tenant, on purpose.
	subnetCIDR = "10.64.0.0/24"
	// provisioningCIDR is where servers are outside their DPUs.
	provisioningCIDR = "192.168.80.0/24"
)

// Tenant is one tenant of the datacentre: a namespace, its administrator, one TenantVPC and one cluster, all named alike.
type Tenant struct {
	Name string
	// What is set of the following before CreateCluster says what cluster it is.

	// Identity is the MaasClusterIdentity: World's own unless another is set.
	Identity string
	// Flavor is the flavour of the cluster template, existing-vpc unless another is set; empty means the one without a name.
	Flavor string
	// ControlPlanes is how many machines a control plane on servers has: one unless set.
	ControlPlanes int
	// Variables are the template's, beside and over those that say what is in this World.
	Variables map[string]string

	world    *World
	config   *rest.Config
	client   client.Client
	manifest string
}

// NewTenant admits a tenant.
func (w *World) NewTenant(ctx context.Context, name string) (*Tenant, error) {
	config, err := w.addTenant(ctx, name)
	if err != nil {
		return nil, err
	}
	c, err := client.New(config, client.Options{Scheme: w.Operator.Scheme()})
	if err != nil {
		return nil, err
	}
	return &Tenant{Name: name, Identity: source, Flavor: "existing-vpc", ControlPlanes: 1, world: w, config: config, client: c}, nil
}

// Client acts as the tenant's administrator.
func (t *Tenant) Client() client.Client { return t.client }

func (t *Tenant) key() client.ObjectKey { return client.ObjectKey{Namespace: t.Name, Name: t.Name} }

// CreateVPC makes the tenant's VPC and waits until it can take ports.
func (t *Tenant) CreateVPC(ctx context.Context) error {
	vpc := &infrav1.TenantVPC{ObjectMeta: metav1.ObjectMeta{Namespace: t.Name, Name: t.Name}}
	vpc.Spec.FabricName = fabricName
	vpc.Spec.Subnets = []infrav1.VPCSubnet{{Name: subnetName, CIDR: subnetCIDR, ExternallyRouted: ptr.To(true)}}
	if err := t.client.Create(ctx, vpc); err != nil {
		return fmt.Errorf("create TenantVPC %s: %w", t.Name, err)
	}
	return eventually(ctx, time.Minute, "TenantVPC "+t.Name+" is Ready", func(ctx context.Context) (bool, string, error) {
		err := t.client.Get(ctx, t.key(), vpc)
		return conditions.IsTrue(vpc, infrav1.ReadyCondition), readiness(vpc), err
	})
}

// WaitControlPlane waits until Cluster API calls the control plane Available.
func (t *Tenant) WaitControlPlane(ctx context.Context) error {
	return eventually(ctx, 5*time.Minute, "the control plane of "+t.Name+" is Available", func(ctx context.Context) (bool, string, error) {
		cluster := &clusterv1.Cluster{}
		if err := t.client.Get(ctx, t.key(), cluster); err != nil {
			return false, "", err
		}
		return conditions.IsTrue(cluster, clusterv1.ClusterControlPlaneAvailableCondition), t.whyNot(ctx), nil
	})
}

// WaitAvailable waits until Cluster API calls the whole cluster Available.
func (t *Tenant) WaitAvailable(ctx context.Context) error {
	return eventually(ctx, 5*time.Minute, "the cluster "+t.Name+" is Available", func(ctx context.Context) (bool, string, error) {
		cluster := &clusterv1.Cluster{}
		if err := t.client.Get(ctx, t.key(), cluster); err != nil {
			return false, "", err
		}
		available := conditions.Get(cluster, clusterv1.ClusterAvailableCondition)
		if available == nil {
			return false, "no Available condition", nil
		}
		return available.Status == metav1.ConditionTrue, available.Message + "; " + t.whyNot(ctx), nil
	})
}

// Scale sets the MachineDeployment's replicas and waits until exactly that many workers are Ready Nodes with their tenant
// addresses, and every machine too many is gone.
func (t *Tenant) Scale(ctx context.Context, workers int) error {
	deployments := &clusterv1.MachineDeploymentList{}
	if err := t.client.List(ctx, deployments, client.InNamespace(t.Name)); err != nil {
		return err
	}
	if len(deployments.Items) != 1 {
		return fmt.Errorf("tenant %s has %d MachineDeployments, want 1", t.Name, len(deployments.Items))
	}
	deployment := &deployments.Items[0]
	before := deployment.DeepCopy()
	deployment.Spec.Replicas = ptr.To(int32(workers))
	if err := t.client.Patch(ctx, deployment, client.MergeFrom(before)); err != nil {
		return fmt.Errorf("scale %s: %w", t.Name, err)
	}
	return t.WaitNodes(ctx, workers+1)
}

// WaitNodes waits until the cluster has exactly that many machines and Nodes, each Ready, with the provider ID of a server
// claimed for this tenant and an address of the subnet, or of the provisioning network where there are no ports.
func (t *Tenant) WaitNodes(ctx context.Context, count int) error {
	return eventually(ctx, 5*time.Minute, fmt.Sprintf("%s has %d Ready Nodes", t.Name, count), func(ctx context.Context) (bool, string, error) {
		machines := &infrav1.MaasMachineList{}
		if err := t.client.List(ctx, machines, client.InNamespace(t.Name)); err != nil {
			return false, "", err
		}
		nodes, err := t.nodes(ctx)
		if err != nil {
			return false, "", err
		}
		if len(machines.Items) != count || len(nodes.Items) != count {
			return false, fmt.Sprintf("%d MaasMachines, %d Nodes; %s", len(machines.Items), len(nodes.Items), t.whyNot(ctx)), nil
		}
		for i := range machines.Items {
			if why := t.wrong(&machines.Items[i], nodes); why != "" {
				return false, why + "; " + t.whyNot(ctx), nil
			}
		}
		return true, "", nil
	})
}

// wrong says what a machine lacks that its tenant was promised.
func (t *Tenant) wrong(machine *infrav1.MaasMachine, nodes *corev1.NodeList) string {
	isolated := len(machine.Spec.Ports) == 0 || conditions.IsTrue(machine, infrav1.IsolatedCondition)
	if !conditions.IsTrue(machine, infrav1.ReadyCondition) || !isolated {
		return "MaasMachine " + machine.Name + ": " + readiness(machine)
	}
	if want := "maas:///" + machine.Status.SystemID; machine.Spec.ProviderID != want {
		return fmt.Sprintf("MaasMachine %s has providerID %q, want %q", machine.Name, machine.Spec.ProviderID, want)
	}
	for _, node := range nodes.Items {
		if node.Spec.ProviderID != machine.Spec.ProviderID {
			continue
		}
		address, network := internalIP(node.Status.Addresses), subnetCIDR
		if len(machine.Spec.Ports) == 0 {
			network = provisioningCIDR
		}
		_, subnet, err := net.ParseCIDR(network)
		if err != nil || !subnet.Contains(net.ParseIP(address)) {
			return fmt.Sprintf("Node %s has InternalIP %q, want one of %s", node.Name, address, network)
		}
		for _, a := range machine.Status.Addresses {
			if a.Type == clusterv1.MachineInternalIP && a.Address == address && ready(node) {
				return ""
			}
		}
		return fmt.Sprintf("Node %s (Ready=%t) and MaasMachine %s disagree on the address %s", node.Name, ready(node), machine.Name, address)
	}
	return "no Node has provider ID " + machine.Spec.ProviderID
}

func internalIP(addresses []corev1.NodeAddress) string {
	for _, a := range addresses {
		if a.Type == corev1.NodeInternalIP {
			return a.Address
		}
	}
	return ""
}

func ready(node corev1.Node) bool {
	for _, c := range node.Status.Conditions {
		if c.Type == corev1.NodeReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

func (t *Tenant) nodes(ctx context.Context) (*corev1.NodeList, error) {
	kubeconfig := &corev1.Secret{}
	if err := t.client.Get(ctx, client.ObjectKey{Namespace: t.Name, Name: t.Name + "-kubeconfig"}, kubeconfig); err != nil {
		return nil, err
	}
	config, err := clientcmd.RESTConfigFromKubeConfig(kubeconfig.Data["value"])
	if err != nil {
		return nil, err
	}
	config.Timeout = 10 * time.Second
	workload, err := client.New(config, client.Options{Scheme: t.world.Operator.Scheme()})
	if err != nil {
		return nil, err
	}
	nodes := &corev1.NodeList{}
	return nodes, workload.List(ctx, nodes)
}

// DeleteCluster deletes the cluster and waits until nothing of it is left.
func (t *Tenant) DeleteCluster(ctx context.Context) error {
	cluster := &clusterv1.Cluster{ObjectMeta: metav1.ObjectMeta{Namespace: t.Name, Name: t.Name}}
	if err := t.client.Delete(ctx, cluster); err != nil {
		return fmt.Errorf("delete cluster %s: %w", t.Name, err)
	}
	return eventually(ctx, 5*time.Minute, "cluster "+t.Name+" is gone", func(ctx context.Context) (bool, string, error) {
		err := t.client.Get(ctx, t.key(), cluster)
		return apierrors.IsNotFound(err), t.whyNot(ctx), client.IgnoreNotFound(err)
	})
}

// DeleteVPC deletes the tenant's VPC, which has a life of its own, and waits until it is gone.
func (t *Tenant) DeleteVPC(ctx context.Context) error {
	vpc := &infrav1.TenantVPC{ObjectMeta: metav1.ObjectMeta{Namespace: t.Name, Name: t.Name}}
	if err := t.client.Delete(ctx, vpc); err != nil {
		return fmt.Errorf("delete TenantVPC %s: %w", t.Name, err)
	}
	return eventually(ctx, 2*time.Minute, "TenantVPC "+t.Name+" is gone", func(ctx context.Context) (bool, string, error) {
		err := t.client.Get(ctx, t.key(), vpc)
		return apierrors.IsNotFound(err), readiness(vpc), client.IgnoreNotFound(err)
	})
}

// whyNot gathers what the machines say of themselves, and what their servers did last where they did not join.
func (t *Tenant) whyNot(ctx context.Context) string {
	var said []string
	machines := &infrav1.MaasMachineList{}
	if err := t.client.List(ctx, machines, client.InNamespace(t.Name)); err != nil {
		return err.Error()
	}
	for i := range machines.Items {
		said = append(said, fmt.Sprintf("%s (%s): %s", machines.Items[i].Name, machines.Items[i].Status.SystemID, readiness(&machines.Items[i])))
		for _, boot := range slices.Backward(t.world.Rack.Boots()) {
			if boot.SystemID != machines.Items[i].Status.SystemID {
				continue
			}
			if !boot.Joined {
				said = append(said, boot.SystemID+" did not join: "+boot.Reason)
			}
			break
		}
	}
	return strings.Join(said, "; ")
}
