// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package vpc

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/svcv1alpha1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/vpcv1alpha1"
)

// LogicalPort is the name by which OVN knows the port of a ServiceInterface.
func LogicalPort(found *svcv1alpha1.ServiceInterface) string {
	return found.Namespace + "_" + found.Name
}

// switchName is the name of a network's logical switch.
func (w Want) switchName(network string) string { return w.switchPrefix() + network + "Switch" }

// switchPrefix begins the names of all switches of the VPC's networks, and of no other VPC's: no name has an underscore.
func (w Want) switchPrefix() string { return Mark(w.Namespace, w.VPCName) + "_" }

// LogicalPorts are the names of the ports that are on a virtual network, as OVN knows them.
func (e Evidence) LogicalPorts() []string {
	var names []string
	for _, found := range e.tenantInterfaces() {
		names = append(names, LogicalPort(found))
	}
	slices.Sort(names)
	return names
}

// chassis is the name of the DPU's chassis; empty if there is no DPU.
func (e Evidence) chassis() string {
	if e.DPU == nil {
		return ""
	}
	return e.DPU.Name
}

// claimed are the host ports that the DPU's chassis claims.
func (e Evidence) claimed() []Binding {
	var claimed []Binding
	if chassis := e.chassis(); e.OVN != nil && e.OVN.Err == nil && chassis != "" {
		for _, binding := range e.OVN.Bindings {
			if binding.Chassis == chassis {
				claimed = append(claimed, binding)
			}
		}
	}
	return claimed
}

// ProveBound says whether OVN has bound the ports wanted of a DPU, and no others, to its chassis: for each exactly one Port_Binding
// that this chassis claims and has programmed, on the port's switch, with its MAC address. It adds to ProveAttached, which has to
// be Yes for the names to be known. It is Yes where OVN is not asked.
func ProveBound(want Want, e Evidence) Finding {
	for _, prove := range []func(Want, Evidence) Finding{proveOVNRead, proveOnlyBound, proveBindings} {
		if finding := prove(want, e); finding.Answer != Yes {
			return finding
		}
	}
	return Finding{Answer: Yes}
}

// ProveUnbound says whether OVN has let go of a DPU's ports: its chassis claims none, and of the ports wanted no Port_Binding is
// left. It adds to ProveLeft, and is no proof by itself: a row that vanished says nothing of a DPU whose controller hangs. It is
// Yes where OVN is not asked.
func ProveUnbound(want Want, e Evidence) Finding {
	if read := proveOVNRead(want, e); read.Answer != Yes || e.OVN == nil {
		return read
	}
	for _, binding := range e.OVN.Bindings {
		switch {
		case binding.Chassis != "" && binding.Chassis == e.chassis():
			return Finding{No, infrav1.DetachingPortReason, fmt.Sprintf("a Port_Binding is still claimed by chassis %s", binding.Chassis)}
		case slices.Contains(want.LogicalPorts, binding.LogicalPort), want.carries(binding):
			return Finding{No, infrav1.DetachingPortReason, fmt.Sprintf("Port_Binding %s of %s is still there", binding.LogicalPort, e.name())}
		}
	}
	return Finding{Answer: Yes}
}

// CheckUnclaimed says whether the DPU's chassis claims no host port at all.
func CheckUnclaimed(e Evidence) Finding {
	if read := proveOVNRead(Want{}, e); read.Answer != Yes {
		return read
	}
	if len(e.claimed()) > 0 {
		return Finding{No, reasonForeignVPC, "a port of " + e.name() + " is bound in OVN"}
	}
	return Finding{Answer: Yes}
}

func proveOVNRead(_ Want, e Evidence) Finding {
	if e.OVN == nil || e.OVN.Err == nil {
		return Finding{Answer: Yes}
	}
	return Finding{Unknown, reasonFabricUnreachable, "OVN's southbound database cannot be read: " + e.OVN.Err.Error() +
		"; the operator looks whether it runs, and at spec.backend.ovnVPC.ovn of the DPUFabric"}
}

// carries reports whether a Port_Binding is that of a port wanted, whatever its name: it lies in the VPC and has the port's MAC
// address.
func (w Want) carries(binding Binding) bool {
	if binding.Switch != "" && !strings.HasPrefix(binding.Switch, w.switchPrefix()) {
		return false
	}
	return slices.ContainsFunc(w.Ports, func(p WantedPort) bool { return p.MAC != "" && hasMAC(binding, p.MAC) })
}

// onOwnNetwork reports whether a Port_Binding that the DPU's chassis claims is on a network that was asked for. Under a name that is not
// known it is what is left of an earlier ServiceInterface of the port: it leads nowhere else.
func (w Want) onOwnNetwork(binding Binding) bool {
	if binding.Switch == "" {
		return w.carries(binding)
	}
	return slices.ContainsFunc(w.Ports, func(p WantedPort) bool { return binding.Switch == w.switchName(p.Network) })
}

func hasMAC(binding Binding, mac string) bool {
	return slices.ContainsFunc(binding.MACs, func(m string) bool { return NormalizeMAC(m) == NormalizeMAC(mac) })
}

