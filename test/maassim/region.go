// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maassim

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"k8s.io/utils/clock"
)

// Options configure a Region.
type Options struct {
	// Clock defaults to the real one. OAuth timestamps are checked against it.
	Clock clock.Clock
	// Timing says how long things take.
	Timing Timing
	// Version is what version/ reports; default "3.7.3".
	Version string
	// EraseOnRelease is the site's setting enable_disk_erasing_on_release: every release erases, whatever it asks for.
	EraseOnRelease bool
	// ReleaseScripts are release scripts besides wipe-disks. They take no time and do nothing.
	ReleaseScripts []string
}

// Timing says how long things take. Zero means the default named here. A negative duration means "never by itself" for
// what hardware does (only the driver endpoint ends it) and "no time" for Call, Allocate and PerMachineList.
type Timing struct {
	// PowerOff and PowerOn pass between the command and the change being seen; default 200 ms each.
	PowerOff, PowerOn time.Duration
	// Deploy passes between power on and the installed OS asking for its user-data; default 1 s.
	Deploy time.Duration
	// Erase passes between the ephemeral system's boot and clean disks; default 500 ms.
	Erase time.Duration
	// Commission is how long commissioning takes; default 500 ms.
	Commission time.Duration
	// Call is the latency of any call, default 1 ms; PerMachineList is added per machine that a list returns, default 50 µs.
	Call, PerMachineList time.Duration
	// Operations are latencies of single operations, by the names of [Call].Operation, instead of Call.
	Operations map[string]time.Duration
	// Allocate is spent inside the region-wide lock that serializes allocations; default 2 ms.
	Allocate time.Duration
	// Workers is how many calls are worked on at once, the others wait in the order they came: a region with that many
	// worker processes. 0 means no limit. An injected delay or hang takes up no worker.
	Workers int
	// DeployTimeout ends a deployment that nothing else ended; default 60 min.
	DeployTimeout time.Duration
	// ReleaseTimeout ends a release whose power off was never seen; default 5 min.
	ReleaseTimeout time.Duration
}

// MeasuredTiming is what calls took on a real region (MAAS 3.7.3, one worker process, two cores): alone 0.03 s for an
// events query, 0.11 s for one machine, 16 ms more per machine in a list, 0.13 to 0.4 s for what changes something; together
// about 5 calls a second, however many clients there are. Within that range the split among the operations is our own.
// Several workers took allocates from each other by conflict and replay, which is not in it. Hardware has its defaults.
func MeasuredTiming() Timing {
	return Timing{
		Workers: 1, Call: 30 * time.Millisecond, PerMachineList: 16 * time.Millisecond, Allocate: 370 * time.Millisecond,
		Operations: map[string]time.Duration{
			opReadMachine: 110 * time.Millisecond, opListMachines: 110 * time.Millisecond, opListNodes: 110 * time.Millisecond,
			opDeploy: 200 * time.Millisecond, opRelease: 200 * time.Millisecond, opReleaseMachines: 200 * time.Millisecond,
			opAbort: 200 * time.Millisecond, opPowerOn: 200 * time.Millisecond, opPowerOff: 130 * time.Millisecond,
			opAnnotate: 130 * time.Millisecond, opMarkBroken: 200 * time.Millisecond,
		},
	}
}

func (t Timing) withDefaults() Timing {
	setDefault(&t.PowerOff, 200*time.Millisecond)
	setDefault(&t.PowerOn, 200*time.Millisecond)
	setDefault(&t.Deploy, time.Second)
	setDefault(&t.Erase, 500*time.Millisecond)
	setDefault(&t.Commission, 500*time.Millisecond)
	setDefault(&t.Call, time.Millisecond)
	setDefault(&t.PerMachineList, 50*time.Microsecond)
	setDefault(&t.Allocate, 2*time.Millisecond)
	setDefault(&t.DeployTimeout, 60*time.Minute)
	setDefault(&t.ReleaseTimeout, 5*time.Minute)
	return t
}

