// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package scope

import (
	"testing"
	"time"

	. "github.com/onsi/gomega"
	clocktesting "k8s.io/utils/clock/testing"
)

func TestTurnsAreBounded(t *testing.T) {
	g := NewWithT(t)
	turns := NewTurns(2, time.Second, clocktesting.NewFakeClock(time.Now()))
	first, verdict := turns.Take(Turn{}, nil)
	g.Expect(verdict).To(Equal(TurnGranted))
	_, verdict = turns.Take(Turn{}, nil)
	g.Expect(verdict).To(Equal(TurnGranted))
	_, verdict = turns.Take(Turn{}, nil)
	g.Expect(verdict).To(Equal(TurnBusy))
	first.Done(OutcomeFailed)
	first.Done(OutcomeFailed) // Giving back twice gives back once.
	_, verdict = turns.Take(Turn{}, nil)
	g.Expect(verdict).To(Equal(TurnGranted))
	_, verdict = turns.Take(Turn{}, nil)
	g.Expect(verdict).To(Equal(TurnBusy))
}
