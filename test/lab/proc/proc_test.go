// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package proc

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	. "github.com/onsi/gomega"
)

const (
	shell      = "/bin/sh"
	soon       = 10 * time.Second
	often      = 20 * time.Millisecond
	asOwner    = "PROC_TEST_OWNER_DIRECTORY"
	ownerChild = "child"
)

// TestMain lets the test binary play a lab's process that is killed.
func TestMain(m *testing.M) {
	if dir := os.Getenv(asOwner); dir != "" {
		beOwner(dir)
	}
	os.Exit(m.Run())
}

// beOwner supervises a child until it is killed.
func beOwner(dir string) {
	supervisor, err := NewSupervisor(dir, logr.Discard())
	if err == nil {
		var child *Process
		if child, err = supervisor.Start(context.Background(), Spec{Name: ownerChild, Path: shell, Args: []string{"-c", "sleep 300 & wait"}}); err == nil {
			_, _ = fmt.Fprintln(os.Stdout, child.PID())
			<-child.Done()
		}
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

func newSupervisor(t *testing.T) *Supervisor {
	t.Helper()
	supervisor, err := NewSupervisor(t.TempDir(), logr.Discard())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = supervisor.Stop(context.Background()) })
	return supervisor
}

func script(name, text string) Spec {
	return Spec{Name: name, Path: shell, Args: []string{"-c", text}}
}

func never(context.Context) error { return errors.New("not yet") }

func TestStartReportsAnEarlyExitWithTheLog(t *testing.T) {
	g := NewWithT(t)
	spec := script("broken", "echo the reason; exit 3")
	spec.Ready = never
	started := time.Now()
	_, err := newSupervisor(t).Start(t.Context(), spec)
	var exit *ExitError
	g.Expect(errors.As(err, &exit)).To(BeTrue(), "%v", err)
	g.Expect(err).To(MatchError(And(ContainSubstring("the reason"), ContainSubstring("exit status 3"))))
	g.Expect(errors.Is(err, ErrAddressInUse)).To(BeFalse())
	g.Expect(time.Since(started)).To(BeNumerically("<", soon), "it must not wait for the time-out")
}

func TestAnUnexpectedEndIsSaid(t *testing.T) {
	g := NewWithT(t)
	said := make(chan string, 1)
	log := funcr.New(func(_, text string) { said <- text }, funcr.Options{})
	supervisor, err := NewSupervisor(t.TempDir(), log)
	g.Expect(err).NotTo(HaveOccurred())
	t.Cleanup(func() { _ = supervisor.Stop(context.Background()) })
	_, err = supervisor.Start(t.Context(), script("dies", "exit 4"))
	g.Expect(err).NotTo(HaveOccurred())
	g.Eventually(said, soon).Should(Receive(And(ContainSubstring("dies"), ContainSubstring("exit status 4"))))

	stopped, err := supervisor.Start(t.Context(), script("stopped", "exec sleep 300"))
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(stopped.Stop(t.Context())).To(Succeed())
	g.Consistently(said, 5*often, often).ShouldNot(Receive(), "a wanted end is no news")
}

func TestStartTellsAPortCollision(t *testing.T) {
	g := NewWithT(t)
	spec := script("collision", "echo 'listen tcp 127.0.0.1:1: bind: address already in use' >&2; exit 1")
	spec.Ready = never
	_, err := newSupervisor(t).Start(t.Context(), spec)
	g.Expect(errors.Is(err, ErrAddressInUse)).To(BeTrue(), "%v", err)
}

func TestStartStopsWhatDoesNotBecomeReady(t *testing.T) {
	g := NewWithT(t)
	supervisor := newSupervisor(t)
	spec := script("slow", "echo waiting; exec sleep 300")
	spec.Ready, spec.ReadyTimeout = never, 100*time.Millisecond
	_, err := supervisor.Start(t.Context(), spec)
	g.Expect(err).To(MatchError(And(ContainSubstring("not ready"), ContainSubstring("not yet"))))
	g.Expect(supervisor.Processes()).To(HaveEach(HaveField("Running()", false)))
	g.Expect(Living(supervisor.dir)).To(ConsistOf(ownerName))
}

