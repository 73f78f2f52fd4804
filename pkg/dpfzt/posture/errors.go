// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package posture

import (
	"errors"
	"fmt"
	"net/http"
)

// No error of this package repeats what a BMC wrote, or says anything of the credentials.

// UnreachableError says that a BMC did not answer, or not in time.
type UnreachableError struct {
	// Address of the BMC.
	Address string
	// Late says that it took the time it was given.
	Late bool
}

// Error implements error.
func (e *UnreachableError) Error() string {
	if e.Late {
		return fmt.Sprintf("BMC %s does not answer in time: look at its network and power", e.Address)
	}
	return fmt.Sprintf("BMC %s cannot be reached: look at its network, its power, and at bmcIp and bmcPort of the DPUDevice", e.Address)
}

// CertificateError says that a BMC is not verified to be itself. Nothing was sent to it.
type CertificateError struct {
	// Address of the BMC.
	Address string
	// Fingerprint is the SHA-256 of the certificate it showed, in hex.
	Fingerprint string
	// Expired says that the certificate would be accepted at another time.
	Expired bool
}

// Error implements error.
func (e *CertificateError) Error() string {
	if e.Expired {
		return fmt.Sprintf("the certificate of BMC %s (SHA-256 %s) is expired or not valid yet: renew it, or look at the clocks", e.Address, e.Fingerprint)
	}
	return fmt.Sprintf("the certificate of BMC %s (SHA-256 %s) is not accepted: put its CA into posture.caBundle, or pin it after comparing it with the BMC's own", e.Address, e.Fingerprint)
}

// CredentialsError says that a BMC does not accept the credentials, or that they may not read what is asked.
type CredentialsError struct {
	// Address of the BMC.
	Address string
	// Forbidden says that they are accepted and lack a right.
	Forbidden bool
}

// Error implements error.
func (e *CredentialsError) Error() string {
	if e.Forbidden {
		return fmt.Sprintf("the BMC user may not read from BMC %s: give it the role ReadOnly at least", e.Address)
	}
	return fmt.Sprintf("BMC %s refuses the credentials: renew username and password in its Secret", e.Address)
}

// ResourceError says that a BMC refused one resource.
type ResourceError struct {
	// Path of the resource.
	Path string
	// Code is the HTTP status.
	Code int
}

// Error implements error.
func (e *ResourceError) Error() string { return fmt.Sprintf("the BMC answers %d", e.Code) }

// NotFound reports whether the BMC does not have the resource.
func (e *ResourceError) NotFound() bool { return e.Code == http.StatusNotFound }

// AnswerError says that a BMC's answer is none that may be used.
type AnswerError struct {
	// Address of the BMC.
	Address string
	// Problem with the answer.
	Problem string
}

// Error implements error.
func (e *AnswerError) Error() string {
	return fmt.Sprintf("BMC %s %s: look at its firmware, or at what stands in front of it", e.Address, e.Problem)
}

// whole reports whether an error is about the BMC rather than one of its resources.
func whole(err error) bool {
	var resource *ResourceError
	var strange *AnswerError
	return err != nil && !errors.As(err, &resource) && !errors.As(err, &strange)
}

func isLate(err error) bool {
	var unreachable *UnreachableError
	return errors.As(err, &unreachable) && unreachable.Late
}

func isRefused(err error) bool {
	var refused *CredentialsError
	return errors.As(err, &refused) && !refused.Forbidden
}
