// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"k8s.io/utils/ptr"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/dpfsim"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/frames"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/ovnlab"
)

const (
	// arrival is how long a frame may take on a busy machine; it takes a millisecond on an idle one.
	arrival = 500 * time.Millisecond
	// quiet is how long nothing must have come where nothing is to come.
	quiet        = 100 * time.Millisecond
	arrivalPoll  = 5 * time.Millisecond
	probeRounds  = 3
	ovnStopsIn   = 30 * time.Second
	representors = "pf%dhpf"
)

// startOVN starts an OVN for DPF to drive, if the world is to have one.
func (w *World) startOVN(ctx, _ context.Context) error {
	if w.options.OVN == nil {
		return nil
	}
	started, err := ovnlab.Start(ctx, ovnlab.Options{Level: *w.options.OVN, Log: w.options.Log.WithName("ovn")})
	if err != nil {
		return err
	}
	w.OVN, w.topology = started, ovnlab.NewTopology(started)
	return nil
}

func (w *World) stopOVN(ctx context.Context) error {
	if w.OVN == nil {
		return nil
	}
	w.topology.Close()
	ctx, cancel := context.WithTimeout(ctx, ovnStopsIn)
	defer cancel()
	return w.OVN.Close(ctx)
}

// driven is the OVN that DPF drives; nil if the simulator plays it.
func (w *World) driven() dpfsim.OVN {
	if w.topology == nil {
		return nil
	}
	return w.topology
}

// askOVN has the fabric ask OVN for the strongest evidence.
func (w *World) askOVN(fabric *infrav1.DPUFabric) {
	if w.OVN == nil {
		return
	}
	fabric.Spec.Backend.OVNVPC.OVN = &infrav1.OVNEndpoints{
		Southbound: w.OVN.Southbound(), Northbound: w.OVN.Northbound(), Barrier: ptr.To(true),
	}
}

// SayOVN writes what the data plane of this world is, and what a run in it shows.
func (w *World) SayOVN(out io.Writer) {
	if w.OVN == nil {
		fmt.Fprintln(out, "  OVN: played by the DPF simulator; not proven: anything about OVN")
		return
	}
	level := w.OVN.Level()
	fmt.Fprintf(out, "  OVN: level %s; shown: %s;\n  not proven: %s\n", level, level.Proven(), level.NotProven())
	if best, lacks := ovnlab.Best(); level == best && lacks != "" {
		fmt.Fprintf(out, "  %s\n", lacks)
	}
}

// probes are frames between ports, each from one port to another.
type probes struct {
	ovn   *ovnlab.Lab
	ports []dpfsim.Port
	// got has, for a sender and a receiver, whether a frame has come.
	got map[[2]int]bool
}

// probe sends frames from each port to each other and returns which of them got something from which; ok is false where OVN
// has no frames.
func (w *World) probe(ctx context.Context, ports []dpfsim.Port) (p *probes, ok bool, err error) {
	if w.OVN == nil || len(ports) == 0 {
		return nil, false, nil
	}
	p = &probes{ovn: w.OVN, ports: ports, got: map[[2]int]bool{}}
	if err := p.listen(func(int, frames.Marker) {}); errors.Is(err, ovnlab.ErrNoFrames) {
		return nil, false, nil
	} else if err != nil {
		return nil, false, err
	}
	begin := time.Now()
	for range probeRounds {
		if err := p.send(ctx, begin); err != nil {
			return nil, false, err
		}
		if err := p.wait(ctx, begin); err != nil {
			return nil, false, err
		}
		if p.complete() {
			break
		}
	}
	return p, true, nil
}

