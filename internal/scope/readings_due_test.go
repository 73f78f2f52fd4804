// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package scope

import (
	"testing"
	"time"

	. "github.com/onsi/gomega"
)

func TestDue(t *testing.T) {
	const interval = 5 * time.Second
	now := time.Now()
	ago := func(age time.Duration) time.Time { return now.Add(-age) }
	followed := coverage{since: ago(time.Hour), until: now.Add(time.Second)}
	cases := map[string]struct {
		want want
		feed coverage
		due  bool
	}{
		"nobody waits":                                {want: want{readAt: ago(time.Hour)}, feed: followed},
		"watched only":                                {want: want{watched: true, readAt: ago(time.Hour)}, feed: followed},
		"an event of one nobody cares for":            {want: want{event: true}, feed: followed},
		"an event of one that is watched":             {want: want{event: true, watched: true}, feed: followed, due: true},
		"an event of one that is waited for":          {want: want{event: true, maxAge: time.Minute}, feed: followed, due: true},
		"never read":                                  {want: want{maxAge: time.Minute}, feed: followed, due: true},
		"young":                                       {want: want{maxAge: time.Minute, readAt: ago(30 * time.Second)}, feed: followed},
		"still young at the next poll":                {want: want{maxAge: time.Minute, readAt: ago(55*time.Second - 1)}, feed: followed},
		"too old before the next poll":                {want: want{maxAge: time.Minute, readAt: ago(55 * time.Second)}, feed: followed, due: true},
		"power is waited for":                         {want: want{maxAge: interval, readAt: ago(interval)}, feed: followed, due: true},
		"in less than an interval nothing gets older": {want: want{maxAge: time.Nanosecond, readAt: now}, feed: followed, due: true},
		"without the feed":                            {want: want{maxAge: time.Minute, readAt: ago(interval)}, due: true},
		"read before the feed began": {
			want: want{maxAge: time.Minute, readAt: ago(interval)}, feed: coverage{since: ago(time.Second), until: now}, due: true,
		},
		"the feed was lost": {
			want: want{maxAge: time.Minute, readAt: ago(interval)}, feed: coverage{since: ago(time.Hour), until: ago(1)}, due: true,
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			c.want.systemID = "m"
			g.Expect(due([]want{c.want}, now, interval, interval, c.feed)).To(HaveLen(map[bool]int{true: 1}[c.due]))
		})
	}
}

func TestFeedDue(t *testing.T) {
	g := NewWithT(t)
	waited, watched, neither := want{maxAge: time.Minute}, want{watched: true}, want{}
	g.Expect(feedDue([]want{neither}, time.Hour, idleFeed)).To(BeFalse(), "nobody cares")
	g.Expect(feedDue([]want{neither, watched}, idleFeed-1, idleFeed)).To(BeFalse())
	g.Expect(feedDue([]want{neither, watched}, idleFeed, idleFeed)).To(BeTrue(), "what is settled is looked at once a minute")
	g.Expect(feedDue([]want{watched, waited}, 0, idleFeed)).To(BeTrue(), "what is waited for at every poll")
}

func TestWhoWaits(t *testing.T) {
	g := NewWithT(t)
	g.Expect(waits(time.Minute, 5*time.Second)).To(BeTrue())
	g.Expect(waits(10*time.Minute, 5*time.Second)).To(BeFalse(), "who is content with what is ten minutes old waits for nothing")
	g.Expect(waits(2*time.Minute, 10*time.Second)).To(BeTrue(), "where all is slower")
}
