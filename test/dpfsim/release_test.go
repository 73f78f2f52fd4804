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
	if os.Getenv("DPF_CRD_DIR") != "" {
		t.Skip("upstream's CRDs at hand are of a release without DPUDevice.spec.cluster")
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
			if _, err := f.readCRDs(); err == nil {
				t.Fatal("accepted")
			} else {
				NewWithT(t).Expect(err.Error()).To(ContainSubstring(test.want))
			}
		})
	}
}
