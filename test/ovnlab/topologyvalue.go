// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package ovnlab

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"

	"github.com/ovn-kubernetes/libovsdb/ovsdb"
)

// ovsdbValue writes a value as the protocol has it.
func ovsdbValue(value any) any {
	switch v := value.(type) {
	case map[string]string:
		out := ovsdb.OvsMap{GoMap: map[any]any{}}
		for key, text := range v {
			out.GoMap[key] = text
		}
		return out
	case []string:
		out := ovsdb.OvsSet{GoSet: []any{}}
		for _, text := range v {
			out.GoSet = append(out.GoSet, text)
		}
		return out
	case []ovsdb.UUID:
		out := ovsdb.OvsSet{GoSet: []any{}}
		for _, uuid := range v {
			out.GoSet = append(out.GoSet, uuid)
		}
		return out
	}
	return value
}

// canonical makes values comparable that the protocol writes in more than one way: a set of one is its element.
func canonical(value any) []string {
	out := []string{}
	switch v := value.(type) {
	case nil:
	case ovsdb.OvsMap:
		for key, text := range v.GoMap {
			out = append(out, fmt.Sprintf("%v=%v", key, text))
		}
	case ovsdb.OvsSet:
		for _, element := range v.GoSet {
			out = append(out, canonical(element)...)
		}
	case ovsdb.UUID:
		out = append(out, v.GoUUID)
	default:
		out = append(out, fmt.Sprint(v))
	}
	slices.Sort(out)
	return out
}

// config is a client's for the lab's databases.
func (t *TLS) config() (*tls.Config, error) {
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(t.CA) {
		return nil, errors.New("the lab's CA has no certificate")
	}
	certificate, err := tls.X509KeyPair(t.Certificate, t.Key)
	if err != nil {
		return nil, err
	}
	return &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12}, nil
}
