// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maassim

import (
	"maps"
	"net/http"
	"regexp"
)

var annotationKey = regexp.MustCompile(`^[\w.-]+$`)

// setAnnotations merges every form field into the machine's annotations; an empty value deletes. Only the owner may.
func setAnnotations(r *Region, c *call) reply {
	m := c.machine
	if m.owner == "" || m.owner != c.user.name {
		return conflict("Cannot set workload annotation: it hasn't been acquired.")
	}
	for key := range c.form {
		if length := len([]rune(key)); length > maxText {
			return *tooLong("key", length)
		}
		if !annotationKey.MatchString(key) {
			return text(http.StatusInternalServerError, "Invalid character in key name")
		}
	}
	e := r.effect(c.user.name, opAnnotate, m, "")
	for key, values := range c.form {
		if value := values[len(values)-1]; value == "" {
			delete(m.annotations, key)
		} else {
			m.annotations[key] = value
		}
	}
	e.Annotations = maps.Clone(m.annotations)
	r.write(e, m)
	return r.shown(m)
}
