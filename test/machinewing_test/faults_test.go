// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package machinewing_test

import (
	"net/http"
	"strconv"
	"strings"
	"time"
)

// trouble is a kind of fault: its name in the table, and what it does to a call.
type trouble struct {
	name   string
	happen func(*exchange)
	// stays is true where it hits every call until it is lifted, else it hits one.
	stays bool
	// unanswered leaves open whether it took effect.
	unanswered bool
	// waits is for how long MAAS asks not to be asked again.
	waits time.Duration
}

// lateBy is when a call whose connection is cut takes effect: before the outcome window closes.
const lateBy = window * 2 / 3

// retryAfter is what MAAS asks for, in seconds.
const retryAfter = 1

var troubles = []trouble{
	{name: "answer lost after the commit", unanswered: true, happen: func(x *exchange) { x.work(x.gate.ctx); x.cut() }},
	{name: "answer lost, commit late", unanswered: true, happen: func(x *exchange) { x.later(lateBy); x.cut() }},
	{name: "killed right after", unanswered: true, happen: func(x *exchange) {
		said := x.work(x.gate.ctx)
		x.process.die()
		x.answer(said)
	}},
	{name: "killed, commit late", unanswered: true, happen: func(x *exchange) {
		x.later(lateBy)
		x.process.die()
		x.cut()
	}},
	{name: "409 without Retry-After", happen: refusal(http.StatusConflict, "text/plain", "Not in the present state.", "")},
	{name: "409 with Retry-After", waits: retryAfter * time.Second,
		happen: refusal(http.StatusConflict, "text/html", "<html><title>Error: Conflict Error</title></html>", strconv.Itoa(retryAfter))},
	{name: "503 with Retry-After", unanswered: true, waits: retryAfter * time.Second,
		happen: refusal(http.StatusServiceUnavailable, "text/plain", "Unable to connect to any rack controller; no connections available.", strconv.Itoa(retryAfter))},
	{name: "500", unanswered: true, happen: echo(http.StatusInternalServerError, "An exception with the request in its text: ")},
	{name: "401", happen: wrongSignature},
	{name: "403", happen: refusal(http.StatusForbidden, "text/html", "", "")},
	{name: "hang past the deadline", unanswered: true, happen: func(x *exchange) { x.gone(); x.work(x.gate.ctx); x.cut() }},
	{name: "401 that stays", stays: true, happen: wrongSignature},
	{name: "403 that stays", stays: true, happen: refusal(http.StatusForbidden, "text/html", "", "")},
}

func refusal(code int, contentType, body, retryAfter string) func(*exchange) {
	return func(x *exchange) { x.refuse(code, contentType, body, retryAfter) }
}

// echo answers with the text of the request, as an uncaught exception may.
func echo(code int, text string) func(*exchange) {
	return func(x *exchange) {
		sent := x.request.URL.RawQuery + string(x.body)
		if x.call.operation == opDeploy {
			sent += userData
		}
		x.refuse(code, "text/plain", text+sent, "")
	}
}

// wrongSignature is MAAS' answer to a wrong secret, which quotes the right one.
func wrongSignature(x *exchange) {
	_, secret, _ := strings.Cut(keyOf(x.process.world.options.account), ":")
	x.refuse(http.StatusUnauthorized, "text/html", "Authorization Error: 'Invalid signature. Expected signature base string: &"+secret+"'", "")
}
