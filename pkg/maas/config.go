// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maas

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"

	"k8s.io/utils/clock"
)

const (
	// DefaultTimeout bounds every call that has no longer deadline of its own.
	DefaultTimeout = 30 * time.Second
	// DefaultAllocateTimeout bounds what MAAS is slow at: it serialises allocations (tens
	// of seconds under contention), lists 60 machines a second, and waits up to 60 s for
	// a BMC.
	DefaultAllocateTimeout = 60 * time.Second
	// DefaultMaxBody bounds an answer, in bytes after decompression. A list costs
	// about 20 KB a machine, several times that for machines with many NICs.
	DefaultMaxBody = 64 << 20
	// OutcomeWindow is how long the effect of a call with unknown outcome can still
	// appear in MAAS: a region gives up on a conflicting transaction after 90 s.
	OutcomeWindow = 90 * time.Second
)

// Config says how to reach one MAAS as one account.
type Config struct {
	// Endpoint is the MAAS root, e.g. https://maas.example:5443/MAAS, without api/2.0.
	Endpoint string
	// APIKey of the account.
	APIKey APIKey
	// CABundle holds PEM certificates that MAAS' certificate is verified against;
	// empty means the system's roots. Verification cannot be switched off.
	CABundle []byte
	// Timeout of one call; zero means DefaultTimeout.
	Timeout time.Duration
	// AllocateTimeout of one allocate, list of machines or power query; zero means
	// DefaultAllocateTimeout.
	AllocateTimeout time.Duration
	// MaxBody bounds an answer in bytes; zero means DefaultMaxBody.
	MaxBody int64
	// Admit, if set, is asked before a call is sent, and may wait; its error ends the call unsent.
	Admit func(ctx context.Context, operation string) error `json:"-"`
	// Observe, if set, is told of every admitted call after it ended. It must not block.
	Observe func(Observation) `json:"-"`
	// Clock measures durations and clock skew; nil means the real one.
	Clock clock.PassiveClock `json:"-"`
}

// Observation describes one finished call to MAAS.
type Observation struct {
	// Operation is a fixed name such as "allocate" or "list"; safe as a metric label.
	Operation string
	// Code is the HTTP status, 0 if there was no answer.
	Code int
	// Duration from sending to the end of the body.
	Duration time.Duration
	// Question says that the call changes nothing.
	Question bool
	// RetryAfter is for how long MAAS asked not to be asked again, zero if it did not.
	RetryAfter time.Duration
}

// APIKey is a MAAS API key ("consumer:token:secret"). However it is printed, logged
// or marshalled, alone or inside another value, it does not show the key.
type APIKey struct {
	// A pointer: fmt does not follow it inside unexported fields of other types, where
	// it would not call Format either.
	secret *string
}

const redacted = "[redacted]"

// NewAPIKey wraps a key as it stands in a Secret; surrounding white space is dropped.
// New says whether it is well formed.
func NewAPIKey(key string) APIKey {
	key = strings.TrimSpace(key)
	return APIKey{secret: &key}
}

// IsZero reports whether there is no key.
func (k APIKey) IsZero() bool { return k.secret == nil || *k.secret == "" }

// Equal reports whether both are the same key.
func (k APIKey) Equal(other APIKey) bool { return k.reveal() == other.reveal() }

// String never returns the key.
func (APIKey) String() string { return redacted }

// GoString never returns the key.
func (APIKey) GoString() string { return redacted }

// Format never writes the key, whatever the verb.
func (APIKey) Format(s fmt.State, _ rune) { _, _ = s.Write([]byte(redacted)) }

// MarshalText never returns the key.
func (APIKey) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// MarshalJSON never returns the key.
func (APIKey) MarshalJSON() ([]byte, error) { return json.Marshal(redacted) }

func (k APIKey) reveal() string {
	if k.secret == nil {
		return ""
	}
	return *k.secret
}

// parts returns what must never appear in a text of ours.
func (k APIKey) parts() []string { return strings.Split(k.reveal(), ":") }

var keyPart = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)

func (k APIKey) validate() error {
	if k.IsZero() {
		return &ConfigError{Field: "APIKey", Problem: "is empty: write the API key of the MAAS account, in the form consumer:token:secret"}
	}
	parts := k.parts()
	ok := len(parts) == 3
	for _, p := range parts {
		ok = ok && keyPart.MatchString(p)
	}
	if !ok {
		return &ConfigError{Field: "APIKey", Problem: "is malformed: write consumer:token:secret, three parts of letters and digits separated by colons, as MAAS shows it under API keys"}
	}
	return nil
}

func parseEndpoint(endpoint string) (*url.URL, error) {
	const example = "write the MAAS root, e.g. https://maas.example:5443/MAAS"
	bad := func(problem string) error { return &ConfigError{Field: "Endpoint", Problem: problem + ": " + example} }
	u, err := url.Parse(strings.TrimSpace(endpoint))
	// The parser's error quotes its input, which might hold a password.
	switch {
	case err != nil:
		return nil, bad("is not a URL")
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, bad("does not start with https:// or http://")
	case u.Hostname() == "":
		return nil, bad("has no host")
	case u.User != nil:
		return nil, bad("contains credentials, which belong into the API key")
	case u.RawQuery != "" || u.Fragment != "" || u.ForceQuery:
		return nil, bad("has a query or fragment")
	case strings.Contains(u.Path+"/", "/api/"):
		return nil, bad("includes the API path, which is added by the client")
	}
	u.Path = strings.TrimRight(u.Path, "/")
	return u, nil
}

func newHTTPTransport(caBundle []byte) (*http.Transport, error) {
	tlsConfig := &tls.Config{MinVersion: tls.VersionTLS12}
	if len(caBundle) > 0 {
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(caBundle) {
			return nil, &ConfigError{Field: "CABundle", Problem: "holds no certificate: write one or more PEM blocks of type CERTIFICATE, or leave it empty to use the system's roots"}
		}
		tlsConfig.RootCAs = pool
	}
	return &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		TLSClientConfig:        tlsConfig,
		TLSHandshakeTimeout:    10 * time.Second,
		ForceAttemptHTTP2:      true,
		MaxIdleConns:           64,
		MaxIdleConnsPerHost:    16,
		IdleConnTimeout:        30 * time.Second,
		MaxResponseHeaderBytes: 64 << 10,
	}, nil
}
