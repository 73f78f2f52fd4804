// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maas_test

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// cleanupMargin is what is kept of a test's deadline for leaving every machine Ready.
const cleanupMargin = 2 * time.Minute

// account is one of MAAS' accounts with its key.
type account struct {
	name string
	key  apiKey
}

// suite is one run. Its cases run one after the other and each ends with every machine idle.
type suite struct {
	settings
	wire *wire
	// user always exists; other is a second ordinary account, admin an administrator, both nil where there is none.
	user, other, admin *account
	// prefix starts the name of everything the run creates.
	prefix string
	// fleet are the machines to use, as they were found.
	fleet []machine
	// ctx ends at an interrupt, or when only the time to clean up is left. Cleaning up does not use it.
	ctx context.Context

	// touched says that a machine may have been taken since the last look at all of them.
	touched atomic.Bool
	tokens  atomic.Int64
	cases   atomic.Int64

	mu       sync.Mutex
	skipped  []string
	wordings []string
}

// newSuite finds accounts and machines, or says in a sentence what to change.
func newSuite(t *testing.T, s settings) (*suite, error) {
	t.Helper()
	c := &suite{
		settings: s, prefix: "conformance-" + strings.ToLower(rand.Text()[:8]),
		wire: &wire{http: s.httpClient(), root: s.url + "/api/2.0/", timeout: s.callTimeout},
	}
	t.Cleanup(c.wire.http.CloseIdleConnections)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	t.Cleanup(stop)
	if deadline, ok := t.Deadline(); ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, deadline.Add(-cleanupMargin))
		t.Cleanup(cancel)
	}
	c.ctx = ctx
	if err := c.findAccounts(); err != nil {
		return nil, err
	}
	if err := c.findFleet(); err != nil {
		return nil, err
	}
	t.Logf("uses these machines, Ready and without owner %s: %s", c.where(), strings.Join(c.all(), ", "))
	if c.other == nil && c.admin != nil {
		c.makeOther(t)
	}
	return c, nil
}

func (s *suite) findAccounts() error {
	for _, a := range []struct {
		key, variable string
		admin         bool
		into          **account
	}{
		{s.userKey, "MAAS_USER_KEY", false, &s.user}, {s.otherKey, "MAAS_OTHER_KEY", false, &s.other},
		{s.adminKey, "MAAS_ADMIN_KEY", true, &s.admin},
	} {
		if a.key == "" {
			continue
		}
		found := &account{key: parseKey(a.key)}
		var me struct {
			Name  string `json:"username"`
			Admin bool   `json:"is_superuser"`
		}
		got, err := s.do(s.ctx, found, request{method: get, path: "users/", op: "whoami"})
		if err != nil {
			return fmt.Errorf("reach MAAS: %w", err)
		}
		if got.code != 200 || json.Unmarshal(got.body, &me) != nil {
			return fmt.Errorf("MAAS does not accept the key in %s: %s", a.variable, got.text())
		}
		if me.Admin != a.admin {
			return fmt.Errorf("the key in %s is of %s: is administrator %v, want %v", a.variable, me.Name, me.Admin, a.admin)
		}
		found.name = me.Name
		*a.into = found
	}
	if s.other != nil && s.other.name == s.user.name {
		return errors.New("the keys in MAAS_USER_KEY and MAAS_OTHER_KEY are of the same account")
	}
	return nil
}

// findFleet picks the Ready machines that may be used. DPUs are left alone unless named: they are released differently.
func (s *suite) findFleet() error {
	query := url.Values{"status": {"ready"}}
	if s.pool != "" {
		query.Set("pool", s.pool)
	}
	if s.tag != "" {
		query.Set("tags", s.tag)
	}
	if len(s.machines) > 0 {
		query["id"] = s.machines
	}
	got, err := s.do(s.ctx, s.user, request{method: get, path: "machines/", query: query})
	if err != nil {
		return fmt.Errorf("list the machines: %w", err)
	}
	var found []machine
	if got.code != 200 || json.Unmarshal(got.body, &found) != nil {
		return fmt.Errorf("list the Ready machines %s: %s", s.where(), got.text())
	}
	for i := range found {
		named := slices.Contains(s.machines, found[i].SystemID)
		if found[i].idle() && (!found[i].IsDPU || named) && len(s.fleet) < s.maxMachines {
			s.fleet = append(s.fleet, found[i])
		}
	}
	if len(s.fleet) == 0 {
		return fmt.Errorf("there is no Ready machine without owner %s that %s may use", s.where(), s.user.name)
	}
	return nil
}

// makeOther creates a second ordinary account where MAAS lets the administrator; without one, its cases are skipped.
func (s *suite) makeOther(t *testing.T) {
	t.Helper()
	password := rand.Text() + "-aA1"
	form := url.Values{
		"username": {s.prefix}, "email": {s.prefix + "@conformance.invalid"}, "password": {password}, "is_superuser": {"false"},
	}
	created, err := s.do(s.ctx, s.admin, request{method: post, path: "users/", form: form})
	if err != nil || created.code != 200 {
		return
	}
	t.Cleanup(func() { s.remove(t, "users/"+s.prefix+"/") })
	outside := &wire{http: s.wire.http, root: s.url + "/accounts/", timeout: s.callTimeout}
	got, err := outside.do(s.ctx, request{method: post, path: "authenticate/", form: url.Values{"username": {s.prefix}, "password": {password}}})
	var key struct {
		Consumer string `json:"consumer_key"`
		Token    string `json:"token_key"`
		Secret   string `json:"token_secret"`
	}
	if err == nil && got.code == 200 && json.Unmarshal(got.body, &key) == nil && key.Secret != "" {
		s.other = &account{name: s.prefix, key: apiKey{key.Consumer, key.Token, key.Secret}}
	}
}

// do sends a call as an account.
func (s *suite) do(ctx context.Context, a *account, r request) (answer, error) {
	r.key = &a.key
	if r.method == post && (r.op == "allocate" && r.form.Get("dry_run") != "true" || r.op == "deploy") {
		s.touched.Store(true)
	}
	return s.wire.do(ctx, r)
}

// remove deletes something the run created, as the administrator.
func (s *suite) remove(t *testing.T, path string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), s.callTimeout)
	defer cancel()
	got, err := s.do(ctx, s.admin, request{method: "DELETE", path: path})
	if err != nil || got.code != 204 && got.code != 404 {
		t.Errorf("%s is left behind: %v %s", path, err, got.text())
	}
}

// token is a new agent_name of the run's own.
func (s *suite) token() string { return s.prefix + "-" + strconv.FormatInt(s.tokens.Add(1), 10) }

// all are the system IDs of the fleet.
func (s *suite) all() []string { return ids(s.fleet) }

// asFound is a machine of the fleet as it was at the start.
func (s *suite) asFound(id string) machine {
	for i := range s.fleet {
		if s.fleet[i].SystemID == id {
			return s.fleet[i]
		}
	}
	return machine{}
}

// report tells what the run covered, and what it did not show.
func (s *suite) report() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	lines := []string{fmt.Sprintf("%d cases on %d machines of %s, %d skipped", s.cases.Load(), len(s.fleet), s.url, len(s.skipped))}
	for _, line := range s.skipped {
		lines = append(lines, "  skipped: "+line)
	}
	for _, line := range s.wordings {
		lines = append(lines, "  no failure, but other than MAAS 3.7.3: "+line)
	}
	return strings.Join(lines, "\n")
}
