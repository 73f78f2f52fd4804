// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package ovn

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// echoTimeout bounds how long the server may take to receive its own echo.
const echoTimeout = 10 * time.Second

var (
	errGone    = errors.New("the connection was closed")
	errTooLong = errors.New("an answer is longer than allowed")
)

// message is one of JSON-RPC 1.0: a request if it has a method, else a reply.
type message struct {
	Method string          `json:"method,omitempty"`
	Params json.RawMessage `json:"params,omitempty"`
	Result json.RawMessage `json:"result,omitempty"`
	Error  json.RawMessage `json:"error,omitempty"`
	ID     json.RawMessage `json:"id"`
}

// request is what is sent.
type request struct {
	Method string `json:"method"`
	Params []any  `json:"params"`
	ID     uint64 `json:"id"`
}

// connection asks one server one question at a time. Between questions it answers the server's, which asks whether we live.
type connection struct {
	conn     net.Conn
	endpoint string

	writing sync.Mutex
	id      uint64
	replies chan message

	ended   chan struct{}
	endOnce sync.Once
	why     error
}

// dial connects, and verifies the server where it uses TLS.
func dial(ctx context.Context, to endpoint, maxAnswer int64) (*connection, error) {
	dialer := &net.Dialer{KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 10 * time.Second, Interval: 5 * time.Second, Count: 3}}
	var (
		conn net.Conn
		err  error
	)
	if to.tls == nil {
		conn, err = dialer.DialContext(ctx, "tcp", to.address)
	} else {
		conn, err = (&tls.Dialer{NetDialer: dialer, Config: to.tls}).DialContext(ctx, "tcp", to.address)
	}
	if err != nil {
		return nil, &Error{Kind: Unreachable, Endpoint: to.text, Err: plain(ctx, err), unsent: true}
	}
	c := &connection{conn: conn, endpoint: to.text, replies: make(chan message, 1), ended: make(chan struct{})}
	go c.read(maxAnswer)
	return c, nil
}

// end closes the connection; the first reason stays.
func (c *connection) end(why error) {
	c.endOnce.Do(func() {
		c.why = why
		close(c.ended)
		_ = c.conn.Close() // Nothing follows from how it ends.
	})
}

// bounded lets so many bytes through until it is refilled.
type bounded struct {
	io.Reader
	left int64
}

func (b *bounded) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, errTooLong
	}
	n, err := b.Reader.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	return n, err
}

// read receives until the connection ends.
func (c *connection) read(maxAnswer int64) {
	source := &bounded{Reader: c.conn}
	decoder := json.NewDecoder(source)
	for {
		source.left = maxAnswer
		var m message
		if err := decoder.Decode(&m); err != nil {
			c.end(readError(err))
			return
		}
		switch {
		case m.Method == "echo":
			if err := c.echo(m); err != nil {
				c.end(unreachable(err))
				return
			}
		case m.Method != "": // Nothing was subscribed to.
		default:
			select {
			case c.replies <- m:
			default:
				c.end(malformed("a reply that nobody asked for"))
				return
			}
		}
	}
}

func readError(err error) error {
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case errors.Is(err, errTooLong):
		return malformed("%w", errTooLong)
	case errors.As(err, &syntax), errors.As(err, &kind):
		return malformed("it is no JSON-RPC")
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return unreachable(errGone)
	default:
		return unreachable(err)
	}
}

func (c *connection) echo(asked message) error {
	ctx, cancel := context.WithTimeout(context.Background(), echoTimeout)
	defer cancel()
	return c.write(ctx, message{Result: asked.Params, Error: json.RawMessage("null"), ID: asked.ID})
}

func (c *connection) write(ctx context.Context, m any) error {
	encoded, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode a question: %w", err)
	}
	c.writing.Lock()
	defer c.writing.Unlock()
	deadline, _ := ctx.Deadline()
	if err := c.conn.SetWriteDeadline(deadline); err != nil {
		return fmt.Errorf("bound a question: %w", err)
	}
	if _, err = c.conn.Write(encoded); err != nil {
		return fmt.Errorf("send a question: %w", err)
	}
	return nil
}

// ask sends one question and waits for its answer. After an error the connection is no longer used: the answer may still come.
func (c *connection) ask(ctx context.Context, method string, params []any, result any) error {
	select {
	case <-c.ended:
		return &Error{Kind: Unreachable, Err: c.why, unsent: true}
	default:
	}
	c.id++
	if err := c.write(ctx, request{Method: method, Params: params, ID: c.id}); err != nil {
		c.end(unreachable(plain(ctx, err)))
		return c.whyEnded(ctx)
	}
	select {
	case m := <-c.replies:
		return c.take(m, result)
	case <-c.ended:
		return c.whyEnded(ctx)
	case <-ctx.Done():
		c.end(unreachable(cause(ctx)))
		return c.why
	}
}

func (c *connection) whyEnded(ctx context.Context) error {
	if ctx.Err() != nil {
		return unreachable(cause(ctx))
	}
	return c.why
}

func (c *connection) take(m message, result any) error {
	var id uint64
	if json.Unmarshal(m.ID, &id) != nil || id != c.id {
		return malformed("the answer is to another question")
	}
	if len(m.Error) > 0 && string(m.Error) != "null" {
		return refused("%s", saidBy(string(m.Error)))
	}
	if err := json.Unmarshal(m.Result, result); err != nil {
		return malformed("the answer is not of the form expected")
	}
	return nil
}
