// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package ovnlab_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"golang.org/x/sync/errgroup"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/ovnlab"
)

// TestFrames: what hosts of one tenant send each other arrives unchanged; a host of nobody, or of another tenant, hears nothing,
// until it is plugged into the tenant by mistake.
func TestFrames(t *testing.T) {
	atLevels(t, func(t *testing.T, level ovnlab.Level) {
		begun := time.Now()
		s := start(t, ovnlab.Options{Level: level}, 4)
		var memory uint64
		for _, p := range s.Processes() {
			memory += p.RSS
		}
		t.Logf("4 DPUs after %s: %d processes, %d MB", time.Since(begun).Round(time.Millisecond), len(s.Processes()), memory>>20)
		s.tenant("red", 1, 2)
		s.tenant("blue", 3)
		s.eventuallyArrives(1, 2)

		everybody := []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
		jumbo := append(s.probe(mac(1), mac(2)), make([]byte, 9000)...)
		sent := time.Now()
		for _, frame := range [][]byte{s.probe(mac(1), mac(2)), s.probe(mac(1), everybody), s.probe(mac(3), mac(2)), jumbo} {
			s.drain()
			s.Expect(s.Send(s.ctx, name(1), port, frame)).To(Succeed())
			s.Expect(s.heard(2, frame, soon)).To(BeTrue(), "%x", frame[:14])
			s.Expect(s.copies(frame, 1, 3, 4)).To(BeZero(), "neither strangers nor the sender hear it")
		}
		s.Expect(s.Send(s.ctx, name(1), port, make([]byte, 9217+18))).NotTo(Succeed())
		s.Expect(s.Send(s.ctx, name(1), "pf1hpf", jumbo)).NotTo(Succeed())

		// The control: the same frames are heard by another tenant's host as soon as somebody plugs it wrongly.
		s.nbctl("lsp-add", "red", "red-3", "--", "lsp-set-addresses", "red-3", hardware(3)+" 10.10.1.13")
		s.plug(3, "red-3")
		s.eventuallyArrives(1, 3)
		frame := s.probe(mac(1), everybody)
		s.drain()
		s.Expect(s.Send(s.ctx, name(1), port, frame)).To(Succeed())
		s.Expect(s.heard(3, frame, soon)).To(BeTrue())
		s.plug(3, "blue-3")
		s.nbctl("--wait=hv", "sync")
		s.Expect(s.arrives(1, 3, quiet)).To(BeFalse())

		frame = s.probe(mac(1), mac(2))
		s.Expect(s.Send(s.ctx, name(1), port, frame)).To(Succeed())
		s.Eventually(func() ([]ovnlab.Frame, error) { return s.Received(name(2), port) }).WithTimeout(soon).WithPolling(poll).Should(
			ContainElement(And(HaveField("Data", frame), HaveField("At", And(BeTemporally(">", sent), BeTemporally("<=", time.Now().Add(time.Second)))))))
	})
}

// drain throws away what has arrived anywhere.
func (s *site) drain() {
	for i := 1; i <= 4; i++ {
		_, err := s.Received(name(i), port)
		s.Expect(err).NotTo(HaveOccurred())
	}
}

// copies counts a frame's at hosts, after a while in which it would have come.
func (s *site) copies(frame []byte, at ...int) int {
	timer := time.NewTimer(quiet)
	defer timer.Stop()
	<-timer.C
	n := 0
	for _, i := range at {
		got, err := s.Received(name(i), port)
		s.Expect(err).NotTo(HaveOccurred())
		for _, f := range got {
			if bytes.Equal(f.Data, frame) {
				n++
			}
		}
	}
	return n
}

// TestUnplug: a host port that is off br-int passes nothing in either direction, loses no earlier frame, and comes back.
func TestUnplug(t *testing.T) {
	atLevels(t, func(t *testing.T, level ovnlab.Level) {
		s := start(t, ovnlab.Options{Level: level}, 2)
		s.tenant("red", 1, 2)
		s.eventuallyArrives(1, 2)
		last := s.probe(mac(1), mac(2))
		s.Expect(s.Send(s.ctx, name(1), port, last)).To(Succeed())
		s.Eventually(func() bool { return s.arrives(2, 1, quiet) }).WithTimeout(soon).Should(BeTrue())
		s.Expect(s.Unplug(s.ctx, name(2), port)).To(Succeed())
		s.Expect(s.Unplug(s.ctx, name(2), port)).To(Succeed())
		s.Eventually(s.up).WithArguments("red-2").WithTimeout(soon).WithPolling(poll).Should(BeFalse())
		s.Expect(s.arrives(2, 1, quiet)).To(BeFalse())
		s.Expect(s.Send(s.ctx, name(1), port, s.probe(mac(1), mac(2)))).To(Succeed())
		s.plug(2, "red-2")
		s.eventuallyArrives(2, 1)
		s.Expect(s.heard(2, last, soon)).To(BeTrue(), "a frame from before it was unplugged")
		s.eventuallyArrives(1, 2)
	})
}

