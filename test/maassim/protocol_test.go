// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maassim_test

import (
	"bytes"
	"fmt"
	"mime/multipart"
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/canonical/gomaasclient/client"
	"github.com/canonical/gomaasclient/entity"
	. "github.com/onsi/gomega"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/maassim"
)

func TestAuthentication(t *testing.T) {
	l := newLab(t, maassim.Timing{})
	old := fmt.Sprint(time.Now().Add(-10 * time.Minute).Unix())
	ahead := fmt.Sprint(time.Now().Add(10 * time.Minute).Unix())
	cases := map[string]struct {
		header string
		code   int
		body   string
	}{
		"good":             {l.oauth(tenantKey, nil), 200, ""},
		"bad consumer":     {l.oauth("x:t1:s1", nil), 401, "Authorization Error: Invalid API key."},
		"bad token":        {l.oauth("c1:x:s1", nil), 401, "Authorization Error: 'Invalid access token: x'"},
		"bad secret":       {l.oauth("c1:t1:x", nil), 401, "Authorization Error: 'Invalid signature. Expected signature base string: &s1'"},
		"token of another": {l.oauth("c1:t2:s2", nil), 401, "Authorization Error: 'Invalid access token: t2'"},
		"no header":        {"", 400, "Unrecognised signature: method=GET op=whoami"},
		"clock ahead":      {l.oauth(tenantKey, map[string]string{"oauth_timestamp": ahead}), 200, ""},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			answer := l.raw(http.MethodGet, "users/?op=whoami", tc.header, nil)
			g.Expect(answer.code).To(Equal(tc.code), answer.body)
			if tc.body != "" {
				g.Expect(answer.body).To(Equal(tc.body))
			}
		})
	}
	t.Run("expired timestamp", func(t *testing.T) {
		answer := l.raw(http.MethodGet, "users/?op=whoami", l.oauth(tenantKey, map[string]string{"oauth_timestamp": old}), nil)
		NewWithT(t).Expect(answer.code).To(Equal(401))
		NewWithT(t).Expect(answer.body).To(MatchRegexp(
			"^Authorization Error: 'Expired timestamp: given " + old + " and now [0-9]+ has a greater difference than threshold 300'$"))
	})
	t.Run("nonce replay", func(t *testing.T) {
		g := NewWithT(t)
		header := l.oauth(tenantKey, map[string]string{"oauth_nonce": "once"})
		g.Expect(l.raw(http.MethodGet, "users/?op=whoami", header, nil).code).To(Equal(200))
		answer := l.raw(http.MethodGet, "users/?op=whoami", header, nil)
		g.Expect(answer.code).To(Equal(401))
		g.Expect(answer.body).To(Equal("Authorization Error: 'Nonce already used: once'"))
		other := l.oauth(otherKey, map[string]string{"oauth_nonce": "once"})
		g.Expect(l.raw(http.MethodGet, "users/?op=whoami", other, nil).code).To(Equal(200), "nonces are per key")
	})
}

func TestRotatedKey(t *testing.T) {
	g := NewWithT(t)
	l := newLab(t, maassim.Timing{})
	l.region.RotateKey("tenant", "c9:t9:s9")
	_, err := l.tenant.Users.Whoami()
	code, body := serverError(t, err)
	g.Expect(code).To(Equal(http.StatusUnauthorized))
	g.Expect(body).To(Equal("Authorization Error: Invalid API key."))
	me, err := l.client("c9:t9:s9").Users.Whoami()
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(me.UserName).To(Equal("tenant"))
	g.Expect(me.IsSuperUser).To(BeFalse())
}

