// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package shared

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/utils/clock"
)

// slow counts the readings it makes; each takes a second and returns its number.
type slow struct{ made atomic.Int32 }

func (s *slow) read(ctx context.Context) (int, error) {
	n := int(s.made.Add(1))
	select {
	case <-time.After(time.Second):
		return n, nil
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// after waits, in the time of a synctest bubble.
func after(d time.Duration) { <-time.After(d) }

func TestSharedReadings(t *testing.T) {
	// Each passenger comes at a time and asks for a reading not older than some age then; got is the number of the reading.
	type passenger struct {
		comes, age time.Duration
		got        int
	}
	for name, tc := range map[string]struct {
		passengers []passenger
		made       int32
	}{
		"alone": {[]passenger{{got: 1}}, 1},
		"who comes later does not join a reading that began before": {
			[]passenger{{got: 1}, {comes: 500 * time.Millisecond, got: 2}}, 2},
		"all who wait share the next": {
			[]passenger{{got: 1}, {comes: 100 * time.Millisecond, got: 2}, {comes: 500 * time.Millisecond, got: 2}, {comes: 900 * time.Millisecond, got: 2}}, 2},
		"who accepts an older one joins": {
			[]passenger{{got: 1}, {comes: 500 * time.Millisecond, age: time.Second, got: 1}}, 1},
		"an old reading serves as long as it is accepted": {
			[]passenger{{got: 1}, {comes: 9 * time.Second, age: 10 * time.Second, got: 1}}, 1},
		"its age counts from its start, not from its end": {
			[]passenger{{got: 1}, {comes: 10500 * time.Millisecond, age: 10 * time.Second, got: 2}}, 2},
		"who demands what is yet to come gets one that starts now": {
			[]passenger{{got: 1, age: -time.Hour}, {comes: 2 * time.Second, age: -time.Hour, got: 2}}, 2},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				reader := &slow{}
				one := &Reading[int]{Clock: clock.RealClock{}}
				var all sync.WaitGroup
				for _, p := range tc.passengers {
					all.Go(func() {
						after(p.comes)
						now := time.Now()
						got, started, err := one.Get(t.Context(), now.Add(-p.age), reader.read)
						if err != nil || got != p.got {
							t.Errorf("at %s: got reading %d, %v; want %d", p.comes, got, err, p.got)
						}
						if p.age >= 0 && started.Before(now.Add(-p.age)) {
							t.Errorf("at %s: got a reading that started %s before", p.comes, now.Sub(started))
						}
					})
				}
				all.Wait()
				if made := reader.made.Load(); made != tc.made {
					t.Errorf("%d readings were made, want %d", made, tc.made)
				}
			})
		})
	}
}

func TestSharedFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broken := errors.New("broken")
		var made atomic.Int32
		one := &Reading[int]{Clock: clock.RealClock{}}
		fail := func(context.Context) (int, error) {
			made.Add(1)
			after(time.Second)
			return 0, broken
		}
		start := time.Now()
		var all sync.WaitGroup
		for range 50 {
			all.Go(func() {
				if _, _, err := one.Get(t.Context(), start, fail); !errors.Is(err, broken) {
					t.Errorf("got %v, want the failure that all share", err)
				}
			})
		}
		all.Wait()
		if made.Load() != 1 {
			t.Errorf("what fails was asked %d times for those who came together", made.Load())
		}
		if _, _, err := one.Get(t.Context(), time.Now(), func(context.Context) (int, error) { return 7, nil }); err != nil {
			t.Errorf("a failure counts for a later reading: %v", err)
		}
	})
}

// Nobody but the one who tries waits for what hung last time.
func TestSharedHang(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one := &Reading[int]{Clock: clock.RealClock{}}
		hang := func(ctx context.Context) (int, error) {
			<-ctx.Done()
			return 0, ctx.Err()
		}
		begun := time.Now()
		if _, _, err := one.Get(t.Context(), begun, hang); err == nil {
			t.Error("what hangs was read")
		}
		if took := time.Since(begun); took != defaultTimeout {
			t.Errorf("a reading that hangs was given up after %s", took)
		}
		var all sync.WaitGroup
		var waited atomic.Int64
		for i := range 20 {
			all.Go(func() {
				after(time.Duration(i) * time.Millisecond)
				since := time.Now()
				_, _, err := one.Get(t.Context(), since, hang)
				if i == 0 {
					return // It tries for the others.
				}
				if !errors.Is(err, errSlow) {
					t.Errorf("got %v, want %v", err, errSlow)
				}
				waited.Store(max(waited.Load(), int64(time.Since(since))))
			})
		}
		all.Wait()
		if longest := time.Duration(waited.Load()); longest > shortPatience {
			t.Errorf("somebody waited %s for what hangs", longest)
		}
	})
}

// One whose own time is up takes nobody along.
func TestSharedAbandoned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reader := &slow{}
		one := &Reading[int]{Clock: clock.RealClock{}}
		impatient, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		start := time.Now()
		var all sync.WaitGroup
		all.Go(func() {
			if _, _, err := one.Get(impatient, start, reader.read); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v", err)
			}
		})
		all.Go(func() {
			after(50 * time.Millisecond)
			if got, _, err := one.Get(t.Context(), start, reader.read); got != 2 || err != nil {
				t.Errorf("got reading %d, %v: want one of its own", got, err)
			}
		})
		all.Wait()
	})
}

// Who has patience of a certain length waits no longer for another's reading, whatever the one before was like.
func TestSharedPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reader := &slow{}
		one := &Reading[int]{Clock: clock.RealClock{}, Patience: 300 * time.Millisecond}
		var all sync.WaitGroup
		all.Go(func() {
			if got, _, err := one.Get(t.Context(), time.Now(), reader.read); got != 1 || err != nil {
				t.Errorf("got reading %d, %v", got, err)
			}
		})
		all.Go(func() {
			after(100 * time.Millisecond)
			since := time.Now()
			if _, _, err := one.Get(t.Context(), since, reader.read); !errors.Is(err, errSlow) {
				t.Errorf("got %v, want %v", err, errSlow)
			}
			if took := time.Since(since); took != 300*time.Millisecond {
				t.Errorf("waited %s", took)
			}
		})
		all.Wait()
		if one.Last() != 1 {
			t.Errorf("the last reading is %d", one.Last())
		}
	})
}
