// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package vpc

import (
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/util/validation"
)

func TestNames(t *testing.T) {
	long := strings.Repeat("a.b-", 63)
	seen := map[string]string{}
	for _, tc := range []struct{ installation, namespace, name, subnet string }{
		{"i", "red", "net", "workers"},
		{"j", "red", "net", "workers"},
		{"i", "red-net", "net", "workers"},
		{"i", "red", "net-net", "workers"},
		{"i", "re", "dnet", "workers"},
		{"i", "red", "net", "other"},
		{"i", strings.Repeat("n", 63), long[:251], strings.Repeat("s", 32)},
		{"i", strings.Repeat("n", 63), long[:247], strings.Repeat("s", 32)},
	} {
		vpcName := VPCName(tc.installation, tc.namespace, tc.name)
		network := NetworkName(tc.installation, tc.namespace, tc.name, tc.subnet)
		dsi := InterfaceName(network, 15)
		if len(vpcName) > 40 || len(network) > 40 || len(dsi) > 63 {
			t.Errorf("too long: %s %s %s", vpcName, network, dsi)
		}
		for _, name := range []string{vpcName, network, dsi} {
			if problems := validation.IsDNS1123Label(name); len(problems) > 0 {
				t.Errorf("%s: %v", name, problems)
			}
		}
		if err := CheckMark("dpf-operator-system", vpcName); err != nil {
			t.Error(err)
		}
		key := strings.Join([]string{tc.installation, tc.namespace, tc.name}, "/")
		for name, of := range map[string]string{vpcName: key, network: key + "/" + tc.subnet} {
			if other, taken := seen[name]; taken && other != of {
				t.Errorf("%s and %s are both called %s", of, other, name)
			}
			seen[name] = of
		}
	}
	if CheckMark(strings.Repeat("n", 30), VPCName("i", "red", strings.Repeat("x", 60))) == nil {
		t.Error("a mark of more than 63 characters is accepted")
	}
}

func TestPortKeys(t *testing.T) {
	for pf := range int32(16) {
		key := PortKey(pf)
		if got, ok := PortOf(key); !ok || got != pf || !IsOurKey(key) {
			t.Errorf("%s is PF %d, %t", key, got, ok)
		}
		if problems := validation.IsQualifiedName(key); len(problems) > 0 {
			t.Errorf("%s: %v", key, problems)
		}
	}
	for _, key := range []string{VPCKey, portKeyPrefix, portKeyPrefix + "01", portKeyPrefix + "-1", portKeyPrefix + "x", "other/pf0", HolderAnnotation} {
		if _, ok := PortOf(key); ok {
			t.Errorf("%s plugs a port", key)
		}
	}
	if !IsOurKey(VPCKey) || IsOurKey("kubernetes.io/hostname") {
		t.Error("keys are mistaken")
	}
}

func TestOwnership(t *testing.T) {
	owner := Owner{Installation: "i", Namespace: "red", Name: "net"}
	for value, want := range map[string]Ownership{"i/red/net": Mine, "j/red/net": Foreign, "i/red/other": Foreign, "": Foreign} {
		if got := owner.OwnershipOf(map[string]string{OwnerAnnotation: value}); got != want {
			t.Errorf("%q: %s", value, got)
		}
	}
	if got := owner.OwnershipOf(nil); got != Nobodys {
		t.Errorf("no annotation: %s", got)
	}
	if problems := validation.IsValidLabelValue(owner.InstallationHash()); len(problems) > 0 {
		t.Error(problems)
	}
}
