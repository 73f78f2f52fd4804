// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package fabricwing_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	requests "sigs.k8s.io/controller-runtime/pkg/source"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/controllers/dpuattachment"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/controllers/dpufabric"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/controllers/dpuserver"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/controllers/tenantvpc"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/internal/scope"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/dpfsim"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/maassim"
)

const (
	redAccount, redKey     = "claims-red", "consumerRed:tokenRed:secretRed"
	blueAccount, blueKey   = "claims-blue", "consumerBlue:tokenBlue:secretBlue"
	claimsPoll             = 100 * time.Millisecond
	noAudit                = time.Hour
	watchFilter, filterKey = "claims", "cluster.x-k8s.io/watch-filter"
)

// site is a running fabric wing with a fabric and a MAAS of its own. The wing asks MAAS through a gateway that lets nothing but
// questions pass, and remembers whatever else was tried.
type site struct {
	*wing
	name, source string
	region       *maassim.Region
	// red is the account that owns the claims, blue another one; both change what the wing only reads.
	red, blue *maas.Client
	gateway   *gateway
	// endpoint is MAAS' own.
	endpoint string
}

type gateway struct {
	http.Handler
	mu      sync.Mutex
	refused []string
}

func (g *gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet {
		g.mu.Lock()
		g.refused = append(g.refused, r.Method+" "+r.URL.Path)
		g.mu.Unlock()
		w.WriteHeader(http.StatusMethodNotAllowed)
		return
	}
	g.Handler.ServeHTTP(w, r)
}

// newSite starts a wing that audits its claims so often, and relies on MAAS' events in between.
func newSite(t *testing.T, audit time.Duration) *site {
	t.Helper()
	n := serial.Add(1)
	s := &site{
		wing: &wing{WithT: NewWithT(t), t: t, clock: &shiftedClock{}, hooks: &hooks{}},
		name: fmt.Sprintf("claims-%d", n), source: fmt.Sprintf("maas-%d", n), region: maassim.New(maassim.Options{}),
	}
	s.patient()
	s.region.AddUser(redAccount, redKey, false)
	s.region.AddUser(blueAccount, blueKey, false)
	s.endpoint = s.serve()
	s.red, s.blue = s.client(s.endpoint, redKey), s.client(s.endpoint, blueKey)
	target, err := url.Parse(s.endpoint)
	s.Expect(err).NotTo(HaveOccurred())
	target.Path = ""
	proxy := httputil.NewSingleHostReverseProxy(target)
	proxy.ErrorHandler = func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) }
	s.gateway = &gateway{Handler: proxy}
	server := httptest.NewServer(s.gateway)
	t.Cleanup(server.Close)
	t.Cleanup(func() {
		s.gateway.mu.Lock()
		defer s.gateway.mu.Unlock()
		if len(s.gateway.refused) > 0 {
			t.Errorf("the fabric wing sent MAAS %v", s.gateway.refused)
		}
	})
	s.register(server.URL + "/MAAS")
	s.run(audit)
	return s
}

// at is the site in a test of its own.
func (s *site) at(t *testing.T) *site {
	t.Helper()
	c := *s
	c.wing = s.on(t)
	return &c
}

func (s *site) serve() (endpoint string) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(s.t.Context()))
	base, wait, err := s.region.Serve(ctx, nil)
	s.Expect(err).NotTo(HaveOccurred())
	s.t.Cleanup(func() {
		cancel()
		if err := wait(); err != nil {
			s.t.Errorf("region: %v", err)
		}
	})
	return base + "/MAAS"
}

func (s *site) client(endpoint, key string) *maas.Client {
	c, err := maas.New(maas.Config{Endpoint: endpoint, APIKey: maas.NewAPIKey(key)})
	s.Expect(err).NotTo(HaveOccurred())
	s.t.Cleanup(c.Close)
	return c
}

// register makes the fabric: red and blue need no MaasMachine behind a claim, green does. Afterwards it goes only if nothing of it
// is left.
func (s *site) register(endpoint string) {
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: wingNamespace, Name: s.name},
		Data:       map[string][]byte{scope.APIKeyKey: []byte(redKey)},
	}
	fabric := &infrav1.DPUFabric{
		ObjectMeta: metav1.ObjectMeta{Name: s.name, Labels: map[string]string{filterKey: watchFilter}},
		Spec: infrav1.DPUFabricSpec{
			Backend: infrav1.FabricBackend{Type: infrav1.FabricBackendOVNVPC, OVNVPC: &infrav1.OVNVPCBackend{
				KubeconfigSecretRef: infrav1.LocalSecretReference{Name: "dpf"}, IsolationClassName: dpfsim.IsolationClassName,
			}},
			ClaimSources: []infrav1.ClaimSource{{
				Name: s.source, Endpoint: endpoint, SecretRef: infrav1.LocalSecretReference{Name: s.name},
				Namespaces: []infrav1.ClaimNamespace{
					{Name: "red", Consent: infrav1.ClaimConsentNamespace}, {Name: "blue", Consent: infrav1.ClaimConsentNamespace},
					{Name: "green", Consent: infrav1.ClaimConsentMaasMachine},
				},
			}},
			AllowedNamespaces:    &infrav1.AllowedNamespaces{Names: []string{"red", "blue", "green"}},
			TenantPools:          []string{"10.65.0.0/16"},
			DetachTimeoutSeconds: ptr.To[int32](60), ProofMaxAgeSeconds: ptr.To[int32](30),
		},
	}
	for _, object := range []client.Object{secret, fabric} {
		s.Expect(world.Hub.Create(s.t.Context(), object)).To(Succeed())
		s.t.Cleanup(func() { _ = world.Hub.Delete(context.WithoutCancel(s.t.Context()), object) })
	}
}

