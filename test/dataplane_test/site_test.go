// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package dataplane_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/internal/scope"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/dpfsim"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/fabriclab"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/maassim"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/ovnlab"
)

const (
	installation = "dataplane"
	fabricName   = "ovn"
	source       = "maas-a"
	account      = "wing"
	apiKey       = "consumer:token:secret"
	// tenantCIDR is both tenants'.
	tenantCIDR  = "10.64.0.0/24"
	networkName = "workers"
	vpcName     = "net"
	// hostPort is the representor of a card's first function.
	hostPort = "pf0hpf"

	patience = 60 * time.Second
	interval = 20 * time.Millisecond
)

// tenants are the namespaces with a VPC of the same addresses.
var tenants = []string{"red", "blue"}

// site is the whole lab: OVN, DPF above it, MAAS, and the provider's fabric wing.
type site struct {
	ovn *ovnlab.Lab
	lab *fabriclab.Lab
	// hub is an administrator's client of the management cluster that waits for no leave to ask.
	hub    client.Client
	region *maassim.Region
	claims *maas.Client
	told   *told
	stops  []func() error
	// usual is how long the last move without a fault took.
	usual map[infrav1.AttachmentState]time.Duration
}

// startSite starts everything at a level of OVN. The tenants' VPCs are asked for, and no server is there yet.
func startSite(ctx context.Context, level ovnlab.Level) (*site, error) {
	// What a server takes in MAAS between two claims is not measured here.
	quick := maassim.Timing{Erase: time.Millisecond, PowerOff: time.Millisecond, PowerOn: time.Millisecond}
	s := &site{told: newTold(), usual: map[infrav1.AttachmentState]time.Duration{}, region: maassim.New(maassim.Options{Timing: quick})}
	if err := s.start(ctx, level); err != nil {
		return nil, errors.Join(err, s.stop())
	}
	return s, nil
}

// stop ends everything, the last started first.
func (s *site) stop() error {
	var errs []error
	for i := len(s.stops) - 1; i >= 0; i-- {
		errs = append(errs, s.stops[i]())
	}
	s.stops = nil
	return errors.Join(errs...)
}

func (s *site) start(ctx context.Context, level ovnlab.Level) error {
	var err error
	if s.ovn, err = ovnlab.Start(ctx, ovnlab.Options{Level: level}); err != nil {
		return err
	}
	s.stops = append(s.stops, func() error {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		return s.ovn.Close(ctx)
	})
	topology := ovnlab.NewTopology(s.ovn)
	s.stops = append(s.stops, func() error {
		topology.Close()
		return nil
	})
	s.lab, err = fabriclab.Start(ctx, fabriclab.Options{
		Repo: "../..", Tenants: tenants, Timing: dpfsim.LabTiming().Scaled(timeScale), OVN: topology,
	})
	if err != nil {
		return err
	}
	s.stops = append(s.stops, s.lab.Stop)
	s.lab.HubConfig.QPS = -1
	if s.hub, err = client.New(s.lab.HubConfig, client.Options{Scheme: s.lab.Hub.Scheme()}); err != nil {
		return err
	}
	endpoint, err := s.startMAAS(ctx)
	if err != nil {
		return err
	}
	if err := s.register(ctx, endpoint); err != nil {
		return err
	}
	if err := s.startWing(ctx); err != nil {
		return err
	}
	for _, tenant := range tenants {
		network := &infrav1.TenantVPC{
			ObjectMeta: metav1.ObjectMeta{Namespace: tenant, Name: vpcName},
			Spec:       infrav1.TenantVPCSpec{FabricName: fabricName, Subnets: []infrav1.VPCSubnet{{Name: networkName, CIDR: tenantCIDR}}},
		}
		if err := s.hub.Create(ctx, network); err != nil {
			return fmt.Errorf("TenantVPC of %s: %w", tenant, err)
		}
	}
	return nil
}

func (s *site) startMAAS(ctx context.Context) (endpoint string, err error) {
	s.region.AddUser(account, apiKey, false)
	running, cancel := context.WithCancel(context.WithoutCancel(ctx))
	base, wait, err := s.region.Serve(running, nil)
	if err != nil {
		cancel()
		return "", fmt.Errorf("MAAS: %w", err)
	}
	s.stops = append(s.stops, func() error {
		cancel()
		return wait()
	})
	endpoint = base + "/MAAS"
	s.claims, err = maas.New(maas.Config{Endpoint: endpoint, APIKey: maas.NewAPIKey(apiKey)})
	return endpoint, err
}

