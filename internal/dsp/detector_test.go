package dsp

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// heard feeds a tone as a line brings it, from its offset on, and lists what is
// reported.
func heard(d *Detector, c Cadence, level float64, skip, length time.Duration, rnd *rand.Rand) []ToneEvent {
	tone := NewTone(c, level)
	tone.Fill(make([]int16, samples(skip)))
	pcm, code := make([]int16, 80), make([]byte, 80)
	var events []ToneEvent
	for range samples(length) / 80 {
		tone.Fill(pcm)
		for i := range pcm {
			pcm[i] = clip16(float64(pcm[i]) + rnd.NormFloat64()*peak(-50)/math.Sqrt2)
		}
		ALaw.Encode(code, pcm)
		ALaw.Decode(pcm, code)
		d.Feed(pcm, func(e ToneEvent) { events = append(events, e) })
	}
	return events
}

func cycleOf(c Cadence) (d time.Duration) {
	for _, s := range c.Loop {
		d += s.Duration
	}
	return d
}

// alike reports cadences that no detector can tell apart.
func alike(a, b Cadence) bool {
	x, y := merged(a.Loop), merged(b.Loop)
	if len(x) != len(y) {
		return false
	}
	for shift := range x {
		same := true
		for i := range x {
			p, q := x[(i+shift)%len(x)], y[i]
			slack := max(p.Duration*15/100, 40*time.Millisecond) + 30*time.Millisecond
			same = same && slices.Equal(p.Hz, q.Hz) && (p.Duration-q.Duration).Abs() <= slack
		}
		if same {
			return true
		}
	}
	return false
}

// TestA27ProgressTonesOfAllCountries: busy, congestion, ringback and dial tone
// of each of the 150 plans, loud or faint and from any place of the cadence, are
// recognised for what they are, and for nothing else, in two cycles and a half.
func TestA27ProgressTonesOfAllCountries(t *testing.T) {
	const seed = 27
	rnd := rand.New(rand.NewPCG(seed, 0))
	checked := 0
	for n, code := range Countries() {
		if raceDetector && n%4 != 0 {
			continue
		}
		p, _ := Country(code)
		tones := []struct {
			kind ToneKind
			c    Cadence
		}{{DialTone, p.Dial}, {BusyTone, p.Busy}, {CongestionTone, p.Congestion}, {RingbackTone, p.Ringback}}
		for i, tone := range tones {
			loop := merged(tone.c.Loop)
			if len(loop) == 0 || len(loop) == 1 && tone.kind != DialTone {
				continue
			}
			shared := false
			for j, o := range tones {
				shared = shared || j != i && alike(tone.c, o.c)
			}
			if shared || code == "sr" && tone.kind == DialTone {
				continue // Suriname's ringback lasts 15 s at the frequency of its dial tone
			}
			length := 5*cycleOf(tone.c)/2 + 1200*time.Millisecond // Spain's congestion begins as its busy tone
			if len(loop) == 1 {
				length = 7 * time.Second
			}
			skip := time.Duration(rnd.Int64N(int64(cycleOf(tone.c) + time.Millisecond)))
			level := []float64{-10, -28}[checked%2]
			events := heard(NewDetector(p), tone.c, level, skip, length, rnd)
			checked++
			if len(events) != 1 || events[0].Kind != tone.kind || !events[0].On {
				t.Errorf("seed %d: %s %v from %v at %v: %v", seed, code, tone.kind, skip, level, events)
			}
		}
	}
	t.Logf("%d tones", checked)
	if checked < 500 && !raceDetector {
		t.Errorf("only %d tones checked", checked)
	}
}

func TestA25DialToneAloneIsKnownAfter300ms(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 25))
	for _, code := range []string{"us", "de", "uk", "fr", "jp", "at", "za", "in"} {
		p, _ := Country(code)
		d := NewDetector(p)
		d.Only(DialTone)
		events := heard(d, p.Dial, -15, 0, 2*time.Second, rnd)
		if len(events) != 1 || events[0].Sample > 3200 {
			t.Errorf("%s: %v", code, events)
		}
	}
}

func TestA27SpecialInformationTone(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 26))
	for _, code := range []string{"us", "de", "uk", "fr", "be", "cz", "se", "at", "il"} {
		p, _ := Country(code)
		events := heard(NewDetector(p), p.SIT, -15, 0, 3*time.Second, rnd)
		if len(events) == 0 || events[0].Kind != SpecialTone {
			t.Errorf("%s: %v", code, events)
		}
	}
}

