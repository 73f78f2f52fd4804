// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package scope

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/utils/clock"
)

// apiServer answers at once, or not at all.
type apiServer struct {
	hangs atomic.Bool
	asked atomic.Int32
}

func (a *apiServer) RoundTrip(request *http.Request) (*http.Response, error) {
	a.asked.Add(1)
	if a.hangs.Load() {
		<-request.Context().Done()
		return nil, request.Context().Err()
	}
	return &http.Response{StatusCode: http.StatusOK, Body: http.NoBody}, nil
}

// TestSilence holds an API server that hangs to one request at a time, and lets everybody in when it answers.
func TestSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := &apiServer{}
		transport := &silentTransport{next: server, silence: &silence{}, clock: clock.RealClock{}}
		ask := func(patience time.Duration) error {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://192.0.2.1", nil)
			if err != nil {
				return err
			}
			response, err := transport.RoundTrip(request)
			if err == nil {
				return response.Body.Close()
			}
			return err
		}
		crowd := func() (refused int) {
			var all sync.WaitGroup
			var count atomic.Int32
			for range 50 {
				all.Go(func() {
					if errors.Is(ask(DefaultFabricTimeout), ErrSilent) {
						count.Add(1)
					}
				})
			}
			all.Wait()
			return int(count.Load())
		}
		if refused := crowd(); refused != 0 {
			t.Errorf("%d of 50 were refused although it answers", refused)
		}
		server.hangs.Store(true)
		if err := ask(time.Second); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		if refused := crowd(); refused != 0 {
			t.Errorf("%d were refused because one gave up early", refused)
		}
		begun := time.Now()
		if refused := crowd(); refused != 49 {
			t.Errorf("%d of 50 were refused while it is silent, want all but one", refused)
		}
		if took := time.Since(begun); took != DefaultFabricTimeout {
			t.Errorf("the one that tried was answered after %s", took)
		}
		server.hangs.Store(false)
		if err := ask(DefaultFabricTimeout); err != nil {
			t.Errorf("it answers again: %v", err)
		}
		if refused := crowd(); refused != 0 {
			t.Errorf("%d were refused although it answers again", refused)
		}
	})
}
