// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package dpuattachment

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/vpc"
)

// memory is the value of infrav1.DPUAttachmentMemoryAnnotation: what nobody but this attachment can tell.
type memory struct {
	// Cards are the DPUs something was written to, or was about to be, by the name of their DPUDevice. It is stored before the
	// first write: a card that is not in it was never touched.
	Cards map[string]cardMemory `json:"cards,omitempty"`
	// DetachingSince is when detachment was asked for first.
	DetachingSince *metav1.Time `json:"detachingSince,omitempty"`
}

// cardMemory is what is remembered of one DPU.
type cardMemory struct {
	// Ports are the names of the attachment's ports on it.
	Ports []string `json:"ports"`
	// Before is the Node's stretch before the first write.
	Before vpc.Continuity `json:"before"`
	// LogicalPorts are the names OVN knew the ports by when they were unplugged: nobody else tells them any more.
	LogicalPorts []string `json:"logicalPorts,omitempty"`
	// Repairs is how often something was put back since RepairedAt.
	Repairs    int          `json:"repairs,omitempty"`
	RepairedAt *metav1.Time `json:"repairedAt,omitempty"`
}

// touched reports whether anything was ever written for the attachment.
func (m memory) touched() bool { return len(m.Cards) > 0 }

// of completes a memory that was lost. What the Node was like before the first write is not known any more.
func (m cardMemory) of(c *card) cardMemory {
	if m.Ports == nil {
		m.Ports = portNames(c)
	}
	return m
}

// naming remembers what OVN calls the card's ports, as long as they have names.
func (m cardMemory) naming(c *card) cardMemory {
	m = m.of(c)
	names := slices.Concat(m.LogicalPorts, c.evidence.LogicalPorts())
	slices.Sort(names)
	m.LogicalPorts = slices.Compact(names)
	return m
}

// with returns a copy that remembers the card.
func (m memory) with(device string, card cardMemory) memory {
	cards := maps.Clone(m.Cards)
	if cards == nil {
		cards = map[string]cardMemory{}
	}
	cards[device] = card
	m.Cards = cards
	return m
}

// cardOf returns the card a port was plugged on.
func (m memory) cardOf(port string) (device string, known bool) {
	for device, card := range m.Cards {
		for _, name := range card.Ports {
			if name == port {
				return device, true
			}
		}
	}
	return "", false
}

// memoryOf reads the memory. One that cannot be read is an error: what it said is not known.
func memoryOf(attachment *infrav1.DPUAttachment) (memory, error) {
	value := attachment.Annotations[infrav1.DPUAttachmentMemoryAnnotation]
	if value == "" {
		return memory{}, nil
	}
	var m memory
	if err := json.Unmarshal([]byte(value), &m); err != nil {
		return memory{}, fmt.Errorf("annotation %s of DPUAttachment %s/%s cannot be read: restore it, or force the detachment by spec.override: %w",
			infrav1.DPUAttachmentMemoryAnnotation, attachment.Namespace, attachment.Name, err)
	}
	return m, nil
}

// storeMemory stores the memory if it changed. It fails if the attachment changed since it was read.
func (r *Reconciler) storeMemory(ctx context.Context, attachment *infrav1.DPUAttachment, next memory) error {
	current, err := memoryOf(attachment)
	if err == nil && reflect.DeepEqual(current, next) {
		return nil
	}
	value, err := json.Marshal(next)
	if err != nil {
		return fmt.Errorf("encode the memory of DPUAttachment %s/%s: %w", attachment.Namespace, attachment.Name, err)
	}
	before := attachment.DeepCopy()
	if attachment.Annotations == nil {
		attachment.Annotations = map[string]string{}
	}
	attachment.Annotations[infrav1.DPUAttachmentMemoryAnnotation] = string(value)
	if err := r.Client.Patch(ctx, attachment, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})); err != nil {
		return fmt.Errorf("store the memory of DPUAttachment %s/%s: %w", attachment.Namespace, attachment.Name, err)
	}
	return nil
}
