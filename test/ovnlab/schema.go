// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package ovnlab

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/ovn-kubernetes/libovsdb/model"
	"github.com/ovn-kubernetes/libovsdb/ovsdb"
)

// textMap is OVN's usual map of texts, which the schemas below call "map".
const textMap = `{"key": "string", "value": "string", "min": 0, "max": "unlimited"}`

// The schemas of the stand-in's databases have only what the lab and its users read and write, under OVN's names and types.
const standInNorthbound = `{"name": "OVN_Northbound", "version": "7.0.0", "tables": {
  "NB_Global": {"isRoot": true, "maxRows": 1, "columns": {"nb_cfg": {"type": "integer"}, "sb_cfg": {"type": "integer"},
    "hv_cfg": {"type": "integer"}, "external_ids": {"type": "map"}}},
  "Logical_Switch": {"isRoot": true, "columns": {"name": {"type": "string"}, "other_config": {"type": "map"}, "external_ids": {"type": "map"},
    "ports": {"type": {"key": {"type": "uuid", "refTable": "Logical_Switch_Port", "refType": "strong"}, "min": 0, "max": "unlimited"}}}},
  "Logical_Switch_Port": {"indexes": [["name"]], "columns": {"name": {"type": "string"}, "type": {"type": "string"},
    "options": {"type": "map"}, "addresses": {"type": {"key": "string", "min": 0, "max": "unlimited"}},
    "dynamic_addresses": {"type": {"key": "string", "min": 0, "max": 1}}, "up": {"type": {"key": "boolean", "min": 0, "max": 1}},
    "dhcpv4_options": {"type": {"key": {"type": "uuid", "refTable": "DHCP_Options", "refType": "weak"}, "min": 0, "max": 1}},
    "external_ids": {"type": "map"}}},
  "Logical_Router": {"isRoot": true, "columns": {"name": {"type": "string"}, "options": {"type": "map"}, "external_ids": {"type": "map"},
    "ports": {"type": {"key": {"type": "uuid", "refTable": "Logical_Router_Port", "refType": "strong"}, "min": 0, "max": "unlimited"}},
    "static_routes": {"type": {"key": {"type": "uuid", "refTable": "Logical_Router_Static_Route", "refType": "strong"}, "min": 0, "max": "unlimited"}},
    "policies": {"type": {"key": {"type": "uuid", "refTable": "Logical_Router_Policy", "refType": "strong"}, "min": 0, "max": "unlimited"}},
    "nat": {"type": {"key": {"type": "uuid", "refTable": "NAT", "refType": "strong"}, "min": 0, "max": "unlimited"}}}},
  "Logical_Router_Port": {"indexes": [["name"]], "columns": {"name": {"type": "string"}, "mac": {"type": "string"},
    "networks": {"type": {"key": "string", "min": 1, "max": "unlimited"}}, "external_ids": {"type": "map"}}},
  "Logical_Router_Policy": {"columns": {"priority": {"type": "integer"}, "match": {"type": "string"}, "action": {"type": "string"},
    "nexthops": {"type": {"key": "string", "min": 0, "max": "unlimited"}}, "external_ids": {"type": "map"}}},
  "Logical_Router_Static_Route": {"columns": {"ip_prefix": {"type": "string"}, "nexthop": {"type": "string"},
    "output_port": {"type": {"key": "string", "min": 0, "max": 1}}, "external_ids": {"type": "map"}}},
  "NAT": {"columns": {"type": {"type": "string"}, "logical_ip": {"type": "string"}, "external_ip": {"type": "string"}, "external_ids": {"type": "map"}}},
  "DHCP_Options": {"isRoot": true, "columns": {"cidr": {"type": "string"}, "options": {"type": "map"}, "external_ids": {"type": "map"}}}
}}`

