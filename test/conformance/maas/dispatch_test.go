// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maas_test

import (
	"bytes"
	"mime/multipart"
	"net/url"
	"testing"

	. "github.com/onsi/gomega"
)

// nowhere is a system ID no machine has: MAAS' alphabet is without i, o and l.
const nowhere = "oilnil"

func dispatch(s *suite, t *testing.T) {
	shapes := []struct {
		name string
		request
		code int
		body string
	}{
		{"a path without its last slash is unknown", request{method: get, path: "machines"}, 404,
			"Unknown API endpoint: .*/machines\\."},
		{"a path that is none is unknown", request{method: get, path: "nosuch/"}, 404, "Unknown API endpoint: .*/nosuch/\\."},
		{"an unknown operation", request{method: post, path: "machines/", op: "frob"}, 400,
			"Unrecognised signature: method=POST op=frob"},
		{"an operation that changes, as GET", request{method: get, path: "machines/", op: "allocate"}, 400,
			"Unrecognised signature: method=GET op=allocate"},
		{"an operation that reads, as POST", request{method: post, path: "machines/", op: "list_allocated"}, 400,
			"Unrecognised signature: method=POST op=list_allocated"},
		{"an unsupported verb", request{method: "PATCH", path: "machines/"}, 405, ""},
		{"a missing parameter", request{method: get, path: "machines/", op: "is_registered"}, 400, "No provided mac_address!"},
		{"no such machine", request{method: get, path: "machines/" + nowhere + "/"}, 404, "No Machine matches the given query\\."},
		{"release of no machine", request{method: post, path: "machines/" + nowhere + "/", op: "release"}, 404,
			"No Machine matches the given query\\."},
		{"deploy of no machine", request{method: post, path: "machines/" + nowhere + "/", op: "deploy"}, 404,
			"No Machine matches the given query\\."},
		{"annotations of no machine", request{method: post, path: "machines/" + nowhere + "/", op: "set_workload_annotations",
			form: url.Values{"a": {"b"}}}, 404, "No Machine matches the given query\\."},
		{"no such zone", request{method: get, path: "zones/conformance-nosuch/"}, 404, "No Zone matches the given query\\."},
	}
	for _, shape := range shapes {
		s.run(t, shape.name, func(c *check) {
			got := c.expect(c.send(c.user, shape.request), shape.code)
			c.Expect(got.header).NotTo(HaveKey("Retry-After"))
			c.wording(got, shape.body)
		})
	}
	s.run(t, "an empty operation is none", func(c *check) {
		var found []machine
		c.decode(c.get(c.user, "machines/", url.Values{"op": {""}, "id": {nowhere}}), &found)
		c.Expect(found).To(BeEmpty())
	})
	s.run(t, "answers are JSON indented by four spaces", func(c *check) {
		got := c.expect(c.get(c.user, "machines/"+c.oneMachine()+"/", nil), 200)
		c.Expect(got.isJSON()).To(BeTrue(), got.text())
		c.wording(answer{code: got.code, body: got.body[:min(6, len(got.body))]}, "\\{\n    ")
	})
	s.run(t, "a form's errors come by field, as JSON", func(c *check) {
		c.invalid(c.get(c.user, "machines/", url.Values{"conformance-nosuch": {"1"}}), "conformance-nosuch")
	})
	s.run(t, "multipart forms are read", func(c *check) {
		id := c.oneMachine()
		var body bytes.Buffer
		w := multipart.NewWriter(&body)
		c.Expect(w.WriteField("system_id", id)).To(Succeed())
		c.Expect(w.WriteField("dry_run", "true")).To(Succeed())
		c.Expect(w.Close()).To(Succeed())
		got := c.send(c.user, request{method: post, path: "machines/", op: "allocate",
			contentType: w.FormDataContentType(), body: body.String()})
		c.Expect(c.machine(got).SystemID).To(Equal(id))
	})
	s.run(t, "administration is refused to ordinary accounts", administration)
}

// administration asks for what only administrators may, in forms that change nothing should they be accepted.
func administration(c *check) {
	id := c.oneMachine()
	before := c.read(c.user, id)
	name := url.Values{"name": {c.prefix + "-refused"}}
	for _, r := range []request{
		{method: put, path: "machines/" + id + "/"},
		{method: post, path: "machines/" + id + "/", op: "mark_fixed"},
		{method: get, path: "machines/" + id + "/", op: "power_parameters"},
		{method: post, path: "tags/", form: name},
		{method: post, path: "zones/", form: name},
		{method: post, path: "resourcepools/", form: name},
	} {
		got := c.send(c.user, r)
		c.Expect(got.code).To(Equal(403), "%s %s op=%s: %s", r.method, r.path, r.op, got.text())
	}
	c.unchanged(c.user, before)
}
