// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package scope

import (
	"fmt"
	"net/http"
	"net/url"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// KubeconfigError says which field of a kubeconfig is not taken and what to write instead. It never quotes a value.
type KubeconfigError struct {
	// Field such as users[].user.exec; empty when the whole is unreadable.
	Field string
	// Problem goes on after the field, for example "is not taken: write ...".
	Problem string
}

// Error implements error.
func (e *KubeconfigError) Error() string {
	if e.Field == "" {
		return "the kubeconfig " + e.Problem
	}
	return "the kubeconfig's " + e.Field + " " + e.Problem
}

// RESTConfigFromKubeconfig reads a kubeconfig that came out of a Secret. It takes what is written in the kubeconfig itself and
// nothing else: whoever may write the Secret must not make this process run programs (exec, auth-provider), read files, or
// trust a server that it cannot verify. Its errors are KubeconfigErrors.
func RESTConfigFromKubeconfig(data []byte) (*rest.Config, error) {
	config, err := clientcmd.Load(data)
	if err != nil {
		// The parser quotes its input, which holds credentials.
		return nil, &KubeconfigError{Problem: "is no valid kubeconfig: write one as kubectl config view --raw --minify --flatten prints it"}
	}
	current, ok := config.Contexts[config.CurrentContext]
	if !ok {
		return nil, &KubeconfigError{Field: "current-context", Problem: "names no context: write the name of one of its contexts"}
	}
	cluster, ok := config.Clusters[current.Cluster]
	if !ok {
		return nil, &KubeconfigError{Field: "contexts[].context.cluster", Problem: "names no cluster: write the name of one of its clusters"}
	}
	user, ok := config.AuthInfos[current.AuthInfo]
	if !ok {
		return nil, &KubeconfigError{Field: "contexts[].context.user", Problem: "names no user: write the name of one of its users"}
	}
	if err := checkCluster(cluster); err != nil {
		return nil, err
	}
	if err := checkUser(user); err != nil {
		return nil, err
	}
	return restConfig(cluster, user)
}

func checkCluster(cluster *clientcmdapi.Cluster) error {
	server, err := url.Parse(cluster.Server)
	switch {
	case err != nil || server.Scheme != "https" || server.Hostname() == "":
		return &KubeconfigError{Field: "clusters[].cluster.server", Problem: "is no https URL: write the API server's address, for example https://192.0.2.1:6443"}
	case cluster.InsecureSkipTLSVerify:
		return &KubeconfigError{Field: "clusters[].cluster.insecure-skip-tls-verify", Problem: "is not taken, because answers are evidence: write the API server's CA into certificate-authority-data"}
	case cluster.CertificateAuthority != "":
		return fileRefused("clusters[].cluster.certificate-authority", "certificate-authority-data")
	}
	return nil
}

func checkUser(user *clientcmdapi.AuthInfo) error {
	const instead = "is not taken, because a Secret must not make the manager run programs: write a token, or client-certificate-data and client-key-data"
	switch {
	case user.Exec != nil:
		return &KubeconfigError{Field: "users[].user.exec", Problem: instead}
	case user.AuthProvider != nil:
		return &KubeconfigError{Field: "users[].user.auth-provider", Problem: instead}
	case user.TokenFile != "":
		return fileRefused("users[].user.tokenFile", "token")
	case user.ClientCertificate != "":
		return fileRefused("users[].user.client-certificate", "client-certificate-data")
	case user.ClientKey != "":
		return fileRefused("users[].user.client-key", "client-key-data")
	case user.Token == "" && user.Username == "" && len(user.ClientCertificateData) == 0:
		return &KubeconfigError{Field: "users[].user", Problem: "has no credentials: write a token, or client-certificate-data and client-key-data"}
	case len(user.ClientCertificateData) > 0 && len(user.ClientKeyData) == 0:
		return &KubeconfigError{Field: "users[].user", Problem: "has client-certificate-data without client-key-data: write both"}
	}
	return nil
}

func fileRefused(field, instead string) error {
	return &KubeconfigError{Field: field, Problem: fmt.Sprintf("names a file, which is not read: write the content into %s, as kubectl config view --raw --flatten does", instead)}
}

// restConfig copies field by field, so that nothing comes from this process's environment.
func restConfig(cluster *clientcmdapi.Cluster, user *clientcmdapi.AuthInfo) (*rest.Config, error) {
	config := &rest.Config{
		Host:     cluster.Server,
		Username: user.Username, Password: user.Password, BearerToken: user.Token,
		Impersonate: rest.ImpersonationConfig{
			UserName: user.Impersonate, UID: user.ImpersonateUID, Groups: user.ImpersonateGroups, Extra: user.ImpersonateUserExtra,
		},
		TLSClientConfig: rest.TLSClientConfig{
			ServerName: cluster.TLSServerName, CAData: cluster.CertificateAuthorityData,
			CertData: user.ClientCertificateData, KeyData: user.ClientKeyData,
		},
		DisableCompression: cluster.DisableCompression,
	}
	if cluster.ProxyURL != "" {
		proxy, err := url.Parse(cluster.ProxyURL)
		if err != nil || proxy.Host == "" {
			return nil, &KubeconfigError{Field: "clusters[].cluster.proxy-url", Problem: "is no URL: write the proxy's address, for example https://proxy.example:3128"}
		}
		config.Proxy = http.ProxyURL(proxy)
	}
	return config, nil
}
