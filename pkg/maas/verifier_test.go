// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maas

import (
	"context"
	"errors"
	"net/http"
	"reflect"
	"testing"
)

func TestVerifierReads(t *testing.T) {
	ctx := context.Background()
	r := newRegion(t, func(w http.ResponseWriter, req *http.Request) {
		switch req.URL.Path {
		case "/MAAS/api/2.0/machines/":
			respond(200, "["+machineJSON+"]")(w, req)
		case "/MAAS/api/2.0/nodes/abc123/devices/":
			respond(200, `[{"id": 1, "vendor_id": "15b3"}]`)(w, req)
		case "/MAAS/api/2.0/users/":
			respond(200, `{"username": "capi"}`)(w, req)
		case "/MAAS/api/2.0/events/":
			respond(200, `{"events": [{"id": 1}]}`)(w, req)
		default:
			respond(200, machineJSON)(w, req)
		}
	})
	v, err := NewVerifier(r.config())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(v.Close)
	for name, read := range map[string]func() (int, error){
		"WhoAmI":           func() (int, error) { a, err := v.WhoAmI(ctx); return len(a.Username), err },
		"Claims":           func() (int, error) { m, err := v.Claims(ctx, "t"); return len(m), err },
		"Machine":          func() (int, error) { m, err := v.Machine(ctx, "abc123"); return len(m.SystemID), err },
		"MachinesByID":     func() (int, error) { m, err := v.MachinesByID(ctx, "abc123"); return len(m), err },
		"MachinesByMAC":    func() (int, error) { m, err := v.MachinesByMAC(ctx, "02:AA:00:00:00:01"); return len(m), err },
		"MachinesByTokens": func() (int, error) { m, err := v.MachinesByTokens(ctx, "a", "b"); return len(m), err },
		"MachinesOwnedBy":  func() (int, error) { m, err := v.MachinesOwnedBy(ctx, "capi"); return len(m), err },
		"ConfirmClaim": func() (int, error) {
			m, _, err := v.ConfirmClaim(ctx, "capi", "t", "abc123")
			return len(m.SystemID), err
		},
		"Devices": func() (int, error) { d, err := v.Devices(ctx, "abc123"); return len(d), err },
		"Events":  func() (int, error) { e, err := v.Events(ctx, 0, EventQuery{}); return len(e), err },
	} {
		if n, err := read(); err != nil || n == 0 {
			t.Errorf("%s: %d, %v", name, n, err)
		}
	}
	for _, request := range r.seen() {
		if request.method != http.MethodGet {
			t.Errorf("sent %s %s", request.method, request.path)
		}
	}
}

// The second guard: even a client with all methods gets nothing but GET through.
func TestVerifierTransportRefusesChanges(t *testing.T) {
	ctx := context.Background()
	r := newRegion(t, respond(200, machineWith("abc123", `"capi"`, StatusDeployed, "")))
	v, err := NewVerifier(r.config())
	if err != nil {
		t.Fatal(err)
	}
	c := v.(verifier).client
	for name, change := range map[string]func() error{
		"Allocate":   func() error { _, err := c.Allocate(ctx, "t", Constraints{}, ""); return err },
		"Annotate":   func() error { _, err := c.Annotate(ctx, "abc123", map[string]string{"a": "b"}); return err },
		"Deploy":     func() error { _, err := c.Deploy(ctx, "abc123", DeployRequest{}); return err },
		"PowerOn":    func() error { return c.PowerOn(ctx, "abc123", "") },
		"PowerOff":   func() error { return c.PowerOff(ctx, "abc123", "") },
		"Abort":      func() error { return c.Abort(ctx, "abc123", "") },
		"MarkBroken": func() error { return c.MarkBroken(ctx, "abc123", "") },
		"Release":    func() error { return c.Release(ctx, "abc123", ReleaseRequest{Erase: EraseNone}) },
	} {
		if err := change(); !errors.Is(err, ErrReadOnly) || IsUnknownOutcome(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, request := range r.seen() {
		if request.method != http.MethodGet {
			t.Errorf("sent %s %s", request.method, request.path)
		}
	}
}

func TestVerifierHasNoWayToChange(t *testing.T) {
	v := reflect.TypeFor[verifier]()
	want := reflect.TypeFor[Verifier]()
	if v.NumMethod() != want.NumMethod() {
		t.Errorf("the verifier has %d methods, its interface %d: a type assertion could reach more", v.NumMethod(), want.NumMethod())
	}
	changes := map[string]bool{"Allocate": true, "Annotate": true, "Deploy": true, "PowerOn": true, "PowerOff": true, "Abort": true, "MarkBroken": true, "Release": true, "QueryPower": true}
	for i := range v.NumMethod() {
		if changes[v.Method(i).Name] {
			t.Errorf("the verifier can %s", v.Method(i).Name)
		}
	}
}
