// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package proc

import (
	"context"
	"fmt"
	"slices"
)

// Restart starts a child that has ended once more, as it was started first, and waits until it is ready.
func (s *Supervisor) Restart(ctx context.Context, name string) (*Process, error) {
	children := s.Processes()
	i := slices.IndexFunc(children, func(p *Process) bool { return p.Name() == name })
	if i < 0 {
		return nil, fmt.Errorf("no process %s was ever started", name)
	}
	return s.Start(ctx, children[i].spec)
}

// Ready asks the child once what it was waited for at its start, such as its readiness endpoint; nil means that it is ready.
// A child without such a question is ready while it runs.
func (p *Process) Ready(ctx context.Context) error {
	switch {
	case !p.Running():
		return p.exitError()
	case p.spec.Ready == nil:
		return nil
	default:
		return p.spec.Ready(ctx)
	}
}
