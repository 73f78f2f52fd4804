// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package serversim

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"testing"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/transport/spdy"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/lab/pki"
)

// echo says every line back, with a greeting.
func echo(g Gomega) (port int32, stop func()) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	g.Expect(err).NotTo(HaveOccurred())
	go func() {
		for {
			connection, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = connection.Close() }()
				line, err := bufio.NewReader(connection).ReadString('\n')
				if err == nil {
					_, _ = fmt.Fprint(connection, "hello "+line)
				}
			}()
		}
	}()
	return int32(listener.Addr().(*net.TCPAddr).Port), func() { _ = listener.Close() } //nolint:forcetypeassert // a TCP listener's
}

func TestKubeletForwardsPortsOfStaticPods(t *testing.T) {
	g := NewWithT(t)
	ca, err := pki.NewCA("test")
	g.Expect(err).NotTo(HaveOccurred())
	port, stop := echo(g)
	defer stop()
	simulated, err := newKubelet(ca, forwards{"etcd-node-1": {2379: port}})
	g.Expect(err).NotTo(HaveOccurred())
	address := fmt.Sprintf("127.0.0.1:%d", simulated.port)

	forward := func(path string, port int) (said, complaint string, err error) {
		transport, upgrader, err := spdy.RoundTripperFor(&rest.Config{Host: "https://" + address, TLSClientConfig: rest.TLSClientConfig{CAData: ca.CertPEM}})
		g.Expect(err).NotTo(HaveOccurred())
		target := &url.URL{Scheme: "https", Host: address, Path: path}
		connection, protocol, err := spdy.NewDialer(upgrader, &http.Client{Transport: transport}, http.MethodPost, target).Dial(portForwardProtocol)
		if err != nil {
			return "", "", err
		}
		defer func() { _ = connection.Close() }()
		g.Expect(protocol).To(Equal(portForwardProtocol))
		headers := http.Header{}
		headers.Set(corev1.PortHeader, fmt.Sprint(port))
		headers.Set(corev1.PortForwardRequestIDHeader, "0")
		headers.Set(corev1.StreamType, corev1.StreamTypeError)
		complaints, err := connection.CreateStream(headers)
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(complaints.Close()).To(Succeed())
		headers.Set(corev1.StreamType, corev1.StreamTypeData)
		data, err := connection.CreateStream(headers)
		g.Expect(err).NotTo(HaveOccurred())
		_, _ = fmt.Fprintln(data, "etcd") // a refused stream may be gone already
		heard, _ := io.ReadAll(data)
		complained, err := io.ReadAll(complaints)
		return string(heard), string(complained), err
	}
	said, complaint, err := forward("/portForward/kube-system/etcd-node-1", 2379)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(complaint).To(BeEmpty())
	g.Expect(said).To(Equal("hello etcd\n"))

	_, complaint, err = forward("/portForward/kube-system/etcd-node-1", 6443)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(complaint).To(ContainSubstring("nothing listens on port 6443"))
	for _, path := range []string{"/portForward/kube-system/etcd-node-2", "/portForward/default/etcd-node-1", "/logs/kube-system/etcd-node-1"} {
		_, _, err = forward(path, 2379)
		g.Expect(err).To(HaveOccurred(), path)
	}
	g.Expect(simulated.close()).To(Succeed())
	_, _, err = forward("/portForward/kube-system/etcd-node-1", 2379)
	g.Expect(err).To(HaveOccurred(), "a server without power has no kubelet")
}
