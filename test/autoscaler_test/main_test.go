// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

// Package autoscaler_test scales node groups of DPU servers from and to zero as cluster-autoscaler does, with the rights that its
// sample gives it: under it Cluster API's managers, the provider's binaries and a workload cluster are real, servers and MAAS are
// simulated. After each test the checker holds all that happened against the invariants.
package autoscaler_test

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
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/util/retry"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/autoscaler"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/demo"
)

const (
	// tenantName is the tenant's, his namespace's and his cluster's, as in the sample.
	tenantName   = "red"
	serverPool   = "default"
	atOnce       = 6
	startTimeout = 5 * time.Minute
	stopTimeout  = time.Minute
)

// pools are the resource pools of the tests, with the servers in each.
var pools = map[string]int{poolTide: 3, poolScarce: 1, poolPlenty: 1, poolSlow: 1, poolHasty: 1, poolStill: 1, poolEmpty: 0}

// The one lab of the package, with one cluster that has a control plane and no workers. suite ends when the tests are interrupted.
var (
	suite context.Context
	world *demo.World
	// management and workload are what the autoscaler has; admin is the workload cluster's.
	management, workload, admin *rest.Config
	nodes                       client.WithWatch
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
	dir, err := os.MkdirTemp("", "autoscaler-")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, keepLogs(dir), os.RemoveAll(dir)) }()
	suite = ctx
	starting, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	// The lab lives until it is taken down here; only its start is bound in time. The control plane's server is in any zone.
	world, err = demo.Up(ctx, demo.Options{Repo: repo, Dir: filepath.Join(dir, "lab"), GoodServers: 3, Pools: pools, CRDDir: os.Getenv("DPF_CRD_DIR")})
	if err != nil {
		return 0, err
	}
	defer func() {
		stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
		defer cancel()
		err = errors.Join(err, world.Down(stopping))
	}()
	if err := prepare(starting); err != nil {
		return 0, errors.Join(err, world.Screen(suite, os.Stderr))
	}
	// The tests wait most of the time: more of them at once than there are cores.
	flag.Parse()
	if err := flag.Set("test.parallel", strconv.Itoa(atOnce)); err != nil {
		return 0, err
	}
	return m.Run(), nil
}

// keepLogs copies what the processes wrote into the folder that AUTOSCALER_LOGS names, which must not have such files yet.
func keepLogs(dir string) error {
	to := os.Getenv("AUTOSCALER_LOGS")
	if to == "" {
		return nil
	}
	return os.CopyFS(to, os.DirFS(filepath.Join(dir, "lab", "logs")))
}

// prepare brings up the tenant's control plane on a server that no test needs, and gives the autoscaler what the sample gives it.
func prepare(ctx context.Context) error {
	if err := allowPools(ctx, serverPool); err != nil {
		return err
	}
	tenant, err := world.NewTenant(ctx, tenantName)
	if err != nil {
		return err
	}
	if err := tenant.CreateVPC(ctx); err != nil {
		return err
	}
	if err := tenant.CreateCluster(ctx, 0); err != nil {
		return err
	}
	if err := tenant.WaitControlPlane(ctx); err != nil {
		return err
	}
	if err := tenant.WaitNodes(ctx, 1); err != nil {
		return err
	}
	all := []string{serverPool}
	for pool := range pools {
		all = append(all, pool)
	}
	if err := allowPools(ctx, all...); err != nil {
		return err
	}
	return admit(ctx)
}

// allowPools says which pools servers are taken from where a template names none.
func allowPools(ctx context.Context, names ...string) error {
	identity := &infrav1.MaasClusterIdentity{}
	return retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		if err := world.Operator.Get(ctx, client.ObjectKey{Name: demo.Identity}, identity); err != nil {
			return err
		}
		identity.Spec.AllowedPools = names
		return world.Operator.Update(ctx, identity)
	})
}

// admit applies the sample to both clusters. The autoscaler acts as the ServiceAccounts in it.
func admit(ctx context.Context) error {
	secret := &corev1.Secret{}
	if err := world.Operator.Get(ctx, client.ObjectKey{Namespace: tenantName, Name: tenantName + "-kubeconfig"}, secret); err != nil {
		return err
	}
	var err error
	if admin, err = clientcmd.RESTConfigFromKubeConfig(secret.Data["value"]); err != nil {
		return err
	}
	if nodes, err = client.NewWithWatch(admin, client.Options{}); err != nil {
		return err
	}
	for _, side := range []struct {
		cluster            *rest.Config
		sample             string
		namespace, account string
		as                 **rest.Config
	}{
		{world.Lab.Management(), "management", tenantName, tenantName + "-autoscaler", &management},
		{admin, "workload", "kube-system", "cluster-autoscaler", &workload},
	} {
		if err := world.Lab.ApplyKustomization(ctx, side.cluster, filepath.Join("config", "samples", "autoscaler", side.sample)); err != nil {
			return err
		}
		kubeconfig, err := world.Lab.ServiceAccountKubeconfig(ctx, side.cluster, side.namespace, side.account)
		if err != nil {
			return err
		}
		if *side.as, err = clientcmd.BuildConfigFromFlags("", kubeconfig); err != nil {
			return err
		}
	}
	return nil
}

// discovery is what the sample's flag says, narrowed to the groups of one test.
func discovery(test string) autoscaler.Discovery {
	found, err := autoscaler.ParseDiscovery("clusterapi:namespace=" + tenantName + ",clusterName=" + tenantName + "," + testLabel + "=" + test)
	if err != nil {
		panic(err)
	}
	return found
}
