// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

// Demo runs the provider's main job in the lab, or keeps a lab up for development.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"k8s.io/klog/v2"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/demo"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/lab"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/ovnlab"
)

// stopTimeout bounds the way down after Ctrl-C.
const stopTimeout = time.Minute

type flags struct {
	keep, up, down, run, background bool
	crds, ovn                       string
}

func main() {
	var f flags
	flag.BoolVar(&f.keep, "keep", false, "leave the lab up after the run")
	flag.BoolVar(&f.up, "up", false, "start the lab without tenants and leave it up")
	flag.BoolVar(&f.down, "down", false, "stop the lab that was left up")
	flag.BoolVar(&f.run, "run", false, "replace the provider of the lab that is up by the binary as it is now")
	flag.StringVar(&f.crds, "dpf-crds", "", "folder of upstream's DPF CRDs; empty means the project's own minimal ones")
	flag.StringVar(&f.ovn, "ovn", "best", "level of OVN under DPF: stand-in, switches, namespaces, or the best this machine can do")
	flag.BoolVar(&f.background, "background", false, "for the command itself: be the process that stays")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := dispatch(ctx, f)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "\ndemo:", err)
		os.Exit(1)
	}
}

func dispatch(ctx context.Context, f flags) error {
	repo, err := findRepo()
	if err != nil {
		return err
	}
	stay := daemon{dir: filepath.Join(repo, "out")}
	labDir := filepath.Join(repo, ".lab")
	switch {
	case f.down:
		return errors.Join(stay.stop(ctx), cleanup(ctx, labDir))
	case f.run:
		return stay.reinstall()
	case (f.keep || f.up) && !f.background:
		return stay.start(ctx, os.Args[1:])
	}
	err = play(ctx, f, repo, labDir, stay)
	if f.background {
		stay.finished(err)
	}
	return err
}

// play runs what the flags ask for and stops everything, whatever happened.
func play(ctx context.Context, f flags, repo, labDir string, stay daemon) (err error) {
	logFile, err := openLog(repo)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, logFile.Close()) }()
	setLoggers(logFile)

	level, err := ovnlab.ParseLevel(f.ovn)
	if err != nil {
		return err
	}
	started := time.Now()
	fmt.Println("── the lab starts: API servers, Cluster API, simulators of MAAS and DPF, both wings of the provider")
	world, err := demo.Up(ctx, demo.Options{Repo: repo, Dir: labDir, GoodServers: demo.Full.GoodServers, CRDDir: f.crds, Posture: infrav1.PostureEnforce, OVN: &level, Log: klog.Background()})
	if err != nil {
		return err
	}
	defer func() {
		fmt.Println("── the lab stops")
		stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
		defer cancel()
		err = errors.Join(err, world.Down(stopping))
	}()
	world.SayOVN(os.Stdout)
	fmt.Printf("  up in %s\n", time.Since(started).Round(100*time.Millisecond))
	if !f.up {
		if err := run(ctx, world, os.Stdout); err != nil {
			return err
		}
	}
	if f.background {
		usage(world)
		return stay.serve(ctx, func() error { return world.InstallProvider(ctx) })
	}
	return nil
}

func run(ctx context.Context, world *demo.World, out io.Writer) error {
	r := &demo.Run{World: world, Scenario: demo.Full, Out: out}
	playErr := r.Play(ctx)
	if err := r.Report(out); err != nil {
		return errors.Join(playErr, err)
	}
	fmt.Fprintln(out, "\n── verdict")
	fmt.Fprintln(out, r.Verdict)
	if playErr != nil && ctx.Err() == nil {
		fmt.Fprintln(out, "  logs of every process are in", world.Lab.Dir())
	}
	return playErr
}

func usage(world *demo.World) {
	fmt.Printf("\n── the lab stays up\n  export KUBECONFIG=%s\n  %s get maasmachines,dpuattachments,tenantvpcs -A\n  make run       replaces the provider by this checkout's\n  make lab-down  stops it\n",
		world.Lab.ManagementKubeconfig(), filepath.Join(world.Lab.Bin(), "kubectl"))
}

func cleanup(ctx context.Context, dir string) error {
	ended, err := lab.Cleanup(ctx, dir)
	for _, name := range ended {
		fmt.Println("ended", name, "of a lab that did not stop properly")
	}
	return err
}

func openLog(repo string) (*os.File, error) {
	dir := filepath.Join(repo, "out")
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, err
	}
	return os.Create(filepath.Join(dir, "demo.log"))
}

// setLoggers keeps what the simulators and libraries log off the screen.
func setLoggers(file io.Writer) {
	klog.LogToStderr(false)
	klog.SetOutput(file)
	ctrllog.SetLogger(klog.Background())
}

func findRepo() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "metadata.yaml")); err == nil {
			return dir, nil
		}
	}
	return "", errors.New("run it inside the checkout")
}
