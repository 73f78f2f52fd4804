// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

// Package ovnvpc_test runs the DPF simulator over OVN, the real one and its stand-in, and compares what DPF's objects, the
// simulator's own model and OVN's databases say; where OVN has packets, frames have the last word.
package ovnvpc_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/dpfsim"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/fabriclab"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/ovnlab"
)

const (
	patience = time.Minute
	interval = 20 * time.Millisecond
	// cidr is that of every network, whoever's it is.
	cidr = "10.64.0.0/24"
	port = "pf0hpf"
	dpus = 4

	connected = "ovn.vpc.dpu.nvidia.com/lsp-connected"
)

var (
	kindVPC     = schema.GroupVersionKind{Group: "vpc.dpu.nvidia.com", Version: "v1alpha1", Kind: "DPUVPC"}
	kindNetwork = schema.GroupVersionKind{Group: "vpc.dpu.nvidia.com", Version: "v1alpha1", Kind: "DPUVirtualNetwork"}
	kindDSI     = schema.GroupVersionKind{Group: "svc.dpu.nvidia.com", Version: "v1alpha1", Kind: "DPUServiceInterface"}
	kindSI      = schema.GroupVersionKind{Group: "svc.dpu.nvidia.com", Version: "v1alpha1", Kind: "ServiceInterface"}
	kindDPU     = schema.GroupVersionKind{Group: "provisioning.dpu.nvidia.com", Version: "v1alpha1", Kind: "DPU"}
)

func TestMain(m *testing.M) {
	ctrl.SetLogger(logr.Discard())
	os.Exit(m.Run())
}

// refusing is an OVN whose northbound database can be made to refuse ports.
type refusing struct {
	*ovnlab.Topology
	mu     sync.Mutex
	reason error
}

func (r *refusing) refuse(reason error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.reason = reason
}

// EnsurePort implements dpfsim.OVN.
func (r *refusing) EnsurePort(ctx context.Context, wanted dpfsim.OVNPort) (netip.Addr, error) {
	r.mu.Lock()
	reason := r.reason
	r.mu.Unlock()
	if reason != nil {
		return netip.Addr{}, reason
	}
	return r.Topology.EnsurePort(ctx, wanted)
}

// RemovePort implements dpfsim.OVN.
func (r *refusing) RemovePort(ctx context.Context, id string) error {
	r.mu.Lock()
	reason := r.reason
	r.mu.Unlock()
	return errors.Join(reason, r.Topology.RemovePort(ctx, id))
}

// site is DPF over OVN with a few DPUs, which tests use one after the other.
type site struct {
	*fabriclab.Lab
	ovn      *ovnlab.Lab
	northern *refusing
}

func startSite(t *testing.T, level ovnlab.Level) *site {
	t.Helper()
	ovnlab.Require(t, level)
	g := NewWithT(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	ovn, err := ovnlab.Start(ctx, ovnlab.Options{Level: level})
	g.Expect(err).NotTo(HaveOccurred())
	t.Cleanup(func() { g.Expect(ovn.Close(context.Background())).To(Succeed()) })
	topology := ovnlab.NewTopology(ovn)
	t.Cleanup(topology.Close)
	s := &site{ovn: ovn, northern: &refusing{Topology: topology}}
	options := fabriclab.Options{Repo: "../..", CRDDir: os.Getenv("DPF_CRD_DIR"), OVN: s.northern}
	for i := range dpus {
		options.DPUs = append(options.DPUs, dpfsim.DPU{
			Name: dpu(i), Serial: fmt.Sprintf("MT%d", i), SystemID: fmt.Sprintf("sys-%d", i), PF0MAC: mac(i).String(), StandbyPower: true,
		})
	}
	s.Lab, err = fabriclab.Start(ctx, options)
	g.Expect(err).NotTo(HaveOccurred())
	t.Cleanup(func() { g.Expect(s.Stop()).To(Succeed()) })
	return s
}

func dpu(i int) string           { return fmt.Sprintf("dpu-%d", i) }
func mac(i int) net.HardwareAddr { return net.HardwareAddr{0x58, 0xa2, 0xe1, 0, 0, byte(i)} }

// tenant is a namespace with a VPC.
type tenant struct {
	*site
	*WithT
	t    *testing.T
	ctx  context.Context
	name string
}

func (s *site) tenant(t *testing.T, name string) *tenant {
	t.Helper()
	g := NewWithT(t)
	g.SetDefaultEventuallyTimeout(patience)
	g.SetDefaultEventuallyPollingInterval(interval)
	ten := &tenant{site: s, WithT: g, t: t, ctx: t.Context(), name: name}
	ten.Expect(s.DPFAdmin.Create(ten.ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}})).To(Succeed())
	ten.create(kindVPC, "v", map[string]any{
		"tenant": name, "isolationClassName": dpfsim.IsolationClassName, "interNetworkAccess": false,
		"nodeSelector": map[string]any{"matchLabels": map[string]any{ten.vpcKey(): "in"}},
	})
	t.Cleanup(func() { // for the next test, where this one failed
		ten.ctx = context.WithoutCancel(ten.ctx)
		for i := range dpus {
			ten.label(i, map[string]any{ten.portKey(): nil, ten.vpcKey(): nil})
		}
	})
	return ten
}

