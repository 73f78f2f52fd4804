// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package topology_test

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/utils/ptr"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/maassim"
)

// checkInterval is how often the invariants are checked while machines come and go.
const checkInterval = 2 * time.Second

// TestTopology takes one cluster of the class through all that its tenant may change, one change after the other: each rolls out
// exactly once, and in between nobody writes anything.
func TestTopology(t *testing.T) {
	startWorld(t)
	c := newTopologyCluster(t)
	watch := world.Checker.Watch(suite, checkInterval)
	t.Cleanup(func() {
		if verdict := watch.Stop(); !verdict.Holds() {
			t.Errorf("invariants are broken:\n%s", verdict)
		} else if unchecked := verdict.Unchecked(); !t.Failed() && len(unchecked) > 0 {
			t.Errorf("nothing was observed for %v: the run proves nothing about it", unchecked)
		}
	})
	steps := []struct {
		name string
		do   func(*testing.T)
	}{
		{"bad variables are refused", c.refusesBadVariables},
		{"control planes of three give back before they take", c.surgesWithOneOnly},
		{"one worker comes up", c.comesUp},
		{"what is of one cluster only is refused in templates", c.refusesTemplateChanges},
		{"what is immutable is refused", c.refusesImmutable},
		{"what the operator forbids is said", c.saysWhatIsForbidden},
		{"replicas", c.scales},
		{"image of the workers", c.changesImage},
		{"subnet by ports, erase and replicas in one edit", c.changesManyAtOnce},
		{"the class itself", c.changesClass},
		{"image of the control plane", c.changesControlPlaneImage},
		{"everything is given back", c.goes},
	}
	for _, step := range steps {
		started := time.Now()
		if !t.Run(step.name, step.do) {
			t.Fatalf("stopped after %q: what follows builds on it", step.name)
		}
		t.Logf("%-55s %6.1f s", step.name, time.Since(started).Seconds())
	}
}

func (c *topologyCluster) comesUp(t *testing.T) {
	c.caughtUp(t)
	before := c.ledger.page()
	if err := c.user.Create(suite, c.object(1)); err != nil {
		t.Fatal(err)
	}
	if err := c.tenant.WaitControlPlane(suite); err != nil {
		t.Fatal(err)
	}
	c.reconciled(t)
	c.waitWorkers(t, 1, atFirst)
	c.caughtUp(t)
	c.newSince(t, before, map[kind]int{machineTemplates: 2, bootstrapTemplates: 1, machineSets: 1, machines: 2, maasMachines: 2})
	c.leavesNoTemplates(t)
	c.quiet(t)
}

// scales adds a worker, which changes no template and no machine that is there.
func (c *topologyCluster) scales(t *testing.T) {
	c.caughtUp(t)
	before, revision := c.ledger.page(), c.revision(t)
	old, err := c.workers(suite)
	if err != nil {
		t.Fatal(err)
	}
	c.edit(t, func(topology *clusterv1.Topology) { pool(topology).Replicas = ptr.To[int32](2) })
	c.reconciled(t)
	c.waitWorkers(t, 2, atFirst)
	c.caughtUp(t)
	c.newSince(t, before, map[kind]int{machineTemplates: 0, bootstrapTemplates: 0, machineSets: 0, machines: 1, maasMachines: 1})
	if got := c.revision(t); got != revision {
		t.Errorf("scaling took the MachineDeployment from revision %d to %d", revision, got)
	}
	now, err := c.workers(suite)
	if err != nil {
		t.Fatal(err)
	}
	for name, m := range old {
		if now[name] == nil || now[name].UID != m.UID {
			t.Errorf("scaling replaced %s", name)
		}
	}
	c.quiet(t)
}

func (c *topologyCluster) changesImage(t *testing.T) {
	want, guest := atFirst, c.placeGuest(t)
	want.image = secondImage
	c.rollsOutOnce(t, 2, want, func() {
		c.edit(t, func(topology *clusterv1.Topology) {
			setVariable(&pool(topology).Variables.Overrides, "image", secondImage)
		})
	})
	if err := c.workload(t).Get(suite, client.ObjectKeyFromObject(guest), guest); !apierrors.IsNotFound(err) {
		t.Errorf("Pod %s was not evicted from %s: %v", guest.Name, guest.Spec.NodeName, err)
	}
}

// afterMany is what the edit of changesManyAtOnce asks for.
var afterMany = wanted{image: secondImage, subnet: secondSubnet, cidr: secondCIDR, portName: "data", erase: infrav1.ReleaseEraseSecure}

