// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package scope

import (
	"context"
	"encoding/json"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/vpc"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/vpc/ovn"
)

// ovnServer is both databases, without rows. Questions wait while it is held.
type ovnServer struct {
	address string

	mu    sync.Mutex
	held  chan struct{}
	asked []string
	conns int
	value int
	// ports are rows of Port_Binding; where there are some, the southbound database is not held.
	ports string
}

func newOVNServer(t *testing.T) *ovnServer {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	s := &ovnServer{address: listener.Addr().String()}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go s.serve(conn)
		}
	}()
	return s
}

func (s *ovnServer) serve(conn net.Conn) {
	s.count(1)
	defer s.count(-1)
	defer func() { _ = conn.Close() }()
	decoder := json.NewDecoder(conn)
	for {
		var asked struct {
			Method string            `json:"method"`
			Params []json.RawMessage `json:"params"`
			ID     json.RawMessage   `json:"id"`
		}
		if decoder.Decode(&asked) != nil {
			return
		}
		if _, err := conn.Write([]byte(`{"result":` + s.answer(asked.Method, asked.Params) + `,"error":null,"id":` + string(asked.ID) + `}`)); err != nil {
			return
		}
	}
}

func (s *ovnServer) answer(method string, params []json.RawMessage) string {
	switch method {
	case "list_dbs":
		return `["OVN_Southbound","OVN_Northbound"]`
	case "get_schema":
		return `{"tables":{"Port_Binding":{"columns":{"logical_port":1,"type":1,"chassis":1}},"Chassis":{"columns":{"name":1}},
			"Logical_Switch_Port":{"columns":{"name":1,"dynamic_addresses":1}}}}`
	case "echo":
		return `[]`
	}
	raising := strings.Contains(string(params[1]), "mutate")
	kind := "read"
	if raising {
		kind = "raise"
	} else if strings.Contains(string(params[1]), "Logical_Switch_Port") {
		kind = "addresses"
	}
	s.mu.Lock()
	s.asked = append(s.asked, kind)
	held, ports := s.held, s.ports
	s.mu.Unlock()
	if held != nil && (kind != "read" || ports == "") {
		<-held
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch kind {
	case "addresses":
		return `[{"rows":[{"name":"p","dynamic_addresses":"02:aa:00:00:00:01 10.64.0.5"}]}]`
	case "read":
		return `[{"rows":[` + ports + `]},{"rows":[{"_uuid":["uuid","c"],"name":"dpu1"}]}]`
	}
	s.value++
	return `[{"count":1},{"rows":[{"nb_cfg":` + string(rune('0'+s.value)) + `}]}]`
}

func (s *ovnServer) count(by int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conns += by
}

func (s *ovnServer) connections() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.conns
}

// hold keeps answers back.
func (s *ovnServer) hold() (release func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	held := make(chan struct{})
	s.held = held
	return sync.OnceFunc(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.held = nil
		close(held)
	})
}

func (s *ovnServer) questions(kind string) func() int {
	return func() int {
		s.mu.Lock()
		defer s.mu.Unlock()
		n := 0
		for _, asked := range s.asked {
			if asked == kind {
				n++
			}
		}
		return n
	}
}

func ovnFabric(uid, endpoint string, change func(*infrav1.OVNEndpoints)) *infrav1.DPUFabric {
	object := &infrav1.DPUFabric{ObjectMeta: metav1.ObjectMeta{Name: "f", UID: types.UID(uid)}}
	object.Spec.Backend.OVNVPC = &infrav1.OVNVPCBackend{OVN: &infrav1.OVNEndpoints{Southbound: endpoint, Northbound: endpoint}}
	if change != nil {
		change(object.Spec.Backend.OVNVPC.OVN)
	}
	return object
}

// ovnOf is what a pass gets.
func ovnOf(f *fabrics, object *infrav1.DPUFabric) OVNDatabases {
	databases, _ := f.ovn(object, f.remember(object))
	return databases
}

