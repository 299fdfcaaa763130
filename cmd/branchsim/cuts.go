package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"text/tabwriter"
	"time"

	"localloop/internal/media/mediatest"
)

// What product and issue promise of a cut while the far end is sending.
const (
	promisedP95   = 2500 * time.Millisecond
	promisedWorst = 4 * time.Second
)

// silenceLimit is how long a cut in silence may go unnoticed: nothing is
// promised, and a peer that says nothing is missed late.
const silenceLimit = 60 * time.Second

type cutsCommand struct {
	N       int    `short:"n" default:"20" help:"How many calls."`
	Silence bool   `help:"The Teams user is silent (comfort noise) when the path is cut. This is measured, nothing is promised."`
	Seed    uint64 `help:"Of the instants of the cuts; default: chosen and printed."`
}

// Run cuts the LAN path of N calls, one after the other, without any event that
// the kernel could report, and prints how long voice was away.
func (k cutsCommand) Run(ctx context.Context, o *options, t terminal) error {
	if o.Cut == "auto" {
		o.Cut = "client"
	}
	return k.run(t, func(use func(context.Context, *lab) error) error { return withLab(ctx, o, t, use) })
}

func (k cutsCommand) run(t terminal, inLab func(use func(context.Context, *lab) error) error) error {
	if k.Seed == 0 {
		k.Seed = rand.Uint64()
	}
	d := cutsSummary{Cuts: k.N, Silence: k.Silence, Seed: k.Seed, Faults: []string{}}
	dice := rand.New(rand.NewPCG(k.Seed, 1))
	table := tabwriter.NewWriter(t.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "cut\tre-INVITE\tvoice at Teams\tvoice at the phone\tresult")
	err := inLab(func(ctx context.Context, l *lab) error {
		for n := range k.N {
			// The instant is chance: relative to RTCP, checks and comfort noise.
			p, err := l.cutCall(ctx, k.Silence, time.Duration(dice.Int64N(int64(time.Second))))
			if ctx.Err() != nil {
				return ctx.Err()
			}
			verdict := "ok"
			if err != nil {
				verdict = "FAILED: " + err.Error()
				d.Faults = append(d.Faults, fmt.Sprintf("cut %d: %v", n+1, err))
			} else {
				d.audio, d.restart = append(d.audio, p.audio()), append(d.restart, p.restart)
			}
			ms := func(d time.Duration) string { return fmt.Sprintf("%.0f ms", milliseconds(d)) }
			fmt.Fprintf(table, "%d\t%s\t%s\t%s\t%s\n", n+1, ms(p.restart), ms(p.teams), ms(p.phone), verdict)
			fmt.Fprintf(t.err, "cut %d of %d: %s %s\n", n+1, k.N, ms(p.audio()), verdict)
		}
		return nil
	})
	if err != nil {
		d.Faults = append(d.Faults, err.Error())
	}
	if err := table.Flush(); err != nil {
		return err
	}
	d.judge()
	if err := d.print(t.out); err != nil {
		return err
	}
	if !d.OK {
		return errFailed
	}
	return nil
}

// cutCall places a call, cuts its LAN path some time after both have heard each
// other, and ends it.
func (l *lab) cutCall(ctx context.Context, silence bool, after time.Duration) (p repair, err error) {
	setUp, cancel := context.WithTimeout(ctx, l.o.limits.setUp)
	defer cancel()
	call, err := teamsCalls(internalUser)(setUp, l)
	defer func() {
		if fault := l.clear(ctx, call); fault != "" && err == nil {
			err = errors.New(fault)
		}
	}()
	if err != nil {
		return p, err
	}
	media, began := call.Media(), time.Now()
	media.Say(mediatest.Tone(teamsHz, teamsLevel))
	if _, err := media.WaitTone(setUp, phoneHz, began); err != nil {
		return p, err
	}
	if err := l.card.hears(setUp); err != nil {
		return p, err
	}
	limit := l.o.limits.repair
	if silence {
		limit = silenceLimit
		media.Silence()
	}
	pause(ctx, 2*time.Second+after)
	if _, _, path := media.Pair(); path != "lan" {
		return p, fmt.Errorf("before the cut voice goes by %q, not by the LAN", path)
	}
	return l.cutAndRepair(ctx, call, media, limit, silence)
}

// cutsSummary is the last line of branchsim cuts.
type cutsSummary struct {
	Cuts         int          `json:"cuts"`
	Silence      bool         `json:"silence"`
	Seed         uint64       `json:"seed"`
	CutToAudio   distribution `json:"cutToAudioMs"`
	CutToRestart distribution `json:"cutToReinviteMs"`
	Faults       []string     `json:"faults"`
	OK           bool         `json:"ok"`

	audio, restart []time.Duration
}

// distribution is in milliseconds; null where nothing was measured.
type distribution struct {
	Min    *float64 `json:"min"`
	Median *float64 `json:"median"`
	P95    *float64 `json:"p95"`
	Max    *float64 `json:"max"`
}

// rank is the nearest-rank percentile, of a sorted list that is not empty.
func rank(sorted []time.Duration, percent int) time.Duration {
	return sorted[max(0, (len(sorted)*percent+99)/100-1)]
}

func distributionOf(list []time.Duration) (d distribution) {
	if len(list) == 0 {
		return d
	}
	list = slices.Sorted(slices.Values(list))
	at := func(percent int) *float64 { v := milliseconds(rank(list, percent)); return &v }
	return distribution{at(0), at(50), at(95), at(100)}
}

// judge compares with what is promised.
func (s *cutsSummary) judge() {
	s.CutToAudio, s.CutToRestart = distributionOf(s.audio), distributionOf(s.restart)
	if !s.Silence && len(s.audio) > 0 {
		list := slices.Sorted(slices.Values(s.audio))
		if p := rank(list, 95); p > promisedP95 {
			s.Faults = append(s.Faults, fmt.Sprintf("p95 is %s, promised are %s", p, promisedP95))
		}
		if p := rank(list, 100); p > promisedWorst {
			s.Faults = append(s.Faults, fmt.Sprintf("the worst is %s, promised are %s", p, promisedWorst))
		}
	}
	s.OK = len(s.Faults) == 0 && len(s.audio) == s.Cuts
}

func (s *cutsSummary) print(w io.Writer) error {
	state := "while the Teams user speaks"
	if s.Silence {
		state = "while the Teams user is silent (nothing is promised for this)"
	}
	fmt.Fprintf(w, "%d cuts %s:\n", s.Cuts, state)
	text := func(v *float64) string {
		if v == nil {
			return "-"
		}
		return fmt.Sprintf("%.0f", *v)
	}
	for _, row := range []struct {
		name string
		d    distribution
	}{{"cut to audio", s.CutToAudio}, {"cut to re-INVITE", s.CutToRestart}} {
		fmt.Fprintf(w, "  %-17s min %s  median %s  p95 %s  max %s ms\n", row.name, text(row.d.Min), text(row.d.Median), text(row.d.P95), text(row.d.Max))
	}
	for _, f := range s.Faults {
		fmt.Fprintln(w, "fault:", f)
	}
	line, err := json.Marshal(s)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "%s\n", line)
	return err
}
