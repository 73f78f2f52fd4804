// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package dpuattachment

import (
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/vpc"
)

// progress is how far the proof of one attachment is that OVN gives. It is lost with the process: then the proof begins again.
type progress struct {
	// since is when OVN's word was missing first.
	since   time.Time
	barrier vpc.Barrier
	// again says that the proof of a running tenant was taken back, so that no barrier passed before counts. It is in the status, too,
	// which may be read from a cache that does not know yet.
	again bool
}

func (p progress) zero() bool {
	return p.since.IsZero() && p.barrier.Raises == 0 && !p.again
}

// progresses are those of all attachments. The zero value is ready to use.
type progresses struct {
	mu    sync.Mutex
	known map[types.UID]progress
}

func (p *progresses) of(attachment types.UID) progress {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.known[attachment]
}

// keep remembers how far an attachment is, or forgets what is not worth remembering.
func (p *progresses) keep(attachment types.UID, next progress) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if next.zero() {
		delete(p.known, attachment)
		return
	}
	if p.known == nil {
		p.known = map[types.UID]progress{}
	}
	p.known[attachment] = next
}
