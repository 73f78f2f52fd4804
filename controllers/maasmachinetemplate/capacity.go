// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maasmachinetemplate

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
)

// operatingSystem is what all images bring: user data that joins a cluster is for Linux.
const operatingSystem = "linux"

// offer is the least and the most of one resource over several servers.
type offer struct {
	name        corev1.ResourceName
	word        string
	format      resource.Format
	least, most int64
}

// offers are what servers have in common.
type offers []offer

// floor is what every one of the servers offers. What a disk offers is not known of an operating system in memory, nor where MAAS
// does not say which disk a server boots from. GPUs are in none of MAAS' lists.
func floor(servers []*maas.Machine, inMemory bool) offers {
	all := offers{
		span(corev1.ResourceCPU, "cpu", resource.DecimalSI, servers, func(m *maas.Machine) int64 { return int64(m.CPUCount) }),
		span(corev1.ResourceMemory, "memory", resource.BinarySI, servers, func(m *maas.Machine) int64 { return int64(m.MemoryMiB) << 20 }),
	}
	disk := span(corev1.ResourceEphemeralStorage, "disk", resource.DecimalSI, servers, func(m *maas.Machine) int64 { return m.BootDiskBytes })
	if !inMemory && disk.least > 0 {
		all = append(all, disk)
	}
	return all
}

func span(name corev1.ResourceName, word string, format resource.Format, servers []*maas.Machine, of func(*maas.Machine) int64) offer {
	o := offer{name: name, word: word, format: format, least: of(servers[0]), most: of(servers[0])}
	for _, m := range servers[1:] {
		o.least, o.most = min(o.least, of(m)), max(o.most, of(m))
	}
	return o
}

func (o offer) quantity(value int64) *resource.Quantity { return resource.NewQuantity(value, o.format) }

// least is the capacity.
func (all offers) least() corev1.ResourceList {
	capacity := corev1.ResourceList{}
	for _, o := range all {
		capacity[o.name] = *o.quantity(o.least)
	}
	return capacity
}

// differences tells tenants that some servers offer more than the capacity says; empty if all are alike.
func (all offers) differences() string {
	var parts []string
	for _, o := range all {
		if o.least != o.most {
			parts = append(parts, fmt.Sprintf("%s %s to %s", o.word, o.quantity(o.least), o.quantity(o.most)))
		}
	}
	if len(parts) == 0 {
		return ""
	}
	return fmt.Sprintf("the servers that match differ (%s): capacity is the least of each", strings.Join(parts, ", "))
}

// architectures are MAAS' words for those of the servers, without what comes after the slash.
func architectures(servers []*maas.Machine) []string {
	var found []string
	for _, m := range servers {
		if name, _, _ := strings.Cut(m.Architecture, "/"); !slices.Contains(found, name) {
			found = append(found, name)
		}
	}
	slices.Sort(found)
	return found
}

// kubernetesName is Kubernetes' word for one of MAAS' architectures; empty if it has none.
func kubernetesName(architecture string) infrav1.Architecture {
	switch architecture {
	case "amd64", "arm64", "s390x":
		return infrav1.Architecture(architecture)
	case "ppc64el":
		return "ppc64le"
	}
	return ""
}
