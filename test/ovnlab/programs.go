// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package ovnlab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
)

// Binaries are looked for in PATH and here: root's directories are not in everybody's PATH.
var moreDirectories = []string{"/usr/sbin", "/sbin", "/usr/local/sbin", "/usr/local/bin"}

// Schemas lie where the packages of different distributions put them.
var schemaDirectories = []string{"/usr/share/ovn", "/usr/share/openvswitch", "/usr/local/share/ovn", "/usr/local/share/openvswitch"}

// Names of the binaries and schemas of level Switches.
const (
	ovsdbTool     = "ovsdb-tool"
	ovsdbServer   = "ovsdb-server"
	ovsVswitchd   = "ovs-vswitchd"
	ovsVsctl      = "ovs-vsctl"
	ovnNorthd     = "ovn-northd"
	ovnController = "ovn-controller"
	ovnNbctl      = "ovn-nbctl"

	northboundSchema = "ovn-nb.ovsschema"
	southboundSchema = "ovn-sb.ovsschema"
	switchSchema     = "vswitch.ovsschema"
)

// programs are the paths of binaries and schemas by name.
type programs map[string]string

// findPrograms finds everything of level Switches, or says in one error all that is missing.
var findPrograms = sync.OnceValues(func() (programs, error) {
	found := programs{}
	var missing []string
	for _, name := range []string{ovsdbTool, ovsdbServer, ovsVswitchd, ovsVsctl, ovnNorthd, ovnController, ovnNbctl} {
		path, err := lookPath(name)
		if err != nil {
			missing = append(missing, name)
			continue
		}
		found[name] = path
	}
	for _, name := range []string{northboundSchema, southboundSchema, switchSchema} {
		path := findSchema(name)
		if path == "" {
			missing = append(missing, name)
			continue
		}
		found[name] = path
	}
	if len(missing) > 0 {
		return nil, fmt.Errorf("missing %s (Debian's packages ovn-central, ovn-host and openvswitch-switch have them)", strings.Join(missing, ", "))
	}
	return found, nil
})

func lookPath(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err == nil {
		return path, nil
	}
	for _, dir := range moreDirectories {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return path, nil
		}
	}
	return "", errors.Join(exec.ErrNotFound, err)
}

func findSchema(name string) string {
	for _, dir := range schemaDirectories {
		path := filepath.Join(dir, name)
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	return ""
}
