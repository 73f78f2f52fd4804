// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package dpuattachment

import (
	"context"
	"errors"
	"slices"
	"testing"

	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/internal/scope"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/vpc"
)

// TestMACsOfServer asks MAAS for MAC addresses only where nothing is pinned, and takes no answer for none.
func TestMACsOfServer(t *testing.T) {
	notMapped := refused(infrav1.ServerNotMappedReason, "no label")
	bound := []infrav1.BoundDPU{{DPUDevice: "d1", Ports: []infrav1.DPUServerPort{{PF: ptr.To[int32](0), MAC: "aa:bb:cc:00:00:01"}, {PF: ptr.To[int32](1)}}}}
	for _, tc := range []struct {
		name    string
		mapping infrav1.ServerMapping
		change  func(*observation)
		pinned  []infrav1.BoundDPU
		err     error
		macs    []string
		asked   bool
		said    vpc.Answer
	}{
		{"labels alone", infrav1.ServerMappingExplicit, nil, nil, nil, nil, false, vpc.No},
		{"pinned", infrav1.ServerMappingExplicitOrMAC, nil, bound, errors.New("down"), []string{"aa:bb:cc:00:00:01"}, false, vpc.No},
		{"first seen", infrav1.ServerMappingExplicitOrMAC, nil, nil, nil, []string{"00:00:00:00:00:09"}, true, vpc.No},
		{"first seen, MAAS is away", infrav1.ServerMappingExplicitOrMAC, nil, nil, errors.New("down"), nil, true, vpc.Unknown},
		{"to be detached", infrav1.ServerMappingExplicitOrMAC, func(o *observation) { o.attachment.Spec.State = infrav1.AttachmentStateDetached }, nil, nil, nil, false, vpc.No},
	} {
		t.Run(tc.name, func(t *testing.T) {
			o := scene()
			o.fabric.Object.Spec.ServerMapping = tc.mapping
			o.fabric.Verifier = func(context.Context, string) (scope.Verifier, error) {
				return scope.Verifier{Account: "a", Verifier: confirming{err: tc.err}}, nil
			}
			if tc.change != nil {
				tc.change(o)
			}
			query := dpfzt.Query{}
			asked := (&Reconciler{Clock: clock.RealClock{}}).macsOf(t.Context(), o, tc.pinned, &query)
			if !slices.Equal(query.MACs, tc.macs) || o.claim.asked != tc.asked {
				t.Errorf("got %v, asked %t", query.MACs, o.claim.asked)
			}
			if got := asked.unless(notMapped); got.Answer != tc.said {
				t.Errorf("a server that was not found is said to be %+v", got)
			}
			if got := asked.unless(yes); got != yes {
				t.Errorf("a server that was found is said to be %+v", got)
			}
		})
	}
}

// confirming is a MAAS that holds every server under every claim, or does not answer.
type confirming struct {
	maas.Verifier
	err error
}

func (c confirming) ConfirmClaim(_ context.Context, owner, token, systemID string) (maas.Machine, maas.Ownership, error) {
	machine := maas.Machine{
		SystemID: systemID, Owner: owner, Annotations: map[string]string{maas.AnnotationToken: maas.TokenHash(token)},
		Interfaces: []maas.Interface{{MAC: "00:00:00:00:00:09"}},
	}
	return machine, machine.ClaimedBy(owner, token), c.err
}
