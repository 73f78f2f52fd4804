// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maas

import (
	"context"
	"errors"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	testclock "k8s.io/utils/clock/testing"
)

// kinds asks every helper, so that a test sees also what an error must not be.
func kinds(err error) string {
	var found []string
	for _, k := range []struct {
		name string
		is   func(error) bool
	}{
		{"unknown-outcome", IsUnknownOutcome}, {"not-found", IsNotFound}, {"forbidden", IsForbidden},
		{"unauthorized", IsUnauthorized}, {"clock-skew", is[*ClockSkewError]}, {"conflict", IsStateConflict},
		{"retryable", IsRetryable}, {"invalid", IsInvalidRequest}, {"constraint", is[*ConstraintError]},
		{"no-match", IsNoMatch}, {"unavailable", IsUnavailable}, {"malformed", is[*MalformedAnswerError]},
		{"server", is[*ServerError]}, {"power-not-sent", is[*PowerNotSentError]}, {"argument", is[*ArgumentError]},
	} {
		if k.is(err) {
			found = append(found, k.name)
		}
	}
	return strings.Join(found, " ")
}

const conflictPage = `<html><head><title>Error: Conflict Error</title></head><body><h1>Conflict Error</h1></body></html>`

// TestErrorShapes has a row for each kind of answer that MAAS gives, with its literal
// text, for a read, a change, and allocate.
func TestErrorShapes(t *testing.T) {
	tests := []struct {
		name                    string
		status                  int
		body                    string
		header                  []string
		read, release, allocate string
		text                    string
	}{
		{"fields", 400, `{"tags": ["No such tag(s): 'nope'."]}`, []string{"Content-Type", "application/json"},
			"invalid", "invalid", "invalid constraint", "tags: No such tag(s): 'nope'."},
		{"text", 400, `No provided mac_address!`, nil, "invalid", "invalid", "invalid constraint", "No provided mac_address!"},
		{"bad key", 401, `Authorization Error: 'Invalid signature. Expected signature base string: &` + testSecret + `'`, nil,
			"unauthorized", "unauthorized", "unauthorized", "renew the key"},
		{"forbidden", 403, ``, nil, "forbidden", "forbidden", "forbidden", "another account, locked"},
		{"admin only", 403, `This method is reserved for admin users.`, nil, "forbidden", "forbidden", "forbidden", "reserved for admin users"},
		{"state", 409, `Machine cannot be released in its current state ('Disk erasing').`, nil,
			"conflict", "conflict", "no-match", "Disk erasing"},
		{"database conflict", 409, conflictPage, []string{"Retry-After", "5", "Content-Type", "text/html"},
			"retryable", "retryable", "retryable", "HTTP 409"},
		{"exception", 500, `Cannot resolve keyword 'simple_status' into field.`, nil,
			"server", "unknown-outcome server", "unknown-outcome server", "Cannot resolve keyword"},
		{"no rack", 503, `Unable to connect to any rack controller`, []string{"Retry-After", "10"},
			"retryable", "unknown-outcome retryable", "unknown-outcome retryable", "rack controller"},
		{"gateway", 502, `<html>bad gateway</html>`, nil,
			"retryable", "unknown-outcome retryable", "unknown-outcome retryable", "HTTP 502"},
		{"rack timeout", 504, `Timed out`, nil,
			"retryable", "unknown-outcome retryable", "unknown-outcome retryable", "HTTP 504"},
		{"verb", 405, ``, nil, "server", "server", "server", "HTTP 405"},
		{"redirect", 302, ``, []string{"Location", "https://elsewhere.example/"},
			"unavailable", "unavailable", "unavailable", "redirects"},
		{"not JSON", 200, `<html>welcome</html>`, nil, "malformed", "", "unknown-outcome", "invalid character"},
		{"not a machine", 200, `{"detail": "hello"}`, nil, "malformed", "", "unknown-outcome", "not a machine"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRegion(t, respond(tt.status, tt.body, tt.header...))
			c := r.client(t)
			ctx := context.Background()
			_, readErr := c.Machine(ctx, "abc123")
			releaseErr := c.Release(ctx, "abc123", ReleaseRequest{Erase: EraseNone})
			_, allocateErr := c.Allocate(ctx, "v1.token", Constraints{}, "")
			for _, check := range []struct {
				call string
				err  error
				want string
			}{{"read", readErr, tt.read}, {"release", releaseErr, tt.release}, {"allocate", allocateErr, tt.allocate}} {
				if got := kinds(check.err); got != check.want {
					t.Errorf("%s: error is %q, want %q (%v)", check.call, got, check.want, check.err)
				}
				if check.err == nil {
					continue
				}
				if text := check.err.Error(); !strings.Contains(text, tt.text) || !strings.HasPrefix(text, "maas: "+check.call) {
					t.Errorf("%s: text %q lacks the call or %q", check.call, text, tt.text)
				}
				if strings.Contains(check.err.Error(), testSecret) {
					t.Errorf("%s: the token secret is in %q", check.call, check.err)
				}
			}
			if got := len(r.seen()); got != 3 {
				t.Errorf("server saw %d requests, want 3: nothing is retried in hiding", got)
			}
		})
	}
}