func ovnFabrics(t *testing.T) *fabrics {
	f, _ := bmcScene(t, func(*infrav1.DPUFabric) {})
	t.Cleanup(func() { f.forget("f") })
	return f
}

// TestOVNReadingIsShared: all who wait when a reading starts get that one, and who asks later gets one that started later.
func TestOVNReadingIsShared(t *testing.T) {
	g := NewWithT(t)
	server, f := newOVNServer(t), ovnFabrics(t)
	var calls []OVNCall
	f.options.ObserveOVN = func(call OVNCall) { calls = append(calls, call) }
	object := ovnFabric("1", "tcp:"+server.address, nil)
	release := server.hold()
	defer release()
	read := func(into chan<- vpc.OVN) {
		notBefore := time.Now()
		go func() { into <- ovnOf(f, object).Reading(context.WithoutCancel(t.Context()), notBefore) }()
	}
	first, later := make(chan vpc.OVN, 1), make(chan vpc.OVN, 5)
	read(first)
	g.Eventually(server.questions("read")).Should(Equal(1))
	for range 5 {
		read(later)
	}
	asked := time.Now()
	release()
	reading := <-first
	g.Expect(reading.Err).NotTo(HaveOccurred())
	g.Expect(reading.Chassis).To(Equal([]vpc.Chassis{{Name: "dpu1"}}))
	for range 5 {
		second := <-later
		g.Expect(second.Err).NotTo(HaveOccurred())
		g.Expect(second.Started).To(BeTemporally(">", reading.Started))
	}
	g.Expect(server.questions("read")()).To(BeNumerically("<=", 6))
	old := ovnOf(f, object).Reading(t.Context(), asked.Add(-time.Hour))
	g.Expect(old.Err).NotTo(HaveOccurred())
	g.Expect(server.connections()).To(Equal(1))
	g.Expect(calls[0].Fabric).To(Equal("f"))
	g.Expect(calls[0].Operation).To(Equal("Read"))
}

// TestOVNAddresses: the addresses that northd chose are added, and readings are as good without them.
func TestOVNAddresses(t *testing.T) {
	g := NewWithT(t)
	server, f := newOVNServer(t), ovnFabrics(t)
	server.ports = `{"logical_port":"p"}`
	f.options.OVNTimeout = 300 * time.Millisecond
	object := ovnFabric("1", "tcp:"+server.address, nil)
	reading := ovnOf(f, object).Reading(t.Context(), time.Now())
	g.Expect(reading.Err).NotTo(HaveOccurred())
	g.Expect(reading.Bindings[0].Addresses).To(Equal([]netip.Addr{netip.MustParseAddr("10.64.0.5")}))
	release := server.hold()
	defer release()
	for range 20 {
		reading = ovnOf(f, object).Reading(t.Context(), time.Now())
		g.Expect(reading.Err).NotTo(HaveOccurred())
		g.Expect(reading.Bindings[0].Addresses).To(BeEmpty())
	}
	g.Expect(server.questions("addresses")()).To(Equal(2))
}

// TestOVNRaiseIsShared: an increment that was sent serves nobody who asks later; all who do share the next.
func TestOVNRaiseIsShared(t *testing.T) {
	g := NewWithT(t)
	server, f := newOVNServer(t), ovnFabrics(t)
	object := ovnFabric("1", "tcp:"+server.address, nil)
	release := server.hold()
	defer release()
	raise := func(into chan<- int64) {
		go func() {
			value, err := ovnOf(f, object).Raise(context.WithoutCancel(t.Context()))
			if err == nil {
				into <- value
			}
		}()
	}
	first, later := make(chan int64, 1), make(chan int64, 5)
	raise(first)
	g.Eventually(server.questions("raise")).Should(Equal(1))
	memory := f.remember(object)
	for range 5 {
		raise(later)
	}
	g.Eventually(func() bool { memory.ovn.mu.Lock(); defer memory.ovn.mu.Unlock(); return memory.ovn.next != nil }).Should(BeTrue())
	release()
	g.Eventually(first).Should(Receive(Equal(int64(1))))
	for range 5 {
		g.Eventually(later).Should(Receive(BeNumerically(">=", 2)))
	}
	g.Expect(server.questions("raise")()).To(BeNumerically("<=", 4))
	g.Expect(server.questions("raise")()).To(BeNumerically(">=", 2))
}

