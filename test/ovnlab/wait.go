// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package ovnlab

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/test/lab/proc"
)

const (
	askInterval  = 5 * time.Millisecond
	readyTimeout = 60 * time.Second
	logTailBytes = 2048
)

// waitUntil asks until the answer is nil. It fails at once when the process ends, and quotes its log.
func waitUntil(ctx context.Context, what string, process *proc.Process, ask func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	ticker := time.NewTicker(askInterval)
	defer ticker.Stop()
	for {
		err := ask(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ticker.C:
		case <-process.Done():
			return fmt.Errorf("waiting for %s: %s has ended, its log ends:\n%s", what, process.Name(), tail(process.LogFile()))
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w (last answer: %w), the log of %s ends:\n%s", what, ctx.Err(), err, process.Name(), tail(process.LogFile()))
		}
	}
}

// tail returns the end of a log, or why it cannot be read.
func tail(path string) string {
	content, err := os.ReadFile(path)
	if err != nil {
		return "(unreadable: " + err.Error() + ")"
	}
	return strings.TrimSpace(string(content[max(0, len(content)-logTailBytes):]))
}
