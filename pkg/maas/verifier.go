// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maas

import "context"

// Verifier is all that the fabric wing may ask of MAAS. MAAS has no read-only keys, so
// the guarantee is here: there is no method that changes anything.
type Verifier interface {
	// WhoAmI returns the account whose claims this verifier can see.
	WhoAmI(ctx context.Context) (Account, error)
	// Claims lists the machines allocated under a token.
	Claims(ctx context.Context, token string) ([]Machine, error)
	// Machine reads one machine.
	Machine(ctx context.Context, systemID string) (Machine, error)
	// MachinesByID lists those of the machines that exist and can be seen.
	MachinesByID(ctx context.Context, systemIDs ...string) ([]Machine, error)
	// MachinesByMAC lists the machines that have one of the MAC addresses and can be seen.
	MachinesByMAC(ctx context.Context, macs ...string) ([]Machine, error)
	// MachinesByTokens lists the machines allocated under any of the tokens.
	MachinesByTokens(ctx context.Context, tokens ...string) ([]Machine, error)
	// MachinesOwnedBy lists the machines of an account, for the audit.
	MachinesOwnedBy(ctx context.Context, username string) ([]Machine, error)
	// ConfirmClaim says whether a machine is held under a claim.
	ConfirmClaim(ctx context.Context, account, token, systemID string) (Machine, Ownership, error)
	// Devices lists the devices of a machine.
	Devices(ctx context.Context, systemID string) ([]Device, error)
	// Events returns the events after an ID.
	Events(ctx context.Context, after int64, query EventQuery) ([]Event, error)
	// Close closes idle connections.
	Close()
}

// NewVerifier makes a client that sends GET requests and nothing else: its methods only
// read, and its transport refuses any other request with ErrReadOnly.
func NewVerifier(config Config) (Verifier, error) {
	c, err := New(config)
	if err != nil {
		return nil, err
	}
	c.readOnly = true
	return verifier{client: c}, nil
}

// verifier hides the client, so that no type assertion leads to its other methods.
type verifier struct{ client *Client }

var _ Verifier = verifier{}

func (v verifier) WhoAmI(ctx context.Context) (Account, error) { return v.client.WhoAmI(ctx) }

func (v verifier) Claims(ctx context.Context, token string) ([]Machine, error) {
	return v.client.MachinesByToken(ctx, token)
}

func (v verifier) Machine(ctx context.Context, systemID string) (Machine, error) {
	return v.client.Machine(ctx, systemID)
}

func (v verifier) MachinesByID(ctx context.Context, systemIDs ...string) ([]Machine, error) {
	return v.client.MachinesByID(ctx, systemIDs...)
}

func (v verifier) MachinesByTokens(ctx context.Context, tokens ...string) ([]Machine, error) {
	return v.client.MachinesByTokens(ctx, tokens...)
}

func (v verifier) MachinesOwnedBy(ctx context.Context, username string) ([]Machine, error) {
	return v.client.MachinesOwnedBy(ctx, username)
}

func (v verifier) ConfirmClaim(ctx context.Context, account, token, systemID string) (Machine, Ownership, error) {
	return v.client.ConfirmClaim(ctx, account, token, systemID)
}

func (v verifier) Devices(ctx context.Context, systemID string) ([]Device, error) {
	return v.client.Devices(ctx, systemID)
}

func (v verifier) Events(ctx context.Context, after int64, query EventQuery) ([]Event, error) {
	return v.client.Events(ctx, after, query)
}

func (v verifier) Close() { v.client.Close() }
