// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package vpc

import (
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/vpcv1alpha1"
)

func TestDecideAdoption(t *testing.T) {
	owner := Owner{Installation: "i", Namespace: "red", Name: "main"}
	other := Owner{Installation: "i", Namespace: "blue", Name: "main"}
	site := &metav1.LabelSelector{MatchLabels: map[string]string{"site.example/vpc": "x"}}
	made := func(selector *metav1.LabelSelector, annotations map[string]string) *vpcv1alpha1.DPUVPC {
		return &vpcv1alpha1.DPUVPC{ObjectMeta: metav1.ObjectMeta{Annotations: annotations}, Spec: vpcv1alpha1.DPUVPCSpec{NodeSelector: selector}}
	}
	granted := map[string]string{GrantAnnotation: owner.String()}
	for _, c := range []struct {
		name string
		vpc  *vpcv1alpha1.DPUVPC
		want Adoption
	}{
		{"granted", made(site, granted), AdoptionGranted},
		{"no such DPUVPC", nil, AdoptionNotGranted},
		{"no grant", made(site, nil), AdoptionNotGranted},
		{"granted to another", made(site, map[string]string{GrantAnnotation: other.String()}), AdoptionNotGranted},
		{"another TenantVPC's mark", made(site, map[string]string{GrantAnnotation: owner.String(), OwnerAnnotation: other.String()}), AdoptionNotGranted},
		{"our own mark", made(site, map[string]string{GrantAnnotation: owner.String(), OwnerAnnotation: owner.String()}), AdoptionNotGranted},
		{"no selector", made(nil, granted), AdoptionUnsuitable},
		{"selects every Node", made(&metav1.LabelSelector{}, granted), AdoptionUnsuitable},
		{"expressions", made(&metav1.LabelSelector{
			MatchLabels:      site.MatchLabels,
			MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "site.example/vpc", Operator: metav1.LabelSelectorOpExists}},
		}, granted), AdoptionUnsuitable},
		{"a key of the provider's", made(&metav1.LabelSelector{MatchLabels: map[string]string{VPCKey: "x"}}, granted), AdoptionUnsuitable},
		{"a key not permitted", made(&metav1.LabelSelector{MatchLabels: map[string]string{"site.example/vpc": "x", "kubernetes.io/hostname": "y"}}, granted), AdoptionUnsuitable},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, message := DecideAdoption(owner, c.vpc, []string{"site.example/", "maas-dpu.dpucloud.io/"})
			if got != c.want {
				t.Errorf("DecideAdoption = %s (%s), want %s", got, message, c.want)
			}
			_, absent := DecideAdoption(owner, nil, nil)
			if got == AdoptionNotGranted && message != absent {
				t.Errorf("the message tells whether the DPUVPC exists: %q", message)
			}
			if got == AdoptionGranted != (message == "") {
				t.Errorf("message %q for %s", message, got)
			}
		})
	}
	if got, _ := DecideAdoption(owner, made(site, granted), nil); got != AdoptionUnsuitable {
		t.Errorf("without permitted prefixes the answer is %s, want %s", got, AdoptionUnsuitable)
	}
}
