// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maassim

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
)

const (
	contentJSON = "application/json"
	contentText = "text/plain; charset=utf-8"
	contentHTML = "text/html; charset=utf-8"
)

// reply is an answer before it is written.
type reply struct {
	code        int
	contentType string
	header      http.Header
	body        []byte
	// listed is how many machines were rendered for a list.
	listed int
	// dropped closes the connection instead of answering.
	dropped bool
}

// render is MAAS' JSON: indented by four spaces, nothing escaped for HTML.
func render(value any) []byte {
	var buffer bytes.Buffer
	encoder := json.NewEncoder(&buffer)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "    ")
	if err := encoder.Encode(value); err != nil {
		return []byte("null")
	}
	return bytes.TrimSuffix(buffer.Bytes(), []byte("\n"))
}

func json200(value any) reply {
	return reply{code: http.StatusOK, contentType: contentJSON, body: render(value)}
}

func raw200(body []byte) reply {
	return reply{code: http.StatusOK, contentType: contentJSON, body: body}
}

func list200(r *Region, machines []*machine) reply {
	return reply{code: http.StatusOK, contentType: contentJSON, body: r.listJSON(machines), listed: len(machines)}
}

func text(code int, body string) reply {
	return reply{code: code, contentType: contentText, body: []byte(body)}
}

func text400(body string) *reply {
	answer := text(http.StatusBadRequest, body)
	return &answer
}

// conflict is a fact about state, so it has no Retry-After.
func conflict(format string, args ...any) reply {
	return text(http.StatusConflict, fmt.Sprintf(format, args...))
}

// forbidden is the empty 403 of a missing permission or a lock.
func forbidden() reply { return text(http.StatusForbidden, "") }

func adminOnly() reply {
	return text(http.StatusForbidden, "This method is reserved for admin users.")
}

func noSuch(kind string) reply {
	return text(http.StatusNotFound, "No "+kind+" matches the given query.")
}

// notSimulated is for what a real region knows and this one does not: loud, so that nobody builds on it.
func notSimulated(what string) reply {
	return text(http.StatusNotImplemented, "maassim does not simulate "+what)
}

// invalid collects form errors: field to messages.
type invalid map[string][]string

func (i invalid) add(field, format string, args ...any) {
	i[field] = append(i[field], fmt.Sprintf(format, args...))
}

// reply is nil when nothing was wrong.
func (i invalid) reply() *reply {
	if len(i) == 0 {
		return nil
	}
	return &reply{code: http.StatusBadRequest, contentType: contentJSON, body: render(map[string][]string(i))}
}

func invalidField(field, format string, args ...any) reply {
	errors := invalid{}
	errors.add(field, format, args...)
	return *errors.reply()
}

// databaseConflict is the other 409: the database gave up, nothing was changed, the same call may be repeated.
func databaseConflict() reply {
	return reply{
		code: http.StatusConflict, contentType: contentHTML,
		header: http.Header{"Retry-After": {"5"}},
		body: []byte("<html>\n  <head>\n    <title>Error: Conflict Error</title>\n  </head>\n  <body>\n" +
			"    <h1>Conflict error</h1>\n    <p>The service has encountered too many conflicts.</p>\n  </body>\n</html>\n"),
	}
}