// TestRestart: a DPU that lost its power passes nothing, stays registered, and comes back with what it had plugged. One that is
// removed is gone from OVN, and its name is free.
func TestRestart(t *testing.T) {
	atLevels(t, func(t *testing.T, level ovnlab.Level) {
		s := start(t, ovnlab.Options{Level: level}, 2)
		s.tenant("red", 1, 2)
		s.eventuallyArrives(1, 2)

		s.Expect(s.StopDPU(s.ctx, name(2))).To(Succeed())
		s.Expect(s.arrives(1, 2, quiet)).To(BeFalse())
		s.Expect(s.arrives(2, 1, quiet)).To(BeFalse())
		s.Expect(s.Plug(s.ctx, name(2), port, "red-2")).To(MatchError(ovnlab.ErrDown))
		s.Expect(s.chassis()).To(ConsistOf(name(1), name(2)))
		s.Expect(s.up("red-2")).To(BeTrue(), "nobody has noticed")
		s.Expect(s.StartDPU(s.ctx, name(2))).To(Succeed())
		s.eventuallyArrives(1, 2)
		s.eventuallyArrives(2, 1)

		s.Expect(s.StopDPU(s.ctx, name(2))).To(Succeed())
		s.Expect(s.RemoveDPU(s.ctx, name(2))).To(Succeed())
		s.Expect(s.chassis()).To(ConsistOf(name(1)))
		s.Expect(s.RemoveDPU(s.ctx, name(2))).NotTo(Succeed())
		s.Expect(s.AddDPU(s.ctx, name(2), ovnlab.HostPort{Name: port, MAC: mac(2)})).To(Succeed())
		s.Expect(s.AddDPU(s.ctx, name(2))).NotTo(Succeed())
		s.Expect(s.arrives(1, 2, quiet)).To(BeFalse())
		s.plug(2, "red-2")
		s.eventuallyArrives(1, 2)
	})
}

func (s *site) chassis() []string {
	return strings.Fields(s.sbctl("--bare", "--columns=name", "list", "chassis"))
}

// TestTLS: with TLS nothing is told to anybody without a certificate, and DPUs work as without.
func TestTLS(t *testing.T) {
	atLevels(t, func(t *testing.T, level ovnlab.Level) {
		s := start(t, ovnlab.Options{Level: level, TLS: true}, 2)
		s.Expect(s.Northbound()).To(HavePrefix("ssl:127.0.0.1:"))
		s.Expect(s.Southbound()).To(HavePrefix("ssl:127.0.0.1:"))
		_, err := s.tryNbctl("show")
		s.Expect(err).To(HaveOccurred())
		s.useTLS()
		s.tenant("red", 1, 2)
		s.eventuallyArrives(1, 2)
		s.Expect(s.RestartSouthbound(s.ctx)).To(Succeed())
		s.nbctl("--wait=hv", "sync")
	})
}

// TestNothingStays: after Close, and after a start that did not come to its end, there is no process, no namespace, no directory.
func TestNothingStays(t *testing.T) {
	for _, level := range []ovnlab.Level{ovnlab.Switches, ovnlab.Namespaces} {
		t.Run(level.String(), func(t *testing.T) {
			ovnlab.Require(t, level)
			nothingStays(t, level)
		})
	}
}

func nothingStays(t *testing.T, level ovnlab.Level) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	s := start(t, ovnlab.Options{Level: level}, 2)
	_, err := s.HangController(name(1))
	s.Expect(err).NotTo(HaveOccurred())
	_, err = s.HangNorthd()
	s.Expect(err).NotTo(HaveOccurred())
	processes := s.Processes()
	s.Expect(len(processes)).To(BeNumerically(">=", 9))
	begun := time.Now()
	s.Expect(s.Close(s.ctx)).To(Succeed())
	t.Logf("closed after %s", time.Since(begun).Round(time.Millisecond))
	s.Expect(s.Close(s.ctx)).To(Succeed())
	for _, p := range processes {
		s.Expect(fmt.Sprintf("/proc/%d", p.PID)).NotTo(BeADirectory())
	}
	s.expectNothing(dir)

	for wait := time.Millisecond; wait < 400*time.Millisecond; wait *= 3 {
		ctx, cancel := context.WithTimeout(s.ctx, wait)
		lab, err := ovnlab.Start(ctx, ovnlab.Options{Level: level})
		if err == nil {
			err = lab.AddDPU(ctx, name(1), ovnlab.Ports(port, "pf1hpf")...)
			s.Expect(lab.Close(s.ctx)).To(Succeed())
		}
		t.Logf("given up after %s: %.100v", wait, err)
		s.expectNothing(dir)
		cancel()
	}
}