// register makes the fabric, which names no OVN yet: its evidence is ServiceInterface.
func (s *site) register(ctx context.Context, endpoint string) error {
	consent := func(tenant string) infrav1.ClaimNamespace {
		return infrav1.ClaimNamespace{Name: tenant, Consent: infrav1.ClaimConsentNamespace}
	}
	for _, object := range []client.Object{
		&corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Namespace: fabriclab.WingNamespace, Name: "dpf"},
			Data:       map[string][]byte{scope.KubeconfigKey: s.lab.AccountKubeconfig},
		},
		&corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Namespace: fabriclab.WingNamespace, Name: "maas"},
			Data:       map[string][]byte{scope.APIKeyKey: []byte(apiKey)},
		},
		&infrav1.DPUFabric{
			ObjectMeta: metav1.ObjectMeta{Name: fabricName},
			Spec: infrav1.DPUFabricSpec{
				Backend: infrav1.FabricBackend{Type: infrav1.FabricBackendOVNVPC, OVNVPC: &infrav1.OVNVPCBackend{
					KubeconfigSecretRef: infrav1.LocalSecretReference{Name: "dpf"}, IsolationClassName: dpfsim.IsolationClassName,
				}},
				ClaimSources: []infrav1.ClaimSource{{
					Name: source, Endpoint: endpoint, SecretRef: infrav1.LocalSecretReference{Name: "maas"},
					Namespaces: []infrav1.ClaimNamespace{consent("red"), consent("blue")},
				}},
				AllowedNamespaces:    &infrav1.AllowedNamespaces{Names: tenants},
				TenantPools:          []string{"10.64.0.0/16"},
				DetachTimeoutSeconds: ptr.To[int32](120), ProofMaxAgeSeconds: ptr.To[int32](30),
			},
		},
	} {
		if err := s.hub.Create(ctx, object); err != nil {
			return fmt.Errorf("create %T %s: %w", object, object.GetName(), err)
		}
	}
	return nil
}

// setGrade lets the fabric prove from now on with evidence of this grade.
func (s *site) setGrade(ctx context.Context, grade infrav1.EvidenceGrade) error {
	fabric := &infrav1.DPUFabric{}
	return s.until(ctx, "the fabric takes grade "+string(grade), func(ctx context.Context) (bool, error) {
		if err := s.hub.Get(ctx, types.NamespacedName{Name: fabricName}, fabric); err != nil {
			return false, err
		}
		switch grade {
		case infrav1.EvidenceServiceInterface:
			fabric.Spec.Backend.OVNVPC.OVN = nil
		default:
			fabric.Spec.Backend.OVNVPC.OVN = &infrav1.OVNEndpoints{
				Southbound: s.ovn.Southbound(), Northbound: s.ovn.Northbound(), Barrier: ptr.To(grade == infrav1.EvidenceBarrier),
			}
		}
		err := s.hub.Update(ctx, fabric)
		if apierrors.IsConflict(err) {
			return false, nil
		}
		return err == nil, err
	})
}

// until waits for something, and says for what if it does not come.
func (s *site) until(ctx context.Context, what string, holds func(context.Context) (bool, error)) error {
	if err := wait.PollUntilContextTimeout(ctx, interval, patience, true, holds); err != nil {
		return fmt.Errorf("waiting until %s: %w", what, err)
	}
	return nil
}

// rack puts a server with one card into MAAS and DPF under a number of its own, and returns when the card's OVN runs.
func (s *site) rack(ctx context.Context, name string, n int) (*server, error) {
	sv := &server{name: name, number: uint16(n), systemID: fmt.Sprintf("sys%03d", n), dpu: fmt.Sprintf("dpu-%03d", n)}
	mac := fmt.Sprintf("58:a2:e1:00:00:%02x", n)
	var err error
	if sv.station.MAC, err = net.ParseMAC(mac); err != nil {
		return nil, err
	}
	if err := s.region.AddMachine(maassim.Machine{SystemID: sv.systemID}); err != nil {
		return nil, err
	}
	card := dpfsim.DPU{
		Name: sv.dpu, Serial: fmt.Sprintf("MT%03d", n), SystemID: source + "." + sv.systemID, Device: fmt.Sprintf("mt%03d", n),
		Node: fmt.Sprintf("server-%03d", n), PF0MAC: mac, StandbyPower: true,
	}
	if err := s.lab.DPF.Seed(ctx, []dpfsim.DPU{card}); err != nil {
		return nil, fmt.Errorf("server %s: %w", name, err)
	}
	return sv, s.until(ctx, "the card of "+name+" runs", func(context.Context) (bool, error) {
		_, err := s.ovn.Received(sv.dpu, hostPort)
		return err == nil, nil
	})
}

// claim allocates a server for a machine of a tenant, as the machine wing does.
func (s *site) claim(ctx context.Context, tenant, machine, systemID string) (token string, err error) {
	token, err = maas.NewToken(rand.Reader, tenant, machine)
	if err != nil {
		return "", err
	}
	// A server that was released just now is Ready again a moment later.
	err = s.until(ctx, "MAAS gives "+systemID, func(ctx context.Context) (bool, error) {
		_, err := s.claims.Allocate(ctx, token, maas.Constraints{SystemIDs: []string{systemID}}, "")
		return err == nil, nil
	})
	if err != nil {
		return "", err
	}
	_, err = s.claims.Annotate(ctx, systemID, map[string]string{maas.AnnotationToken: maas.TokenHash(token)})
	return token, err
}
