// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	maasclient "github.com/canonical/gomaasclient/client"
	"github.com/canonical/gomaasclient/entity"
	"golang.org/x/sync/errgroup"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/maassim"
)

func TestPercentile(t *testing.T) {
	var twenty []time.Duration
	for i := 20; i > 0; i-- {
		twenty = append(twenty, time.Duration(i))
	}
	for _, c := range []struct {
		values []time.Duration
		p      float64
		want   time.Duration
	}{
		{nil, 50, 0}, {[]time.Duration{7}, 50, 7}, {[]time.Duration{7}, 95, 7}, {twenty, 50, 10}, {twenty, 95, 19}, {twenty, 100, 20},
	} {
		if got := percentile(c.values, c.p); got != c.want {
			t.Errorf("%v%% of %v is %d, want %d", c.p, c.values, got, c.want)
		}
	}
}

// TestFloor takes the straight line and holds the ledger against what the region itself counted.
func TestFloor(t *testing.T) {
	s, err := newSite("maas", 5, maassim.Timing{Deploy: -1, Workers: 1, Allocate: 20 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	took, err := floor(t.Context(), s, 3)
	if err != nil {
		t.Fatal(err)
	}
	if len(took) != 3 || percentile(took, 100) < 60*time.Millisecond {
		t.Errorf("three allocates of 20 ms, one after the other, took %v", took)
	}
	sums := tallied(s.calls.all())
	counted := 0
	for _, c := range s.region.Calls() {
		counted += c.Count
		if sum := sums[c.Operation]; sum.count != 3 || sum.shared || sum.machines != 3 {
			t.Errorf("%s: %+v", c.Operation, sum)
		}
	}
	if len(sums) != 3 || counted != len(s.calls.all()) {
		t.Errorf("%d calls on record, the region counted %d: %v", len(s.calls.all()), counted, sums)
	}
	if spent := s.spent("allocate", sums["allocate"]); spent < 60*time.Millisecond || spent > 100*time.Millisecond {
		t.Errorf("three allocates are said to take %s", spent)
	}
}

// TestLedgerCountsMachines reads lists of several sizes.
func TestLedgerCountsMachines(t *testing.T) {
	s, err := newSite("maas", 5, maassim.Timing{})
	if err != nil {
		t.Fatal(err)
	}
	group := &errgroup.Group{}
	if err := s.serve(t.Context(), group); err != nil {
		t.Fatal(err)
	}
	maas, err := maasclient.GetClient(s.endpoint(), accountKey, "2.0")
	if err != nil {
		t.Fatal(err)
	}
	for _, params := range []*entity.MachinesParams{{ID: []string{"maas0001", "maas0003"}}, {Owner: []string{account}}, {}} {
		if _, err := maas.Machines.Get(params); err != nil {
			t.Fatal(err)
		}
	}
	sums := tallied(s.calls.all())
	for operation, want := range map[string]int{"list by id": 2, "list by owner": 0, "list by constraints": 5} {
		if sum := sums[operation]; sum.count != 1 || sum.machines != want || sum.bytes == 0 {
			t.Errorf("%s: %+v, want %d machines", operation, sum, want)
		}
	}
}

func TestDescribe(t *testing.T) {
	for _, c := range []struct {
		method, target, body string
		want                 call
	}{
		{"GET", "machines/?agent_name=a", "", call{operation: "list by token (one)", token: "a"}},
		{"GET", "machines/?agent_name=a&agent_name=b", "", call{operation: "list by token (several)", shared: true}},
		{"GET", "machines/?id=a", "", call{operation: "list by id", shared: true}},
		{"GET", "machines/?owner=a", "", call{operation: "list by owner", shared: true}},
		{"GET", "machines/?status=ready", "", call{operation: "list by constraints"}},
		{"GET", "machines/abc/", "", call{operation: "read machine", systemID: "abc"}},
		{"GET", "nodes/abc/devices/", "", call{operation: "devices", systemID: "abc"}},
		{"POST", "machines/?op=allocate", "agent_name=a&mem=1", call{operation: "allocate", token: "a"}},
		{"POST", "machines/abc/?op=deploy", "user_data=x", call{operation: "deploy", systemID: "abc"}},
		{"GET", "events/?op=query&after=7", "", call{operation: "events query", shared: true}},
		{"GET", "users/?op=whoami", "", call{operation: "users whoami", shared: true}},
		{"GET", "zones/", "", call{operation: "zones", shared: true}},
	} {
		request, err := http.NewRequestWithContext(t.Context(), c.method, "http://maas"+apiRoot+c.target, strings.NewReader(c.body))
		if err != nil {
			t.Fatal(err)
		}
		got := describe(request)
		got.arrived = time.Time{}
		if got != c.want {
			t.Errorf("%s %s is %+v, want %+v", c.method, c.target, got, c.want)
		}
		request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		if err := request.ParseForm(); err != nil {
			t.Fatal(err)
		}
		if want, _ := url.ParseQuery(c.body); request.PostForm.Encode() != want.Encode() {
			t.Errorf("%s %s: the form that is left is %v", c.method, c.target, request.PostForm)
		}
	}
}

// TestReport says MISSED where a budget is.
func TestReport(t *testing.T) {
	r := &Report{}
	r.add("s", "good", 1, "s").within(1.5)
	r.add("s", "bad", 2, "s").within(1.5)
	endless := r.add("s", "endless", 1, "s")
	endless.AtLeast = true
	endless.within(1.5)
	r.add("s", "neither", 3, "")
	dir := t.TempDir()
	if err := r.Save(dir); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(filepath.Join(dir, "bench.txt"))
	if err != nil {
		t.Fatal(err)
	}
	for what, missed := range map[string]bool{"good": false, "bad": true, "endless": true, "neither": false} {
		for line := range strings.Lines(string(content)) {
			if strings.Contains(line, what+" ") && strings.Contains(line, "MISSED") != missed {
				t.Errorf("%q: want MISSED %v", line, missed)
			}
		}
	}
	if !bytes.Contains(content, []byte("2 budget(s) MISSED")) {
		t.Errorf("the sum is missing:\n%s", content)
	}
	content, err = os.ReadFile(filepath.Join(dir, "bench.json"))
	if err != nil {
		t.Fatal(err)
	}
	read := &Report{}
	if err := json.Unmarshal(content, read); err != nil || len(read.Lines) != 4 || read.Missed() != 2 {
		t.Errorf("read back: %+v, %v", read, err)
	}
}

func TestRequestsByMethod(t *testing.T) {
	sums, err := requestsByMethod(bytes.NewBufferString(`# HELP rest_client_requests_total Number of HTTP requests.
rest_client_requests_total{code="200",host="127.0.0.1:1",method="GET"} 12
rest_client_requests_total{code="404",host="127.0.0.1:1",method="GET"} 3
rest_client_requests_total{code="200",host="127.0.0.1:1",method="PATCH"} 1.5e+02
other_total{method="GET"} 7
`))
	if err != nil || len(sums) != 2 || sums["GET"] != 15 || sums["PATCH"] != 150 {
		t.Errorf("%v, %v", sums, err)
	}
	if _, err := requestsByMethod(bytes.NewBufferString(requestsMetric + `code="200"} x`)); err == nil {
		t.Error("an unknown format passes")
	}
}