func TestStopEndsHigherTiersFirstAndKillsTheStubborn(t *testing.T) {
	g := NewWithT(t)
	supervisor := newSupervisor(t)
	order := filepath.Join(t.TempDir(), "order")
	trap := func(name string) string {
		return fmt.Sprintf("trap 'echo %s >> %s; exit 0' TERM; touch %s.%s; while :; do sleep 0.05; done", name, order, order, name)
	}
	for tier, name := range []string{"store", "server"} {
		spec := script(name, trap(name))
		spec.Tier = tier
		spec.Ready = func(context.Context) error { _, err := os.Stat(order + "." + name); return err }
		_, err := supervisor.Start(t.Context(), spec)
		g.Expect(err).NotTo(HaveOccurred())
	}
	stubborn := script("stubborn", "trap '' TERM; touch "+order+".stubborn; while :; do sleep 0.05; done")
	stubborn.StopTimeout = 100 * time.Millisecond
	stubborn.Ready = func(context.Context) error { _, err := os.Stat(order + ".stubborn"); return err }
	_, err := supervisor.Start(t.Context(), stubborn)
	g.Expect(err).NotTo(HaveOccurred())

	g.Expect(supervisor.Stop(t.Context())).To(Succeed())
	g.Expect(os.ReadFile(order)).To(BeEquivalentTo("server\nstore\n"))
	g.Expect(supervisor.Processes()).To(HaveLen(3))
	g.Expect(supervisor.Processes()).To(HaveEach(HaveField("Running()", false)))
	_, err = supervisor.Start(t.Context(), script("late", "exec sleep 300"))
	g.Expect(err).To(MatchError(ErrStopping))
}

func TestADirectoryHasOneLivingOwner(t *testing.T) {
	g := NewWithT(t)
	supervisor := newSupervisor(t)
	_, err := NewSupervisor(supervisor.dir, logr.Discard())
	g.Expect(err).To(MatchError(ContainSubstring("in use")))
	g.Expect(supervisor.Stop(t.Context())).To(Succeed())
	again, err := NewSupervisor(supervisor.dir, logr.Discard())
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(again.Stop(t.Context())).To(Succeed())
}

// startOwner runs the test binary as a lab's process and returns it with its child's number.
func startOwner(t *testing.T, dir string) (*exec.Cmd, int) {
	t.Helper()
	owner := exec.Command(os.Args[0])
	owner.Env = append(os.Environ(), asOwner+"="+dir)
	output, err := owner.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := owner.Start(); err != nil {
		t.Fatal(err)
	}
	reaped := make(chan struct{}) // an ended owner must not stay as a zombie
	t.Cleanup(func() { _ = owner.Process.Kill(); <-reaped })
	line, err := bufio.NewReader(output).ReadString('\n')
	go func() { _ = owner.Wait(); close(reaped) }()
	if err != nil {
		t.Fatal(err)
	}
	var child int
	if _, err := fmt.Sscan(line, &child); err != nil {
		t.Fatal(err)
	}
	return owner, child
}

func gone(pid int) func() bool {
	return func() bool { _, err := startTime(pid); return err != nil }
}

func TestChildrenDieWithAKilledOwner(t *testing.T) {
	g := NewWithT(t)
	owner, child := startOwner(t, t.TempDir())
	g.Expect(gone(child)()).To(BeFalse())
	g.Expect(owner.Process.Kill()).To(Succeed())
	g.Eventually(gone(child), soon, often).Should(BeTrue())
}

func TestCleanupEndsOwnerAndChildrenButNoStranger(t *testing.T) {
	g := NewWithT(t)
	dir := t.TempDir()
	_, child := startOwner(t, dir)
	// A record whose number now belongs to somebody else: this test.
	stranger := record{Name: "stranger", PID: os.Getppid(), StartTime: 1, BootID: "another boot"}
	_, err := stranger.write(dir)
	g.Expect(err).NotTo(HaveOccurred())

	ended, err := Cleanup(t.Context(), dir)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(ended).To(ContainElement(ownerName))
	g.Expect(ended).NotTo(ContainElement("stranger"))
	g.Eventually(gone(child), soon, often).Should(BeTrue())
	g.Expect(gone(os.Getppid())()).To(BeFalse())
	g.Expect(Living(dir)).To(BeEmpty())
	g.Expect(Cleanup(t.Context(), dir)).To(BeEmpty())
}

func TestFreePort(t *testing.T) {
	g := NewWithT(t)
	ports, err := FreePorts(20)
	g.Expect(err).NotTo(HaveOccurred())
	seen := map[int32]bool{}
	for _, port := range ports {
		g.Expect(seen[port]).To(BeFalse())
		seen[port] = true
		listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(bindable(port)).To(BeFalse())
		g.Expect(listener.Close()).To(Succeed())
	}
}