// proveOnlyBound says whether every host port that the DPU's chassis claims is one that was asked for, on the network that was
// asked for, and whether no other chassis claims one of those. Whose the other port is, is not said.
func proveOnlyBound(want Want, e Evidence) Finding {
	ours := e.wantedInterfaces(want)
	for _, binding := range e.claimed() {
		if _, named := ours[binding.LogicalPort]; !named && !want.onOwnNetwork(binding) {
			return Finding{No, reasonForeignVPC, fmt.Sprintf("chassis %s claims a port nobody asked for", binding.Chassis)}
		}
	}
	if e.OVN == nil || e.OVN.Err != nil {
		return Finding{Answer: Yes}
	}
	for _, binding := range e.OVN.Bindings {
		port, named := ours[binding.LogicalPort]
		switch {
		case !named:
		case binding.Chassis != "" && binding.Chassis != e.chassis():
			return Finding{No, reasonForeignVPC, fmt.Sprintf("Port_Binding %s is claimed by chassis %s instead of %s", binding.LogicalPort, binding.Chassis, e.chassis())}
		case binding.Switch != "" && binding.Switch != want.switchName(port.Network):
			return Finding{No, reasonForeignVPC, fmt.Sprintf("Port_Binding %s is on another switch than %s", binding.LogicalPort, want.switchName(port.Network))}
		}
	}
	return Finding{Answer: Yes}
}

// wantedInterfaces are the ports that have a ServiceInterface of their own, by their logical names.
func (e Evidence) wantedInterfaces(want Want) map[string]WantedPort {
	ours := map[string]WantedPort{}
	for _, found := range e.tenantInterfaces() {
		for _, port := range want.Ports {
			if found.Spec.PF != nil && found.Spec.PF.ID == port.PF && madeFor(want, port, found) {
				ours[LogicalPort(found)] = port
			}
		}
	}
	return ours
}

// proveBindings says whether each port that has a ServiceInterface is bound. One that has none is not OVN's fault.
func proveBindings(want Want, e Evidence) Finding {
	if e.OVN == nil || e.OVN.Err != nil {
		return Finding{Answer: Yes}
	}
	ours := e.wantedInterfaces(want)
	for _, found := range e.tenantInterfaces() {
		if _, wanted := ours[LogicalPort(found)]; wanted {
			if finding := e.proveBinding(found); finding.Answer != Yes {
				return finding
			}
		}
	}
	for _, binding := range e.claimed() {
		if _, named := ours[binding.LogicalPort]; !named && len(ours) > 0 && want.onOwnNetwork(binding) {
			return missing("Port_Binding %s, of an earlier life of the port, is still claimed by chassis %s", binding.LogicalPort, binding.Chassis)
		}
	}
	return Finding{Answer: Yes}
}

func (e Evidence) proveBinding(found *svcv1alpha1.ServiceInterface) Finding {
	name := LogicalPort(found)
	bindings := e.OVN.bindingsOf(name)
	switch {
	case len(bindings) == 0:
		return missing("OVN has no Port_Binding %s", name)
	case len(bindings) > 1:
		return missing("OVN has %d Port_Bindings %s", len(bindings), name)
	}
	binding, mac := bindings[0], NormalizeMAC(found.Annotations[vpcv1alpha1.PortMACAnnotation])
	switch {
	case binding.Chassis == "":
		return missing("Port_Binding %s is claimed by no chassis", name)
	case binding.Chassis != e.chassis():
		return missing("Port_Binding %s is claimed by chassis %s instead of %s", name, binding.Chassis, e.chassis())
	case !binding.Up:
		return missing("Port_Binding %s is not up: chassis %s has not programmed it", name, binding.Chassis)
	case hasMAC(binding, "unknown"):
		return missing("Port_Binding %s may carry any MAC address", name)
	case mac == "" || !hasMAC(binding, mac):
		return missing("Port_Binding %s does not have the MAC address %s", name, mac)
	}
	return Finding{Answer: Yes}
}

func (o *OVN) bindingsOf(logicalPort string) []Binding {
	var found []Binding
	for _, binding := range o.Bindings {
		if binding.LogicalPort == logicalPort {
			found = append(found, binding)
		}
	}
	return found
}

// PortAddress is the tenant address of a port that was proven bound: the first that OVN gave it, IPv4 before IPv6; empty if OVN
// was not asked, or gave it none.
func PortAddress(want Want, e Evidence, pf int32) string {
	if e.OVN == nil || e.OVN.Err != nil {
		return ""
	}
	for name, port := range e.wantedInterfaces(want) {
		if port.PF != pf {
			continue
		}
		for _, binding := range e.OVN.bindingsOf(name) {
			return firstAddress(binding.Addresses)
		}
	}
	return ""
}

func firstAddress(addresses []netip.Addr) string {
	for _, wanted := range []func(netip.Addr) bool{netip.Addr.Is4, func(a netip.Addr) bool { return !a.Is4() }} {
		for _, address := range addresses {
			if address = address.Unmap().WithZone(""); address.IsValid() && wanted(address) {
				return address.String()
			}
		}
	}
	return ""
}
