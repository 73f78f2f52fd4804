// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package vpc

import (
	"encoding/json"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Holder is the value of HolderAnnotation: which attachment holds a DPU, and how far its way on and off was written. Each patch
// of the DPU's labels writes it in the same stroke, so that a restarted controller knows what was done and what the Node was
// like then.
type Holder struct {
	// Installation, Namespace and Attachment name the DPUAttachment.
	Installation string `json:"installation"`
	Namespace    string `json:"namespace"`
	Attachment   string `json:"attachment"`
	// TokenHash is the hash of the claim's token.
	TokenHash string `json:"tokenHash"`
	// Joined are the labels besides ours that take the Node into an adopted VPC, as "key=value,…", from the patch that writes them
	// to the one that removes them: the VPC itself may be gone by then, or not granted any more.
	Joined string `json:"joined,omitempty"`
	// Plugged is set by the patch that writes the port labels.
	Plugged bool `json:"plugged,omitempty"`
	// Unplugged is set by the patch that removes the port labels. It equals no stretch if the Node was not alive then.
	Unplugged *Continuity `json:"unplugged,omitempty"`
	// Repeat says that a detachment went unproven: ports are plugged and unplugged once more under the same claim.
	Repeat bool `json:"repeat,omitempty"`
	// Detached is set by the patch that takes the DPU out of the VPC after its ports were proven unplugged. Such a record holds
	// nothing any more: it remembers the proof until the next holder overwrites it.
	Detached bool `json:"detached,omitempty"`
}

// Continuity identifies one uninterrupted stretch of a Node being Ready.
type Continuity struct {
	// NodeUID changes when the Node is recreated.
	NodeUID string `json:"nodeUID"`
	// BootID changes when the DPU boots.
	BootID string `json:"bootID"`
	// ReadySince is the lastTransitionTime of the Node's Ready condition.
	ReadySince metav1.Time `json:"readySince"`
}

// Equal reports whether both are the same stretch. One without UID or boot ID equals none, not even itself.
func (c Continuity) Equal(other Continuity) bool {
	return c.NodeUID != "" && c.BootID != "" && !c.ReadySince.IsZero() &&
		c.NodeUID == other.NodeUID && c.BootID == other.BootID && c.ReadySince.Equal(&other.ReadySince)
}

// Holds reports whether the record keeps others off the DPU.
func (h Holder) Holds() bool { return !h.Detached }

// Detaching reports whether the way off has begun; it is gone to the end, whatever is asked meanwhile.
func (h Holder) Detaching() bool { return !h.Detached && (h.Unplugged != nil || h.Repeat) }

// Claim is the record of the same claim with nothing done yet, but for the labels it joined a VPC with.
func (h Holder) Claim() Holder {
	return Holder{Installation: h.Installation, Namespace: h.Namespace, Attachment: h.Attachment, TokenHash: h.TokenHash, Joined: h.Joined}
}

// SameClaim reports whether both stand for the same claim of the same attachment, whatever they remember of the Node.
func (h Holder) SameClaim(other Holder) bool {
	return h.Installation == other.Installation && h.Namespace == other.Namespace &&
		h.Attachment == other.Attachment && h.TokenHash == other.TokenHash
}

// Encode returns the annotation's value; equal holders have equal values.
func (h Holder) Encode() (string, error) {
	value, err := json.Marshal(h)
	if err != nil {
		return "", fmt.Errorf("encode holder of a DPU: %w", err)
	}
	return string(value), nil
}

// HolderOf reads the holder from annotations. Found is false if nobody holds the DPU; an annotation that cannot be read is an
// error, and the DPU counts as held by somebody.
func HolderOf(annotations map[string]string) (holder Holder, found bool, err error) {
	value, found := annotations[HolderAnnotation]
	if !found {
		return Holder{}, false, nil
	}
	if err := json.Unmarshal([]byte(value), &holder); err != nil {
		return Holder{}, true, fmt.Errorf("annotation %s holds no holder record: %w", HolderAnnotation, err)
	}
	return holder, true, nil
}
