// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package troubles

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/dpfsim"
)

const nsMoments = "namespace-moments"

// testNamespaceDeletedAtMoments deletes the namespace of one machine that is half-way into its VPC, one that is half-way out of it,
// one that runs, and one that runs on a DPU whose agent is dead: the first three come back to the pool, the last is held, and keeps
// its namespace until its detachment is proven.
func testNamespaceDeletedAtMoments(t *testing.T) {
	n := newReadyTenant(t, nsMoments)
	running, leaving, stuck := n.up("running"), n.up("leaving"), n.up("stuck")
	stuckServer := stuck.now().Status.SystemID
	healStuck := killAgent(stuck.dpu())
	defer healStuck()
	healLeaving := killAgent(leaving.dpu())
	defer healLeaving()
	leaving.ask()
	expect(t, leaving.attachment(), no(infrav1.AttachedCondition, infrav1.DetachingPortReason))
	coming := n.claim("coming")
	healComing := killAgent(dpuOf(t, coming.now().Status.SystemID))
	defer healComing()

	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: n.name}}
	if err := world.Operator.Delete(suite, namespace); err != nil {
		t.Fatal(err)
	}
	healLeaving()
	healComing()
	running.waitDown(upWithin)
	leaving.waitDown(upWithin)
	coming.waitDown(upWithin)
	running.backErased()
	leaving.backErased()
	for _, e := range effects(n.name, coming.name, "release") {
		if deployed := len(effects(n.name, coming.name, "deploy")) > 0; deployed != (e.Erase == quickErase) {
			t.Errorf("server %s of %s, deployed=%t, was released with %q", e.SystemID, coming.name, deployed, e.Erase)
		}
	}

	expectWithin(t, heldWithin, stuck.object(), no(infrav1.ReleasedCondition, infrav1.HeldReason, "server "+stuckServer+" is held"))
	stuck.expectHeld(stuckServer)
	if released := effects(n.name, stuck.name, "release"); len(released) > 0 {
		t.Fatal("the server was released while its port was plugged")
	}
	if err := world.Operator.Get(suite, client.ObjectKeyFromObject(namespace), namespace); err != nil {
		t.Fatalf("the namespace is to stay as long as a server is held: %v", err)
	}
	healStuck()
	stuck.waitDown(upWithin)
	notHeld(t, stuckServer)
	stuck.backErased()
	waitNamespaceGone(t, namespace)
}

// killAgent stops what plugs and unplugs ports on a DPU, until heal is called.
func killAgent(dpu string) (heal func()) {
	return world.Fabric.Inject(dpfsim.Fault{Kind: dpfsim.AgentDown, Target: dpu})
}

// dpuOf is the DPU of a server of the lab.
func dpuOf(t *testing.T, systemID string) string {
	t.Helper()
	for _, s := range world.Servers {
		if s.SystemID == systemID {
			return s.DPU.Name
		}
	}
	t.Fatalf("there is no server %s", systemID)
	return ""
}
