// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

// call is one request that reached MAAS.
type call struct {
	// operation as a reader of MAAS' API would name it; lists are told apart by what they are filtered by.
	operation string
	// shared calls are made for whoever waits, direct ones for one machine.
	shared bool
	// systemID is the machine in the path, token the only claim token in the request.
	systemID, token string
	arrived, done   time.Time
	code            int
	// bytes of the answer's body, and how many machines were in it.
	bytes, machines int
}

// ledger keeps every call in the order they ended. It is safe for concurrent use.
type ledger struct {
	mu    sync.Mutex
	calls []call
	// open are those not answered yet, begun all that came, by operation.
	open  int
	begun map[string]int
}

// recording puts a ledger before MAAS.
func (l *ledger) recording(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		if !strings.HasPrefix(request.URL.Path, apiRoot) {
			next.ServeHTTP(w, request)
			return
		}
		c := describe(request)
		answer := &counted{ResponseWriter: w}
		l.begin(c)
		defer func() {
			c.done, c.code, c.bytes, c.machines = time.Now(), answer.code, answer.bytes, answer.machines
			l.end(c)
		}()
		next.ServeHTTP(answer, request)
	})
}

func (l *ledger) begin(c call) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.begun == nil {
		l.begun = map[string]int{}
	}
	l.open++
	l.begun[c.operation]++
}

// asked counts the calls that came, answered or not, of the operations that begin so.
func (l *ledger) asked(prefix string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for operation, count := range l.begun {
		if strings.HasPrefix(operation, prefix) {
			n += count
		}
	}
	return n
}

func (l *ledger) end(c call) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open--
	l.calls = append(l.calls, c)
}

// openCalls counts those that were not answered yet.
func (l *ledger) openCalls() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.open
}

// between returns the calls that arrived in the interval.
func (l *ledger) between(from, to time.Time) []call {
	l.mu.Lock()
	defer l.mu.Unlock()
	var found []call
	for _, c := range l.calls {
		if !c.arrived.Before(from) && c.arrived.Before(to) {
			found = append(found, c)
		}
	}
	return found
}

func (l *ledger) all() []call { return l.between(time.Time{}, time.Now().Add(time.Hour)) }

const (
	apiRoot = "/MAAS/api/2.0/"
	// maxBody bounds what of a request is looked at.
	maxBody = 16 << 20
	// perMachine occurs once in each machine object of an answer.
	perMachine = `"status_action":`
)

// describe says what a request asks for, and leaves it unread.
func describe(request *http.Request) call {
	c := call{arrived: time.Now()}
	query := request.URL.Query()
	body, err := io.ReadAll(io.LimitReader(request.Body, maxBody))
	if err == nil {
		request.Body = io.NopCloser(bytes.NewReader(body))
	}
	form, err := url.ParseQuery(string(body))
	if err != nil {
		form = url.Values{}
	}
	parts := strings.Split(strings.Trim(strings.TrimPrefix(request.URL.Path, apiRoot), "/"), "/")
	op := query.Get("op")
	tokens := slices.Concat(query["agent_name"], form["agent_name"])
	if len(tokens) == 1 {
		c.token = tokens[0]
	}
	switch {
	case parts[0] == "machines" && len(parts) == 1 && request.Method == http.MethodGet:
		c.operation, c.shared = list(query, tokens)
	case (parts[0] == "machines" || parts[0] == "nodes") && len(parts) > 1:
		c.systemID = parts[1]
		c.operation = strings.TrimSpace(strings.Join(append(parts[2:], op), " "))
		if c.operation == "" {
			c.operation = "read machine"
		}
	case parts[0] == "machines":
		c.operation = op
	default:
		c.operation, c.shared = strings.TrimSpace(parts[0]+" "+op), true
	}
	return c
}

// list names a list by its filter. One claim's token is asked for by one machine; everything else serves all.
func list(query url.Values, tokens []string) (operation string, shared bool) {
	switch {
	case len(tokens) == 1:
		return "list by token (one)", false
	case len(tokens) > 1:
		return "list by token (several)", true
	case query.Has("id"):
		return "list by id", true
	case query.Has("owner"):
		return "list by owner", true
	}
	return "list by constraints", false
}

// save writes all calls as CSV, times in seconds since the first one.
func (l *ledger) save(path string) error {
	calls := l.all()
	slices.SortFunc(calls, func(a, b call) int { return a.arrived.Compare(b.arrived) })
	var lines bytes.Buffer
	fmt.Fprintln(&lines, "arrived,done,operation,machine,code,machines,bytes")
	for _, c := range calls {
		start := calls[0].arrived
		fmt.Fprintf(&lines, "%.3f,%.3f,%s,%s,%d,%d,%d\n",
			c.arrived.Sub(start).Seconds(), c.done.Sub(start).Seconds(), c.operation, c.systemID, c.code, c.machines, c.bytes)
	}
	return os.WriteFile(path, lines.Bytes(), 0o600)
}

// counted measures an answer.
type counted struct {
	http.ResponseWriter
	code, bytes, machines int
}

// WriteHeader implements http.ResponseWriter.
func (w *counted) WriteHeader(code int) {
	w.code = code
	w.ResponseWriter.WriteHeader(code)
}

// Write implements http.ResponseWriter. The simulator writes a body at once, so that no marker is cut in two.
func (w *counted) Write(body []byte) (int, error) {
	w.machines += bytes.Count(body, []byte(perMachine))
	n, err := w.ResponseWriter.Write(body)
	w.bytes += n
	if err != nil {
		return n, fmt.Errorf("answer: %w", err)
	}
	return n, nil
}

// tally sums calls by operation.
type tally struct {
	count, machines, bytes int
	shared                 bool
}

func tallied(calls []call) map[string]tally {
	sums := map[string]tally{}
	for _, c := range calls {
		sum := sums[c.operation]
		sum.count++
		sum.machines += c.machines
		sum.bytes += c.bytes
		sum.shared = c.shared
		sums[c.operation] = sum
	}
	return sums
}
