// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package ovnvpc_test

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/dpfsim"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/ovnlab"
)

func TestStandIn(t *testing.T)  { testLevel(t, ovnlab.StandIn) }
func TestSwitches(t *testing.T) { testLevel(t, ovnlab.Switches) }

func testLevel(t *testing.T, level ovnlab.Level) {
	s := startSite(t, level)
	for _, test := range []struct {
		name string
		run  func(*testing.T, *site)
	}{
		{"attach, move, detach, delete", testLife},
		{"two VPCs of the same addresses", testTwoVPCs},
		{"lost northbound database", testLostNorthbound},
		{"refused by the northbound database", testRefused},
		{"hung ovn-controller", testHungController},
		{"card without power", testCardDown},
		{"reinstalled card", testReinstalled},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, s) })
	}
}

func testLife(t *testing.T, s *site) {
	red := s.tenant(t, "life")
	red.network("n", cidr)
	red.network("m", "10.65.0.0/24")
	id := red.attach(0, "n")
	red.Expect(red.chosen(id)).To(Equal("58:a2:e1:00:00:00 10.64.0.2"), "the first address is the gateway's")
	red.Expect(red.lease(0)).To(Equal("10.64.0.2"), "the simulated host gets what OVN chose")
	red.Expect(red.own()).To(ContainElements(
		"Logical_Switch life_vSwitch", "Logical_Router life_vRouter", "Logical_Switch life_v_nSwitch", "Logical_Router life_v_mRouter",
		"Logical_Router life_v_dpu-0GR", "Logical_Switch life_v_dpu-0GS", "Logical_Switch_Port life_v_dpu-0GS_to_localnet",
		"Logical_Router_Port life_v_nRouter_to_life_vSwitch", "Logical_Switch_Port "+id,
	))
	red.Eventually(func() []string { return policies(red) }).Should(ContainElement(HavePrefix("50 reroute ip4.src == 10.64.0.2/32")))
	red.attach(1, "n")
	red.Expect(red.lease(1)).To(Equal("10.64.0.3"))

	red.label(0, map[string]any{red.portKey(): "m"})
	red.Eventually(red.chassis).WithArguments(id).Should(Equal("none"))
	red.Eventually(red.lease).WithArguments(0).Should(Equal("10.65.0.2"))
	moved := red.interfaceOn(0)
	red.Expect(red.chosen(moved)).To(Equal("58:a2:e1:00:00:00 10.65.0.2"))
	red.Eventually(red.chassis).WithArguments(moved).Should(Equal(dpu(0)))

	red.detach(0)
	red.detach(1)
	red.Expect(red.chassis(moved)).To(Equal("none"))
	red.Eventually(red.own).ShouldNot(ContainElement(ContainSubstring("dpu-0GR")), "the gateway goes with the Node's membership")
	red.end()
	red.Eventually(red.own).Should(BeEmpty())
	for _, table := range []string{"NAT", "DHCP_Options", "Logical_Router_Policy", "Logical_Router_Static_Route"} {
		red.Expect(red.nb(table)).To(BeEmpty(), table)
	}
}

func policies(ten *tenant) (out []string) {
	for _, row := range ten.nb("Logical_Router_Policy") {
		out = append(out, fmt.Sprintf("%v %v %v %v", row["priority"], row["action"], row["match"], row["nexthops"]))
	}
	return out
}

// end deletes the tenant's objects in DPF's order and waits until they are gone.
func (ten *tenant) end() {
	ten.t.Helper()
	for _, kind := range []schema.GroupVersionKind{kindDSI, kindNetwork, kindVPC} {
		ten.Expect(ten.DPFAdmin.DeleteAllOf(ten.ctx, ten.object(kind, ""), client.InNamespace(ten.name))).To(Succeed())
		ten.Eventually(func() (int, error) {
			list := &unstructured.UnstructuredList{}
			list.SetGroupVersionKind(kind)
			err := ten.DPFAdmin.List(ten.ctx, list, client.InNamespace(ten.name))
			return len(list.Items), err
		}).Should(BeZero(), kind.Kind)
	}
}

