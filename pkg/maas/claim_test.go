// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maas

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"
)

func TestTokens(t *testing.T) {
	token, err := NewToken(bytes.NewReader(bytes.Repeat([]byte{0xab}, 16)), "tenant-a", "m-1")
	if err != nil {
		t.Fatal(err)
	}
	// sha256("tenant-a/m-1"), first half: the format is a promise to objects stored earlier.
	if want := "v1." + strings.Repeat("ab", 16) + "." + objectHash("tenant-a", "m-1"); token != want || !regexp.MustCompile(`^v1\.[0-9a-f]{32}\.[0-9a-f]{32}$`).MatchString(token) {
		t.Errorf("token is %s", token)
	}
	tests := []struct {
		token, namespace, name string
		fits                   bool
	}{
		{token, "tenant-a", "m-1", true},
		{token, "tenant-b", "m-1", false},
		{token, "tenant-a", "m-2", false},
		{token, "tenant", "a/m-1", false},
		{"", "tenant-a", "m-1", false},
		{strings.Replace(token, "v1", "v2", 1), "tenant-a", "m-1", false},
		{token + "0", "tenant-a", "m-1", false},
		{"v1." + token, "tenant-a", "m-1", false},
		{"v1.." + objectHash("tenant-a", "m-1"), "tenant-a", "m-1", false},
		{strings.ToUpper(token), "tenant-a", "m-1", false},
	}
	for _, tt := range tests {
		if got := Token(tt.token).Fits(tt.namespace, tt.name); got != tt.fits {
			t.Errorf("%q fits %s/%s: %t", tt.token, tt.namespace, tt.name, got)
		}
	}
	other, err := NewToken(rand.Reader, "tenant-a", "m-1")
	if err != nil || other == token || !Token(other).Fits("tenant-a", "m-1") || len(other) > maxToken {
		t.Errorf("second token is %s, %v", other, err)
	}
	if _, err := NewToken(bytes.NewReader(make([]byte, 15)), "a", "b"); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("too little random: %v", err)
	}
	hash := TokenHash(token)
	if len(hash) != 24 || hash == TokenHash(other) || strings.Contains(token, hash) || hash != TokenHash(token) {
		t.Errorf("hash is %s", hash)
	}
}

func TestClaimedBy(t *testing.T) {
	const account, token = "capi", "v1.mine"
	ours := map[string]string{AnnotationToken: TokenHash(token), AnnotationName: "m-1"}
	tests := []struct {
		name           string
		machine        Machine
		account, token string
		want           Answer
		unannotated    bool
	}{
		{"ours", Machine{Owner: account, Annotations: ours}, account, token, Yes, false},
		{"another token's", Machine{Owner: account, Annotations: map[string]string{AnnotationToken: TokenHash("v1.theirs")}}, account, token, No, false},
		{"free", Machine{}, account, token, No, false},
		{"free with stale annotations", Machine{Annotations: ours}, account, token, No, false},
		{"another account's with our annotations", Machine{Owner: "mallory", Annotations: ours}, account, token, No, false},
		{"not annotated yet", Machine{Owner: account, Annotations: map[string]string{"team": "x"}}, account, token, Unknown, true},
		{"half annotated", Machine{Owner: account, Annotations: map[string]string{AnnotationHold: "why"}}, account, token, Unknown, false},
		{"account unknown", Machine{Owner: "", Annotations: ours}, "", token, Unknown, false},
		{"token unknown", Machine{Owner: account, Annotations: ours}, account, "", Unknown, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := tt.machine.ClaimedBy(tt.account, tt.token)
			if got.Answer != tt.want || got.Unannotated != tt.unannotated || got.Reason == "" {
				t.Errorf("got %s (%+v), want %s", got.Answer, got, tt.want)
			}
			if got.Yes() != (tt.want == Yes) || got.No() != (tt.want == No) {
				t.Errorf("Yes or No contradict %s", got.Answer)
			}
			if strings.Contains(got.Reason, "v1.") {
				t.Errorf("the reason shows a token: %s", got.Reason)
			}
		})
	}
	if (Ownership{}).Answer != Unknown || Yes.String() != "yes" || No.String() != "no" || Unknown.String() != "unknown" {
		t.Error("answers are wrong")
	}
}

func TestConfirmClaim(t *testing.T) {
	const account, token = "capi", "v1.mine"
	note := `"maas-dpu.claim": "` + TokenHash(token) + `"`
	bare := machineWith("abc123", `"capi"`, StatusAllocated, "")
	tests := []struct {
		name    string
		machine string
		byToken http.HandlerFunc
		want    Answer
		kind    string
		calls   int
	}{
		{"annotated", machineWith("abc123", `"capi"`, StatusAllocated, note), nil, Yes, "", 1},
		{"somebody else's", machineWith("abc123", `"other"`, StatusAllocated, note), nil, No, "", 1},
		{"token says yes", bare, respond(200, "["+bare+"]"), Yes, "", 2},
		{"token says another machine", bare, respond(200, "["+machineWith("zzz999", `"capi"`, StatusAllocated, "")+"]"), No, "", 2},
		{"token says none", bare, respond(200, "[]"), No, "", 2},
		{"annotated by another in between", bare, respond(200, "["+machineWith("abc123", `"capi"`, StatusAllocated, `"maas-dpu.claim": "x"`)+"]"), No, "", 2},
		{"no answer about the token", bare, respond(503, "later"), Unknown, "retryable", 2},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRegion(t, func(w http.ResponseWriter, req *http.Request) {
				if req.URL.Query().Has("agent_name") {
					tt.byToken(w, req)
					return
				}
				respond(200, tt.machine)(w, req)
			})
			_, got, err := r.client(t).ConfirmClaim(context.Background(), account, token, "abc123")
			if got.Answer != tt.want || kinds(err) != tt.kind || len(r.seen()) != tt.calls {
				t.Errorf("got %s (%s), %v after %d calls", got.Answer, got.Reason, err, len(r.seen()))
			}
		})
	}
	r := newRegion(t, respond(403, ""))
	if _, got, err := r.client(t).ConfirmClaim(context.Background(), account, token, "abc123"); got.Answer != Unknown || kinds(err) != "forbidden" {
		t.Errorf("forbidden: %s, %v", got.Answer, err)
	}
}
