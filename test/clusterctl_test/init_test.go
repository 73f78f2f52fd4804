// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package clusterctl_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"

	. "github.com/onsi/gomega"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// remediationFinalizer is one of those that only their controllers may take away. MaasRemediations have no webhook, which nobody
// would serve here.
const remediationFinalizer = "maasremediation.infrastructure.cluster.x-k8s.io"

// TestInitAndUpgrade installs the first release, upgrades to the second and takes the machine wing away, with the fabric wing
// beside it. What clusterctl keeps is kept, and what is the fabric wing's is not touched.
func TestInitAndUpgrade(t *testing.T) {
	g := NewWithT(t)
	c := newCluster(t, "upgrade")
	c.clusterctl(t, "init", "--infrastructure", "maas-dpu:"+first)
	g.Expect(c.inventory(g)).To(Equal(map[string]string{
		"capi-system/cluster-api":                                 releases.capiVersion,
		"capi-kubeadm-bootstrap-system/bootstrap-kubeadm":         releases.capiVersion,
		"capi-kubeadm-control-plane-system/control-plane-kubeadm": releases.capiVersion,
		machineNamespace + "/" + provider:                         first,
	}))
	machine := parse(t, clusterctl(t, nil, "generate", "provider", "--infrastructure", "maas-dpu:"+first))
	c.uids(g, machine) // all are there
	c.kubectl(t, "apply", "-f", releases.file(first, "fabric-components.yaml"))
	fabric := parse(t, read(t, releases.file(first, "fabric-components.yaml")))
	untouched := c.versions(g, fabric)

	// What operators and tenants have made.
	secret := object("v1", "Secret", machineNamespace, "rack-a")
	remediation := probe()
	theirs := []*unstructured.Unstructured{secret, remediation}
	for _, o := range theirs {
		g.Expect(c.Create(t.Context(), o.DeepCopy())).To(Succeed())
	}
	kept := slices.Concat(theirs, of(machine, "CustomResourceDefinition", "Namespace"))
	before := c.uids(g, kept)
	policies := of(machine, "ValidatingAdmissionPolicy")
	replaced := c.uids(g, policies)

	g.Expect(c.clusterctl(t, "upgrade", "plan")).To(MatchRegexp(provider + ` .*` + machineNamespace + ` .*` + first + ` .*` + second))
	attempts := c.tryAllTheWhile(t, remediation)
	c.clusterctl(t, "upgrade", "apply", "--contract", "v1beta2")
	refused, others := attempts()
	g.Expect(others).To(BeEmpty(), "attempts to take a finalizer away that the policies did not refuse, %d others were", refused)
	g.Expect(refused).To(BeNumerically(">", 10))
	t.Logf("%d attempts to take a finalizer away were refused while clusterctl upgraded", refused)
	// Why the fabric wing brings policies of its own.
	for name, uid := range c.uids(g, policies) {
		g.Expect(replaced[name]).NotTo(Equal(uid), "clusterctl left %s alone: is the copy in config/release/fabric still needed?", name)
	}

	g.Expect(c.inventory(g)).To(HaveKeyWithValue(machineNamespace+"/"+provider, second))
	deployment := object("apps/v1", "Deployment", machineNamespace, machineAccount)
	g.Expect(c.Get(t.Context(), client.ObjectKeyFromObject(deployment), deployment)).To(Succeed())
	g.Expect(managerOf(g, []*unstructured.Unstructured{deployment})).To(HaveKeyWithValue("image", image+":"+second))
	g.Expect(c.uids(g, kept)).To(Equal(before))
	g.Expect(c.versions(g, fabric)).To(Equal(untouched))
	g.Expect(c.clusterctl(t, "upgrade", "plan")).To(ContainSubstring("You are already up to date"))

	_, err := tryClusterctl(t, nil, "delete", "--infrastructure", "maas-dpu", "--include-crd", "--kubeconfig", c.kubeconfig)
	g.Expect(err).To(MatchError(ContainSubstring("found existing objects for provider CRDs")))
	c.clusterctl(t, "delete", "--infrastructure", "maas-dpu")
	g.Expect(c.inventory(g)).NotTo(HaveKey(machineNamespace + "/" + provider))
	g.Expect(apierrors.IsNotFound(c.Get(t.Context(), client.ObjectKeyFromObject(deployment), deployment))).To(BeTrue())
	g.Expect(c.uids(g, kept)).To(Equal(before))
	g.Expect(c.versions(g, fabric)).To(Equal(untouched))
}

// TestFabricAlone: a cluster with the fabric wing alone, without clusterctl, has the kinds and the policies by the release's files.
func TestFabricAlone(t *testing.T) {
	g := NewWithT(t)
	c := newCluster(t, "fabric")
	c.kubectl(t, "apply", "-f", releases.file(first, "crds.yaml"))
	c.kubectl(t, "wait", "--for=condition=Established", "--timeout=2m", "crd", "--all")
	c.kubectl(t, "apply", "-f", releases.file(first, "fabric-components.yaml"))
	remediation := probe()
	g.Expect(c.Create(t.Context(), remediation)).To(Succeed())
	c.refusesTenants(t, remediation)
}

