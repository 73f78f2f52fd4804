// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package troubles

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/url"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/demo"
)

// gate is a TCP relay in front of a server on loopback. While it is shut connections are cut as soon as they are made.
type gate struct {
	listener net.Listener
	target   string

	mu   sync.Mutex
	shut bool
	open map[net.Conn]bool
}

func newGate(target string) (*gate, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	g := &gate{listener: listener, target: target, open: map[net.Conn]bool{}}
	go g.serve()
	return g, nil
}

func (g *gate) serve() {
	for {
		from, err := g.listener.Accept()
		if err != nil {
			return // Closed.
		}
		go g.relay(from)
	}
}

func (g *gate) relay(from net.Conn) {
	defer g.drop(from)
	if !g.admit(from) {
		return
	}
	to, err := net.Dial("tcp", g.target)
	if err != nil {
		return
	}
	defer g.drop(to)
	if !g.admit(to) {
		return
	}
	var both sync.WaitGroup
	for _, way := range [][2]net.Conn{{from, to}, {to, from}} {
		both.Go(func() {
			// Whoever ends first ends the other.
			_, _ = io.Copy(way[0], way[1])
			g.drop(from)
			g.drop(to)
		})
	}
	both.Wait()
}

func (g *gate) admit(c net.Conn) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.shut {
		g.open[c] = true
	}
	return !g.shut
}

func (g *gate) drop(c net.Conn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.open, c)
	_ = c.Close() // Closing twice is harmless.
}

// set shuts or opens the gate.
func (g *gate) set(shut bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.shut = shut
	for c := range g.open {
		if shut {
			_ = c.Close()
		}
	}
}

func (g *gate) close() {
	g.set(true)
	_ = g.listener.Close()
}

// gateBeforeDPF lets the fabric wing reach the DPF management cluster through a gate only.
func gateBeforeDPF(ctx context.Context) (*gate, error) {
	secret := &corev1.Secret{}
	key := client.ObjectKey{Namespace: demo.FabricNamespace, Name: demo.KubeconfigSecret}
	if err := world.Operator.Get(ctx, key, secret); err != nil {
		return nil, err
	}
	config, err := clientcmd.Load(secret.Data["kubeconfig"])
	if err != nil {
		return nil, fmt.Errorf("kubeconfig of DPF: %w", err)
	}
	var g *gate
	for _, cluster := range config.Clusters {
		server, err := url.Parse(cluster.Server)
		if err != nil {
			return nil, err
		}
		if g, err = newGate(server.Host); err != nil {
			return nil, err
		}
		cluster.Server = "https://" + g.listener.Addr().String()
	}
	if secret.Data["kubeconfig"], err = clientcmd.Write(*config); err != nil {
		return nil, err
	}
	return g, world.Operator.Update(ctx, secret)
}
