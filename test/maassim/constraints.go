// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maassim

import (
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// constraints is a parsed set of conditions, for allocate or for a list.
type constraints struct {
	region *Region
	match  []func(*machine) bool
	// resolved describes each as the 409 of allocate does.
	resolved map[string]string
	errors   invalid
	// refusal overrides everything: what crashes or is not simulated.
	refusal *reply
}

type constraintParser func(set *constraints, key string, values []string)

// sharedConstraints are understood by allocate and by lists alike.
var sharedConstraints = map[string]constraintParser{
	"system_id":     anyOf((*machine).id),
	"not_system_id": anyOf((*machine).id),
	"arch":          parseArch, "not_arch": parseArch,
	"cpu_count":       atLeast("Invalid CPU count: number required.", func(m *machine) float64 { return float64(m.spec.CPUCount) }),
	"mem":             atLeast("Invalid memory: number of MiB required.", func(m *machine) float64 { return float64(m.spec.MemoryMiB) }),
	"cpu_speed":       atLeast("Invalid CPU speed: number required.", func(*machine) float64 { return 2400 }),
	"tags":            parseTags,
	"not_tags":        parseTags,
	"zone":            parseNamed("zone", func(r *Region) []string { return r.zones }, func(m *machine) string { return m.spec.Zone }),
	"not_in_zone":     parseNamed("zone", func(r *Region) []string { return r.zones }, func(m *machine) string { return m.spec.Zone }),
	"pool":            parseNamed("pool", func(r *Region) []string { return r.pools }, func(m *machine) string { return m.spec.Pool }),
	"not_in_pool":     parseNamed("pool", func(r *Region) []string { return r.pools }, func(m *machine) string { return m.spec.Pool }),
	"owner":           parseOwner,
	"not_owner":       parseOwner,
	"power_state":     parsePowerState,
	"not_power_state": parsePowerState,
	"devices":         parseDevices,
	"storage":         parseStorage,
	"fabrics":         parseFabrics,
	"not_fabrics":     parseFabrics,
	"subnets":         parseSubnets,
	"not_subnets":     parseSubnets,
}

// unsimulated are constraints a real region knows.
var unsimulated = []string{
	"pod", "not_pod", "pod_type", "not_pod_type", "vlans", "not_vlans", "fabric_classes", "not_fabric_classes",
	"link_speed", "not_link_speed", "interfaces", "deployment_target", "not_deployment_target", "workloads",
}

// parseConstraints reads all keys of a form; special ones of the operation take precedence, ignored ones are no
// constraints at all.
func (r *Region) parseConstraints(form url.Values, special map[string]constraintParser, ignored []string) *constraints {
	set := &constraints{region: r, resolved: map[string]string{}, errors: invalid{}}
	for key, values := range form {
		parser := special[key]
		if parser == nil {
			parser = sharedConstraints[key]
		}
		switch {
		case slices.Contains(ignored, key):
		case parser != nil:
			parser(set, key, values)
		case slices.Contains(unsimulated, key):
			if !slices.Equal(values, []string{""}) {
				answer := notSimulated("the constraint " + key)
				set.refusal = &answer
			}
		default:
			set.errors.add(key, "No such constraint.")
		}
	}
	return set
}

func (set *constraints) reply() *reply {
	if answer := set.errors.reply(); answer != nil {
		return answer
	}
	return set.refusal
}

func (set *constraints) allow(m *machine) bool {
	for _, match := range set.match {
		if !match(m) {
			return false
		}
	}
	return true
}

// require adds a condition, inverted for the "not_" twin of a constraint.
func (set *constraints) require(key, resolved string, match func(*machine) bool) {
	set.resolved[key] = resolved
	if strings.HasPrefix(key, "not_") {
		positive := match
		match = func(m *machine) bool { return !positive(m) }
	}
	set.match = append(set.match, match)
}

func (set *constraints) describe() string {
	parts := []string{}
	for key, value := range set.resolved {
		parts = append(parts, key+"="+value)
	}
	slices.Sort(parts)
	return strings.Join(parts, " ")
}

func anyOf(value func(*machine) string) constraintParser {
	return func(set *constraints, key string, values []string) {
		set.require(key, strings.Join(values, ","), func(m *machine) bool { return slices.Contains(values, value(m)) })
	}
}

func atLeast(complaint string, value func(*machine) float64) constraintParser {
	return func(set *constraints, key string, values []string) {
		for _, text := range nonEmpty(values) {
			minimum, err := strconv.ParseFloat(text, 64)
			if err != nil {
				set.errors.add(key, "%s", complaint)
				return
			}
			set.require(key, pythonFloat(minimum), func(m *machine) bool { return value(m) >= minimum })
		}
	}
}

func pythonFloat(f float64) string {
	s := strconv.FormatFloat(f, 'f', -1, 64)
	if !strings.Contains(s, ".") {
		s += ".0"
	}
	return s
}

func parseArch(set *constraints, key string, values []string) {
	values = nonEmpty(values)
	for _, arch := range values {
		name, _, _ := strings.Cut(arch, "/")
		if name != "amd64" && name != "arm64" {
			set.errors.add(key, "Architecture not recognised.")
			return
		}
	}
	if len(values) == 0 {
		return
	}
	set.require(key, strings.Join(values, ","), func(m *machine) bool {
		return slices.ContainsFunc(values, func(arch string) bool {
			return m.spec.Architecture == arch || strings.HasPrefix(m.spec.Architecture, arch+"/")
		})
	})
}

func parseTags(set *constraints, key string, values []string) {
	wanted, unknown := []string{}, []string{}
	for _, value := range values {
		for _, tag := range strings.FieldsFunc(value, func(c rune) bool { return c == ',' || c == ' ' }) {
			wanted = append(wanted, tag)
			if !slices.Contains(set.region.tags, tag) {
				unknown = append(unknown, "'"+tag+"'")
			}
		}
	}
	if len(unknown) > 0 {
		set.errors.add(key, "No such tag(s): %s.", strings.Join(unknown, ", "))
		return
	}
	for _, tag := range wanted {
		set.require(key, strings.Join(wanted, ","), func(m *machine) bool { return slices.Contains(m.spec.Tags, tag) })
	}
}

// parseNamed is for zones and pools.
// unsure: allocate may word an unknown name differently from a list; here both say the same.
func parseNamed(kind string, known func(*Region) []string, value func(*machine) string) constraintParser {
	return func(set *constraints, key string, values []string) {
		values = nonEmpty(values)
		unknown := []string{}
		for _, name := range values {
			if !slices.Contains(known(set.region), name) {
				unknown = append(unknown, name)
			}
		}
		switch {
		case len(unknown) > 0:
			set.errors.add(key, "No such %s(s): %s.", kind, strings.Join(unknown, ", "))
		case len(values) > 0:
			set.require(key, strings.Join(values, ","), func(m *machine) bool { return slices.Contains(values, value(m)) })
		}
	}
}

func parseOwner(set *constraints, key string, values []string) {
	for _, name := range values {
		if set.region.users[name] == nil {
			set.errors.add(key, "No such owner: '%s'.", name)
			return
		}
	}
	set.require(key, strings.Join(values, ","), func(m *machine) bool { return slices.Contains(values, m.owner) })
}

func parsePowerState(set *constraints, key string, values []string) {
	for _, value := range values {
		if !slices.Contains([]string{"on", "off", "unknown", "error"}, value) {
			set.errors.add(key, "Select a valid choice. %s is not one of the available choices.", value)
			return
		}
	}
	set.require(key, strings.Join(values, ","), func(m *machine) bool { return slices.Contains(values, m.power) })
}

// parseDevices reads "vendor_id=15b3,product_id=a2dc": one device must have it all, each repeated value its device.
func parseDevices(set *constraints, key string, values []string) {
	for _, value := range nonEmpty(values) {
		wanted := map[string]string{}
		for part := range strings.SplitSeq(value, ",") {
			name, want, ok := strings.Cut(part, "=")
			if _, known := deviceField(Device{}, name); !ok || !known {
				// The quote that never closes is MAAS' own.
				set.errors.add(key, "Unknown devices constraint: '%s", name)
				return
			}
			wanted[name] = want
		}
		set.require(key, value, func(m *machine) bool {
			return slices.ContainsFunc(m.spec.Devices, func(d Device) bool { return deviceHas(d, wanted) })
		})
	}
}

func deviceHas(d Device, wanted map[string]string) bool {
	for name, want := range wanted {
		if have, _ := deviceField(d, name); have != want {
			return false
		}
	}
	return true
}

func deviceField(d Device, name string) (string, bool) {
	switch name {
	case "vendor_id":
		return d.VendorID, true
	case "product_id":
		return d.ProductID, true
	case "vendor_name":
		return d.VendorName, true
	case "product_name":
		return d.ProductName, true
	case "commissioning_driver":
		return d.CommissioningDriver, true
	}
	return "", false
}

// parseStorage reads "label:size(tag,…),…" with sizes in GB (10^9 bytes). Every machine has one disk tagged "ssd", so
// more than one entry never matches.
func parseStorage(set *constraints, key string, values []string) {
	entries := []string{}
	for _, value := range nonEmpty(values) {
		entries = append(entries, splitOutside(value)...)
	}
	for _, entry := range entries {
		rest, tags, _ := strings.Cut(strings.TrimSuffix(entry, ")"), "(")
		if _, size, labelled := strings.Cut(rest, ":"); labelled {
			rest = size
		}
		gigabytes, err := strconv.ParseFloat(rest, 64)
		if err != nil {
			// unsure: the text.
			set.errors.add(key, "Malformed storage constraint, \"%s\".", entry)
			return
		}
		set.require(key, strings.Join(entries, ","), func(m *machine) bool {
			return len(entries) == 1 && m.spec.StorageMB >= gigabytes*1000 && (tags == "" || tags == "ssd")
		})
	}
}

// splitOutside splits at commas that are in no parentheses.
func splitOutside(value string) []string {
	depth := 0
	return strings.FieldsFunc(value, func(c rune) bool {
		switch c {
		case '(':
			depth++
		case ')':
			depth--
		}
		return c == ',' && depth == 0
	})
}

func parseFabrics(set *constraints, key string, values []string) {
	values = nonEmpty(values)
	if len(values) == 0 {
		return
	}
	set.require(key, strings.Join(values, ","), func(m *machine) bool {
		return slices.ContainsFunc(m.spec.Interfaces, func(nic Interface) bool { return slices.Contains(values, nic.Fabric) })
	})
}

// parseSubnets understands a CIDR or name (here the same), "cidr:" and "name:"; other specifiers are refused as not simulated.
func parseSubnets(set *constraints, key string, values []string) {
	for _, value := range nonEmpty(values) {
		prefix, err := netip.ParsePrefix(strings.TrimPrefix(strings.TrimPrefix(value, "cidr:"), "name:"))
		if err != nil {
			answer := notSimulated("the subnet specifier " + value)
			set.refusal = &answer
			return
		}
		set.require(key, value, func(m *machine) bool {
			return slices.ContainsFunc(m.spec.Interfaces, func(nic Interface) bool {
				own, err := netip.ParsePrefix(nic.Subnet)
				return err == nil && own.Masked() == prefix.Masked()
			})
		})
	}
}

func nonEmpty(values []string) []string {
	return slices.DeleteFunc(slices.Clone(values), func(value string) bool { return value == "" })
}
