// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package apivalidation

import (
	"strings"
	"testing"

	. "github.com/onsi/gomega"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// ruleCase is one request that a CEL rule or pattern judges.
type ruleCase struct {
	name   string
	sample string
	// before makes an update of the sample changed so; nil makes it a creation.
	before []edit
	edits  []edit
	// refused is a part of the rule's sentence, empty where the request is admitted.
	refused string
}

// unchanged is an update of the sample as it is.
var unchanged = []edit{}

// untestable are rules that no legal request can break yet.
var untestable = map[string]string{
	"dpufabrics": "backend.type is immutable", // there is one type
}

// TestRules asks about every CEL rule, both ways.
func TestRules(t *testing.T) {
	for _, tables := range [][]ruleCase{machineWingRules, machineRules, fabricWingRules} {
		for _, tt := range tables {
			t.Run(tt.sample+": "+tt.name, func(t *testing.T) {
				g := NewWithT(t)
				err := tt.ask(t)
				if tt.refused == "" {
					g.Expect(err).NotTo(HaveOccurred())
					return
				}
				g.Expect(apierrors.IsInvalid(err)).To(BeTrue(), "%v", err)
				g.Expect(err).To(MatchError(ContainSubstring(tt.refused)))
			})
		}
	}
}

func (r ruleCase) ask(t *testing.T) error {
	t.Helper()
	if r.before == nil {
		return admin.Create(t.Context(), base(t, r.sample, r.edits...), client.DryRunAll)
	}
	object := base(t, r.sample, r.before...)
	create(t, admin, object)
	for _, change := range r.edits {
		change(t, object.Object)
	}
	return admin.Update(t.Context(), object, client.DryRunAll)
}

// TestEveryRuleIsAsked: each sentence of a CRD is expected by exactly one case at least, so that a new rule needs a case.
func TestEveryRuleIsAsked(t *testing.T) {
	expected := map[string][]string{}
	for _, table := range [][]ruleCase{machineWingRules, machineRules, fabricWingRules} {
		for _, tt := range table {
			if tt.refused != "" {
				expected[tt.sample] = append(expected[tt.sample], tt.refused)
			}
		}
	}
	for _, kind := range kinds {
		for _, message := range sentences(readCRD(t, kind.plural).Spec.Versions[0].Schema.OpenAPIV3Schema) {
			asked := untestable[kind.plural] != "" && strings.HasPrefix(message, untestable[kind.plural])
			for _, sample := range kind.samples {
				for _, part := range expected[sample] {
					asked = asked || strings.Contains(message, part)
				}
			}
			if !asked {
				t.Errorf("%s: no case expects %q", kind.plural, message)
			}
		}
	}
}

// sentences returns the messages of all CEL rules below a schema.
func sentences(schema *apiextensionsv1.JSONSchemaProps) []string {
	var messages []string
	for _, rule := range schema.XValidations {
		messages = append(messages, rule.Message)
	}
	for name := range schema.Properties {
		messages = append(messages, sentences(ptrTo(schema.Properties[name]))...)
	}
	if schema.Items != nil {
		messages = append(messages, sentences(schema.Items.Schema)...)
	}
	return messages
}

var machineWingRules = []ruleCase{
	{name: "identity changed", sample: "maascluster", before: unchanged, edits: []edit{set("spec.identityRef.name", "other")}, refused: "identityRef is immutable"},
	{name: "VPC changed", sample: "maascluster", before: unchanged, edits: []edit{set("spec.vpcName", "other")}, refused: "vpcName is immutable"},
	{name: "VPC added", sample: "maascluster", before: []edit{unset("spec.vpcName")}, edits: []edit{set("spec.vpcName", "other")}, refused: "vpcName is immutable"},
	{name: "VPC removed", sample: "maascluster", before: unchanged, edits: []edit{unset("spec.vpcName")}, refused: "vpcName is immutable"},
	{name: "endpoint changed", sample: "maascluster", before: unchanged, edits: []edit{set("spec.controlPlaneEndpoint.port", int64(443))}, refused: "controlPlaneEndpoint is immutable once set"},
	{name: "endpoint removed", sample: "maascluster", before: unchanged, edits: []edit{unset("spec.controlPlaneEndpoint")}, refused: "controlPlaneEndpoint is immutable once set"},
	{
		name: "endpoint set later", sample: "maascluster", before: []edit{unset("spec.controlPlaneEndpoint")},
		edits: []edit{set("spec.controlPlaneEndpoint", map[string]any{"host": "192.0.2.1", "port": int64(6443)})},
	},
	{name: "zones changed", sample: "maascluster", before: unchanged, edits: []edit{set("spec.failureDomains", []any{"z2"})}},

	{name: "endpoint changed", sample: "maasclusteridentity", before: unchanged, edits: []edit{set("spec.endpoint", "https://other/MAAS")}, refused: "endpoint is immutable"},
	{name: "source changed", sample: "maasclusteridentity", before: unchanged, edits: []edit{set("spec.source", "rack-b")}, refused: "source is immutable"},
	{name: "source removed", sample: "maasclusteridentity", before: unchanged, edits: []edit{unset("spec.source"), set("spec.isolation", "Optional")}, refused: "source is immutable"},
	{name: "isolation without source", sample: "maasclusteridentity", edits: []edit{unset("spec.source")}, refused: "source is required where isolation is Required"},
	{name: "default isolation without source", sample: "maasclusteridentity", edits: []edit{unset("spec.source"), unset("spec.isolation")}, refused: "source is required where isolation is Required"},
	{name: "optional isolation without source", sample: "maasclusteridentity", edits: []edit{unset("spec.source"), set("spec.isolation", "Optional")}},
	{name: "no URL", sample: "maasclusteridentity", edits: []edit{set("spec.endpoint", "maas.example.com")}, refused: "endpoint must be a URL that ends in /MAAS"},
	{name: "another scheme", sample: "maasclusteridentity", edits: []edit{set("spec.endpoint", "ftp://maas.example.com/MAAS")}, refused: "endpoint must be a URL that ends in /MAAS"},
	{name: "another path", sample: "maasclusteridentity", edits: []edit{set("spec.endpoint", "https://maas.example.com/MAAS/api/2.0/")}, refused: "endpoint must be a URL that ends in /MAAS"},
	{name: "plain HTTP", sample: "maasclusteridentity", edits: []edit{set("spec.endpoint", "http://127.0.0.1:5240/MAAS")}},
	{name: "erase default None, minimum Quick", sample: "maasclusteridentity", edits: erase("None", "Quick"), refused: "eraseDefault must not be weaker than eraseMinimum"},
	{name: "erase default Quick, minimum Secure", sample: "maasclusteridentity", edits: erase("Quick", "Secure"), refused: "eraseDefault must not be weaker than eraseMinimum"},
	{name: "erase default Secure, minimum Full", sample: "maasclusteridentity", edits: erase("Secure", "Full"), refused: "eraseDefault must not be weaker than eraseMinimum"},
	{name: "erase default unsaid, minimum Secure", sample: "maasclusteridentity", edits: []edit{set("spec.release", map[string]any{"eraseMinimum": "Secure"})}, refused: "eraseDefault must not be weaker than eraseMinimum"},
	{name: "erase default Secure, minimum Quick", sample: "maasclusteridentity", edits: erase("Secure", "Quick")},
	{name: "erase default None, minimum None", sample: "maasclusteridentity", edits: erase("None", "None")},
	{name: "erase default Full, minimum Secure", sample: "maasclusteridentity", edits: erase("Full", "Secure")},
}

func erase(byDefault, least string) []edit {
	return []edit{set("spec.release", map[string]any{"eraseDefault": byDefault, "eraseMinimum": least})}
}

var fabricWingRules = []ruleCase{
	{name: "fabric changed", sample: "tenantvpc", before: unchanged, edits: []edit{set("spec.fabricName", "other")}, refused: "fabricName is immutable"},
	{name: "adopted another", sample: "tenantvpc-adopted", before: unchanged, edits: []edit{set("spec.adopt.name", "other")}, refused: "adopt is immutable"},
	{name: "adopted later", sample: "tenantvpc", before: unchanged, edits: []edit{unset("spec.subnets"), set("spec.adopt", map[string]any{"name": "x"})}, refused: "adopt is immutable"},
	{name: "adopted no longer", sample: "tenantvpc-adopted", before: unchanged, edits: []edit{unset("spec.adopt"), set("spec.subnets", []any{subnet("a", "10.64.0.0/24")})}, refused: "adopt is immutable"},
	{name: "adopted and subnets", sample: "tenantvpc-adopted", edits: []edit{set("spec.subnets", []any{subnet("a", "10.64.0.0/24")})}, refused: "subnets and adopt exclude each other"},
	{name: "adopted and changed", sample: "tenantvpc-adopted", edits: []edit{set("spec.interNetworkAccess", false)}, refused: "interNetworkAccess and adopt exclude each other"},
	{name: "adopted and changed later", sample: "tenantvpc-adopted", before: unchanged, edits: []edit{set("spec.interNetworkAccess", true)}, refused: "an adopted VPC is never changed"},
	{name: "prefix of a site", sample: "dpufabric", edits: prefixes("site.example/", "site.example/vpc-")},
	{name: "prefix without a domain", sample: "dpufabric", edits: prefixes("vpc"), refused: "should match"},
	{name: "prefix of everything", sample: "dpufabric", edits: prefixes("/"), refused: "should match"},
	{name: "prefix of the provider", sample: "dpufabric", edits: prefixes("maas-dpu.dpucloud.io/"), refused: "is the provider's own"},
	{name: "prefix among the provider's", sample: "dpufabric", edits: prefixes("maas-dpu.dpucloud.io/vpc"), refused: "is the provider's own"},
	{name: "neither", sample: "tenantvpc", edits: []edit{unset("spec.subnets")}, refused: "name at least one subnet, or a VPC to adopt"},
	{name: "no subnet", sample: "tenantvpc", edits: []edit{set("spec.subnets", []any{})}, refused: "name at least one subnet, or a VPC to adopt"},
	{name: "CIDR changed", sample: "tenantvpc", before: unchanged, edits: []edit{set("spec.subnets[0].cidr", "10.65.0.0/24"), unset("spec.subnets[0].excludeIPs")}, refused: "a subnet cannot be changed"},
	{name: "routing changed", sample: "tenantvpc", before: unchanged, edits: []edit{unset("spec.subnets[0].externallyRouted")}, refused: "a subnet cannot be changed"},
	{name: "exclusions changed", sample: "tenantvpc", before: unchanged, edits: []edit{unset("spec.subnets[0].excludeIPs")}, refused: "a subnet cannot be changed"},
	{name: "subnet renamed", sample: "tenantvpc", before: unchanged, edits: []edit{set("spec.subnets[0].name", "other")}},
	{
		name: "subnet added in front", sample: "tenantvpc", before: []edit{set("spec.subnets", []any{subnet("a", "10.64.0.0/24")})},
		edits: []edit{set("spec.subnets", []any{subnet("b", "10.64.1.0/24"), subnet("a", "10.64.0.0/24")})},
	},
	{name: "CIDR is nonsense", sample: "tenantvpc", edits: cidr("10.64.0.0.0/24"), refused: "cidr must be an IPv4 network"},
	{name: "CIDR is an address", sample: "tenantvpc", edits: cidr("10.64.0.100"), refused: "cidr must be an IPv4 network"},
	{name: "CIDR is IPv6", sample: "tenantvpc", edits: cidr("fd00:10:64::/64"), refused: "cidr must be an IPv4 network"},
	{name: "CIDR with host bits", sample: "tenantvpc", edits: cidr("10.64.0.5/24"), refused: "clear the host bits"},
	{name: "CIDR too large", sample: "tenantvpc", edits: cidr("10.0.0.0/7"), refused: "prefix length between 8 and 29"},
	{name: "CIDR too small", sample: "tenantvpc", edits: cidr("10.64.0.0/30"), refused: "prefix length between 8 and 29"},
	{name: "CIDR is the smallest", sample: "tenantvpc", edits: cidr("10.64.0.0/29")},
	{name: "CIDR is the largest", sample: "tenantvpc", edits: cidr("10.0.0.0/8")},
	{name: "CIDR inside OVN's", sample: "tenantvpc", edits: cidr("100.64.8.0/24"), refused: "cidr must lie outside 100.64.0.0/16"},
	{name: "CIDR is OVN's", sample: "tenantvpc", edits: cidr("100.64.0.0/16"), refused: "cidr must lie outside 100.64.0.0/16"},
	{name: "CIDR around OVN's", sample: "tenantvpc", edits: cidr("100.64.0.0/10"), refused: "cidr must lie outside 100.64.0.0/16"},
	{name: "CIDR beside OVN's", sample: "tenantvpc", edits: cidr("100.65.0.0/16")},

	{name: "server changed", sample: "dpuattachment", before: unchanged, edits: []edit{set("spec.server.systemID", "def456")}, refused: "server is immutable"},
	{name: "VPC changed", sample: "dpuattachment", before: unchanged, edits: []edit{set("spec.vpcName", "other")}, refused: "vpcName is immutable"},
	{name: "machine changed", sample: "dpuattachment", before: unchanged, edits: []edit{set("spec.machineName", "other")}, refused: "machineName is immutable"},
	{name: "port changed", sample: "dpuattachment", before: unchanged, edits: []edit{set("spec.ports[0].subnet", "other")}, refused: "ports are immutable"},
	{name: "attached again", sample: "dpuattachment", before: []edit{set("spec.state", "Detached")}, edits: []edit{set("spec.state", "Attached")}, refused: "a detached attachment is not attached again"},
	{name: "detached", sample: "dpuattachment", before: unchanged, edits: []edit{set("spec.state", "Detached")}},
	{name: "another kind's override", sample: "dpuattachment", edits: []edit{set("spec.override.action", "Abandon")}, refused: "action must be ForceDetach"},

	{name: "another name", sample: "dpuserver", edits: []edit{set("metadata.name", "base")}, refused: "metadata.name must be <source>.<systemID>"},
	{name: "fabric changed", sample: "dpuserver", before: unchanged, edits: []edit{set("spec.fabricName", "other")}, refused: "fabricName, source and systemID are immutable"},
	{name: "another kind's override", sample: "dpuserver", edits: []edit{set("spec.override.action", "Abandon")}, refused: "action must be Rebind"},

	{name: "no backend", sample: "dpufabric", edits: []edit{unset("spec.backend.ovnVPC")}, refused: "ovnVPC must be set exactly when type is OVNVPC"},
	{name: "OVN without TLS", sample: "dpufabric", edits: ovn("tcp:192.0.2.1:6642", "", "", false)},
	{name: "OVN with TLS", sample: "dpufabric", edits: ovn("ssl:192.0.2.1:6642", "ssl:192.0.2.1:6641", "ovn-tls", true)},
	{name: "OVN with ssl and no Secret", sample: "dpufabric", edits: ovn("ssl:192.0.2.1:6642", "", "", false), refused: "ssl: needs tlsSecretRef"},
	{name: "OVN with ssl northbound and no Secret", sample: "dpufabric", edits: ovn("tcp:192.0.2.1:6642", "ssl:192.0.2.1:6641", "", false), refused: "ssl: needs tlsSecretRef"},
	{name: "OVN with ssl among several and no Secret", sample: "dpufabric", edits: ovn("tcp:192.0.2.1:6642,ssl:192.0.2.2:6642", "", "", false), refused: "ssl: needs tlsSecretRef"},
	{name: "barrier without northbound", sample: "dpufabric", edits: ovn("tcp:192.0.2.1:6642", "", "", true), refused: "barrier: true needs northbound"},
	{name: "no barrier without northbound", sample: "dpufabric", edits: append(ovn("tcp:192.0.2.1:6642", "", "", true), set("spec.backend.ovnVPC.ovn.barrier", false))},
	{name: "barrier", sample: "dpufabric", edits: ovn("tcp:192.0.2.1:6642", "tcp:192.0.2.1:6641", "", true)},
	{name: "OVN by another method", sample: "dpufabric", edits: ovn("unix:/run/ovn/sb.sock", "", "", false), refused: "should match"},
	{name: "label key changed", sample: "dpufabric", before: unchanged, edits: []edit{set("spec.serverLabelKey", "other")}, refused: "serverLabelKey is immutable"},
	{name: "label key is nonsense", sample: "dpufabric", edits: []edit{set("spec.serverLabelKey", "a/b/c")}, refused: "serverLabelKey must be a label key"},
	{name: "label key without prefix", sample: "dpufabric", edits: []edit{set("spec.serverLabelKey", "system-id")}},
	{name: "source is no URL", sample: "dpufabric", edits: []edit{set("spec.claimSources[0].endpoint", "maas")}, refused: "endpoint must be a URL that ends in /MAAS"},
	{name: "pool is nonsense", sample: "dpufabric", edits: []edit{set("spec.tenantPools", []any{"10.64.0.0"})}, refused: "a tenant pool must be an IPv4 network"},
	{name: "pool with host bits", sample: "dpufabric", edits: []edit{set("spec.tenantPools", []any{"10.64.0.1/10"})}, refused: "a tenant pool must be an IPv4 network"},
	{name: "pool is IPv6", sample: "dpufabric", edits: []edit{set("spec.tenantPools", []any{"fd00::/8"})}, refused: "a tenant pool must be an IPv4 network"},
}

func subnet(name, cidr string) map[string]any { return map[string]any{"name": name, "cidr": cidr} }

func cidr(value string) []edit {
	return []edit{set("spec.subnets", []any{subnet("a", value)})}
}

// ovn names databases; what is empty or false is left out.
func ovn(southbound, northbound, secret string, barrier bool) []edit {
	endpoints := map[string]any{"southbound": southbound}
	if northbound != "" {
		endpoints["northbound"] = northbound
	}
	if secret != "" {
		endpoints["tlsSecretRef"] = map[string]any{"name": secret}
	}
	if barrier {
		endpoints["barrier"] = true
	}
	return []edit{set("spec.backend.ovnVPC.ovn", endpoints)}
}

func prefixes(prefixes ...any) []edit {
	return []edit{set("spec.backend.ovnVPC.adoptionKeyPrefixes", prefixes)}
}
