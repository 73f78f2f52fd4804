// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package scope

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
)

// whoAmIAge is for how long it counts that MAAS said whose key a claim source's is, for those who only want to know that it is
// still accepted.
const whoAmIAge = 50 * time.Second

// rememberedVerifier is the client of one claim source, and what was read with it. It is of one key: with another one everything
// begins anew, so that what another account sees is never taken for what became of the claims.
type rememberedVerifier struct {
	source, version string
	verifier        maas.Verifier
	readings        *Readings
	pulse           *pulse

	// slot is held by who asks MAAS whose key it is.
	slot    chan struct{}
	account atomic.Pointer[knownAccount]
	failed  atomic.Pointer[failure]
}

// knownAccount is whose key it is, as MAAS said then.
type knownAccount struct {
	name string
	at   time.Time
}

func (v *rememberedVerifier) close() {
	if v.verifier != nil {
		v.verifier.Close()
	}
}

// verifier returns the GET-only client of a claim source. Whose key it is is asked once per version of the Secret, and again where
// MAAS has stopped to answer: until it does, those who need it are told so at once.
func (f *fabrics) verifier(ctx context.Context, object *infrav1.DPUFabric, memory *fabricMemory, name string) (Verifier, error) {
	source := claimSource(object, name)
	if source == nil {
		return Verifier{}, &UnusableError{
			Reason:  infrav1.SourceUnknownReason,
			Message: fmt.Sprintf("DPUFabric %s has no claim source %s", object.Name, name),
		}
	}
	remembered, err := f.rememberVerifier(ctx, object, memory, source)
	if err != nil {
		return Verifier{}, err
	}
	if err := f.identify(ctx, remembered, 0); err != nil {
		return Verifier{}, err
	}
	account := remembered.account.Load().name
	if pinned := pinnedAccount(object, name); pinned != "" && pinned != account {
		return Verifier{}, &UnusableError{Reason: infrav1.AccountChangedReason, Message: fmt.Sprintf(
			"the key of claim source %s of DPUFabric %s belongs to MAAS account %s, its claims to %s: put a key of %s into its Secret",
			name, object.Name, account, pinned, pinned)}
	}
	v := Verifier{Verifier: remembered.verifier, Account: account, probe: func(ctx context.Context) error {
		return f.identify(ctx, remembered, whoAmIAge)
	}}
	if f.polled.Load() {
		v.readings, v.maxAge = remembered.readings, 2*f.options.AuditInterval+auditGrace
	}
	return v, nil
}

// pinnedAccount is the account that holds the claims of a source, as far as known. With another one MAAS would call every claim
// lost, and every tenant would be detached.
func pinnedAccount(object *infrav1.DPUFabric, source string) string {
	for _, known := range object.Status.ClaimSources {
		if known.Name == source {
			return known.Account
		}
	}
	return ""
}

// identify sees to it that MAAS has said whose key it is, at most maxAge ago (0 means ever), and has answered since it was asked
// last.
func (f *fabrics) identify(ctx context.Context, v *rememberedVerifier, maxAge time.Duration) error {
	done := func() (bool, error) {
		if failed := v.failed.Load(); failed != nil && f.clock.Since(failed.at) < failureMemory {
			return true, failed.err
		}
		known := v.account.Load()
		return known != nil && !v.pulse.hangs() && (maxAge == 0 || f.clock.Since(known.at) < maxAge), nil
	}
	if ok, err := done(); ok {
		return err
	}
	if err := v.enter(ctx, f); err != nil {
		return err
	}
	defer func() { <-v.slot }()
	if ok, err := done(); ok {
		return err
	}
	asked, cancel := context.WithTimeout(ctx, f.options.Timeout)
	defer cancel()
	who, err := v.verifier.WhoAmI(asked)
	if err != nil {
		unusable := ClaimSourceError(v.source, err)
		if ctx.Err() == nil {
			v.failed.Store(&failure{err: unusable, at: f.clock.Now()})
		}
		return unusable
	}
	v.failed.Store(nil)
	v.account.Store(&knownAccount{name: who.Username, at: f.clock.Now()})
	v.pulse.alive()
	return nil
}

