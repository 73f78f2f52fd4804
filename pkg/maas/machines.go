// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maas

import (
	"context"
	"errors"
	"net/url"
	"slices"
	"strconv"

	"github.com/canonical/gomaasclient/entity"
)

var (
	errNotAMachine = errors.New("the answer is not a machine")
	errNotAList    = errors.New("the answer is not a list")
	errNoUser      = errors.New("the answer names no user")
)

// A query must fit into a request line of 8 KB, the usual limit of proxies.
const (
	idsPerQuery    = 300
	tokensPerQuery = 60
)

// Machine reads one machine. A *NotFoundError is confirmed by a second, different
// question, because a proxy's 404 must not pass for a deleted machine.
func (c *Client) Machine(ctx context.Context, systemID string) (Machine, error) {
	const operation = "read"
	if err := checkSystemID(operation, systemID); err != nil {
		return Machine{}, err
	}
	var machine Machine
	err := c.do(ctx, request{Call: machineCall(operation, systemID)}, func(w wire) error {
		body, err := w.get("machines/"+systemID+"/", "", nil)
		if err != nil {
			return err
		}
		machine, err = decodeMachine(body)
		return err
	})
	if !IsNotFound(err) {
		return machine, err
	}
	listed, listErr := c.MachinesByID(ctx, systemID)
	switch {
	case listErr != nil:
		return Machine{}, listErr
	case len(listed) == 1:
		return listed[0], nil
	}
	return Machine{}, err
}

// MachinesByToken lists the machines allocated under a claim token. MAAS forgets the
// token when a release starts. After an unknown outcome of Allocate an empty list means
// nothing before OutcomeWindow has passed.
func (c *Client) MachinesByToken(ctx context.Context, token string) ([]Machine, error) {
	return c.MachinesByTokens(ctx, token)
}

// MachinesByTokens lists the machines allocated under any of the tokens, in one query
// for each 60. MAAS does not say which machine belongs to which token; annotations do.
func (c *Client) MachinesByTokens(ctx context.Context, tokens ...string) ([]Machine, error) {
	const operation = "list by token"
	if slices.Contains(tokens, "") {
		return nil, &ArgumentError{Call: Call{Operation: operation}, Problem: "an empty token would match machines without any"}
	}
	return c.listInChunks(ctx, operation, "agent_name", tokens, tokensPerQuery)
}

// MachinesByID lists those of the machines that exist and that the account may see, in
// one query for each 300.
func (c *Client) MachinesByID(ctx context.Context, systemIDs ...string) ([]Machine, error) {
	const operation = "list by ID"
	for _, id := range systemIDs {
		if err := checkSystemID(operation, id); err != nil {
			return nil, err
		}
	}
	return c.listInChunks(ctx, operation, "id", systemIDs, idsPerQuery)
}

// MachinesOwnedBy lists the machines of an account. An account that does not exist is
// an *InvalidRequestError.
func (c *Client) MachinesOwnedBy(ctx context.Context, username string) ([]Machine, error) {
	const operation = "list by owner"
	if username == "" {
		return nil, &ArgumentError{Call: Call{Operation: operation}, Problem: "no user name given"}
	}
	return c.list(ctx, operation, url.Values{"owner": {username}})
}

// MachinesMatching lists the machines that meet the constraints and are in one of the
// statuses (none given: in any). It costs MAAS about 16 ms and 20 KB a machine.
func (c *Client) MachinesMatching(ctx context.Context, constraints Constraints, statuses ...Status) ([]Machine, error) {
	const operation = "list matching"
	query, err := constraints.listQuery(operation)
	if err != nil {
		return nil, err
	}
	for _, status := range statuses {
		if status.filter() == "" {
			return nil, &ArgumentError{Call: Call{Operation: operation}, Problem: "unknown status " + strconv.Itoa(int(status))}
		}
		query.Add("status", status.filter())
	}
	return c.list(ctx, operation, query)
}

// listInChunks asks for any of the values. Without values nothing is asked: MAAS would
// list everything.
func (c *Client) listInChunks(ctx context.Context, operation, key string, values []string, size int) ([]Machine, error) {
	machines := []Machine{}
	seen := map[string]bool{}
	for chunk := range slices.Chunk(values, size) {
		part, err := c.list(ctx, operation, url.Values{key: chunk})
		if err != nil {
			return nil, err
		}
		for _, m := range part {
			if !seen[m.SystemID] {
				seen[m.SystemID] = true
				machines = append(machines, m)
			}
		}
	}
	return machines, nil
}

func (c *Client) list(ctx context.Context, operation string, query url.Values) ([]Machine, error) {
	var machines []Machine
	r := request{Call: Call{Operation: operation}, timeout: c.allocateTimeout, secrets: query["agent_name"]}
	err := c.do(ctx, r, func(w wire) error {
		body, err := w.get("machines/", "", query)
		if err != nil {
			return err
		}
		machines, err = decodeMachines(body)
		return err
	})
	return machines, err
}

// PCI IDs by which a BlueField's network functions are known; they come from the PCI ID
// list, not from MAAS.
const (
	VendorMellanox    = "15b3"
	ProductBlueField2 = "a2d6"
	ProductBlueField3 = "a2dc"
)

// Device is a PCI or USB device of a machine, as found by commissioning.
type Device struct {
	ID int
	// VendorID and ProductID in lower-case hex.
	VendorID, ProductID     string
	VendorName, ProductName string
	PCIAddress              string
	NUMANode                int
	// InterfaceID and MAC of the network interface on this device; zero if there is none.
	InterfaceID int
	MAC         string
}

// BlueField reports whether the device is a network function of a BlueField DPU.
func (d Device) BlueField() bool {
	return d.VendorID == VendorMellanox && (d.ProductID == ProductBlueField2 || d.ProductID == ProductBlueField3)
}

// Devices lists the devices of a machine.
func (c *Client) Devices(ctx context.Context, systemID string) ([]Device, error) {
	const operation = "list devices"
	if err := checkSystemID(operation, systemID); err != nil {
		return nil, err
	}
	var devices []Device
	err := c.do(ctx, request{Call: machineCall(operation, systemID)}, func(w wire) error {
		found, err := w.maas.NodeDevices.Get(systemID, &entity.NodeDeviceParams{})
		if err != nil {
			return err
		}
		if found == nil {
			return errNotAList
		}
		devices = make([]Device, 0, len(found))
		for i := range found {
			devices = append(devices, newDevice(&found[i]))
		}
		return nil
	})
	return devices, err
}

func newDevice(d *entity.NodeDevice) Device {
	device := Device{
		ID: d.ID, VendorID: d.VendorID, ProductID: d.ProductID,
		VendorName: d.VendorName, ProductName: d.ProductName,
		PCIAddress: d.PCIAddress, NUMANode: d.NumaNode,
		InterfaceID: d.PhysicalNetworkInterface.ID,
	}
	if mac := d.PhysicalNetworkInterface.MACAddress; mac != "" {
		device.MAC = CanonicalMAC(mac)
	}
	return device
}
