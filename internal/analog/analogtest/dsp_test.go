package analogtest

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// soxLaw lets sox (which nobody here wrote) decode or encode G.711.
func sox(t *testing.T, in []byte, args ...string) []byte {
	t.Helper()
	path, err := exec.LookPath("sox")
	if err != nil {
		t.Skip("sox is not installed")
	}
	cmd := exec.Command(path, append([]string{"-D", "-V1"}, args...)...)
	cmd.Stdin = bytes.NewReader(in)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("sox %v: %v: %s", args, err, &stderr)
	}
	return out
}

func octets(pcm []int16) []byte {
	b := make([]byte, 0, 2*len(pcm))
	for _, s := range pcm {
		b = binary.LittleEndian.AppendUint16(b, uint16(s))
	}
	return b
}

func pcmOf(b []byte) []int16 {
	pcm := make([]int16, len(b)/2)
	for i := range pcm {
		pcm[i] = int16(binary.LittleEndian.Uint16(b[2*i:]))
	}
	return pcm
}

var rawPCM = []string{"-t", "raw", "-r", "8000", "-e", "signed", "-b", "16", "-c", "1"}

func TestG711AgainstSox(t *testing.T) {
	var all [256]byte
	for i := range all {
		all[i] = byte(i)
	}
	for law, enc := range map[Law]string{ALaw: "a-law", MuLaw: "u-law"} {
		var mine [256]int16
		law.Decode(mine[:], all[:])
		theirs := pcmOf(sox(t, all[:], append([]string{"-t", "raw", "-r", "8000", "-e", enc, "-c", "1", "-"}, append(rawPCM, "-")...)...))
		for i, want := range theirs {
			if mine[i] != want {
				t.Errorf("%s code %#02x is %d, sox says %d", law, i, mine[i], want)
			}
		}
		var back [256]byte
		law.Encode(back[:], mine[:])
		for i := range back {
			if back[i] != byte(i) && !(law == MuLaw && i == 0x7F && back[i] == 0xFF) {
				t.Errorf("%s code %#02x comes back as %#02x", law, i, back[i])
			}
		}
		// Encoding is to the nearest code: never further than half a step.
		for s := -32768; s <= 32767; s++ {
			code, out := []byte{0}, []int16{0}
			law.Encode(code, []int16{int16(s)})
			law.Decode(out, code)
			if d, most := math.Abs(float64(out[0])-float64(s)), 8+math.Abs(float64(s))/32; d > most+700*b2f(s < -32000 || s > 32000) {
				t.Fatalf("%s: %d becomes %d", law, s, out[0])
			}
		}
	}
}

func b2f(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func tone(level float64, d time.Duration, hz ...float64) []int16 {
	pcm := make([]int16, samples(d))
	newPlayer(Cadence{{Hz: hz}}, 0, level).fill(pcm)
	return pcm
}

func TestLevelAndGoertzel(t *testing.T) {
	for _, level := range []float64{-3, -10, -30, -45} {
		pcm := tone(level, 200*time.Millisecond, 1004)
		if got := Level(pcm); math.Abs(got-level) > 0.3 {
			t.Errorf("level %.2f, want %.2f", got, level)
		}
		if got := dBm0(goertzel(pcm, 1004)); math.Abs(got-level) > 0.3 {
			t.Errorf("goertzel %.2f, want %.2f", got, level)
		}
	}
	if got := Level(make([]int16, 80)); got != silentLevel {
		t.Errorf("silence is %.1f", got)
	}
}

func TestPeaksNameTheFrequencies(t *testing.T) {
	for _, hz := range [][]float64{{425}, {440}, {350, 440}, {400, 450}, {440, 480}, {480, 620}, {1004}, {2130, 2750}, {384, 416}} {
		got := frequencies(tone(-15, 128*time.Millisecond, hz...))
		if len(got) != len(hz) {
			t.Errorf("%v: found %v", hz, got)
			continue
		}
		for i := range hz {
			if math.Abs(got[i]-hz[i]) > 6 {
				t.Errorf("%v: found %v", hz, got)
			}
		}
	}
	rng := rand.New(rand.NewPCG(3, 3))
	noise := make([]int16, 1024)
	for i := range noise {
		noise[i] = int16(rng.IntN(8000) - 4000)
	}
	if got := frequencies(noise); got != nil {
		t.Errorf("noise has pitches %v", got)
	}
}

// multimon runs multimon-ng on PCM and returns what it prints.
func multimon(t *testing.T, pcm []int16, demod string) string {
	t.Helper()
	path, err := exec.LookPath("multimon-ng")
	if err != nil {
		t.Skip("multimon-ng is not installed")
	}
	raw := sox(t, octets(pcm), append(append(append([]string{}, rawPCM...), "-"), "-t", "raw", "-r", "22050", "-e", "signed", "-b", "16", "-c", "1", "-")...)
	cmd := exec.Command(path, "-q", "-a", demod, "-t", "raw", "-")
	cmd.Stdin = bytes.NewReader(raw)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("multimon-ng: %v: %s", err, out)
	}
	return string(out)
}

