// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package ovnlab_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/ovnlab"
)

const (
	soon = time.Minute
	poll = 10 * time.Millisecond
	// quiet is how long nothing must arrive: hundreds of times what a frame takes.
	quiet = 300 * time.Millisecond
	port  = "pf0hpf"
)

// site is a lab with a few DPUs named dpu1, dpu2, ...
type site struct {
	*ovnlab.Lab
	t testing.TB
	WithT
	ctx  context.Context
	sent uint32
	// flags are what OVN's command line tools need to connect.
	flags []string
}

// atLevels runs the test once per level that sends frames, all at the same time: most of a test is waiting.
func atLevels(t *testing.T, test func(t *testing.T, level ovnlab.Level)) {
	for _, level := range []ovnlab.Level{ovnlab.Switches, ovnlab.Namespaces} {
		t.Run(level.String(), func(t *testing.T) {
			ovnlab.Require(t, level)
			t.Parallel()
			test(t, level)
		})
	}
}

func start(t *testing.T, options ovnlab.Options, dpus int) *site {
	t.Helper()
	s := &site{t: t, WithT: *NewWithT(t)}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	s.ctx = ctx
	lab, err := ovnlab.Start(ctx, options)
	s.Expect(err).NotTo(HaveOccurred())
	t.Cleanup(func() { s.Expect(lab.Close(context.WithoutCancel(ctx))).To(Succeed()) })
	s.Lab = lab
	for i := range dpus {
		s.Expect(lab.AddDPU(ctx, name(i+1), ovnlab.HostPort{Name: port, MAC: mac(i + 1)})).To(Succeed())
	}
	return s
}

func name(i int) string { return fmt.Sprintf("dpu%d", i) }
func mac(i int) []byte  { return []byte{2, 0xaa, 0, 0, 1, byte(i)} }

// tenant is a logical switch with a port per DPU, named after it, plugged.
func (s *site) tenant(name string, dpus ...int) {
	s.t.Helper()
	args := []string{"ls-add", name}
	for _, i := range dpus {
		args = append(args, "--", "lsp-add", name, lsp(name, i), "--", "lsp-set-addresses", lsp(name, i), fmt.Sprintf("%s 10.10.1.%d", hardware(i), 10+i))
	}
	s.nbctl(args...)
	for _, i := range dpus {
		s.plug(i, lsp(name, i))
	}
	for _, i := range dpus {
		s.Eventually(s.up).WithArguments(lsp(name, i)).WithTimeout(soon).WithPolling(poll).Should(BeTrue())
	}
	s.nbctl("--wait=hv", "sync")
}

func lsp(tenant string, i int) string { return fmt.Sprintf("%s-%d", tenant, i) }
func hardware(i int) string {
	m := mac(i)
	return fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3], m[4], m[5])
}

func (s *site) plug(i int, ifaceID string) {
	s.t.Helper()
	s.Expect(s.Plug(s.ctx, name(i), port, ifaceID)).To(Succeed())
}

func (s *site) nbctl(args ...string) { s.t.Helper(); s.nbctlOutput(args...) }

func (s *site) nbctlOutput(args ...string) string {
	s.t.Helper()
	output, err := s.tryNbctl(args...)
	s.Expect(err).NotTo(HaveOccurred())
	return output
}

func (s *site) tryNbctl(args ...string) (string, error) {
	output, err := exec.CommandContext(s.ctx, "ovn-nbctl", append(append([]string{"--db=" + s.Northbound(), "--timeout=15"}, s.flags...), args...)...).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("ovn-nbctl %v: %w: %s", args, err, output)
	}
	return strings.TrimSpace(string(output)), err
}

func (s *site) sbctl(args ...string) string {
	s.t.Helper()
	output, err := exec.CommandContext(s.ctx, "ovn-sbctl", append(append([]string{"--db=" + s.Southbound(), "--timeout=15"}, s.flags...), args...)...).CombinedOutput()
	s.Expect(err).NotTo(HaveOccurred(), "ovn-sbctl %v: %s", args, output)
	return strings.TrimSpace(string(output))
}

func (s *site) up(lsp string) bool {
	return s.sbctl("--bare", "--columns=up", "find", "port_binding", "logical_port="+lsp) == "true"
}

// probe is a frame from one DPU's host to another's that nothing else looks like.
func (s *site) probe(from []byte, to []byte) []byte {
	s.sent++
	frame := append(append(append([]byte(nil), to...), from...), 0x88, 0xb5)
	frame = append(frame, "ovnlab probe "...)
	return append(binary.BigEndian.AppendUint32(frame, s.sent), make([]byte, 46)...)
}

// arrives sends a fresh frame and says whether it came out at the other side within a time.
func (s *site) arrives(from, to int, within time.Duration) bool {
	s.t.Helper()
	frame := s.probe(mac(from), mac(to))
	s.Expect(s.Send(s.ctx, name(from), port, frame)).To(Succeed())
	return s.heard(to, frame, within)
}

// heard waits for a frame at a host and throws away all others.
func (s *site) heard(at int, frame []byte, within time.Duration) bool {
	s.t.Helper()
	deadline, ticker := time.NewTimer(within), time.NewTicker(2*time.Millisecond)
	defer deadline.Stop()
	defer ticker.Stop()
	for {
		got, err := s.Received(name(at), port)
		s.Expect(err).NotTo(HaveOccurred())
		for _, f := range got {
			if bytes.Equal(f.Data, frame) {
				return true
			}
		}
		select {
		case <-ticker.C:
		case <-deadline.C:
			return false
		}
	}
}

// eventuallyArrives resends until one arrives: a change is effective a few milliseconds after it is done.
func (s *site) eventuallyArrives(from, to int) {
	s.t.Helper()
	s.Eventually(func() bool { return s.arrives(from, to, 50*time.Millisecond) }).WithTimeout(soon).WithPolling(poll).Should(BeTrue())
}

// useTLS gives the command line tools the lab's certificates.
func (s *site) useTLS() {
	s.t.Helper()
	dir := s.t.TempDir()
	for name, content := range map[string][]byte{"private-key": s.TLS().Key, "certificate": s.TLS().Certificate, "ca-cert": s.TLS().CA} {
		file := filepath.Join(dir, name)
		s.Expect(os.WriteFile(file, content, 0o600)).To(Succeed())
		s.flags = append(s.flags, "--"+name+"="+file)
	}
}
