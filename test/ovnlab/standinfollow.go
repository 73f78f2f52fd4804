// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package ovnlab

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/ovn-kubernetes/libovsdb/ovsdb"
)

// standInRows is what both databases have between two transactions.
type standInRows struct {
	nbGlobal *standInNBGlobal
	switches []*standInSwitch
	ports    []*standInSwitchPort
	routers  []*standInRouter
	inner    []*standInRouterPort

	sbGlobal  *standInSBGlobal
	chassis   []*standInChassis
	private   []*standInChassisPrivate
	datapaths []*standInDatapath
	bindings  []*standInPortBinding
}

func (s *standIn) readRows() (*standInRows, error) {
	r := &standInRows{}
	var errs []error
	for _, d := range []*standInDatabase{s.nb, s.sb} {
		d.rows.mu.RLock()
		defer d.rows.mu.RUnlock()
	}
	nbGlobals := rowsInto[standInNBGlobal](s.nb, "NB_Global", &errs)
	r.switches = rowsInto[standInSwitch](s.nb, tableSwitch, &errs)
	r.ports = rowsInto[standInSwitchPort](s.nb, tablePort, &errs)
	r.routers = rowsInto[standInRouter](s.nb, tableRouter, &errs)
	r.inner = rowsInto[standInRouterPort](s.nb, tableRouterPort, &errs)
	sbGlobals := rowsInto[standInSBGlobal](s.sb, "SB_Global", &errs)
	r.chassis = rowsInto[standInChassis](s.sb, "Chassis", &errs)
	r.private = rowsInto[standInChassisPrivate](s.sb, "Chassis_Private", &errs)
	r.datapaths = rowsInto[standInDatapath](s.sb, "Datapath_Binding", &errs)
	r.bindings = rowsInto[standInPortBinding](s.sb, "Port_Binding", &errs)
	if len(nbGlobals) != 1 || len(sbGlobals) != 1 {
		return nil, errors.Join(append(errs, errors.New("not one row in NB_Global and SB_Global"))...)
	}
	r.nbGlobal, r.sbGlobal = nbGlobals[0], sbGlobals[0]
	slices.SortFunc(r.ports, func(a, b *standInSwitchPort) int { return cmp.Compare(a.Name, b.Name) })
	return r, errors.Join(errs...)
}

func rowsInto[T any](d *standInDatabase, table string, errs *[]error) []*T {
	out, err := rowsOf[T](d, table)
	if err != nil {
		*errs = append(*errs, err)
	}
	return out
}

// pass does what there is to do for northd and for the controllers. Each writes in one transaction what belongs together, so
// that a configuration's number is never there before what it counts.
func (s *standIn) pass() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.nb == nil || s.sb == nil {
		return nil // closed
	}
	if !s.northdHung {
		rows, err := s.readRows()
		if err != nil {
			return err
		}
		if err := errors.Join(s.nb.transact(rows.addresses()), s.sb.transact(rows.compile())); err != nil {
			return err
		}
	}
	rows, err := s.readRows()
	if err != nil {
		return err
	}
	if err := s.sb.transact(s.obey(rows)); err != nil || s.northdHung {
		return err
	}
	if rows, err = s.readRows(); err != nil {
		return err
	}
	return s.nb.transact(rows.reportUp())
}

// addresses gives ports that ask for one the lowest free address of their switch.
func (r *standInRows) addresses() (operations []ovsdb.Operation) {
	for _, ls := range r.switches {
		subnet, err := netip.ParsePrefix(ls.OtherConfig["subnet"])
		if err != nil {
			continue
		}
		taken := r.taken(ls, subnet)
		for _, port := range r.ports {
			if !slices.Contains(ls.Ports, port.UUID) || len(port.Addresses) != 1 || port.DynamicAddresses != nil {
				continue
			}
			mac, dynamic := strings.CutSuffix(port.Addresses[0], " dynamic")
			if !dynamic {
				continue
			}
			for address := subnet.Masked().Addr().Next(); subnet.Contains(address.Next()); address = address.Next() {
				if taken(address) {
					continue
				}
				chosen := mac + " " + address.String()
				port.DynamicAddresses = &chosen
				operations = append(operations, update(tablePort, port.UUID, ovsdb.Row{"dynamic_addresses": []string{chosen}}))
				break
			}
		}
	}
	return operations
}