// send sends frames into other VPCs first, so that they have had more time than those that are waited for.
func (p *probes) send(ctx context.Context, begin time.Time) error {
	for _, within := range []bool{false, true} {
		for from := range p.ports {
			for to := range p.ports {
				if from == to || (p.ports[from].VPC == p.ports[to].VPC) != within {
					continue
				}
				if err := p.shoot(ctx, from, to, begin); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (p *probes) shoot(ctx context.Context, from, to int, begin time.Time) error {
	sender, err := station(p.ports[from])
	if err != nil {
		return err
	}
	receiver, err := station(p.ports[to])
	if err != nil {
		return err
	}
	marker := frames.Marker{Kind: frames.Unicast, Sender: uint16(from), Sequence: uint32(to), Sent: begin}
	frame, err := frames.Build(marker, frames.Shot{From: sender, To: receiver})
	if err != nil {
		return err
	}
	return p.ovn.Send(ctx, p.ports[from].DPU, representor(p.ports[from]), frame)
}

func station(port dpfsim.Port) (frames.Station, error) {
	mac, err := net.ParseMAC(port.HostMAC)
	return frames.Station{MAC: mac, Address: port.Address}, err
}

func representor(port dpfsim.Port) string { return fmt.Sprintf(representors, port.PF) }

// listen takes the frames that have come out of every port.
func (p *probes) listen(heard func(at int, marker frames.Marker)) error {
	for at, port := range p.ports {
		received, err := p.ovn.Received(port.DPU, representor(port))
		if err != nil {
			return err
		}
		for _, frame := range received {
			if marker, ok := frames.Read(frame.Data); ok {
				heard(at, marker)
			}
		}
	}
	return nil
}

// wait listens until all frames within VPCs have come and the others had their time, or until all time is over.
func (p *probes) wait(ctx context.Context, begin time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, arrival)
	defer cancel()
	ticker, started := time.NewTicker(arrivalPoll), time.Now()
	defer ticker.Stop()
	for {
		err := p.listen(func(at int, marker frames.Marker) {
			if marker.Sent.Equal(begin) {
				p.got[[2]int{int(marker.Sender), at}] = true
			}
		})
		if err != nil || p.complete() && time.Since(started) >= quiet {
			return err
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// complete says whether every port has heard of every other of its VPC.
func (p *probes) complete() bool {
	for from := range p.ports {
		for to := range p.ports {
			if from != to && p.ports[from].VPC == p.ports[to].VPC && !p.got[[2]int{from, to}] {
				return false
			}
		}
	}
	return true
}

// reach writes, for each two VPCs, how many ordered pairs of ports reach each other: by frames, where OVN has them, and else
// by the simulator's model.
func (w *World) reach(ctx context.Context, out io.Writer) error {
	ports := w.Fabric.Ports()
	sent, framed, err := w.probe(ctx, ports)
	if err != nil {
		return err
	}
	reaches, by := func(from, to int) bool { return w.Fabric.Reachable(ports[from].HostMAC, ports[to].HostMAC) }, "by the simulator's model"
	if framed {
		reaches, by = func(from, to int) bool { return sent.got[[2]int{from, to}] }, "by frames through OVN"
	}
	byVPC := map[string][]int{}
	var vpcs []string
	for i, p := range ports {
		if _, seen := byVPC[p.VPC]; !seen {
			vpcs = append(vpcs, p.VPC)
		}
		byVPC[p.VPC] = append(byVPC[p.VPC], i)
	}
	if len(vpcs) == 0 {
		fmt.Fprintln(out, "  reach: no port is on any VPC")
	}
	for _, from := range vpcs {
		for _, to := range vpcs {
			pairs, reached := 0, 0
			for _, a := range byVPC[from] {
				for _, b := range byVPC[to] {
					if a == b {
						continue
					}
					pairs++
					if reaches(a, b) {
						reached++
					}
				}
			}
			if pairs > 0 {
				_, fromName, _ := strings.Cut(from, "_")
				_, toName, _ := strings.Cut(to, "_")
				fmt.Fprintf(out, "  reach: %s → %s: %d of %d pairs of ports, %s\n", fromName, toName, reached, pairs, by)
			}
		}
	}
	return nil
}
