// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/go-logr/logr"
	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/runtime"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	controlplanev1 "sigs.k8s.io/cluster-api/api/controlplane/kubeadm/v1beta2"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/bmcsim"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/checker"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/checker/dpffacts"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/checker/maasfacts"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/dpfsim"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/lab"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/lab/pki"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/lab/proc"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/maassim"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/ovnlab"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/serversim"
)

// Options say how large a world is and where it lives.
type Options struct {
	// Dir is the lab's scratch folder; Repo the checkout. Both have the lab's defaults.
	Dir, Repo string
	// GoodServers is how many servers can be used; four bad ones come on top.
	GoodServers int
	// Pools are further good servers, by the MAAS resource pool they stand in; all others stand in MAAS' own.
	Pools map[string]int
	// PlainServers is how many servers without DPUs stand in the pool PlainPool.
	PlainServers int
	// Zones are the MAAS zones that servers stand in by turns; empty means rack-a and rack-b. Control planes of one machine all
	// take the first.
	Zones []string
	// Tenants are the namespaces that identity and fabric admit; empty means red and blue.
	Tenants []string
	// CRDDir holds upstream's DPF CRDs; empty means the project's own minimal ones.
	CRDDir string
	// ManagerArgs are added to the arguments of both wings.
	ManagerArgs []string
	// Posture is what the fabric makes of what the DPUs' BMCs say; empty means that they are not asked.
	Posture infrav1.PostureMode
	// OVN is the level of OVN that DPF drives and that the fabric takes evidence from; nil has the DPF simulator play OVN, too.
	OVN *ovnlab.Level
	Log logr.Logger
}

// World is the operator's datacentre and its management cluster: everything but tenants.
type World struct {
	Lab     *lab.Lab
	MAAS    *maassim.Region
	Fabric  *dpfsim.Fabric
	BMCs    *bmcsim.Site
	Rack    *serversim.Rack
	Servers []Server
	Checker *checker.Checker
	// OVN is nil where the DPF simulator plays it.
	OVN      *ovnlab.Lab
	Operator client.Client

	options      Options
	maasEndpoint string
	maasCA       *pki.CA
	maasKey      string
	bmcs         []*bmcsim.BMC
	topology     *ovnlab.Topology

	stop  context.CancelFunc
	group *errgroup.Group
}

// Up starts the lab, the simulators and the provider, and registers the operator's MAAS account and fabric. What was started
// is stopped again when it fails. A simulator that ends early ends the context of Wait.
func Up(ctx context.Context, options Options) (*World, error) {
	if len(options.Tenants) == 0 {
		options.Tenants = []string{"red", "blue"}
	}
	if len(options.Zones) == 0 {
		options.Zones = []string{"rack-a", "rack-b"}
	}
	w := &World{options: options, Servers: racks(options)}
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	w.stop = stop
	w.group, running = errgroup.WithContext(running)
	if err := w.up(ctx, running); err != nil {
		return nil, errors.Join(err, w.Down(context.WithoutCancel(ctx)))
	}
	return w, nil
}

func (w *World) up(ctx, running context.Context) error {
	started, err := lab.Start(ctx, lab.Options{
		Repo: w.options.Repo, Dir: w.options.Dir, Log: w.options.Log, WithCAPI: true, WithDPF: true, WithDPFCollectors: true,
	})
	if err != nil {
		return fmt.Errorf("start the lab: %w", err)
	}
	w.Lab = started
	if w.Operator, err = client.New(w.Lab.Management(), client.Options{Scheme: newScheme()}); err != nil {
		return err
	}
	for _, step := range []struct {
		what string
		do   func(ctx, running context.Context) error
	}{
		{"start the BMCs", w.startBMCs},
		{"start OVN", w.startOVN},
		{"start the DPF simulator", w.startFabric},
		{"start the servers", w.startRack},
		{"start the MAAS simulator", w.startMAAS},
		{"install the provider", w.installProvider},
		{"fill clusterctl's repository", w.fillRepository},
		{"register MAAS account and fabric", w.register},
		{"start the checker", w.startChecker},
	} {
		if err := step.do(ctx, running); err != nil {
			return fmt.Errorf("%s: %w", step.what, err)
		}
	}
	return nil
}

func (w *World) startFabric(ctx, running context.Context) error {
	fabric, err := dpfsim.New(dpfsim.Options{
		Management: w.Lab.DPFManagement(), DPUCluster: w.Lab.DPUCluster(), Namespace: dpfNamespace, CRDDir: w.options.CRDDir, Log: w.options.Log.WithName("dpf"),
		OVN: w.driven(),
	})
	if err != nil {
		return err
	}
	w.Fabric = fabric
	if err := fabric.InstallCRDs(ctx); err != nil {
		return err
	}
	var dpus []dpfsim.DPU
	for _, s := range w.Servers {
		if s.DPU.Name != "" {
			dpus = append(dpus, s.DPU)
		}
	}
	if err := fabric.Seed(ctx, dpus); err != nil {
		return err
	}
	for _, s := range w.Servers {
		if s.DPU.Name != "" {
			fabric.SetHostPower(s.SystemID, false)
		}
	}
	w.group.Go(func() error { return fabric.Run(running) })
	return nil
}

func (w *World) startRack(_, running context.Context) error {
	w.Rack = serversim.New(serversim.Options{
		Supervisor: w.Lab.Supervisor(), Bin: w.Lab.Bin(), Dir: w.Lab.Dir(), Fabric: leases{w.Fabric}, Log: w.options.Log.WithName("rack"),
	})
	for _, s := range w.Servers {
		if err := w.Rack.AddServer(s.inRack()); err != nil {
			return err
		}
	}
	w.group.Go(func() error { return w.Rack.Run(running) })
	return nil
}

