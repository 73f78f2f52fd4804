// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package ovn

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"net"
	"reflect"
	"strings"
	"sync"
	"testing"

	"github.com/ovn-kubernetes/libovsdb/database/inmemory"
	"github.com/ovn-kubernetes/libovsdb/model"
	"github.com/ovn-kubernetes/libovsdb/ovsdb"
	"github.com/ovn-kubernetes/libovsdb/server"

	. "github.com/onsi/gomega"
)

// front speaks JSON-RPC for a database, notes what is asked, and can hang.
type front struct {
	t       *testing.T
	config  *tls.Config
	address string
	answer  func(method string, params []json.RawMessage) string

	mu       sync.Mutex
	listener net.Listener
	conns    map[net.Conn]bool
	asked    []string
	// hung, if not nil, is waited for before an answer.
	hung chan struct{}
}

// newFront serves until the test ends. An answer is `"result": ..., "error": ...`, and whole if it begins with a brace.
func newFront(t *testing.T, config *tls.Config, answer func(string, []json.RawMessage) string) *front {
	t.Helper()
	f := &front{t: t, config: config, address: "127.0.0.1:0", answer: answer, conns: map[net.Conn]bool{}}
	f.start()
	t.Cleanup(f.stop)
	return f
}

func (f *front) start() {
	f.t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", f.address)
	if err != nil {
		f.t.Fatal(err)
	}
	f.mu.Lock()
	f.listener, f.address = listener, listener.Addr().String()
	f.mu.Unlock()
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			if f.config != nil {
				conn = tls.Server(conn, f.config)
			}
			f.mu.Lock()
			f.conns[conn] = true
			f.mu.Unlock()
			go f.serve(conn)
		}
	}()
}

// stop ends all connections.
func (f *front) stop() {
	f.mu.Lock()
	defer f.mu.Unlock()
	_ = f.listener.Close()
	for conn := range f.conns {
		_ = conn.Close()
	}
}

// drop ends all connections and accepts others.
func (f *front) drop() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for conn := range f.conns {
		_ = conn.Close()
	}
}

func (f *front) connections() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.conns)
}

// hang keeps answers back until the function returned is called.
func (f *front) hang() (resume func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	hung := make(chan struct{})
	f.hung = hung
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.hung = nil
		close(hung)
	}
}

func (f *front) serve(conn net.Conn) {
	defer func() {
		_ = conn.Close()
		f.mu.Lock()
		delete(f.conns, conn)
		f.mu.Unlock()
	}()
	if _, err := conn.Write([]byte(`{"method":"echo","params":["are you there"],"id":"probe"}`)); err != nil {
		return
	}
	decoder := json.NewDecoder(conn)
	for {
		var asked struct {
			Method string            `json:"method"`
			Params []json.RawMessage `json:"params"`
			ID     json.RawMessage   `json:"id"`
			Result json.RawMessage   `json:"result"`
		}
		if decoder.Decode(&asked) != nil {
			return
		}
		f.mu.Lock()
		hung := f.hung
		if asked.Method == "" {
			f.asked = append(f.asked, "reply "+string(asked.ID)+" "+string(asked.Result))
			f.mu.Unlock()
			continue
		}
		f.asked = append(f.asked, asked.Method+" "+encode(asked.Params))
		f.mu.Unlock()
		if hung != nil {
			<-hung
		}
		reply := `"result":[],"error":null`
		if asked.Method != "echo" {
			reply = f.answer(asked.Method, asked.Params)
		}
		if !strings.HasPrefix(reply, "{") {
			reply = `{` + reply + `,"id":` + string(asked.ID) + `}`
		}
		if _, err := conn.Write([]byte(reply)); err != nil {
			return
		}
	}
}

func (f *front) log() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]string(nil), f.asked...)
}

func encode(value any) string {
	text, err := json.Marshal(value)
	if err != nil {
		panic(err)
	}
	return string(text)
}

// memory is libovsdb's server in this process.
type memory struct {
	*front
	server *server.OvsdbServer
	name   string
	g      *WithT
}

// newMemory starts a server of one database.
func newMemory(t *testing.T, config *tls.Config, schemaText string) *memory {
	t.Helper()
	g := NewWithT(t)
	var schema ovsdb.DatabaseSchema
	g.Expect(json.Unmarshal([]byte(schemaText), &schema)).To(Succeed())
	models := map[string]model.Model{}
	for table := range schema.Tables {
		models[table] = structOf(schema.Tables[table])
	}
	client, err := model.NewClientDBModel(schema.Name, models)
	g.Expect(err).NotTo(HaveOccurred())
	full, errs := model.NewDatabaseModel(schema, client)
	g.Expect(errs).To(BeEmpty())
	ovsdbServer, err := server.NewOvsdbServer(inmemory.NewDatabase(map[string]model.ClientDBModel{schema.Name: client}, nil), nil, full)
	g.Expect(err).NotTo(HaveOccurred())
	m := &memory{server: ovsdbServer, name: schema.Name, g: g}
	m.front = newFront(t, config, func(method string, params []json.RawMessage) string {
		switch method {
		case "list_dbs":
			return `"result":` + encode([]string{schema.Name}) + `,"error":null`
		case "get_schema":
			return `"result":` + schemaText + `,"error":null`
		default:
			var results []*ovsdb.OperationResult
			if err := ovsdbServer.Transact(nil, params, &results); err != nil {
				return `"result":null,"error":` + encode(err.Error())
			}
			return `"result":` + encode(results) + `,"error":null`
		}
	})
	return m
}

// structOf is a model of a table.
func structOf(table ovsdb.TableSchema) model.Model {
	fields := []reflect.StructField{{Name: "UUID", Type: reflect.TypeFor[string](), Tag: `ovsdb:"_uuid"`}}
	for column, schema := range table.Columns {
		name := strings.ToUpper(column[:1]) + column[1:]
		fields = append(fields, reflect.StructField{Name: name, Type: ovsdb.NativeType(schema), Tag: reflect.StructTag(`ovsdb:"` + column + `"`)})
	}
	return reflect.New(reflect.StructOf(fields)).Interface()
}

// write runs operations on the server itself.
func (m *memory) write(operations ...string) {
	params := []json.RawMessage{json.RawMessage(encode(m.name))}
	for _, operation := range operations {
		params = append(params, json.RawMessage(operation))
	}
	var results []*ovsdb.OperationResult
	m.g.Expect(m.server.Transact(nil, params, &results)).To(Succeed())
	for _, r := range results {
		m.g.Expect(r.Error).To(BeEmpty(), r.Details)
	}
}