func (ten *tenant) vpcKey() string  { return "vpc.fabric.example.com/" + ten.name }
func (ten *tenant) portKey() string { return "port.fabric.example.com/" + ten.name }

func (ten *tenant) object(kind schema.GroupVersionKind, name string) *unstructured.Unstructured {
	object := &unstructured.Unstructured{}
	object.SetGroupVersionKind(kind)
	object.SetNamespace(ten.name)
	object.SetName(name)
	return object
}

func (ten *tenant) create(kind schema.GroupVersionKind, name string, spec map[string]any) {
	ten.t.Helper()
	object := ten.object(kind, name)
	object.Object["spec"] = spec
	ten.Expect(ten.DPFAdmin.Create(ten.ctx, object)).To(Succeed())
}

// network makes a network and the interface that puts the first function of every Node with the port key on it.
func (ten *tenant) network(name, subnet string) {
	ten.t.Helper()
	ten.create(kindNetwork, name, map[string]any{
		"vpcName": "v", "type": "Bridged", "externallyRouted": true,
		"bridgedNetwork": map[string]any{"ipam": map[string]any{"ipv4": map[string]any{"dhcp": true, "subnet": subnet}}},
	})
	ten.create(kindDSI, name+"-pf0", map[string]any{"template": map[string]any{"spec": map[string]any{
		"nodeSelector": map[string]any{"matchLabels": map[string]any{ten.vpcKey(): "in", ten.portKey(): name}},
		"template": map[string]any{"spec": map[string]any{
			"interfaceType": "pf", "pf": map[string]any{"pfID": int64(0), "virtualNetwork": name},
		}},
	}}})
}

func (ten *tenant) label(i int, labels map[string]any) {
	ten.t.Helper()
	data, err := json.Marshal(map[string]any{"spec": map[string]any{"cluster": map[string]any{"nodeLabels": labels}}})
	ten.Expect(err).NotTo(HaveOccurred())
	object := ten.object(kindDPU, dpu(i))
	object.SetNamespace(fabriclab.DPFNamespace)
	ten.Expect(ten.DPFAdmin.Patch(ten.ctx, object, client.RawPatch(types.MergePatchType, data))).To(Succeed())
}

// ask puts a DPU into the VPC and its port on a network, and waits for nothing but the mark between the two.
func (ten *tenant) ask(i int, network string) {
	ten.t.Helper()
	ten.label(i, map[string]any{ten.vpcKey(): "in"})
	ten.Eventually(func() (string, error) {
		node := &corev1.Node{}
		err := ten.DPU.Get(ten.ctx, types.NamespacedName{Name: dpu(i)}, node)
		return node.Labels["ovn.vpc.dpu.nvidia.com/vpc"], err
	}).Should(Equal(ten.name + "_v"))
	ten.label(i, map[string]any{ten.portKey(): network})
}

// attach is ask, and returns the logical port once OVN has bound it and the host has its address.
func (ten *tenant) attach(i int, network string) (id string) {
	ten.t.Helper()
	ten.ask(i, network)
	ten.Eventually(func() string { id = ten.interfaceOn(i); return id }).ShouldNot(BeEmpty())
	ten.Eventually(ten.chassis).WithArguments(id).Should(Equal(dpu(i)))
	ten.Eventually(ten.lease).WithArguments(i).ShouldNot(BeEmpty())
	return id
}

