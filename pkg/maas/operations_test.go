// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maas

import (
	"context"
	"encoding/base64"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// Each change is checked against the wire: the path, the operation and the whole form.
func TestChangesOnTheWire(t *testing.T) {
	ctx := context.Background()
	userData := "#cloud-config\npassword: sesame\n"
	tests := []struct {
		name      string
		call      func(*Client) error
		operation string
		form      map[string][]string
	}{
		{"annotate", func(c *Client) error {
			_, err := c.Annotate(ctx, "abc123", map[string]string{AnnotationToken: "h", AnnotationHold: ""})
			return err
		}, "set_workload_annotations", map[string][]string{"maas-dpu.claim": {"h"}, "maas-dpu.hold": {""}}},
		{"deploy", func(c *Client) error {
			_, err := c.Deploy(ctx, "abc123", DeployRequest{Series: "ubuntu/noble", Kernel: "ga-24.04", InMemory: true, UserData: []byte(userData), Comment: "c"})
			return err
		}, "deploy", map[string][]string{
			"distro_series": {"ubuntu/noble"}, "hwe_kernel": {"ga-24.04"}, "ephemeral_deploy": {"true"}, "comment": {"c"},
			"user_data": {base64.StdEncoding.EncodeToString([]byte(userData))},
		}},
		{"deploy with defaults", func(c *Client) error { _, err := c.Deploy(ctx, "abc123", DeployRequest{}); return err }, "deploy", map[string][]string{}},
		{"power off", func(c *Client) error { return c.PowerOff(ctx, "abc123", "c") }, "power_off", map[string][]string{"stop_mode": {"hard"}, "comment": {"c"}}},
		{"abort", func(c *Client) error { return c.Abort(ctx, "abc123", "c") }, "abort", map[string][]string{"comment": {"c"}}},
		{"mark broken", func(c *Client) error { return c.MarkBroken(ctx, "abc123", "c") }, "mark_broken", map[string][]string{"comment": {"c"}}},
		{"release", func(c *Client) error { return c.Release(ctx, "abc123", ReleaseRequest{Erase: EraseNone, Comment: "c"}) },
			"release", map[string][]string{"comment": {"c"}}},
		{"release, quick", func(c *Client) error { return c.Release(ctx, "abc123", ReleaseRequest{Erase: EraseQuick}) },
			"release", map[string][]string{"erase": {"true"}, "quick_erase": {"true"}}},
		{"release, secure", func(c *Client) error { return c.Release(ctx, "abc123", ReleaseRequest{Erase: EraseSecure}) },
			"release", map[string][]string{"erase": {"true"}, "secure_erase": {"true"}}},
		{"release, full", func(c *Client) error {
			return c.Release(ctx, "abc123", ReleaseRequest{Erase: EraseFull, Scripts: []string{"wipe-disks", "reset-bios"}})
		}, "release", map[string][]string{"erase": {"true"}, "scripts": {"wipe-disks,reset-bios"}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRegion(t, respond(200, machineJSON))
			if err := tt.call(r.client(t)); err != nil {
				t.Fatal(err)
			}
			request := r.only(t)
			if request.method != http.MethodPost || request.path != "/MAAS/api/2.0/machines/abc123/" || request.operation != tt.operation {
				t.Errorf("request is %+v", request)
			}
			if !reflect.DeepEqual(map[string][]string(request.form), tt.form) {
				t.Errorf("form is %v, want %v", request.form, tt.form)
			}
		})
	}
}

func TestAnnotateChecksKeys(t *testing.T) {
	r := newRegion(t, respond(200, machineJSON))
	c := r.client(t)
	for _, key := range []string{"", "a/b", "a:b", "a b", "op", "ä", strings.Repeat("k", 256), "a\n"} {
		if _, err := c.Annotate(context.Background(), "abc123", map[string]string{"good": "1", key: "x"}); kinds(err) != "argument" {
			t.Errorf("%q: %v", key, err)
		}
	}
	if _, err := c.Annotate(context.Background(), "abc123", nil); err != nil || len(r.seen()) != 0 {
		t.Errorf("nothing to annotate: %v, %d requests", err, len(r.seen()))
	}
	if _, err := c.Annotate(context.Background(), "abc123", map[string]string{strings.Repeat("k", 255): "x", "a.b-c_D9": "y"}); err != nil {
		t.Error(err)
	}
	for _, key := range []string{AnnotationToken, AnnotationNamespace, AnnotationName, AnnotationCluster, AnnotationHold, AnnotationDeployed} {
		if !annotationKeyPattern.MatchString(key) {
			t.Errorf("MAAS would refuse %q", key)
		}
	}
}

// What MAAS answers to an annotation is good for a reading, unless it cannot be read: MAAS made the change all the same.
func TestAnnotateReturnsTheAnswer(t *testing.T) {
	annotate := func(answer string) (Machine, error) {
		return newRegion(t, respond(200, answer)).client(t).Annotate(context.Background(), "abc123", map[string]string{"a": "b"})
	}
	machine, err := annotate(machineWith("abc123", `"capi"`, StatusAllocated, `"maas-dpu.claim": "h"`))
	if err != nil || machine.SystemID != "abc123" || machine.Annotations[AnnotationToken] != "h" {
		t.Errorf("got %+v, %v", machine, err)
	}
	for _, answer := range []string{"null", "", "{}", "<html>", machineWith("other1", `"capi"`, StatusAllocated, "")} {
		if machine, err := annotate(answer); err != nil || machine.SystemID != "" {
			t.Errorf("%q: got %+v, %v", answer, machine, err)
		}
	}
}

func TestReleaseNeedsErase(t *testing.T) {
	r := newRegion(t, respond(200, machineJSON))
	for _, erase := range []Erase{"", "none", "Maybe"} {
		if err := r.client(t).Release(context.Background(), "abc123", ReleaseRequest{Erase: erase}); kinds(err) != "argument" {
			t.Errorf("%q: %v", erase, err)
		}
	}
	if len(r.seen()) != 0 {
		t.Error("the server was asked")
	}
}

func TestUserDataIsNeverInAnError(t *testing.T) {
	userData := "#cloud-config\nusers:\n  - name:   root\n    passwd: open-sesame\n"
	encoded := base64.StdEncoding.EncodeToString([]byte(userData))
	tests := []struct {
		name   string
		status int
		body   string
		keep   string
	}{
		{"a line in a text", 400, "Failed to render preseed: bad line     passwd: open-sesame here", "Failed to render preseed"},
		{"a folded line in a field", 400, `{"user_data": ["bad: - name:   root, passwd: open-sesame"]}`, "user_data: bad"},
		{"encoded", 503, "can not use " + encoded, "can not use"},
		{"any exception", 500, `ValueError("sesame")`, "HTTP 500"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRegion(t, respond(tt.status, tt.body))
			_, err := r.client(t).Deploy(context.Background(), "abc123", DeployRequest{UserData: []byte(userData)})
			if err == nil || !strings.Contains(err.Error(), tt.keep) {
				t.Fatalf("error is %v", err)
			}
			for _, secret := range []string{"sesame", "name: root", "name:   root", encoded} {
				if strings.Contains(err.Error(), secret) {
					t.Errorf("%q is in %q", secret, err)
				}
			}
		})
	}
}