func TestA29ToneThatEndsIsReportedWithinItsLongestPause(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 29))
	p, _ := Country("de")
	d := NewDetector(p)
	if events := heard(d, p.Busy, -15, 0, 5*time.Second, rnd); len(events) != 1 {
		t.Fatal(events)
	}
	events := heard(d, Cadence{}, 0, 0, 2*time.Second, rnd)
	if len(events) != 1 || events[0].On || events[0].Kind != BusyTone {
		t.Fatalf("after the end: %v", events)
	}
	if after := time.Duration(events[0].Sample)*time.Second/SampleRate - 5*time.Second; after > 700*time.Millisecond {
		t.Errorf("end noticed after %v", after)
	}
	if events := heard(d, p.Ringback, -15, 0, 12*time.Second, rnd); len(events) != 1 || events[0].Kind != RingbackTone {
		t.Errorf("ringback afterwards: %v", events)
	}
}

func TestDetectorRefusesForeignTones(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 30))
	us, _ := Country("us")
	de, _ := Country("de")
	for _, c := range []struct {
		name string
		plan *Plan
		tone string
	}{
		{"German busy in America", us, "425/480 0/480"},
		{"30 Hz off", de, "455/480 0/480"},
		{"only one of two frequencies", us, "480/500 0/500"},
		{"one 12 dB stronger", us, "480/250 480@-40/250 0/500"},
		{"cadence 30 % slow", de, "425/660 0/660"},
		{"DTMF", de, "770+1336/100 0/100"},
		{"fax", us, "2100/3000 0/500"},
		{"DTMF held", us, "697+1209/0"},
	} {
		cad, err := ParseCadence(c.tone)
		if err != nil {
			t.Fatal(err)
		}
		if events := heard(NewDetector(c.plan), cad, -12, 0, 10*time.Second, rnd); len(events) > 0 {
			t.Errorf("%s: %v", c.name, events)
		}
	}
}

func TestA27NoProgressTonesInSpeech(t *testing.T) {
	for _, code := range []string{"us", "de", "uk", "fr", "jp"} {
		p, _ := Country(code)
		d := NewDetector(p)
		v := newVoice(uint64(len(code)))
		pcm := make([]int16, 80)
		for range 2 * 6000 {
			v.fill(pcm)
			d.Feed(pcm, func(e ToneEvent) { t.Errorf("%s: %+v", code, e) })
		}
	}
}

func TestA27NoProgressTonesInSpokenText(t *testing.T) {
	espeak, sox := tool(t, "espeak-ng"), tool(t, "sox")
	dir := t.TempDir()
	run(t, nil, espeak, "-w", dir+"/s.wav", spokenText)
	pcm := fromRaw(run(t, nil, sox, dir+"/s.wav", "-t", "raw", "-r", "8000", "-e", "signed", "-b", "16", "-L", "-c", "1", "-", "gain", "-n", "-6"))
	for _, code := range []string{"us", "de", "uk", "fr", "jp", "it", "za", "au", "br", "cn", "in", "se"} {
		p, _ := Country(code)
		NewDetector(p).Feed(pcm[:min(len(pcm), 60*SampleRate)], func(e ToneEvent) { t.Errorf("%s: %+v", code, e) })
	}
}

func TestDetectorDoesNotAllocate(t *testing.T) {
	p, _ := Country("us")
	d, tone := NewDetector(p), NewTone(p.Busy, -15)
	pcm := make([]int16, 80)
	report := func(ToneEvent) {}
	if n := testing.AllocsPerRun(500, func() { tone.Fill(pcm); d.Feed(pcm, report) }); n != 0 {
		t.Errorf("%v allocations a frame", n)
	}
}

func BenchmarkDetectorFrame(b *testing.B) {
	p, _ := Country("us")
	d, tone := NewDetector(p), NewTone(p.Dial, -15)
	pcm := make([]int16, 80)
	tone.Fill(pcm)
	for b.Loop() {
		d.Feed(pcm, func(ToneEvent) {})
	}
}

func (e ToneEvent) String() string {
	return fmt.Sprintf("%v %v at %d ms", e.Kind, e.On, e.Sample/8)
}
