// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maas

import (
	"context"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestDeadlineAndCancellation(t *testing.T) {
	r := newRegion(t, hang(t))
	short := r.client(t, func(c *Config) { c.Timeout, c.AllocateTimeout = 50*time.Millisecond, 80*time.Millisecond })
	long := r.client(t)
	cancelled, cancel := context.WithTimeoutCause(context.Background(), 50*time.Millisecond, context.Canceled)
	defer cancel()
	tests := []struct {
		name string
		call func() error
		want string
		is   error
	}{
		{"read times out", func() error { _, err := short.Machine(context.Background(), "abc123"); return err }, "unavailable", context.DeadlineExceeded},
		{"release times out", func() error {
			return short.Release(context.Background(), "abc123", ReleaseRequest{Erase: EraseNone})
		}, "unknown-outcome", context.DeadlineExceeded},
		{"allocate times out", func() error {
			_, err := short.Allocate(context.Background(), "token", Constraints{}, "")
			return err
		}, "unknown-outcome", context.DeadlineExceeded},
		{"caller gives up", func() error { _, err := long.Zones(cancelled); return err }, "unavailable", context.Canceled},
		{"caller has given up before a change", func() error { return long.Abort(cancelled, "abc123", "") }, "unavailable", context.Canceled},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			start := time.Now()
			err := tt.call()
			if kinds(err) != tt.want || !errors.Is(err, tt.is) {
				t.Errorf("error is %q (%v), want %q and %v", kinds(err), err, tt.want, tt.is)
			}
			if took := time.Since(start); took > 5*time.Second {
				t.Errorf("took %s", took)
			}
		})
	}
}

func TestLostAnswers(t *testing.T) {
	cut := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100000")
		_, _ = io.WriteString(w, machineJSON[:200])
	}
	gone := newRegion(t, hangUp)
	gone.Close()
	tests := []struct {
		name                    string
		region                  *region
		read, release, allocate string
	}{
		{"connection dropped after the request", newRegion(t, hangUp), "unavailable", "unknown-outcome", "unknown-outcome"},
		// The status line of a release is its acceptance; of allocate we need the body.
		{"connection dropped within the answer", newRegion(t, cut), "unavailable", "", "unknown-outcome"},
		{"nobody listens", gone, "unavailable", "unavailable", "unavailable"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := tt.region.client(t)
			_, readErr := c.Machine(context.Background(), "abc123")
			releaseErr := c.Release(context.Background(), "abc123", ReleaseRequest{Erase: EraseNone})
			_, allocateErr := c.Allocate(context.Background(), "token-token", Constraints{}, "")
			if kinds(readErr) != tt.read || kinds(releaseErr) != tt.release || kinds(allocateErr) != tt.allocate {
				t.Errorf("read: %v\nrelease: %v\nallocate: %v", readErr, releaseErr, allocateErr)
			}
		})
	}
}

func TestErrorsHoldNoURL(t *testing.T) {
	r := newRegion(t, hangUp)
	_, err := r.client(t).MachinesByToken(context.Background(), "v1.tokentoken")
	if !IsUnavailable(err) || strings.Contains(err.Error(), "tokentoken") || strings.Contains(err.Error(), "http://") {
		t.Errorf("error is %v", err)
	}
}

func TestBodyIsBounded(t *testing.T) {
	padding := strings.Repeat(" ", 5000-len(machineJSON))
	r := newRegion(t, respond(200, machineJSON+padding))
	exact := r.client(t, func(c *Config) { c.MaxBody = 5000 })
	if _, err := exact.Machine(context.Background(), "abc123"); err != nil {
		t.Errorf("a body of exactly the limit: %v", err)
	}
	small := r.client(t, func(c *Config) { c.MaxBody = 4999 })
	_, err := small.Machine(context.Background(), "abc123")
	if kinds(err) != "malformed" || !errors.Is(err, ErrBodyTooLarge) {
		t.Errorf("error is %q (%v)", kinds(err), err)
	}
	_, err = small.Allocate(context.Background(), "token", Constraints{}, "")
	if kinds(err) != "unknown-outcome" || !errors.Is(err, ErrBodyTooLarge) {
		t.Errorf("error is %q (%v)", kinds(err), err)
	}
}

func TestConnectionsAreReused(t *testing.T) {
	r := newRegion(t, func(w http.ResponseWriter, req *http.Request) {
		if req.Method == http.MethodPost {
			respond(409, "Cannot abort in current state", "Content-Type", "text/plain")(w, req)
			return
		}
		respond(200, machineJSON)(w, req)
	})
	c := r.client(t)
	for range 5 {
		if _, err := c.Machine(context.Background(), "abc123"); err != nil {
			t.Fatal(err)
		}
		if err := c.Abort(context.Background(), "abc123", ""); !IsStateConflict(err) {
			t.Fatal(err)
		}
	}
	if got := r.connections.Load(); got != 1 {
		t.Errorf("%d connections for ten calls, want 1", got)
	}
	nonces := map[string]bool{}
	for _, request := range r.seen() {
		nonces[request.authorization] = true
	}
	if len(nonces) != 10 {
		t.Errorf("%d different authorizations for ten calls, want 10", len(nonces))
	}
}

// net/http repeats a read when a kept connection breaks, and so its nonce, which MAAS
// refuses if it had seen the first one. That is no fault of the key.
func TestReplayedNonceIsNotABadKey(t *testing.T) {
	var nonces sync.Map
	var calls atomic.Int32
	r := newRegion(t, func(w http.ResponseWriter, req *http.Request) {
		authorization := req.Header.Get("Authorization")
		if _, replayed := nonces.LoadOrStore(authorization, true); replayed {
			respond(401, "Authorization Error: 'Nonce already used: n1'")(w, req)
			return
		}
		if calls.Add(1) == 2 {
			hangUp(w, req)
			return
		}
		respond(200, machineJSON)(w, req)
	})
	c := r.client(t)
	if _, err := c.Machine(context.Background(), "abc123"); err != nil {
		t.Fatal(err)
	}
	_, err := c.Machine(context.Background(), "abc123")
	if len(r.seen()) != 3 {
		t.Fatalf("server saw %d requests; the replay did not happen", len(r.seen()))
	}
	if kinds(err) != "unavailable" {
		t.Errorf("error is %q (%v)", kinds(err), err)
	}
}

