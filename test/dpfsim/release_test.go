// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package dpfsim

import (
	"os"
	"testing"

	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

func nodeLabels(object *unstructured.Unstructured) map[string]string {
	labels, _, _ := unstructured.NestedStringMap(object.Object, "spec", "cluster", "nodeLabels")
	return labels
}

func TestEarlierReleaseDropsLabelsOfTheDevice(t *testing.T) {
	t.Parallel()
	ten := v26_4.newTenant(t, "earlier", 1, nil)
	device := ten.dpus[0].Device
	ten.label(kindDPUDevice, device, map[string]any{ten.vpcKey(): "in"})
	ten.g.Expect(nodeLabels(ten.get(kindDPUDevice, device))).To(BeEmpty())
}

func TestLaterReleaseTakesLabelsOfTheDevice(t *testing.T) {
	t.Parallel()
	if os.Getenv("DPF_CRD_DIR") != "" {
		t.Skip("upstream's CRDs at hand are of a release without DPUDevice.spec.cluster: see TestUpgradeUnderARunningTenant")
	}
	later, stop, err := startSite(assets(), "v26-8", Options{LabelPlace: LabelsOnDPUDevice})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	ten := later.newTenant(t, "later", 1, nil)
	g, d := ten.g, ten.dpus[0]
	ten.makeVPC(false)
	ten.makeNetwork("n", "10.0.0.0/24")
	ten.makeDSI("n-pf0", "n", ten.portSelector("n"))
	ten.label(kindDPUDevice, d.Device, map[string]any{ten.vpcKey(): "in"})
	g.Eventually(func() string { return ten.node(d.Name).Labels[labelNodeVPC] }).Should(Equal(ten.namespace + "_v"))
	ten.label(kindDPUDevice, d.Device, map[string]any{ten.portKey(): "n"})
	g.Eventually(ten.ports).Should(HaveLen(1))
	set := newObject(kindSIS)
	missing, err := find(t.Context(), later.dpuCluster, set, ten.namespace, "n-pf0")
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(missing).To(BeEmpty())
	g.Expect(set.GetAnnotations()).To(HaveKeyWithValue(annotationInterfaceMode, "legacy"))
	ten.label(kindDPUDevice, d.Device, map[string]any{ten.portKey(): nil})
	g.Eventually(ten.ports).Should(BeEmpty())
	g.Expect(later.Writes()[d.Device]).To(Equal(WriteCount{Attach: 2, Detach: 1}))
	g.Expect(later.Writes()[d.Name]).To(Equal(WriteCount{}), "what DPF copies is not somebody's write")
	later.labelsTravelOverTheDPU(ten)
	later.labelsOfTheDeviceSurvive(ten)
}

// labelsTravelOverTheDPU: the DPUSet copies a card's labels to the DPU, and looks only at what it wrote last.
func (s *site) labelsTravelOverTheDPU(ten *tenant) {
	g, d := ten.g, ten.dpus[0]
	ofDPU := func() map[string]string { return nodeLabels(ten.get(kindDPU, d.Name)) }
	g.Eventually(ofDPU).Should(And(HaveKeyWithValue(ten.vpcKey(), "in"), Not(HaveKey(ten.portKey()))))
	ten.label(kindDPU, d.Name, map[string]any{"site.example.com/by-hand": "yes", ten.vpcKey(): nil})
	g.Eventually(func() map[string]string { return ten.node(d.Name).Labels }).ShouldNot(HaveKey(ten.vpcKey()))
	g.Consistently(ofDPU).ShouldNot(HaveKey(ten.vpcKey()), "taken off the DPU by hand, it stays away")
	ten.label(kindDPUDevice, d.Device, map[string]any{ten.portKey(): "n"})
	g.Eventually(ten.ports).Should(HaveLen(1), "until the card's labels change")
	g.Expect(ofDPU()).To(HaveKey("site.example.com/by-hand"), "keys of others survive")
}

func (s *site) labelsOfTheDeviceSurvive(ten *tenant) {
	g, d := ten.g, ten.dpus[0]
	uid := ten.get(kindDPU, d.Name).GetUID()
	s.Inject(Fault{Kind: DPUReplaced, Target: d.Name})
	g.Eventually(func() bool { return ten.maintenance(d) != nil }).Should(BeTrue())
	ten.release(d)
	g.Eventually(func() bool {
		dpu := ten.get(kindDPU, d.Name)
		return dpu != nil && dpu.GetUID() != uid && ten.phase(d.Name) == phaseReady
	}).Should(BeTrue())
	labels := nodeLabels(ten.get(kindDPU, d.Name))
	g.Expect(labels).To(And(HaveKeyWithValue(ten.vpcKey(), "in"), HaveKeyWithValue(ten.portKey(), "n")))
	g.Expect(labels).NotTo(HaveKey("site.example.com/by-hand"))
	g.Eventually(ten.ports).Should(HaveLen(1), "a card that is on a VPC gets there again by itself")
}

func TestUpgradeUnderARunningTenant(t *testing.T) {
	t.Parallel()
	site, stop, err := startSite(assets(), "upgrade", Options{LabelPlace: LabelsOnDPU})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	ten := site.newTenant(t, "upgrade", 2, func(d *DPU) { d.TemplateLabels = map[string]string{"site.example.com/row": "3"} })
	g, a, b := ten.g, ten.dpus[0], ten.dpus[1]
	ten.makeVPC(false)
	ten.makeNetwork("n", "10.0.0.0/24")
	ten.makeDSI("n-pf0", "n", ten.portSelector("n"))
	ten.attach(a, "n")
	plugged := ten.ports()

	ten.label(kindDPUDevice, a.Device, map[string]any{"early": "bird"})
	g.Expect(nodeLabels(ten.get(kindDPUDevice, a.Device))).To(BeEmpty(), "the field is not there yet")
	g.Expect(site.Upgrade(t.Context(), LabelsOnDPUDevice)).To(Succeed())
	g.Expect(nodeLabels(ten.get(kindDPU, a.Name))).To(HaveKey(ten.portKey()), "labels stay where they are")
	ten.label(kindDPUDevice, b.Device, map[string]any{ten.vpcKey(): "in", ten.portKey(): "n"})
	g.Eventually(ten.ports).Should(HaveLen(2))
	g.Expect(ten.ports()).To(ContainElement(plugged[0]), "the running tenant was not touched")
	set := newObject(kindSIS)
	g.Eventually(func() string {
		_, err := find(t.Context(), site.Fabric.dpuCluster, set, ten.namespace, "n-pf0")
		g.Expect(err).NotTo(HaveOccurred())
		return set.GetAnnotations()[annotationInterfaceMode]
	}).Should(Equal("legacy"))
	ten.label(kindDPU, a.Name, map[string]any{ten.portKey(): nil})
	g.Eventually(ten.ports).Should(HaveLen(1))
	g.Expect(site.Writes()[a.Name]).To(Equal(WriteCount{Attach: 2, Detach: 1}), "the journal went on over the restart")
	created := map[string]int{}
	for _, e := range site.Journal() {
		if e.Kind == EffectCreated {
			created[e.Object]++
		}
	}
	for object, times := range created {
		g.Expect(times).To(Equal(1), object)
	}

	// The template and a card that disagree stop the DPUSet.
	ten.label(kindDPUDevice, b.Device, map[string]any{"site.example.com/row": "4", ten.portKey(): nil})
	g.Consistently(ten.ports).Should(HaveLen(1))
	ten.label(kindDPUDevice, b.Device, map[string]any{"site.example.com/row": nil})
	g.Eventually(ten.ports).Should(BeEmpty())
}

func TestUnusableCRDDir(t *testing.T) {
	dir := t.TempDir()
	for _, test := range []struct{ name, file, want string }{
		{"empty", "", "no CRDs"},
		{"not YAML", "\t{", "read CRD"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.file != "" {
				if err := os.WriteFile(dir+"/x.yaml", []byte(test.file), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			f := &Fabric{options: Options{CRDDir: dir}}
			if _, err := f.readCRDs(LabelsOnDPU, false); err == nil {
				t.Fatal("accepted")
			} else {
				NewWithT(t).Expect(err.Error()).To(ContainSubstring(test.want))
			}
		})
	}
}