// taken says which addresses of a switch cannot be given: the first, which is the router's, the excluded, and those in use.
func (r *standInRows) taken(ls *standInSwitch, subnet netip.Prefix) func(netip.Addr) bool {
	type span struct{ first, last netip.Addr }
	spans := []span{{subnet.Masked().Addr().Next(), subnet.Masked().Addr().Next()}}
	for _, excluded := range strings.Fields(ls.OtherConfig["exclude_ips"]) {
		first, last, ranged := strings.Cut(excluded, "..")
		if !ranged {
			last = first
		}
		from, fromErr := netip.ParseAddr(first)
		to, toErr := netip.ParseAddr(last)
		if fromErr == nil && toErr == nil {
			spans = append(spans, span{from, to})
		}
	}
	return func(address netip.Addr) bool {
		for _, s := range spans {
			if s.first.Compare(address) <= 0 && address.Compare(s.last) <= 0 {
				return true
			}
		}
		return slices.ContainsFunc(r.ports, func(port *standInSwitchPort) bool {
			return port.DynamicAddresses != nil && slices.Contains(ls.Ports, port.UUID) && dynamicAddress(*port.DynamicAddresses) == address
		})
	}
}

// compile makes the southbound rows that follow from the northbound ones. Ports keep the word "dynamic" there, as OVN leaves it:
// the address it chose is in the northbound database only.
func (r *standInRows) compile() (operations []ovsdb.Operation) {
	present := map[string]*standInDatapath{}
	var lastKey int
	for _, datapath := range r.datapaths {
		present[datapath.ExternalIDs["name"]] = datapath
		lastKey = max(lastKey, datapath.TunnelKey)
	}
	bindings := map[string]*standInPortBinding{}
	for _, binding := range r.bindings {
		bindings[binding.LogicalPort] = binding
	}
	datapath := func(name, kind, uuid string) string {
		if old := present[name]; old != nil {
			delete(present, name)
			return old.UUID
		}
		lastKey++
		id := fmt.Sprintf("datapath%d", lastKey)
		operations = append(operations, ovsdb.Operation{Op: ovsdb.OperationInsert, Table: "Datapath_Binding", UUIDName: id, Row: ovsdb.Row{
			"tunnel_key": lastKey, "external_ids": ovsdbValue(map[string]string{"name": name, kind: uuid}),
		}})
		return id
	}
	bind := func(name, kind, datapath string, key int, macs []string) {
		old := bindings[name]
		delete(bindings, name)
		wanted := ovsdb.Row{"type": kind, "datapath": ovsdb.UUID{GoUUID: datapath}, "mac": ovsdbValue(macs)}
		if old == nil {
			wanted["logical_port"], wanted["tunnel_key"], wanted["up"] = name, key, ovsdb.OvsSet{GoSet: []any{false}}
			operations = append(operations, ovsdb.Operation{Op: ovsdb.OperationInsert, Table: "Port_Binding", Row: wanted})
		} else if old.Type != kind || old.Datapath != datapath || !slices.Equal(old.MAC, macs) {
			operations = append(operations, update("Port_Binding", old.UUID, wanted))
		}
	}
	for _, ls := range r.switches {
		place := datapath(ls.Name, "logical-switch", ls.UUID)
		for i, port := range r.ports {
			if slices.Contains(ls.Ports, port.UUID) {
				bind(port.Name, map[bool]string{true: "patch", false: port.Type}[port.Type == "router"], place, i+1, port.Addresses)
			}
		}
	}
	for _, lr := range r.routers {
		place := datapath(lr.Name, "logical-router", lr.UUID)
		for i, port := range r.inner {
			if slices.Contains(lr.Ports, port.UUID) {
				bind(port.Name, "patch", place, i+1, []string{port.MAC + " " + strings.Join(port.Networks, " ")})
			}
		}
	}
	for _, binding := range bindings {
		operations = append(operations, ovsdb.Operation{Op: ovsdb.OperationDelete, Table: "Port_Binding", Where: is(binding.UUID)})
	}
	for _, datapath := range present {
		operations = append(operations, ovsdb.Operation{Op: ovsdb.OperationDelete, Table: "Datapath_Binding", Where: is(datapath.UUID)})
	}
	if r.sbGlobal.NBCfg != r.nbGlobal.NBCfg {
		operations = append(operations, update("SB_Global", r.sbGlobal.UUID, ovsdb.Row{"nb_cfg": r.nbGlobal.NBCfg}))
	}
	return operations
}

func update(table, uuid string, row ovsdb.Row) ovsdb.Operation {
	for column, value := range row {
		row[column] = ovsdbValue(value)
	}
	return ovsdb.Operation{Op: ovsdb.OperationUpdate, Table: table, Where: is(uuid), Row: row}
}