// TestCloseWhileAdding: a lab that is closed while DPUs are being added leaves nothing either.
func TestCloseWhileAdding(t *testing.T) {
	for _, level := range []ovnlab.Level{ovnlab.Switches, ovnlab.Namespaces} {
		t.Run(level.String(), func(t *testing.T) {
			ovnlab.Require(t, level)
			dir := t.TempDir()
			t.Setenv("TMPDIR", dir)
			for wait := time.Millisecond; wait < 300*time.Millisecond; wait *= 3 {
				s := start(t, ovnlab.Options{Level: level}, 0)
				var group sync.WaitGroup
				for i := 1; i <= 3; i++ {
					group.Go(func() { _ = s.AddDPU(s.ctx, name(i), ovnlab.Ports(port)...) })
				}
				timer := time.NewTimer(wait)
				<-timer.C
				s.Expect(s.Close(s.ctx)).To(Succeed())
				group.Wait()
				s.Expect(s.AddDPU(s.ctx, name(4))).NotTo(Succeed())
				s.expectNothing(dir)
			}
		})
	}
}

func (s *site) expectNothing(dir string) {
	s.t.Helper()
	s.Expect(filepath.Glob(fmt.Sprintf("/run/netns/ovnlab%d-*", os.Getpid()))).To(BeEmpty())
	s.Expect(os.ReadDir(dir)).To(BeEmpty())
	children, err := exec.CommandContext(s.ctx, "ps", "--no-headers", "-o", "comm", "--ppid", fmt.Sprint(os.Getpid())).Output()
	s.Expect(err).NotTo(HaveOccurred())
	s.Expect(strings.Fields(string(children))).To(ConsistOf("ps"))
}

// TestLongTemporaryDirectory: unix sockets have short paths wherever temporary files and logs are.
func TestLongTemporaryDirectory(t *testing.T) {
	ovnlab.Require(t, ovnlab.Switches)
	dir := filepath.Join(t.TempDir(), strings.Repeat("long", 30))
	NewWithT(t).Expect(os.Mkdir(dir, 0o700)).To(Succeed())
	t.Setenv("TMPDIR", dir)
	s := start(t, ovnlab.Options{Level: ovnlab.Switches, Dir: dir}, 1)
	for _, p := range s.Processes() {
		s.Expect(p.Log).To(HavePrefix(dir))
		s.Expect(p.Log).To(BeAnExistingFile())
	}
}

// TestManyAtOnce: DPUs can be added and removed at the same time, and all of them reach each other.
func TestManyAtOnce(t *testing.T) {
	atLevels(t, func(t *testing.T, level ovnlab.Level) {
		const many = 6
		s := start(t, ovnlab.Options{Level: level}, 1)
		var group errgroup.Group
		begun := time.Now()
		for i := 2; i <= many; i++ {
			group.Go(func() error { return s.AddDPU(s.ctx, name(i), ovnlab.HostPort{Name: port, MAC: mac(i)}) })
		}
		group.Go(func() error { return s.RemoveDPU(s.ctx, name(1)) })
		s.Expect(group.Wait()).To(Succeed())
		t.Logf("%d DPUs after %s", many-1, time.Since(begun).Round(time.Millisecond))
		s.tenant("red", 2, 3, 4, 5, 6)
		for i := 2; i < many; i++ {
			s.eventuallyArrives(i, i+1)
			s.eventuallyArrives(many, i)
		}
	})
}

// TestAddDPUFails: a DPU that cannot be started leaves nothing behind, and the error quotes the log of who failed.
func TestAddDPUFails(t *testing.T) {
	atLevels(t, func(t *testing.T, level ovnlab.Level) {
		s := start(t, ovnlab.Options{Level: level, Dir: t.TempDir()}, 1)
		before := len(s.Processes())
		s.Expect(s.AddDPU(s.ctx, name(2), ovnlab.Ports(port, port)...)).NotTo(Succeed())
		s.Expect(s.AddDPU(s.ctx, name(2), ovnlab.Ports("br-int")...)).NotTo(Succeed())
		s.Expect(s.AddDPU(s.ctx, name(2), ovnlab.Ports("a-name-that-is-too-long")...)).NotTo(Succeed())
		s.Expect(s.chassis()).To(ConsistOf(name(1)))
		s.Expect(s.running()).To(Equal(before))
		s.Expect(s.AddDPU(s.ctx, name(2), ovnlab.Ports(port)...)).To(Succeed())
	})
}

func (s *site) running() int {
	n := 0
	for _, p := range s.Processes() {
		if p.RSS > 0 {
			n++
		}
	}
	return n
}

// TestSweep: namespaces of a process that died without closing its lab go with the next start.
func TestSweep(t *testing.T) {
	ovnlab.Require(t, ovnlab.Namespaces)
	g := NewWithT(t)
	dead := exec.CommandContext(t.Context(), "true")
	g.Expect(dead.Run()).To(Succeed())
	left := fmt.Sprintf("ovnlab%d-ovn1-net", dead.Process.Pid)
	g.Expect(exec.CommandContext(t.Context(), "ip", "netns", "add", left).Run()).To(Succeed())
	start(t, ovnlab.Options{Level: ovnlab.Namespaces}, 0)
	g.Expect("/run/netns/" + left).NotTo(BeAnExistingFile())
}
