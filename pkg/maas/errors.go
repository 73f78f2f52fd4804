// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maas

import (
	"errors"
	"fmt"
	"sort"
	"strings"
	"time"
)

// Call names what was asked of MAAS; every error carries it.
type Call struct {
	// Operation such as "deploy".
	Operation string
	// Object it was about, such as "machine abc123"; may be empty.
	Object string
}

// String renders the call for an error text.
func (c Call) String() string {
	if c.Object == "" {
		return "maas: " + c.Operation
	}
	return "maas: " + c.Operation + " " + c.Object
}

func (c Call) fail(message, hint string) string {
	text := c.String()
	if message != "" {
		text += ": " + message
	}
	if hint != "" {
		text += ": " + hint
	}
	return text
}

// ConfigError says which part of a Config is unusable and what to write instead. It
// never quotes the value.
type ConfigError struct{ Field, Problem string }

func (e *ConfigError) Error() string { return "maas: " + e.Field + " " + e.Problem }

// ArgumentError is a call refused before anything was sent.
type ArgumentError struct {
	Call
	Problem string
}

func (e *ArgumentError) Error() string { return e.fail(e.Problem, "") }

// NotFoundError is MAAS' 404: no such object.
type NotFoundError struct {
	Call
	Message string
}

func (e *NotFoundError) Error() string { return e.fail("not found", e.Message) }

// ForbiddenError is MAAS' 403: the object exists and is somebody else's, is locked, or
// the operation is for administrators. MAAS usually does not say which.
type ForbiddenError struct {
	Call
	Message string
}

func (e *ForbiddenError) Error() string {
	if e.Message != "" {
		return e.fail("forbidden", e.Message)
	}
	return e.fail("forbidden", "owned by another account, locked, or reserved for administrators")
}

// UnauthorizedError is MAAS' 401. Its body is dropped unread because it can quote the
// token secret.
type UnauthorizedError struct{ Call }

func (e *UnauthorizedError) Error() string {
	return e.fail("MAAS refuses the API key", "renew the key in the identity's Secret")
}

// ClockSkewError is a 401 while our clock is too far behind MAAS' for OAuth.
type ClockSkewError struct {
	Call
	// Behind is by how much our clock is behind MAAS' Date header.
	Behind time.Duration
}

func (e *ClockSkewError) Error() string {
	return e.fail(fmt.Sprintf("MAAS refuses requests signed %s in the past", e.Behind.Round(time.Second)), "correct the clock of this host or of MAAS")
}

// Unwrap makes a clock skew an UnauthorizedError too.
func (e *ClockSkewError) Unwrap() error { return &UnauthorizedError{Call: e.Call} }

// StateConflictError is a 409 without Retry-After: a fact about the machine's state.
// Nothing was done; re-read the machine.
type StateConflictError struct {
	Call
	Message string
}

func (e *StateConflictError) Error() string { return e.fail("refused in the present state", e.Message) }

// RetryableError is an answer that asks for the same call again later: 409 with
// Retry-After (database conflict), 429, 502, 503, 504.
type RetryableError struct {
	Call
	Status  int
	Message string
	// RetryAfter as MAAS asked; zero if it did not.
	RetryAfter time.Duration
}

func (e *RetryableError) Error() string {
	return e.fail(fmt.Sprintf("temporarily refused (HTTP %d)", e.Status), e.Message)
}

// ServerError is any other error status, most often 500.
type ServerError struct {
	Call
	Status  int
	Message string
}

func (e *ServerError) Error() string { return e.fail(fmt.Sprintf("HTTP %d", e.Status), e.Message) }

// InvalidRequestError is MAAS' 400: the request can never succeed as it stands.
type InvalidRequestError struct {
	Call
	// Fields maps a parameter to MAAS' messages about it; nil if the answer was text.
	Fields map[string][]string
	// Message is the text of an answer without fields.
	Message string
}

func (e *InvalidRequestError) Error() string { return e.fail("invalid request", e.details()) }

func (e *InvalidRequestError) details() string {
	if len(e.Fields) == 0 {
		return e.Message
	}
	texts := make([]string, 0, len(e.Fields))
	for field, messages := range e.Fields {
		texts = append(texts, field+": "+strings.Join(messages, " "))
	}
	sort.Strings(texts)
	return strings.Join(texts, "; ")
}

// ConstraintError means that allocate's constraints can never match as they stand, e.g.
// because a tag, zone or pool does not exist. Do not retry before something changed.
type ConstraintError struct{ InvalidRequestError }

func (e *ConstraintError) Error() string { return e.fail("constraints can not match", e.details()) }

