// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package vpc

import (
	"net/netip"
	"time"
)

// OVN is what OVN's southbound database said in one reading. It speaks of control planes: a row tells what a controller was
// told or has said, not what the packets of a DPU do.
type OVN struct {
	// Err is why it could not be read; then the rest says nothing.
	Err error
	// Started is before the first question of the reading was sent.
	Started time.Time
	// Bindings are the host ports, that is the Port_Bindings of type "".
	Bindings []Binding
	// Chassis are all that are registered.
	Chassis []Chassis
}

// Binding is a host port's Port_Binding.
type Binding struct {
	// LogicalPort is "<namespace>_<ServiceInterface>".
	LogicalPort string
	// Switch is the logical switch of its datapath, "<namespace>_<vpc>_<network>Switch"; empty if its datapath does not say.
	Switch string
	// Chassis is the name of the chassis that claims it, which is the DPU's Node; empty if none does.
	Chassis string
	// Up says that this chassis has programmed it. Where the schema has no such column it is true of every port a chassis claims.
	Up bool
	// MACs and Addresses are those the port may use, as far as OVN knows them.
	MACs      []string
	Addresses []netip.Addr
}

// Chassis is a DPU's ovn-controller.
type Chassis struct {
	// Name is that of the DPU's Node.
	Name string
	// Config is the value of NB_Global.nb_cfg whose configuration it says it has programmed.
	Config int64
}
