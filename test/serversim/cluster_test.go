// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package serversim_test

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr/testr"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/utils/ptr"
	controlplanev1 "sigs.k8s.io/cluster-api/api/controlplane/kubeadm/v1beta2"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
	"sigs.k8s.io/cluster-api/util/conditions"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/lab"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/maassim"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/serversim"
)

// The MAAS simulator drives the rack.
var _ maassim.Hardware = (*serversim.Rack)(nil)

const (
	poll          = 200 * time.Millisecond
	goneWithin    = 2 * time.Minute
	clusterWithin = 6 * time.Minute
)

// fabric leases 10.10.0.<n> to the n-th port and can unplug ports.
type fabric struct {
	mu        sync.Mutex
	unplugged map[string]bool
}

func (f *fabric) Lease(mac string) (netip.Addr, bool, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var n int
	if _, err := fmt.Sscanf(mac, "02:00:00:00:00:%x", &n); err != nil || f.unplugged[mac] {
		return netip.Addr{}, false, false
	}
	return netip.AddrFrom4([4]byte{10, 10, 0, byte(n)}), true, true
}

func (f *fabric) plug(mac string, in bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.unplugged[mac] = !in
}

// provider stands in for MAAS and the infrastructure provider: each FakeMachine with bootstrap data gets a server.
type provider struct {
	Gomega
	client client.Client
	rack   *serversim.Rack
	given  map[string]string // system ID by FakeMachine
}

func fakeKind(kind string) schema.GroupVersionKind {
	return schema.GroupVersionKind{Group: "infrastructure.cluster.x-k8s.io", Version: "v1", Kind: kind}
}

// reconcile does what is to be done now.
func (p *provider) reconcile(ctx context.Context) error {
	machines := &clusterv1.MachineList{}
	if err := p.client.List(ctx, machines); err != nil {
		return err
	}
	living := map[string]bool{}
	for _, machine := range machines.Items {
		fake := &unstructured.Unstructured{}
		fake.SetGroupVersionKind(fakeKind("FakeMachine"))
		key := client.ObjectKey{Namespace: machine.Namespace, Name: machine.Spec.InfrastructureRef.Name}
		if err := p.client.Get(ctx, key, fake); err != nil {
			continue
		}
		living[key.Name] = true
		if machine.Spec.Bootstrap.DataSecretName == nil || p.given[key.Name] != "" {
			continue
		}
		if err := p.deploy(ctx, fake, *machine.Spec.Bootstrap.DataSecretName); err != nil {
			return err
		}
	}
	for name, id := range p.given {
		if !living[name] {
			p.rack.PowerChanged(id, false)
			p.rack.Wiped(id)
			delete(p.given, name)
		}
	}
	return nil
}

func (p *provider) deploy(ctx context.Context, fake *unstructured.Unstructured, secretName string) error {
	secret := &corev1.Secret{}
	if err := p.client.Get(ctx, client.ObjectKey{Namespace: fake.GetNamespace(), Name: secretName}, secret); err != nil {
		return err
	}
	id := p.free()
	p.given[fake.GetName()] = id
	p.rack.PowerChanged(id, true)
	p.rack.Boot(id, secret.Data["value"])
	before := fake.DeepCopy()
	if err := unstructured.SetNestedField(fake.Object, "maas:///"+id, "spec", "providerID"); err != nil {
		return err
	}
	if err := p.client.Patch(ctx, fake, client.MergeFrom(before)); err != nil {
		return err
	}
	return p.provisioned(ctx, fake)
}

// free returns the first server that nobody has.
func (p *provider) free() string {
	taken := slices.Collect(maps.Values(p.given))
	for n := 1; ; n++ {
		if id := fmt.Sprintf("srv%02d", n); !slices.Contains(taken, id) {
			return id
		}
	}
}

func (p *provider) provisioned(ctx context.Context, object *unstructured.Unstructured) error {
	before := object.DeepCopy()
	if err := unstructured.SetNestedField(object.Object, true, "status", "initialization", "provisioned"); err != nil {
		return err
	}
	return p.client.Status().Patch(ctx, object, client.MergeFrom(before))
}

