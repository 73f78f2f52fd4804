// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package flavors_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/demo"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/lab/hosted"
)

// checkInterval is how often the invariants are checked while the tests go on.
const checkInterval = 2 * time.Second

// flavour is one flavour of the cluster template, and what is special in bringing a cluster of it up.
type flavour struct {
	// name is clusterctl's; empty for the template without one.
	name string
	// namespace is the tenant's, the cluster's, and that of its own TenantVPC.
	namespace string
	// controlPlanes are the machines of its control plane, workers those of its MachineDeployment.
	controlPlanes, workers int
	variables              map[string]string
	// vpc says that the TenantVPC exists before the cluster, and outlives it.
	vpc bool
	// prepare makes what else has to exist before the template is applied.
	prepare func(context.Context, *demo.Tenant) error
	// judge says what is wrong with the cluster once it is Available; nil where nothing more is promised.
	judge func(context.Context, *demo.Tenant) error
}

var flavours = []flavour{
	{namespace: "default-vpc", controlPlanes: 1, workers: 1},
	{name: "existing-vpc", namespace: "existing-vpc", controlPlanes: 1, workers: 1, vpc: true},
	{name: "topology", namespace: "topology", controlPlanes: 1, workers: 1, vpc: true},
	{
		name: "ha", namespace: "ha", controlPlanes: 3, workers: 1, judge: oneInEachZone,
		variables: map[string]string{"MAAS_DPU_FAILURE_DOMAINS": list(zones)},
	},
	{
		name: "hosted-control-plane", namespace: "hosted", workers: 2, prepare: hostedControlPlane,
		variables: map[string]string{
			"MAAS_DPU_CONTROL_PLANE_API_GROUP": hosted.Kind.Group, "MAAS_DPU_CONTROL_PLANE_KIND": hosted.Kind.Kind,
		},
	},
	{
		// Its lower bound is its size while nobody scales it.
		name: "autoscaler", namespace: "autoscaler", controlPlanes: 1, workers: 1,
		variables: map[string]string{"MAAS_DPU_WORKER_MIN_SIZE": "1"},
	},
	{name: "plain", namespace: "plain", controlPlanes: 1, workers: 1, prepare: plainServersOnly},
}

// list is a list as variables hold it.
func list(items []string) string { return "[" + strings.Join(items, ", ") + "]" }

func (f flavour) String() string {
	if f.name == "" {
		return "default"
	}
	return f.name
}

func tenants() []string {
	names := make([]string, 0, len(flavours))
	for _, f := range flavours {
		names = append(names, f.namespace)
	}
	return names
}

// times is how long a cluster took to become Available, and to be gone.
type times struct{ available, gone time.Duration }

// TestFlavours brings a cluster of every flavour up to Available and deletes it. In the end every server is back.
func TestFlavours(t *testing.T) {
	up(t)
	watch := world.Checker.Watch(suite, checkInterval)
	var mu sync.Mutex
	took := map[string]times{}
	t.Run("all", func(t *testing.T) {
		for _, f := range flavours {
			t.Run(f.String(), func(t *testing.T) {
				t.Parallel()
				measured := f.live(t)
				mu.Lock()
				defer mu.Unlock()
				took[f.String()] = measured
			})
		}
	})
	if err := world.WaitBack(suite); err != nil {
		t.Error(err)
	}
	verdict := watch.Stop()
	if !verdict.Holds() || len(verdict.Unchecked()) > 0 {
		t.Errorf("invariants; nothing was observed for %v:\n%s", verdict.Unchecked(), verdict)
	}
	t.Log(report(took))
}

// live is the life of one cluster of the flavour.
func (f flavour) live(t *testing.T) times {
	t.Helper()
	tenant, err := world.NewTenant(suite, f.namespace)
	if err != nil {
		t.Fatal(err)
	}
	tenant.Flavor, tenant.ControlPlanes, tenant.Variables = f.name, max(f.controlPlanes, 1), f.variables
	if f.vpc {
		must(t, tenant.CreateVPC(suite))
	}
	if f.prepare != nil {
		must(t, f.prepare(suite, tenant))
	}
	started := time.Now()
	must(t, tenant.CreateCluster(suite, f.workers))
	must(t, tenant.WaitNodes(suite, f.controlPlanes+f.workers))
	must(t, tenant.WaitAvailable(suite))
	measured := times{available: time.Since(started)}
	if f.judge != nil {
		must(t, f.judge(suite, tenant))
	}

	deleted := time.Now()
	must(t, tenant.DeleteCluster(suite))
	must(t, tenant.DeleteRest(suite))
	measured.gone = time.Since(deleted)
	if f.vpc {
		must(t, tenant.DeleteVPC(suite))
	}
	noResidue(t, f.namespace)
	return measured
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// plainServersOnly is the operator's consent to servers that nothing isolates, and the tenant's word in which zones they stand:
// KubeadmControlPlane picks a zone whether it has such servers or not.
func plainServersOnly(ctx context.Context, tenant *demo.Tenant) error {
	identity := world.NewIdentity("plain")
	identity.Spec.Isolation = infrav1.IsolationOptional
	identity.Spec.AllowedPools = []string{demo.PlainPool}
	identity.Spec.AllowedNamespaces = &infrav1.AllowedNamespaces{Names: []string{tenant.Name}}
	tenant.Identity = identity.Name
	var theirs []string
	for _, s := range world.Servers {
		if s.Pool == demo.PlainPool {
			theirs = append(theirs, s.Zone)
		}
	}
	tenant.Variables = map[string]string{"MAAS_DPU_FAILURE_DOMAINS": list(theirs)}
	return world.Operator.Create(ctx, identity)
}

// hostedControlPlane is the object of another control plane provider that the template names.
func hostedControlPlane(ctx context.Context, tenant *demo.Tenant) error {
	plane := &unstructured.Unstructured{}
	plane.SetGroupVersionKind(hosted.Kind)
	plane.SetNamespace(tenant.Name)
	plane.SetName(tenant.Name + "-control-plane")
	if err := unstructured.SetNestedField(plane.Object, demo.KubernetesVersion, "spec", "version"); err != nil {
		return err
	}
	return world.Operator.Create(ctx, plane)
}

// oneInEachZone holds that control plane machines are spread over the zones.
func oneInEachZone(ctx context.Context, tenant *demo.Tenant) error {
	machines := &clusterv1.MachineList{}
	if err := tenant.Client().List(ctx, machines, client.InNamespace(tenant.Name), client.HasLabels{clusterv1.MachineControlPlaneLabel}); err != nil {
		return err
	}
	inZone := map[string]int{}
	for i := range machines.Items {
		inZone[machines.Items[i].Status.FailureDomain]++
	}
	if len(inZone) != len(machines.Items) || inZone[""] > 0 {
		return fmt.Errorf("control plane machines by zone: %v, want each in another", inZone)
	}
	return nil
}

func report(took map[string]times) string {
	var text strings.Builder
	table := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "\nflavour\tmachines\tto Available\tto gone")
	for _, f := range flavours {
		if measured, ok := took[f.String()]; ok {
			fmt.Fprintf(table, "%s\t%d+%d\t%s\t%s\n", f, f.controlPlanes, f.workers,
				measured.available.Round(100*time.Millisecond), measured.gone.Round(100*time.Millisecond))
		}
	}
	_ = table.Flush()
	return text.String()
}
