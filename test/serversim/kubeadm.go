// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package serversim

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"
)

// kubeadmVersion is the format kubeadm reads since Kubernetes 1.31.
const kubeadmVersion = "kubeadm.k8s.io/v1beta4"

// argument is an entry of kubeadm's lists of extra arguments.
type argument struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

type nodeRegistration struct {
	Name             string         `json:"name"`
	KubeletExtraArgs []argument     `json:"kubeletExtraArgs"`
	Taints           []corev1.Taint `json:"taints"`
}

// kubeletArgument returns the last value of an argument, as the kubelet's flag parser would.
func (n nodeRegistration) kubeletArgument(name string) string {
	var value string
	for _, a := range n.KubeletExtraArgs {
		if a.Name == name {
			value = a.Value
		}
	}
	return value
}

// nodeIP is the kubelet's --node-ip; ok is false if the argument is missing.
func (n nodeRegistration) nodeIP() (address netip.Addr, ok bool, err error) {
	value := n.kubeletArgument("node-ip")
	if value == "" {
		return netip.Addr{}, false, nil
	}
	if address, err = netip.ParseAddr(value); err != nil {
		return netip.Addr{}, false, fmt.Errorf("the kubelet's node-ip %q is no address", value)
	}
	return address, true, nil
}

// labels are those of the kubelet's --node-labels.
func (n nodeRegistration) labels() map[string]string {
	labels := map[string]string{}
	for pair := range strings.SplitSeq(n.kubeletArgument("node-labels"), ",") {
		if key, value, found := strings.Cut(strings.TrimSpace(pair), "="); found {
			labels[key] = value
		}
	}
	return labels
}

type initConfiguration struct {
	metav1.TypeMeta  `json:",inline"`
	NodeRegistration nodeRegistration `json:"nodeRegistration"`
}

type clusterConfiguration struct {
	metav1.TypeMeta      `json:",inline"`
	ControlPlaneEndpoint string `json:"controlPlaneEndpoint"`
	KubernetesVersion    string `json:"kubernetesVersion"`
	// document is the text, which kubeadm stores in the cluster.
	document string
}

type joinConfiguration struct {
	metav1.TypeMeta  `json:",inline"`
	NodeRegistration nodeRegistration `json:"nodeRegistration"`
	ControlPlane     *struct{}        `json:"controlPlane"`
	Discovery        struct {
		BootstrapToken *struct {
			APIServerEndpoint string   `json:"apiServerEndpoint"`
			Token             string   `json:"token"`
			CACertHashes      []string `json:"caCertHashes"`
		} `json:"bootstrapToken"`
	} `json:"discovery"`
}

// kubeadmConfig is what one kubeadm command reads; exactly init with cluster, or join is set.
type kubeadmConfig struct {
	init    *initConfiguration
	cluster *clusterConfiguration
	join    *joinConfiguration
}

// parseKubeadm reads kubeadm's documents. Its errors quote nothing: the documents hold a token.
func parseKubeadm(content string) (*kubeadmConfig, error) {
	config := &kubeadmConfig{}
	reader := utilyaml.NewYAMLReader(bufio.NewReader(strings.NewReader(content)))
	for {
		document, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return config, nil
		}
		if err != nil {
			return nil, errors.New("the kubeadm configuration is no YAML stream")
		}
		if err := config.add(document); err != nil {
			return nil, err
		}
	}
}

func (c *kubeadmConfig) add(document []byte) error {
	var kind metav1.TypeMeta
	if yaml.Unmarshal(document, &kind) != nil {
		return errors.New("a kubeadm document is malformed")
	}
	if kind.Kind == "" {
		return nil // an empty document between separators
	}
	if kind.APIVersion != kubeadmVersion && strings.HasPrefix(kind.APIVersion, "kubeadm.k8s.io/") {
		return fmt.Errorf("kubeadm reads %s here, not %s", kubeadmVersion, kind.APIVersion)
	}
	var into any
	switch kind.Kind {
	case "InitConfiguration":
		c.init = &initConfiguration{}
		into = c.init
	case "ClusterConfiguration":
		c.cluster = &clusterConfiguration{document: string(document)}
		into = c.cluster
	case "JoinConfiguration":
		c.join = &joinConfiguration{}
		into = c.join
	default:
		return nil // KubeletConfiguration and the like: nothing a simulated kubelet follows
	}
	if yaml.Unmarshal(document, into) != nil {
		return fmt.Errorf("the kubeadm %s is malformed", kind.Kind)
	}
	return nil
}

// controlPlane says whether the command makes a control-plane node.
func (c *kubeadmConfig) controlPlane() bool {
	return c.init != nil || c.join.ControlPlane != nil
}

// registration is the node's part of whichever command it is.
func (c *kubeadmConfig) registration() nodeRegistration {
	if c.join != nil {
		return c.join.NodeRegistration
	}
	return c.init.NodeRegistration
}