// TestCluster brings up a real KubeadmControlPlane and MachineDeployment on simulated servers, scales and rolls out the control
// plane, and takes everything down again.
func TestCluster(t *testing.T) {
	t.Parallel()
	g := NewWithT(t)
	ctx := t.Context()
	l, err := lab.Start(ctx, lab.Options{Dir: t.TempDir(), Log: testr.New(t), WithCAPI: true})
	g.Expect(err).NotTo(HaveOccurred())
	t.Cleanup(func() { g.Expect(l.Stop(context.WithoutCancel(ctx))).To(Succeed()) })

	network, rack := startRack(ctx, t, l)
	scheme := runtime.NewScheme()
	g.Expect(clusterv1.AddToScheme(scheme)).To(Succeed())
	g.Expect(corev1.AddToScheme(scheme)).To(Succeed())
	g.Expect(controlplanev1.AddToScheme(scheme)).To(Succeed())
	c, err := client.New(l.Management(), client.Options{Scheme: scheme})
	g.Expect(err).NotTo(HaveOccurred())
	p := &provider{Gomega: g, client: c, rack: rack, given: map[string]string{}}

	started := time.Now()
	applyCluster(ctx, g, l, p)
	cluster := &clusterv1.Cluster{}
	eventually := func(g Gomega, check func(Gomega)) {
		g.Eventually(func(g Gomega) {
			g.Expect(p.reconcile(ctx)).To(Succeed())
			check(g)
		}, clusterWithin, poll).Should(Succeed(), func() string { return fmt.Sprintf("boots: %+v", rack.Boots()) })
	}
	eventually(g, func(g Gomega) {
		expectAvailable(ctx, g, p, client.ObjectKey{Namespace: "default", Name: "red"}, cluster, 2)
	})
	t.Logf("Available after %s", time.Since(started).Round(100*time.Millisecond))
	for _, process := range l.Processes() {
		t.Logf("%-40s %d MB", process.Name(), process.RSS()>>20)
	}

	testNodes(ctx, t, l, c, network, rack)
	testControlPlane(ctx, t, l, p, eventually)
	testHosted(ctx, t, l, p, eventually)

	deleting := time.Now()
	g.Expect(c.Delete(ctx, cluster)).To(Succeed())
	eventually(g, func(g Gomega) {
		g.Expect(apierrors.IsNotFound(c.Get(ctx, client.ObjectKeyFromObject(cluster), cluster))).To(BeTrue())
	})
	t.Logf("deleted after %s", time.Since(deleting).Round(100*time.Millisecond))
	g.Eventually(func() []string { return append(workloadProcesses(l), kubelets(l)...) }, goneWithin, poll).Should(BeEmpty())
}

func expectAvailable(ctx context.Context, g Gomega, p *provider, key client.ObjectKey, cluster *clusterv1.Cluster, workers int32) {
	g.Expect(p.client.Get(ctx, key, cluster)).To(Succeed())
	available := conditions.Get(cluster, clusterv1.ClusterAvailableCondition)
	g.Expect(available).NotTo(BeNil())
	g.Expect(available.Status).To(Equal(metav1.ConditionTrue), available.Message)
	g.Expect(cluster.Status.Workers).NotTo(BeNil())
	g.Expect(ptr.Deref(cluster.Status.Workers.AvailableReplicas, 0)).To(Equal(workers))
}

// startRack puts seven servers with a tenant port each into a running rack.
func startRack(ctx context.Context, t *testing.T, l *lab.Lab) (*fabric, *serversim.Rack) {
	t.Helper()
	g := NewWithT(t)
	network := &fabric{unplugged: map[string]bool{}}
	rack := serversim.New(serversim.Options{
		Supervisor: l.Supervisor(), Bin: l.Bin(), Dir: filepath.Join(l.Dir(), "disks"), Fabric: network, Log: testr.New(t),
	})
	for n := range 7 {
		g.Expect(rack.AddServer(serversim.Server{
			SystemID: fmt.Sprintf("srv%02d", n+1), Hostname: fmt.Sprintf("node-%02d", n+1),
			TenantPorts: []serversim.Port{{Interface: "enp1s0f0np0", MAC: mac(n + 1)}}, ProvisioningAddress: netip.MustParseAddr("192.0.2.9"),
		})).To(Succeed())
	}
	running := make(chan error, 1)
	go func() { running <- rack.Run(ctx) }()
	t.Cleanup(func() {
		g.Expect(rack.Stop(context.WithoutCancel(ctx))).To(Succeed())
		g.Expect(<-running).To(Succeed())
	})
	return network, rack
}

