// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package scope

import (
	"context"
	"fmt"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/dpfzt/posture"
)

// Keys of the Secrets with the credentials of BMCs.
const (
	// BMCUsernameKey of a user that may read.
	BMCUsernameKey = "username"
	// BMCPasswordKey of that user.
	BMCPasswordKey = "password"
)

// Postures says what the BMCs of a fabric's DPUs answered. It never waits: who asks for what was not read yet comes again.
type Postures interface {
	// Latest returns the last reading of a card, and whether it was begun at or after since.
	Latest(card posture.Card, since time.Time, urgent bool) (posture.Reading, bool)

	// Await wakes a DPUAttachment once, by Fabrics.Wakes, after the next reading of a card.
	Await(device string, attachment types.NamespacedName)
}

// bmcReadings are the readings of one fabric, and who waits for them.
type bmcReadings struct {
	*posture.Readings
	wake func(types.NamespacedName)

	mu      sync.Mutex
	waiting map[string]map[types.NamespacedName]bool
}

// Await implements Postures.
func (b *bmcReadings) Await(device string, attachment types.NamespacedName) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.waiting[device] == nil {
		b.waiting[device] = map[types.NamespacedName]bool{}
	}
	b.waiting[device][attachment] = true
}

func (b *bmcReadings) tell(device string) {
	b.mu.Lock()
	waiting := b.waiting[device]
	delete(b.waiting, device)
	b.mu.Unlock()
	for attachment := range waiting {
		b.wake(attachment)
	}
}

// PostureCall describes one finished reading of a BMC.
type PostureCall struct {
	// Fabric is the name of the DPUFabric.
	Fabric string
	posture.Call
}

// postures returns the readings of a fabric's BMCs, of which there is one for all.
func (f *fabrics) postures(object *infrav1.DPUFabric, memory *fabricMemory) Postures {
	memory.mu.Lock()
	defer memory.mu.Unlock()
	if memory.bmcs == nil {
		name := object.Name
		options := posture.Options{
			Access: func(ctx context.Context, device string) (posture.Access, error) {
				return f.bmcAccess(ctx, name, device)
			},
			Clock: f.options.Clock, Retry: f.options.PostureRetry,
		}
		bmcs := &bmcReadings{wake: f.wakes.wake, waiting: map[string]map[types.NamespacedName]bool{}}
		options.Observe = func(call posture.Call) {
			bmcs.tell(call.Card.Device)
			if f.options.ObservePosture != nil {
				f.options.ObservePosture(PostureCall{Fabric: name, Call: call})
			}
		}
		bmcs.Readings = posture.NewReadings(options)
		memory.bmcs = bmcs
	}
	return memory.bmcs
}

// bmcAccess is what the BMC of a card is asked with, as it is now: credentials and certificates rotate.
func (f *fabrics) bmcAccess(ctx context.Context, fabric, device string) (posture.Access, error) {
	object := &infrav1.DPUFabric{}
	if err := f.options.Client.Get(ctx, client.ObjectKey{Name: fabric}, object); err != nil {
		return posture.Access{}, fmt.Errorf("read DPUFabric %s: %w", fabric, err)
	}
	asked := object.Spec.Posture
	name := bmcSecret(asked, device)
	if name == "" {
		return posture.Access{}, &UnusableError{
			Reason:  infrav1.SecretNotFoundReason,
			Message: fmt.Sprintf("DPUFabric %s names no Secret for the BMC of DPUDevice %s: write posture.secretRef or posture.deviceSecrets", fabric, device),
		}
	}
	secret, password, err := f.secret(ctx, name, BMCPasswordKey, "the BMC of DPUDevice "+device)
	if err != nil {
		return posture.Access{}, err
	}
	username := secret.Data[BMCUsernameKey]
	if len(username) == 0 {
		return posture.Access{}, &UnusableError{
			Reason:  infrav1.SecretInvalidReason,
			Message: fmt.Sprintf("Secret %s/%s has no key %s: write it", f.options.Namespace, name, BMCUsernameKey),
		}
	}
	return posture.Access{
		Trust:       posture.Trust{CABundle: asked.CABundle, PinnedCertificates: asked.PinnedCertificates},
		Credentials: posture.NewCredentials(string(username), string(password)),
		Version:     string(secret.UID) + "/" + secret.ResourceVersion,
	}, nil
}

// bmcSecret is the card's own Secret, or that of all.
func bmcSecret(asked infrav1.Posture, device string) string {
	for _, own := range asked.DeviceSecrets {
		if own.DPUDevice == device {
			return own.SecretRef.Name
		}
	}
	if asked.SecretRef == nil {
		return ""
	}
	return asked.SecretRef.Name
}
