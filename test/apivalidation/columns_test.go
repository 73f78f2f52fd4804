// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package apivalidation

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"testing"

	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// TestServerColumns reads a held server as `kubectl get` shows it: where it is stuck is to be seen without asking for more.
func TestServerColumns(t *testing.T) {
	g := NewWithT(t)
	server := base(t, "dpuserver", set("metadata.name", "rack-a.columns"), set("spec.systemID", "columns"), unset("spec.override"))
	create(t, admin, server)
	status := `{"status":{"eligibility":"Ineligible","holder":{"namespace":"red","name":"claim-1","tokenHash":"h","installation":"another"},
		"dpus":[{"dpuDevice":"mt1","dpu":"dpu-1","vpcMark":"dpf_v"}],"conditions":[
		{"type":"Healthy","status":"True","reason":"Ready","message":"","lastTransitionTime":"2026-01-01T00:00:00Z"},
		{"type":"Free","status":"False","reason":"InUse","message":"held","lastTransitionTime":"2026-01-01T00:00:00Z"},
		{"type":"Ready","status":"False","reason":"InUse","message":"held","lastTransitionTime":"2026-01-01T00:00:00Z"}]}}`
	g.Expect(admin.Status().Patch(t.Context(), server, client.RawPatch("application/merge-patch+json", []byte(status)))).To(Succeed())
	columns := table(t, "dpuservers/rack-a.columns")
	for name, want := range map[string]string{
		"Server": "columns", "Eligibility": "Ineligible", "Healthy": "True", "Free": "False", "Reason": "InUse", "Holder": "red",
		"Attachment": "claim-1", "DPUs": "dpu-1", "VPC": "dpf_v", "Message": "held",
	} {
		g.Expect(columns).To(HaveKeyWithValue(name, want))
	}
}

// table returns the only row of an object, by the names of the columns.
func table(t *testing.T, resource string) map[string]string {
	t.Helper()
	c, err := rest.HTTPClientFor(config)
	if err != nil {
		t.Fatal(err)
	}
	address, err := url.JoinPath(config.Host, "apis/infrastructure.cluster.x-k8s.io/v1beta1", resource)
	if err != nil {
		t.Fatal(err)
	}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Accept", "application/json;as=Table;v=v1;g=meta.k8s.io")
	response, err := c.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	if err != nil {
		t.Fatal(err)
	}
	shown := metav1.Table{}
	if err := json.Unmarshal(body, &shown); err != nil || len(shown.Rows) != 1 {
		t.Fatalf("%v: %s", err, body)
	}
	row := map[string]string{}
	for i, column := range shown.ColumnDefinitions {
		row[column.Name] = fmt.Sprint(shown.Rows[0].Cells[i])
	}
	return row
}

// stateless are kinds that nothing is done with: they have no status to be stuck in.
var stateless = []string{"maasclustertemplates", "maasremediationtemplates"}

// TestEveryKindSaysWhereItIsStuck holds the columns of all kinds to what `kubectl get` is asked for: is it ready, why not, and with
// -o wide what to do about it and whether it is paused; each in the same words and from the same place.
func TestEveryKindSaysWhereItIsStuck(t *testing.T) {
	type column struct {
		path string
		wide bool
	}
	condition := func(name, field string) string {
		return fmt.Sprintf(`.status.conditions[?(@.type=="%s")].%s`, name, field)
	}
	wanted := map[string]column{
		"Ready": {condition("Ready", "status"), false}, "Reason": {condition("Ready", "reason"), false},
		"Message": {condition("Ready", "message"), true}, "Age": {".metadata.creationTimestamp", false},
	}
	for _, kind := range kinds {
		t.Run(kind.plural, func(t *testing.T) {
			g := NewWithT(t)
			crd := readCRD(t, kind.plural)
			g.Expect(crd.Spec.Versions).To(HaveLen(1))
			columns, names := map[string]column{}, []string{}
			for _, c := range crd.Spec.Versions[0].AdditionalPrinterColumns {
				columns[c.Name] = column{c.JSONPath, c.Priority > 0}
				names = append(names, c.Name)
			}
			g.Expect(names).To(HaveLen(len(columns)), "a column is there twice")
			g.Expect(names).NotTo(BeEmpty())
			g.Expect(names[len(names)-1]).To(Equal("Age"))
			if slices.Contains(stateless, kind.plural) {
				g.Expect(crd.Spec.Versions[0].Schema.OpenAPIV3Schema.Properties).NotTo(HaveKey("status"), "its columns must say where it is stuck")
				g.Expect(columns).To(HaveKeyWithValue("Age", wanted["Age"]))
				return
			}
			for name, want := range wanted {
				g.Expect(columns).To(HaveKeyWithValue(name, want))
			}
			if paused, ok := columns["Paused"]; ok {
				g.Expect(paused).To(Equal(column{condition("Paused", "status"), true}))
			}
		})
	}
}

// TestTemplateColumns reads a template as `kubectl get` shows it: what its machines would offer, or why that is not known.
func TestTemplateColumns(t *testing.T) {
	g := NewWithT(t)
	template := base(t, "maasmachinetemplate", set("metadata.name", "columns"), set("metadata.ownerReferences", []any{map[string]any{
		"apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "Cluster", "name": "red-1", "uid": "red-1",
	}}))
	create(t, admin, template)
	status := `{"status":{"capacity":{"cpu":"32","memory":"128Gi","ephemeral-storage":"960G"},"nodeInfo":{"architecture":"arm64","operatingSystem":"linux"},"conditions":[
		{"type":"Ready","status":"True","reason":"Ready","message":"the servers differ","lastTransitionTime":"2026-01-01T00:00:00Z"}]}}`
	g.Expect(admin.Status().Patch(t.Context(), template, client.RawPatch("application/merge-patch+json", []byte(status)))).To(Succeed())
	columns := table(t, "namespaces/"+template.GetNamespace()+"/maasmachinetemplates/columns")
	for name, want := range map[string]string{
		"Cluster": "red-1", "CPU": "32", "Memory": "128Gi", "Disk": "960G", "Arch": "arm64", "Ready": "True", "Reason": "Ready", "Message": "the servers differ",
	} {
		g.Expect(columns).To(HaveKeyWithValue(name, want))
	}
}