const standInSouthbound = `{"name": "OVN_Southbound", "version": "20.27.0", "tables": {
  "SB_Global": {"isRoot": true, "maxRows": 1, "columns": {"nb_cfg": {"type": "integer"}, "external_ids": {"type": "map"}}},
  "Chassis": {"isRoot": true, "indexes": [["name"]], "columns": {"name": {"type": "string"}, "hostname": {"type": "string"}, "external_ids": {"type": "map"}}},
  "Chassis_Private": {"isRoot": true, "indexes": [["name"]], "columns": {"name": {"type": "string"}, "nb_cfg": {"type": "integer"},
    "chassis": {"type": {"key": {"type": "uuid", "refTable": "Chassis", "refType": "weak"}, "min": 0, "max": 1}}, "external_ids": {"type": "map"}}},
  "Datapath_Binding": {"isRoot": true, "columns": {"tunnel_key": {"type": "integer"}, "external_ids": {"type": "map"}}},
  "Port_Binding": {"isRoot": true, "indexes": [["logical_port"]], "columns": {"logical_port": {"type": "string"}, "type": {"type": "string"},
    "datapath": {"type": {"key": {"type": "uuid", "refTable": "Datapath_Binding"}}}, "tunnel_key": {"type": "integer"},
    "mac": {"type": {"key": "string", "min": 0, "max": "unlimited"}}, "up": {"type": {"key": "boolean", "min": 0, "max": 1}},
    "chassis": {"type": {"key": {"type": "uuid", "refTable": "Chassis", "refType": "weak"}, "min": 0, "max": 1}}, "external_ids": {"type": "map"}}}
}}`

