// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/lab/controlplane"
)

// tokenLifetime is longer than a lab lives: nobody renews the token in a kubeconfig file.
const tokenLifetime = 7 * 24 * time.Hour

// ServiceAccountKubeconfig writes a kubeconfig with a requested token of a real ServiceAccount, so that RBAC alone says what
// its holder may do. Namespace and ServiceAccount are created if they are missing. cluster must be allowed to do all that.
func (l *Lab) ServiceAccountKubeconfig(ctx context.Context, cluster *rest.Config, namespace, name string) (string, error) {
	clients, err := kubernetes.NewForConfig(cluster)
	if err != nil {
		return "", err
	}
	_, err = clients.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return "", fmt.Errorf("creating namespace %s: %w", namespace, err)
	}
	accounts := clients.CoreV1().ServiceAccounts(namespace)
	_, err = accounts.Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return "", fmt.Errorf("creating ServiceAccount %s/%s: %w", namespace, name, err)
	}
	token, err := accounts.CreateToken(ctx, name, &authenticationv1.TokenRequest{
		Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: ptr.To(int64(tokenLifetime.Seconds()))},
	}, metav1.CreateOptions{})
	if err != nil {
		return "", fmt.Errorf("requesting a token of ServiceAccount %s/%s: %w", namespace, name, err)
	}
	limited := rest.AnonymousClientConfig(cluster)
	limited.BearerToken = token.Status.Token
	host, err := url.Parse(cluster.Host)
	if err != nil {
		return "", err
	}
	return l.writeKubeconfig(fmt.Sprintf("%s.%s.%s", namespace, name, host.Port()), limited)
}

// UserKubeconfig writes a kubeconfig for a user of the management cluster who exists by a client certificate only: tenants
// and operators of the lab. What the user may do is up to the RBAC that names the user or one of the groups.
func (l *Lab) UserKubeconfig(_ context.Context, user string, groups ...string) (string, error) {
	c, ok := l.clusters[management]
	if !ok {
		return "", errors.New("the management cluster is not running")
	}
	config, err := c.server.As(user, groups...)
	if err != nil {
		return "", err
	}
	return l.writeKubeconfig("user."+user, config)
}

// writeKubeconfig stores a configuration as a file that needs nothing else.
func (l *Lab) writeKubeconfig(name string, config *rest.Config) (string, error) {
	path := filepath.Join(l.options.Dir, "kubeconfigs", name+".kubeconfig")
	return path, controlplane.WriteKubeconfig(path, config)
}
