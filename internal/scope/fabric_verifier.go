// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package scope

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
)

// rememberedVerifier is the client of one claim source. Who holds slot may open it; account is known once opened is true.
type rememberedVerifier struct {
	version  string
	verifier maas.Verifier
	slot     chan struct{}

	opened   bool
	account  string
	failure  error
	failedAt time.Time
}

func (v *rememberedVerifier) close() {
	if v.verifier != nil {
		v.verifier.Close()
	}
}

// verifier returns the GET-only client of a claim source. Whose key it is is asked once per version of the Secret. Answers
// about claims are never shared between callers: each must have been read since its own last transition.
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
	select {
	case remembered.slot <- struct{}{}:
		defer func() { <-remembered.slot }()
	case <-ctx.Done():
		return Verifier{}, ClaimSourceError(source.Name, ctx.Err())
	}
	if !remembered.opened {
		if remembered.failure != nil && f.options.Clock.Since(remembered.failedAt) < failureMemory {
			return Verifier{}, remembered.failure
		}
		account, err := remembered.whoAmI(ctx, f.options.Timeout)
		if err != nil {
			remembered.failure, remembered.failedAt = ClaimSourceError(source.Name, err), f.options.Clock.Now()
			return Verifier{}, remembered.failure
		}
		remembered.opened, remembered.account, remembered.failure = true, account.Username, nil
	}
	if pinned := pinnedAccount(object, name); pinned != "" && pinned != remembered.account {
		return Verifier{}, &UnusableError{Reason: infrav1.AccountChangedReason, Message: fmt.Sprintf(
			"the key of claim source %s of DPUFabric %s belongs to MAAS account %s, its claims to %s: put a key of %s into its Secret",
			name, object.Name, remembered.account, pinned, pinned)}
	}
	return Verifier{Verifier: remembered.verifier, Account: remembered.account}, nil
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

func (v *rememberedVerifier) whoAmI(ctx context.Context, timeout time.Duration) (maas.Account, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	return v.verifier.WhoAmI(ctx)
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
	verifier, err := maas.NewVerifier(maas.Config{
		Endpoint: source.Endpoint, CABundle: source.CABundle, APIKey: maas.NewAPIKey(string(key)),
		Observe: f.options.ObserveMaas, Clock: f.options.Clock,
	})
	if err != nil {
		return nil, &UnusableError{Reason: infrav1.SecretInvalidReason, Message: whose + " cannot be used", Err: err}
	}
	if ok {
		// Only idle connections are closed: calls under way end as they would.
		remembered.close()
	}
	remembered = &rememberedVerifier{version: version, verifier: verifier, slot: make(chan struct{}, 1)}
	memory.verifiers[source.Name] = remembered
	return remembered, nil
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