func testTwoVPCs(t *testing.T, s *site) {
	red, blue := s.tenant(t, "red"), s.tenant(t, "blue")
	for _, ten := range []*tenant{red, blue} {
		ten.network("n", cidr)
	}
	red.attach(0, "n")
	red.attach(1, "n")
	blue.attach(2, "n")
	blue.attach(3, "n")
	red.Expect([]string{red.lease(0), red.lease(1), red.lease(2), red.lease(3)}).To(Equal([]string{"10.64.0.2", "10.64.0.3", "10.64.0.2", "10.64.0.3"}))
	red.Expect(s.DPF.Reachable(mac(0).String(), mac(1).String())).To(BeTrue())
	red.Expect(s.DPF.Reachable(mac(0).String(), mac(2).String())).To(BeFalse())
	if err := s.ovn.Send(red.ctx, dpu(0), port, frame(0, 1, 0)); errors.Is(err, ovnlab.ErrNoFrames) {
		red.Expect(s.ovn.Level()).To(Equal(ovnlab.StandIn))
	} else {
		red.Expect(err).NotTo(HaveOccurred())
		red.Expect(red.sees(0, 1)).To(Equal([]int{1}), "a frame to dpu-1 arrives there and nowhere else")
		red.Expect(red.sees(0, 2)).To(BeEmpty(), "a frame to the other tenant's host arrives nowhere")
		red.Expect(red.sees(0, broadcast)).To(Equal([]int{1}))
	}
	for i := range dpus {
		map[bool]*tenant{true: red, false: blue}[i < 2].detach(i)
	}
	red.end()
	blue.end()
}

const broadcast = -1

// frame is from one host to another that nothing else looks like.
func frame(from, to, number int) []byte {
	destination := bytes.Repeat([]byte{0xff}, 6)
	if to != broadcast {
		destination = mac(to)
	}
	out := append(append(append([]byte(nil), destination...), mac(from)...), 0x88, 0xb5)
	return append(append(out, fmt.Sprintf("ovnvpc %d %d %d", from, to, number)...), make([]byte, 50)...)
}

// sees sends frames until one arrives at the host it is for, if any is to, and returns all hosts that got one of them.
func (ten *tenant) sees(from, to int) (at []int) {
	ten.t.Helper()
	got := map[int]bool{}
	for number := range 20 {
		ten.Expect(ten.ovn.Send(ten.ctx, dpu(from), port, frame(from, to, number))).To(Succeed())
		deadline := time.NewTimer(50 * time.Millisecond)
		for waiting := true; waiting; {
			select {
			case <-deadline.C:
				waiting = false
			case <-time.After(time.Millisecond):
			}
			for i := range dpus {
				received, err := ten.ovn.Received(dpu(i), port)
				ten.Expect(err).NotTo(HaveOccurred())
				for _, f := range received {
					got[i] = got[i] || bytes.Contains(f.Data, fmt.Appendf(nil, "ovnvpc %d %d ", from, to))
				}
			}
		}
	}
	for i := range dpus {
		if got[i] {
			at = append(at, i)
		}
	}
	return at
}

func testLostNorthbound(t *testing.T, s *site) {
	red := s.tenant(t, "lost")
	red.network("n", cidr)
	id := red.attach(0, "n")
	s.DPF.Inject(dpfsim.Fault{Kind: dpfsim.NorthboundLost})
	red.Expect(red.own()).To(BeEmpty())
	red.Eventually(red.chassis).WithArguments(id).Should(Equal("none"))
	red.Expect(red.lease(0)).To(BeEmpty())

	s.DPF.Restart()
	red.Eventually(red.chassis).WithArguments(id).Should(Equal(dpu(0)))
	red.Eventually(red.lease).WithArguments(0).Should(Equal("10.64.0.2"))
	red.Expect(red.chosen(id)).To(HaveSuffix(" 10.64.0.2"))
	red.Eventually(red.marked).WithArguments(0).Should(Equal("true"))
	red.detach(0)
	red.end()
	red.Expect(red.own()).To(BeEmpty())
}

