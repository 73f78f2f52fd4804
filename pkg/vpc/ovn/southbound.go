// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package ovn

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/ovn-kubernetes/libovsdb/ovsdb"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/vpc"
)

// Tables of the southbound database, and columns asked of several.
const (
	portBinding     = "Port_Binding"
	datapathBinding = "Datapath_Binding"
	chassis         = "Chassis"
	chassisPrivate  = "Chassis_Private"

	nbCfg = "nb_cfg"
)

// unknownMAC stands among a port's MAC addresses for any.
const unknownMAC = "unknown"

// needed are the columns without which there is nothing to say. All others may be lacking in an older schema.
var needed = map[string][]string{portBinding: {"logical_port", "type", "chassis"}, chassis: {"name"}}

// readSouthbound asks for all tables in one transaction, so that they fit each other.
func readSouthbound(ctx context.Context, s *session) (vpc.OVN, error) {
	for table, columns := range needed {
		if len(s.schema.columns(table, columns...)) != len(columns) {
			return vpc.OVN{}, malformed("its schema has no table %s with columns %s", table, strings.Join(columns, ", "))
		}
	}
	operations := questions(&s.schema)
	results, err := s.transact(ctx, southboundDatabase, operations...)
	if err != nil {
		return vpc.OVN{}, err
	}
	rows := map[string][]row{}
	for i := range operations {
		rows[operations[i].Table] = results[i].Rows
	}
	reading, err := read(&s.schema, rows)
	if err != nil {
		return vpc.OVN{}, malformed("%w", err)
	}
	return reading, nil
}

// questions ask for the columns that the schema has.
func questions(s *schema) []ovsdb.Operation {
	selection := func(table string, columns ...string) ovsdb.Operation {
		return ovsdb.Operation{Op: ovsdb.OperationSelect, Table: table, Columns: s.columns(table, columns...)}
	}
	ports := selection(portBinding, "logical_port", "mac", "chassis", "datapath", "up")
	ports.Where = []ovsdb.Condition{ovsdb.NewCondition("type", ovsdb.ConditionEqual, "")}
	operations := []ovsdb.Operation{ports, selection(chassis, "_uuid", "name", nbCfg)}
	if s.has(datapathBinding, "external_ids") && s.has(portBinding, "datapath") {
		operations = append(operations, selection(datapathBinding, "_uuid", "external_ids"))
	}
	if s.has(chassisPrivate, "name") && s.has(chassisPrivate, nbCfg) {
		operations = append(operations, selection(chassisPrivate, "name", nbCfg))
	}
	return operations
}

// read makes a reading of the rows.
func read(s *schema, rows map[string][]row) (vpc.OVN, error) {
	reading := vpc.OVN{}
	names, all, err := readChassis(s, rows)
	if err != nil {
		return reading, err
	}
	reading.Chassis = all
	switches, err := readSwitches(rows[datapathBinding])
	if err != nil {
		return reading, err
	}
	for _, r := range rows[portBinding] {
		binding, err := readBinding(s, r, names, switches)
		if err != nil {
			return reading, fmt.Errorf("a row of %s: %w", portBinding, err)
		}
		reading.Bindings = append(reading.Bindings, binding)
	}
	return reading, nil
}

// readChassis returns the names of chassis by UUID, and what each has programmed: its own row in Chassis_Private says so, in older
// schemas, or of older controllers, that in Chassis.
func readChassis(s *schema, rows map[string][]row) (map[string]string, []vpc.Chassis, error) {
	private := map[string]int64{}
	for _, r := range rows[chassisPrivate] {
		name, errName := one[string](r["name"], false)
		config, errConfig := one[int64](r[nbCfg], true)
		if errName != nil || errConfig != nil {
			return nil, nil, fmt.Errorf("a row of %s: %w", chassisPrivate, errNotation)
		}
		private[name] = config
	}
	names, all := map[string]string{}, []vpc.Chassis(nil)
	for _, r := range rows[chassis] {
		uuid, errUUID := reference(r["_uuid"])
		name, errName := one[string](r["name"], false)
		config, own := private[name]
		var errConfig error
		if !own && s.has(chassis, nbCfg) {
			config, errConfig = one[int64](r[nbCfg], true)
		}
		if errUUID != nil || errName != nil || errConfig != nil || uuid == "" || name == "" {
			return nil, nil, fmt.Errorf("a row of %s: %w", chassis, errNotation)
		}
		names[uuid] = name
		all = append(all, vpc.Chassis{Name: name, Config: config})
	}
	return names, all, nil
}

// readSwitches returns the names of datapaths by UUID, as far as they have one.
func readSwitches(rows []row) (map[string]string, error) {
	switches := map[string]string{}
	for _, r := range rows {
		uuid, errUUID := reference(r["_uuid"])
		name, errName := entry(r["external_ids"], "name")
		if errUUID != nil || errName != nil || uuid == "" {
			return nil, fmt.Errorf("a row of %s: %w", datapathBinding, errNotation)
		}
		switches[uuid] = name
	}
	return switches, nil
}

func readBinding(s *schema, r row, chassisNames, switches map[string]string) (vpc.Binding, error) {
	var binding vpc.Binding
	var err error
	if binding.LogicalPort, err = one[string](r["logical_port"], false); err != nil {
		return binding, fmt.Errorf("column logical_port: %w", err)
	}
	uuid, err := reference(r["chassis"])
	if err != nil {
		return binding, fmt.Errorf("column chassis: %w", err)
	}
	if uuid != "" {
		if binding.Chassis = chassisNames[uuid]; binding.Chassis == "" {
			return binding, fmt.Errorf("column chassis refers to no row of %s", chassis)
		}
	}
	binding.Up = binding.Chassis != ""
	if s.has(portBinding, "up") {
		up, err := one[bool](r["up"], true)
		if err != nil {
			return binding, fmt.Errorf("column up: %w", err)
		}
		// Of a port that a controller let go, up may stay true.
		binding.Up = binding.Up && up
	}
	if s.has(portBinding, "datapath") {
		uuid, err := reference(r["datapath"])
		if err != nil {
			return binding, fmt.Errorf("column datapath: %w", err)
		}
		binding.Switch = switches[uuid]
	}
	if s.has(portBinding, "mac") {
		macs, err := atoms[string](r["mac"])
		if err != nil {
			return binding, fmt.Errorf("column mac: %w", err)
		}
		binding.MACs, binding.Addresses = addresses(macs)
	}
	return binding, nil
}

// addresses reads the elements of Port_Binding.mac: "<MAC> <address>...", "<MAC> dynamic", "unknown", "dynamic", "router", and a
// router's port's addresses, which have the length of their network. What is none of these is left out: it allows nothing.
func addresses(elements []string) (macs []string, addresses []netip.Addr) {
	for _, element := range elements {
		for i, word := range strings.Fields(element) {
			if hardware, err := net.ParseMAC(word); i == 0 && err == nil && len(hardware) == 6 {
				macs = append(macs, hardware.String())
				continue
			}
			if i == 0 && word == unknownMAC {
				macs = append(macs, unknownMAC)
			}
			if prefix, err := netip.ParsePrefix(word); err == nil {
				addresses = append(addresses, prefix.Addr())
			} else if address, err := netip.ParseAddr(word); err == nil {
				addresses = append(addresses, address)
			}
		}
	}
	return macs, addresses
}
