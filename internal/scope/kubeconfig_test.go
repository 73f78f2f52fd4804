// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package scope

import (
	"errors"
	"strings"
	"testing"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

const secretToken = "s3cr3t-token"

func kubeconfig(t *testing.T, edit func(*clientcmdapi.Config)) []byte {
	t.Helper()
	config := clientcmdapi.NewConfig()
	config.CurrentContext = "c"
	config.Contexts["c"] = &clientcmdapi.Context{Cluster: "k", AuthInfo: "u"}
	config.Clusters["k"] = &clientcmdapi.Cluster{Server: "https://192.0.2.1:6443", CertificateAuthorityData: []byte("ca"), TLSServerName: "api"}
	config.AuthInfos["u"] = &clientcmdapi.AuthInfo{Token: secretToken}
	if edit != nil {
		edit(config)
	}
	data, err := clientcmd.Write(*config)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestKubeconfigIsTaken(t *testing.T) {
	config, err := RESTConfigFromKubeconfig(kubeconfig(t, func(c *clientcmdapi.Config) {
		c.Clusters["k"].ProxyURL = "http://192.0.2.2:3128"
		// What the context does not name does no harm.
		c.AuthInfos["other"] = &clientcmdapi.AuthInfo{Exec: &clientcmdapi.ExecConfig{Command: "sh", APIVersion: "v1", InteractiveMode: "Never"}}
	}))
	if err != nil {
		t.Fatal(err)
	}
	if config.Host != "https://192.0.2.1:6443" || config.BearerToken != secretToken || string(config.CAData) != "ca" || config.ServerName != "api" || config.Proxy == nil {
		t.Errorf("the kubeconfig is not what the client uses: %s", config.Host)
	}
}

func TestKubeconfigIsRefused(t *testing.T) {
	cluster := func(edit func(*clientcmdapi.Cluster)) func(*clientcmdapi.Config) {
		return func(c *clientcmdapi.Config) { edit(c.Clusters["k"]) }
	}
	user := func(edit func(*clientcmdapi.AuthInfo)) func(*clientcmdapi.Config) {
		return func(c *clientcmdapi.Config) { edit(c.AuthInfos["u"]) }
	}
	for field, edit := range map[string]func(*clientcmdapi.Config){
		"users[].user.exec": user(func(u *clientcmdapi.AuthInfo) {
			u.Exec = &clientcmdapi.ExecConfig{Command: "sh", APIVersion: "client.authentication.k8s.io/v1", InteractiveMode: "Never"}
		}),
		"users[].user.auth-provider": user(func(u *clientcmdapi.AuthInfo) {
			u.AuthProvider = &clientcmdapi.AuthProviderConfig{Name: "oidc"}
		}),
		"users[].user.tokenFile":          user(func(u *clientcmdapi.AuthInfo) { u.Token, u.TokenFile = "", "/var/run/token" }),
		"users[].user.client-certificate": user(func(u *clientcmdapi.AuthInfo) { u.ClientCertificate = "/etc/cert" }),
		"users[].user.client-key":         user(func(u *clientcmdapi.AuthInfo) { u.ClientKey = "/etc/key" }),
		"users[].user":                    user(func(u *clientcmdapi.AuthInfo) { u.Token = "" }),
		"clusters[].cluster.certificate-authority": cluster(func(c *clientcmdapi.Cluster) {
			c.CertificateAuthorityData, c.CertificateAuthority = nil, "/etc/ca"
		}),
		"clusters[].cluster.insecure-skip-tls-verify": cluster(func(c *clientcmdapi.Cluster) { c.InsecureSkipTLSVerify = true }),
		"clusters[].cluster.server":                   cluster(func(c *clientcmdapi.Cluster) { c.Server = "http://192.0.2.1:8080" }),
		"clusters[].cluster.proxy-url":                cluster(func(c *clientcmdapi.Cluster) { c.ProxyURL = "::" }),
		"current-context":                             func(c *clientcmdapi.Config) { c.CurrentContext = "" },
		"contexts[].context.cluster":                  func(c *clientcmdapi.Config) { c.Contexts["c"].Cluster = "none" },
		"contexts[].context.user":                     func(c *clientcmdapi.Config) { c.Contexts["c"].AuthInfo = "none" },
	} {
		t.Run(field, func(t *testing.T) {
			_, err := RESTConfigFromKubeconfig(kubeconfig(t, edit))
			var refused *KubeconfigError
			if !errors.As(err, &refused) || refused.Field != field {
				t.Fatalf("error %v, want a KubeconfigError about %s", err, field)
			}
			if !strings.Contains(err.Error(), "write") {
				t.Errorf("%q does not say what to write", err)
			}
			if strings.Contains(err.Error(), secretToken) {
				t.Errorf("%q shows a credential", err)
			}
		})
	}
	_, err := RESTConfigFromKubeconfig([]byte("users: [{user: {token: " + secretToken))
	var refused *KubeconfigError
	if !errors.As(err, &refused) || strings.Contains(err.Error(), secretToken) {
		t.Errorf("an unreadable kubeconfig: %v", err)
	}
}
