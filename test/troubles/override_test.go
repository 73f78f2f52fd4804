// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package troubles

import (
	"context"
	"fmt"
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/demo"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/maassim"
)

const (
	nsAbandoned = "abandoned"

	abandonIdentity = "abandoned"
	olga            = "olga"
)

// testAbandoned has an operator give up a server that cannot be erased: with the rights that are shipped, in her own name. The
// object goes, the server stays out of use, and the identity cannot be deleted before it has come back.
func testAbandoned(t *testing.T) {
	identity := newIdentity(abandonIdentity)
	identity.Spec.AllowedNamespaces = &infrav1.AllowedNamespaces{Names: []string{nsAbandoned}}
	createIdentity(t, identity)
	n := newTenant(t, nsAbandoned)
	create(t, n.vpc())
	n.createCluster(abandonIdentity, vpcName)
	m := n.up("m")
	systemID := m.now().Status.SystemID
	removalRefused(t, identity, "is in use by", "MaasCluster abandoned/cluster", "MaasMachine abandoned/m")
	heal := world.MAAS.Inject(maassim.Fault{Kind: maassim.FaultEraseFails, Operation: "release", SystemID: systemID})
	defer heal()
	m.ask()
	expectWithin(t, upWithin, m.object(), no(infrav1.ReleasedCondition, infrav1.HeldReason, "failed to erase"))

	if err := abandon(userClient(t, "tina", "maas-dpu-tenant", nsAbandoned), m, "tina"); !apierrors.IsForbidden(err) {
		t.Errorf("a tenant's override was not forbidden: %v", err)
	}
	operator := userClient(t, olga, "maas-dpu-operator", "")
	if err := abandon(operator, m, "oskar"); err == nil || !strings.Contains(err.Error(), "write "+olga) {
		t.Errorf("an override in somebody else's name was not refused as such: %v", err)
	}
	expect(t, m.object(), no(infrav1.ReleasedCondition, infrav1.HeldReason))
	if err := abandon(operator, m, olga); err != nil {
		t.Fatal(err)
	}
	eventually(t, upWithin, "the machine is let go", func(ctx context.Context) string {
		o := m.object()
		if err := world.Operator.Get(ctx, client.ObjectKeyFromObject(o), o); !apierrors.IsNotFound(err) {
			return describe(o)
		}
		return ""
	})
	m.outOfUse(identity, systemID)
	deleteAll(t, &clusterv1.Cluster{ObjectMeta: n.meta(clusterName)}, n.cluster())
	removalRefused(t, identity, "lists held servers", "release "+systemID+" with erase in MAAS first")

	released := len(effects(n.name, m.name, "release"))
	heal()
	releaseErased(t, systemID)
	notHeld(t, systemID)
	eventually(t, upWithin, "server "+systemID+" is back", func(context.Context) string {
		if s := server(t, systemID); s.Status != maassim.StatusReady || s.Dirty {
			return fmt.Sprintf("it is %s, dirty=%t", s.StatusName, s.Dirty)
		}
		return ""
	})
	if now := len(effects(n.name, m.name, "release")); now != released {
		t.Errorf("the wing released a server that was abandoned")
	}
}

// outOfUse holds that the server of a machine that is gone stays allocated, off and marked, and waits until the identity lists it.
func (m *machine) outOfUse(identity *infrav1.MaasClusterIdentity, systemID string) {
	m.Helper()
	if s := server(m.T, systemID); s.Owner != demo.Account || s.PoweredOn || s.Annotations[maas.AnnotationHold] == "" {
		m.Errorf("server %s is %s of %q, on=%t, annotated %v: want it allocated, off and held", systemID, s.StatusName, s.Owner, s.PoweredOn, s.Annotations)
	}
	eventually(m.T, soon, "server "+systemID+" is listed as held", func(ctx context.Context) string {
		if err := world.Operator.Get(ctx, client.ObjectKeyFromObject(identity), identity); err != nil {
			return err.Error()
		}
		for _, held := range identity.Status.Held {
			if held.SystemID == systemID && held.Machine == m.tenant.name+"/"+m.name {
				return ""
			}
		}
		return fmt.Sprintf("held are %v", identity.Status.Held)
	})
}

// abandon gives the machine's server up as a user, in somebody's name.
func abandon(user client.Client, m *machine, by string) error {
	patch := fmt.Appendf(nil, `{"spec":{"override":{"action":"Abandon","by":%q,"reason":"the disk is dead"}}}`, by)
	return user.Patch(suite, m.object(), client.RawPatch(types.MergePatchType, patch))
}

// removalRefused expects that the identity cannot be deleted. A dry run asks admission and nobody else.
func removalRefused(t *testing.T, identity *infrav1.MaasClusterIdentity, tells ...string) {
	t.Helper()
	err := world.Operator.Delete(suite, identity, client.DryRunAll)
	if err == nil {
		t.Errorf("the identity's deletion was admitted")
		return
	}
	for _, part := range tells {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("the refusal, %q, does not tell %q", err, part)
		}
	}
}

// userClient acts as a user who is bound to a role that is shipped: everywhere, or in a namespace.
func userClient(t *testing.T, user, role, namespace string) client.Client {
	t.Helper()
	reference := rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role}
	subjects := []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: user}}
	meta := metav1.ObjectMeta{Name: user, Namespace: namespace}
	if namespace == "" {
		create(t, &rbacv1.ClusterRoleBinding{ObjectMeta: meta, RoleRef: reference, Subjects: subjects})
	} else {
		create(t, &rbacv1.RoleBinding{ObjectMeta: meta, RoleRef: reference, Subjects: subjects})
	}
	config, err := world.Config(suite, user)
	if err != nil {
		t.Fatal(err)
	}
	c, err := client.New(config, client.Options{Scheme: world.Operator.Scheme()})
	if err != nil {
		t.Fatal(err)
	}
	return c
}
