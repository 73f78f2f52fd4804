// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package ovn

import (
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
)

// What the schemas of OVN have in common, before 20.03, since 21.03, and some day.
const (
	oldSouthbound = `{"name":"OVN_Southbound","version":"2.5.0","tables":{
		"Port_Binding":{"isRoot":true,"columns":{"logical_port":{"type":"string"},"type":{"type":"string"},
			"mac":{"type":{"key":"string","min":0,"max":"unlimited"}},
			"chassis":{"type":{"key":{"type":"uuid","refTable":"Chassis","refType":"weak"},"min":0,"max":1}},
			"datapath":{"type":{"key":{"type":"uuid","refTable":"Datapath_Binding"}}}@PORT@}},
		"Datapath_Binding":{"isRoot":true,"columns":{"external_ids":{"type":{"key":"string","value":"string","min":0,"max":"unlimited"}}}},
		"Chassis":{"isRoot":true,"columns":{"name":{"type":"string"},"nb_cfg":{"type":"integer"}@CHASSIS@}}@TABLES@}}`
	northboundSchema = `{"name":"OVN_Northbound","version":"7.0.0","tables":{
		"NB_Global":{"isRoot":true,"columns":{"nb_cfg":{"type":"integer"},"hv_cfg":{"type":"integer"}}},
		"Logical_Switch_Port":{"isRoot":true,"columns":{"name":{"type":"string"},"dynamic_addresses":{"type":{"key":"string","min":0,"max":1}}}}}}`

	up      = `,"up":{"type":{"key":"boolean","min":0,"max":1}}`
	private = `,"Chassis_Private":{"isRoot":true,"columns":{"name":{"type":"string"},"nb_cfg":{"type":"integer"}}}`
)

func southboundSchema(port, chassis, tables string) string {
	return strings.NewReplacer("@PORT@", port, "@CHASSIS@", chassis, "@TABLES@", tables).Replace(oldSouthbound)
}

var (
	oldSchema     = southboundSchema("", "", "")
	currentSchema = southboundSchema(up, "", private)
	newerSchema   = southboundSchema(up+`,"additional_chassis":{"type":"string"}`, `,"mood":{"type":"string"}`,
		private+`,"Oracle":{"isRoot":true,"columns":{"answer":{"type":"integer"}}}`)
)

// fill writes two chassis and three ports, one of which is a router's.
func fill(m *memory, upColumn, privateTable bool) {
	said := func(yes bool) string {
		switch {
		case !upColumn:
			return ""
		case yes:
			return `,"up":true`
		default:
			return `,"up":false`
		}
	}
	port := func(name, kind, mac, chassis, up string) string {
		return `{"op":"insert","table":"Port_Binding","row":{"logical_port":"` + name + `","type":"` + kind + `","mac":` + mac +
			`,"datapath":["uuid","00000000-0000-4000-8000-000000000003"],"chassis":` + chassis + up + `}}`
	}
	operations := []string{
		`{"op":"insert","table":"Datapath_Binding","uuid":"00000000-0000-4000-8000-000000000003","row":{"external_ids":["map",[["name","ns_red_aSwitch"],["logical-switch","x"]]]}}`,
		`{"op":"insert","table":"Chassis","uuid":"00000000-0000-4000-8000-000000000001","row":{"name":"dpu1","nb_cfg":3}}`,
		`{"op":"insert","table":"Chassis","uuid":"00000000-0000-4000-8000-000000000002","row":{"name":"dpu2","nb_cfg":4}}`,
		port("ns_p1", "", `["set",["02:AA:00:00:00:01 10.64.0.5 fd00::5"]]`, `["uuid","00000000-0000-4000-8000-000000000001"]`, said(true)),
		port("ns_p2", "", `["set",["02:aa:00:00:00:02","unknown"]]`, `["uuid","00000000-0000-4000-8000-000000000002"]`, said(false)),
		port("ns_p3", "", `["set",[]]`, `["set",[]]`, said(true)),
		port("r", "patch", `["set",["router"]]`, `["set",[]]`, ""),
	}
	if privateTable {
		operations = append(operations, `{"op":"insert","table":"Chassis_Private","row":{"name":"dpu1","nb_cfg":7}}`)
	}
	m.write(operations...)
}

func newClient(t *testing.T, config Config) *Client {
	t.Helper()
	if config.Timeout == 0 {
		config.Timeout = 10 * time.Second
	}
	c, err := New(config)
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	t.Cleanup(c.Close)
	return c
}

func northbound(t *testing.T) *memory {
	m := newMemory(t, nil, northboundSchema)
	m.write(`{"op":"insert","table":"NB_Global","row":{"nb_cfg":41}}`,
		`{"op":"insert","table":"Logical_Switch_Port","row":{"name":"ns_p2","dynamic_addresses":"02:aa:00:00:00:02 10.64.0.6"}}`,
		`{"op":"insert","table":"Logical_Switch_Port","row":{"name":"ns_p3"}}`)
	return m
}