func TestPowerOffThatSendsNothing(t *testing.T) {
	r := newRegion(t, respond(200, "null\n"))
	if err := r.client(t).PowerOff(context.Background(), "abc123", ""); kinds(err) != "power-not-sent" {
		t.Errorf("error is %v", err)
	}
}

func TestPowerOn(t *testing.T) {
	for _, status := range []Status{StatusDeployed, StatusAllocated, StatusReady} {
		r := newRegion(t, respond(200, machineWith("abc123", `"capi"`, status, "")))
		err := r.client(t).PowerOn(context.Background(), "abc123", "c")
		sent := slices.ContainsFunc(r.seen(), func(q received) bool {
			return q.method == http.MethodPost && q.operation == "power_on" && q.form.Get("comment") == "c"
		})
		if wanted := status == StatusDeployed; sent != wanted || wanted != (err == nil) || !wanted && !IsStateConflict(err) {
			t.Errorf("%s: sent %t, %v", status, sent, err)
		}
	}
}

func TestQueryPower(t *testing.T) {
	for body, want := range map[string]PowerState{
		`{"state": "on"}`: PowerOn, `{"state": "off"}`: PowerOff, `{"state": "error"}`: PowerError,
		`{"state": "unknown"}`: PowerUnknown, `{"state": "odd"}`: PowerUnknown, `{}`: PowerUnknown,
	} {
		r := newRegion(t, respond(200, body))
		state, err := r.client(t).QueryPower(context.Background(), "abc123")
		if err != nil || state != want || r.only(t).operation != "query_power_state" || r.only(t).method != http.MethodGet {
			t.Errorf("%s: %s, %v", body, state, err)
		}
	}
	r := newRegion(t, respond(503, "No rack controllers can access the BMC"))
	if state, err := r.client(t).QueryPower(context.Background(), "abc123"); state != PowerUnknown || kinds(err) != "retryable" {
		t.Errorf("got %s, %v", state, err)
	}
}

