// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package ovn

import (
	"bytes"
	"encoding/json"
	"errors"
)

// row is a row as the database wrote it. libovsdb's own reading of rows panics at some that make no sense.
type row map[string]json.RawMessage

var errNotation = errors.New("not OVSDB's notation")

// tagged takes ["<tag>", x] apart.
func tagged(value json.RawMessage, tag string) (json.RawMessage, bool) {
	if !bytes.HasPrefix(bytes.TrimSpace(value), []byte("[")) {
		return nil, false
	}
	var pair []json.RawMessage
	var found string
	if json.Unmarshal(value, &pair) != nil || len(pair) != 2 || json.Unmarshal(pair[0], &found) != nil || found != tag {
		return nil, false
	}
	return pair[1], true
}

// elements are those of a set, which is written as its element if it has one. libovsdb's server leaves out columns that hold
// nothing but their default.
func elements(value json.RawMessage) ([]json.RawMessage, error) {
	inner, isSet := tagged(value, "set")
	switch {
	case len(value) == 0:
		return nil, nil
	case !isSet:
		return []json.RawMessage{value}, nil
	}
	var all []json.RawMessage
	if err := json.Unmarshal(inner, &all); err != nil {
		return nil, errNotation
	}
	return all, nil
}

// atoms are the elements of a set of strings, booleans or integers.
func atoms[T string | bool | int64](value json.RawMessage) ([]T, error) {
	raw, err := elements(value)
	if err != nil {
		return nil, err
	}
	all := make([]T, len(raw))
	for i := range raw {
		if string(raw[i]) == "null" || json.Unmarshal(raw[i], &all[i]) != nil {
			return nil, errNotation
		}
	}
	return all, nil
}

// one is the only element; the zero value if there is none and that is allowed.
func one[T string | bool | int64](value json.RawMessage, optional bool) (T, error) {
	var none T
	all, err := atoms[T](value)
	switch {
	case err != nil:
		return none, err
	case len(all) == 0 && optional:
		return none, nil
	case len(all) != 1:
		return none, errNotation
	}
	return all[0], nil
}

// reference is the UUID a column refers to; empty if it refers to none.
func reference(value json.RawMessage) (string, error) {
	all, err := elements(value)
	if err != nil || len(all) == 0 {
		return "", err
	}
	inner, isUUID := tagged(all[0], "uuid")
	if len(all) != 1 || !isUUID {
		return "", errNotation
	}
	var uuid string
	if json.Unmarshal(inner, &uuid) != nil || uuid == "" {
		return "", errNotation
	}
	return uuid, nil
}

// entry is a value of a map of strings; empty if it has no such key.
func entry(value json.RawMessage, key string) (string, error) {
	if len(value) == 0 {
		return "", nil
	}
	inner, isMap := tagged(value, "map")
	var pairs [][]string
	if !isMap || json.Unmarshal(inner, &pairs) != nil {
		return "", errNotation
	}
	for _, pair := range pairs {
		if len(pair) != 2 {
			return "", errNotation
		}
		if pair[0] == key {
			return pair[1], nil
		}
	}
	return "", nil
}
