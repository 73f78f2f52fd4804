// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package ovn

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
)

// The databases an Error and a Call can be about.
const (
	Southbound = "southbound"
	Northbound = "northbound"
)

// Kind is what is wrong with a database.
type Kind string

// The kinds of Errors.
const (
	// Unreachable databases gave no answer in time, or are not who they should be. What was asked may have been done.
	Unreachable Kind = "unreachable"
	// Refused are questions that the database answered with an error.
	Refused Kind = "refused"
	// Malformed are answers that make no sense, or are too long.
	Malformed Kind = "malformed"
)

// Error is why a database did not say what it was asked. It holds no key material.
type Error struct {
	// Database is Southbound or Northbound, Endpoint where it was looked for.
	Database, Endpoint string
	Kind               Kind
	// Err is the cause.
	Err error
	// unsent says that the question was surely not sent.
	unsent bool
}

// Error implements error.
func (e *Error) Error() string {
	where := "OVN's " + e.Database + " database"
	if e.Endpoint != "" {
		where += " at " + e.Endpoint
	}
	switch e.Kind {
	case Refused:
		return fmt.Sprintf("%s refuses: %v", where, e.Err)
	case Malformed:
		return fmt.Sprintf("%s answers what makes no sense: %v", where, e.Err)
	default:
		return fmt.Sprintf("%s does not answer: %v", where, e.Err)
	}
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// KindOf returns the kind of an error of a Client; empty for nil, and Unreachable for what is no Error.
func KindOf(err error) Kind {
	var known *Error
	switch {
	case err == nil:
		return ""
	case errors.As(err, &known):
		return known.Kind
	default:
		return Unreachable
	}
}

func unreachable(err error) *Error { return &Error{Kind: Unreachable, Err: err} }

func malformed(format string, args ...any) *Error {
	return &Error{Kind: Malformed, Err: fmt.Errorf(format, args...)}
}

func refused(format string, args ...any) *Error {
	return &Error{Kind: Refused, Err: fmt.Errorf(format, args...)}
}

// about says which database an error is about.
func about(err error, database, endpoint string) error {
	var known *Error
	if !errors.As(err, &known) {
		known = unreachable(err)
	}
	said := *known
	said.Database, said.Endpoint = cmp.Or(said.Database, database), cmp.Or(said.Endpoint, endpoint)
	return &said
}

// errTimeout stands for the deadline of a question, whoever set it.
var errTimeout = errors.New("no answer in time")

func cause(ctx context.Context) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return errTimeout
	}
	return ctx.Err()
}

// plain is the context's end instead of what it did to the network, which may notice the deadline first.
func plain(ctx context.Context, err error) error {
	var network net.Error
	switch {
	case ctx.Err() != nil:
		return cause(ctx)
	case errors.As(err, &network) && network.Timeout():
		return errTimeout
	default:
		return err
	}
}

// saidBy quotes what a server wrote, as far as a person wants to read it.
func saidBy(text string) string {
	const enough = 200
	if len(text) > enough {
		text = text[:enough] + "..."
	}
	return strconv.Quote(text)
}
