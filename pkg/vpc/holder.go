// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package vpc

import (
	"encoding/json"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Holder is the value of HolderAnnotation: which attachment holds a DPU. The patch that unplugs the ports records besides
// what the Node was like then, so that a restarted controller can tell whether the Node lived through the detachment.
type Holder struct {
	// Installation, Namespace and Attachment name the DPUAttachment.
	Installation string `json:"installation"`
	Namespace    string `json:"namespace"`
	Attachment   string `json:"attachment"`
	// TokenHash is the hash of the claim's token.
	TokenHash string `json:"tokenHash"`
	// Unplugged is set by the patch that removes the port labels.
	Unplugged *Continuity `json:"unplugged,omitempty"`
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
