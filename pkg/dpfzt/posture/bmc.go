// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package posture

import (
	"cmp"
	"context"
	"net/netip"
	"time"

	"github.com/stmcginnis/gofish/schemas"
)

// What a BlueField-3 BMC says is said here. Links are not followed: a BMC does not choose what is asked of it.
const (
	chassisPath   = "/redfish/v1/Chassis/Card1"
	privilegePath = "/redfish/v1/Chassis/Card1/NetworkAdapters/NvidiaNetworkAdapter/Oem/Nvidia/HostPrivilegeConfig"
	biosPath      = "/redfish/v1/Systems/Bluefield/Bios"
	bootPath      = "/redfish/v1/Systems/Bluefield/SecureBoot"
	nvidiaPath    = "/redfish/v1/Systems/Bluefield/Oem/Nvidia"
)

// Card is one card whose BMC is asked.
type Card struct {
	// Device is the name of the DPUDevice, SerialNumber what the card is known by.
	Device, SerialNumber string
	// BMC is where its BMC serves Redfish; not valid if DPF does not say.
	BMC netip.AddrPort
}

// Credentials log in to a BMC. They print as nothing.
type Credentials struct{ username, password string }

// NewCredentials returns those of a user.
func NewCredentials(username, password string) Credentials {
	return Credentials{username: username, password: password}
}

// String implements fmt.Stringer.
func (Credentials) String() string { return "(not shown)" }

// GoString implements fmt.GoStringer.
func (Credentials) GoString() string { return "(not shown)" }

// Access is what a BMC is asked with.
type Access struct {
	Trust       Trust
	Credentials Credentials
	// Version changes with the credentials: those that were refused are not tried again at once.
	Version string
}

// Limits bound what one reading takes.
type Limits struct {
	// Request bounds one request, to the end of its answer; Total the reading.
	Request, Total time.Duration
	// Impatient ends the reading with the first request that is not answered in time.
	Impatient bool
}

// logoutLimit bounds the end of a session, which nobody waits for.
const logoutLimit = 3 * time.Second

// Read asks the BMC of one card for everything. It sends nothing but GET, and what begins and ends a session.
func Read(ctx context.Context, card Card, access Access, limits Limits, now func() time.Time) Reading {
	at := now()
	ctx, cancel := context.WithTimeout(ctx, limits.Total)
	defer cancel()
	c, err := connect(ctx, card.BMC, access, limits.Request, now)
	if err != nil {
		reading := failed(at, err)
		reading.Took, reading.stalled = now().Sub(at), isLate(err)
		return reading
	}
	defer c.close()
	reading := ask(c, card, limits.Impatient)
	reading.At, reading.Took = at, now().Sub(at)
	return reading
}

// nvidiaSystem and hostPrivileges are NVIDIA's own resources, which gofish does not have.
type nvidiaSystem struct {
	schemas.Entity
	Mode      any
	HostRshim any
}

type hostPrivileges struct {
	schemas.Entity
	PrivilegeMode any
}

// ask reads the resources one after the other, last the one that some firmware does not answer in NIC mode.
func ask(c *connection, card Card, impatient bool) Reading {
	f := facts{expectedSerial: card.SerialNumber}
	var failure error
	stalled := false
	note := func(err error) bool {
		stalled = stalled || isLate(err)
		if whole(err) {
			failure = cmp.Or(failure, err)
		}
		return !isRefused(err) && (!impatient || !isLate(err))
	}
	steps := []func() error{
		func() error {
			chassis, err := get[schemas.Chassis](c, chassisPath)
			f.serial = property{name: "SerialNumber", resource: "Chassis/Card1", err: err}
			if err == nil {
				f.serial.value = text(chassis.SerialNumber)
			}
			return err
		},
		func() error {
			privileges, err := get[hostPrivileges](c, privilegePath)
			f.privilege = property{name: "PrivilegeMode", resource: "HostPrivilegeConfig", err: err}
			if err == nil {
				f.privilege.value = text(privileges.PrivilegeMode)
			}
			return err
		},
		func() error {
			bios, err := get[schemas.Bios](c, biosPath)
			f.biosHost = property{name: "HostPrivilegeLevel", resource: "Systems/Bluefield/Bios", err: err}
			f.cpuModel = property{name: "InternalCPUModel", resource: "Systems/Bluefield/Bios", err: err}
			if err == nil {
				// Firmware before 2024 spells them with spaces.
				f.biosHost.value = cmp.Or(text(bios.Attributes["HostPrivilegeLevel"]), text(bios.Attributes["Host Privilege Level"]))
				f.cpuModel.value = cmp.Or(text(bios.Attributes["InternalCPUModel"]), text(bios.Attributes["Internal CPU Model"]))
			}
			return err
		},
		func() error {
			boot, err := get[schemas.SecureBoot](c, bootPath)
			f.currentBoot = property{name: "SecureBootCurrentBoot", resource: "Systems/Bluefield/SecureBoot", err: err}
			if err == nil {
				f.currentBoot.value = text(string(boot.SecureBootCurrentBoot))
			}
			return err
		},
		func() error {
			system, err := get[nvidiaSystem](c, nvidiaPath)
			f.mode = property{name: "Mode", resource: "Systems/Bluefield/Oem/Nvidia", err: err}
			f.rshim = property{name: "HostRshim", resource: "Systems/Bluefield/Oem/Nvidia", err: err}
			if err == nil {
				f.mode.value, f.rshim.value = text(system.Mode), text(system.HostRshim)
			}
			return err
		},
	}
	for _, step := range steps {
		if !note(step()) {
			reading := failed(time.Time{}, failure)
			reading.stalled = stalled
			return reading
		}
	}
	return Reading{Results: f.results(), Err: failure, stalled: stalled}
}
