// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maas

import (
	"cmp"
	"context"
	"net/http"
	"regexp"
	"time"

	"github.com/canonical/gomaasclient/entity"
	"k8s.io/utils/clock"
)

// Client speaks to one MAAS as one account. It is safe for concurrent use; share one per
// Config, because connections are kept per Client.
type Client struct {
	endpoint        string
	key             APIKey
	transport       *http.Transport
	timeout         time.Duration
	allocateTimeout time.Duration
	maxBody         int64
	readOnly        bool
	admit           func(context.Context, string) error
	observe         func(Observation)
	clock           clock.PassiveClock
}

// New checks the configuration and makes a client, without any I/O. Its errors are
// *ConfigError.
func New(config Config) (*Client, error) {
	endpoint, err := parseEndpoint(config.Endpoint)
	if err != nil {
		return nil, err
	}
	if err := config.APIKey.validate(); err != nil {
		return nil, err
	}
	transport, err := newHTTPTransport(config.CABundle)
	if err != nil {
		return nil, err
	}
	c := &Client{
		endpoint: endpoint.String(), key: config.APIKey, transport: transport,
		timeout:         cmp.Or(config.Timeout, DefaultTimeout),
		allocateTimeout: cmp.Or(config.AllocateTimeout, DefaultAllocateTimeout),
		maxBody:         cmp.Or(config.MaxBody, int64(DefaultMaxBody)),
		admit:           config.Admit, observe: config.Observe, clock: config.Clock,
	}
	if c.timeout < 0 || c.allocateTimeout < 0 || c.maxBody < 0 {
		return nil, &ConfigError{Field: "Timeout, AllocateTimeout or MaxBody", Problem: "is negative: write a positive value, or zero for the default"}
	}
	if c.clock == nil {
		c.clock = clock.RealClock{}
	}
	return c, nil
}

// Close closes idle connections. The client stays usable.
func (c *Client) Close() { c.transport.CloseIdleConnections() }

// Account is who an API key belongs to.
type Account struct {
	Username string
	// Superuser accounts can release and deploy anybody's machine.
	Superuser bool
}

// WhoAmI returns the account; the cheapest way to try endpoint, certificate and key.
func (c *Client) WhoAmI(ctx context.Context) (Account, error) {
	r := request{Call: Call{Operation: "whoami"}}
	var account Account
	err := c.do(ctx, r, func(w wire) error {
		user, err := w.maas.Users.Whoami()
		if err != nil {
			return err
		}
		if user.UserName == "" {
			return errNoUser
		}
		account = Account{Username: user.UserName, Superuser: user.IsSuperUser}
		return nil
	})
	return account, err
}

// Zones returns the names of all zones.
func (c *Client) Zones(ctx context.Context) ([]string, error) {
	return names(ctx, c, "list zones", func(w wire) ([]entity.Zone, error) { return w.maas.Zones.Get() },
		func(z entity.Zone) string { return z.Name })
}

// Pools returns the names of all resource pools that the account may see.
func (c *Client) Pools(ctx context.Context) ([]string, error) {
	return names(ctx, c, "list pools", func(w wire) ([]entity.ResourcePool, error) { return w.maas.ResourcePools.Get() },
		func(p entity.ResourcePool) string { return p.Name })
}

// Tags returns the names of all tags.
func (c *Client) Tags(ctx context.Context) ([]string, error) {
	return names(ctx, c, "list tags", func(w wire) ([]entity.Tag, error) { return w.maas.Tags.Get() },
		func(t entity.Tag) string { return t.Name })
}

func names[T any](ctx context.Context, c *Client, operation string, list func(wire) ([]T, error), name func(T) string) ([]string, error) {
	var found []string
	err := c.do(ctx, request{Call: Call{Operation: operation}}, func(w wire) error {
		items, err := list(w)
		if err != nil {
			return err
		}
		if items == nil {
			return errNotAList
		}
		found = make([]string, 0, len(items))
		for _, item := range items {
			found = append(found, name(item))
		}
		return nil
	})
	return found, err
}

var systemIDPattern = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

// ValidSystemID reports that MAAS can be asked for a machine of that ID.
func ValidSystemID(systemID string) bool { return systemIDPattern.MatchString(systemID) }

// checkSystemID guards every call about one machine: an empty or odd ID would address
// another resource.
func checkSystemID(operation, systemID string) error {
	if !ValidSystemID(systemID) {
		return &ArgumentError{Call: Call{Operation: operation}, Problem: "no valid system ID given"}
	}
	return nil
}

func machineCall(operation, systemID string) Call {
	return Call{Operation: operation, Object: "machine " + systemID}
}
