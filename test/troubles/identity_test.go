// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package troubles

import (
	"context"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/demo"
)

const (
	adminKey   = "adminconsumer:admintoken:adminsecret"
	operator   = "operator"
	firstKey   = "rotaconsumer:rotatoken:rotasecret"
	secondKey  = "rotaconsumer2:rotatoken2:rotasecret2"
	wrongKey   = "nobodyconsumer:nobodytoken:nobodysecret"
	apiKey     = "apiKey"
	kubeconfig = "kubeconfig"
)

// setSecret writes a Secret with one key as it is to be, whether it exists or not; an empty key makes an empty Secret.
func setSecret(t *testing.T, namespace, name, key, value string) {
	t.Helper()
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
	data := map[string][]byte{}
	if key != "" {
		data[key] = []byte(value)
	}
	err := updateKey(suite, secret, client.ObjectKeyFromObject(secret), func() { secret.Data = data })
	if apierrors.IsNotFound(err) {
		secret.Data = data
		err = world.Operator.Create(suite, secret)
	}
	if err != nil {
		t.Fatalf("write Secret %s: %v", name, err)
	}
}

// deleteAll deletes objects and waits until they are gone.
func deleteAll(t *testing.T, objects ...client.Object) {
	t.Helper()
	for _, o := range objects {
		if err := world.Operator.Delete(suite, o); client.IgnoreNotFound(err) != nil {
			t.Errorf("delete %T %s: %v", o, o.GetName(), err)
		}
	}
	for _, o := range objects {
		eventually(t, soon, "it is gone: "+o.GetName(), func(ctx context.Context) string {
			err := world.Operator.Get(ctx, client.ObjectKeyFromObject(o), o)
			switch said, ok := o.(object); {
			case apierrors.IsNotFound(err):
				return ""
			case err == nil && ok:
				return describe(said)
			default:
				return "it still exists"
			}
		})
	}
}

// testIdentitySecret goes through everything a Secret can be, and through a rotation, without a restart.
func testIdentitySecret(t *testing.T) {
	world.MAAS.AddUser("rotated", firstKey, false)
	n := newTenant(t, nsSecrets)
	create(t, n.vpc())
	identity := newIdentity("secrets")
	identity.Spec.SecretRef.Name = "maas-secrets"
	identity.Spec.AllowedNamespaces = &infrav1.AllowedNamespaces{Names: []string{nsSecrets}}
	create(t, identity)
	n.createCluster("secrets", vpcName)
	m := n.createMachine("m", port(subnet))
	set := func(key, value string) { setSecret(t, demo.MachineNamespace, "maas-secrets", key, value) }

	for _, step := range []struct {
		what string
		do   func()
		want says
	}{
		{"missing", func() {}, no(infrav1.CredentialsValidCondition, infrav1.SecretNotFoundReason, "Secret maas-secrets does not exist", "create it there with the key apiKey")},
		{"empty", func() { set("", "") }, no(infrav1.CredentialsValidCondition, infrav1.SecretInvalidReason, "has no key apiKey", "write the MAAS API key there")},
		{"malformed", func() { set(apiKey, "not-a-key") }, no(infrav1.CredentialsValidCondition, infrav1.SecretInvalidReason, "maas-secrets", "consumer:token:secret")},
		{"unknown to MAAS", func() { set(apiKey, wrongKey) }, no(infrav1.CredentialsValidCondition, infrav1.CredentialsRefusedReason, "does not accept the API key: write a valid one into its Secret")},
		{"an administrator's", func() { set(apiKey, adminKey) }, no(infrav1.CredentialsValidCondition, infrav1.AccountTooPowerfulReason, "account operator", "use an ordinary account, or set allowAdmin")},
	} {
		step.do()
		expect(t, identity, step.want)
		expect(t, identity, no(infrav1.ReadyCondition, step.want.reason))
		if t.Failed() {
			t.Fatalf("at the Secret that is %s", step.what)
		}
	}
	expect(t, n.cluster(), no(infrav1.IdentityReadyCondition, infrav1.IdentityNotReadyReason, "MaasClusterIdentity secrets is not Ready", "set allowAdmin"))
	expect(t, m.object(), no(infrav1.ServerClaimedCondition, infrav1.WaitingForClusterInfrastructureReason))
	m.unclaimed()
	// The fabric knows no such account: what comes is not for machines.
	m.down()

	change(t, identity, func() { identity.Spec.AllowAdmin = ptr.To(true) })
	expect(t, identity, yes(infrav1.ReadyCondition))
	if identity.Status.Account != operator {
		t.Errorf("the account is said to be %q, want %q", identity.Status.Account, operator)
	}
	change(t, identity, func() { identity.Spec.AllowAdmin = nil })
	expect(t, identity, no(infrav1.CredentialsValidCondition, infrav1.AccountTooPowerfulReason))
	set(apiKey, firstKey)
	expect(t, identity, yes(infrav1.ReadyCondition))
	expect(t, n.cluster(), yes(infrav1.ReadyCondition))

	world.MAAS.RotateKey("rotated", secondKey)
	change(t, identity, func() { metav1.SetMetaDataAnnotation(&identity.ObjectMeta, "operator/look", "again") })
	expect(t, identity, no(infrav1.CredentialsValidCondition, infrav1.CredentialsRefusedReason))
	expect(t, n.cluster(), no(infrav1.IdentityReadyCondition, infrav1.IdentityNotReadyReason))
	set(apiKey, secondKey)
	expect(t, identity, yes(infrav1.ReadyCondition))
	expect(t, n.cluster(), yes(infrav1.ReadyCondition))
}
