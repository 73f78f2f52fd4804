// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

// Package troubles runs the real binaries, with the rights that are shipped, in a lab where things go wrong: bad input, faults of
// MAAS and DPF, killed wings, forged attachments. After each test the checker holds all that happened against the invariants.
package troubles

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/klog/v2"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/demo"
)

const (
	goodServers  = 16
	atOnce       = 6
	startTimeout = 3 * time.Minute
	stopTimeout  = time.Minute
)

// The one lab of the package. suite ends when the tests are interrupted: everything that waits hangs on it.
var (
	suite context.Context
	world *demo.World
	wings *wingWatch
	dpf   *gate
)

func TestMain(m *testing.M) {
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// run leaves nothing behind, neither processes nor files, also when it is interrupted.
func run(m *testing.M) (code int, err error) {
	ctrl.SetLogger(logr.Discard())
	klog.SetLogger(logr.Discard())
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	repo, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		return 0, err
	}
	dir, err := os.MkdirTemp("", "troubles-")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, keepLogs(dir), os.RemoveAll(dir)) }()
	suite = ctx
	starting, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	// The lab lives until it is taken down here; only its start is bound in time.
	world, err = demo.Up(ctx, demo.Options{
		Repo: repo, Dir: filepath.Join(dir, "lab"), GoodServers: goodServers, Pools: map[string]int{nsReplaced: replacedServers},
		CRDDir: os.Getenv("DPF_CRD_DIR"),
		ManagerArgs: []string{
			// A killed wing leaves its lease behind, for which the next waits.
			"--leader-elect-lease-duration=12s", "--leader-elect-renew-deadline=9s", "--leader-elect-retry-period=500ms",
			"--audit-interval=10s",
		},
	})
	if err != nil {
		return 0, err
	}
	defer func() {
		stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
		defer cancel()
		err = errors.Join(err, world.Down(stopping))
	}()
	if err := prepare(starting); err != nil {
		return 0, err
	}
	defer dpf.close()
	watching, stopWatching := context.WithCancel(ctx)
	defer stopWatching()
	wings = watchWings(watching)
	// The tests wait most of the time: more of them at once than there are cores.
	flag.Parse()
	if err := flag.Set("test.parallel", strconv.Itoa(atOnce)); err != nil {
		return 0, err
	}
	return m.Run(), nil
}

// keepLogs copies what the processes wrote into the folder that TROUBLES_LOGS names, which must not have such files yet.
func keepLogs(dir string) error {
	to := os.Getenv("TROUBLES_LOGS")
	if to == "" {
		return nil
	}
	return os.CopyFS(to, os.DirFS(filepath.Join(dir, "lab", "logs")))
}

// namespaces of all tests, which identity and fabric admit from the start.
var namespaces = []string{
	nsIdentityLate, nsVPCLate, nsSubnetLate, nsNoPorts, nsSecrets,
	nsAllocateDropped, nsAllocateLate, nsAllocateConflict, nsReleaseDropped, nsHang, nsBeside, nsEraseFails,
	nsAgentDown, nsVPCClaim, nsUnplugged, nsVictim, nsForger,
	nsBadServers, nsPlain, nsMAASAway, nsFabricAway, nsKilled,
	nsReplaced, nsNamespaceGone, nsMoments, nsClusterGone, nsAbandoned, nsIsolationLost,
}

// prepare admits the tests' namespaces, shortens what would be waited for, and puts a gate before DPF.
func prepare(ctx context.Context) error {
	world.MAAS.AddUser(operator, adminKey, true)
	world.MAAS.AddUser(stranger, strangerKey, false)
	fabric := &infrav1.DPUFabric{}
	if err := update(ctx, fabric, demo.Fabric, func() {
		fabric.Spec.AllowedNamespaces = &infrav1.AllowedNamespaces{Names: namespaces}
		fabric.Spec.ClaimSources[0].Namespaces = nil
		for _, name := range namespaces {
			fabric.Spec.ClaimSources[0].Namespaces = append(fabric.Spec.ClaimSources[0].Namespaces, infrav1.ClaimNamespace{Name: name})
		}
		fabric.Spec.DetachTimeoutSeconds = ptr.To[int32](30)
		fabric.Spec.ProofMaxAgeSeconds = ptr.To[int32](30)
	}); err != nil {
		return err
	}
	identity := &infrav1.MaasClusterIdentity{}
	if err := update(ctx, identity, demo.Identity, func() {
		identity.Spec.AllowedNamespaces = &infrav1.AllowedNamespaces{Names: namespaces}
		identity.Spec.AllowedPools = []string{"default"}
		// Tests that hold a server run beside others that claim.
		identity.Spec.CircuitBreaker.Servers = ptr.To[int32](goodServers)
	}); err != nil {
		return err
	}
	for _, y := range yards {
		if err := y.rack(); err != nil {
			return err
		}
	}
	var err error
	dpf, err = gateBeforeDPF(ctx)
	return err
}