// run runs the controllers as one process would, until the test ends.
func (s *site) run(audit time.Duration) {
	s.t.Helper()
	mgr, err := ctrl.NewManager(world.HubConfig, ctrl.Options{
		Scheme: world.Hub.Scheme(), Logger: logr.Discard(), Metrics: metricsserver.Options{BindAddress: "0"},
		Controller: config.Controller{SkipNameValidation: ptr.To(true), UsePriorityQueue: ptr.To(false)},
	})
	s.Expect(err).NotTo(HaveOccurred())
	all := fabrics{wing: s.wing, Fabrics: scope.NewFabrics(scope.FabricsOptions{
		Client: mgr.GetClient(), APIReader: mgr.GetAPIReader(), Namespace: wingNamespace, Installation: installation,
		PollInterval: claimsPoll, AuditInterval: audit,
	})}
	s.Expect(mgr.Add(all.Poller())).To(Succeed())
	ctx, cancel := context.WithCancel(context.WithoutCancel(s.t.Context()))
	options := controller.Options{MaxConcurrentReconciles: 4}
	s.Expect(scope.IndexFabricWatches(ctx, mgr.GetFieldIndexer())).To(Succeed())
	watches := scope.NewFabricWatches(scope.FabricWatchesOptions{Fabrics: all, Client: mgr.GetClient(), Installation: installation})
	s.Expect(mgr.Add(watches)).To(Succeed())
	readings := dpfzt.NewReadings(s.clock, watches.NodesLapsed)
	claims := requests.Channel(all.Wakes(), &handler.EnqueueRequestForObject{})
	s.Expect((&dpufabric.Reconciler{
		Client: mgr.GetClient(), APIReader: mgr.GetAPIReader(), Fabrics: all, Recorder: mgr.GetEventRecorder("dpufabric"),
		Clock: s.clock, Installation: installation, PollInterval: claimsPoll, WatchFilterValue: watchFilter,
	}).SetupWithManager(ctx, mgr, options)).To(Succeed())
	s.Expect((&tenantvpc.Reconciler{
		Client: mgr.GetClient(), APIReader: mgr.GetAPIReader(), Fabrics: all, Recorder: mgr.GetEventRecorder("tenantvpc"),
		Clock: s.clock, Installation: installation, PollInterval: claimsPoll,
		Sources: []requests.Source{watches.TenantVPCs()}, Watches: watches, Readings: readings,
	}).SetupWithManager(ctx, mgr, options)).To(Succeed())
	s.Expect((&dpuattachment.Reconciler{
		Client: mgr.GetClient(), APIReader: mgr.GetAPIReader(), Fabrics: all, Recorder: mgr.GetEventRecorder("dpuattachment"),
		Clock: s.clock, Installation: installation, PollInterval: claimsPoll,
		Sources: []requests.Source{watches.Attachments(), claims}, Watches: watches, Readings: readings,
	}).SetupWithManager(ctx, mgr, options)).To(Succeed())
	s.Expect((&dpuserver.Reconciler{
		Client: mgr.GetClient(), APIReader: mgr.GetAPIReader(), Fabrics: all, Recorder: mgr.GetEventRecorder("dpuserver"),
		Clock: s.clock, Installation: installation, PollInterval: claimsPoll, WatchFilterValue: watchFilter,
		Sources: []requests.Source{watches.DPUFabrics()}, Readings: readings,
	}).SetupWithManager(ctx, mgr, options)).To(Succeed())
	ended := make(chan error, 1)
	go func() { ended <- mgr.Start(ctx) }()
	s.t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			s.t.Errorf("manager: %v", err)
		}
	})
	s.t.Cleanup(s.unregister)
}

// unregister deletes the fabric and waits until its memory of servers is gone with it.
func (s *site) unregister() {
	ctx := context.WithoutCancel(s.t.Context())
	fabric := s.fabric()
	s.Expect(client.IgnoreNotFound(world.Hub.Delete(ctx, fabric))).To(Succeed())
	s.Eventually(gone(ctx, fabric)).Should(BeTrue())
}

