// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package webhooks

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	infrav1 "github.com/dpucloud/cluster-api-provider-maas-dpu/api/v1beta1"
)

// checkCABundle refuses a bundle that is not made of PEM certificates. Empty means the system's and is right.
func checkCABundle(path *field.Path, bundle []byte, v *verdict) {
	if len(bundle) == 0 {
		return
	}
	if err := parseCertificates(bundle); err != nil {
		v.refuse(field.Invalid(path, field.OmitValueType{}, fmt.Sprintf(
			"%v: write the PEM certificates of the certificate authority, base64-encoded once, and nothing else", err)))
	}
}

func parseCertificates(bundle []byte) error {
	count := 0
	for {
		var block *pem.Block
		block, bundle = pem.Decode(bundle)
		if block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return fmt.Errorf("holds a PEM block %q where only CERTIFICATE is meant", block.Type)
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			return fmt.Errorf("certificate %d cannot be parsed", count+1)
		}
		count++
	}
	if count == 0 {
		return errors.New("holds no PEM certificate")
	}
	return nil
}

// checkAllowedNamespaces refuses a selector that selects nothing because it cannot be understood.
func checkAllowedNamespaces(path *field.Path, allowed *infrav1.AllowedNamespaces, v *verdict) {
	if allowed == nil || allowed.Selector == nil {
		return
	}
	if _, err := metav1.LabelSelectorAsSelector(allowed.Selector); err != nil {
		v.refuse(field.Invalid(path.Child("selector"), field.OmitValueType{}, fmt.Sprintf("is no label selector: %v", err)))
	}
}
