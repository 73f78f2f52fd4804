// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

// Package answer has three values for questions that a remote system may leave open. What could not be found out is
// never taken for a no.
package answer

// Answer to a question. The zero value is Unknown, which permits nothing.
type Answer int

// The answers.
const (
	Unknown Answer = iota
	No
	Yes
)

// String returns "yes", "no" or "unknown".
func (a Answer) String() string {
	switch a {
	case Yes:
		return "yes"
	case No:
		return "no"
	default:
		return "unknown"
	}
}
