// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package topology_test

import (
	"context"
	"maps"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
	"sigs.k8s.io/cluster-api/util/conditions"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
)

func containsText(text, part string) bool { return strings.Contains(text, part) }

// refusesBadVariables: a value that no cluster can have is refused when it is written, with what to write instead.
func (c *topologyCluster) refusesBadVariables(t *testing.T) {
	c.classReconciled(t)
	if err := c.user.Create(suite, c.object(1), client.DryRunAll); err != nil {
		t.Fatalf("a good cluster is refused: %v", err)
	}
	for _, tt := range []struct {
		name, variable string
		value          any
		tells          string
	}{
		{"an image without series", "image", "noble", "ubuntu/noble"},
		{"no image", "image", nil, `required variable "image" must be set`},
		{"no identity", "identity", nil, `required variable "identity" must be set`},
		{"no endpoint", "endpoint", nil, `required variable "endpoint" must be set`},
		{"an endpoint without host", "endpoint", map[string]any{"port": 6443}, "host"},
		{"a port that is none", "endpoint", map[string]any{"host": "192.0.2.1", "port": 70000}, "65535"},
		{"an erase that MAAS does not know", "erase", "Twice", `"None", "Quick", "Secure", "Full"`},
		{"no memory", "minMemory", 0, "greater than or equal to 1"},
		{"a port without subnet", "ports", []map[string]any{{"name": "tenant"}}, "subnet"},
		{"a port that is called wrongly", "ports", []map[string]any{{"name": "Tenant_1", "subnet": firstSubnet}}, "lower case"},
		{"a resolver that is no address", "nameservers", []string{"dns.example.com"}, "192.0.2.53"},
		{"a tag that MAAS would refuse", "tags", []string{"a b"}, "letters"},
		{"a variable that does not exist", "imgae", "ubuntu/noble", "variable is not defined"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cluster := c.object(1)
			setVariable(&cluster.Spec.Topology.Variables, tt.variable, tt.value)
			if wrong := isInvalid(c.user.Create(suite, cluster, client.DryRunAll), tt.tells); wrong != "" {
				t.Errorf("%s = %s: %s", tt.variable, raw(tt.value), wrong)
			}
		})
	}
}

// classReconciled waits until clusters of the class are judged by its variables.
func (c *topologyCluster) classReconciled(t *testing.T) {
	t.Helper()
	eventually(t, patience, "the class is reconciled", func(ctx context.Context) string {
		class := &clusterv1.ClusterClass{}
		if err := c.user.Get(ctx, client.ObjectKey{Namespace: c.key.Namespace, Name: className}, class); err != nil {
			return err.Error()
		}
		if class.Status.ObservedGeneration != class.Generation {
			return "its generation is not observed yet"
		}
		return lacks(class, clusterv1.ClusterClassVariablesReadyCondition) + lacks(class, clusterv1.ClusterClassRefVersionsUpToDateCondition)
	})
}

// refusesTemplateChanges: the templates that the cluster's machines are made from cannot be changed but by a dry run of the topology
// controller, and hold nothing that belongs to one machine alone.
func (c *topologyCluster) refusesTemplateChanges(t *testing.T) {
	deployment, err := c.deployment(suite)
	if err != nil {
		t.Fatal(err)
	}
	key := client.ObjectKey{Namespace: c.key.Namespace, Name: deployment.Spec.Template.Spec.InfrastructureRef.Name}
	template := func(asks bool) *unstructured.Unstructured {
		u := &unstructured.Unstructured{}
		u.SetGroupVersionKind(infrav1.GroupVersion.WithKind("MaasMachineTemplate"))
		u.SetNamespace(key.Namespace)
		u.SetName(key.Name)
		if asks {
			u.SetAnnotations(map[string]string{clusterv1.TopologyDryRunAnnotation: ""})
		}
		if err := unstructured.SetNestedField(u.Object, secondImage, "spec", "template", "spec", "image"); err != nil {
			t.Fatal(err)
		}
		return u
	}
	apply := func(u *unstructured.Unstructured, options ...client.ApplyOption) error {
		options = append(options, client.FieldOwner("capi-topology"), client.ForceOwnership)
		return c.operator.Apply(suite, client.ApplyConfigurationFromUnstructured(u), options...)
	}
	const says = "spec.template.spec: Invalid value: is immutable: create a template with another name"
	if err := apply(template(true), client.DryRunAll); err != nil {
		t.Errorf("the topology controller's dry run is refused: %v", err)
	}
	for name, err := range map[string]error{
		"in earnest":                     apply(template(false)),
		"in earnest with its annotation": apply(template(true)),
		"a dry run of somebody else's":   apply(template(false), client.DryRunAll),
	} {
		if wrong := isInvalid(err, says); wrong != "" {
			t.Errorf("a change %s: %s", name, wrong)
		}
	}
	stored := &infrav1.MaasMachineTemplate{}
	if err := c.operator.Get(suite, key, stored); err != nil {
		t.Fatal(err)
	}
	if _, left := stored.Annotations[clusterv1.TopologyDryRunAnnotation]; left || stored.Spec.Template.Spec.Image != firstImage {
		t.Errorf("what was refused or only asked is stored: %v, image %s", stored.Annotations, stored.Spec.Template.Spec.Image)
	}
	c.refusesClaims(t, stored)
}

