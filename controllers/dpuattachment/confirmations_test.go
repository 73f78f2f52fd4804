// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package dpuattachment

import (
	"context"
	"testing"
	"time"

	clocktesting "k8s.io/utils/clock/testing"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/internal/scope"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/vpc"
)

// TestConfirmationsServeUntilTheNextWrite: MAAS is asked again after a write, after a while, for another token, and when what is
// read for everybody says otherwise.
func TestConfirmationsServeUntilTheNextWrite(t *testing.T) {
	for name, c := range map[string]struct {
		meanwhile func(*Reconciler, *clocktesting.FakeClock, *observation)
		asks      bool
	}{
		"nothing": {func(*Reconciler, *clocktesting.FakeClock, *observation) {}, false},
		"a write": {func(r *Reconciler, _ *clocktesting.FakeClock, o *observation) { r.confirmations.end(o.attachment.UID) }, true},
		"a while": {func(_ *Reconciler, clock *clocktesting.FakeClock, _ *observation) { clock.Step(confirmationAge) }, true},
		"another token": {func(_ *Reconciler, _ *clocktesting.FakeClock, o *observation) {
			o.attachment.Spec.Server.Token += "0"
		}, true},
		"another attachment": {func(_ *Reconciler, _ *clocktesting.FakeClock, o *observation) { o.attachment.UID += "0" }, true},
	} {
		t.Run(name, func(t *testing.T) {
			clock := clocktesting.NewFakeClock(now)
			r, o := &Reconciler{Clock: clock}, scene()
			ownership := maas.Ownership{Answer: maas.Yes}
			o.fabric.Verifier = func(context.Context, string) (scope.Verifier, error) {
				return scope.Verifier{Verifier: answers{ownership: ownership}, Account: "a"}, nil
			}
			r.observeClaim(t.Context(), o)
			if !o.confirmed() {
				t.Fatalf("got %+v", o.claim)
			}
			// From here on MAAS says No: who asks finds out.
			ownership = maas.Ownership{Answer: maas.No}
			c.meanwhile(r, clock, o)
			o.claim = claim{}
			r.observeClaim(t.Context(), o)
			if want := map[bool]vpc.Answer{true: vpc.No, false: vpc.Yes}[c.asks]; o.claim.finding.Answer != want {
				t.Errorf("got %v, want %v", o.claim.finding.Answer, want)
			}
		})
	}
}

// TestConfirmationsAreForgotten: what nobody comes back for does not stay.
func TestConfirmationsAreForgotten(t *testing.T) {
	c := confirmations{}
	c.keep("gone", token, now, &maas.Machine{})
	c.keep("next", token, now.Add(confirmationAge+time.Second), &maas.Machine{})
	if len(c.known) != 1 {
		t.Errorf("kept %v", c.known)
	}
}
