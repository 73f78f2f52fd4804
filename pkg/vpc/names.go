// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package vpc

import (
	"crypto/sha256"
	"encoding/base32"
	"fmt"
	"strconv"
	"strings"
)

// keyPrefix is the domain of all labels and annotations that the provider writes on DPF's objects.
const keyPrefix = "maas-dpu.dpucloud.io/"

const (
	// VPCKey is the label that takes a DPU into a VPC; its value is the name of the DPUVPC.
	VPCKey = keyPrefix + "vpc"

	// OwnerAnnotation stands on every DPF object the provider made; its value is Owner.String.
	OwnerAnnotation = keyPrefix + "owner"

	// HolderAnnotation stands on the object that carries a DPU's labels, from the patch that takes it into a VPC to the one
	// that takes it out; its value is an encoded Holder.
	HolderAnnotation = keyPrefix + "holder"

	// InstallationLabel stands on every DPF object the provider made, for selectors; its value is Owner.InstallationHash.
	InstallationLabel = keyPrefix + "installation"

	// portKeyPrefix begins the labels that plug a port.
	portKeyPrefix = keyPrefix + "pf"
)

// PortKey is the label that plugs a physical function of a DPU; its value is the name of the DPUVirtualNetwork.
func PortKey(pf int32) string { return portKeyPrefix + strconv.Itoa(int(pf)) }

// PortOf returns the physical function a label key plugs; ok is false for any other key.
func PortOf(key string) (pf int32, ok bool) {
	digits, found := strings.CutPrefix(key, portKeyPrefix)
	if !found {
		return 0, false
	}
	n, err := strconv.ParseInt(digits, 10, 32)
	if err != nil || n < 0 || PortKey(int32(n)) != key {
		return 0, false
	}
	return int32(n), true
}

// IsOurKey reports whether a label key is one the provider plugs DPUs with.
func IsOurKey(key string) bool {
	_, port := PortOf(key)
	return port || key == VPCKey
}

// The lengths of names. DPF marks Nodes with the label value "<namespace>_<VPC>", which must fit 63 characters.
const (
	maxLabelValue = 63
	hashLength    = 16 // base32 digits: 80 bits
	prefixLength  = 23
)

// VPCName is the name of the DPUVPC of a TenantVPC: a readable beginning and a hash of installation, namespace and name, of at
// most 40 characters.
func VPCName(installation, namespace, name string) string {
	return readable(namespace+"-"+name) + "-" + hash("vpc", installation, namespace, name)
}

// NetworkName is the name of the DPUVirtualNetwork of a subnet, of at most 40 characters.
func NetworkName(installation, namespace, name, subnet string) string {
	return readable(name+"-"+subnet) + "-" + hash("network", installation, namespace, name, subnet)
}

// InterfaceName is the name of the DPUServiceInterface that plugs one physical function into a network; of at most 45
// characters, so that DPF's derived names stay within 63.
func InterfaceName(networkName string, pf int32) string {
	return networkName + "-pf" + strconv.Itoa(int(pf))
}

// Mark is the value DPF gives the label ovn.vpc.dpu.nvidia.com/vpc of a Node in that VPC.
func Mark(dpfNamespace, vpcName string) string { return dpfNamespace + "_" + vpcName }

// CheckMark reports why DPF could not mark a Node with that VPC; nil if it can.
func CheckMark(dpfNamespace, vpcName string) error {
	if mark := Mark(dpfNamespace, vpcName); len(mark) > maxLabelValue {
		return fmt.Errorf("DPF marks Nodes with %q, which has %d characters and may have %d: use a DPF namespace with a shorter name",
			mark, len(mark), maxLabelValue)
	}
	return nil
}

// hash is unambiguous because each part is preceded by its length.
func hash(parts ...string) string {
	var text strings.Builder
	for _, part := range parts {
		text.WriteString(strconv.Itoa(len(part)) + ":" + part)
	}
	sum := sha256.Sum256([]byte(text.String()))
	return strings.ToLower(base32.StdEncoding.EncodeToString(sum[:]))[:hashLength]
}

// readable makes the beginning of a name from a text of lower-case letters, digits, dashes and dots.
func readable(text string) string {
	text = strings.ReplaceAll(text, ".", "-")
	if len(text) > prefixLength {
		text = text[:prefixLength]
	}
	return strings.Trim(text, "-")
}

// Owner is who a DPF object was made for: one object of one installation of the provider. Several installations may share
// one DPF.
type Owner struct {
	Installation, Namespace, Name string
}

// String is the value of OwnerAnnotation.
func (o Owner) String() string { return o.Installation + "/" + o.Namespace + "/" + o.Name }

// InstallationHash is the value of InstallationLabel.
func (o Owner) InstallationHash() string { return hash("installation", o.Installation) }

// Ownership is whose a DPF object is.
type Ownership string

// Whose a DPF object can be. Only what is Mine may be changed or deleted.
const (
	Mine    Ownership = "Mine"
	Foreign Ownership = "Foreign"
	Nobodys Ownership = "Nobodys"
)

// OwnershipOf says whose the object with those annotations is, seen from the owner.
func (o Owner) OwnershipOf(annotations map[string]string) Ownership {
	switch value, ok := annotations[OwnerAnnotation]; {
	case !ok:
		return Nobodys
	case value == o.String():
		return Mine
	default:
		return Foreign
	}
}
