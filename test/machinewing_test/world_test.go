// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

// Package machinewing_test runs the machine wing's controllers against the MAAS simulator, on an API server in memory and with a
// fabric wing that proves whatever it is asked for, and kills and confuses them at every step. Every world ends with the
// shared checker holding MAAS and all that was ever shown against the invariants, and with a search for secrets.
package machinewing_test

import (
	"cmp"
	"flag"
	"fmt"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/checker"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/maassim"
)

const (
	tenant  = "red"
	wing    = "machine-wing"
	account = "capi"
	other   = "other"
	source  = "maas-a"

	// poll is short, so that a life takes no longer than it must.
	poll = 40 * time.Millisecond
	// audit is what the controllers do rarely.
	audit = time.Second
	// window is for how long the effect of a lost call can still appear.
	window = 1500 * time.Millisecond
	// patience is how long anything may take on a busy machine.
	patience = 2 * time.Minute
	// atOnce is how many tests run at a time: they wait most of the time.
	atOnce = 14
)

func TestMain(m *testing.M) {
	ctrl.SetLogger(logr.Discard())
	flag.Parse()
	if err := flag.Set("test.parallel", strconv.Itoa(atOnce)); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

// keyOf is the API key of a MAAS account. Its parts are found wherever they leak.
func keyOf(account string) string {
	return fmt.Sprintf("consumer0key0%[1]s:token0key0%[1]s:secret0key0%[1]s", account)
}

// options of a world.
type options struct {
	// servers of the region; plain ones have no DPUs.
	servers int
	plain   bool
	// ports lets the machine ask for a port on the VPC.
	ports bool
	// at shares another world's region, as another account.
	at      *site
	account string
	// replicas is how many processes run at once; default 1.
	replicas int
	// empty makes no cluster and no machine.
	empty bool
	// poll, audit and window replace those above.
	poll, audit, window time.Duration
	// timing changes the region's.
	timing func(*maassim.Timing)
	// tls serves the region over TLS.
	tls *authority
	// site changes the region before it is made.
	site func(*maassim.Options)
	// identity changes the identity before it is made.
	identity func(*infrav1.MaasClusterIdentity)
	// machine changes the machine before it is made.
	machine func(*infrav1.MaasMachine)
	// allocateSeconds replaces what is shorter than the API server would take.
	allocateSeconds int32
	// idle worlds never claim anything: the checker has nothing to see.
	idle bool
}

// world is a management cluster with a machine wing, a fabric and a tenant, and the MAAS they use.
type world struct {
	*testing.T
	*WithT
	*site
	// sites are all regions of the world.
	sites  []*site
	scheme *runtime.Scheme
	// api is the API server in memory; nil where there is a real one.
	api     *apiServer
	config  *rest.Config
	objects client.Client
	fabric  *fabric
	check   *checker.Checker
	watch   *checker.Watch
	// before are the verdicts of checks that were interrupted.
	before  []checker.Verdict
	tells   *teller
	options options

	mu        sync.Mutex
	processes []*process
	started   int
	// lines were logged, shown is what conditions ever said, statuses and tokens are all there ever were.
	lines                   []string
	shown, statuses, tokens map[string]bool
}

// newScheme has only the kinds that are used: the API server in memory goes through all of them at each write.
func newScheme(t *testing.T) *runtime.Scheme {
	t.Helper()
	s := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{corev1.AddToScheme, clusterv1.AddToScheme, infrav1.AddToScheme} {
		if err := add(s); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// newWorld is a world with everything in it, whose machine wing has just started.
func newWorld(t *testing.T, o options) *world {
	t.Helper()
	w := newStoppedWorld(t, o)
	w.supervise()
	return w
}

// newStoppedWorld is a world whose machine wing does not run yet.
func newStoppedWorld(t *testing.T, o options) *world {
	t.Helper()
	w := newVoid(t, o)
	w.api = newAPIServer(w.scheme)
	w.objects = w.api.client
	recorder := checker.NewRecorder(fabricSpace)
	w.api.watchVersions(func(object client.Object, deleted bool) { recorder.Note(w.api.asUnstructured(object), deleted) })
	w.api.watchVersions(w.see)
	w.fabric = newFabric(w)
	w.api.wakeFabric(w)
	w.hold(recorder)
	w.watch = w.check.Watch(w.Context(), 5*poll)
	w.operate()
	if !o.empty {
		w.addCluster(tenant, tenant, "identity")
		w.addMachine(tenant, tenant, machineName)
	}
	return w
}

// newVoid is a MAAS without a management cluster.
func newVoid(t *testing.T, o options) *world {
	t.Helper()
	o.account, o.poll, o.audit = cmp.Or(o.account, account), cmp.Or(o.poll, poll), cmp.Or(o.audit, audit)
	o.window = cmp.Or(o.window, window)
	o.replicas = max(o.replicas, 1)
	w := &world{T: t, WithT: NewWithT(t), options: o, scheme: newScheme(t), tells: &teller{}}
	w.shown, w.statuses, w.tokens = map[string]bool{}, map[string]bool{}, map[string]bool{}
	w.site = o.at
	if w.site == nil {
		w.site = newSite(t, o, "srv")
	}
	w.sites = []*site{w.site}
	return w
}

// inventory tells the checker what servers there are.
func (w *world) inventory(s *site) {
	for _, m := range s.region.Machines() {
		server := checker.Server{SystemID: m.SystemID}
		if slices.ContainsFunc(m.Spec.Devices, func(d maassim.Device) bool { return d.VendorID == maas.VendorMellanox }) {
			server.MACs, server.DPUs = []string{macOf(m.SystemID)}, []string{dpuOf(m.SystemID)}
		}
		w.check.Inventory.Servers = append(w.check.Inventory.Servers, server)
	}
}

// hold holds the world against the invariants in its end.
func (w *world) hold(recorder *checker.Recorder) {
	w.Helper()
	w.check = &checker.Checker{MAAS: everywhere{w}, Fabric: w.fabric, Recorder: recorder, Lag: checker.WatchLag, Inventory: checker.Inventory{Accounts: []string{w.options.account}}}
	w.inventory(w.site)
	w.Cleanup(w.expectHeld)
}

// checkNow holds the world against the invariants at this moment, where they are not watched all the time.
func (w *world) checkNow() { w.before = append(w.before, w.check.Check()) }

// unchecked does what no machine wing does, and what the checker could not make sense of half-way.
func (w *world) unchecked(do func()) {
	w.before = append(w.before, w.watch.Stop())
	w.watch = nil
	defer func() { w.watch = w.check.Watch(w.Context(), 5*poll) }()
	do()
}

// expectHeld is the end of every world.
func (w *world) expectHeld() {
	w.Helper()
	observations := map[string]int{}
	if w.watch != nil {
		w.before = append(w.before, w.watch.Stop())
	}
	w.checkNow()
	for _, verdict := range w.before {
		w.Expect(verdict.Holds()).To(BeTrue(), "%s", verdict)
		for invariant, n := range verdict.Observations {
			observations[invariant] += n
		}
	}
	for _, invariant := range []string{"I1", "I2", "I5", "I7"} {
		if !w.options.idle && !w.Failed() {
			w.Expect(observations[invariant]).To(BeNumerically(">", 0), "%s was not observed", invariant)
		}
	}
	w.expectNoSecrets()
	w.keepLogs()
}
