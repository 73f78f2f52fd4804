// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package dpfsim

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

const (
	conditionAccount = "ServiceAccountReconciled"
	conditionSecret  = "SecretReconciled"

	// kubeconfigKey is the data key of a Secret of type kubeconfig.
	kubeconfigKey = "kubeconfig"

	defaultTokenLife = time.Hour
	// unsure: when exactly DPF renews; a token is renewed here after four fifths of its life.
	renewAfter = 0.8
)

// credentialController makes ServiceAccounts in the cluster asked for and keeps a fresh token of each in a Secret. It grants
// them nothing: rights are made by others.
type credentialController struct{ world }

type (
	namespacedName struct {
		Name      string  `json:"name"`
		Namespace *string `json:"namespace,omitempty"`
	}
	credentialSpec struct {
		ServiceAccount namespacedName  `json:"serviceAccount"`
		TargetCluster  *namespacedName `json:"targetCluster,omitempty"`
		Type           string          `json:"type"`
		Duration       string          `json:"duration,omitempty"`
		Secret         namespacedName  `json:"secret"`
		Metadata       templateMeta    `json:"metadata,omitempty"`
	}
)

func (n namespacedName) namespace() string { return ptr.Deref(n.Namespace, "default") }
func (n namespacedName) String() string    { return n.namespace() + "/" + n.Name }

func setupCredentials(mgr manager.Manager, w world) error {
	r := &credentialController{w}
	return w.controller(mgr, ControllerCredentials).
		For(newObject(kindCredentialRequest)).
		Complete(w.played(ControllerCredentials, r.reconcile))
}

func (r *credentialController) reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	object := newObject(kindCredentialRequest)
	if err := r.management.Get(ctx, request.NamespacedName, object); err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	spec, err := readSpec[credentialSpec](object)
	if err != nil {
		return reconcile.Result{}, err
	}
	if object.GetDeletionTimestamp() != nil {
		return reconcile.Result{}, r.delete(ctx, object, spec)
	}
	if added, err := addFinalizer(ctx, r.management, object, finalizerCredentials); added || err != nil {
		return reconcile.Result{}, err
	}
	report := newReport(r.clock, object)
	report.ensure(conditionAccount, conditionSecret)
	after, err := r.provide(ctx, object, spec, report)
	report.summarize(conditionAccount, conditionSecret)
	if e := report.write(ctx, r.management); e != nil && err == nil {
		err = e
	}
	return reconcile.Result{RequeueAfter: after}, err
}

// target is where the ServiceAccount lives: the DPU cluster, or the management cluster when none is named.
func (r *credentialController) target(spec credentialSpec) (client.Client, *rest.Config, string, error) {
	if spec.TargetCluster == nil {
		return r.Fabric.management, r.options.Management, "incluster", nil
	}
	if spec.TargetCluster.Name != r.options.DPUClusterName || spec.TargetCluster.namespace() != r.options.Namespace {
		return nil, nil, "", fmt.Errorf("DPUCluster %s not found", spec.TargetCluster)
	}
	return r.Fabric.dpuCluster, r.options.DPUCluster, spec.TargetCluster.Name, nil
}

func (r *credentialController) provide(ctx context.Context, object *unstructured.Unstructured, spec credentialSpec, report *report) (time.Duration, error) {
	c, config, clusterName, err := r.target(spec)
	if err != nil {
		report.condition(conditionAccount, false, reasonError, err.Error())
		return r.options.Timing.RelatedRetry, nil
	}
	life := defaultTokenLife
	if spec.Duration != "" {
		if life, err = time.ParseDuration(spec.Duration); err != nil {
			report.condition(conditionAccount, false, reasonError, err.Error())
			return 0, nil
		}
	}
	// DPF caps the life of tokens.
	life = min(life, 24*time.Hour)
	if left, fresh := r.fresh(ctx, object, spec, life); fresh {
		report.succeed(conditionAccount)
		report.succeed(conditionSecret)
		return left, nil
	}
	token, err := mint(ctx, c, spec, life)
	if err != nil {
		report.condition(conditionAccount, false, reasonError, "the token request failed: "+string(apierrors.ReasonForError(err)))
		return 0, err
	}
	report.succeed(conditionAccount)
	data, err := r.secretData(spec, config, clusterName, token.Status.Token)
	if err == nil {
		err = r.writeSecret(ctx, spec, data)
	}
	if err != nil {
		report.condition(conditionSecret, false, reasonError, err.Error())
		return 0, err
	}
	report.succeed(conditionSecret)
	expires := token.Status.ExpirationTimestamp
	report.set(expires.UTC().Format(time.RFC3339), "expirationTimestamp")
	report.set(expires.Add(-life).UTC().Format(time.RFC3339), "issuedAt")
	report.set(spec.ServiceAccount.String(), "serviceAccount")
	report.set(spec.Secret.String(), "secret")
	if spec.TargetCluster != nil {
		report.set(spec.TargetCluster.String(), "targetCluster")
	}
	return time.Duration(float64(life) * renewAfter), nil
}