// Unwrap makes a constraint error an InvalidRequestError too.
func (e *ConstraintError) Unwrap() error { return &e.InvalidRequestError }

// NoMatchError means that no machine is free now that meets the constraints.
type NoMatchError struct {
	Call
	Message string
}

func (e *NoMatchError) Error() string { return e.fail("no machine available", e.Message) }

// UnavailableError means that MAAS was not reached or its answer was lost on the way,
// and that nothing was changed by the call: it was a read, or was never sent.
type UnavailableError struct {
	Call
	Err error
}

func (e *UnavailableError) Error() string { return e.fail("MAAS unavailable", e.Err.Error()) }

// Unwrap returns the cause, so that errors.Is finds context.DeadlineExceeded.
func (e *UnavailableError) Unwrap() error { return e.Err }

// MalformedAnswerError is a successful status with a body that makes no sense.
type MalformedAnswerError struct {
	Call
	Err error
}

func (e *MalformedAnswerError) Error() string {
	return e.fail("MAAS answered something unreadable", e.Err.Error())
}

// Unwrap returns the cause.
func (e *MalformedAnswerError) Unwrap() error { return e.Err }

// UnknownOutcomeError means that a change was sent and nobody knows whether MAAS made
// it. It may still appear for OutcomeWindow: look before doing it again.
type UnknownOutcomeError struct {
	Call
	// Err is what happened to the answer: a context error, a dropped connection, a
	// *RetryableError or *ServerError (5xx after a possible commit), ...
	Err error
}

func (e *UnknownOutcomeError) Error() string {
	return e.fail("outcome unknown", e.Err.Error())
}

// Unwrap returns what happened to the answer.
func (e *UnknownOutcomeError) Unwrap() error { return e.Err }

// PowerNotSentError means that MAAS accepted a power-off and sent nothing, because it
// cannot switch this machine (power type manual, or a DPU).
type PowerNotSentError struct{ Call }

func (e *PowerNotSentError) Error() string {
	return e.fail("MAAS can not switch this machine's power", "switch it off by hand or give it a power type that MAAS controls")
}

var (
	// ErrBodyTooLarge is the cause when an answer exceeds Config.MaxBody.
	ErrBodyTooLarge = errors.New("answer exceeds the size limit")
	// ErrReadOnly is the cause when a read-only client was about to change something.
	ErrReadOnly = errors.New("this client sends GET requests only")
	// ErrRedirected is the cause when the endpoint answers with a redirect: requests are
	// not carried elsewhere.
	ErrRedirected = errors.New("the endpoint redirects; write the address it redirects to")

	errNoAPI    = errors.New("the endpoint answers 404 to what every MAAS has; check that it is the MAAS root")
	errReplayed = errors.New("the connection broke and MAAS refused the repeated request")
)

func is[T error](err error) bool {
	var target T
	return errors.As(err, &target)
}

// IsNotFound reports a 404.
func IsNotFound(err error) bool { return is[*NotFoundError](err) }

// IsForbidden reports a 403.
func IsForbidden(err error) bool { return is[*ForbiddenError](err) }

// IsAboutMachine reports that an error is MAAS' word about one machine. A 403 or 404 to a list says nothing about those listed.
func IsAboutMachine(err error) bool {
	var missing *NotFoundError
	var forbidden *ForbiddenError
	switch {
	case errors.As(err, &missing):
		return missing.Object != ""
	case errors.As(err, &forbidden):
		return forbidden.Object != ""
	}
	return false
}

// IsUnauthorized reports a 401, clock skew included.
func IsUnauthorized(err error) bool { return is[*UnauthorizedError](err) }

// IsStateConflict reports a 409 about the machine's state.
func IsStateConflict(err error) bool { return is[*StateConflictError](err) }

// IsInvalidRequest reports a 400.
func IsInvalidRequest(err error) bool { return is[*InvalidRequestError](err) }

// IsNoMatch reports that nothing is free to allocate now.
func IsNoMatch(err error) bool { return is[*NoMatchError](err) }

// IsUnavailable reports that MAAS was not reached and nothing was changed.
func IsUnavailable(err error) bool { return is[*UnavailableError](err) }

// IsUnknownOutcome reports a change that may or may not have been made. Ask this before
// IsRetryable: an error can be both.
func IsUnknownOutcome(err error) bool { return is[*UnknownOutcomeError](err) }

// IsRetryable reports an answer that asks for the same call again later.
func IsRetryable(err error) bool { return is[*RetryableError](err) }

// RetryAfter returns how long MAAS asked to wait, zero if it did not.
func RetryAfter(err error) time.Duration {
	var retryable *RetryableError
	if errors.As(err, &retryable) {
		return retryable.RetryAfter
	}
	return 0
}
