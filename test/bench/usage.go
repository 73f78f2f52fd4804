// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// clockTick is the unit of CPU times in /proc on Linux, whatever the kernel's own.
const clockTick = 10 * time.Millisecond

// usage is what a process has used up to a moment.
type usage struct {
	at  time.Time
	cpu time.Duration
	// resident and peak memory in bytes.
	resident, peak uint64
}

// usageOf reads a living process' usage.
func usageOf(pid int) (usage, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return usage{}, err
	}
	// The second field is the command in parentheses and may contain blanks: count from the last parenthesis.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	const user, system = 11, 12
	if len(fields) <= system {
		return usage{}, fmt.Errorf("/proc/%d/stat has an unknown format", pid)
	}
	u := usage{at: time.Now()}
	for _, field := range fields[user : system+1] {
		ticks, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return usage{}, fmt.Errorf("/proc/%d/stat: %w", pid, err)
		}
		u.cpu += time.Duration(ticks) * clockTick
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return usage{}, err
	}
	u.resident, u.peak = kibibytes(status, "VmRSS:"), kibibytes(status, "VmHWM:")
	return u, nil
}

func kibibytes(status []byte, key string) uint64 {
	for line := range strings.Lines(string(status)) {
		if value, found := strings.CutPrefix(line, key); found {
			n, err := strconv.ParseUint(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
			if err == nil {
				return n << 10
			}
		}
	}
	return 0
}

// core is the share of one core used since before, in percent.
func (u usage) core(before usage) float64 {
	return 100 * (u.cpu - before.cpu).Seconds() / max(u.at.Sub(before.at).Seconds(), 0.001)
}

// budgetMemory is the design's for the manager, in MB.
const budgetMemory = 300

// addPeak reports the most memory the manager had since its start.
func (w *world) addPeak(report *Report, scenario, when string) error {
	u, err := w.usage()
	if err != nil {
		return err
	}
	report.add(scenario, "manager memory (RSS), peak "+when, float64(u.peak>>20), "MB").within(budgetMemory)
	return nil
}

// addUsage reports what the manager used between two moments.
func (r *Report) addUsage(scenario, when string, before, after usage) {
	r.add(scenario, "manager CPU, "+when, after.core(before), "% of a core")
	r.add(scenario, "manager memory (RSS), "+when, float64(after.resident>>20), "MB")
}
