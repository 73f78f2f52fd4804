// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package dataplane_test

import (
	"context"
	"encoding/json"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
)

// told remembers when the fabric wing began to write what it had proven. Any observer learns of it later, so that an order found
// against this instant holds against everybody's.
type told struct {
	mu    sync.Mutex
	since map[statement]time.Time
}

type statement struct {
	attachment types.NamespacedName
	state      infrav1.AttachmentState
}

func newTold() *told { return &told{since: map[statement]time.Time{}} }

// first is when the state was stated for the first time.
func (t *told) first(attachment types.NamespacedName, state infrav1.AttachmentState) (time.Time, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	at, ok := t.since[statement{attachment, state}]
	return at, ok
}

// newClient is a manager's client whose writes of attachments' states are noted, just before they are sent.
func (t *told) newClient(config *rest.Config, options client.Options) (client.Client, error) {
	inner, err := client.NewWithWatch(config, options)
	if err != nil {
		return nil, err
	}
	return interceptor.NewClient(inner, interceptor.Funcs{
		SubResourcePatch: func(ctx context.Context, c client.Client, sub string, object client.Object, patch client.Patch, options ...client.SubResourcePatchOption) error {
			if err := t.note(object, patch); err != nil {
				return err
			}
			return c.SubResource(sub).Patch(ctx, object, patch, options...)
		},
	}), nil
}

func (t *told) note(object client.Object, patch client.Patch) error {
	if _, ok := object.(*infrav1.DPUAttachment); !ok {
		return nil
	}
	data, err := patch.Data(object)
	if err != nil {
		return err
	}
	var written struct {
		Status struct {
			State infrav1.AttachmentState `json:"state"`
		} `json:"status"`
	}
	if err := json.Unmarshal(data, &written); err != nil {
		return err
	}
	if written.Status.State == "" {
		return nil
	}
	key := statement{client.ObjectKeyFromObject(object), written.Status.State}
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, known := t.since[key]; !known {
		t.since[key] = time.Now()
	}
	return nil
}
