// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maasmachine

import (
	"testing"
	"time"

	. "github.com/onsi/gomega"
)

// TestAServerIsGivenToOneMachine: whoever had it before, under another claim, must not take it for its own.
func TestAServerIsGivenToOneMachine(t *testing.T) {
	g := NewWithT(t)
	now := time.Now()
	m := newMemory()
	m.give("identity", "a", "first", now.Add(time.Minute))
	g.Expect(m.givenTo("identity", "a", "first", now)).To(BeTrue())
	g.Expect(m.givenTo("other", "a", "first", now)).To(BeFalse(), "a server of the same ID of another account")
	g.Expect(m.givenTo("identity", "a", "first", now.Add(time.Minute))).To(BeFalse(), "not for ever")
	m.give("identity", "a", "second", now.Add(time.Minute))
	g.Expect(m.givenTo("identity", "a", "first", now)).To(BeFalse())
	g.Expect(m.givenTo("identity", "a", "second", now)).To(BeTrue())
	m.used("identity", "a")
	g.Expect(m.givenTo("identity", "a", "second", now)).To(BeFalse())
}
