// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
)

// requestsMetric counts what a Kubernetes client asked its API server, by code, host and method.
const requestsMetric = "rest_client_requests_total{"

// requests are those of the manager to the API server so far, by method.
func (w *world) requests(ctx context.Context) (map[string]float64, error) {
	body := &bytes.Buffer{}
	if err := get(ctx, &http.Client{Timeout: probeTimeout}, w.metrics, body); err != nil {
		return nil, err
	}
	return requestsByMethod(body)
}

// requestsByMethod reads the metric from the text format.
func requestsByMethod(text *bytes.Buffer) (map[string]float64, error) {
	sums := map[string]float64{}
	lines := bufio.NewScanner(text)
	for lines.Scan() {
		labels, found := strings.CutPrefix(lines.Text(), requestsMetric)
		if !found {
			continue
		}
		_, rest, found := strings.Cut(labels, `method="`)
		method, _, closed := strings.Cut(rest, `"`)
		value, err := strconv.ParseFloat(labels[strings.LastIndexByte(labels, ' ')+1:], 64)
		if !found || !closed || err != nil {
			return nil, fmt.Errorf("%s has an unknown format: %s", requestsMetric, lines.Text())
		}
		sums[method] += value
	}
	return sums, lines.Err()
}

// addLoad reports how busy the computer is with whatever runs on it: times of a busy one say little.
func (r *Report) addLoad(scenario string) error {
	content, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return err
	}
	first, _, _ := strings.Cut(string(content), " ")
	load, err := strconv.ParseFloat(first, 64)
	if err != nil {
		return fmt.Errorf("/proc/loadavg: %w", err)
	}
	r.add(scenario, "load average before", load, "")
	return nil
}