func TestMultimonReadsTheDigitsOfThePhone(t *testing.T) {
	const digits = "0123456789*#ABCD"
	pcm, err := DTMF(digits, Keying{On: 60 * time.Millisecond, Off: 60 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	var got strings.Builder
	for _, line := range strings.Split(multimon(t, append(pcm, make([]int16, 800)...), "DTMF"), "\n") {
		if d, ok := strings.CutPrefix(line, "DTMF: "); ok {
			got.WriteString(strings.TrimSpace(d))
		}
	}
	if got.String() != digits {
		t.Errorf("multimon-ng reads %q, want %q", got.String(), digits)
	}
	if _, err := DTMF("12x", Keying{}); err == nil {
		t.Error("digit x accepted")
	}
}

func TestDTMFReceiver(t *testing.T) {
	read := func(pcm []int16) string {
		var r dtmfReceiver
		var got strings.Builder
		r.feed(append(pcm, make([]int16, 800)...), func(d byte) { got.WriteByte(d) })
		return got.String()
	}
	const digits = "1234567890*#ABCD11"
	for name, k := range map[string]Keying{
		"usual":        {},
		"fast":         {On: 50 * time.Millisecond, Off: 50 * time.Millisecond},
		"40 ms":        {On: 40 * time.Millisecond, Off: 40 * time.Millisecond},
		"weak":         {HighDBm0: -25, LowDBm0: -25},
		"high strong":  {HighDBm0: -10, LowDBm0: -14},
		"low strong":   {HighDBm0: -17, LowDBm0: -10},
		"1.5 % above":  {OffsetPct: 1.5},
		"1.5 % below":  {OffsetPct: -1.5},
		"long strokes": {On: 800 * time.Millisecond},
	} {
		pcm, _ := DTMF(digits, k)
		if got := read(pcm); got != digits {
			t.Errorf("%s: %q, want %q", name, got, digits)
		}
	}
	for name, pcm := range map[string][]int16{
		"dial tone": tone(-13, time.Second, 350, 440),
		"busy tone": tone(-13, time.Second, 480, 620),
		"1004 Hz":   tone(-10, time.Second, 1004),
		"one group": tone(-10, time.Second, 697),
		"too short": tone(-10, 12*time.Millisecond, 697, 1209),
		"drowned":   tone(-14, time.Second, 697, 1209, 1000, 1000),
		"3 groups":  tone(-12, time.Second, 697, 852, 1209),
		"too weak":  tone(-50, time.Second, 697, 1209),
	} {
		if got := read(pcm); got != "" {
			t.Errorf("%s: read as %q", name, got)
		}
	}
	// A digit that another project makes: sox adds two sines.
	low := sox(t, nil, append(append([]string{"-n"}, rawPCM...), "-", "synth", "0.1", "sine", "852", "gain", "-12")...)
	high := sox(t, nil, append(append([]string{"-n"}, rawPCM...), "-", "synth", "0.1", "sine", "1477", "gain", "-12")...)
	a, b := pcmOf(low), pcmOf(high)
	for i := range a {
		a[i] += b[i]
	}
	if got := read(a); got != "9" {
		t.Errorf("sox's 9 read as %q", got)
	}
}

func TestCallerIDBothModemsAndMultimon(t *testing.T) {
	at := time.Date(2026, 3, 9, 14, 5, 0, 0, time.UTC)
	id := CallerID{Number: "0401234567", Name: "Aino"}
	for name, m := range map[string]modem{"Bell 202": bell202, "V.23": v23} {
		pcm := append(make([]int16, 4000), m.fskAudio(id.MDMF(at), 300, 180, -13.5)...)
		pcm = append(pcm, make([]int16, 4000)...)
		rng := rand.New(rand.NewPCG(1, 2))
		for i := range pcm {
			pcm[i] = mix(pcm[i], rng.NormFloat64()*amplitude(-40)/2)
		}
		var law [1]byte
		for i := range pcm {
			MuLaw.Encode(law[:], pcm[i:i+1])
			MuLaw.Decode(pcm[i:i+1], law[:])
		}
		got := 0
		newFSKReceiver(m).feed(pcm, func(msg []byte) {
			got++
			back, err := ParseCallerID(msg)
			if err != nil || back.Number != id.Number || back.Name != id.Name || back.Date != "03091405" {
				t.Errorf("%s: %+v, %v", name, back, err)
			}
		}, func(msg []byte) { t.Errorf("%s: damaged % x", name, msg) })
		if got != 1 {
			t.Errorf("%s: %d messages", name, got)
		}
		if out := multimon(t, pcm, "CLIPFSK"); !strings.Contains(out, id.Number) || !strings.Contains(out, "CS") {
			t.Errorf("%s: multimon-ng says %q", name, out)
		}
	}
	private := CallerID{Absent: 'P', NameAbsent: 'P'}
	if back, err := ParseCallerID(private.MDMF(at)); err != nil || back.Absent != 'P' || back.Number != "" || back.NameAbsent != 'P' {
		t.Errorf("private: %+v, %v", back, err)
	}
	sdmf := []byte{0x04, 0x12, '0', '9', '3', '0', '1', '2', '2', '4', '6', '0', '9', '5', '5', '5', '1', '2', '1', '2', 0x51}
	if back, err := ParseCallerID(sdmf); err != nil || back.Number != "6095551212" || back.Date != "09301224" {
		t.Errorf("SDMF: %+v, %v", back, err)
	}
}

func FuzzParseCallerID(f *testing.F) {
	f.Add(CallerID{Number: "123", Name: "x"}.MDMF(time.Unix(0, 0)))
	f.Add([]byte{0x80, 0, 0x80})
	f.Add([]byte{0x80, 3, 2, 9, 1, 0x71})
	f.Fuzz(func(t *testing.T, p []byte) {
		id, err := ParseCallerID(p)
		if err == nil && len(id.Number)+len(id.Name) > len(p) {
			t.Fatal("more text than octets")
		}
	})
}

// listen lets an ear hear pcm in ticks and returns what it recognised, in order.
func listen(e *ear, pcm []int16) (heard []Progress) {
	now := time.Unix(0, 0)
	for i := 0; i+80 <= len(pcm); i += 80 {
		now = now.Add(10 * time.Millisecond)
		e.hear(now, pcm[i:i+80])
		if n := len(heard); n == 0 || heard[n-1] != e.now {
			heard = append(heard, e.now)
		}
	}
	return heard
}

func TestEarKnowsTheTonesOfEachCountry(t *testing.T) {
	for _, row := range plans {
		p, _ := PlanOf(row.country)
		for want, c := range map[Progress]Cadence{DialTone: p.Dial, RingbackTone: p.Ringback, BusyTone: p.Busy, CongestionTone: p.Congestion} {
			if want == CongestionTone && fmt.Sprint(p.Congestion) == fmt.Sprint(p.Busy) {
				continue // the country has one tone for both
			}
			for _, law := range []Law{ALaw, MuLaw}[want%2 : want%2+1] {
				pcm := make([]int16, 13*sampleRate)
				newPlayer(c, 0, -18).fill(pcm)
				code := make([]byte, len(pcm))
				law.Encode(code, pcm)
				law.Decode(pcm, code)
				heard := listen(newEar(p), append(make([]int16, 1600), pcm...))
				var names []string
				for _, h := range heard {
					names = append(names, h.String())
				}
				if heard[len(heard)-1] != want {
					t.Errorf("%s %s: heard %v", row.country, want, names)
				}
				for _, h := range heard {
					if h > DialTone && h != want {
						t.Errorf("%s %s: taken for %s: %v", row.country, want, h, names)
						break
					}
				}
			}
		}
	}
}

func TestEarIsNotFooled(t *testing.T) {
	us, _ := PlanOf("us")
	for name, pcm := range map[string][]int16{
		"1004 Hz": tone(-16, 5*time.Second, 1004),
		"silence": make([]int16, 40000),
		"440 Hz":  tone(-16, 5*time.Second, 440),
	} {
		for _, h := range listen(newEar(us), pcm) {
			if h > Steady {
				t.Errorf("%s: taken for %s", name, h)
			}
		}
	}
	rng := rand.New(rand.NewPCG(5, 5))
	speech := make([]int16, 0, 20*sampleRate)
	for len(speech) < 20*sampleRate { // bursts of noise and of changing pitch
		d := time.Duration(80+rng.IntN(600)) * time.Millisecond
		burst := tone(-20, d, 150+200*rng.Float64(), 500+900*rng.Float64(), 1500+900*rng.Float64())
		for i := range burst {
			burst[i] = mix(burst[i], rng.NormFloat64()*200)
		}
		speech = append(append(speech, burst...), make([]int16, samples(time.Duration(rng.IntN(300))*time.Millisecond))...)
	}
	for _, h := range listen(newEar(us), speech) {
		if h > Steady {
			t.Errorf("speech-like sound taken for %s", h)
		}
	}
}

func TestAudioLogMeasuresGaps(t *testing.T) {
	e := newEar(Plan{})
	e.watch(700)
	gap := 430 * time.Millisecond
	pcm := append(tone(-16, time.Second, 700), make([]int16, samples(gap))...)
	pcm = append(append(pcm, tone(-16, time.Second, 700)...), tone(-16, 500*time.Millisecond, 1004)...)
	listen(e, append(make([]int16, 800), pcm...))
	l := e.log(700)
	start := time.Unix(0, 0)
	first, ok := l.First()
	if d := first.Sub(start) - 100*time.Millisecond; !ok || d.Abs() > 20*time.Millisecond {
		t.Errorf("first audible %v away", d)
	}
	gaps := l.Gaps(50 * time.Millisecond)
	if len(gaps) != 1 || (gaps[0].Lasts()-gap).Abs() > 20*time.Millisecond {
		t.Errorf("gaps %v, want one of %v", gaps, gap)
	}
	last, _ := l.Last()
	if d := last.Sub(start) - (2100*time.Millisecond + gap); d.Abs() > 20*time.Millisecond {
		t.Errorf("last audible %v away", d)
	}
	if g, ok := l.GapAfter(start.Add(1200*time.Millisecond), 50*time.Millisecond); !ok || g != gaps[0] {
		t.Errorf("gap after the cut: %v %v", g, ok)
	}
	if _, ok := l.GapAfter(start.Add(3*time.Second), 50*time.Millisecond); ok {
		t.Error("a gap after the last tone")
	}
}