// Hardware is what the physical world does when MAAS acts on it. It is called from [Region.Run], one call at a time in
// the order things happened, without the Region's lock; it must not block for long.
type Hardware interface {
	// PowerChanged says that the server's power went on or off.
	PowerChanged(systemID string, on bool)
	// Boot says that the freshly installed OS fetched its user-data: the machine just became Deployed. userData is
	// decoded (as sent when it was no base64); the claim's token at that time is in the journal's "deployed" effect.
	// Later power cycles of a deployed machine call only PowerChanged.
	Boot(systemID string, userData []byte)
	// Wiped says that the installed OS will not run again: the server went off in a release, or booted the system that
	// erases its disks.
	Wiped(systemID string)
}

// Region is one simulated MAAS region. Its methods are safe for concurrent use.
type Region struct {
	clock   clock.Clock
	timing  Timing
	version string

	eraseOnRelease bool
	releaseScripts []string

	// allocating serializes allocations as the region's advisory lock does.
	allocating chan struct{}
	// workers has one place per worker; nil means no limit.
	workers chan struct{}
	wake    chan struct{}
	done    chan struct{}
	stop    sync.Once

	// mu guards all below. Unexported methods run with it held unless they say otherwise.
	mu       sync.Mutex
	users    map[string]*user
	nonces   map[string]time.Time
	machines map[string]*machine
	order    []*machine
	zones    []string
	pools    []string
	tags     []string
	images   []string
	subnets  []*subnet
	fabrics  []string
	vlans    []string
	ips      map[netip.Addr]*machine
	nextNIC  int

	events  []event
	effects []Effect
	calls   map[Call]int
	faults  []*injected

	timers    timerQueue
	nextTimer int
	hardware  Hardware
	physical  []func(Hardware)
}

// New makes a region with the "default" zone and pool, two Ubuntu images, no accounts and no machines. Nothing that
// takes time happens before [Region.Run].
func New(options Options) *Region {
	if options.Clock == nil {
		options.Clock = clock.RealClock{}
	}
	setDefault(&options.Version, "3.7.3")
	region := &Region{
		clock:   options.Clock,
		timing:  options.Timing.withDefaults(),
		version: options.Version,

		eraseOnRelease: options.EraseOnRelease,
		releaseScripts: options.ReleaseScripts,

		allocating: make(chan struct{}, 1),
		wake:       make(chan struct{}, 1),
		done:       make(chan struct{}),
		users:      map[string]*user{},
		nonces:     map[string]time.Time{},
		machines:   map[string]*machine{},
		zones:      []string{"default"},
		pools:      []string{"default"},
		images:     []string{"ubuntu/jammy", "ubuntu/noble"},
		ips:        map[netip.Addr]*machine{},
		calls:      map[Call]int{},
	}
	if options.Timing.Workers > 0 {
		region.workers = make(chan struct{}, options.Timing.Workers)
	}
	return region
}

// SetHardware installs the callbacks; nil removes them.
func (r *Region) SetHardware(hardware Hardware) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.hardware = hardware
}

// AddZone adds an availability zone; a known name changes nothing.
func (r *Region) AddZone(name string) { r.addName(&r.zones, name) }

// AddPool adds a resource pool; a known name changes nothing.
func (r *Region) AddPool(name string) { r.addName(&r.pools, name) }

// AddTag adds a tag; a known name changes nothing.
func (r *Region) AddTag(name string) { r.addName(&r.tags, name) }

// AddImage makes an image deployable, named "os/series" such as "custom/capi-1.36".
func (r *Region) AddImage(name string) { r.addName(&r.images, name) }

func (r *Region) addName(names *[]string, name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !slices.Contains(*names, name) {
		*names = append(*names, name)
	}
}

// AddMachine racks a server. It fails on a duplicate system ID, hostname or MAC and on an unknown zone, pool, tag or owner.
func (r *Region) AddMachine(spec Machine) error {
	spec, err := spec.withDefaults()
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.checkNewMachine(spec); err != nil {
		return err
	}
	r.insertMachine(spec)
	return nil
}