// enter waits for the slot. While MAAS is asked whose key it is and does not answer, nobody is kept waiting for long.
func (v *rememberedVerifier) enter(ctx context.Context, f *fabrics) error {
	select {
	case v.slot <- struct{}{}:
		return nil
	default:
	}
	if failed := v.failed.Load(); failed != nil {
		return failed.err
	}
	timer := f.clock.NewTimer(probePatience)
	defer timer.Stop()
	select {
	case v.slot <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ClaimSourceError(v.source, ctx.Err())
	case <-timer.C():
		return ClaimSourceError(v.source, errNoAccount)
	}
}

func (f *fabrics) rememberVerifier(ctx context.Context, object *infrav1.DPUFabric, memory *fabricMemory, source *infrav1.ClaimSource) (*rememberedVerifier, error) {
	whose := fmt.Sprintf("claim source %s of DPUFabric %s", source.Name, object.Name)
	secret, key, err := f.secret(ctx, source.SecretRef.Name, APIKeyKey, whose)
	if err != nil {
		return nil, err
	}
	version := fmt.Sprintf("%s/%s %s %x", secret.UID, secret.ResourceVersion, source.Endpoint, sha256.Sum256(source.CABundle))

	memory.mu.Lock()
	defer memory.mu.Unlock()
	remembered, ok := memory.verifiers[source.Name]
	if ok && remembered.version == version {
		return remembered, nil
	}
	pulse := newPulse(f.clock)
	verifier, err := maas.NewVerifier(maas.Config{
		Endpoint: source.Endpoint, CABundle: source.CABundle, APIKey: maas.NewAPIKey(string(key)),
		Admit: pulse.admit, Observe: f.observeMaas(pulse), Clock: f.options.Clock,
	})
	if err != nil {
		return nil, &UnusableError{Reason: infrav1.SecretInvalidReason, Message: whose + " cannot be used", Err: err}
	}
	if ok {
		// Only idle connections are closed: calls under way end as they would.
		remembered.close()
	}
	remembered = &rememberedVerifier{
		source: source.Name, version: version, verifier: verifier, pulse: pulse, slot: make(chan struct{}, 1),
		readings: NewReadings(verifier, f.options.PollInterval, f.clock),
	}
	// What is watched here is settled: nobody waits for it, and the feed is asked at every poll all the same.
	remembered.readings.onlyClaims = true
	remembered.readings.idle = f.options.PollInterval
	remembered.readings.wake = f.wakes.wake
	remembered.readings.hangs = func() bool { return pulse.silence() >= stalled }
	memory.verifiers[source.Name] = remembered
	return remembered, nil
}

func (f *fabrics) observeMaas(pulse *pulse) func(maas.Observation) {
	return func(o maas.Observation) {
		pulse.ended(o)
		if f.options.ObserveMaas != nil {
			f.options.ObserveMaas(o)
		}
	}
}

// ClaimSourceError says in the API's reasons why a claim source's MAAS could not be asked. It is the answer "unknown".
func ClaimSourceError(source string, err error) error {
	var skew *maas.ClockSkewError
	switch {
	case errors.As(err, &skew):
		return &UnusableError{Reason: infrav1.ClockSkewReason, Message: "the clocks of MAAS and of the manager differ, claim source " + source, Err: err}
	case maas.IsUnauthorized(err):
		return &UnusableError{Reason: infrav1.CredentialsRefusedReason, Message: "MAAS refuses the key of claim source " + source + ": renew key " + APIKeyKey + " of its Secret"}
	default:
		return &UnusableError{Reason: infrav1.MaasUnreachableReason, Message: "MAAS of claim source " + source + " does not answer", Err: err}
	}
}
