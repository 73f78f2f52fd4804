// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maascluster

import (
	"fmt"
	"net/netip"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
)

// Step is a decision: what to say, and whether to let the object go.
type Step struct {
	DropFinalizer bool
	// Provision promises the infrastructure to Cluster API.
	Provision bool
	// Zones to spread machines over; nil leaves those that are.
	Zones []string

	Identity, VPC, Ready Saying
}

// Saying is the state of one condition.
type Saying struct {
	Status          metav1.ConditionStatus
	Reason, Message string
}

func yes(reason string) Saying { return Saying{Status: metav1.ConditionTrue, Reason: reason} }

func no(problem *Problem) Saying {
	return Saying{Status: metav1.ConditionFalse, Reason: problem.Reason, Message: problem.Message}
}

// decide is the whole policy; it is pure.
func decide(o Observation) Step {
	if o.Deleting {
		if o.Machines == 0 {
			return Step{DropFinalizer: true}
		}
		return Step{Ready: no(&Problem{infrav1.MachinesRemainReason, "waiting for the cluster's MaasMachines to go"})}
	}
	step := Step{Zones: o.Zones, Identity: yes(infrav1.ReadyReason), VPC: yes(infrav1.ReadyReason)}
	if o.Identity != nil {
		step.Identity = no(o.Identity)
	}
	switch {
	case o.VPC != nil:
		step.VPC = no(o.VPC)
	case o.VPCName == "" && o.IsolationRequired:
		step.VPC = no(&Problem{infrav1.IsolationRequiredReason, "the identity requires isolation: name a TenantVPC in vpcName of a new cluster"})
	}
	step.Ready = ready(o, step)
	step.Provision = step.Ready.Status == metav1.ConditionTrue
	return step
}

func ready(o Observation, step Step) Saying {
	for _, part := range []Saying{step.Identity, step.VPC} {
		if part.Status != metav1.ConditionTrue {
			return part
		}
	}
	switch {
	case !o.Owned:
		return no(&Problem{infrav1.NotStartedReason, "no Cluster owns the MaasCluster yet"})
	case o.Endpoint == "":
		return no(&Problem{infrav1.EndpointMissingReason, "there is no control plane endpoint: write spec.controlPlaneEndpoint, or let the control plane provider set the Cluster's"})
	case len(o.Zones) == 0:
		return no(&Problem{infrav1.NoZoneReason, "none of failureDomains is a MAAS zone the identity may use"})
	}
	if cidr, inside := insideVPC(o); inside && !o.EndpointAsserted {
		return no(&Problem{infrav1.EndpointInsideVPCReason, fmt.Sprintf(
			"the control plane endpoint %s lies inside %s, where nobody can dial in: create the cluster with an address outside the fabric's tenant pools, or set endpointReachability to Asserted", o.Endpoint, cidr)})
	}
	if o.VPCName != "" && !o.Routed && !o.EndpointAsserted {
		return no(&Problem{infrav1.SubnetNotExternallyRoutedReason, fmt.Sprintf(
			"no subnet of TenantVPC %s is externallyRouted, so that its machines could not reach the control plane endpoint: add one, or set endpointReachability to Asserted", o.VPCName)})
	}
	return yes(infrav1.ReadyReason)
}

// insideVPC compares addresses only: what a name resolves to is not known here.
func insideVPC(o Observation) (string, bool) {
	ip, err := netip.ParseAddr(o.Endpoint)
	if err != nil {
		return "", false
	}
	for _, pool := range o.Pools {
		if pool.Contains(ip.Unmap()) {
			return fmt.Sprintf("tenant pool %s of the fabric", pool), true
		}
	}
	for _, subnet := range o.Subnets {
		if subnet.Contains(ip.Unmap()) {
			return fmt.Sprintf("subnet %s of the TenantVPC", subnet), true
		}
	}
	return "", false
}

// commonZones are the zones of the identity that the cluster wants, all if it does not say.
func commonZones(identity, wanted []string) []string {
	if len(wanted) == 0 {
		return identity
	}
	return slices.DeleteFunc(slices.Clone(wanted), func(zone string) bool { return !slices.Contains(identity, zone) })
}
