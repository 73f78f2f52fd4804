// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package apivalidation

import (
	"slices"
	"sync"
	"testing"

	. "github.com/onsi/gomega"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/rest"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
)

// The tests here go through TLS to the webhooks of both wings, by the configurations that are shipped; what each webhook judges
// is tested beside its code.

// warnings collects what the API server passes on.
type warnings struct {
	mutex sync.Mutex
	said  []string
}

// HandleWarningHeader implements rest.WarningHandler.
func (w *warnings) HandleWarningHeader(_ int, _ string, message string) {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	w.said = append(w.said, message)
}

func (w *warnings) take() []string {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	said := slices.Clone(w.said)
	w.said = nil
	return said
}

func listening(t *testing.T) (client.Client, *warnings) {
	t.Helper()
	heard := &warnings{}
	attentive := rest.CopyConfig(config)
	attentive.WarningHandler = heard
	c, err := client.New(attentive, client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	return c, heard
}

func TestMissingReferencesWarn(t *testing.T) {
	for sample, sentence := range map[string]string{
		"maascluster":   `MaasClusterIdentity "none-yet" does not exist yet`,
		"tenantvpc":     `DPUFabric "none-yet" does not exist yet`,
		"dpuattachment": `TenantVPC "none-yet" does not exist yet`,
		"dpuserver":     `DPUFabric "none-yet" does not exist yet`,
	} {
		t.Run(sample, func(t *testing.T) {
			g := NewWithT(t)
			c, heard := listening(t)
			g.Expect(c.Create(t.Context(), base(t, sample), client.DryRunAll)).To(Succeed())
			g.Expect(heard.take()).To(ContainElement(ContainSubstring(sentence)))
		})
	}
}

// useIdentity creates an identity and, where wanted, a Cluster that uses it.
func useIdentity(t *testing.T, edits ...edit) {
	t.Helper()
	create(t, admin, base(t, "maasclusteridentity", append([]edit{set("metadata.name", "rack-a"), unset("spec.fabricAccess")}, edits...)...))
}

func TestForbiddenReferencesAreRefused(t *testing.T) {
	useIdentity(t, set("spec.allowedZones", []any{"z1"}), set("spec.release.eraseMinimum", "Secure"))
	create(t, admin, base(t, "dpufabric", set("metadata.name", "dpf-a"), set("spec.tenantPools", []any{"10.64.0.0/16"})))
	create(t, admin, base(t, "tenantvpc", set("metadata.name", "vpc"), set("spec.fabricName", "dpf-a")))
	create(t, admin, base(t, "maascluster", set("metadata.name", "cluster"), set("spec.identityRef.name", "rack-a"), set("spec.vpcName", "vpc")))
	create(t, admin, &clusterv1.Cluster{
		ObjectMeta: objectMeta("red", "cluster"),
		Spec: clusterv1.ClusterSpec{InfrastructureRef: clusterv1.ContractVersionedObjectReference{
			APIGroup: infraGroup, Kind: "MaasCluster", Name: "cluster",
		}},
	})
	uses := []edit{set("spec.identityRef.name", "rack-a"), set("spec.vpcName", "vpc")}
	ofCluster := set("metadata.labels", map[string]any{clusterv1.ClusterNameLabel: "cluster"})
	for _, tt := range []ruleCase{
		{name: "all is right", sample: "maascluster", edits: uses},
		{name: "namespace not allowed", sample: "maascluster", edits: append(uses, set("metadata.namespace", "blue")), refused: `does not allow namespace "blue"`},
		{name: "no VPC", sample: "maascluster", edits: append(uses, unset("spec.vpcName")), refused: "requires isolation: name a TenantVPC"},
		{
			name: "endpoint inside", sample: "maascluster", refused: "nobody can dial in",
			edits: append(uses, unset("spec.endpointReachability"), set("spec.controlPlaneEndpoint.host", "10.64.0.77")),
		},
		{name: "endpoint inside, vouched for", sample: "maascluster", edits: append(uses, set("spec.controlPlaneEndpoint.host", "10.64.0.77"))},
		{name: "zone not allowed", sample: "maascluster", edits: append(uses, set("spec.failureDomains", []any{"z9"})), refused: "choose among z1"},
		{name: "machine without ports", sample: "maasmachine", edits: []edit{ofCluster, unset("spec.ports"), unset("spec.primaryPort")}, refused: "name at least one DPU port"},
		{name: "weak erase", sample: "maasmachine", edits: []edit{ofCluster, set("spec.release.erase", "Quick")}, refused: "write Secure or stronger"},
		{name: "copied claim", sample: "maasmachine", edits: []edit{set("metadata.name", "copy")}, refused: "was made for another object"},
		{name: "template without ports", sample: "maasmachinetemplate", edits: []edit{ofCluster, unset("spec.template.spec.ports"), unset("spec.template.spec.primaryPort")}, refused: "name at least one DPU port"},
		{name: "template changed", sample: "maasmachinetemplate", before: unchanged, edits: []edit{set("spec.template.spec.image", "ubuntu/jammy")}, refused: "is immutable"},
		{name: "cluster template changed", sample: "maasclustertemplate", before: unchanged, edits: []edit{set("spec.template.spec.vpcName", "x")}, refused: "is immutable"},
		{name: "bundle is no PEM", sample: "maasclusteridentity", edits: []edit{set("spec.caBundle", "aGVsbG8=")}, refused: "holds no PEM certificate"},
		{name: "fabric not allowed", sample: "tenantvpc", edits: []edit{set("spec.fabricName", "dpf-a"), set("metadata.namespace", "blue")}, refused: `DPUFabric "dpf-a" does not allow namespace "blue"`},
		{name: "outside the pools", sample: "tenantvpc", edits: append(cidr("10.65.0.0/24"), set("spec.fabricName", "dpf-a")), refused: "choose a network inside 10.64.0.0/16"},
		{name: "overlapping", sample: "tenantvpc", edits: []edit{set("spec.subnets", []any{subnet("a", "10.64.0.0/24"), subnet("b", "10.64.0.0/25")})}, refused: "must not overlap"},
		{name: "another's token", sample: "dpuattachment", edits: []edit{set("spec.machineName", "other")}, refused: "was not made for MaasMachine red/other"},
		{name: "source taken", sample: "dpufabric", edits: []edit{set("metadata.name", "dpf-b")}, refused: `is a claim source of DPUFabric "dpf-a"`},
		{name: "pool around OVN's network", sample: "dpufabric", edits: []edit{set("spec.tenantPools", []any{"100.64.0.0/10"}), set("spec.claimSources[0].name", "free")}, refused: "overlaps 100.64.0.0/16"},
	} {
		t.Run(tt.sample+": "+tt.name, func(t *testing.T) {
			g := NewWithT(t)
			err := tt.ask(t)
			if tt.refused == "" {
				g.Expect(err).NotTo(HaveOccurred())
				return
			}
			g.Expect(apierrors.IsInvalid(err)).To(BeTrue(), "%v", err)
			g.Expect(err).To(MatchError(And(ContainSubstring("admission webhook"), ContainSubstring(tt.refused))))
		})
	}
}

// TestTopologyDryRun: what the topology controller only asks about passes, and the same in earnest does not.
func TestTopologyDryRun(t *testing.T) {
	g := NewWithT(t)
	template := base(t, "maasmachinetemplate")
	create(t, admin, template)
	change := set("spec.template.spec.image", "ubuntu/jammy")
	change(t, template.Object)
	template.SetAnnotations(map[string]string{clusterv1.TopologyDryRunAnnotation: ""})
	g.Expect(admin.Update(t.Context(), template.DeepCopy(), client.DryRunAll)).To(Succeed())
	g.Expect(admin.Update(t.Context(), template.DeepCopy())).To(MatchError(ContainSubstring("is immutable")))
}

func TestDeletionsInUse(t *testing.T) {
	g := NewWithT(t)
	useIdentity(t)
	cluster := base(t, "maascluster", set("spec.identityRef.name", "rack-a"))
	create(t, admin, cluster)
	identity := &infrav1.MaasClusterIdentity{ObjectMeta: objectMeta("", "rack-a")}
	g.Expect(admin.Delete(t.Context(), identity, client.DryRunAll)).To(MatchError(ContainSubstring("in use by MaasCluster red/base")))

	vpc := base(t, "tenantvpc", set("metadata.name", "none-yet"))
	create(t, admin, vpc)
	create(t, admin, base(t, "dpuattachment"))
	c, heard := listening(t)
	g.Expect(c.Delete(t.Context(), vpc.DeepCopy(), client.DryRunAll)).To(Succeed())
	g.Expect(heard.take()).To(ContainElement(ContainSubstring("its deletion waits")))

	server := base(t, "dpuserver")
	create(t, admin, server)
	holder := client.RawPatch("application/merge-patch+json",
		[]byte(`{"status":{"holder":{"namespace":"red","name":"base","tokenHash":"0123"}}}`))
	g.Expect(admin.Status().Patch(t.Context(), server, holder)).To(Succeed())
	g.Expect(admin.Delete(t.Context(), server.DeepCopy(), client.DryRunAll)).To(MatchError(ContainSubstring("is held by DPUAttachment red/base")))
	free := client.RawPatch("application/merge-patch+json", []byte(`{"status":{"holder":null}}`))
	g.Expect(admin.Status().Patch(t.Context(), server, free)).To(Succeed())
	g.Expect(admin.Delete(t.Context(), server.DeepCopy(), client.DryRunAll)).To(Succeed())
}

// TestSubnetsInUse removes a subnet that an attachment names, and one that only the fabric knows to be used.
func TestSubnetsInUse(t *testing.T) {
	g := NewWithT(t)
	vpc := base(t, "tenantvpc", set("metadata.name", "none-yet"), set("spec.subnets", []any{
		subnet("workers", "10.64.0.0/24"), subnet("b", "10.64.1.0/24"), subnet("c", "10.64.2.0/24"),
	}))
	create(t, admin, vpc)
	create(t, admin, base(t, "dpuattachment", set("spec.ports[0].subnet", "workers")))
	counted := client.RawPatch("application/merge-patch+json", []byte(`{"status":{"subnets":[
		{"name":"b","cidr":"10.64.1.0/24","capacity":253,"used":2,"claimed":2},{"name":"c","cidr":"10.64.2.0/24","capacity":253,"used":0,"claimed":0}]}}`))
	g.Expect(admin.Status().Patch(t.Context(), vpc, counted)).To(Succeed())
	keep := func(subnets ...any) error {
		changed := vpc.DeepCopy()
		set("spec.subnets", subnets)(t, changed.Object)
		return admin.Update(t.Context(), changed, client.DryRunAll)
	}
	a, b, c := subnet("workers", "10.64.0.0/24"), subnet("b", "10.64.1.0/24"), subnet("c", "10.64.2.0/24")
	g.Expect(keep(b, c)).To(MatchError(ContainSubstring(`subnet "workers" is in use by MaasMachine`)))
	g.Expect(keep(a, c)).To(MatchError(ContainSubstring(`subnet "b" is in use by 2 ports on the fabric`)))
	g.Expect(keep(a, b)).To(Succeed())
}

// TestEveryKindHasItsWebhook: each kind a wing serves is sent to that wing, and creation of it is.
func TestEveryKindHasItsWebhook(t *testing.T) {
	g := NewWithT(t)
	_, hooks, err := shippedObjects("config/machine", "config/fabric")
	g.Expect(err).NotTo(HaveOccurred())
	served := map[string]string{}
	for _, configuration := range hooks {
		for _, hook := range configuration.Webhooks {
			served[hook.Rules[0].Resources[0]] = hook.ClientConfig.Service.Namespace
		}
	}
	g.Expect(served).To(Equal(map[string]string{
		"maasclusters": machineNamespace, "maasclustertemplates": machineNamespace, "maasmachines": machineNamespace,
		"maasmachinetemplates": machineNamespace, "maasclusteridentities": machineNamespace,
		"tenantvpcs": fabricNamespace, "dpuattachments": fabricNamespace, "dpufabrics": fabricNamespace, "dpuservers": fabricNamespace,
	}))
}

// TestOneClusterctlComponent: clusterctl takes a component with exactly one Namespace and moves everything into it.
func TestOneClusterctlComponent(t *testing.T) {
	g := NewWithT(t)
	objects, _, err := shippedObjects("config/default")
	g.Expect(err).NotTo(HaveOccurred())
	var namespaces []string
	for _, object := range objects {
		if object.GetKind() == "Namespace" {
			namespaces = append(namespaces, object.GetName())
		}
		g.Expect(object.GetLabels()).To(HaveKeyWithValue("cluster.x-k8s.io/provider", "infrastructure-maas-dpu"), "%s %s", object.GetKind(), object.GetName())
		if object.GetKind() == "Deployment" {
			containers, _, err := unstructured.NestedSlice(object.Object, "spec", "template", "spec", "containers")
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(containers).To(HaveLen(1))
			g.Expect(containers[0]).To(HaveKeyWithValue("name", "manager"))
		}
	}
	g.Expect(namespaces).To(Equal([]string{machineNamespace}))

	fabric, _, err := shippedObjects("config/fabric")
	g.Expect(err).NotTo(HaveOccurred())
	for _, object := range fabric {
		g.Expect(object.GetLabels()).NotTo(HaveKey("cluster.x-k8s.io/provider"), "an upgrade by clusterctl would take %s away", object.GetName())
	}
}

// TestSamples: what config/samples shows is admitted as it is.
func TestSamples(t *testing.T) {
	samples, _, err := shippedObjects("config/samples")
	if err != nil {
		t.Fatal(err)
	}
	strict := client.WithFieldValidation(admin, "Strict")
	for _, sample := range samples {
		t.Run(sample.GetKind(), func(t *testing.T) {
			NewWithT(t).Expect(strict.Create(t.Context(), sample, client.DryRunAll)).To(Succeed())
		})
	}
	if len(samples) < 4 {
		t.Errorf("only %d samples", len(samples))
	}
}