// gone reports whether an object has ceased to exist.
func gone(ctx context.Context, object client.Object) func() bool {
	return func() bool {
		return apierrors.IsNotFound(world.Hub.Get(ctx, client.ObjectKeyFromObject(object), object))
	}
}

func (s *site) fabric() *infrav1.DPUFabric {
	return &infrav1.DPUFabric{ObjectMeta: metav1.ObjectMeta{Name: s.name}}
}

// change changes the fabric.
func (s *site) change(change func(*infrav1.DPUFabricSpec)) {
	s.t.Helper()
	s.Eventually(func() error {
		fabric := s.fabric()
		if err := world.Hub.Get(s.t.Context(), client.ObjectKeyFromObject(fabric), fabric); err != nil {
			return err
		}
		change(&fabric.Spec)
		return world.Hub.Update(s.t.Context(), fabric)
	}).Should(Succeed())
}

// rack puts a server with one DPU into MAAS and DPF.
func (s *site) rack() (d dpfsim.DPU, systemID string) {
	s.t.Helper()
	d = s.newServer(func(d *dpfsim.DPU) {
		systemID = d.SystemID
		d.SystemID = s.source + "." + systemID
	})
	s.Expect(s.region.AddMachine(maassim.Machine{SystemID: systemID})).To(Succeed())
	return d, systemID
}

// allocate claims a server for a MaasMachine, as the machine wing would with the account's key.
func (s *site) allocate(c *maas.Client, namespace, machine, systemID string) (token string) {
	s.t.Helper()
	token, err := maas.NewToken(rand.Reader, namespace, machine)
	s.Expect(err).NotTo(HaveOccurred())
	_, err = c.Allocate(s.t.Context(), token, maas.Constraints{SystemIDs: []string{systemID}}, "")
	s.Expect(err).NotTo(HaveOccurred())
	_, err = c.Annotate(s.t.Context(), systemID, map[string]string{maas.AnnotationToken: maas.TokenHash(token)})
	s.Expect(err).NotTo(HaveOccurred())
	return token
}

func (s *site) release(systemID string) {
	s.t.Helper()
	s.Expect(s.red.Release(s.t.Context(), systemID, maas.ReleaseRequest{Erase: maas.EraseNone})).To(Succeed())
}

// network makes a TenantVPC with one subnet, and deletes it afterwards.
func (s *site) network(namespace, name string) {
	s.t.Helper()
	tenant := &infrav1.TenantVPC{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec:       infrav1.TenantVPCSpec{FabricName: s.name, Subnets: []infrav1.VPCSubnet{{Name: "workers", CIDR: "10.65.0.0/24"}}},
	}
	s.Expect(world.Hub.Create(s.t.Context(), tenant)).To(Succeed())
	s.t.Cleanup(func() {
		ctx := context.WithoutCancel(s.t.Context())
		s.Expect(client.IgnoreNotFound(world.Hub.Delete(ctx, tenant))).To(Succeed())
		s.Eventually(gone(ctx, tenant)).Should(BeTrue())
	})
}

// ask makes an attachment of a server. Afterwards it is detached as a tenant would have it, and gone.
func (s *site) ask(namespace, name, vpcName, machine, systemID, token string) *infrav1.DPUAttachment {
	s.t.Helper()
	attachment := &infrav1.DPUAttachment{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec: infrav1.DPUAttachmentSpec{
			State: infrav1.AttachmentStateAttached, MachineName: machine, VPCName: vpcName,
			Server: infrav1.AttachmentServer{Source: s.source, SystemID: systemID, Token: token},
			Ports:  []infrav1.MachinePort{{Name: "p0", Subnet: "workers"}},
		},
	}
	s.Expect(world.Hub.Create(s.t.Context(), attachment)).To(Succeed())
	s.t.Cleanup(func() { s.drop(attachment) })
	return attachment
}

// drop deletes an attachment, which ends once its ports are proven detached.
func (s *site) drop(attachment *infrav1.DPUAttachment) {
	s.t.Helper()
	ctx := context.WithoutCancel(s.t.Context())
	s.Expect(client.IgnoreNotFound(world.Hub.Delete(ctx, attachment))).To(Succeed())
	s.Eventually(gone(ctx, attachment)).Should(BeTrue(), "detachment is never proven")
}

// standing of the server in the fabric's memory.
func (s *site) standing(systemID string) func() infrav1.Eligibility {
	return func() infrav1.Eligibility {
		server := &infrav1.DPUServer{}
		key := types.NamespacedName{Name: infrav1.DPUServerName(s.source, systemID)}
		if err := world.Hub.Get(s.t.Context(), key, server); err != nil {
			return infrav1.Eligibility(err.Error())
		}
		return server.Status.Eligibility
	}
}

// everAttached follows an attachment until the end of the test and says whether it was ever reported attached.
func (s *site) everAttached(attachment *infrav1.DPUAttachment) func() bool {
	seen := s.proven(attachment.DeepCopy())
	attached := false
	return func() bool {
		attached = attached || seen() == attachedState
		return attached
	}
}