// rotateCredentials makes the next pass over a request renew its token; revoking ends those given before with their account.
func (f *Fabric) rotateCredentials(ctx context.Context, target string, revoke bool) error {
	namespace, name, _ := strings.Cut(target, "/")
	object := newObject(kindCredentialRequest)
	if err := f.management.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, object); err != nil {
		return err
	}
	spec, err := readSpec[credentialSpec](object)
	if err != nil {
		return err
	}
	if c := f.dpuCluster; revoke {
		if spec.TargetCluster == nil {
			c = f.management
		}
		account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: spec.ServiceAccount.namespace(), Name: spec.ServiceAccount.Name}}
		if err := client.IgnoreNotFound(c.Delete(ctx, account)); err != nil {
			return fmt.Errorf("delete ServiceAccount: %w", err)
		}
	}
	r := newReport(f.clock, object)
	r.set(f.clock.Now().UTC().Format(time.RFC3339), "expirationTimestamp")
	return r.write(ctx, f.management)
}

// fresh says whether the Secret holds a token that needs no renewal yet, and for how long.
func (r *credentialController) fresh(ctx context.Context, object *unstructured.Unstructured, spec credentialSpec, life time.Duration) (time.Duration, bool) {
	written, _, _ := unstructured.NestedString(object.Object, "status", "expirationTimestamp")
	expires, err := time.Parse(time.RFC3339, written)
	if err != nil {
		return 0, false
	}
	secret := &corev1.Secret{}
	key := client.ObjectKey{Namespace: spec.Secret.namespace(), Name: spec.Secret.Name}
	if err := r.Fabric.management.Get(ctx, key, secret); err != nil {
		return 0, false
	}
	left := expires.Sub(r.clock.Now()) - time.Duration(float64(life)*(1-renewAfter))
	return left, left > 0
}

func mint(ctx context.Context, c client.Client, spec credentialSpec, life time.Duration) (*authenticationv1.TokenRequest, error) {
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: spec.ServiceAccount.namespace()}}
	if err := create(ctx, c, namespace); err != nil {
		return nil, err
	}
	account := &corev1.ServiceAccount{
		ObjectMeta:                   metav1.ObjectMeta{Namespace: namespace.Name, Name: spec.ServiceAccount.Name},
		AutomountServiceAccountToken: ptr.To(false),
	}
	if err := create(ctx, c, account); err != nil {
		return nil, err
	}
	token := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: ptr.To(int64(life / time.Second))}}
	if err := c.SubResource("token").Create(ctx, account, token); err != nil {
		return nil, fmt.Errorf("request token for ServiceAccount %s: %w", spec.ServiceAccount, err)
	}
	return token, nil
}

func (r *credentialController) secretData(spec credentialSpec, config *rest.Config, clusterName, token string) (map[string][]byte, error) {
	if spec.Type == "tokenFile" {
		server, err := url.Parse(config.Host)
		if err != nil {
			return nil, fmt.Errorf("address of %s: %w", clusterName, err)
		}
		return map[string][]byte{
			"KUBERNETES_SERVICE_HOST": []byte(server.Hostname()), "KUBERNETES_SERVICE_PORT": []byte(server.Port()),
			"KUBERNETES_CA_DATA": config.CAData, "TOKEN_FILE": []byte(token),
		}, nil
	}
	anonymous := rest.AnonymousClientConfig(config)
	anonymous.BearerToken = token
	kubeconfig, err := kubeconfigFor(anonymous, clusterName)
	return map[string][]byte{kubeconfigKey: kubeconfig}, err
}

func (r *credentialController) writeSecret(ctx context.Context, spec credentialSpec, data map[string][]byte) error {
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{
		Namespace: spec.Secret.namespace(), Name: spec.Secret.Name,
		Labels: spec.Metadata.Labels, Annotations: spec.Metadata.Annotations,
	}, Data: data}
	err := r.Fabric.management.Create(ctx, secret)
	if !apierrors.IsAlreadyExists(err) {
		return err
	}
	present := &corev1.Secret{}
	if err := r.Fabric.management.Get(ctx, client.ObjectKeyFromObject(secret), present); err != nil {
		return err
	}
	present.Data = data
	return r.Fabric.management.Update(ctx, present)
}

// delete removes the account, which ends its tokens, and the Secret.
func (r *credentialController) delete(ctx context.Context, object *unstructured.Unstructured, spec credentialSpec) error {
	if c, _, _, err := r.target(spec); err == nil {
		account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: spec.ServiceAccount.namespace(), Name: spec.ServiceAccount.Name}}
		if err := client.IgnoreNotFound(c.Delete(ctx, account)); err != nil {
			return fmt.Errorf("delete ServiceAccount: %w", err)
		}
	}
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: spec.Secret.namespace(), Name: spec.Secret.Name}}
	if err := client.IgnoreNotFound(r.Fabric.management.Delete(ctx, secret)); err != nil {
		return fmt.Errorf("delete Secret: %w", err)
	}
	return dropFinalizer(ctx, r.management, object, finalizerCredentials)
}
