// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

// Package scope turns the cluster-scoped objects of operators, MaasClusterIdentity and DPUFabric, into clients that may be
// used from one namespace.
package scope

import (
	"errors"
	"fmt"
)

// UnusableError says that an identity or fabric cannot be used now. Reason is one of the API's condition reasons; Message is a
// sentence for people that never holds a secret. It is the answer "unknown": nothing may be changed because of it.
type UnusableError struct {
	Reason  string
	Message string
	Err     error
}

// Error implements error.
func (e *UnusableError) Error() string {
	if e.Err != nil {
		return fmt.Sprintf("%s: %v", e.Message, e.Err)
	}
	return e.Message
}

// Unwrap returns the cause.
func (e *UnusableError) Unwrap() error { return e.Err }

// AsUnusable returns the UnusableError in err's chain.
func AsUnusable(err error) (*UnusableError, bool) {
	var unusable *UnusableError
	ok := errors.As(err, &unusable)
	return unusable, ok
}
