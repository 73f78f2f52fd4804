// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package apivalidation

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
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
