// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maasmachine

import (
	"slices"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/internal/scope"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
)

func TestAddresses(t *testing.T) {
	m := maas.Machine{Hostname: "srv", FQDN: "srv.maas", IPAddresses: []string{"10.0.0.5"}}
	got := addresses(m, []string{"10.64.0.7", "10.64.0.7", ""})
	want := []clusterv1.MachineAddress{
		{Type: clusterv1.MachineHostName, Address: "srv"},
		{Type: clusterv1.MachineInternalIP, Address: "10.64.0.7"},
		{Type: clusterv1.MachineInternalDNS, Address: "srv.maas"},
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %v", got)
	}
}

func TestInternalIPIsThePrimaryPortsNeverTheProvisioningAddress(t *testing.T) {
	machine := &infrav1.MaasMachine{}
	machine.Spec.Ports = []infrav1.MachinePort{{Name: "storage", Subnet: "s"}, {Name: "tenant", Subnet: "t"}}
	machine.Spec.PrimaryPort = "tenant"
	attachment := &infrav1.DPUAttachment{}
	attachment.Status.Ports = []infrav1.AttachmentPortStatus{{Name: "storage", Address: "10.65.0.7"}, {Name: "tenant", Address: "10.64.0.7"}}
	p := &pass{r: &Reconciler{}, machine: machine, attachment: attachment}
	o := Observation{Ports: true, Server: ServerView{Machine: maas.Machine{IPAddresses: []string{"10.0.0.5"}}}}
	if got := p.internalIPs(t.Context(), o); !slices.Equal(got, []string{"10.64.0.7"}) {
		t.Errorf("got %v", got)
	}
	attachment.Status.Ports[1].Address = ""
	if got := p.internalIPs(t.Context(), o); len(got) != 0 {
		t.Errorf("got %v where the port's address is not known", got)
	}
	o.Ports = false
	if got := p.internalIPs(t.Context(), o); !slices.Equal(got, []string{"10.0.0.5"}) {
		t.Errorf("without ports: got %v", got)
	}
}

func TestEraseIsNeverLessThanTheMinimum(t *testing.T) {
	for _, c := range []struct{ asked, fallback, minimum, want infrav1.ReleaseErase }{
		{"", "", "", infrav1.ReleaseEraseQuick},
		{"", infrav1.ReleaseEraseFull, infrav1.ReleaseEraseQuick, infrav1.ReleaseEraseFull},
		{infrav1.ReleaseEraseNone, infrav1.ReleaseEraseFull, infrav1.ReleaseEraseSecure, infrav1.ReleaseEraseSecure},
		{infrav1.ReleaseEraseNone, infrav1.ReleaseEraseNone, infrav1.ReleaseEraseNone, infrav1.ReleaseEraseNone},
		{infrav1.ReleaseEraseFull, infrav1.ReleaseEraseQuick, infrav1.ReleaseEraseQuick, infrav1.ReleaseEraseFull},
	} {
		p := &pass{machine: &infrav1.MaasMachine{}, identity: &scope.Identity{Object: &infrav1.MaasClusterIdentity{ObjectMeta: metav1.ObjectMeta{Name: "i"}}}}
		p.machine.Spec.Release.Erase = c.asked
		p.identity.Object.Spec.Release = infrav1.IdentityRelease{EraseDefault: c.fallback, EraseMinimum: c.minimum}
		if got := p.erase(); got != c.want {
			t.Errorf("%+v: got %s", c, got)
		}
	}
}

func TestKeepTheFurthestAlongElseTheLowestID(t *testing.T) {
	allocated := func(id string) maas.Machine { return maas.Machine{SystemID: id, Status: maas.StatusAllocated} }
	if got := keep([]maas.Machine{allocated("b"), allocated("a"), allocated("c")}); got.SystemID != "a" {
		t.Errorf("kept %s", got.SystemID)
	}
	if got := keep([]maas.Machine{allocated("a"), {SystemID: "z", Status: maas.StatusDeploying}, {SystemID: "y", Status: maas.StatusFailedDeployment}}); got.SystemID != "z" {
		t.Errorf("kept %s", got.SystemID)
	}
}