// probe is an object that only a controller may let go.
func probe() *unstructured.Unstructured {
	remediation := object("infrastructure.cluster.x-k8s.io/v1beta1", "MaasRemediation", "default", "probe")
	remediation.SetFinalizers([]string{remediationFinalizer})
	remediation.Object["spec"] = map[string]any{"strategy": map[string]any{"type": "PowerCycle"}}
	return remediation
}

// inventory returns the versions of the providers that clusterctl knows of, by namespace and name.
func (c *cluster) inventory(g Gomega) map[string]string {
	list := &unstructured.UnstructuredList{}
	list.SetGroupVersionKind(schema.GroupVersionKind{Group: "clusterctl.cluster.x-k8s.io", Version: "v1alpha3", Kind: "ProviderList"})
	g.ExpectWithOffset(1, c.List(context.Background(), list)).To(Succeed())
	versions := map[string]string{}
	for _, item := range list.Items {
		version, _, _ := unstructured.NestedString(item.Object, "version")
		versions[item.GetNamespace()+"/"+item.GetName()] = version
	}
	return versions
}

// live returns the objects as they are in the cluster, by name.
func (c *cluster) live(g Gomega, objects []*unstructured.Unstructured) map[string]*unstructured.Unstructured {
	found := map[string]*unstructured.Unstructured{}
	for _, o := range objects {
		current := object(o.GetAPIVersion(), o.GetKind(), o.GetNamespace(), o.GetName())
		g.ExpectWithOffset(2, c.Get(context.Background(), client.ObjectKeyFromObject(current), current)).To(Succeed(), describe(o))
		found[describe(o)] = current
	}
	return found
}

// uids say which objects are still the same.
func (c *cluster) uids(g Gomega, objects []*unstructured.Unstructured) map[string]string {
	uids := map[string]string{}
	for name, o := range c.live(g, objects) {
		uids[name] = string(o.GetUID())
	}
	return uids
}

// versions say which objects nobody has written to.
func (c *cluster) versions(g Gomega, objects []*unstructured.Unstructured) map[string]string {
	versions := map[string]string{}
	for name, o := range c.live(g, objects) {
		versions[name] = string(o.GetUID()) + "@" + o.GetResourceVersion()
	}
	return versions
}

// tryAllTheWhile has a tenant with every right on MaasRemediations try to take the finalizer away, over and over, until the
// function it returns is called: that one tells how often the policies refused, and how often the answer was another.
func (c *cluster) tryAllTheWhile(t *testing.T, remediation *unstructured.Unstructured) func() (refusals int, others map[string]int) {
	t.Helper()
	try := c.refusesTenants(t, remediation)
	ctx, cancel := context.WithCancel(t.Context())
	var tried sync.WaitGroup
	refused, other := 0, map[string]int{}
	tried.Go(func() {
		for ctx.Err() == nil {
			if err := try(t.Context()); apierrors.IsForbidden(err) {
				refused++
			} else {
				other[fmt.Sprint(err)]++
			}
		}
	})
	return func() (int, map[string]int) {
		cancel()
		tried.Wait()
		return refused, other
	}
}

// refusesTenants waits until the policies keep a tenant with every right on MaasRemediations from taking the finalizer away, and
// returns the tenant's attempt.
func (c *cluster) refusesTenants(t *testing.T, remediation *unstructured.Unstructured) func(context.Context) error {
	t.Helper()
	c.kubectl(t, "create", "clusterrole", "remediates", "--verb=get,patch,update", "--resource=maasremediations.infrastructure.cluster.x-k8s.io")
	c.kubectl(t, "create", "rolebinding", "tessa", "--clusterrole=remediates", "--user=tessa")
	tessa := c.as(t, "tessa")
	patch := client.RawPatch("application/merge-patch+json", []byte(`{"metadata":{"finalizers":null}}`))
	try := func(ctx context.Context) error {
		return tessa.Patch(ctx, remediation.DeepCopy(), patch, client.DryRunAll)
	}
	NewWithT(t).Eventually(func() error { return try(t.Context()) }).WithTimeout(patience).
		Should(MatchError(ContainSubstring("ValidatingAdmissionPolicy")))
	return try
}

// as returns a client of somebody else.
func (c *cluster) as(t *testing.T, user string, groups ...string) client.Client {
	t.Helper()
	config := rest.CopyConfig(c.config)
	config.Impersonate = rest.ImpersonationConfig{UserName: user, Groups: groups}
	theirs, err := client.New(config, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return theirs
}

// of returns the objects of some kinds.
func of(objects []*unstructured.Unstructured, kinds ...string) []*unstructured.Unstructured {
	var found []*unstructured.Unstructured
	for _, o := range objects {
		for _, kind := range kinds {
			if o.GetKind() == kind {
				found = append(found, o)
			}
		}
	}
	return found
}

func object(apiVersion, kind, namespace, name string) *unstructured.Unstructured {
	o := &unstructured.Unstructured{}
	o.SetAPIVersion(apiVersion)
	o.SetKind(kind)
	o.SetNamespace(namespace)
	o.SetName(name)
	return o
}