// refusesClaims: what ties a server to one machine cannot be in a template, also not in the class'.
func (c *topologyCluster) refusesClaims(t *testing.T, like *infrav1.MaasMachineTemplate) {
	for field, change := range map[string]func(*infrav1.MaasMachineTemplateResourceSpec){
		"claim":      func(s *infrav1.MaasMachineTemplateResourceSpec) { s.Claim = &infrav1.TemplateClaim{} },
		"providerID": func(s *infrav1.MaasMachineTemplateResourceSpec) { s.ProviderID = "maas:///srv001" },
	} {
		for _, labels := range []map[string]string{nil, like.Labels} {
			template := &infrav1.MaasMachineTemplate{Spec: *like.Spec.DeepCopy()}
			template.Namespace, template.Name, template.Labels = like.Namespace, "with-"+strings.ToLower(field), maps.Clone(labels)
			change(&template.Spec.Template.Spec)
			if wrong := isInvalid(c.user.Create(suite, template, client.DryRunAll), "remove "+field+" from the template"); wrong != "" {
				t.Errorf("a template with %s, labelled %v: %s", field, labels, wrong)
			}
		}
	}
}

// refusesImmutable: what a cluster keeps for life is refused at admission.
func (c *topologyCluster) refusesImmutable(t *testing.T) {
	for variable, value := range map[string]any{
		"identity": "another", "vpc": "another", "endpoint": map[string]any{"host": "192.0.2.99", "port": c.port},
	} {
		cluster, err := c.get(suite)
		if err != nil {
			t.Fatal(err)
		}
		setVariable(&cluster.Spec.Topology.Variables, variable, value)
		if wrong := isInvalid(c.user.Update(suite, cluster, client.DryRunAll), "immutable"); wrong != "" {
			t.Errorf("%s → %s: %s", variable, raw(value), wrong)
		}
	}
}

// saysWhatIsForbidden: what the class cannot know, such as the least erase that the operator demands, is told by the cluster's
// condition in our webhook's words, and nothing is rolled out.
func (c *topologyCluster) saysWhatIsForbidden(t *testing.T) {
	c.caughtUp(t)
	before, revision := c.ledger.page(), c.revision(t)
	c.edit(t, func(topology *clusterv1.Topology) { setVariable(&pool(topology).Variables.Overrides, "erase", "None") })
	eventually(t, patience, "the cluster says why its topology is not carried out", func(ctx context.Context) string {
		cluster, err := c.get(ctx)
		if err != nil {
			return err.Error()
		}
		got := conditions.Get(cluster, clusterv1.ClusterTopologyReconciledCondition)
		if got == nil || got.Reason != clusterv1.ClusterTopologyReconciledFailedReason || !containsText(got.Message, "write Quick or stronger, or leave it out") {
			return raw(got)
		}
		return ""
	})
	c.edit(t, func(topology *clusterv1.Topology) { pool(topology).Variables.Overrides = nil })
	c.reconciled(t)
	c.caughtUp(t)
	c.newSince(t, before, map[kind]int{machineTemplates: 0, bootstrapTemplates: 0, machineSets: 0, machines: 0})
	if got := c.revision(t); got != revision {
		t.Errorf("what is forbidden took the MachineDeployment from revision %d to %d", revision, got)
	}
	c.quiet(t)
}
