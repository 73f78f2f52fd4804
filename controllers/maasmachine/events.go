// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maasmachine

// event tells people of a transition. Action is what was done, in one CamelCase word.
func (p *pass) event(kind, reason, action, format string, args ...any) {
	if p.r.Recorder == nil {
		return
	}
	p.r.Recorder.Eventf(p.machine, nil, kind, reason, action, format, args...)
}