// testNodes looks at the nodes of the running cluster and pulls a cable and a plug.
func testNodes(ctx context.Context, t *testing.T, l *lab.Lab, c client.Client, network *fabric, rack *serversim.Rack) {
	t.Helper()
	workload := workloadClients(ctx, NewWithT(t), c, "red")
	t.Run("nodes have their tenant addresses", func(t *testing.T) {
		g := NewWithT(t)
		nodes, err := workload.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(nodes.Items).To(HaveLen(3))
		for _, node := range nodes.Items {
			var n int
			_, err := fmt.Sscanf(node.Name, "node-%d", &n)
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(node.Spec.ProviderID).To(Equal(fmt.Sprintf("maas:///srv%02d", n)))
			g.Expect(node.Spec.Taints).NotTo(ContainElement(HaveField("Key", "node.cluster.x-k8s.io/uninitialized")))
			g.Expect(node.Status.Addresses).To(ContainElement(corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: fmt.Sprintf("10.10.0.%d", n)}))
		}
	})
	t.Run("a node whose port is unplugged falls silent", func(t *testing.T) {
		g := NewWithT(t)
		network.plug(mac(2), false)
		g.Eventually(readiness(ctx, workload, "node-02"), goneWithin, poll).Should(Equal(corev1.ConditionUnknown))
		network.plug(mac(2), true)
		g.Eventually(readiness(ctx, workload, "node-02"), goneWithin, poll).Should(Equal(corev1.ConditionTrue))
	})
	t.Run("a control plane comes back after a power cycle", func(t *testing.T) {
		g := NewWithT(t)
		rack.PowerChanged("srv01", false)
		g.Eventually(func() []string { return workloadProcesses(l) }, goneWithin, poll).Should(BeEmpty())
		rack.PowerChanged("srv01", true)
		g.Eventually(readiness(ctx, workload, "node-01"), goneWithin, poll).Should(Equal(corev1.ConditionTrue))
	})
}

func mac(n int) string { return fmt.Sprintf("02:00:00:00:00:%02x", n) }

func applyCluster(ctx context.Context, g Gomega, l *lab.Lab, p *provider) {
	g.Expect(l.ApplyFiles(ctx, l.Management(), "testdata/fakeinfra.yaml")).To(Succeed())
	_, port, err := l.FreeEndpoint()
	g.Expect(err).NotTo(HaveOccurred())
	manifest, err := os.ReadFile("testdata/cluster.yaml")
	g.Expect(err).NotTo(HaveOccurred())
	rendered := filepath.Join(l.Dir(), "cluster.yaml")
	g.Expect(os.WriteFile(rendered, []byte(strings.ReplaceAll(string(manifest), "ENDPOINT_PORT", fmt.Sprint(port))), 0o600)).To(Succeed())
	g.Expect(l.ApplyFiles(ctx, l.Management(), rendered)).To(Succeed())
	infrastructure := &unstructured.Unstructured{}
	infrastructure.SetGroupVersionKind(fakeKind("FakeCluster"))
	g.Expect(p.client.Get(ctx, client.ObjectKey{Namespace: "default", Name: "red"}, infrastructure)).To(Succeed())
	g.Expect(p.provisioned(ctx, infrastructure)).To(Succeed())
}

// workloadClients uses what Cluster API gives a tenant: the kubeconfig Secret.
func workloadClients(ctx context.Context, g Gomega, c client.Client, cluster string) *kubernetes.Clientset {
	secret := &corev1.Secret{}
	g.Expect(c.Get(ctx, client.ObjectKey{Namespace: "default", Name: cluster + "-kubeconfig"}, secret)).To(Succeed())
	config, err := clientcmd.RESTConfigFromKubeConfig(secret.Data["value"])
	g.Expect(err).NotTo(HaveOccurred())
	clients, err := kubernetes.NewForConfig(config)
	g.Expect(err).NotTo(HaveOccurred())
	return clients
}

func readiness(ctx context.Context, clients *kubernetes.Clientset, name string) func() corev1.ConditionStatus {
	return func() corev1.ConditionStatus {
		node, err := clients.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return ""
		}
		for _, condition := range node.Status.Conditions {
			if condition.Type == corev1.NodeReady {
				return condition.Status
			}
		}
		return ""
	}
}

// workloadProcesses are those of servers.
func workloadProcesses(l *lab.Lab) []string { return processes(l, ".srv") }

// kubelets are those of clusters.
func kubelets(l *lab.Lab) []string { return processes(l, "kwok.") }

func processes(l *lab.Lab, part string) []string {
	var names []string
	for _, process := range l.Processes() {
		if strings.Contains(process.Name(), part) {
			names = append(names, process.Name())
		}
	}
	return names
}
