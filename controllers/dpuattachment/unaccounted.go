// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package dpuattachment

import (
	"context"
	"slices"
	"strings"

	ctrl "sigs.k8s.io/controller-runtime"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/vpc"
)

// devices is what MAAS said in this pass of the server's PCI devices.
type devices struct {
	asked bool
	err   error
	found []maas.Device
}

// observeDevices asks MAAS which PCI device each interface of the server is. It is asked only where an interface is neither a
// PF0 that DPF knows nor on the provisioning network, once a pass.
func (r *Reconciler) observeDevices(ctx context.Context, o *observation) {
	if o.devices.asked || o.fabric == nil {
		return
	}
	o.devices.asked = true
	verifier, err := o.fabric.Verifier(ctx, o.attachment.Spec.Server.Source)
	if err == nil {
		o.devices.found, err = verifier.Devices(ctx, o.attachment.Spec.Server.SystemID)
	}
	if err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "MAAS did not say which PCI devices the server has", "systemID", o.attachment.Spec.Server.SystemID)
		o.devices.err = err
	}
}

// unexplained are the connected interfaces MAAS knows of the server that are neither a PF0 DPF knows nor on the provisioning
// network. A fabric that does not say what its provisioning network is makes no promise about them.
func unexplained(machine *maas.Machine, network infrav1.ProvisioningNetwork, cards []card) []maas.Interface {
	if len(network.Fabrics) == 0 {
		return nil
	}
	var found []maas.Interface
	for _, nic := range machine.Interfaces {
		if nic.Type != "physical" || !nic.LinkConnected || isPF0(nic.MAC, cards) {
			continue
		}
		onVLAN := len(network.VLANs) == 0 || slices.Contains(network.VLANs, int32(nic.VLANID))
		if !slices.Contains(network.Fabrics, nic.Fabric) || !onVLAN {
			found = append(found, nic)
		}
	}
	return found
}

func isPF0(mac string, cards []card) bool {
	return mac != "" && slices.ContainsFunc(cards, func(c card) bool {
		return vpc.NormalizeMAC(c.member.Device.Status.PF0MAC) == vpc.NormalizeMAC(mac)
	})
}

// checkUnaccounted says whether each unexplained interface is another function of one of the server's DPUs. DPF knows the MAC
// address of PF0 alone and no PCI address; MAAS knows the PCI address of every interface, and the functions of one card differ
// in the last digit of it only.
func checkUnaccounted(nics []maas.Interface, seen devices, cards []card) vpc.Finding {
	slots, lost := map[string]bool{}, ""
	for i := range cards {
		slot := slotOf(&cards[i], seen)
		if slot == "" {
			lost = cards[i].device
		}
		slots[slot] = slot != ""
	}
	for _, nic := range nics {
		if finding := checkNIC(nic, seen, slots, lost); finding.Answer != vpc.Yes {
			return finding
		}
	}
	return yes
}

// slotOf is where MAAS has the card, found by its PF0; empty if it does not say.
func slotOf(c *card, seen devices) string {
	for _, device := range seen.found {
		if device.BlueField() && isPF0(device.MAC, []card{*c}) {
			return pciSlot(device)
		}
	}
	return ""
}

// checkNIC judges one interface. Slots are those of the server's DPUs; lost names a DPU of which MAAS does not tell the slot.
func checkNIC(nic maas.Interface, seen devices, slots map[string]bool, lost string) vpc.Finding {
	name := "interface " + nic.Name + " (" + nic.MAC + ") of the server"
	unknown := func(why string) vpc.Finding {
		return vpc.Finding{Answer: vpc.Unknown, Reason: infrav1.UnaccountedPortReason,
			Message: name + " is connected and not on the provisioning network; whether it is a DPU's is not known: " + why}
	}
	if seen.err != nil {
		return unknown("MAAS did not list the server's PCI devices: " + seen.err.Error())
	}
	i := slices.IndexFunc(seen.found, func(d maas.Device) bool {
		return d.InterfaceID != 0 && d.InterfaceID == nic.ID || d.MAC != "" && d.MAC == nic.MAC
	})
	switch {
	case i < 0:
		return unknown("MAAS does not say which PCI device it is; commission the server again")
	case !seen.found[i].BlueField():
		return refused(infrav1.UnaccountedPortReason, "%s is connected, is no DPU port, and is not on the provisioning network", name)
	case pciSlot(seen.found[i]) == "":
		return unknown("MAAS does not say its PCI address; commission the server again")
	case !slots[pciSlot(seen.found[i])] && lost != "":
		return unknown("MAAS does not say at which PCI address PF0 of DPUDevice " + lost + " is")
	case !slots[pciSlot(seen.found[i])]:
		return refused(infrav1.UnaccountedPortReason,
			"%s is connected and is a BlueField's at PCI %s, but none of the server's DPUDevices has its PF0 there: let a DPUNode of this server list that card", name, pciSlot(seen.found[i]))
	}
	return yes
}

// pciSlot is a device's PCI address without its function; empty if MAAS tells none.
func pciSlot(device maas.Device) string {
	slot, function, found := strings.Cut(device.PCIAddress, ".")
	if !found || function == "" {
		return ""
	}
	return strings.ToLower(slot)
}
