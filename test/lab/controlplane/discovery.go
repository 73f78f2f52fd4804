// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/yaml"
)

const (
	clusterInfo          = "cluster-info"
	kubeadmConfig        = "kubeadm-config"
	clusterConfiguration = "ClusterConfiguration"
	kubeconfigKey        = "kubeconfig"

	settleTimeout  = 30 * time.Second
	settleInterval = 200 * time.Millisecond
)

// Publish leaves in a new cluster what kubeadm init leaves there for those who join: the cluster's configuration, and for
// anybody who asks the endpoint and its CA. The signature that kubeadm expects on the latter is a controller's, which no
// cluster of the lab runs.
func Publish(ctx context.Context, clients kubernetes.Interface, endpoint string, ca []byte, configuration string) error {
	info := clientcmdapi.NewConfig()
	info.Clusters[""] = &clientcmdapi.Cluster{Server: "https://" + endpoint, CertificateAuthorityData: ca}
	kubeconfig, err := clientcmd.Write(*info)
	if err != nil {
		return err
	}
	const reader = "kubeadm:bootstrap-signer-clusterinfo"
	steps := []func(context.Context) error{
		createConfigMap(clients, metav1.NamespaceSystem, kubeadmConfig, clusterConfiguration, configuration),
		createConfigMap(clients, metav1.NamespacePublic, clusterInfo, kubeconfigKey, string(kubeconfig)),
		func(ctx context.Context) error {
			_, err := clients.RbacV1().Roles(metav1.NamespacePublic).Create(ctx, &rbacv1.Role{
				ObjectMeta: metav1.ObjectMeta{Name: reader},
				Rules:      []rbacv1.PolicyRule{{Verbs: []string{"get"}, APIGroups: []string{""}, Resources: []string{"configmaps"}, ResourceNames: []string{clusterInfo}}},
			}, metav1.CreateOptions{})
			return err
		},
		func(ctx context.Context) error {
			_, err := clients.RbacV1().RoleBindings(metav1.NamespacePublic).Create(ctx, &rbacv1.RoleBinding{
				ObjectMeta: metav1.ObjectMeta{Name: reader},
				RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: reader},
				Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: "system:anonymous"}},
			}, metav1.CreateOptions{})
			return err
		},
	}
	for _, step := range steps {
		// The API server creates its namespaces by itself, a moment after it is ready.
		var last error
		err := wait.PollUntilContextTimeout(ctx, settleInterval, settleTimeout, true, func(ctx context.Context) (bool, error) {
			last = step(ctx)
			return last == nil || apierrors.IsAlreadyExists(last), nil
		})
		if err != nil {
			return fmt.Errorf("publishing what nodes need to join: %w", errors.Join(err, last))
		}
	}
	return nil
}

func createConfigMap(clients kubernetes.Interface, namespace, name, key, value string) func(context.Context) error {
	return func(ctx context.Context) error {
		_, err := clients.CoreV1().ConfigMaps(namespace).Create(ctx, &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Data: map[string]string{key: value},
		}, metav1.CreateOptions{})
		return err
	}
}

// Discover asks the endpoint for its CA, as a node does that knows nothing but a token and the hash of a key. Nothing about
// the answer is verified: that is for the caller, by the hash.
func Discover(ctx context.Context, endpoint string) (ca []byte, err error) {
	anonymous := &rest.Config{Host: "https://" + endpoint, TLSClientConfig: rest.TLSClientConfig{Insecure: true}, Timeout: probeTimeout}
	clients, err := kubernetes.NewForConfig(anonymous)
	if err != nil {
		return nil, err
	}
	info, err := clients.CoreV1().ConfigMaps(metav1.NamespacePublic).Get(ctx, clusterInfo, metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	kubeconfig, err := clientcmd.Load([]byte(info.Data[kubeconfigKey]))
	if err != nil || kubeconfig.Clusters[""] == nil {
		return nil, fmt.Errorf("%s at %s is no kubeconfig", clusterInfo, endpoint)
	}
	return kubeconfig.Clusters[""].CertificateAuthorityData, nil
}

// PublishedVersion is the Kubernetes version that kubeadm's configuration in the cluster names.
func PublishedVersion(ctx context.Context, clients kubernetes.Interface) (string, error) {
	config, err := clients.CoreV1().ConfigMaps(metav1.NamespaceSystem).Get(ctx, kubeadmConfig, metav1.GetOptions{})
	if err != nil {
		return "", err
	}
	var configuration struct {
		KubernetesVersion string `json:"kubernetesVersion"`
	}
	if err := yaml.Unmarshal([]byte(config.Data[clusterConfiguration]), &configuration); err != nil || configuration.KubernetesVersion == "" {
		return "", fmt.Errorf("ConfigMap %s names no kubernetesVersion", kubeadmConfig)
	}
	return configuration.KubernetesVersion, nil
}

// WorkloadArgs are what an API server of a workload cluster needs beside the defaults. kubeletCA is the file with the
// authority of the kubelets' serving certificates.
func WorkloadArgs(kubeletCA string) []string {
	return []string{
		"--enable-bootstrap-token-auth=true",
		"--kubelet-certificate-authority=" + kubeletCA, "--kubelet-preferred-address-types=InternalDNS",
		// Its taint is taken away by a controller that no cluster of the lab runs.
		"--disable-admission-plugins=TaintNodesByCondition",
	}
}
