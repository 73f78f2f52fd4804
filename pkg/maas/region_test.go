// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maas

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// The key of all tests. Its parts are long enough to be recognised in any text.
const (
	testSecret = "TokenSecretTokenSecret12345678"
	testKey    = "ConsumerKeyConsumer:TokenKeyTokenKey01:" + testSecret
)

// received is one request as the server saw it.
type received struct {
	method, path, operation, authorization string
	query, form                            url.Values
}

// region is a MAAS region reduced to one answer.
type region struct {
	*httptest.Server
	connections atomic.Int32

	mu       sync.Mutex
	requests []received
}

func newRegion(t *testing.T, handle http.HandlerFunc) *region {
	t.Helper()
	r := &region{}
	r.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, err := io.ReadAll(req.Body)
		if err != nil {
			return
		}
		form, err := url.ParseQuery(string(body))
		if err != nil {
			t.Errorf("body is not a form: %v", err)
		}
		r.mu.Lock()
		r.requests = append(r.requests, received{
			method: req.Method, path: req.URL.Path, operation: req.URL.Query().Get("op"),
			authorization: req.Header.Get("Authorization"), query: req.URL.Query(), form: form,
		})
		r.mu.Unlock()
		handle(w, req)
	}))
	r.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			r.connections.Add(1)
		}
	}
	r.Start()
	t.Cleanup(r.Close)
	return r
}

func (r *region) seen() []received {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]received(nil), r.requests...)
}

func (r *region) only(t *testing.T) received {
	t.Helper()
	seen := r.seen()
	if len(seen) != 1 {
		t.Fatalf("server saw %d requests, want 1: %+v", len(seen), seen)
	}
	return seen[0]
}

func (r *region) config() Config {
	return Config{Endpoint: r.URL + "/MAAS", APIKey: NewAPIKey(testKey), Timeout: 10 * time.Second, AllocateTimeout: 10 * time.Second}
}

func (r *region) client(t *testing.T, change ...func(*Config)) *Client {
	t.Helper()
	config := r.config()
	for _, f := range change {
		f(&config)
	}
	c, err := New(config)
	if err != nil {
		t.Fatalf("New: %v", err)
	}
	t.Cleanup(c.Close)
	return c
}

// respond answers every request alike; header pairs follow the body.
func respond(status int, body string, header ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for i := 0; i+1 < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

// hang answers nothing until the client is gone or the test over.
func hang(t *testing.T) http.HandlerFunc {
	t.Helper()
	over := make(chan struct{})
	t.Cleanup(func() { close(over) })
	return func(_ http.ResponseWriter, req *http.Request) {
		select {
		case <-req.Context().Done():
		case <-over:
		}
	}
}

// hangUp closes the connection after the request was read.
func hangUp(w http.ResponseWriter, _ *http.Request) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err == nil {
		_ = conn.Close()
	}
}

// machineJSON is an excerpt of what MAAS 3.7 answers, with its nulls.
const machineJSON = `{
    "system_id": "abc123",
    "hostname": "node-1",
    "fqdn": "node-1.maas",
    "owner": "capi",
    "status": 10,
    "status_name": "Allocated",
    "status_message": "Ready",
    "error_description": "was hot",
    "power_state": "off",
    "power_type": "redfish",
    "zone": {"id": 1, "name": "az-1", "description": "", "resource_uri": "/MAAS/api/2.0/zones/az-1/"},
    "pool": {"id": 0, "name": "default", "description": "", "resource_uri": "/MAAS/api/2.0/resourcepool/0/"},
    "tag_names": ["bf3", "rack-7"],
    "architecture": "amd64/generic",
    "cpu_count": 64,
    "memory": 262144,
    "storage": 1920383.410176,
    "locked": false,
    "ephemeral_deploy": true,
    "is_dpu": true,
    "parent": {"system_id": "def456", "resource_uri": "/MAAS/api/2.0/machines/def456/", "__incomplete__": true},
    "pod": null,
    "boot_disk": null,
    "osystem": "ubuntu",
    "distro_series": "noble",
    "hwe_kernel": "ga-24.04",
    "netboot": true,
    "hardware_uuid": "33333333-2222-1111-0000-000000000000",
    "hardware_info": {"system_serial": "S123", "system_vendor": "Unknown"},
    "owner_data": {"maas-dpu.name": "m-1"},
    "workload_annotations": {"maas-dpu.name": "m-1"},
    "ip_addresses": ["10.0.0.7"],
    "boot_interface": {"id": 5},
    "interface_set": [
        {"id": 5, "name": "eno1", "type": "physical", "mac_address": "52:54:00:AA:BB:CC", "vendor": "Intel", "product": "X710",
         "firmware_version": null, "enabled": true, "link_connected": false,
         "vlan": {"id": 5001, "vid": 12, "fabric": "provisioning", "fabric_id": 2},
         "links": [{"id": 1, "mode": "auto", "ip_address": "10.0.0.7", "subnet": {"cidr": "10.0.0.0/24"}}, {"id": 2, "mode": "link_up"}]},
        {"id": 6, "name": "enp1s0f0np0", "type": "physical", "mac_address": "b8:3f:d2:00:00:01", "vlan": null, "links": []}
    ]
}`

func machineWith(id, owner string, status Status, annotations string) string {
	return strings.NewReplacer("ID", id, "OWNER", owner, "STATUS", strconv.Itoa(int(status)), "NOTES", annotations).Replace(
		`{"system_id": "ID", "owner": OWNER, "status": STATUS, "parent": null, "boot_interface": null, "workload_annotations": {NOTES}}`)
}
