// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package fabricwatch_test

import (
	"context"
	"io"
	"net"
	"strings"
	"sync"
)

// line is the way of the wing to an API server. Cut, it is what a server looks like that is being started again.
type line struct {
	address, target string

	mu       sync.Mutex
	listener net.Listener
	open     map[net.Conn]bool
	running  sync.WaitGroup
}

func newLine(target string) (*line, error) {
	l := &line{address: "127.0.0.1:0", target: target, open: map[net.Conn]bool{}}
	return l, l.mend()
}

// through has a kubeconfig lead through the line.
func (l *line) through(kubeconfig []byte) []byte {
	return []byte(strings.ReplaceAll(string(kubeconfig), l.target, l.address))
}

// cut ends all connections and refuses new ones.
func (l *line) cut() error {
	l.mu.Lock()
	err := l.listener.Close()
	for conn := range l.open {
		_ = conn.Close()
	}
	l.mu.Unlock()
	l.running.Wait()
	return err
}

// mend lets connections in again, at the same address.
func (l *line) mend() error {
	listener, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", l.address)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.listener, l.address = listener, listener.Addr().String()
	l.running.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			l.running.Go(func() { l.carry(conn) })
		}
	})
	return nil
}

func (l *line) carry(near net.Conn) {
	far, err := (&net.Dialer{}).DialContext(context.Background(), "tcp", l.target)
	if err != nil {
		_ = near.Close()
		return
	}
	l.mu.Lock()
	l.open[near], l.open[far] = true, true
	l.mu.Unlock()
	var both sync.WaitGroup
	for _, way := range [][2]net.Conn{{near, far}, {far, near}} {
		both.Go(func() {
			_, _ = io.Copy(way[0], way[1])
			_ = near.Close()
			_ = far.Close()
		})
	}
	both.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.open, near)
	delete(l.open, far)
}
