// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maassim_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/canonical/gomaasclient/client"
	"github.com/canonical/gomaasclient/entity"
	"github.com/juju/gomaasapi/v2"
	. "github.com/onsi/gomega"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/maassim"
)

const (
	tenantKey = "c1:t1:s1"
	otherKey  = "c2:t2:s2"
	adminKey  = "c0:t0:s0"
)

// lab is a running region behind real HTTP with three accounts.
type lab struct {
	*testing.T
	region               *maassim.Region
	url                  string
	tenant, other, admin *client.Client
	hardware             *hardware
	nonce                int
}

func newLab(t *testing.T, timing maassim.Timing, machines ...maassim.Machine) *lab {
	t.Helper()
	for _, d := range []*time.Duration{&timing.PowerOff, &timing.PowerOn, &timing.Deploy, &timing.Erase, &timing.Commission} {
		if *d == 0 {
			*d = 5 * time.Millisecond
		}
	}
	return newLabWith(t, maassim.Options{Timing: timing}, machines...)
}

func newLabWith(t *testing.T, options maassim.Options, machines ...maassim.Machine) *lab {
	t.Helper()
	g := NewWithT(t)
	l := &lab{T: t, region: maassim.New(options), hardware: &hardware{}}
	l.region.SetHardware(l.hardware)
	l.region.AddUser("tenant", tenantKey, false)
	l.region.AddUser("other", otherKey, false)
	l.region.AddUser("admin", adminKey, true)
	l.region.AddZone("az1")
	l.region.AddPool("gold")
	l.region.AddTag("dpu")
	l.region.AddTag("old")
	for _, m := range machines {
		g.Expect(l.region.AddMachine(m)).To(Succeed())
	}
	base, wait, err := l.region.Serve(t.Context(), nil)
	g.Expect(err).NotTo(HaveOccurred())
	t.Cleanup(func() {
		if err := wait(); err != nil {
			t.Errorf("region: %v", err)
		}
		l.checkJournal()
	})
	l.url = base
	l.tenant, l.other, l.admin = l.client(tenantKey), l.client(otherKey), l.client(adminKey)
	return l
}

func (l *lab) client(key string) *client.Client {
	l.Helper()
	c, err := client.GetClient(l.url+"/MAAS", key, "2.0")
	if err != nil {
		l.Fatal(err)
	}
	return c
}

// checkJournal holds every recorded change against the state table, whatever the test was about.
func (l *lab) checkJournal() {
	for i, e := range l.region.Journal() {
		if e.Seq != i+1 {
			l.Errorf("effect %d has sequence number %d", i+1, e.Seq)
		}
		if !maassim.TransitionAllowed(e.From, e.To) {
			l.Errorf("effect %d (%s of %s) went from %d to %d, which MAAS does not allow", e.Seq, e.Operation, e.SystemID, e.From, e.To)
		}
	}
}

func (l *lab) state(id string) maassim.MachineState {
	for _, m := range l.region.Machines() {
		if m.SystemID == id {
			return m
		}
	}
	return maassim.MachineState{Status: -1}
}

func (l *lab) status(id string) func() int {
	return func() int { return l.state(id).Status }
}

func (l *lab) allocate(c *client.Client, id, token string) {
	l.Helper()
	m, err := c.Machines.Allocate(&entity.MachineAllocateParams{SystemID: id, AgentName: token})
	if err != nil || m.SystemID != id {
		l.Fatalf("allocate %s: %v, got %q", id, err, m.SystemID)
	}
}

func (l *lab) deployed(c *client.Client, id, token string) {
	l.Helper()
	l.allocate(c, id, token)
	if _, err := c.Machine.Deploy(id, &entity.MachineDeployParams{UserData: "aGVsbG8="}); err != nil {
		l.Fatal(err)
	}
	NewWithT(l).Eventually(l.status(id)).Should(Equal(maassim.StatusDeployed))
}

// oauth is a well-formed header with a fresh nonce; overrides replace single parameters.
func (l *lab) oauth(key string, overrides map[string]string) string {
	l.nonce++
	parts := strings.Split(key, ":")
	params := map[string]string{
		"oauth_version": "1.0", "oauth_signature_method": "PLAINTEXT", "oauth_consumer_key": parts[0],
		"oauth_token": parts[1], "oauth_signature": "&" + parts[2], "oauth_nonce": fmt.Sprintf("n%d", l.nonce),
		"oauth_timestamp": fmt.Sprint(time.Now().Unix()),
	}
	for name, value := range overrides {
		params[name] = value
	}
	fields := []string{}
	for name, value := range params {
		fields = append(fields, fmt.Sprintf("%s=%q", name, url.QueryEscape(value)))
	}
	return "OAuth " + strings.Join(fields, ", ")
}

type answer struct {
	code   int
	body   string
	header http.Header
}

// raw sends a request below the API root, or below the server's where the path starts with a slash.
func (l *lab) raw(method, path, authorization string, form url.Values) answer {
	l.Helper()
	if !strings.HasPrefix(path, "/") {
		path = "/MAAS/api/2.0/" + path
	}
	request, err := http.NewRequestWithContext(l.Context(), method, l.url+path, strings.NewReader(form.Encode()))
	if err != nil {
		l.Fatal(err)
	}
	if authorization != "" {
		request.Header.Set("Authorization", authorization)
	}
	if form != nil {
		request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		l.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		l.Fatal(err)
	}
	return answer{response.StatusCode, string(body), response.Header}
}

func (l *lab) drive(action string, fields url.Values) int {
	l.Helper()
	return l.raw(http.MethodPost, "/driver/"+action, "", fields).code
}

// serverError is the status and body of a failed client call.
func serverError(t *testing.T, err error) (int, string) {
	t.Helper()
	failure, ok := gomaasapi.GetServerError(err)
	if !ok {
		t.Fatalf("no server error: %v", err)
	}
	return failure.StatusCode, failure.BodyMessage
}

// hardware writes down what the region told it.
type hardware struct {
	mu  sync.Mutex
	log []string
}

func (h *hardware) note(format string, args ...any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.log = append(h.log, fmt.Sprintf(format, args...))
}

func (h *hardware) seen() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]string(nil), h.log...)
}

func (h *hardware) PowerChanged(id string, on bool) { h.note("power %s %v", id, on) }
func (h *hardware) Boot(id string, userData []byte) { h.note("boot %s %s", id, userData) }
func (h *hardware) Wiped(id string)                 { h.note("wiped %s", id) }

func operations(effects []maassim.Effect) []string {
	names := []string{}
	for _, e := range effects {
		names = append(names, e.Operation)
	}
	return names
}

// keyOf is the API key in an answer of accounts/authenticate/.
func keyOf(t *testing.T, body string) string {
	t.Helper()
	var parts struct {
		Consumer string `json:"consumer_key"`
		Token    string `json:"token_key"`
		Secret   string `json:"token_secret"`
	}
	if err := json.Unmarshal([]byte(body), &parts); err != nil {
		t.Fatal(err)
	}
	return parts.Consumer + ":" + parts.Token + ":" + parts.Secret
}
