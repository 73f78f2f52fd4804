// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package dataplane_test

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/cluster-api/util/conditions"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/dpfsim"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/frames"
)

// server is a host with one card.
type server struct {
	name, systemID, dpu string
	// number is that of the marker in its frames.
	number  uint16
	station frames.Station
	// tenant it is attached to; empty in the pool.
	tenant string
	// attachment that was asked for last, and how often one was.
	attachment *infrav1.DPUAttachment
	moves      int
}

// ask writes a claim and an attachment of the server for a tenant, and returns when both are stored.
func (s *site) ask(ctx context.Context, sv *server, tenant string) (asked time.Time, err error) {
	sv.moves++
	machine := fmt.Sprintf("%s-%d", sv.name, sv.moves)
	token, err := s.claim(ctx, tenant, machine, sv.systemID)
	if err != nil {
		return time.Time{}, err
	}
	sv.tenant = tenant
	sv.attachment = &infrav1.DPUAttachment{
		ObjectMeta: metav1.ObjectMeta{Namespace: tenant, Name: machine},
		Spec: infrav1.DPUAttachmentSpec{
			State: infrav1.AttachmentStateAttached, MachineName: machine, VPCName: vpcName,
			Server: infrav1.AttachmentServer{Source: source, SystemID: sv.systemID, Token: token},
			Ports:  []infrav1.MachinePort{{Name: "p0", Subnet: networkName}},
		},
	}
	asked = time.Now()
	return asked, s.hub.Create(ctx, sv.attachment)
}

// attach moves a server from the pool to a tenant and returns when the attachment is proven.
func (s *site) attach(ctx context.Context, sv *server, tenant string) (move, error) {
	asked, err := s.ask(ctx, sv, tenant)
	if err != nil {
		return move{}, err
	}
	m, err := s.proven(ctx, sv, infrav1.AttachmentStateAttached, asked)
	if err == nil && sv.name == "mover" {
		s.usual[m.state] = m.took()
	}
	return m, err
}

// askDetach asks for the server to leave its tenant.
func (s *site) askDetach(ctx context.Context, sv *server) (asked time.Time, err error) {
	asked = time.Now()
	return asked, s.hub.Patch(ctx, sv.attachment, client.RawPatch(types.MergePatchType, []byte(`{"spec":{"state":"Detached"}}`)))
}

// detach moves a server to the pool: it returns when detachment is proven, the server released and the attachment gone.
func (s *site) detach(ctx context.Context, sv *server) (move, error) {
	asked, err := s.askDetach(ctx, sv)
	if err != nil {
		return move{}, err
	}
	m, err := s.proven(ctx, sv, infrav1.AttachmentStateDetached, asked)
	if err != nil {
		return m, err
	}
	s.usual[m.state] = m.took()
	return m, s.release(ctx, sv)
}

// release gives a server back to MAAS whose detachment is proven, and cleans up after it.
func (s *site) release(ctx context.Context, sv *server) error {
	sv.tenant = ""
	if err := s.claims.Release(ctx, sv.systemID, maas.ReleaseRequest{Erase: maas.EraseNone}); err != nil {
		return err
	}
	if err := client.IgnoreNotFound(s.hub.Delete(ctx, sv.attachment)); err != nil {
		return err
	}
	return s.until(ctx, "attachment "+sv.attachment.Name+" is gone", func(ctx context.Context) (bool, error) {
		err := s.hub.Get(ctx, client.ObjectKeyFromObject(sv.attachment), &infrav1.DPUAttachment{})
		return apierrors.IsNotFound(err), client.IgnoreNotFound(err)
	})
}

// move is one way of a server, into a tenant's VPC or out of it.
type move struct {
	server *server
	tenant string
	state  infrav1.AttachmentState
	grade  infrav1.EvidenceGrade
	// asked is before the attachment was written.
	asked time.Time
	// declared is before the provider wrote the proof into the status: nobody knew of it earlier.
	declared time.Time
}

func (m move) took() time.Duration { return m.declared.Sub(m.asked) }

// proven waits for the proof of what was asked of the server's attachment.
func (s *site) proven(ctx context.Context, sv *server, state infrav1.AttachmentState, asked time.Time) (move, error) {
	m := move{server: sv, tenant: sv.attachment.Namespace, state: state, asked: asked}
	err := s.until(ctx, fmt.Sprintf("%s of %s is proven %s", sv.name, m.tenant, state), func(ctx context.Context) (bool, error) {
		return s.says(ctx, sv, state)
	})
	if err != nil {
		return m, fmt.Errorf("%w; its Attached condition: %s", err, s.reason(sv))
	}
	if len(sv.attachment.Status.Ports) > 0 {
		m.grade = sv.attachment.Status.Ports[0].Evidence
	}
	var ok bool
	if m.declared, ok = s.told.first(client.ObjectKeyFromObject(sv.attachment), state); !ok {
		return m, fmt.Errorf("%s is proven %s, and nobody wrote so", sv.name, state)
	}
	return m, nil
}

// says reports whether the attachment's status says that its present generation is in the state.
func (s *site) says(ctx context.Context, sv *server, state infrav1.AttachmentState) (bool, error) {
	if err := s.hub.Get(ctx, client.ObjectKeyFromObject(sv.attachment), sv.attachment); err != nil {
		return false, err
	}
	status := sv.attachment.Status
	return status.ObservedGeneration == sv.attachment.Generation && status.State == state, nil
}

// reason is why the server's attachment stands where it stands.
func (s *site) reason(sv *server) string {
	condition := conditions.Get(sv.attachment, infrav1.AttachedCondition)
	if condition == nil {
		return "none"
	}
	return fmt.Sprintf("%s/%s %s", condition.Status, condition.Reason, condition.Message)
}

// port is what DPF has of the server's port.
func (s *site) port(sv *server) (dpfsim.Port, error) {
	for _, port := range s.lab.DPF.Ports() {
		if port.DPU == sv.dpu {
			return port, nil
		}
	}
	return dpfsim.Port{}, fmt.Errorf("DPF has no port of %s", sv.name)
}

// ifaceID is the name of the logical port the server's port was plugged for.
func (s *site) ifaceID(sv *server) (string, error) {
	port, err := s.port(sv)
	return strings.ReplaceAll(port.ServiceInterface, "/", "_"), err
}

// settleIn attaches a server that is to stay, and has it use the address OVN chose.
func (s *site) settleIn(ctx context.Context, name, tenant string, n int) (*server, error) {
	sv, err := s.rack(ctx, name, n)
	if err != nil {
		return nil, err
	}
	if _, err := s.attach(ctx, sv, tenant); err != nil {
		return nil, err
	}
	port, err := s.port(sv)
	if err != nil {
		return nil, err
	}
	if !port.Address.IsValid() {
		return nil, fmt.Errorf("OVN gave %s no address", name)
	}
	sv.station.Address = port.Address
	return sv, nil
}

// sameAddress is an address that a host of either tenant may have: their subnets are the same.
func sameAddress(n byte) netip.Addr { return netip.AddrFrom4([4]byte{10, 64, 0, n}) }
