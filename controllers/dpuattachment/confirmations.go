// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package dpuattachment

import (
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
)

// confirmationAge is for how long MAAS' Yes serves the passes that follow, as long as none of them has written anything: one that
// waited for the DPUs' BMCs, or whose write was refused because the DPU had changed.
const confirmationAge = 5 * time.Second

// confirmations are the claims MAAS confirmed since the last write for their attachments. The zero value is ready to use.
type confirmations struct {
	mu    sync.Mutex
	known map[types.UID]confirmation
}

type confirmation struct {
	token   string
	asked   time.Time
	machine *maas.Machine
}

// keep remembers a Yes to a question that was sent then, and forgets what is too old.
func (c *confirmations) keep(attachment types.UID, token string, asked time.Time, machine *maas.Machine) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.known == nil {
		c.known = map[types.UID]confirmation{}
	}
	for uid, other := range c.known {
		if asked.Sub(other.asked) >= confirmationAge {
			delete(c.known, uid)
		}
	}
	c.known[attachment] = confirmation{token: token, asked: asked, machine: machine}
}

// of returns the machine that MAAS confirmed; nil if it has to be asked.
func (c *confirmations) of(attachment types.UID, token string, now time.Time) *maas.Machine {
	c.mu.Lock()
	defer c.mu.Unlock()
	known, ok := c.known[attachment]
	if !ok || known.token != token || now.Sub(known.asked) >= confirmationAge {
		return nil
	}
	return known.machine
}

// end forgets what was confirmed: something is being written, or says otherwise.
func (c *confirmations) end(attachment types.UID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.known, attachment)
}
