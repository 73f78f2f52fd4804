// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maassim

import (
	"crypto/rand"
	"crypto/subtle"
	"net/http"
	"slices"
)

// authenticatePath exchanges a password for an API key, outside the API. It knows accounts made through the API only.
const authenticatePath = "/MAAS/accounts/authenticate/"

func userObject(u *user) map[string]any {
	return map[string]any{
		"username": u.name, "email": u.name + "@maas.invalid", "is_superuser": u.admin, "is_local": true,
		"resource_uri": apiRoot + "users/" + u.name + "/",
	}
}

// createUser is an admin's POST users/.
func createUser(r *Region, c *call) reply {
	for _, field := range []string{"username", "email", "password", "is_superuser"} {
		if c.form.Get(field) == "" {
			return *text400("No provided " + field + "!")
		}
	}
	name := c.form.Get("username")
	if r.users[name] != nil {
		// unsure: the answer to a name that is taken.
		return invalidField("username", "A user with that username already exists.")
	}
	r.users[name] = &user{name: name, admin: laxFlag(c.form, "is_superuser"), password: c.form.Get("password")}
	return json200(userObject(r.users[name]))
}

func readUser(r *Region, c *call) reply {
	if u := r.users[c.args[0]]; u != nil {
		return json200(userObject(u))
	}
	return noSuch("User")
}

// deleteUser is an admin's DELETE users/{name}/: 204 for a missing one too, 400 while the account owns machines.
// unsure: the texts of the 400s.
func deleteUser(r *Region, c *call) reply {
	name := c.args[0]
	switch {
	case name == c.user.name:
		return *text400("An administrator cannot self-delete.")
	case slices.ContainsFunc(r.order, func(m *machine) bool { return m.owner == name }):
		return *text400("User " + name + " cannot be deleted: 1 node(s) are still allocated to them.")
	}
	delete(r.users, name)
	return text(http.StatusNoContent, "")
}

// exchange answers POST accounts/authenticate/ with the account's API key, made at the first time. It takes the lock.
func (r *Region) exchange(w http.ResponseWriter, request *http.Request) {
	if request.Method != http.MethodPost {
		w.WriteHeader(http.StatusMethodNotAllowed)
		return
	}
	name, password := request.PostFormValue("username"), request.PostFormValue("password")
	r.mu.Lock()
	defer r.mu.Unlock()
	u := r.users[name]
	if u == nil || u.password == "" || subtle.ConstantTimeCompare([]byte(u.password), []byte(password)) != 1 {
		w.WriteHeader(http.StatusForbidden)
		return
	}
	if u.consumer == "" {
		u.consumer, u.token, u.secret = rand.Text(), rand.Text(), rand.Text()
	}
	r.send(w, json200(map[string]string{
		"name": request.PostFormValue("consumer"), "consumer_key": u.consumer, "token_key": u.token, "token_secret": u.secret,
	}))
}
