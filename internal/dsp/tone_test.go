package dsp

import (
	"math"
	"testing"
	"time"
)

// powerAt is the power in dBm0 of the component of pcm at hz, by correlation
// under a window: an independent measure, not the product's filters.
func powerAt(pcm []int16, hz float64) float64 {
	var re, im, sum float64
	for i, s := range pcm {
		w := 0.5 - 0.5*math.Cos(2*math.Pi*(float64(i)+0.5)/float64(len(pcm)))
		a := 2 * math.Pi * hz * float64(i) / SampleRate
		re += w * float64(s) * math.Cos(a)
		im += w * float64(s) * math.Sin(a)
		sum += w
	}
	amplitude := 2 * math.Hypot(re, im) / sum
	return 20 * math.Log10(math.Max(amplitude, 1e-3)/zeroDBm0)
}

func TestZeroDBm0Is314BelowTheClippingPoint(t *testing.T) {
	pcm := make([]int16, 8000)
	for i := range pcm {
		pcm[i] = clip16(32768 * math.Sin(2*math.Pi*1004*float64(i)/SampleRate))
	}
	if got := Level(pcm); math.Abs(got-3.14) > 0.01 {
		t.Errorf("full scale is %.3f dBm0", got)
	}
}

// TestA01ToneHasItsFrequenciesAndLevel: dial tone of some countries, ±1 dB in
// all and between its components; nothing elsewhere.
func TestA01ToneHasItsFrequenciesAndLevel(t *testing.T) {
	for _, code := range []string{"us", "uk", "de", "fr", "jp", "at", "au"} {
		p, _ := Country(code)
		hz := p.Dial.Loop[0].Hz
		pcm := make([]int16, SampleRate)
		tone := NewTone(p.Dial, -13)
		tone.Fill(pcm)
		if got := Level(pcm); math.Abs(got+13) > 0.2 {
			t.Errorf("%s: level %.2f, want -13", code, got)
		}
		want := -13 - 10*math.Log10(float64(len(hz)))
		for _, f := range hz {
			if got := powerAt(pcm, f); math.Abs(got-want) > 0.1 {
				t.Errorf("%s: %v Hz at %.2f dBm0, want %.2f", code, f, got, want)
			}
		}
		for _, f := range []float64{200, 600, 1000, 2000, 3000} {
			if got := powerAt(pcm, f); got > -70 {
				t.Errorf("%s: %.1f dBm0 at %v Hz", code, got, f)
			}
		}
	}
}

// TestToneKeepsItsCadence measures bursts of busy and ringback.
func TestToneKeepsItsCadence(t *testing.T) {
	for _, c := range []struct{ text string }{{"480+620/500 0/500"}, {"400/400 0/350 400/225 0/525"}, {"425/1000 ! 425/200 0/200"}} {
		cad, err := ParseCadence(c.text)
		if err != nil {
			t.Fatal(err)
		}
		tone := NewTone(cad, -10)
		frame := make([]int16, 80)
		at := 0
		check := func(s Step) {
			for range samples(s.Duration) / 80 {
				tone.Fill(frame)
				got := Level(frame)
				if on := len(s.Hz) > 0; on && got < -25 || !on && got != Quietest {
					t.Errorf("%q: level %.1f at %d ms", c.text, got, at)
				}
				at += 10
			}
			// steps in these cadences need not be whole frames
			if rest := samples(s.Duration) % 80; rest > 0 {
				tone.Fill(frame[:rest])
				at += rest / 8
			}
		}
		for _, s := range cad.Intro {
			check(s)
		}
		for range 3 {
			for _, s := range cad.Loop {
				check(s)
			}
		}
	}
}

// TestToneDoesNotClick: keying, stopping and the seam of a loop leave nothing
// above the voice band's lower half.
func TestToneDoesNotClick(t *testing.T) {
	for name, text := range map[string]string{"busy": "400/50 0/50", "sit": "950/330 1400/330 1800/330 0/1000", "seam": "425/300"} {
		cad, err := ParseCadence(text)
		if err != nil {
			t.Fatal(err)
		}
		pcm := make([]int16, 8000)
		tone := NewTone(cad, -10)
		tone.Fill(pcm[:5000])
		tone.Stop()
		tone.Fill(pcm[5000:])
		if !tone.Done() || Level(pcm[5000+edgeLen:]) != Quietest {
			t.Errorf("%s: not silent after Stop", name)
		}
		// A second difference is large where the curve has a corner.
		limit := 0.0
		for _, s := range cad.Loop {
			for _, hz := range s.Hz {
				w := 2 * math.Pi * hz / SampleRate
				limit = math.Max(limit, w*w*peak(-10)*1.6+math.Pow(math.Pi/edgeLen, 2)*peak(-10)+w*math.Pi/edgeLen*peak(-10)+4)
			}
		}
		for i := 2; i < len(pcm); i++ {
			if d := math.Abs(float64(pcm[i]) - 2*float64(pcm[i-1]) + float64(pcm[i-2])); d > limit {
				t.Fatalf("%s: corner of %.0f at sample %d, limit %.0f", name, d, i, limit)
			}
		}
	}
}

