// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package dpfsim

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	"sigs.k8s.io/controller-runtime/pkg/log"
)

// site is a running Fabric of one DPF release, shared by the tests, each of which has DPUs and a namespace of its own.
type site struct {
	*Fabric
	management, dpu *rest.Config
}

var (
	etcd  *envtest.Etcd
	v26_4 *site
)

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

// assets is where etcd and kube-apiserver are.
func assets() string {
	if dir := os.Getenv("KUBEBUILDER_ASSETS"); dir != "" {
		return dir
	}
	return filepath.Join("..", "..", "bin", "lab")
}

func run(m *testing.M) int {
	log.SetLogger(logr.Discard())
	assets := assets()
	for _, binary := range []string{"etcd", "kube-apiserver"} {
		if _, err := os.Stat(filepath.Join(assets, binary)); err != nil {
			fmt.Fprintf(os.Stderr, "%v\nrun `make controlplane`, or set KUBEBUILDER_ASSETS\n", err)
			return 1
		}
	}
	etcd = &envtest.Etcd{Path: filepath.Join(assets, "etcd")}
	if err := etcd.Start(); err != nil {
		fmt.Fprintln(os.Stderr, "etcd:", err)
		return 1
	}
	defer func() { _ = etcd.Stop() }()
	var err error
	var stop func()
	v26_4, stop, err = startSite(assets, "v26-4", Options{LabelPlace: LabelsOnDPU})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer stop()
	return m.Run()
}

// startSite starts two API servers on the common etcd and a Fabric over them.
func startSite(assets, name string, options Options) (*site, func(), error) {
	s := &site{}
	var stops []func()
	stop := func() {
		for i := len(stops) - 1; i >= 0; i-- {
			stops[i]()
		}
	}
	for _, role := range []struct {
		name   string
		config **rest.Config
	}{{"management", &s.management}, {"dpu", &s.dpu}} {
		server := &envtest.APIServer{Path: filepath.Join(assets, "kube-apiserver"), EtcdURL: etcd.URL}
		server.Configure().Set("etcd-prefix", "/"+name+"-"+role.name)
		if err := server.Start(); err != nil {
			stop()
			return nil, nil, fmt.Errorf("%s API server: %w", role.name, err)
		}
		stops = append(stops, func() { _ = server.Stop() })
		plane := &envtest.ControlPlane{APIServer: server, Etcd: etcd}
		user, err := plane.AddUser(envtest.User{Name: "test", Groups: []string{"system:masters"}}, nil)
		if err != nil {
			stop()
			return nil, nil, fmt.Errorf("%s API server: %w", role.name, err)
		}
		*role.config = user.Config()
	}
	options.Management, options.DPUCluster = s.management, s.dpu
	options.CRDDir = os.Getenv("DPF_CRD_DIR")
	fabric, err := New(options)
	if err != nil {
		stop()
		return nil, nil, err
	}
	s.Fabric = fabric
	ctx, cancel := context.WithCancel(context.Background())
	if err := fabric.InstallCRDs(ctx); err != nil {
		cancel()
		stop()
		return nil, nil, err
	}
	if err := fabric.Seed(ctx, nil); err != nil {
		cancel()
		stop()
		return nil, nil, err
	}
	done := make(chan error, 1)
	go func() { done <- fabric.Run(ctx) }()
	stops = append(stops, func() {
		cancel()
		if err := <-done; err != nil {
			fmt.Fprintln(os.Stderr, "Run:", err)
		}
	})
	return s, stop, nil
}

// tenant is one test's namespace with a VPC and a network, and its DPUs.
type tenant struct {
	*site
	t         *testing.T
	g         *WithT
	namespace string
	dpus      []DPU
}

var tenants atomic.Int32

// patience is for machines busy with other things, and waiting costs nothing when all is well.
const patience = 60 * time.Second