// TestOVNHangs: a database that hangs is asked one thing at a time, and its failure is repeated at once to all others for a while.
func TestOVNHangs(t *testing.T) {
	g := NewWithT(t)
	server, f := newOVNServer(t), ovnFabrics(t)
	f.options.OVNTimeout = 300 * time.Millisecond
	object := ovnFabric("1", "tcp:"+server.address, nil)
	release := server.hold()
	defer release()
	reading := ovnOf(f, object).Reading(t.Context(), time.Now())
	g.Expect(ovn.KindOf(reading.Err)).To(Equal(ovn.Unreachable))
	began := time.Now()
	for range 100 {
		repeated := ovnOf(f, object).Reading(t.Context(), time.Now())
		g.Expect(repeated.Err).To(MatchError(reading.Err))
	}
	g.Expect(time.Since(began)).To(BeNumerically("<", 250*time.Millisecond))
	g.Expect(server.questions("read")()).To(Equal(1))
	_, err := ovnOf(f, object).Raise(t.Context())
	g.Expect(ovn.KindOf(err)).To(Equal(ovn.Unreachable))
	_, err = ovnOf(f, object).Raise(t.Context())
	g.Expect(err).To(HaveOccurred())
	g.Expect(server.questions("raise")()).To(Equal(1))
	_, probe := f.ovn(object, f.remember(object))
	g.Expect(probe(t.Context())).To(And(HaveKeyWithValue(ovn.Southbound, HaveOccurred()), HaveKeyWithValue(ovn.Northbound, HaveOccurred())))
}

// TestOVNFailureIsForgotten: once a failure is old, one asker finds out while the others are told of it.
func TestOVNFailureIsForgotten(t *testing.T) {
	g := NewWithT(t)
	server, f := newOVNServer(t), ovnFabrics(t)
	f.options.OVNTimeout = 300 * time.Millisecond
	object := ovnFabric("1", "tcp:"+server.address, nil)
	release := server.hold()
	g.Expect(ovnOf(f, object).Reading(t.Context(), time.Now()).Err).To(HaveOccurred())
	memory := &f.remember(object).ovn.lastRead
	memory.mu.Lock()
	memory.at = memory.at.Add(-failureMemory)
	memory.mu.Unlock()
	trying, err := memory.enter()
	g.Expect(trying).To(BeTrue())
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(ovnOf(f, object).Reading(t.Context(), time.Now()).Err).To(HaveOccurred())
	g.Expect(server.questions("read")()).To(Equal(1))
	memory.leave(trying)
	release()
	g.Expect(ovnOf(f, object).Reading(t.Context(), time.Now()).Err).NotTo(HaveOccurred())
	g.Expect(memory.err).NotTo(HaveOccurred())
}

// TestOVNClientsFollowTheFabric: other endpoints, another Secret or another fabric of the same name make a new client, and the old
// one ends; so does the last when the fabric goes or names no databases any more.
func TestOVNClientsFollowTheFabric(t *testing.T) {
	g := NewWithT(t)
	one, two := newOVNServer(t), newOVNServer(t)
	f := ovnFabrics(t)
	read := func(object *infrav1.DPUFabric) {
		t.Helper()
		g.Expect(ovnOf(f, object).Reading(t.Context(), time.Now()).Err).NotTo(HaveOccurred())
	}
	read(ovnFabric("1", "tcp:"+one.address, nil))
	read(ovnFabric("1", "tcp:"+two.address, nil))
	g.Eventually(one.connections).Should(BeZero())
	g.Expect(two.connections()).To(Equal(1))
	read(ovnFabric("1", "tcp:"+one.address, nil))
	g.Eventually(two.connections).Should(BeZero())
	read(ovnFabric("2", "tcp:"+two.address, nil))
	g.Eventually(one.connections).Should(BeZero())

	without := ovnFabric("2", "", nil)
	without.Spec.Backend.OVNVPC.OVN = nil
	g.Expect(ovnOf(f, without)).To(BeNil())
	g.Eventually(two.connections).Should(BeZero())

	last := ovnFabric("2", "tcp:"+one.address, nil)
	read(last)
	late, _ := f.ovn(last, f.remember(last))
	f.forget("f")
	g.Eventually(one.connections).Should(BeZero())
	g.Expect(late.Reading(t.Context(), time.Now()).Err).To(HaveOccurred())
}