func TestWireShapes(t *testing.T) {
	l := newLab(t, maassim.Timing{}, maassim.Machine{SystemID: "abc123"})
	l.allocate(l.other, "abc123", "theirs")
	cases := map[string]struct {
		method, path, key string
		code              int
		body              string
	}{
		"anonymous":             {http.MethodGet, "machines/", "", 400, "Unrecognised signature: method=GET op=None"},
		"no trailing slash":     {http.MethodGet, "machines", tenantKey, 404, "Unknown API endpoint: /MAAS/api/2.0/machines."},
		"unknown path":          {http.MethodGet, "nosuch/", tenantKey, 404, "Unknown API endpoint: /MAAS/api/2.0/nosuch/."},
		"unknown op":            {http.MethodPost, "machines/?op=frob", tenantKey, 400, "Unrecognised signature: method=POST op=frob"},
		"read op as POST":       {http.MethodPost, "machines/?op=list_allocated", tenantKey, 400, "Unrecognised signature: method=POST op=list_allocated"},
		"verb":                  {http.MethodPatch, "machines/", tenantKey, 405, ""},
		"foreign machine":       {http.MethodGet, "machines/abc123/", tenantKey, 403, ""},
		"release of foreign":    {http.MethodPost, "machines/abc123/?op=release", tenantKey, 403, ""},
		"no such machine":       {http.MethodGet, "machines/zzzzzz/", tenantKey, 404, "No Machine matches the given query."},
		"no such node":          {http.MethodGet, "nodes/zzzzzz/devices/", tenantKey, 404, "No Node matches the given query."},
		"admin method":          {http.MethodPut, "machines/abc123/", tenantKey, 403, "This method is reserved for admin users."},
		"admin method, delete":  {http.MethodDelete, "machines/abc123/", tenantKey, 403, "This method is reserved for admin users."},
		"admin method, fixing":  {http.MethodPost, "machines/abc123/?op=mark_fixed", tenantKey, 403, "This method is reserved for admin users."},
		"admin method, tags":    {http.MethodPost, "tags/dpu/?op=update_nodes", tenantKey, 403, "This method is reserved for admin users."},
		"empty op":              {http.MethodGet, "zones/az1/?op=", tenantKey, 200, ""},
		"double slash":          {http.MethodGet, "zones//az1/", tenantKey, 200, ""},
		"version, anonymous":    {http.MethodGet, "version/", "", 200, ""},
		"admin sees all":        {http.MethodGet, "machines/abc123/", adminKey, 200, ""},
		"simple_status crashes": {http.MethodGet, "machines/?simple_status=ready", tenantKey, 500, "Cannot resolve keyword 'simple_status' into field."},
		"missing parameter":     {http.MethodGet, "machines/?op=is_registered", tenantKey, 400, "No provided mac_address!"},
		"not simulated":         {http.MethodGet, "machines/?pod=x", tenantKey, 501, "maassim does not simulate the constraint pod"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			header := ""
			if tc.key != "" {
				header = l.oauth(tc.key, nil)
			}
			answer := l.raw(tc.method, tc.path, header, nil)
			g.Expect(answer.code).To(Equal(tc.code), answer.body)
			if tc.code != 200 {
				g.Expect(answer.body).To(Equal(tc.body))
				g.Expect(answer.header).NotTo(HaveKey("Retry-After"))
			}
			g.Expect(answer.header.Get("X-MAAS-API-Hash")).NotTo(BeEmpty())
		})
	}
}

func TestJSONIsIndentedByFour(t *testing.T) {
	g := NewWithT(t)
	l := newLab(t, maassim.Timing{}, maassim.Machine{SystemID: "abc123"})
	one := l.raw(http.MethodGet, "machines/abc123/", l.oauth(tenantKey, nil), nil)
	g.Expect(one.body).To(HavePrefix("{\n    \"address_ttl\": null,\n"))
	g.Expect(one.body).NotTo(ContainSubstring("agent_name"))
	list := l.raw(http.MethodGet, "machines/", l.oauth(tenantKey, nil), nil)
	g.Expect(list.body).To(HavePrefix("[\n    {\n        \"address_ttl\": null,\n"))
	g.Expect(list.body).To(MatchJSON("[" + one.body + "]"))
	g.Expect(l.raw(http.MethodGet, "machines/?id=nosuch", l.oauth(tenantKey, nil), nil).body).To(Equal("[]"))
}