// The rows of those tables. Only some are read here, but libovsdb's server wants to know all.
type (
	standInNBGlobal struct {
		UUID        string            `ovsdb:"_uuid"`
		NBCfg       int               `ovsdb:"nb_cfg"`
		SBCfg       int               `ovsdb:"sb_cfg"`
		HVCfg       int               `ovsdb:"hv_cfg"`
		ExternalIDs map[string]string `ovsdb:"external_ids"`
	}
	standInSwitch struct {
		UUID        string            `ovsdb:"_uuid"`
		Name        string            `ovsdb:"name"`
		Ports       []string          `ovsdb:"ports"`
		OtherConfig map[string]string `ovsdb:"other_config"`
		ExternalIDs map[string]string `ovsdb:"external_ids"`
	}
	standInSwitchPort struct {
		UUID             string            `ovsdb:"_uuid"`
		Name             string            `ovsdb:"name"`
		Type             string            `ovsdb:"type"`
		Options          map[string]string `ovsdb:"options"`
		Addresses        []string          `ovsdb:"addresses"`
		DynamicAddresses *string           `ovsdb:"dynamic_addresses"`
		Up               *bool             `ovsdb:"up"`
		DHCPv4Options    *string           `ovsdb:"dhcpv4_options"`
		ExternalIDs      map[string]string `ovsdb:"external_ids"`
	}
	standInRouter struct {
		UUID         string            `ovsdb:"_uuid"`
		Name         string            `ovsdb:"name"`
		Ports        []string          `ovsdb:"ports"`
		StaticRoutes []string          `ovsdb:"static_routes"`
		Policies     []string          `ovsdb:"policies"`
		NAT          []string          `ovsdb:"nat"`
		Options      map[string]string `ovsdb:"options"`
		ExternalIDs  map[string]string `ovsdb:"external_ids"`
	}
	standInRouterPort struct {
		UUID        string            `ovsdb:"_uuid"`
		Name        string            `ovsdb:"name"`
		MAC         string            `ovsdb:"mac"`
		Networks    []string          `ovsdb:"networks"`
		ExternalIDs map[string]string `ovsdb:"external_ids"`
	}
	standInPolicy struct {
		UUID        string            `ovsdb:"_uuid"`
		Priority    int               `ovsdb:"priority"`
		Match       string            `ovsdb:"match"`
		Action      string            `ovsdb:"action"`
		Nexthops    []string          `ovsdb:"nexthops"`
		ExternalIDs map[string]string `ovsdb:"external_ids"`
	}
	standInRoute struct {
		UUID        string            `ovsdb:"_uuid"`
		IPPrefix    string            `ovsdb:"ip_prefix"`
		Nexthop     string            `ovsdb:"nexthop"`
		OutputPort  *string           `ovsdb:"output_port"`
		ExternalIDs map[string]string `ovsdb:"external_ids"`
	}
	standInNAT struct {
		UUID        string            `ovsdb:"_uuid"`
		Type        string            `ovsdb:"type"`
		LogicalIP   string            `ovsdb:"logical_ip"`
		ExternalIP  string            `ovsdb:"external_ip"`
		ExternalIDs map[string]string `ovsdb:"external_ids"`
	}
	standInDHCPOptions struct {
		UUID        string            `ovsdb:"_uuid"`
		CIDR        string            `ovsdb:"cidr"`
		Options     map[string]string `ovsdb:"options"`
		ExternalIDs map[string]string `ovsdb:"external_ids"`
	}

	standInSBGlobal struct {
		UUID        string            `ovsdb:"_uuid"`
		NBCfg       int               `ovsdb:"nb_cfg"`
		ExternalIDs map[string]string `ovsdb:"external_ids"`
	}
	standInChassis struct {
		UUID        string            `ovsdb:"_uuid"`
		Name        string            `ovsdb:"name"`
		Hostname    string            `ovsdb:"hostname"`
		ExternalIDs map[string]string `ovsdb:"external_ids"`
	}
	standInChassisPrivate struct {
		UUID        string            `ovsdb:"_uuid"`
		Name        string            `ovsdb:"name"`
		NBCfg       int               `ovsdb:"nb_cfg"`
		Chassis     *string           `ovsdb:"chassis"`
		ExternalIDs map[string]string `ovsdb:"external_ids"`
	}
	standInDatapath struct {
		UUID        string            `ovsdb:"_uuid"`
		TunnelKey   int               `ovsdb:"tunnel_key"`
		ExternalIDs map[string]string `ovsdb:"external_ids"`
	}
	standInPortBinding struct {
		UUID        string            `ovsdb:"_uuid"`
		LogicalPort string            `ovsdb:"logical_port"`
		Type        string            `ovsdb:"type"`
		Datapath    string            `ovsdb:"datapath"`
		TunnelKey   int               `ovsdb:"tunnel_key"`
		MAC         []string          `ovsdb:"mac"`
		Up          *bool             `ovsdb:"up"`
		Chassis     *string           `ovsdb:"chassis"`
		ExternalIDs map[string]string `ovsdb:"external_ids"`
	}
)

var standInModels = map[string]map[string]model.Model{
	northbound: {
		"NB_Global": &standInNBGlobal{}, tableSwitch: &standInSwitch{}, tablePort: &standInSwitchPort{}, tableRouter: &standInRouter{},
		tableRouterPort: &standInRouterPort{}, tablePolicy: &standInPolicy{}, tableRoute: &standInRoute{}, tableNAT: &standInNAT{},
		tableDHCP: &standInDHCPOptions{},
	},
	southbound: {
		"SB_Global": &standInSBGlobal{}, "Chassis": &standInChassis{}, "Chassis_Private": &standInChassisPrivate{},
		"Datapath_Binding": &standInDatapath{}, "Port_Binding": &standInPortBinding{},
	},
}

// standInSchema is a database's schema and its models.
func standInSchema(name string) (ovsdb.DatabaseSchema, model.ClientDBModel, error) {
	var schema ovsdb.DatabaseSchema
	text := map[string]string{northbound: standInNorthbound, southbound: standInSouthbound}[name]
	if err := json.Unmarshal([]byte(strings.ReplaceAll(text, `"map"`, textMap)), &schema); err != nil {
		return schema, model.ClientDBModel{}, fmt.Errorf("schema %s: %w", name, err)
	}
	models, err := model.NewClientDBModel(name, standInModels[name])
	return schema, models, err
}