// TestOVNSecret: what lacks is named, with what to write, and a renewed Secret makes a new client.
func TestOVNSecret(t *testing.T) {
	for _, tt := range []struct {
		name   string
		data   map[string][]byte
		reason string
		says   string
	}{
		{"none", nil, infrav1.SecretNotFoundReason, "wing/tls"},
		{"no certificate", map[string][]byte{"tls.key": []byte("hunter2"), "ca.crt": []byte("c")}, infrav1.SecretInvalidReason, "no key tls.crt"},
		{"no key", map[string][]byte{"tls.crt": []byte("hunter2"), "ca.crt": []byte("c")}, infrav1.SecretInvalidReason, "no key tls.key"},
		{"no CA", map[string][]byte{"tls.crt": []byte("a"), "tls.key": []byte("hunter2")}, infrav1.SecretInvalidReason, "no key ca.crt"},
		{"nonsense", map[string][]byte{"tls.crt": []byte("a"), "tls.key": []byte("hunter2"), "ca.crt": []byte("c")}, infrav1.SecretInvalidReason, "is not usable"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := NewWithT(t)
			f, c := bmcScene(t, func(*infrav1.DPUFabric) {})
			if tt.data != nil {
				g.Expect(c.Create(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "wing", Name: "tls"}, Data: tt.data})).To(Succeed())
			}
			object := ovnFabric("1", "ssl:127.0.0.1:1", func(e *infrav1.OVNEndpoints) { e.TLSSecretRef = &infrav1.LocalSecretReference{Name: "tls"} })
			err := ovnOf(f, object).Reading(t.Context(), time.Now()).Err
			unusable, ok := AsUnusable(err)
			g.Expect(ok).To(BeTrue(), "%v", err)
			g.Expect(unusable.Reason).To(Equal(tt.reason))
			g.Expect(err.Error()).To(And(ContainSubstring(tt.says), Not(ContainSubstring("hunter2"))))
		})
	}
	t.Run("renewed", func(t *testing.T) {
		g := NewWithT(t)
		server := newOVNServer(t)
		f, c := bmcScene(t, func(*infrav1.DPUFabric) {})
		secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "wing", Name: "tls"}, Data: map[string][]byte{"tls.crt": []byte("a"), "tls.key": []byte("b"), "ca.crt": []byte("c")}}
		g.Expect(c.Create(t.Context(), secret)).To(Succeed())
		object := ovnFabric("1", "tcp:"+server.address, func(e *infrav1.OVNEndpoints) { e.TLSSecretRef = &infrav1.LocalSecretReference{Name: "tls"} })
		memory := f.remember(object)
		g.Expect(ovnOf(f, object).Reading(t.Context(), time.Now()).Err).NotTo(HaveOccurred())
		before := memory.ovn
		g.Expect(ovnOf(f, object).Reading(t.Context(), time.Now()).Err).NotTo(HaveOccurred())
		g.Expect(memory.ovn).To(BeIdenticalTo(before))
		secret.Data["tls.crt"] = []byte("next")
		g.Expect(c.Update(t.Context(), secret)).To(Succeed())
		g.Expect(ovnOf(f, object).Reading(t.Context(), time.Now()).Err).NotTo(HaveOccurred())
		g.Expect(memory.ovn).NotTo(BeIdenticalTo(before))
		g.Eventually(server.connections).Should(Equal(1))
		f.forget("f")
	})
}
