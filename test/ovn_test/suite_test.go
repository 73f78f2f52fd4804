// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

// Package ovn_test runs the provider's client of OVN's databases against OVN itself, and against what stands in for it.
package ovn_test

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/vpc"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/vpc/ovn"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/dpfsim"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/ovnlab"
)

const (
	soon = time.Minute
	poll = 5 * time.Millisecond
	port = "pf0hpf"
	// repeats is how often what is measured is repeated.
	repeats = 50
)

// site is a lab with the network n of VPC v, two DPUs, and a client.
type site struct {
	*WithT
	t        *testing.T
	ctx      context.Context
	lab      *ovnlab.Lab
	topology *ovnlab.Topology
	client   *ovn.Client
}

func start(t *testing.T, level ovnlab.Level, tls bool) *site {
	t.Helper()
	ovnlab.Require(t, level)
	s := &site{WithT: NewWithT(t), t: t}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	s.ctx = ctx
	lab, err := ovnlab.Start(ctx, ovnlab.Options{Level: level, TLS: tls})
	s.Expect(err).NotTo(HaveOccurred())
	t.Cleanup(func() { s.Expect(lab.Close(context.WithoutCancel(ctx))).To(Succeed()) })
	s.lab, s.topology = lab, ovnlab.NewTopology(lab)
	t.Cleanup(s.topology.Close)
	s.client = s.newClient(lab.TLS())
	for i, dpu := range []string{"dpu1", "dpu2"} {
		s.Expect(s.topology.AddDPU(ctx, dpu, []dpfsim.OVNRepresentor{{Name: port, MAC: mac(i + 1)}})).To(Succeed())
	}
	subnet := netip.MustParsePrefix("10.10.1.0/24")
	network := dpfsim.OVNNetwork{
		Network: dpfsim.Network{Namespace: "red", Name: "n", VPC: "v", Subnet: subnet, Gateway: subnet.Addr().Next()},
		DHCP:    true, Join: netip.MustParsePrefix("100.64.0.2/16"),
	}
	s.Expect(s.topology.EnsureNetwork(ctx, network)).To(Succeed())
	s.Expect(s.topology.EnsureVPC(ctx, dpfsim.OVNVPC{Namespace: "red", Name: "v", Networks: []dpfsim.OVNNetwork{network}})).To(Succeed())
	return s
}

func mac(i int) string { return []string{"", "02:aa:00:00:01:01", "02:aa:00:00:01:02"}[i] }

func (s *site) newClient(material *ovnlab.TLS) *ovn.Client {
	s.t.Helper()
	config := ovn.Config{Southbound: s.lab.Southbound(), Northbound: s.lab.Northbound(), Timeout: 5 * time.Second}
	if material != nil {
		config.CA, config.Certificate, config.Key = material.CA, material.Certificate, material.Key
	}
	client, err := ovn.New(config)
	s.Expect(err).NotTo(HaveOccurred())
	s.t.Cleanup(client.Close)
	return client
}

// plug makes a port of a DPU and plugs it.
func (s *site) plug(id, dpu string, i int) {
	s.t.Helper()
	wanted := dpfsim.OVNPort{ID: id, Namespace: "red", VPC: "v", Network: "n", ServiceInterface: strings.TrimPrefix(id, "red_"), Node: dpu, MAC: mac(i), DHCP: true}
	s.Eventually(func() error {
		_, err := s.topology.EnsurePort(s.ctx, wanted)
		return err
	}).WithTimeout(soon).WithPolling(poll).Should(Succeed())
	s.Expect(s.topology.Plug(s.ctx, dpu, port, id)).To(Succeed())
}

// bindings are all that are read.
func (s *site) bindings() ([]vpc.Binding, error) {
	reading, err := s.client.Read(s.ctx)
	return reading.Bindings, err
}

// passed are the chassis that have programmed a value, sorted.
func (s *site) passed(value int64) func() ([]string, error) {
	return func() ([]string, error) {
		reading, err := s.client.Read(s.ctx)
		var passed []string
		for _, chassis := range reading.Chassis {
			if chassis.Config >= value {
				passed = append(passed, chassis.Name)
			}
		}
		slices.Sort(passed)
		return passed, err
	}
}

func (s *site) raise() int64 {
	s.t.Helper()
	value, err := s.client.Raise(s.ctx)
	s.Expect(err).NotTo(HaveOccurred())
	return value
}

// everywhere runs a test on the stand-in and on OVN, over tcp and over ssl.
func everywhere(t *testing.T, test func(s *site)) {
	for _, level := range []ovnlab.Level{ovnlab.StandIn, ovnlab.Switches} {
		for _, tls := range []bool{false, true} {
			t.Run(level.String()+map[bool]string{false: " tcp", true: " ssl"}[tls], func(t *testing.T) { test(start(t, level, tls)) })
		}
	}
}