func TestTLS(t *testing.T) {
	var plain atomic.Int32
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		plain.Add(1)
		respond(200, `{"username": "capi", "is_superuser": false}`)(w, req)
	}))
	server.Config.ErrorLog = nil
	server.StartTLS()
	t.Cleanup(server.Close)
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	config := Config{Endpoint: server.URL + "/MAAS/", APIKey: NewAPIKey(testKey), CABundle: ca}
	trusting, err := New(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(trusting.Close)
	if account, err := trusting.WhoAmI(context.Background()); err != nil || account.Username != "capi" {
		t.Errorf("with the CA: %+v, %v", account, err)
	}
	config.CABundle = nil
	wary, err := New(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(wary.Close)
	if err := wary.Release(context.Background(), "abc123", ReleaseRequest{Erase: EraseFull}); kinds(err) != "unavailable" {
		t.Errorf("without the CA: %q (%v), want a change that was certainly not sent", kinds(err), err)
	}
	if plain.Load() != 1 {
		t.Errorf("server got %d requests, want 1", plain.Load())
	}
	if v := trusting.transport.TLSClientConfig.MinVersion; v < tls.VersionTLS12 {
		t.Errorf("TLS %x accepted", v)
	}
}

func TestObserve(t *testing.T) {
	var seen []Observation
	r := newRegion(t, respond(404, "No Machine matches the given query."))
	c := r.client(t, func(c *Config) { c.Observe = func(o Observation) { seen = append(seen, o) } })
	_ = c.Abort(context.Background(), "abc123", "")
	r.Close()
	_ = c.Abort(context.Background(), "abc123", "")
	if len(seen) != 2 || seen[0].Operation != "abort" || seen[0].Code != 404 || seen[0].Duration <= 0 || seen[1].Code != 0 {
		t.Errorf("observations are %+v", seen)
	}
}

// Admit comes before a call is sent and its refusal ends it: nothing was changed, and nothing is observed.
func TestAdmit(t *testing.T) {
	var steps []string
	refusal := errors.New("not now")
	r := newRegion(t, respond(200, machineJSON))
	c := r.client(t, func(c *Config) {
		c.Admit = func(_ context.Context, operation string) error {
			steps = append(steps, fmt.Sprintf("admit %s after %d", operation, len(r.seen())))
			if operation == "release" {
				return refusal
			}
			return nil
		}
		c.Observe = func(o Observation) { steps = append(steps, "observe "+o.Operation) }
	})
	if err := c.Abort(context.Background(), "abc123", ""); err != nil {
		t.Fatal(err)
	}
	err := c.Release(context.Background(), "abc123", ReleaseRequest{Erase: EraseNone})
	if kinds(err) != "unavailable" || !errors.Is(err, refusal) {
		t.Errorf("error is %q (%v)", kinds(err), err)
	}
	if want := []string{"admit abort after 0", "observe abort", "admit release after 1"}; !slices.Equal(steps, want) || len(r.seen()) != 1 {
		t.Errorf("got %q and %d requests, want %q and 1", steps, len(r.seen()), want)
	}
}

func TestConcurrentUse(t *testing.T) {
	r := newRegion(t, respond(200, machineJSON))
	c := r.client(t)
	var group sync.WaitGroup
	for range 20 {
		group.Go(func() {
			if _, err := c.Machine(context.Background(), "abc123"); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
}

// The libraries put bodies into their errors: what the exchange hands them has none.
func TestErrorBodiesDoNotReachTheLibraries(t *testing.T) {
	for status, kept := range map[int]bool{401: false, 409: true} {
		r := newRegion(t, respond(status, "sesame", "Retry-After", "5"))
		x := &exchange{ctx: context.Background(), base: http.DefaultTransport, maxBody: 100}
		request, err := http.NewRequest(http.MethodGet, r.URL, nil)
		if err != nil {
			t.Fatal(err)
		}
		response, err := x.RoundTrip(request)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(response.Body)
		if err != nil || len(body) != 0 || response.Header.Get("Retry-After") != "" {
			t.Errorf("%d: body %q, header %v, %v", status, body, response.Header, err)
		}
		if got := string(x.errorBody) == "sesame"; got != kept || x.retryAfter != "5" {
			t.Errorf("%d: kept %q and %q", status, x.errorBody, x.retryAfter)
		}
	}
}

func TestRedirectsAreNotFollowed(t *testing.T) {
	elsewhere := newRegion(t, respond(200, machineJSON))
	for _, status := range []int{301, 302, 307, 308} {
		r := newRegion(t, respond(status, "", "Location", elsewhere.URL+"/MAAS/api/2.0/machines/abc123/"))
		c := r.client(t)
		if _, err := c.Machine(context.Background(), "abc123"); kinds(err) != "unavailable" || !errors.Is(err, ErrRedirected) {
			t.Errorf("%d: read: %v", status, err)
		}
		if err := c.Release(context.Background(), "abc123", ReleaseRequest{Erase: EraseNone}); kinds(err) != "unavailable" {
			t.Errorf("%d: release: %v", status, err)
		}
	}
	if seen := elsewhere.seen(); len(seen) != 0 {
		t.Errorf("requests were carried elsewhere: %+v", seen)
	}
}
