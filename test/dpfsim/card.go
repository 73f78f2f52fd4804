// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package dpfsim

import (
	"context"
	"fmt"
	"strings"
	"sync"
)

// cards is what runs in OVN for each card.
type cards struct {
	mu    sync.Mutex
	known map[string]*runningCard
}

// runningCard is what was last made of a card; its lock makes its changes wait for each other.
type runningCard struct {
	mu             sync.Mutex
	added, running bool
	// resume lets a hung ovn-controller go on; nil while none hangs.
	resume func() error
}

func (c *cards) get(dpu string) *runningCard {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.known == nil {
		c.known = map[string]*runningCard{}
	}
	if c.known[dpu] == nil {
		c.known[dpu] = &runningCard{}
	}
	return c.known[dpu]
}

// follow brings OVN on a card in step with the card: added when it first runs, stopped and started with it, hung and resumed
// with the fault. Where there is no OVN it does nothing.
func (f *Fabric) follow(ctx context.Context, dpu string) error {
	if f.options.OVN == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, ovnCall)
	defer cancel()
	c := f.cards.get(dpu)
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := f.followPower(ctx, c, dpu); err != nil {
		return fmt.Errorf("OVN on DPU %s: %w", dpu, err)
	}
	hung := f.faults.has(OVNControllerHung, dpu)
	switch {
	case hung && c.running && c.resume == nil:
		resume, err := f.options.OVN.HangController(dpu)
		if err != nil {
			return fmt.Errorf("hang OVN controller on DPU %s: %w", dpu, err)
		}
		c.resume = resume
	case !hung && c.resume != nil:
		if err := c.resume(); err != nil {
			return fmt.Errorf("resume OVN controller on DPU %s: %w", dpu, err)
		}
		c.resume = nil
	}
	return nil
}

func (f *Fabric) followPower(ctx context.Context, c *runningCard, dpu string) error {
	running := f.hardware.running(dpu)
	switch {
	case !c.added && running:
		if err := f.options.OVN.AddDPU(ctx, dpu, f.representors(dpu)); err != nil {
			return err
		}
		c.added, c.running = true, true
	case c.running && !running:
		if err := f.options.OVN.StopDPU(ctx, dpu); err != nil {
			return err
		}
		c.running, c.resume = false, nil
	case c.added && !c.running && running:
		if err := f.options.OVN.StartDPU(ctx, dpu); err != nil {
			return err
		}
		c.running = true
	}
	return nil
}

// wipe takes away what a card's switch was configured with. The card is down already.
func (f *Fabric) wipe(ctx context.Context, dpu string) error {
	f.plane.wipe(dpu)
	if f.options.OVN == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, ovnCall)
	defer cancel()
	c := f.cards.get(dpu)
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.added {
		return nil
	}
	if err := f.options.OVN.WipeDPU(ctx, dpu); err != nil {
		return fmt.Errorf("wipe OVN on DPU %s: %w", dpu, err)
	}
	c.running, c.resume = false, nil
	return nil
}

// plugPort puts a port on its switch, unplugPort takes an interface's port off it, wherever it is on the DPU.
func (f *Fabric) plugPort(ctx context.Context, key portKey, id string) error {
	if f.options.OVN != nil {
		ctx, cancel := context.WithTimeout(ctx, ovnCall)
		defer cancel()
		if err := f.options.OVN.Plug(ctx, key.dpu, representor(key.function), id); err != nil {
			return fmt.Errorf("plug %s on DPU %s: %w", representor(key.function), key.dpu, err)
		}
	}
	f.plane.plug(key, id)
	return nil
}

func (f *Fabric) unplugPort(ctx context.Context, dpu, id string) error {
	if f.options.OVN != nil {
		ctx, cancel := context.WithTimeout(ctx, ovnCall)
		defer cancel()
		for _, key := range f.plane.pluggedAt(dpu, id) {
			if err := f.options.OVN.Unplug(ctx, dpu, representor(key.function)); err != nil {
				return fmt.Errorf("unplug %s on DPU %s: %w", representor(key.function), dpu, err)
			}
		}
	}
	f.plane.unplug(dpu, id)
	return nil
}

// representors are those of a card's physical functions.
func (f *Fabric) representors(dpu string) (out []OVNRepresentor) {
	c, _ := f.hardware.get(dpu)
	for pf := range max(c.NumberOfPFs, 1) {
		fn := function{pf: pf, vf: noVF}
		if mac, ok := c.hostMAC(fn); ok {
			out = append(out, OVNRepresentor{Name: representor(fn), MAC: strings.ToLower(mac)})
		}
	}
	return out
}

// representor is a function's name on the card.
func representor(f function) string {
	if f.vf == noVF {
		return fmt.Sprintf("pf%dhpf", f.pf)
	}
	return fmt.Sprintf("pf%dvf%d", f.pf, f.vf)
}
