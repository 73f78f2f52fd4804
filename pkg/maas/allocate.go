// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maas

import (
	"context"
	"errors"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// Constraints select machines. Empty fields do not constrain; fields are ANDed.
type Constraints struct {
	// SystemIDs: any of these.
	SystemIDs []string
	// NotSystemIDs: none of these.
	NotSystemIDs []string
	// Zone and Zones: in this zone, and in one of these.
	Zone  string
	Zones []string
	// NotZones: in none of these.
	NotZones []string
	// Pool and Pools: in this resource pool, and in one of these.
	Pool  string
	Pools []string
	// NotPools: in none of these.
	NotPools []string
	// Tags: all of these.
	Tags []string
	// NotTags: none of these.
	NotTags []string
	// Architecture such as "amd64" or "amd64/generic".
	Architecture string
	MinCPU       int
	MinMemoryMiB int
	// MinDiskGB: at least one disk of this size, in 10^9 bytes.
	MinDiskGB int
	// Devices: has devices that match all of these.
	Devices []DeviceMatch
}

// DeviceMatch selects machines by a PCI device, with IDs in lower-case hex.
type DeviceMatch struct {
	VendorID string
	// ProductID may be empty: any product of the vendor.
	ProductID string
}

const maxToken = 255

// Allocate takes the cheapest free machine that meets the constraints and labels it with
// the token. It is not idempotent: call it only after MachinesByToken found nothing,
// and, after an *UnknownOutcomeError, found nothing for OutcomeWindow. Otherwise:
// *NoMatchError (nothing free now), *ConstraintError (can never match),
// *RetryableError (nothing was taken; the same call may succeed later).
//
// NotSystemIDs and several zones or pools are not known to MAAS' allocate; with them the
// free machines are listed first and offered by system ID.
func (c *Client) Allocate(ctx context.Context, token string, constraints Constraints, comment string) (Machine, error) {
	call := Call{Operation: "allocate"}
	if token == "" || len(token) > maxToken {
		return Machine{}, &ArgumentError{Call: call, Problem: "the token is empty or longer than 255 characters"}
	}
	constraints, err := c.resolve(ctx, call, constraints)
	if err != nil {
		return Machine{}, err
	}
	form, err := constraints.allocateForm(call.Operation)
	if err != nil {
		return Machine{}, err
	}
	form.Set("agent_name", token)
	if comment != "" {
		form.Set("comment", comment)
	}
	var machine Machine
	r := request{Call: call, mutating: true, timeout: c.allocateTimeout, secrets: []string{token}}
	err = c.do(ctx, r, func(w wire) error {
		body, err := w.post("machines/", "allocate", form)
		if err != nil {
			return err
		}
		machine, err = decodeMachine(body)
		return err
	})
	if err != nil {
		return Machine{}, allocateError(err)
	}
	return machine, nil
}

// allocateError gives the two refusals their meaning for allocate.
func allocateError(err error) error {
	var conflict *StateConflictError
	var invalid *InvalidRequestError
	switch {
	case IsUnknownOutcome(err):
		return err
	case errors.As(err, &conflict):
		return &NoMatchError{Call: conflict.Call, Message: conflict.Message}
	case errors.As(err, &invalid):
		return &ConstraintError{InvalidRequestError: *invalid}
	}
	return err
}

// resolve replaces what allocate cannot say by the system IDs of free machines.
func (c *Client) resolve(ctx context.Context, call Call, constraints Constraints) (Constraints, error) {
	zones, pools := constraints.zones(), constraints.pools()
	if constraints.Zone != "" && len(zones) == 0 || constraints.Pool != "" && len(pools) == 0 {
		return constraints, &ConstraintError{InvalidRequestError{Call: call, Message: "the zone or pool asked for is not among those allowed"}}
	}
	if len(zones) <= 1 && len(pools) <= 1 && len(constraints.NotSystemIDs) == 0 {
		return constraints, nil
	}
	if len(zones) <= 1 && len(pools) <= 1 && len(constraints.SystemIDs) > 0 {
		excluded := func(id string) bool { return slices.Contains(constraints.NotSystemIDs, id) }
		constraints.SystemIDs = slices.DeleteFunc(slices.Clone(constraints.SystemIDs), excluded)
	} else {
		free, err := c.MachinesMatching(ctx, constraints, StatusReady)
		if err != nil {
			return constraints, allocateError(err)
		}
		constraints.SystemIDs = nil
		for i := range free {
			constraints.SystemIDs = append(constraints.SystemIDs, free[i].SystemID)
		}
		if len(zones) > 1 {
			constraints.Zones = nil
		}
		if len(pools) > 1 {
			constraints.Pools = nil
		}
	}
	constraints.NotSystemIDs = nil
	if len(constraints.SystemIDs) == 0 {
		return constraints, &NoMatchError{Call: call, Message: "no free machine besides those excluded"}
	}
	return constraints, nil
}

func (k Constraints) zones() []string { return oneOf(k.Zone, k.Zones) }
func (k Constraints) pools() []string { return oneOf(k.Pool, k.Pools) }

// oneOf returns the values that satisfy both; none if they contradict each other.
func oneOf(single string, several []string) []string {
	switch {
	case single == "":
		return several
	case len(several) == 0 || slices.Contains(several, single):
		return []string{single}
	}
	return nil
}

// allocateForm is for constraints that went through resolve.
func (k Constraints) allocateForm(operation string) (url.Values, error) {
	form, err := k.common(operation)
	if err != nil {
		return nil, err
	}
	add(form, "system_id", k.SystemIDs)
	return form, nil
}

func (k Constraints) listQuery(operation string) (url.Values, error) {
	query, err := k.common(operation)
	if err != nil {
		return nil, err
	}
	if k.Zone != "" && len(k.zones()) == 0 || k.Pool != "" && len(k.pools()) == 0 {
		return nil, &ArgumentError{Call: Call{Operation: operation}, Problem: "the zone or pool asked for is not among those allowed"}
	}
	add(query, "id", k.SystemIDs)
	add(query, "not_id", k.NotSystemIDs)
	return query, nil
}

// common has the constraints that list and allocate spell alike.
func (k Constraints) common(operation string) (url.Values, error) {
	for _, id := range slices.Concat(k.SystemIDs, k.NotSystemIDs) {
		if err := checkSystemID(operation, id); err != nil {
			return nil, err
		}
	}
	values := url.Values{}
	add(values, "zone", k.zones())
	add(values, "not_in_zone", k.NotZones)
	add(values, "pool", k.pools())
	add(values, "not_in_pool", k.NotPools)
	add(values, "tags", k.Tags)
	add(values, "not_tags", k.NotTags)
	if k.Architecture != "" {
		values.Set("arch", k.Architecture)
	}
	if k.MinCPU > 0 {
		values.Set("cpu_count", strconv.Itoa(k.MinCPU))
	}
	if k.MinMemoryMiB > 0 {
		values.Set("mem", strconv.Itoa(k.MinMemoryMiB))
	}
	if k.MinDiskGB > 0 {
		values.Set("storage", "disk:"+strconv.Itoa(k.MinDiskGB))
	}
	for _, device := range k.Devices {
		add(values, "devices", []string{device.constraint()})
	}
	return values, nil
}

func (d DeviceMatch) constraint() string {
	var terms []string
	if d.VendorID != "" {
		terms = append(terms, "vendor_id="+d.VendorID)
	}
	if d.ProductID != "" {
		terms = append(terms, "product_id="+d.ProductID)
	}
	return strings.Join(terms, ",")
}

func add(values url.Values, key string, items []string) {
	for _, item := range items {
		if item != "" {
			values.Add(key, item)
		}
	}
}