func (c *topologyCluster) changesManyAtOnce(t *testing.T) {
	c.rollsOutOnce(t, 1, afterMany, func() {
		c.edit(t, func(topology *clusterv1.Topology) {
			pool(topology).Replicas = ptr.To[int32](1)
			overrides := &pool(topology).Variables.Overrides
			setVariable(overrides, "ports", []map[string]any{{"name": afterMany.portName, "subnet": afterMany.subnet}})
			setVariable(overrides, "erase", string(afterMany.erase))
		})
	})
}

// changesClass gives the class' workers another template, as an operator does with a new release of a class.
func (c *topologyCluster) changesClass(t *testing.T) {
	const renewed = className + "-renewed"
	class := &clusterv1.ClusterClass{}
	if err := c.user.Get(suite, client.ObjectKey{Namespace: c.key.Namespace, Name: className}, class); err != nil {
		t.Fatal(err)
	}
	ref := func() *clusterv1.ClusterClassTemplateReference {
		return &class.Spec.Workers.MachineDeployments[0].Infrastructure.TemplateRef
	}
	template := &infrav1.MaasMachineTemplate{}
	if err := c.user.Get(suite, client.ObjectKey{Namespace: c.key.Namespace, Name: ref().Name}, template); err != nil {
		t.Fatal(err)
	}
	if len(template.Status.Capacity) != 0 || template.Status.NodeInfo != (infrav1.NodeInfo{}) {
		t.Errorf("template %s of the class, which is not complete without a cluster's variables, has status %+v", template.Name, template.Status)
	}
	next := &infrav1.MaasMachineTemplate{Spec: *template.Spec.DeepCopy()}
	next.Namespace, next.Name = template.Namespace, renewed
	next.Spec.Template.Spec.MinDiskSize = ptr.To[int32](100)
	if err := c.user.Create(suite, next); err != nil {
		t.Fatal(err)
	}
	c.rollsOutOnce(t, 1, afterMany, func() {
		change(t, c.user, client.ObjectKeyFromObject(class), class, func() { ref().Name = renewed })
		eventually(t, patience, "the template of the class is carried over", func(ctx context.Context) string {
			deployment, err := c.deployment(ctx)
			if err != nil {
				return err.Error()
			}
			used := &infrav1.MaasMachineTemplate{}
			if err := c.user.Get(ctx, client.ObjectKey{Namespace: c.key.Namespace, Name: deployment.Spec.Template.Spec.InfrastructureRef.Name}, used); err != nil {
				return err.Error()
			}
			if used.Spec.Template.Spec.MinDiskSize == nil {
				return "no minDiskSize yet"
			}
			return ""
		})
	})
}

// goes deletes the cluster and the VPC, and waits until every server is Ready and nothing of the cluster is left.
func (c *topologyCluster) goes(t *testing.T) {
	if err := c.tenant.DeleteCluster(suite); err != nil {
		t.Fatal(err)
	}
	eventually(t, patience, "nothing of the cluster is left", func(context.Context) string {
		for k := range kinds {
			if left := c.ledger.livingNow(k); len(left) > 0 {
				return fmt.Sprintf("%s: %v", k, left)
			}
		}
		return ""
	})
	if err := c.tenant.DeleteVPC(suite); err != nil {
		t.Fatal(err)
	}
	eventually(t, patience, "every server is Ready", func(context.Context) string {
		for _, m := range world.MAAS.Machines() {
			if m.Status != maassim.StatusReady || m.Owner != "" || m.Dirty {
				return fmt.Sprintf("server %s is %s, owner %q, dirty %t", m.SystemID, m.StatusName, m.Owner, m.Dirty)
			}
		}
		return ""
	})
	for _, object := range classObjects(t) {
		object.SetNamespace(c.key.Namespace)
		if err := c.user.Get(suite, client.ObjectKeyFromObject(object), object); err != nil {
			t.Errorf("the class outlives its clusters: %v", err)
		}
	}
}

// isInvalid says what is wrong with a refusal: that it is none, or does not tell what to write.
func isInvalid(err error, tells ...string) string {
	if err == nil {
		return "was admitted"
	}
	if !apierrors.IsInvalid(err) && !apierrors.IsForbidden(err) {
		return "failed otherwise: " + err.Error()
	}
	for _, part := range tells {
		if !containsText(err.Error(), part) {
			return fmt.Sprintf("refusal %q does not tell %q", err, part)
		}
	}
	return ""
}

// raw is a value as it stands in a cluster's variables.
func raw(value any) string {
	text, err := json.Marshal(value)
	if err != nil {
		panic(err)
	}
	return string(text)
}