func TestMultipartAndEmptyOp(t *testing.T) {
	g := NewWithT(t)
	l := newLab(t, maassim.Timing{})
	var body bytes.Buffer
	writer := multipart.NewWriter(&body)
	g.Expect(writer.WriteField("mac_addresses", "02:00:00:00:00:01")).To(Succeed())
	g.Expect(writer.WriteField("architecture", "amd64")).To(Succeed())
	g.Expect(writer.Close()).To(Succeed())
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, l.url+"/MAAS/api/2.0/machines/?op=", &body)
	g.Expect(err).NotTo(HaveOccurred())
	request.Header.Set("Content-Type", writer.FormDataContentType())
	request.Header.Set("Authorization", l.oauth(tenantKey, nil))
	response, err := http.DefaultClient.Do(request)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(response.Body.Close()).To(Succeed())
	g.Expect(response.StatusCode).To(Equal(http.StatusOK))
	g.Expect(l.region.Machines()).To(HaveLen(1))
	g.Expect(l.region.Machines()[0].Status).To(Equal(maassim.StatusNew))
}

func TestVisibility(t *testing.T) {
	g := NewWithT(t)
	l := newLab(t, maassim.Timing{}, maassim.Machine{SystemID: "mine11"}, maassim.Machine{SystemID: "theirs"},
		maassim.Machine{SystemID: "free11"})
	l.allocate(l.tenant, "mine11", "a")
	l.allocate(l.other, "theirs", "b")
	ids := func(c *client.Client) []string {
		machines, err := c.Machines.Get(&entity.MachinesParams{})
		g.Expect(err).NotTo(HaveOccurred())
		list := []string{}
		for _, m := range machines {
			list = append(list, m.SystemID)
		}
		return list
	}
	g.Expect(ids(l.tenant)).To(Equal([]string{"mine11", "free11"}))
	g.Expect(ids(l.other)).To(Equal([]string{"theirs", "free11"}))
	g.Expect(ids(l.admin)).To(Equal([]string{"mine11", "theirs", "free11"}))
	found, err := l.tenant.Machines.Get(&entity.MachinesParams{AgentName: []string{"b"}})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(found).To(BeEmpty(), "a token of another account finds nothing")

	_, err = l.admin.Machine.SetWorkloadAnnotations("mine11", map[string]string{"a": "b"})
	code, body := serverError(t, err)
	g.Expect(code).To(Equal(http.StatusConflict), "annotations are the owner's, not an admin's")
	g.Expect(body).To(Equal("Cannot set workload annotation: it hasn't been acquired."))
}

func TestAnnotationKeys(t *testing.T) {
	g := NewWithT(t)
	l := newLab(t, maassim.Timing{}, maassim.Machine{SystemID: "abc123"})
	l.allocate(l.tenant, "abc123", "a")
	_, err := l.tenant.Machine.SetWorkloadAnnotations("abc123", map[string]string{"a/b": "x"})
	code, body := serverError(t, err)
	g.Expect(code).To(Equal(http.StatusInternalServerError))
	g.Expect(body).To(Equal("Invalid character in key name"))
	long := string(bytes.Repeat([]byte("k"), 300))
	_, err = l.tenant.Machine.SetWorkloadAnnotations("abc123", map[string]string{long: "x"})
	code, body = serverError(t, err)
	g.Expect(code).To(Equal(http.StatusBadRequest))
	g.Expect(body).To(MatchJSON(`{"key": ["Ensure this value has at most 255 characters (it has 300)."]}`))
	answer := l.raw(http.MethodPost, "machines/abc123/?op=set_owner_data", l.oauth(tenantKey, nil), url.Values{"old": {"name"}})
	g.Expect(answer.code).To(Equal(http.StatusOK))
	g.Expect(l.state("abc123").Annotations).To(Equal(map[string]string{"old": "name"}))
}
