// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maassim_test

import (
	"net/http"
	"net/url"
	"testing"

	. "github.com/onsi/gomega"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/maassim"
)

func TestNamesComeAndGo(t *testing.T) {
	l := newLab(t, maassim.Timing{}, maassim.Machine{SystemID: "abc123", Zone: "az1", Tags: []string{"dpu"}})
	admin := func(method, path string, form url.Values) answer {
		return l.raw(method, path, l.oauth(adminKey, nil), form)
	}
	allocates := func(key, value string) int {
		return l.raw(http.MethodPost, "machines/?op=allocate", l.oauth(tenantKey, nil), url.Values{key: {value}, "dry_run": {"true"}}).code
	}
	for _, c := range []struct{ collection, single, constraint string }{
		{"zones/", "zones/fresh/", "zone"}, {"resourcepools/", "resourcepool/2/", "pool"}, {"tags/", "tags/fresh/", "tags"},
	} {
		t.Run(c.constraint, func(t *testing.T) {
			g := NewWithT(t)
			create := func(key string) answer {
				return l.raw(http.MethodPost, c.collection, l.oauth(key, nil), url.Values{"name": {"fresh"}})
			}
			g.Expect(create(tenantKey).code).To(Equal(http.StatusForbidden))
			g.Expect(allocates(c.constraint, "fresh")).To(Equal(http.StatusBadRequest))
			g.Expect(create(adminKey).code).To(Equal(http.StatusOK))
			g.Expect(create(adminKey).code).To(Equal(http.StatusBadRequest), "the name is taken")
			g.Expect(allocates(c.constraint, "fresh")).To(Equal(http.StatusConflict), "known, but no machine has it")
			g.Expect(l.raw(http.MethodDelete, c.single, l.oauth(tenantKey, nil), nil).code).To(Equal(http.StatusForbidden))
			g.Expect(admin(http.MethodDelete, c.single, nil).code).To(Equal(http.StatusNoContent))
			g.Expect(allocates(c.constraint, "fresh")).To(Equal(http.StatusBadRequest))
			g.Expect(admin(http.MethodGet, c.single, nil).code).To(Equal(http.StatusNotFound))
			g.Expect(admin(http.MethodGet, c.collection, nil).body).NotTo(ContainSubstring("fresh"))
		})
	}
	g := NewWithT(t)
	g.Expect(admin(http.MethodDelete, "zones/az1/", nil).code).To(Equal(http.StatusNotImplemented), "it has a machine")
	g.Expect(admin(http.MethodDelete, "tags/dpu/", nil).code).To(Equal(http.StatusNoContent))
	g.Expect(l.state("abc123").Spec.Tags).To(BeEmpty())
}

func TestAccountsComeAndGo(t *testing.T) {
	g := NewWithT(t)
	l := newLab(t, maassim.Timing{}, maassim.Machine{SystemID: "abc123"})
	form := url.Values{"username": {"fresh"}, "password": {"pw"}, "email": {"fresh@maas.invalid"}, "is_superuser": {"false"}}
	create := func(key string) int { return l.raw(http.MethodPost, "users/", l.oauth(key, nil), form).code }
	remove := func(name string) int {
		return l.raw(http.MethodDelete, "users/"+name+"/", l.oauth(adminKey, nil), nil).code
	}
	g.Expect(create(tenantKey)).To(Equal(http.StatusForbidden))
	g.Expect(create(adminKey)).To(Equal(http.StatusOK))
	exchange := func(password string) answer {
		return l.raw(http.MethodPost, "/MAAS/accounts/authenticate/", "", url.Values{"username": {"fresh"}, "password": {password}})
	}
	g.Expect(exchange("wrong").code).To(Equal(http.StatusForbidden))
	first := exchange("pw")
	g.Expect(first.code).To(Equal(http.StatusOK))
	g.Expect(exchange("pw").body).To(Equal(first.body), "the same key again")
	key := keyOf(t, first.body)
	l.allocate(l.client(key), "abc123", "token")
	g.Expect(remove("fresh")).To(Equal(http.StatusBadRequest), "it owns a machine")
	g.Expect(l.raw(http.MethodPost, "machines/abc123/?op=release", l.oauth(key, nil), url.Values{}).code).To(Equal(http.StatusOK))
	g.Expect(remove("fresh")).To(Equal(http.StatusNoContent))
	g.Expect(remove("fresh")).To(Equal(http.StatusNoContent))
	g.Expect(remove("admin")).To(Equal(http.StatusBadRequest), "itself")
	g.Expect(l.raw(http.MethodGet, "users/?op=whoami", l.oauth(key, nil), nil).code).To(Equal(http.StatusUnauthorized))
}
