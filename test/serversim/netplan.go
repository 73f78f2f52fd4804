// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package serversim

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"
)

const netplanDirectory = "/etc/netplan"

// netplanFile is what the simulated netplan reads of a file.
type netplanFile struct {
	Network struct {
		Version   int                        `json:"version"`
		Ethernets map[string]netplanEthernet `json:"ethernets"`
	} `json:"network"`
}

type netplanEthernet struct {
	Match *struct {
		Name       string `json:"name"`
		MACAddress string `json:"macaddress"`
	} `json:"match"`
	DHCP4 bool `json:"dhcp4"`
}

// selects says whether the entry is about the port. Without match, its key is the interface's name.
func (e netplanEthernet) selects(key string, port Port) (bool, error) {
	if e.Match == nil {
		return key == port.Interface, nil
	}
	if e.Match.Name == "" && e.Match.MACAddress == "" {
		return false, fmt.Errorf("netplan entry %s matches by neither name nor macaddress", key)
	}
	if e.Match.MACAddress != "" && !strings.EqualFold(e.Match.MACAddress, port.MAC) {
		return false, nil
	}
	if e.Match.Name == "" {
		return true, nil
	}
	matched, err := path.Match(e.Match.Name, port.Interface)
	if err != nil {
		return false, fmt.Errorf("netplan entry %s: the name %q is no pattern", key, e.Match.Name)
	}
	return matched, nil
}

// dhcpPorts returns the ports that netplan configures by DHCP, from all its files.
func dhcpPorts(files map[string]string, ports []Port) ([]Port, error) {
	var chosen []Port
	for name, content := range files {
		if path.Dir(name) != netplanDirectory || path.Ext(name) != ".yaml" {
			continue
		}
		var file netplanFile
		if err := yaml.Unmarshal([]byte(content), &file); err != nil {
			return nil, fmt.Errorf("%s is malformed: %w", name, err)
		}
		if file.Network.Version != 2 {
			return nil, fmt.Errorf("%s: network.version must be 2", name)
		}
		for key, entry := range file.Network.Ethernets {
			for _, port := range ports {
				selected, err := entry.selects(key, port)
				if err != nil {
					return nil, fmt.Errorf("%s: %w", name, err)
				}
				if selected && entry.DHCP4 && !slices.Contains(chosen, port) {
					chosen = append(chosen, port)
				}
			}
		}
	}
	return chosen, nil
}
