// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package scope

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/maas"
)

// jointClaims asks MAAS for the tokens of all who ask at the same time: who comes while a query is under way joins the next.
type jointClaims struct {
	mu   sync.Mutex
	next *claimsQuery
	busy bool
}

// claimsQuery is one query. It outlives the contexts of those who wait for it, and ends early once nobody does. Its results may
// be read after done.
type claimsQuery struct {
	ctx     context.Context
	cancel  context.CancelFunc
	waiting int
	tokens  []string

	done chan struct{}
	// sent is when the question was, found what MAAS answered.
	sent  time.Time
	found []maas.Machine
	err   error
}

// NoneClaimed reports that no machine is allocated under the token. It asks MAAS once for the tokens of all who ask at the same
// time, always after the call. False means that it is not known: ask MachinesByToken.
func (r *Readings) NoneClaimed(ctx context.Context, token string) (bool, error) {
	if !maas.Token(token).Valid() {
		// In one query with others it would spoil theirs.
		client, _ := r.source()
		found, err := client.MachinesByTokens(ctx, token)
		return err == nil && len(found) == 0, err
	}
	query, err := r.askTogether(ctx, token)
	if err != nil {
		return false, err
	}
	return unclaimed(query.tokens, query.found)[token], nil
}

// askTogether asks for the token together with those of all others who ask, always after the call.
func (r *Readings) askTogether(ctx context.Context, token string) (*claimsQuery, error) {
	call := maas.Call{Operation: "list by token"}
	query := r.joinQuery(ctx, token)
	defer r.claims.leave(query)
	arrived := r.clock.Now()
	timer := r.clock.NewTimer(stalled)
	defer timer.Stop()
	for {
		select {
		case <-query.done:
			return query, query.err
		case <-ctx.Done():
			return nil, &maas.UnavailableError{Call: call, Err: ctx.Err()}
		case <-timer.C():
			if r.clock.Since(arrived) >= patience || r.silent() {
				return nil, &maas.UnavailableError{Call: call, Err: errSlow}
			}
			timer.Reset(stalled)
		}
	}
}

// joinQuery adds the token to the next query, and sees to it that it is asked.
func (r *Readings) joinQuery(ctx context.Context, token string) *claimsQuery {
	c := &r.claims
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.next == nil {
		c.next = &claimsQuery{done: make(chan struct{})}
		c.next.ctx, c.next.cancel = context.WithCancel(context.WithoutCancel(ctx))
	}
	query := c.next
	query.waiting++
	if !slices.Contains(query.tokens, token) {
		query.tokens = append(query.tokens, token)
	}
	if !c.busy {
		c.busy = true
		go r.askClaims()
	}
	return query
}

// askClaims asks until no further query waits. Each ends by the deadlines of the client, or when nobody waits for it.
func (r *Readings) askClaims() {
	for {
		query := r.claims.take()
		if query == nil {
			return
		}
		client, _ := r.source()
		query.sent = r.clock.Now()
		query.found, query.err = client.MachinesByTokens(query.ctx, query.tokens...)
		r.hear(query.ctx, query.sent, query.err)
		close(query.done)
	}
}

func (c *jointClaims) take() *claimsQuery {
	c.mu.Lock()
	defer c.mu.Unlock()
	query := c.next
	c.next = nil
	c.busy = query != nil
	return query
}

func (c *jointClaims) leave(query *claimsQuery) {
	c.mu.Lock()
	defer c.mu.Unlock()
	query.waiting--
	if query.waiting > 0 {
		return
	}
	query.cancel()
	if c.next == query {
		c.next = nil // Nobody may join what was cancelled.
	}
}

// unclaimed are the tokens that no machine of the answer can have been allocated under. MAAS does not say which machine has
// which token: the annotation does, and a machine without one of these may have any of them.
func unclaimed(tokens []string, found []maas.Machine) map[string]bool {
	free := make(map[string]bool, len(tokens))
	hashes := make(map[string]string, len(tokens))
	for _, token := range tokens {
		free[token] = true
		hashes[maas.TokenHash(token)] = token
	}
	for i := range found {
		token, ok := hashes[found[i].Annotations[maas.AnnotationToken]]
		if !ok {
			return nil
		}
		free[token] = false
	}
	return free
}