func TestEvents(t *testing.T) {
	r := newRegion(t, respond(200, `{"count": 2, "events": [
    {"id": 12, "node": "abc123", "hostname": "node-1", "username": "capi", "level": "INFO", "created": "Fri, 20 Nov. 2026 15:20:08", "type": "Deployed", "description": ""},
    {"id": 11, "node": "abc123", "hostname": "node-1", "username": "unknown", "level": "DEBUG", "created": "yesterday", "type": "Node changed status", "description": "From 'Deploying' to 'Deployed'"}],
    "next_uri": "/MAAS/api/2.0/events/?op=query&after=12", "prev_uri": null}`))
	events, err := r.client(t).Events(context.Background(), 0, EventQuery{Owner: "capi", Debug: true, Limit: 50})
	want := []Event{
		{ID: 11, SystemID: "abc123", Hostname: "node-1", Username: "unknown", Level: "DEBUG", Type: "Node changed status", Description: "From 'Deploying' to 'Deployed'"},
		{ID: 12, SystemID: "abc123", Hostname: "node-1", Username: "capi", Level: "INFO", Type: "Deployed", Created: time.Date(2026, 11, 20, 15, 20, 8, 0, time.UTC)},
	}
	if err != nil || !reflect.DeepEqual(events, want) {
		t.Errorf("got %+v, %v", events, err)
	}
	query := map[string][]string{"op": {"query"}, "after": {"0"}, "owner": {"capi"}, "level": {"DEBUG"}, "limit": {"50"}}
	if got := r.only(t); !reflect.DeepEqual(map[string][]string(got.query), query) || got.path != "/MAAS/api/2.0/events/" {
		t.Errorf("query is %v", got.query)
	}
}

func TestNewestEvents(t *testing.T) {
	r := newRegion(t, respond(200, `{"count": 0, "events": []}`))
	c := r.client(t)
	if events, err := c.Events(context.Background(), -1, EventQuery{}); err != nil || len(events) != 0 {
		t.Errorf("got %v, %v", events, err)
	}
	query := map[string][]string{"op": {"query"}, "level": {"INFO"}, "limit": {"1000"}}
	if got := r.only(t); !reflect.DeepEqual(map[string][]string(got.query), query) {
		t.Errorf("query is %v", got.query)
	}
	if _, err := c.Events(context.Background(), -1, EventQuery{Limit: 1001}); kinds(err) != "argument" {
		t.Errorf("too many: %v", err)
	}
	if _, err := newRegion(t, respond(200, `{}`)).client(t).Events(context.Background(), 0, EventQuery{}); kinds(err) != "malformed" {
		t.Errorf("no list: %v", err)
	}
}