// newTenant seeds DPUs named <name>-<n>, whose values edit may change, and waits for their Nodes.
func (s *site) newTenant(t *testing.T, name string, dpus int, edit func(*DPU)) *tenant {
	t.Helper()
	g := NewWithT(t)
	g.SetDefaultEventuallyTimeout(patience)
	g.SetDefaultEventuallyPollingInterval(50 * time.Millisecond)
	g.SetDefaultConsistentlyDuration(2 * time.Second)
	name = fmt.Sprintf("%s-%d", name, tenants.Add(1)) // so that -count works
	ten := &tenant{site: s, t: t, g: g, namespace: "tenant-" + name}
	for i := range dpus {
		sum := uint32(2166136261)
		for _, b := range []byte(name) {
			sum = (sum ^ uint32(b)) * 16777619
		}
		d := DPU{
			Name: fmt.Sprintf("%s-%d", name, i), Serial: fmt.Sprintf("MT-%s-%d", name, i), SystemID: fmt.Sprintf("sys-%s-%d", name, i),
			PF0MAC: fmt.Sprintf("58:A2:%02X:%02X:%02X:%02X", byte(sum), byte(sum>>8), byte(sum>>16), i<<4), StandbyPower: true,
		}
		if edit != nil {
			edit(&d)
		}
		ten.dpus = append(ten.dpus, d)
	}
	g.Expect(s.Seed(t.Context(), ten.dpus)).To(Succeed())
	g.Expect(create(t.Context(), s.Fabric.management, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ten.namespace}})).To(Succeed())
	for _, d := range ten.dpus {
		if d.Phase == "" {
			g.Eventually(func() bool { return ten.node(d.Name).Annotations[annotationVTEP] != "" }).Should(BeTrue(), "Node %s has no agent", d.Name)
		}
	}
	return ten
}

func (ten *tenant) ctx() context.Context { return ten.t.Context() }

func (ten *tenant) make(kind schema.GroupVersionKind, name string, spec map[string]any) *unstructured.Unstructured {
	ten.t.Helper()
	object := newObject(kind)
	object.SetNamespace(ten.namespace)
	object.SetName(name)
	object.Object["spec"] = spec
	ten.g.Expect(ten.Fabric.management.Create(ten.ctx(), object)).To(Succeed())
	return object
}

func (ten *tenant) vpcKey() string  { return "vpc.fabric.example.com/" + ten.namespace }
func (ten *tenant) portKey() string { return "port.fabric.example.com/" + ten.namespace }

func (ten *tenant) makeVPC(peering bool) {
	ten.t.Helper()
	ten.make(kindVPC, "v", map[string]any{
		"tenant": ten.namespace, "isolationClassName": IsolationClassName, "interNetworkAccess": peering,
		"nodeSelector": map[string]any{"matchLabels": map[string]any{ten.vpcKey(): "in"}},
	})
}

func (ten *tenant) makeNetwork(name, subnet string) {
	ten.t.Helper()
	ten.make(kindVirtualNetwork, name, map[string]any{
		"vpcName": "v", "type": "Bridged", "externallyRouted": true,
		"bridgedNetwork": map[string]any{"ipam": map[string]any{"ipv4": map[string]any{"dhcp": true, "subnet": subnet}}},
	})
}

// makeDSI wants PF 0 of the Nodes with the port key's value network; no value wants every Node.
func (ten *tenant) makeDSI(name, network string, selector map[string]any) {
	ten.t.Helper()
	set := map[string]any{"template": map[string]any{"spec": map[string]any{
		"interfaceType": "pf", "pf": map[string]any{"pfID": int64(0), "virtualNetwork": network},
	}}}
	if selector != nil {
		set["nodeSelector"] = map[string]any{"matchLabels": selector}
	}
	ten.make(kindDSI, name, map[string]any{"template": map[string]any{"spec": set}})
}

func (ten *tenant) portSelector(network string) map[string]any {
	return map[string]any{ten.vpcKey(): "in", ten.portKey(): network}
}

func (ten *tenant) get(kind schema.GroupVersionKind, name string) *unstructured.Unstructured {
	object := newObject(kind)
	namespace := ten.namespace
	if kind.Group == provisioningGroup {
		namespace = ten.options.Namespace
	}
	err := ten.Fabric.management.Get(ten.ctx(), types.NamespacedName{Namespace: namespace, Name: name}, object)
	if apierrors.IsNotFound(err) {
		return nil
	}
	ten.g.Expect(err).NotTo(HaveOccurred())
	return object
}

