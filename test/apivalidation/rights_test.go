// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package apivalidation

import (
	"fmt"
	"testing"

	. "github.com/onsi/gomega"
	authorizationv1 "k8s.io/api/authorization/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	machineNamespace = "maas-dpu-machine-system"
	fabricNamespace  = "maas-dpu-fabric-system"
	machineWing      = "system:serviceaccount:" + machineNamespace + ":maas-dpu-machine-controller-manager"
	fabricWing       = "system:serviceaccount:" + fabricNamespace + ":maas-dpu-fabric-controller-manager"

	infraGroup = "infrastructure.cluster.x-k8s.io"
	capiGroup  = "cluster.x-k8s.io"
)

// right is one question to the authorizer.
type right struct {
	verb, group, resource, subresource, namespace string
}

func (r right) String() string {
	return fmt.Sprintf("%s %s/%s/%s in %q", r.verb, r.group, r.resource, r.subresource, r.namespace)
}

func ours(verb, resource string) right {
	return right{verb: verb, group: infraGroup, resource: resource, namespace: "red"}
}

func status(verb, resource string) right {
	return right{verb: verb, group: infraGroup, resource: resource, subresource: "status", namespace: "red"}
}

func secrets(verb, namespace string) right {
	return right{verb: verb, resource: "secrets", namespace: namespace}
}

func capi(verb, resource string) right {
	return right{verb: verb, group: capiGroup, resource: resource, namespace: "red"}
}

// bindTenant gives user the tenant's role in the namespace.
func bindTenant(t *testing.T, user, namespace string) {
	t.Helper()
	create(t, admin, &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "tenant-" + user},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "maas-dpu-tenant"},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: user}},
	})
}

func bindCluster(t *testing.T, user, role string) {
	t.Helper()
	create(t, admin, &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: role + "-" + user},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: user}},
	})
}

// TestRights pins what each wing and a tenant may do, and above all what not.
func TestRights(t *testing.T) {
	bindTenant(t, "ruth", "red")
	for _, tt := range []struct {
		user    string
		may     []right
		mustNot []right
	}{
		{
			user: machineWing,
			may: []right{
				ours("patch", "maasmachines"), status("patch", "maasmachines"), ours("create", "dpuattachments"), ours("delete", "dpuattachments"),
				ours("list", "dpuservers"), ours("watch", "tenantvpcs"), capi("watch", "machines"), capi("list", "clusters"),
				secrets("get", machineNamespace), {verb: "update", group: "coordination.k8s.io", resource: "leases", namespace: machineNamespace},
				{verb: "create", group: "authentication.k8s.io", resource: "tokenreviews"},
			},
			mustNot: []right{
				ours("create", "maasmachines"), ours("delete", "maasmachines"), ours("create", "maasclusters"), capi("create", "machines"), capi("patch", "machines"),
				capi("patch", "clusters"), status("patch", "dpuattachments"), status("patch", "tenantvpcs"), ours("patch", "tenantvpcs"), ours("patch", "dpuservers"),
				ours("get", "dpufabrics"), ours("patch", "maasmachinetemplates"), ours("override", "maasmachines"),
				secrets("get", "red"), secrets("list", machineNamespace), secrets("get", fabricNamespace),
				{verb: "update", group: "coordination.k8s.io", resource: "leases", namespace: fabricNamespace},
			},
		},
		{
			user: fabricWing,
			may: []right{
				status("patch", "dpuattachments"), status("patch", "tenantvpcs"), ours("create", "dpuservers"), ours("delete", "dpuservers"), ours("watch", "dpufabrics"),
				ours("get", "maasmachines"), capi("get", "machines"), secrets("get", fabricNamespace),
			},
			mustNot: []right{
				ours("create", "dpuattachments"), ours("delete", "dpuattachments"), ours("patch", "maasmachines"), status("patch", "maasmachines"),
				ours("get", "maasclusteridentities"), ours("create", "maasmachines"), capi("create", "machines"), ours("override", "dpuattachments"),
				secrets("get", "red"), secrets("list", fabricNamespace), secrets("get", machineNamespace),
			},
		},
		{
			user: "ruth",
			may: []right{
				ours("create", "maasclusters"), ours("create", "maasmachinetemplates"), ours("delete", "tenantvpcs"), ours("get", "dpuattachments"),
				ours("get", "maasmachines"), capi("create", "clusters"), capi("patch", "machinedeployments"), secrets("get", "red"),
			},
			mustNot: []right{
				ours("create", "maasmachines"), ours("patch", "maasmachines"), ours("create", "dpuattachments"), ours("delete", "dpuattachments"),
				status("patch", "maasmachines"), status("patch", "dpuattachments"), ours("create", "maasclusteridentities"), ours("get", "dpufabrics"), ours("get", "dpuservers"),
				{verb: "create", group: rbacv1.GroupName, resource: "roles", namespace: "red"},
				secrets("get", "blue"), secrets("get", machineNamespace), secrets("get", fabricNamespace), secrets("list", "red"),
				{verb: "create", group: infraGroup, resource: "tenantvpcs", namespace: "blue"},
			},
		},
	} {
		t.Run(tt.user, func(t *testing.T) {
			g := NewWithT(t)
			for _, r := range tt.may {
				g.Eventually(allowed(t, tt.user, r)).WithTimeout(pollTimeout).WithPolling(pollEvery).Should(BeTrue(), "must be allowed to %s", r)
			}
			for _, r := range tt.mustNot {
				g.Expect(allowed(t, tt.user, r)()).To(BeFalse(), "must not be allowed to %s", r)
			}
		})
	}
}

// allowed asks the authorizer.
func allowed(t *testing.T, user string, r right) func() bool {
	t.Helper()
	return func() bool {
		review := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
			User: user, Groups: groupsOf(user),
			ResourceAttributes: &authorizationv1.ResourceAttributes{
				Verb: r.verb, Group: r.group, Resource: r.resource, Subresource: r.subresource, Namespace: r.namespace,
			},
		}}
		if err := admin.Create(t.Context(), review); err != nil {
			t.Errorf("ask whether %s may %s: %v", user, r, err)
		}
		return review.Status.Allowed
	}
}
