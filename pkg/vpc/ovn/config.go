// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package ovn

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"k8s.io/utils/clock"
)

const (
	// DefaultTimeout is long because a database that serves a big deployment is busy for seconds.
	DefaultTimeout = 30 * time.Second
	// DefaultMaxAnswer is enough for some 200,000 ports.
	DefaultMaxAnswer = 64 << 20
)

// Config is where OVN's databases are and how they are asked.
type Config struct {
	// Southbound and Northbound are tcp:<address>:<port> or ssl:<address>:<port>, or several of a clustered database, separated by
	// commas. Without Northbound nothing can be raised.
	Southbound, Northbound string
	// CA, Certificate and Key are PEM, needed for ssl alone. Servers are verified with CA and nothing else, by the address or name
	// in the endpoint.
	CA, Certificate, Key []byte
	// Timeout of one Call, besides the caller's own; zero means DefaultTimeout.
	Timeout time.Duration
	// MaxAnswer is how many bytes an answer may have; zero means DefaultMaxAnswer.
	MaxAnswer int64
	// Clock says when a reading started; nil means the real one.
	Clock clock.PassiveClock
	// Observe, if set, is told of every Call after it ended. It must not block.
	Observe func(Call)
}

// Call is one question that ended.
type Call struct {
	// Operation is "Read", "Raise", "Addresses" or "Probe".
	Operation string
	// Kind is that of the Error; empty if there was none.
	Kind Kind
	Took time.Duration
}

// endpoint is one server of a database.
type endpoint struct {
	text, address string
	// tls is nil for tcp.
	tls *tls.Config
}

func (c *Config) complete() error {
	c.Timeout = cmp.Or(c.Timeout, DefaultTimeout)
	c.MaxAnswer = cmp.Or(c.MaxAnswer, DefaultMaxAnswer)
	if c.Clock == nil {
		c.Clock = clock.RealClock{}
	}
	if c.Southbound == "" {
		return errors.New("no southbound database is named")
	}
	return nil
}

// endpoints reads the endpoints of a database.
func (c *Config) endpoints(text string) ([]endpoint, error) {
	var all []endpoint
	for part := range strings.SplitSeq(text, ",") {
		one, err := c.endpoint(strings.TrimSpace(part))
		if err != nil {
			return nil, err
		}
		all = append(all, one)
	}
	return all, nil
}

func (c *Config) endpoint(text string) (endpoint, error) {
	method, address, _ := strings.Cut(text, ":")
	host, _, err := net.SplitHostPort(address)
	if err != nil || host == "" {
		return endpoint{}, fmt.Errorf("endpoint %q is not one such as ssl:192.0.2.1:6642 or tcp:[2001:db8::1]:6642", text)
	}
	switch method {
	case "tcp":
		return endpoint{text: text, address: address}, nil
	case "ssl":
		verified, err := c.tls(host)
		return endpoint{text: text, address: address, tls: verified}, err
	default:
		return endpoint{}, fmt.Errorf("endpoint %q has neither method tcp nor ssl", text)
	}
}

// tls verifies a server in full. Its errors say which PEM is wrong and nothing of what is in it.
func (c *Config) tls(host string) (*tls.Config, error) {
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(c.CA) {
		return nil, errors.New("ssl needs the PEM certificate of the CA that signed the server's; the CA given holds none")
	}
	own, err := tls.X509KeyPair(c.Certificate, c.Key)
	if err != nil {
		return nil, errors.New("ssl needs a PEM certificate and the key that belongs to it; those given are none, or do not fit each other")
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, ServerName: host, RootCAs: roots, Certificates: []tls.Certificate{own}}, nil
}