// change edits an object that DPF's controllers may be writing to as well.
func (ten *tenant) change(kind schema.GroupVersionKind, name string, edit func(*unstructured.Unstructured)) {
	ten.t.Helper()
	ten.g.Eventually(func() error {
		object := ten.get(kind, name)
		edit(object)
		return ten.Fabric.management.Update(ten.ctx(), object)
	}).Should(Succeed())
}

func (ten *tenant) remove(kind schema.GroupVersionKind, name string) {
	ten.t.Helper()
	object := newObject(kind)
	object.SetNamespace(ten.namespace)
	object.SetName(name)
	ten.g.Expect(ten.Fabric.management.Delete(ten.ctx(), object)).To(Succeed())
}

func (ten *tenant) gone(kind schema.GroupVersionKind, name string) func() bool {
	return func() bool { return ten.get(kind, name) == nil }
}

func (ten *tenant) true(kind schema.GroupVersionKind, name, condition string) func() bool {
	return func() bool {
		object := ten.get(kind, name)
		return object != nil && conditionTrue(object, condition)
	}
}

// reason is that of a condition that is not True, else "".
func (ten *tenant) reason(kind schema.GroupVersionKind, name, condition string) func() string {
	return func() string {
		object := ten.get(kind, name)
		if object == nil {
			return ""
		}
		for _, c := range conditionsOf(object, "conditions") {
			if c.Type == condition && c.Status != metav1.ConditionTrue {
				return c.Reason
			}
		}
		return ""
	}
}

func (ten *tenant) phase(dpu string) string {
	phase, _, _ := unstructured.NestedString(ten.get(kindDPU, dpu).Object, "status", "phase")
	return phase
}

func (ten *tenant) node(name string) *corev1.Node {
	node := &corev1.Node{}
	err := ten.Fabric.dpuCluster.Get(ten.ctx(), types.NamespacedName{Name: name}, node)
	ten.g.Expect(client.IgnoreNotFound(err)).To(Succeed())
	return node
}

func (ten *tenant) nodeReady(name string) corev1.ConditionStatus {
	for _, c := range ten.node(name).Status.Conditions {
		if c.Type == corev1.NodeReady {
			return c.Status
		}
	}
	return ""
}

// interfaces lists the tenant's ServiceInterfaces.
func (ten *tenant) interfaces() []unstructured.Unstructured {
	list := newList(kindSI)
	ten.g.Expect(ten.Fabric.dpuCluster.List(ten.ctx(), list, client.InNamespace(ten.namespace))).To(Succeed())
	return list.Items
}

// ports lists those of the tenant's DPUs.
func (ten *tenant) ports() (out []Port) {
	for _, port := range ten.Ports() {
		for _, d := range ten.dpus {
			if port.DPU == d.Name {
				out = append(out, port)
			}
		}
	}
	return out
}

// label writes labels for a DPU's Node in one patch, as another than DPF; nil removes one.
func (ten *tenant) label(kind schema.GroupVersionKind, name string, labels map[string]any) {
	ten.t.Helper()
	data, err := json.Marshal(map[string]any{"spec": map[string]any{"cluster": map[string]any{"nodeLabels": labels}}})
	ten.g.Expect(err).NotTo(HaveOccurred())
	object := newObject(kind)
	object.SetNamespace(ten.options.Namespace)
	object.SetName(name)
	patch := client.RawPatch(types.MergePatchType, data)
	ten.g.Expect(ten.Fabric.management.Patch(ten.ctx(), object, patch, client.FieldOwner("provider"))).To(Succeed())
}

// attach takes a DPU through both phases onto a network and waits until its host has an address.
func (ten *tenant) attach(d DPU, network string) {
	ten.t.Helper()
	ten.label(kindDPU, d.Name, map[string]any{ten.vpcKey(): "in"})
	ten.g.Eventually(func() string { return ten.node(d.Name).Labels[labelNodeVPC] }).Should(Equal(ten.namespace + "_v"))
	ten.label(kindDPU, d.Name, map[string]any{ten.portKey(): network})
	ten.g.Eventually(func() bool { _, _, ok := ten.Lease(d.PF0MAC); return ok }).Should(BeTrue(), "no lease for %s", d.Name)
}