// obey does what every ovn-controller that is able to does: it registers, claims the ports that are plugged on its switch,
// leaves those that are not, and says how far it has come.
func (s *standIn) obey(r *standInRows) (operations []ovsdb.Operation) {
	registered := map[string]string{}
	for _, chassis := range r.chassis {
		registered[chassis.Name] = chassis.UUID
	}
	held := map[string]bool{} // chassis that hold what they have
	for name, card := range s.cards {
		held[registered[name]] = !card.able()
	}
	for i, name := range s.names() {
		card := s.cards[name]
		if !card.able() {
			continue
		}
		if registered[name] == "" {
			operations = append(operations, register(name, fmt.Sprintf("chassis%d", i), r.sbGlobal.NBCfg)...)
			s.wake() // to claim ports next
			continue
		}
		operations = append(operations, card.claim(r, registered[name], held)...)
		for _, private := range r.private {
			if private.Name == name && private.NBCfg != r.sbGlobal.NBCfg {
				operations = append(operations, update("Chassis_Private", private.UUID, ovsdb.Row{"nb_cfg": r.sbGlobal.NBCfg}))
			}
		}
	}
	return operations
}

func register(name, id string, config int) []ovsdb.Operation {
	return []ovsdb.Operation{
		{Op: ovsdb.OperationInsert, Table: "Chassis", UUIDName: id, Row: ovsdb.Row{"name": name, "hostname": name}},
		{Op: ovsdb.OperationInsert, Table: "Chassis_Private", Row: ovsdb.Row{
			"name": name, "nb_cfg": config, "chassis": ovsdbValue([]ovsdb.UUID{{GoUUID: id}}),
		}},
	}
}

// claim takes the ports plugged on the card, unless another's controller holds them, and leaves the others. Where two cards
// have the same port plugged, OVN's controllers take it from each other in turn; here whoever has it keeps it.
func (c *standInCard) claim(r *standInRows, chassis string, held map[string]bool) (operations []ovsdb.Operation) {
	for _, binding := range r.bindings {
		if binding.Type != "" {
			continue
		}
		wanted := false
		for _, id := range c.plugged {
			wanted = wanted || id == binding.LogicalPort
		}
		mine := binding.Chassis != nil && *binding.Chassis == chassis
		up := binding.Up != nil && *binding.Up
		switch {
		case wanted && (binding.Chassis == nil || mine && !up || !mine && held[*binding.Chassis]):
			binding.Chassis = &chassis
			operations = append(operations, update("Port_Binding", binding.UUID, ovsdb.Row{
				"chassis": []ovsdb.UUID{{GoUUID: chassis}}, "up": ovsdb.OvsSet{GoSet: []any{true}},
			}))
		case mine && !wanted:
			binding.Chassis = nil
			operations = append(operations, update("Port_Binding", binding.UUID, ovsdb.Row{
				"chassis": []ovsdb.UUID{}, "up": ovsdb.OvsSet{GoSet: []any{false}},
			}))
		}
	}
	return operations
}

// reportUp is what northd hands back: which ports are up, and how far everybody has come.
func (r *standInRows) reportUp() (operations []ovsdb.Operation) {
	up := map[string]bool{}
	for _, binding := range r.bindings {
		up[binding.LogicalPort] = binding.Up != nil && *binding.Up && binding.Chassis != nil
	}
	for _, port := range r.ports {
		if port.Type == "" && (port.Up == nil || *port.Up != up[port.Name]) {
			operations = append(operations, update(tablePort, port.UUID, ovsdb.Row{"up": ovsdb.OvsSet{GoSet: []any{up[port.Name]}}}))
		}
	}
	everybody := r.sbGlobal.NBCfg
	for _, private := range r.private {
		everybody = min(everybody, private.NBCfg)
	}
	if r.nbGlobal.SBCfg != r.sbGlobal.NBCfg || r.nbGlobal.HVCfg != everybody {
		operations = append(operations, update("NB_Global", r.nbGlobal.UUID, ovsdb.Row{"sb_cfg": r.sbGlobal.NBCfg, "hv_cfg": everybody}))
	}
	return operations
}

func (s *standIn) names() []string {
	names := make([]string, 0, len(s.cards))
	for name := range s.cards {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func (s *standIn) addDPU(_ context.Context, name string, ports []HostPort) error {
	s.mu.Lock()
	if s.cards[name] != nil {
		s.mu.Unlock()
		return fmt.Errorf("the lab has a DPU %q already", name)
	}
	card := &standInCard{plugged: map[string]string{}}
	for _, port := range ports {
		card.ports = append(card.ports, port.Name)
	}
	s.cards[name] = card
	s.mu.Unlock()
	return s.pass() // after which its chassis is registered
}

func (s *standIn) removeDPU(_ context.Context, name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.cards, name)
	return s.sb.transact([]ovsdb.Operation{
		{Op: ovsdb.OperationDelete, Table: "Chassis", Where: named(name)},
		{Op: ovsdb.OperationDelete, Table: "Chassis_Private", Where: named(name)},
	})
}
