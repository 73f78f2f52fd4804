// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"context"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
)

// eventually waits until check says done. Its error says what was waited for, how long, and why it was not so at last.
func eventually(ctx context.Context, timeout time.Duration, what string, check func(context.Context) (done bool, why string, err error)) error {
	var why string
	var lastErr error
	err := wait.PollUntilContextTimeout(ctx, 250*time.Millisecond, timeout, true, func(ctx context.Context) (bool, error) {
		var done bool
		done, why, lastErr = check(ctx)
		return done && lastErr == nil, nil
	})
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case lastErr != nil:
		return fmt.Errorf("%s: not so after %s: %w", what, timeout, lastErr)
	default:
		return fmt.Errorf("%s: not so after %s: %s", what, timeout, why)
	}
}
