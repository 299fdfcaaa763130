package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"localloop/internal/media/mediatest"
	"localloop/internal/sip/siptest"
)

type liveCommand struct {
	Pause time.Duration `default:"5s" help:"Between two calls that are placed by themselves."`
}

// live is what the view shows; the goroutine that places calls writes it.
type live struct {
	*lab
	mu      sync.Mutex
	doing   string
	results []result
}

// Run places the standard calls in turn and shows what is measured, until Ctrl-C.
func (c liveCommand) Run(ctx context.Context, o *options, t terminal) error {
	if o.Talk < 10*time.Second {
		o.Talk = 10 * time.Second // time to look
	}
	err := withLab(ctx, o, t, func(ctx context.Context, l *lab) error {
		v := &live{lab: l}
		group, ctx := errgroup.WithContext(ctx)
		group.Go(func() error {
			for n := 0; ctx.Err() == nil; n++ {
				next := standardCalls[n%len(standardCalls)]
				v.set("call: "+next.name, nil)
				r := l.measure(ctx, next)
				v.set("pause; next: "+standardCalls[(n+1)%len(standardCalls)].name, &r)
				if next.cut { // the trunk refuses calls for a while by design: refuse_for
					pause(ctx, max(c.Pause, 12*time.Second))
					continue
				}
				pause(ctx, c.Pause)
			}
			return nil
		})
		group.Go(func() error { v.show(ctx, t.out); return nil })
		return group.Wait()
	})
	if ctx.Err() != nil {
		return nil // Ctrl-C is how it ends
	}
	return err
}

func (v *live) set(doing string, r *result) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.doing = doing
	if r != nil {
		v.results = append(v.results, *r)
		if len(v.results) > 8 {
			v.results = v.results[1:]
		}
	}
}

// show prints the view: each second over itself on a terminal, else every five
// seconds below the last.
func (v *live) show(ctx context.Context, w io.Writer) {
	every, clear := 5*time.Second, ""
	if f, ok := w.(*os.File); ok {
		if _, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS); err == nil {
			every, clear = time.Second, "\x1b[H\x1b[2J"
		}
	}
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	begin := time.Now()
	for {
		fmt.Fprint(w, clear+v.view(ctx, time.Since(begin)))
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

func (v *live) view(ctx context.Context, up time.Duration) string {
	v.mu.Lock()
	doing, results := v.doing, slices.Clone(v.results)
	v.mu.Unlock()
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("branchsim  %s  %s  (Ctrl-C ends)", up.Round(time.Second), doing)
	var pings []string
	have := v.teams.Pings(boxFQDN)
	for _, name := range slices.Sorted(maps.Keys(have)) {
		short, _, _ := strings.Cut(name, ".")
		pings = append(pings, fmt.Sprintf("%s %s ago", short, time.Since(have[name]).Round(time.Second)))
	}
	line("trunk  %s  OPTIONS: %s", boxFQDN, strings.Join(pings, ", "))
	line("phone  %s", v.card.line())
	for _, c := range v.teams.Calls() {
		if c.Established() {
			describeCall(line, c)
		}
	}
	if n, ok := v.capture.snapshot(); ok {
		line("wire   LAN %d and WAN %d RTP packets; DSCP of the box: voice %s, signalling %s", n.lanRTP, n.wanRTP, histogram(n.voice), histogram(n.signalling))
	} else {
		line("wire   %s", v.capture.why)
	}
	for _, r := range results {
		verdict := "ok"
		if r.fault != "" {
			verdict = "FAILED: " + r.fault
		}
		line("done   %-42s %-5s LAN %s WAN %s MOS %s cut to audio %s  %s", r.name, r.mediaPath, r.lanRTP.text("%.0f"), r.wanRTP.text("%.0f"),
			r.mos.text("%.2f"), r.cutToAudio.text("%.0f ms"), verdict)
	}
	for _, x := range last(v.teams.Violations(), 5) {
		line("broken %s", x)
	}
	v.status(ctx, line)
	return b.String()
}

func last[T any](list []T, n int) []T { return list[max(0, len(list)-n):] }

func describeCall(line func(string, ...any), c *siptest.Call) {
	m := c.Media()
	if m == nil {
		return
	}
	s := m.Stats()
	local, remote, path := m.Pair()
	arrow := "←"
	if c.Outgoing() {
		arrow = "→"
	}
	line("call   %s %s phone  path %s  %s ↔ %s  ICE %s", c.User().Name, arrow, map[string]string{"lan": "LAN", "wan": "cloud"}[path], local, remote, m.ICEState())
	line("       sent %d received %d lost %d  jitter %s  round trip %s  MOS %s", s.Sent, s.Received, s.Lost,
		s.Jitter.Round(10*time.Microsecond), s.RoundTrip.Round(10*time.Microsecond), quality(s).text("%.2f"))
	for _, name := range slices.Sorted(maps.Keys(s.Paths)) {
		p := s.Paths[name]
		line("       %s: RTP out %d in %d, STUN out %d in %d, marks of the box %s", name, p.Sent[mediatest.RTP], p.Received[mediatest.RTP],
			p.Sent[mediatest.STUN], p.Received[mediatest.STUN], histogram(p.DSCP[mediatest.RTP]))
	}
}

func histogram(h [64]uint64) string {
	var parts []string
	for dscp, n := range h {
		if n > 0 {
			parts = append(parts, fmt.Sprintf("%d (%d)", dscp, n))
		}
	}
	if parts == nil {
		return "-"
	}
	return strings.Join(parts, " ")
}
