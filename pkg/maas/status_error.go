// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maas

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

const (
	// oauthThreshold is how far a request's timestamp may lie in the past for MAAS.
	oauthThreshold = 300 * time.Second
	// maxMessage bounds how much of MAAS' text goes into an error.
	maxMessage = 1 << 10
	// minSecret is the length from which a string is replaced wherever it occurs.
	minSecret = 6
)

// statusError makes the typed error of an answer with an error status.
func (c *Client) statusError(r request, x *exchange) error {
	secrets := append(c.key.parts(), r.secrets...)
	message := plainMessage(x.errorBody, secrets)
	retryAfter, hasRetryAfter := parseRetryAfter(x.retryAfter, c.clock.Now())
	switch x.status {
	case http.StatusBadRequest:
		invalid := InvalidRequestError{Call: r.Call, Fields: fieldMessages(x.errorBody, secrets)}
		if invalid.Fields == nil {
			invalid.Message = message
		}
		return &invalid
	case http.StatusUnauthorized:
		if date, err := http.ParseTime(x.date); err == nil {
			if behind := date.Sub(c.clock.Now()); behind > oauthThreshold {
				return &ClockSkewError{Call: r.Call, Behind: behind}
			}
		}
		return &UnauthorizedError{Call: r.Call}
	case http.StatusForbidden:
		return &ForbiddenError{Call: r.Call, Message: message}
	case http.StatusNotFound:
		if r.Object == "" {
			return &UnavailableError{Call: r.Call, Err: errNoAPI}
		}
		return &NotFoundError{Call: r.Call, Message: message}
	case http.StatusConflict:
		// The two kinds mean opposite things; only the header tells them apart.
		if !hasRetryAfter {
			return &StateConflictError{Call: r.Call, Message: message}
		}
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
	default:
		if r.private {
			message = ""
		}
		return &ServerError{Call: r.Call, Status: x.status, Message: message}
	}
	return &RetryableError{Call: r.Call, Status: x.status, Message: message, RetryAfter: retryAfter}
}

func parseRetryAfter(value string, now time.Time) (time.Duration, bool) {
	if value == "" {
		return 0, false
	}
	if seconds, err := strconv.Atoi(value); err == nil {
		return max(0, time.Duration(seconds)*time.Second), true
	}
	if at, err := http.ParseTime(value); err == nil {
		return max(0, at.Sub(now)), true
	}
	return 0, true
}

// fieldMessages reads {"field": ["message", ...]}; nil if the body is something else.
func fieldMessages(body []byte, secrets []string) map[string][]string {
	var raw map[string]json.RawMessage
	if json.Unmarshal(body, &raw) != nil || len(raw) == 0 {
		return nil
	}
	fields := make(map[string][]string, len(raw))
	for field, value := range raw {
		var messages []string
		var message string
		switch {
		case json.Unmarshal(value, &messages) == nil:
		case json.Unmarshal(value, &message) == nil:
			messages = []string{message}
		default:
			messages = []string{string(value)}
		}
		for i := range messages {
			messages[i] = shorten(scrub(fold(messages[i]), secrets))
		}
		fields[shorten(scrub(field, secrets))] = messages
	}
	return fields
}

// plainMessage is MAAS' text in one line; HTML pages say nothing that the status does not.
func plainMessage(body []byte, secrets []string) string {
	text := fold(string(body))
	if strings.HasPrefix(text, "<") {
		return ""
	}
	return shorten(scrub(text, secrets))
}

// fold puts a text into one line, with single spaces.
func fold(text string) string {
	return strings.Join(strings.Fields(strings.ToValidUTF8(text, "?")), " ")
}

// scrub replaces secrets in a folded text; secrets with white space must be folded too.
func scrub(text string, secrets []string) string {
	for _, secret := range secrets {
		if len(secret) >= minSecret {
			text = strings.ReplaceAll(text, secret, redacted)
		}
	}
	return text
}

func shorten(text string) string {
	if len(text) <= maxMessage {
		return text
	}
	cut := maxMessage
	for cut > 0 && !utf8.RuneStart(text[cut]) {
		cut--
	}
	return text[:cut] + "..."
}
