// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maassim

import (
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// timestampThreshold is how far behind a signature's timestamp may be; ahead is not checked.
const timestampThreshold = 300

// user is one account with its one API key.
type user struct {
	name                    string
	admin                   bool
	consumer, token, secret string
	// password is of accounts that were made through the API.
	password string
}

// sees is the permission to view: what nobody owns, what is one's own, everything for an admin.
func (u *user) sees(m *machine) bool { return u.admin || m.owner == "" || m.owner == u.name }

// edits is the permission to change, which a lock takes from everybody.
func (u *user) edits(m *machine) bool { return u.sees(m) && !m.locked }

// AddUser adds an account. apiKey is "consumer:token:secret"; a key of another form lets nobody in. Adding a known
// name replaces the account.
func (r *Region) AddUser(name, apiKey string, admin bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.users[name] = &user{name: name, admin: admin}
	r.users[name].setKey(apiKey)
}

// RotateKey replaces an account's key: the old one is refused from then on. An unknown name changes nothing.
func (r *Region) RotateKey(name, apiKey string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if u := r.users[name]; u != nil {
		u.setKey(apiKey)
	}
}

func (u *user) setKey(apiKey string) {
	u.consumer, u.token, u.secret = "", "", ""
	if parts := strings.Split(apiKey, ":"); len(parts) == 3 {
		u.consumer, u.token, u.secret = parts[0], parts[1], parts[2]
	}
}

// authenticate returns the caller, nil for one without an OAuth header, or the refusal. It takes the lock.
func (r *Region) authenticate(header string) (*user, *reply) {
	params, ok := parseOAuth(header)
	if !ok {
		return nil, nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	account, refusal := r.findKey(params)
	if refusal != nil {
		return nil, refusal
	}
	if refusal := r.checkNonce(params); refusal != nil {
		return nil, refusal
	}
	if expected := "&" + account.secret; params["oauth_signature_method"] != "PLAINTEXT" ||
		params["oauth_signature"] != expected {
		return nil, unauthorized("'Invalid signature. Expected signature base string: " + expected + "'")
	}
	return account, nil
}

func (r *Region) findKey(params map[string]string) (*user, *reply) {
	known := false
	for _, u := range r.users {
		if u.consumer == "" || u.consumer != params["oauth_consumer_key"] {
			continue
		}
		known = true
		if u.token == params["oauth_token"] {
			return u, nil
		}
	}
	if !known {
		return nil, unauthorized("Invalid API key.")
	}
	return nil, unauthorized("'Invalid access token: " + params["oauth_token"] + "'")
}

func (r *Region) checkNonce(params map[string]string) *reply {
	now := r.clock.Now()
	given, err := strconv.ParseInt(params["oauth_timestamp"], 10, 64)
	if err != nil {
		// unsure: the text for a timestamp that is missing or no number.
		return unauthorized("'Invalid timestamp'")
	}
	if now.Unix()-given > timestampThreshold {
		return unauthorized(fmt.Sprintf(
			"'Expired timestamp: given %d and now %d has a greater difference than threshold %d'",
			given, now.Unix(), timestampThreshold))
	}
	nonce := params["oauth_nonce"]
	key := params["oauth_consumer_key"] + " " + params["oauth_token"] + " " + nonce
	if _, used := r.nonces[key]; used {
		return unauthorized("'Nonce already used: " + nonce + "'")
	}
	r.nonces[key] = r.forgetNonceAt(now, given)
	return nil
}

// forgetNonceAt is when a repeated nonce would be refused for its timestamp anyway; older ones are dropped meanwhile.
func (r *Region) forgetNonceAt(now time.Time, given int64) time.Time {
	if len(r.nonces)%1024 == 1023 {
		for key, until := range r.nonces {
			if now.After(until) {
				delete(r.nonces, key)
			}
		}
	}
	until := time.Unix(given, 0)
	if now.After(until) {
		until = now
	}
	return until.Add((timestampThreshold + 1) * time.Second)
}

// parseOAuth reads an Authorization header; false means that there is none of OAuth's.
func parseOAuth(header string) (map[string]string, bool) {
	scheme, rest, _ := strings.Cut(header, " ")
	if !strings.EqualFold(scheme, "OAuth") {
		return nil, false
	}
	params := map[string]string{}
	for part := range strings.SplitSeq(rest, ",") {
		key, value, ok := strings.Cut(strings.TrimSpace(part), "=")
		if !ok {
			continue
		}
		if text, err := url.QueryUnescape(strings.Trim(value, "\"")); err == nil {
			params[key] = text
		}
	}
	return params, true
}

// unauthorized repeats MAAS' bodies to the letter, including that a wrong PLAINTEXT signature is answered with the
// right secret: clients must not log them.
func unauthorized(reason string) *reply {
	return &reply{
		code: http.StatusUnauthorized, contentType: contentHTML, body: []byte("Authorization Error: " + reason),
		header: http.Header{"Www-Authenticate": {"OAuth realm=\"OAuth\""}},
	}
}
