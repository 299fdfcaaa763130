package main

import (
	"bytes"
	"context"
	"encoding/json"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"localloop/internal/config"
)

func TestCutsAreDistributedAndJudged(t *testing.T) {
	ms := func(list ...int) (out []time.Duration) {
		for _, v := range list {
			out = append(out, time.Duration(v)*time.Millisecond)
		}
		return out
	}
	twenty := make([]int, 20)
	for i := range twenty {
		twenty[i] = 1000 + 10*(19-i) // 1000 … 1190, the largest first
	}
	with := func(n int, value int) []int {
		list := append([]int(nil), twenty...)
		for i := range n {
			list[i] = value
		}
		return list
	}
	for name, tc := range map[string]struct {
		audio   []time.Duration
		silence bool
		ok      bool
		fault   string
	}{
		"all good":            {ms(twenty...), false, true, ""},
		"one slow, p95 holds": {ms(with(1, 3900)...), false, true, ""},
		"two slow":            {ms(with(2, 3900)...), false, false, "p95"},
		"one beyond 4 s":      {ms(with(1, 4100)...), false, false, "the worst"},
		"silence is measured": {ms(with(20, 15000)...), true, true, ""},
		"one not measured":    {ms(twenty[:19]...), false, false, ""},
		"none measured":       {nil, false, false, ""},
	} {
		s := cutsSummary{Cuts: 20, Silence: tc.silence, audio: tc.audio, restart: tc.audio}
		s.judge()
		if s.OK != tc.ok || tc.fault != "" && !strings.Contains(strings.Join(s.Faults, " "), tc.fault) {
			t.Errorf("%s: ok %t, %v", name, s.OK, s.Faults)
		}
	}
	d := distributionOf(ms(twenty...))
	if *d.Min != 1000 || *d.Median != 1090 || *d.P95 != 1180 || *d.Max != 1190 {
		t.Errorf("min %v median %v p95 %v max %v", *d.Min, *d.Median, *d.P95, *d.Max)
	}
}

// TestCutsMeasureAStandIn has the stand-in, which notices after 500 ms of
// silence, repair two calls; and one that repairs nothing fail.
func TestCutsMeasureAStandIn(t *testing.T) {
	if testing.Short() {
		t.Skip("real calls")
	}
	for name, tc := range map[string]struct {
		net      byte
		stubborn bool
	}{"repairs": {24, false}, "does not": {25, true}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			lim := usualLimits
			if tc.stubborn {
				lim.repair = 1500 * time.Millisecond
			}
			l, done := newStandInLab(t, tc.net, lim, func(s *standIn) { s.stubborn = tc.stubborn })
			defer done()
			var out bytes.Buffer
			err := cutsCommand{N: 2, Seed: 7}.run(terminal{&out, &out}, l)
			lines := strings.Split(strings.TrimSpace(out.String()), "\n")
			var s cutsSummary
			if jerr := json.Unmarshal([]byte(lines[len(lines)-1]), &s); jerr != nil {
				t.Fatalf("%v\n%s", jerr, out.String())
			}
			if s.OK == tc.stubborn || (err == nil) == tc.stubborn || s.Seed != 7 || s.Cuts != 2 {
				t.Errorf("%v\n%s", err, out.String())
			}
			if !tc.stubborn && (*s.CutToAudio.Min < 400 || *s.CutToRestart.Min < 400 || *s.CutToRestart.Max > *s.CutToAudio.Max) {
				t.Errorf("a repair before it could be noticed:\n%s", out.String())
			}
			if tc.stubborn && s.CutToAudio.Min != nil {
				t.Errorf("a time of nothing: %v", *s.CutToAudio.Min)
			}
		})
	}
}

func TestRefusalForCutsReachesTheConfiguration(t *testing.T) {
	dir := t.TempDir()
	var out bytes.Buffer
	if code := execute([]string{"prepare", "--dir", dir, "--refuse-for", "150ms"}, &out, &out); code != 0 {
		t.Fatal(out.String())
	}
	c, err := config.Load(filepath.Join(dir, "edged.toml"))
	if err != nil {
		t.Fatal(err)
	}
	if got := c.Teams[0].Failover.RefuseFor; got != 150*time.Millisecond {
		t.Errorf("refuse_for %s", got)
	}
	if n := len(c.Teams[0].Resolve); n != 3 { // the key must not end up in another table
		t.Errorf("%d names", n)
	}
}

// TestFirstCallWaitsUntilEdgedCanTakeIt gives states of a starting edged in turn.
func TestFirstCallWaitsUntilEdgedCanTakeIt(t *testing.T) {
	const trunk, line = `"trunks":[{"name":"teams","up":%}]`, `"lines":[{"name":"reception","link":%,"state":"%"}]`
	state := func(up, link, state string) string {
		return "{" + strings.Replace(trunk, "%", up, 1) + "," + strings.Replace(strings.Replace(line, "%", link, 1), "%", state, 1) + "}"
	}
	states := []string{
		"", `{}`, state("false", "false", "out of service"), state("true", "false", "out of service"),
		state("true", "true", "out of service"), state("false", "true", "idle"), state("true", "true", "idle"),
	}
	var asked atomic.Int64
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(states[min(int(asked.Add(1)), len(states))-1]))
	})}
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(listener) }()
	defer func() { _ = server.Close(); <-done }()
	o := &options{Status: "http://" + listener.Addr().String() + "/status.json"}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := o.waitStatus(ctx); err != nil {
		t.Fatal(err)
	}
	if n := int(asked.Load()); n != len(states) {
		t.Errorf("ready after %d of %d states", n, len(states))
	}
}