func (r *Region) checkNewMachine(spec Machine) error {
	if r.machines[spec.SystemID] != nil {
		return fmt.Errorf("machine %s exists already", spec.SystemID)
	}
	if !slices.Contains(r.zones, spec.Zone) {
		return fmt.Errorf("machine %s: add zone %q first", spec.SystemID, spec.Zone)
	}
	if !slices.Contains(r.pools, spec.Pool) {
		return fmt.Errorf("machine %s: add pool %q first", spec.SystemID, spec.Pool)
	}
	for _, tag := range spec.Tags {
		if !slices.Contains(r.tags, tag) {
			return fmt.Errorf("machine %s: add tag %q first", spec.SystemID, tag)
		}
	}
	if spec.Owner != "" && r.users[spec.Owner] == nil {
		return fmt.Errorf("machine %s: add user %q first", spec.SystemID, spec.Owner)
	}
	for _, other := range r.order {
		if other.spec.Hostname == spec.Hostname {
			return fmt.Errorf("machine %s: hostname %q belongs to %s", spec.SystemID, spec.Hostname, other.id())
		}
		for _, nic := range spec.Interfaces {
			if nic.MAC != "" && other.hasMAC(nic.MAC) {
				return fmt.Errorf("machine %s: MAC %s belongs to %s", spec.SystemID, nic.MAC, other.id())
			}
		}
	}
	return nil
}

func (r *Region) insertMachine(spec Machine) *machine {
	m := &machine{
		spec:        spec,
		status:      spec.Status,
		owner:       spec.Owner,
		annotations: map[string]string{},
		on:          spec.PoweredOn,
		netboot:     true,
		pending:     map[string]int{},
		firstNIC:    r.nextNIC + 1,
		addresses:   map[int]netip.Addr{},
	}
	r.nextNIC += len(spec.Interfaces)
	m.power = m.queriedPower()
	for i, nic := range spec.Interfaces {
		if nic.Subnet != "" {
			r.subnetFor(nic)
		}
		if address, err := netip.ParseAddr(nic.IPAddress); err == nil {
			m.addresses[i] = address
			r.ips[address] = m
		}
	}
	r.machines[spec.SystemID] = m
	r.order = append(r.order, m)
	return m
}

// MachineState is a machine as a god's eye sees it, including what the API hides.
type MachineState struct {
	// Spec is what was added, with later changes of hostname, zone, pool and tags.
	Spec       Machine
	SystemID   string
	Hostname   string
	Zone, Pool string
	Status     int
	StatusName string
	Owner      string
	// AgentName is MAAS' value: empty once a release started. Claim is the last one since the machine was Ready or New.
	AgentName, Claim string
	Annotations      map[string]string
	// Power is what MAAS believes (on, off, unknown), PoweredOn the truth.
	Power                 string
	PoweredOn             bool
	Locked, Netboot       bool
	OSystem, DistroSeries string
	ErrorDescription      string
	IPAddresses           []string
	// OSInstalled says that an OS was deployed (or is being written) that has not been wiped or switched off by a release.
	OSInstalled bool
	// Dirty says that a deployment wrote to the disks and no erase has succeeded since; ErasedSince is when the last
	// successful erase ended, zero when there was none or a deployment followed.
	Dirty       bool
	ErasedSince time.Time
	DeployedAt  time.Time
	StatusSince time.Time
}

// Machines is a snapshot of all machines, in the order they were added.
func (r *Region) Machines() []MachineState {
	r.mu.Lock()
	defer r.mu.Unlock()
	states := make([]MachineState, 0, len(r.order))
	for _, m := range r.order {
		spec := m.spec
		spec.Tags = slices.Clone(spec.Tags)
		spec.Interfaces = slices.Clone(spec.Interfaces)
		spec.Devices = slices.Clone(spec.Devices)
		states = append(states, MachineState{
			Spec: spec, SystemID: m.id(), Hostname: spec.Hostname, Zone: spec.Zone, Pool: spec.Pool,
			Status: m.status, StatusName: StatusName(m.status), Owner: m.owner,
			AgentName: m.agentName, Claim: m.claim, Annotations: maps.Clone(m.annotations),
			Power: m.power, PoweredOn: m.on, Locked: m.locked, Netboot: m.netboot,
			OSystem: m.osystem, DistroSeries: m.series, ErrorDescription: m.errorDescription,
			IPAddresses: m.ipAddresses(), OSInstalled: m.installed, Dirty: m.dirty,
			ErasedSince: m.erasedSince, DeployedAt: m.deployedAt, StatusSince: m.statusSince,
		})
	}
	return states
}