// leases is what a server's port learns by DHCP.
type leases struct{ fabric *dpfsim.Fabric }

func (l leases) Lease(mac string) (address netip.Addr, externallyRouted, ok bool) {
	address, network, ok := l.fabric.Lease(mac)
	return address, network.ExternallyRouted, ok
}

// wires carries what MAAS does to a server to everything that feels it.
type wires struct {
	rack   *serversim.Rack
	fabric *dpfsim.Fabric
}

func (h wires) PowerChanged(systemID string, on bool) {
	h.fabric.SetHostPower(systemID, on)
	h.rack.PowerChanged(systemID, on)
}
func (h wires) Boot(systemID string, userData []byte) { h.rack.Boot(systemID, userData) }
func (h wires) Wiped(systemID string)                 { h.rack.Wiped(systemID) }

func (w *World) startMAAS(_, running context.Context) error {
	w.MAAS = maassim.New(maassim.Options{Timing: maassim.Timing{Deploy: 2 * time.Second}})
	w.maasKey = "capiconsumer:capitoken:capisecret"
	w.MAAS.AddUser(account, w.maasKey, false)
	for _, zone := range w.options.Zones {
		w.MAAS.AddZone(zone)
	}
	for pool := range w.options.Pools {
		w.MAAS.AddPool(pool)
	}
	if w.options.PlainServers > 0 {
		w.MAAS.AddPool(PlainPool)
	}
	for _, s := range w.Servers {
		if err := w.MAAS.AddMachine(s.inMAAS()); err != nil {
			return err
		}
	}
	w.MAAS.SetHardware(wires{rack: w.Rack, fabric: w.Fabric})
	return w.serveMAAS(running)
}

// serveMAAS serves over TLS with an authority of its own, as the identity's CA bundle has it.
func (w *World) serveMAAS(running context.Context) error {
	ca, err := pki.NewCA("maas")
	if err != nil {
		return err
	}
	pair, err := ca.Issue(pki.Request{CommonName: "maas", Server: true}.Loopback())
	if err != nil {
		return err
	}
	certificate, err := tls.X509KeyPair(pair.CertPEM, pair.KeyPEM)
	if err != nil {
		return err
	}
	base, wait, err := w.MAAS.Serve(running, &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12})
	if err != nil {
		return err
	}
	w.maasCA, w.maasEndpoint = ca, base+"/MAAS"
	w.group.Go(wait)
	return nil
}

func newScheme() *runtime.Scheme {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		clientgoscheme.AddToScheme, clusterv1.AddToScheme, controlplanev1.AddToScheme, infrav1.AddToScheme,
	} {
		utilruntime.Must(add(scheme))
	}
	return scheme
}

// InstallProvider installs what is shipped and runs the manager as two processes with their own rights. Calling it again
// replaces both by the binary as it is then.
func (w *World) InstallProvider(ctx context.Context) error {
	return w.Lab.InstallProvider(ctx, w.provider())
}

func (w *World) provider() lab.ProviderOptions {
	return lab.ProviderOptions{
		Kustomizations: []string{"config/default", "config/fabric", "config/policies", "config/tenant"},
		ExtraArgs:      append([]string{"--poll-interval=1s"}, w.options.ManagerArgs...),
	}
}

// StartReplica starts one more process of a wing, under a name of its own; see the lab's.
func (w *World) StartReplica(ctx context.Context, wing, process string) (*proc.Process, error) {
	return w.Lab.StartReplica(ctx, wing, process, w.provider())
}

// RouteWebhooks lets the process named answer for the wing's webhooks.
func (w *World) RouteWebhooks(ctx context.Context, wing, process string) error {
	return w.Lab.RouteWebhooks(ctx, wing, process, w.provider())
}

func (w *World) installProvider(ctx, _ context.Context) error { return w.InstallProvider(ctx) }

func (w *World) startChecker(_, running context.Context) error {
	recorder, err := checker.Record(running, w.Lab.Management(), dpfNamespace)
	if err != nil {
		return err
	}
	w.Checker = &checker.Checker{
		MAAS: maasfacts.Of(w.MAAS), Fabric: dpffacts.Of(w.Fabric, nil), Recorder: recorder, Lag: checker.WatchLag,
		Inventory: forChecker(w.Servers),
	}
	return nil
}

// Config returns what a user of the management cluster reaches it with.
func (w *World) Config(ctx context.Context, user string, groups ...string) (*rest.Config, error) {
	path, err := w.Lab.UserKubeconfig(ctx, user, groups...)
	if err != nil {
		return nil, err
	}
	return loadKubeconfig(path)
}

// Down stops everything that was started; it is safe after a failed Up.
func (w *World) Down(ctx context.Context) error {
	var errs []error
	w.stop()
	if err := w.group.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		errs = append(errs, err)
	}
	if w.Rack != nil {
		errs = append(errs, w.Rack.Stop(ctx))
	}
	errs = append(errs, w.stopOVN(ctx))
	if w.BMCs != nil {
		errs = append(errs, w.BMCs.Close())
	}
	if w.Lab != nil {
		errs = append(errs, w.Lab.Stop(ctx))
	}
	return errors.Join(errs...)
}

// repo is the checkout whose manifests and templates are used.
func (w *World) repo() string { return w.options.Repo }
