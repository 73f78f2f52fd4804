// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maas_test

import (
	"crypto/rand"
	"net/url"
	"strconv"
	"testing"
	"time"

	. "github.com/onsi/gomega"
)

func authentication(s *suite, t *testing.T) {
	whoami := request{method: get, path: "users/", op: "whoami"}
	// as sends whoami with a key and a signature of one's own making.
	as := func(c *check, key apiKey, overrides map[string]string) answer {
		c.Helper()
		r := whoami
		r.key, r.oauth = &key, overrides
		got, err := c.wire.do(c.ctx, r)
		c.Expect(err).NotTo(HaveOccurred())
		return got
	}
	at := func(d time.Duration) map[string]string {
		return map[string]string{"oauth_timestamp": strconv.FormatInt(time.Now().Add(d).Unix(), 10)}
	}
	s.run(t, "whoami names the account and whether it is an administrator", func(c *check) {
		var me map[string]any
		c.decode(c.get(c.user, "users/", url.Values{"op": {"whoami"}}), &me)
		c.Expect(me).To(HaveKeyWithValue("username", c.user.name))
		c.Expect(me).To(HaveKeyWithValue("is_superuser", false))
	})
	s.run(t, "an administrator is one", func(c *check) {
		var me map[string]any
		c.decode(c.get(c.needAdmin(), "users/", url.Values{"op": {"whoami"}}), &me)
		c.Expect(me).To(HaveKeyWithValue("is_superuser", true))
	})
	wrong := []struct {
		name   string
		change func(*apiKey)
		body   string
	}{
		{"an unknown consumer", func(k *apiKey) { k.consumer = rand.Text() }, "Authorization Error: Invalid API key\\."},
		{"an unknown token", func(k *apiKey) { k.token = rand.Text() }, "Authorization Error: 'Invalid access token: [A-Z0-9]+'"},
		{"a wrong secret", func(k *apiKey) { k.secret = rand.Text() }, "Authorization Error: 'Invalid signature\\. Expected .*'"},
	}
	for _, w := range wrong {
		s.run(t, w.name+" is refused", func(c *check) {
			key := c.user.key
			w.change(&key)
			c.wording(c.expect(as(c, key, nil), 401), w.body)
		})
	}
	s.run(t, "another account's token is refused", func(c *check) {
		key := c.user.key
		key.token, key.secret = c.needOther().key.token, c.other.key.secret
		c.expect(as(c, key, nil), 401)
	})
	s.run(t, "a signature sent again is refused", func(c *check) {
		r := whoami
		r.authorization = c.user.key.sign(nil)
		for _, want := range []int{200, 401} {
			got, err := c.wire.do(c.ctx, r)
			c.Expect(err).NotTo(HaveOccurred())
			c.expect(got, want)
		}
	})
	s.run(t, "a used nonce is refused", func(c *check) {
		nonce := map[string]string{"oauth_nonce": rand.Text()}
		c.expect(as(c, c.user.key, nonce), 200)
		c.wording(c.expect(as(c, c.user.key, nonce), 401), "Authorization Error: 'Nonce already used: [A-Z0-9]+'")
	})
	s.run(t, "a timestamp ten minutes behind is refused", func(c *check) {
		c.wording(c.expect(as(c, c.user.key, at(-10*time.Minute)), 401), "Authorization Error: 'Expired timestamp: .*'")
	})
	s.run(t, "a timestamp ten minutes ahead is accepted", func(c *check) {
		c.expect(as(c, c.user.key, at(10*time.Minute)), 200)
	})
	s.run(t, "without a signature machines are neither shown nor allocated", func(c *check) {
		for _, r := range []request{
			{method: get, path: "machines/"},
			{method: post, path: "machines/", op: "allocate", form: url.Values{"system_id": {c.oneMachine()}}},
			{method: get, path: "machines/" + c.oneMachine() + "/"},
		} {
			c.touched.Store(true)
			got, err := c.wire.do(c.ctx, r)
			c.Expect(err).NotTo(HaveOccurred())
			c.Expect(got.code).To(BeElementOf(400, 401, 403), got.text())
			op := "None"
			if r.op != "" {
				op = r.op
			}
			c.wording(got, "Unrecognised signature: method="+r.method+" op="+op)
		}
		c.Expect(c.read(c.user, c.oneMachine()).idle()).To(BeTrue())
	})
	s.run(t, "the version needs no signature", func(c *check) {
		got, err := c.wire.do(c.ctx, request{method: get, path: "version/"})
		c.Expect(err).NotTo(HaveOccurred())
		c.expect(got, 200)
	})
}
