package analogtest

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Burst is one element of a tone: so long the sum of the frequencies, or
// silence if there is none. For zero means until the tone is stopped.
type Burst struct {
	Hz  []float64
	For time.Duration

	level   float64 // of each frequency, if leveled; else the player's
	leveled bool
}

// Cadence is a tone as a sequence of bursts that repeats for ever.
type Cadence []Burst

// Plan is what a country's exchange plays and how it rings (ITU-T E.180).
type Plan struct {
	Country    string
	Ring       []time.Duration // ring, silence, …; repeats
	Dial       Cadence
	Ringback   Cadence
	Busy       Cadence
	Congestion Cadence
}

// plans is written "frequencies/ms", "-/ms" for silence; a lone frequency is
// continuous. The figures are those of the administrations as collected in
// ITU-T E.180 Supplement 2.
var plans = []struct{ country, ring, dial, ringback, busy, congestion string }{
	{"us", "2000,4000", "350+440", "440+480/2000,-/4000", "480+620/500,-/500", "480+620/250,-/250"},
	{"uk", "400,200,400,2000", "350+440", "400+450/400,-/200,400+450/400,-/2000", "400/375,-/375", "400/400,-/350,400/225,-/525"},
	{"de", "1000,4000", "425", "425/1000,-/4000", "425/480,-/480", "425/240,-/240"},
	{"fi", "1000,4000", "425", "425/1000,-/4000", "425/300,-/300", "425/200,-/200"},
	{"fr", "1500,3500", "440", "440/1500,-/3500", "440/500,-/500", "440/250,-/250"},
	{"nl", "1000,4000", "425", "425/1000,-/4000", "425/500,-/500", "425/250,-/250"},
	{"se", "1000,5000", "425", "425/1000,-/5000", "425/250,-/250", "425/250,-/750"},
	{"at", "1000,5000", "420", "420/1000,-/5000", "420/400,-/400", "420/200,-/200"},
	{"pl", "1000,4000", "425", "425/1000,-/4000", "425/500,-/500", "425/500,-/500"},
	{"no", "1000,4000", "425", "425/1000,-/4000", "425/500,-/500", "425/200,-/200"},
	{"jp", "1000,2000", "400", "384+416/1000,-/2000", "400/500,-/500", "400/500,-/500"},
}

// PlanOf returns the plan of a country (lower-case code, "uk" for the United
// Kingdom); ok is false for a country that this package does not know.
func PlanOf(country string) (p Plan, ok bool) {
	for _, r := range plans {
		if r.country != country {
			continue
		}
		p.Country = country
		for _, ms := range strings.Split(r.ring, ",") {
			n, _ := strconv.Atoi(ms)
			p.Ring = append(p.Ring, time.Duration(n)*time.Millisecond)
		}
		for text, c := range map[string]*Cadence{r.dial: &p.Dial, r.ringback: &p.Ringback, r.busy: &p.Busy} {
			*c = mustCadence(text)
		}
		p.Congestion = mustCadence(r.congestion)
		return p, true
	}
	return p, false
}

func mustCadence(s string) Cadence {
	c, err := ParseCadence(s)
	if err != nil {
		panic(err) // the table above
	}
	return c
}

// ParseCadence reads the notation of this package: bursts separated by commas,
// each "hz+hz/ms"; "-" for silence; without "/ms" the burst has no end.
func ParseCadence(s string) (Cadence, error) {
	var c Cadence
	for _, part := range strings.Split(s, ",") {
		tones, ms, timed := strings.Cut(part, "/")
		var b Burst
		if timed {
			n, err := strconv.ParseUint(ms, 10, 16)
			if err != nil || n == 0 {
				return nil, fmt.Errorf("cadence %q: length %q", s, ms)
			}
			b.For = time.Duration(n) * time.Millisecond
		}
		if tones != "-" {
			for _, t := range strings.Split(tones, "+") {
				hz, err := strconv.ParseFloat(t, 64)
				if err != nil || hz <= 0 || hz >= sampleRate/2 {
					return nil, fmt.Errorf("cadence %q: frequency %q", s, t)
				}
				b.Hz = append(b.Hz, hz)
			}
		}
		c = append(c, b)
	}
	return c, nil
}

// player produces a cadence as samples.
type player struct {
	cadence Cadence
	repeat  int // index at which it goes on after the last burst, -1: it ends
	level   float64
	at      int
	left    int // samples of the burst, -1 without end
	sines   []sine
	ended   bool
}

func newPlayer(c Cadence, repeat int, level float64) *player {
	p := &player{cadence: c, repeat: repeat, level: level, at: -1}
	p.advance()
	return p
}

func (p *player) advance() {
	if p.at++; p.at >= len(p.cadence) {
		if p.repeat < 0 || p.repeat >= len(p.cadence) {
			p.ended = true
			return
		}
		p.at = p.repeat
	}
	b := p.cadence[p.at]
	p.left = samples(b.For)
	if b.For == 0 {
		p.left = -1
	}
	p.sines = p.sines[:0]
	level := p.level
	if b.leveled {
		level = b.level
	}
	for _, hz := range b.Hz {
		p.sines = append(p.sines, newSine(hz, level))
	}
}

// fill overwrites dst.
func (p *player) fill(dst []int16) {
	for i := range dst {
		for p.left == 0 && !p.ended {
			p.advance()
		}
		v := 0.0
		if !p.ended {
			for k := range p.sines {
				v += p.sines[k].next()
			}
			if p.left > 0 {
				p.left--
			}
		}
		dst[i] = clip(v)
	}
}