func TestRetryAfterIsHandedOnAndNotSlept(t *testing.T) {
	for _, status := range []int{http.StatusConflict, http.StatusServiceUnavailable} {
		r := newRegion(t, respond(status, conflictPage, "Retry-After", "3"))
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		// Through gomaasclient (Release) as well as raw (Deploy).
		c := r.client(t)
		releaseErr := c.Release(ctx, "abc123", ReleaseRequest{Erase: EraseFull})
		_, deployErr := c.Deploy(ctx, "abc123", DeployRequest{})
		for _, err := range []error{releaseErr, deployErr} {
			if RetryAfter(err) != 3*time.Second {
				t.Errorf("%d: RetryAfter is %s, want 3s (%v)", status, RetryAfter(err), err)
			}
		}
		if got := len(r.seen()); got != 2 {
			t.Errorf("%d: server saw %d requests, want 2", status, got)
		}
	}
	if RetryAfter(errors.New("other")) != 0 {
		t.Error("RetryAfter of another error is not zero")
	}
}

func TestParseRetryAfter(t *testing.T) {
	now := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	tests := []struct {
		value string
		want  time.Duration
		ok    bool
	}{
		{"", 0, false}, {"5", 5 * time.Second, true}, {"-5", 0, true}, {"soon", 0, true},
		{"Fri, 20 Nov 2026 12:00:30 GMT", 30 * time.Second, true},
		{"Fri, 20 Nov 2026 11:00:00 GMT", 0, true},
	}
	for _, tt := range tests {
		if got, ok := parseRetryAfter(tt.value, now); got != tt.want || ok != tt.ok {
			t.Errorf("%q: %s, %t, want %s, %t", tt.value, got, ok, tt.want, tt.ok)
		}
	}
}

func TestFieldMessages(t *testing.T) {
	r := newRegion(t, respond(400, `{"distro_series": ["'nosuch' is not valid.", "Second."], "__all__": "one text", "n": 3}`))
	_, err := r.client(t).Deploy(context.Background(), "abc123", DeployRequest{Series: "nosuch"})
	var invalid *InvalidRequestError
	if !errors.As(err, &invalid) {
		t.Fatalf("error is %v", err)
	}
	want := map[string][]string{"distro_series": {"'nosuch' is not valid.", "Second."}, "__all__": {"one text"}, "n": {"3"}}
	if !reflect.DeepEqual(invalid.Fields, want) {
		t.Errorf("fields are %v, want %v", invalid.Fields, want)
	}
}

func TestClockSkewIsToldByTheDateHeader(t *testing.T) {
	server := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	tests := []struct {
		name   string
		behind time.Duration
		want   string
	}{
		{"behind by more than MAAS accepts", 301 * time.Second, "unauthorized clock-skew"},
		{"behind by what MAAS accepts", 299 * time.Second, "unauthorized"},
		{"ahead", -time.Hour, "unauthorized"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			// The same body in all cases: it must not matter.
			r := newRegion(t, respond(401, "Authorization Error: 'Expired timestamp: given 1 and now 2 has a greater difference than threshold 300'",
				"Date", server.Format(http.TimeFormat)))
			c := r.client(t, func(config *Config) { config.Clock = testclock.NewFakePassiveClock(server.Add(-tt.behind)) })
			_, err := c.WhoAmI(context.Background())
			if got := kinds(err); got != tt.want {
				t.Errorf("error is %q, want %q (%v)", got, tt.want, err)
			}
			var skew *ClockSkewError
			if errors.As(err, &skew) && skew.Behind != tt.behind {
				t.Errorf("behind by %s, want %s", skew.Behind, tt.behind)
			}
		})
	}
}

func TestNoMatchTextHidesTheToken(t *testing.T) {
	token := "v1.0123456789abcdef0123456789abcdef.0123456789abcdef0123456789abcdef"
	r := newRegion(t, respond(409, `No available machine matches constraints: [('agent_name', ['`+token+`']), ('mem', ['9'])] (resolved to "mem=9.0")`))
	_, err := r.client(t).Allocate(context.Background(), token, Constraints{MinMemoryMiB: 9}, "")
	if !IsNoMatch(err) || strings.Contains(err.Error(), token) || !strings.Contains(err.Error(), "mem=9.0") {
		t.Errorf("error is %v", err)
	}
}

func TestLongTextsAreCut(t *testing.T) {
	r := newRegion(t, respond(500, strings.Repeat("é", 40000)))
	_, err := r.client(t).Machine(context.Background(), "abc123")
	if !is[*ServerError](err) || len(err.Error()) > 2*maxMessage || strings.Contains(err.Error(), "�") {
		t.Errorf("error of %d bytes: %.80s", len(err.Error()), err)
	}
}
