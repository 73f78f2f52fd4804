// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package posture

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

// sent is a transport that takes note.
type sent struct{ urls []string }

func (s *sent) RoundTrip(request *http.Request) (*http.Response, error) {
	s.urls = append(s.urls, request.Method+" "+request.URL.String())
	return nil, errors.New("sent")
}

// TestNothingElseLeaves: a BMC that names other addresses, for its sessions or in a redirect, gets nobody to send anything there.
func TestNothingElseLeaves(t *testing.T) {
	const bmc = "192.0.2.7:443"
	for request, allowed := range map[string]bool{
		"GET https://192.0.2.7:443/redfish/v1/":                                       true,
		"POST https://192.0.2.7:443/redfish/v1/SessionService/Sessions":               true,
		"POST https://192.0.2.7:443/redfish/v1/SessionService/Sessions/":              true,
		"DELETE https://192.0.2.7:443/redfish/v1/SessionService/Sessions/1":           true,
		"DELETE https://192.0.2.7:443/redfish/v1/SessionService/Sessions":             false,
		"DELETE https://192.0.2.7:443/redfish/v1/SessionService/Sessions/../../X":     false,
		"DELETE https://192.0.2.7:443/redfish/v1/AccountService/Accounts/root":        false,
		"POST https://192.0.2.7:443/redfish/v1/Systems/Bluefield/Actions/Reset":       false,
		"PATCH https://192.0.2.7:443/redfish/v1/Systems/Bluefield/Bios/Settings":      false,
		"PUT https://192.0.2.7:443/redfish/v1/":                                       false,
		"GET https://192.0.2.8:443/redfish/v1/":                                       false,
		"GET http://192.0.2.7:443/redfish/v1/":                                        false,
		"GET https://192.0.2.7:8443/redfish/v1/":                                      false,
		"DELETE https://192.0.2.7:443@192.0.2.8/redfish/v1/SessionService/Sessions/1": false,
	} {
		next := &sent{}
		method, url, _ := strings.Cut(request, " ")
		r, err := http.NewRequest(method, url, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		response, err := (&guard{next: next, host: bmc}).RoundTrip(r)
		if response != nil {
			t.Cleanup(func() { _ = response.Body.Close() })
		}
		if err == nil || (len(next.urls) == 1) != allowed {
			t.Errorf("%s: sent %v, error %v", request, next.urls, err)
		}
	}
}

// TestCredentialsPrintAsNothing, in whatever way they get into a log.
func TestCredentialsPrintAsNothing(t *testing.T) {
	access := Access{Credentials: NewCredentials("root", "hunter2")}
	for _, format := range []string{"%v", "%+v", "%#v", "%s", "%q"} {
		for _, value := range []any{access, &access, access.Credentials} {
			if s := fmt.Sprintf(format, value); strings.Contains(s, "hunter2") || strings.Contains(s, "root") {
				t.Errorf("%s prints %s", format, s)
			}
		}
	}
}

// TestText of a BMC is short and on one line before people read it.
func TestText(t *testing.T) {
	for in, want := range map[any]string{
		nil: "", "Restricted": "Restricted", " x \n": "x", "a\x1b[31m\nb": "a[31mb", 7.0: "no text", true: "no text",
		strings.Repeat("é", 100): strings.Repeat("é", 64) + "...",
	} {
		if got := text(in); got != want {
			t.Errorf("text(%q) is %q, want %q", in, got, want)
		}
	}
}

// TestTheStandardVerificationIsKept wherever it can tell what is trusted: only pins are beyond it.
func TestTheStandardVerificationIsKept(t *testing.T) {
	for _, pins := range [][]string{nil, {"00"}} {
		config, err := Trust{PinnedCertificates: pins}.config("192.0.2.1:443", "192.0.2.1", time.Now)
		if err != nil {
			t.Fatal(err)
		}
		pinned := len(pins) > 0
		if config.InsecureSkipVerify != pinned || (config.VerifyConnection != nil) != pinned || config.ServerName != "192.0.2.1" {
			t.Errorf("with pins %v: %+v", pins, config)
		}
	}
}
