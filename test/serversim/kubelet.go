// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package serversim

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/streaming/pkg/httpstream/spdy"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/lab/pki"
)

const (
	portForwardProtocol = "portforward.k8s.io"
	headerTimeout       = 10 * time.Second
	forwardDialTimeout  = 2 * time.Second
)

// forwards say where the ports of Pods in kube-system lead: by Pod and port, to a port of 127.0.0.1.
type forwards map[string]map[int]int32

// kubelet is the part of a control-plane server's kubelet that Cluster API uses: port-forwarding to its static Pods.
type kubelet struct {
	port     int32
	forwards forwards
	server   *http.Server
	life     context.Context
	end      context.CancelFunc
	busy     sync.WaitGroup
}

// newKubelet serves with a certificate of the cluster's authority.
func newKubelet(ca *pki.CA, to forwards) (*kubelet, error) {
	serving, err := ca.Issue(pki.Request{CommonName: "kubelet", Server: true}.Loopback())
	if err != nil {
		return nil, err
	}
	certificate, err := tls.X509KeyPair(serving.CertPEM, serving.KeyPEM)
	if err != nil {
		return nil, err
	}
	var config net.ListenConfig // binding a socket never blocks, so there is nothing to cancel
	listener, err := config.Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	address, ok := listener.Addr().(*net.TCPAddr)
	if !ok {
		return nil, errors.Join(fmt.Errorf("the kubelet listens at %s", listener.Addr()), listener.Close())
	}
	k := &kubelet{port: int32(address.Port), forwards: to}
	k.life, k.end = context.WithCancel(context.Background())
	// Upgrades to SPDY need HTTP/1.1.
	secured := tls.NewListener(listener, &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}})
	k.server = &http.Server{Handler: http.HandlerFunc(k.serve), ReadHeaderTimeout: headerTimeout, ErrorLog: log.New(io.Discard, "", 0)}
	k.busy.Go(func() { _ = k.server.Serve(secured) })
	return k, nil
}

// close cuts all connections.
func (k *kubelet) close() error {
	k.end()
	err := k.server.Close()
	k.busy.Wait()
	return err
}

// serve answers /portForward/<namespace>/<pod>, with whatever the API server appends.
func (k *kubelet) serve(w http.ResponseWriter, r *http.Request) {
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	if len(parts) < 3 || parts[0] != "portForward" || parts[1] != kubeSystem || k.forwards[parts[2]] == nil {
		http.NotFound(w, r)
		return
	}
	if _, err := httpstream.Handshake(r, w, []string{portForwardProtocol}); err != nil {
		return // it has written the answer
	}
	session := &forwarding{kubelet: k, targets: k.forwards[parts[2]], complaints: map[string]httpstream.Stream{}}
	session.connection = spdy.NewResponseUpgrader().UpgradeResponse(w, r, session.opened)
	if session.connection == nil {
		return // as above
	}
	select {
	case <-session.connection.CloseChan():
	case <-k.life.Done():
	}
	_ = session.connection.Close()
}

// forwarding is one upgraded connection, with a pair of streams for each forwarded one: first where to complain, then data.
type forwarding struct {
	kubelet    *kubelet
	targets    map[int]int32
	connection httpstream.Connection

	mu         sync.Mutex
	complaints map[string]httpstream.Stream
}

func (f *forwarding) opened(stream httpstream.Stream, replied <-chan struct{}) error {
	request := stream.Headers().Get(corev1.PortForwardRequestIDHeader)
	f.mu.Lock()
	defer f.mu.Unlock()
	switch kind := stream.Headers().Get(corev1.StreamType); kind {
	case corev1.StreamTypeError:
		f.complaints[request] = stream
		return nil
	case corev1.StreamTypeData:
		port, err := strconv.Atoi(stream.Headers().Get(corev1.PortHeader))
		if err != nil {
			return fmt.Errorf("%s is no number", corev1.PortHeader)
		}
		complaint := f.complaints[request]
		delete(f.complaints, request)
		go func() {
			<-replied
			f.forward(stream, complaint, port)
		}()
		return nil
	default:
		return fmt.Errorf("%q is no stream type", kind)
	}
}

// forward copies both ways until the client closes its side, which it does with the connection at the latest.
func (f *forwarding) forward(stream, complaint httpstream.Stream, port int) {
	target, err := f.dial(port)
	if err != nil {
		if complaint != nil {
			_, _ = io.WriteString(complaint, err.Error())
			_ = complaint.Close()
		}
		_ = stream.Reset()
		return
	}
	var both sync.WaitGroup
	both.Go(func() {
		_, _ = io.Copy(target, stream)
		_ = target.Close()
	})
	both.Go(func() {
		_, _ = io.Copy(stream, target)
		if complaint != nil {
			_ = complaint.Close()
		}
		_ = stream.Close()
	})
	both.Wait()
}

func (f *forwarding) dial(port int) (net.Conn, error) {
	target, known := f.targets[port]
	if !known {
		return nil, fmt.Errorf("nothing listens on port %d of the Pod", port)
	}
	dialer := net.Dialer{Timeout: forwardDialTimeout}
	return dialer.DialContext(f.kubelet.life, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(int(target))))
}
