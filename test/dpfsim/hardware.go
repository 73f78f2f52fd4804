// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package dpfsim

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
)

// DPU is one card to seed a Fabric with.
type DPU struct {
	// Name of the DPU object and of its Node.
	Name string
	// Device is the name of the DPUDevice, Node that of the DPUNode (the server); derived from Name when empty.
	Device, Node string
	// Serial number of the card and MAC address of its first physical function, in any letter case.
	Serial, PF0MAC string
	// SystemID is the MAAS machine the card is in, put on the DPUNode; empty leaves the DPUNode unlabelled.
	SystemID string
	// StandbyPower keeps the card running while its server is off.
	StandbyPower bool
	// Phase of the DPU object; "" is Ready. Any other is one under installation: no Node until FinishInstall.
	Phase string
	// ForeignVPC, "namespace/name", is a VPC of somebody else that has this card's Node already.
	ForeignVPC string
	// NumberOfPFs the host sees; 1 when zero.
	NumberOfPFs int
	// BMC is where the card's BMC serves Redfish, as the operator wrote it; not valid if he did not.
	BMC netip.AddrPort
	// TemplateLabels are those the DPUSet's template gives to the Nodes of its DPUs.
	TemplateLabels map[string]string
}

const noVF = -1

// function is a function of a card as the host sees it.
type function struct{ pf, vf int }

// card is what the hardware of one DPU knows and does, whatever the API servers say.
type card struct {
	DPU
	hostOn     bool
	owner      types.UID // the DPU object whose system runs on the card
	installing string    // phase shown while being installed; "" when installed
	installs   int       // how often an installation began
	// installsItself while DPF is at it, and not a test.
	installsItself bool
	bootID         string    // new with every boot
	upSince        time.Time // when the last boot finished or will
	poweredOff     bool      // the card itself
	rebooting      bool
	// starts counts those of the kubelet beside boots, each of which registers the Node if it is not there.
	starts int
	// nodeless from the moment somebody deletes the Node, which takes the agent's pod with it, until a kubelet registers it.
	nodeless bool
	nodeUID  types.UID
	// settled until the Node is registered for the first time: a card seeded as Ready has its labels on it.
	settled bool
}

type hardware struct {
	mu    sync.Mutex
	clock clock.PassiveClock
	boot  time.Duration
	cards map[string]*card
}

func newHardware(clk clock.PassiveClock, boot time.Duration) *hardware {
	return &hardware{clock: clk, boot: boot, cards: map[string]*card{}}
}

// add puts a card into its server, both running; a card already there stays as it is.
func (h *hardware) add(d DPU, owner types.UID) error {
	if _, err := net.ParseMAC(d.PF0MAC); err != nil {
		return fmt.Errorf("DPU %s: PF0MAC: %w", d.Name, err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, ok := h.cards[d.Name]; !ok {
		h.cards[d.Name] = &card{
			DPU: d, hostOn: true, owner: owner, installing: d.Phase, bootID: uuid.NewString(), upSince: h.clock.Now(), settled: d.Phase == "",
		}
	}
	return nil
}

func (h *hardware) names() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	names := make([]string, 0, len(h.cards))
	for name := range h.cards {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// where lists the cards that match, by DPU name.
func (h *hardware) where(match func(*card) bool) (names []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for name, c := range h.cards {
		if match(c) {
			names = append(names, name)
		}
	}
	return names
}

// get returns a copy of a card.
func (h *hardware) get(name string) (card, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	c, ok := h.cards[name]
	if !ok {
		return card{}, false
	}
	return *c, true
}

// running says whether the card's Arm cores run an installed system.
func (h *hardware) running(name string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	c, ok := h.cards[name]
	return ok && !c.poweredOff && !c.rebooting && c.installing == "" && !h.clock.Now().Before(c.upSince)
}

// change edits a card, if there is one of this name.
func (h *hardware) change(name string, edit func(*card)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if c, ok := h.cards[name]; ok {
		edit(c)
	}
}

// setRebooting takes a card down, or lets it boot.
func (h *hardware) setRebooting(name string, down bool) {
	h.change(name, func(c *card) {
		if c.rebooting && !down {
			c.bootID, c.upSince = uuid.NewString(), h.clock.Now().Add(h.boot)
		}
		c.rebooting = down
	})
}

// setHostPower switches a server; cards without standby power go with it. It returns the cards that went down or up.
func (h *hardware) setHostPower(server string, on bool) (changed []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for name, c := range h.cards {
		if c.Serial != server && c.SystemID != server {
			continue
		}
		c.hostOn = on
		if c.StandbyPower || c.poweredOff == !on {
			continue
		}
		c.poweredOff = !on
		if on {
			c.bootID, c.upSince = uuid.NewString(), h.clock.Now().Add(h.boot)
		}
		changed = append(changed, name)
	}
	return changed
}

// setInstalling starts ("phase") or ends ("") an installation, which ends in a boot.
func (h *hardware) setInstalling(name, phase string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	c, ok := h.cards[name]
	if !ok || c.installing == phase {
		return
	}
	c.installing = phase
	if phase != "" {
		c.installs++
	} else {
		c.bootID, c.upSince = uuid.NewString(), h.clock.Now().Add(h.boot)
	}
}

// hostMAC is the address of a function as the host has it, in lower case; ok is false for one the card does not have.
func (c *card) hostMAC(f function) (mac string, ok bool) {
	pfs := max(c.NumberOfPFs, 1)
	if f.pf < 0 || f.pf >= pfs || f.vf < noVF {
		return "", false
	}
	address, err := net.ParseMAC(c.PF0MAC)
	if err != nil {
		return "", false
	}
	address[5] += byte(f.pf)
	if f.vf != noVF {
		// Virtual functions get locally administered addresses, as the kernel does it.
		address[0] |= 2
		address[4] += byte(f.vf + 1)
	}
	return strings.ToLower(address.String()), true
}