func TestToneIsTheSameWhateverTheFrame(t *testing.T) {
	p, _ := Country("uk")
	one, many := make([]int16, 40000), make([]int16, 40000)
	NewTone(p.Ringback, -10).Fill(one)
	tone := NewTone(p.Ringback, -10)
	for at, n := 0, 1; at < len(many); n = n%161 + 7 {
		end := min(at+n, len(many))
		tone.Fill(many[at:end])
		at = end
	}
	for i := range one {
		if one[i] != many[i] {
			t.Fatalf("sample %d differs", i)
		}
	}
}

func TestModulatedToneHasSidebandsAndLevel(t *testing.T) {
	cad, _ := ParseCadence("400*25/0")
	pcm := make([]int16, SampleRate)
	NewTone(cad, -10).Fill(pcm)
	if got := Level(pcm); math.Abs(got+10) > 0.2 {
		t.Errorf("level %.2f", got)
	}
	carrier := powerAt(pcm, 400)
	for _, f := range []float64{375, 425} {
		if got := powerAt(pcm, f) - carrier; math.Abs(got+6.9) > 0.3 { // 20 log (0.9/2)
			t.Errorf("sideband %v Hz %.2f dB", f, got)
		}
	}
}

func TestMeterFollowsTheLevel(t *testing.T) {
	cad, _ := ParseCadence("1000/0")
	tone, m := NewTone(cad, -20), Meter{}
	frame := make([]int16, 80)
	for range 100 {
		tone.Fill(frame)
		m.Feed(frame)
	}
	if got := m.Level(); math.Abs(got+20) > 0.1 {
		t.Errorf("after a second %.2f dBm0, want -20", got)
	}
	clear(frame)
	for range 100 {
		m.Feed(frame)
	}
	if got := m.Level(); got > -50 {
		t.Errorf("a second later %.2f dBm0", got)
	}
	if got := (&Meter{}).Level(); got != Quietest {
		t.Errorf("unused: %v", got)
	}
}

func TestParseCadenceRefuses(t *testing.T) {
	for _, text := range []string{"425", "425/x", "425/-1", "0.0/5", "5000/100", "1+2+3+4+5/100", "425@x/5", "425*/5", "425/1 ! 425/1 !", "nan/1", "425@-99/1", "425|x/1"} {
		if c, err := ParseCadence(text); err == nil {
			t.Errorf("%q: %+v", text, c)
		}
	}
}

func FuzzParseCadence(f *testing.F) {
	for _, s := range []string{"350+440/0", "400*25/400 0/200", "950/330 ! 425@-10|450/1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		c, err := ParseCadence(text)
		if err == nil && !c.IsZero() {
			NewTone(c, 3).Fill(make([]int16, 400))
		}
	})
}

// TestCountryTableIsComplete reads every cadence of every row.
func TestCountryTableIsComplete(t *testing.T) {
	last := ""
	for _, r := range countries {
		if r.code <= last {
			t.Errorf("%s after %s", r.code, last)
		}
		last = r.code
		for _, text := range []string{r.dial, r.ringback, r.busy, r.congestion, r.callWaiting, r.sit, r.stutter} {
			if _, err := ParseCadence(text); err != nil {
				t.Errorf("%s: %v", r.code, err)
			}
		}
		p, ok := Country(r.code)
		if !ok {
			t.Fatalf("%s: not found", r.code)
		}
		for name, c := range map[string]Cadence{"dial": p.Dial, "ringback": p.Ringback, "busy": p.Busy, "congestion": p.Congestion, "call waiting": p.CallWaiting, "SIT": p.SIT, "stutter": p.Stutter} {
			if c.IsZero() {
				t.Errorf("%s: no %s", r.code, name)
			}
		}
		if len(p.Ring) < 2 || len(p.Ring)%2 != 0 || p.DTMFHigh > -3 || p.DTMFHigh < -20 || p.DTMFLow > -3 || p.DTMFLow < -20 {
			t.Errorf("%s: ring %v, DTMF %v %v", r.code, p.Ring, p.DTMFHigh, p.DTMFLow)
		}
	}
	if len(countries) != 150 {
		t.Errorf("%d countries", len(countries))
	}
}

func TestCountryCodes(t *testing.T) {
	uk, ok := Country("GB")
	if !ok || uk.Code != "uk" || len(uk.Ring) != 4 || uk.Ring[3] != 2*time.Second || uk.CallerID != BT || uk.Checked != CoreAgrees {
		t.Errorf("GB: %+v", uk)
	}
	if us, ok := Country("us"); !ok || us.CallerID != Bellcore || us.Congestion.Loop[0].Duration != 250*time.Millisecond {
		t.Errorf("us: %+v", us)
	}
	if _, ok := Country("xx"); ok {
		t.Error("xx exists")
	}
	a, _ := Country("de")
	a.Dial.Loop[0].Hz[0] = 1
	if b, _ := Country("de"); b.Dial.Loop[0].Hz[0] != 425 {
		t.Error("a plan that was changed changed the next")
	}
}

func TestToneDoesNotAllocate(t *testing.T) {
	p, _ := Country("uk")
	tone, m := NewTone(p.Ringback, -10), &Meter{}
	frame := make([]int16, 80)
	if n := testing.AllocsPerRun(1000, func() { tone.Fill(frame); m.Feed(frame); Level(frame) }); n != 0 {
		t.Errorf("%v allocations a frame", n)
	}
}