// detach takes a DPU's port off its network, and the DPU out of the VPC.
func (ten *tenant) detach(i int) {
	ten.t.Helper()
	ten.label(i, map[string]any{ten.portKey(): nil})
	ten.Eventually(ten.interfaceOn).WithArguments(i).Should(BeEmpty())
	ten.label(i, map[string]any{ten.vpcKey(): nil})
}

// interfaces are the tenant's ServiceInterfaces by the name of their Node.
func (ten *tenant) interfaces() map[string]*unstructured.Unstructured {
	ten.t.Helper()
	list := &unstructured.UnstructuredList{}
	list.SetGroupVersionKind(kindSI)
	ten.Expect(ten.DPU.List(ten.ctx, list, client.InNamespace(ten.name))).To(Succeed())
	out := map[string]*unstructured.Unstructured{}
	for i := range list.Items {
		node, _, err := unstructured.NestedString(list.Items[i].Object, "spec", "node")
		ten.Expect(err).NotTo(HaveOccurred())
		out[node] = &list.Items[i]
	}
	return out
}

// interfaceOn is the logical port that a DPU's ServiceInterface is to have; "" without one.
func (ten *tenant) interfaceOn(i int) string {
	si := ten.interfaces()[dpu(i)]
	if si == nil {
		return ""
	}
	return ten.name + "_" + si.GetName()
}

// marked is what DPF says of a DPU's logical port.
func (ten *tenant) marked(i int) string {
	si := ten.interfaces()[dpu(i)]
	if si == nil {
		return ""
	}
	return si.GetAnnotations()[connected]
}

// lease is the address the simulated host of a DPU gets; "" if none.
func (ten *tenant) lease(i int) string {
	address, _, ok := ten.DPF.Lease(mac(i).String())
	if !ok {
		return ""
	}
	return address.String()
}

// rows asks OVN's database.
func (s *site) rows(g *WithT, address, database, table string) (rows []map[string]any) {
	conn, err := net.Dial("tcp", strings.TrimPrefix(address, "tcp:"))
	g.Expect(err).NotTo(HaveOccurred())
	defer func() { g.Expect(conn.Close()).To(Succeed()) }()
	question := map[string]any{"id": 1, "method": "transact", "params": []any{
		database, map[string]any{"op": "select", "table": table, "where": []any{}},
	}}
	g.Expect(json.NewEncoder(conn).Encode(question)).To(Succeed())
	var answer struct {
		Result []struct{ Rows []map[string]any }
	}
	g.Expect(json.NewDecoder(conn).Decode(&answer)).To(Succeed())
	g.Expect(answer.Result).To(HaveLen(1))
	return answer.Result[0].Rows
}

func (ten *tenant) nb(table string) []map[string]any {
	return ten.rows(ten.WithT, ten.ovn.Northbound(), "OVN_Northbound", table)
}

func (ten *tenant) sb(table string) []map[string]any {
	return ten.rows(ten.WithT, ten.ovn.Southbound(), "OVN_Southbound", table)
}

// chassis is that of a logical port: "none" without Port_Binding, "" if nobody has claimed it or it is not up.
func (ten *tenant) chassis(id string) string {
	names := map[string]string{}
	for _, row := range ten.sb("Chassis") {
		names[fmt.Sprint(row["_uuid"])] = fmt.Sprint(row["name"])
	}
	for _, row := range ten.sb("Port_Binding") {
		if row["logical_port"] == id && row["up"] == true {
			return names[fmt.Sprint(row["chassis"])]
		} else if row["logical_port"] == id {
			return ""
		}
	}
	return "none"
}

// chosen is the address that OVN's IPAM gave to a logical port; "" if none.
func (ten *tenant) chosen(id string) string {
	for _, row := range ten.nb("Logical_Switch_Port") {
		if row["name"] == id {
			if text, ok := row["dynamic_addresses"].(string); ok {
				return text
			}
		}
	}
	return ""
}

// own lists the names of the tenant's switches, routers and host ports in the northbound database.
func (ten *tenant) own() (names []string) {
	for _, table := range []string{"Logical_Switch", "Logical_Router", "Logical_Switch_Port", "Logical_Router_Port"} {
		for _, row := range ten.nb(table) {
			if strings.HasPrefix(fmt.Sprint(row["name"]), ten.name+"_") {
				names = append(names, table+" "+fmt.Sprint(row["name"]))
			}
		}
	}
	return names
}