func testRefused(t *testing.T, s *site) {
	red := s.tenant(t, "refused")
	red.network("n", cidr)
	s.northern.refuse(errors.New("no"))
	red.ask(0, "n")
	red.Eventually(red.marked).WithArguments(0).Should(Equal("false"))
	red.Expect(red.lease(0)).To(BeEmpty())
	s.northern.refuse(nil)
	red.Eventually(red.marked).WithArguments(0).Should(Equal("true"))
	red.Eventually(red.lease).WithArguments(0).Should(Equal("10.64.0.2"))
	id := red.interfaceOn(0)
	red.Eventually(red.chassis).WithArguments(id).Should(Equal(dpu(0)))

	s.northern.refuse(errors.New("no"))
	red.label(0, map[string]any{red.portKey(): nil})
	red.Eventually(func() []string { return red.finalizers(0) }).Should(Equal([]string{"ovn.vpc.dpu.nvidia.com/serviceinterface-protection"}),
		"the agent has done its part, and the controller waits")
	s.northern.refuse(nil)
	red.Eventually(red.chassis).WithArguments(id).Should(Equal("none"))
	red.detach(0)
	red.end()
}

func (ten *tenant) finalizers(i int) []string {
	if si := ten.interfaces()[dpu(i)]; si != nil {
		return si.GetFinalizers()
	}
	return nil
}

func testHungController(t *testing.T, s *site) {
	red := s.tenant(t, "hung")
	red.network("n", cidr)
	resume := s.DPF.Inject(dpfsim.Fault{Kind: dpfsim.OVNControllerHung, Target: dpu(0)})
	red.ask(0, "n")
	red.Eventually(red.marked).WithArguments(0).Should(Equal("true"), "DPF does not look")
	red.Eventually(func() string { return red.ready(0) }).Should(Equal("True"))
	id := red.interfaceOn(0)
	red.Eventually(red.chosen).WithArguments(id).ShouldNot(BeEmpty())
	red.Expect(red.chassis(id)).To(BeEmpty())
	resume()
	red.Eventually(red.chassis).WithArguments(id).Should(Equal(dpu(0)))
	red.detach(0)
	red.end()
}

func testCardDown(t *testing.T, s *site) {
	red := s.tenant(t, "down")
	red.network("n", cidr)
	id := red.attach(0, "n")
	red.attach(1, "n")
	up := s.DPF.Inject(dpfsim.Fault{Kind: dpfsim.DPUReboot, Target: dpu(0)})
	red.Expect(red.chassis(id)).To(Equal(dpu(0)), "a card without power does not say so")
	red.Expect(s.ovn.Plug(red.ctx, dpu(0), port, id)).To(MatchError(ovnlab.ErrDown))
	if s.ovn.Level() != ovnlab.StandIn {
		red.Expect(red.sees(1, 0)).To(BeEmpty())
	}
	up()
	red.Eventually(red.chassis).WithArguments(id).Should(Equal(dpu(0)))
	red.Eventually(red.lease).WithArguments(0).ShouldNot(BeEmpty())
	if s.ovn.Level() != ovnlab.StandIn {
		red.Eventually(red.sees).WithArguments(1, 0).Should(Equal([]int{0}))
	}
	red.detach(0)
	red.detach(1)
	red.end()
}

func testReinstalled(t *testing.T, s *site) {
	red := s.tenant(t, "wiped")
	red.network("n", cidr)
	id := red.attach(0, "n")
	// Without the agent nobody plugs the port again.
	agent := s.DPF.Inject(dpfsim.Fault{Kind: dpfsim.ControllerStalled, Target: dpfsim.ControllerAgent})
	installed := s.DPF.Inject(dpfsim.Fault{Kind: dpfsim.Reprovision, Target: dpu(0)})
	red.Expect(red.chassis(id)).To(Equal(dpu(0)))
	installed()
	red.Eventually(red.chassis).WithArguments(id).ShouldNot(Equal(dpu(0)), "its switch has forgotten the port")
	agent()
	red.detach(0)
	red.end()
}

// ready is the condition of a DPU's ServiceInterface.
func (ten *tenant) ready(i int) string {
	si := ten.interfaces()[dpu(i)]
	if si == nil {
		return ""
	}
	conditions, _, err := unstructured.NestedSlice(si.Object, "status", "conditions")
	ten.Expect(err).NotTo(HaveOccurred())
	for _, c := range conditions {
		if c, ok := c.(map[string]any); ok && c["type"] == "Ready" {
			return fmt.Sprint(c["status"])
		}
	}
	return ""
}
