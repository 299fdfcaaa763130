package dsp

import (
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// keyed makes digits with any fault: off-frequency rows and columns, twist,
// noise, timing. Levels in dBm0 per tone.
type keyed struct {
	row, col   float64 // factor of the frequency
	high, low  float64 // dBm0
	on, off    int     // samples
	gapAt, gap int     // samples of silence within each digit
	lead       int     // silence first
	noise      float64 // dBm0; 0 none
	law        bool    // pass through µ-law
	dial       float64 // dBm0 of a dial tone under it; 0 none
	rnd        *rand.Rand
}

func (k keyed) make(digits string) []int16 {
	var out []float64
	silence := func(n int) { out = append(out, make([]float64, n)...) }
	silence(k.lead)
	for _, d := range digits {
		i := strings.IndexRune(dtmfKeys, d)
		f1, f2 := dtmfRows[i/4]*k.row, dtmfColumns[i%4]*k.col
		p1, p2 := k.rnd.Float64()*7, k.rnd.Float64()*7
		for n := range k.on {
			v := peak(k.low)*math.Sin(2*math.Pi*f1*float64(n)/SampleRate+p1) + peak(k.high)*math.Sin(2*math.Pi*f2*float64(n)/SampleRate+p2)
			if n >= k.gapAt && n < k.gapAt+k.gap {
				v = 0
			}
			out = append(out, v)
		}
		silence(k.off)
	}
	silence(400)
	pcm := make([]int16, len(out))
	for n, v := range out {
		if k.noise != 0 {
			v += k.rnd.NormFloat64() * peak(k.noise) / math.Sqrt2
		}
		if k.dial != 0 {
			a := peak(k.dial) / math.Sqrt2
			v += a*math.Sin(2*math.Pi*350*float64(n)/SampleRate) + a*math.Sin(2*math.Pi*440*float64(n)/SampleRate)
		}
		pcm[n] = clip16(v)
	}
	if k.law {
		code := make([]byte, len(pcm))
		MuLaw.Encode(code, pcm)
		MuLaw.Decode(pcm, code)
	}
	return pcm
}

func received(r *DTMFReceiver, pcm []int16) (digits string, events []DTMFEvent) {
	for len(pcm) > 0 {
		n := min(80, len(pcm))
		r.Feed(pcm[:n], func(e DTMFEvent) {
			events = append(events, e)
			if e.On {
				digits += string(e.Digit)
			}
		})
		pcm = pcm[n:]
	}
	return digits, events
}

const allKeys = "1234567890*#ABCD"

// TestQ24ReceiverLimits runs all sixteen digits at every alignment of window
// and tone through the limits of Q.24 and Q.23 (docs/lines.md, Signals).
func TestQ24ReceiverLimits(t *testing.T) {
	const seed = 24
	ms := func(n int) int { return n * 8 }
	ok := keyed{row: 1, col: 1, high: -9, low: -11, on: ms(60), off: ms(60)}
	type change func(*keyed)
	for _, c := range []struct {
		name   string
		change change
		accept bool
	}{
		{"nominal", func(*keyed) {}, true},
		{"+1.5 %", func(k *keyed) { k.row, k.col = 1.015, 1.015 }, true},
		{"-1.5 %", func(k *keyed) { k.row, k.col = 0.985, 0.985 }, true},
		{"row +1.5 %, column -1.5 %", func(k *keyed) { k.row, k.col = 1.015, 0.985 }, true},
		{"transmitter +1.8 %", func(k *keyed) { k.row, k.col = 1.018, 1.018 }, true},
		{"row +3.5 %", func(k *keyed) { k.row = 1.035 }, false},
		{"row -3.5 %", func(k *keyed) { k.row = 0.965 }, false},
		{"column +3.5 %", func(k *keyed) { k.col = 1.035 }, false},
		{"column -3.5 %", func(k *keyed) { k.col = 0.965 }, false},
		{"both +3.5 %", func(k *keyed) { k.row, k.col = 1.035, 1.035 }, false},
		{"40 ms on, 40 ms off", func(k *keyed) { k.on, k.off = ms(40), ms(40) }, true},
		{"40 ms on, 40 ms off, +1.5 %", func(k *keyed) { k.on, k.off, k.row, k.col = ms(40), ms(40), 1.015, 1.015 }, true},
		{"40 ms on, 30 ms off", func(k *keyed) { k.on, k.off = ms(40), ms(30) }, true},
		{"20 ms on", func(k *keyed) { k.on = ms(20) }, false},
		{"23 ms on", func(k *keyed) { k.on = ms(23) }, false},
		{"0 dBm", func(k *keyed) { k.high, k.low = 0, 0 }, true},
		{"-25 dBm", func(k *keyed) { k.high, k.low = -25, -25 }, true},
		{"-30 dBm", func(k *keyed) { k.high, k.low = -30, -30 }, true},
		{"-25 dBm through µ-law", func(k *keyed) { k.high, k.low, k.law = -25, -25, true }, true},
		{"-45 dBm", func(k *keyed) { k.high, k.low = -45, -45 }, false},
		{"-55 dBm", func(k *keyed) { k.high, k.low = -55, -55 }, false},
		{"normal twist 8 dB", func(k *keyed) { k.high, k.low = -18, -10 }, true},
		{"reverse twist 4 dB", func(k *keyed) { k.high, k.low = -10, -14 }, true},
		{"normal twist 8 dB, -1.5 %, 40 ms", func(k *keyed) { k.high, k.low, k.row, k.col, k.on, k.off = -25, -17, .985, .985, ms(40), ms(40) }, true},
		{"reverse twist 4 dB, +1.5 %, 40 ms", func(k *keyed) { k.high, k.low, k.row, k.col, k.on, k.off = -21, -25, 1.015, 1.015, ms(40), ms(40) }, true},
		{"normal twist 12 dB", func(k *keyed) { k.high, k.low = -22, -10 }, false},
		{"reverse twist 9 dB", func(k *keyed) { k.high, k.low = -10, -19 }, false},
		{"S/N 15 dB", func(k *keyed) { k.high, k.low, k.noise = -10, -10, -22 }, true},
		{"S/N 15 dB, 40 ms, 1.5 % off", func(k *keyed) {
			k.high, k.low, k.noise, k.on, k.off, k.row, k.col = -20, -20, -32, ms(40), ms(40), 1.015, .985
		}, true},
		{"S/N 0 dB", func(k *keyed) { k.high, k.low, k.noise = -20, -20, -17 }, false},
		{"gap of 10 ms", func(k *keyed) { k.on, k.gapAt, k.gap = ms(100), ms(45), ms(10) }, true},
		{"row alone", func(k *keyed) { k.high = -90 }, false},
		{"column alone", func(k *keyed) { k.low = -90 }, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(seed, 0))
			step := 3
			if raceDetector {
				step = 13
			}
			for lead := 800; lead < 840; lead += step {
				k := ok
				k.rnd, k.lead = rnd, lead
				c.change(&k)
				got, events := received(NewDTMFReceiver(), k.make(allKeys))
				want := ""
				if c.accept {
					want = allKeys
				}
				if got != want {
					t.Fatalf("seed %d, lead %d: got %q, want %q", seed, lead, got, want)
				}
				if len(events) != 2*len(want) {
					t.Fatalf("lead %d: %d edges for %d digits", lead, len(events), len(want))
				}
				if k.noise != 0 || k.gap != 0 {
					continue
				}
				for i := range want {
					start := lead + i*(k.on+k.off)
					if on, off := int(events[2*i].Sample), int(events[2*i+1].Sample); abs(on-start) > ms(10) || abs(off-start-k.on) > ms(10) {
						t.Fatalf("lead %d: digit %d at %d…%d, was %d…%d", lead, i, on, off, start, start+k.on)
					}
				}
			}
		})
	}
}

// TestA03ThousandDigitsAtTenASecond: seeded variation within the limits.
func TestA03ThousandDigitsAtTenASecond(t *testing.T) {
	const seed = 3
	rnd := rand.New(rand.NewPCG(seed, 3))
	missed := 0
	for i := range 1000 {
		twist := rnd.Float64()*12 - 8 // high relative to low
		low := -25 + rnd.Float64()*15
		high := low + twist
		if high < -25 {
			high = -25
			low = high - twist
		}
		k := keyed{
			row: 1 + (rnd.Float64()*2-1)*0.015, col: 1 + (rnd.Float64()*2-1)*0.015,
			high: high, low: low, on: 400, off: 400, lead: rnd.IntN(400) + 200,
			noise: min(high, low) - 15, law: true, rnd: rnd,
		}
		d := string(allKeys[i%16])
		if got, _ := received(NewDTMFReceiver(), k.make(d)); got != d {
			missed++
			t.Logf("%q heard as %q: %+v", d, got, k)
		}
	}
	if missed > 0 {
		t.Errorf("seed %d: %d of 1000 missed", seed, missed)
	}
}

func TestA02DigitIsHeardOverTheEchoOfDialTone(t *testing.T) {
	rnd := rand.New(rand.NewPCG(2, 2))
	k := keyed{row: 1, col: 1, high: -25, low: -23, on: 320, off: 320, lead: 811, dial: -20, rnd: rnd}
	r := NewDTMFReceiver()
	r.DialTone(true)
	if got, _ := received(r, k.make(allKeys)); got != allKeys {
		t.Errorf("with DialTone got %q", got)
	}
	r = NewDTMFReceiver()
	r.DialTone(true)
	k.high, k.low = -90, -90
	if got, _ := received(r, k.make(allKeys)); got != "" {
		t.Errorf("dial tone alone gives %q", got)
	}
}

func TestPresentIsTrueWithinTwoWindowsOfTheStart(t *testing.T) {
	rnd := rand.New(rand.NewPCG(5, 5))
	for lead := 800; lead < 880; lead++ {
		k := keyed{row: 1, col: 1, high: -9, low: -11, on: 800, off: 400, lead: lead, rnd: rnd}
		r := NewDTMFReceiver()
		first, last := -1, -1
		for i, s := range k.make("5") {
			r.Feed([]int16{s}, func(DTMFEvent) {})
			if r.Present() {
				if first < 0 {
					first = i
				}
				last = i
			}
		}
		if first < lead || first > lead+200 {
			t.Errorf("lead %d: present %d samples after the start, want at most 200 (25 ms)", lead, first-lead)
		}
		if last < lead+800 || last > lead+800+400 {
			t.Errorf("lead %d: present until %d after the end", lead, last-lead-800)
		}
	}
}

const spokenText = `The north wind and the sun were disputing which was the stronger, when a traveller came along
wrapped in a warm cloak. Zero one two three four five six seven eight nine. Please hold the line, we will be with you
as soon as we can. Hello? Oh no! Eeeh, well. Aah. Ooh. `

// TestA04SpeechGivesNoDigits: seeded speech-like sound (a pitch with harmonics
// under moving formants, and pauses), then real synthetic speech where
// espeak-ng is installed. 30 minutes may give one digit.
func TestA04SpeechGivesNoDigits(t *testing.T) {
	const seed = 4
	minutes := 15
	if raceDetector {
		minutes = 3
	}
	r := NewDTMFReceiver()
	false1 := 0
	pcm := make([]int16, 80)
	v := newVoice(seed)
	for range minutes * 6000 { // frames of 10 ms
		v.fill(pcm)
		r.Feed(pcm, func(e DTMFEvent) {
			if e.On {
				false1++
			}
		})
	}
	if false1 > 1 {
		t.Errorf("seed %d: %d digits in %d minutes of speech-like sound", seed, false1, minutes)
	}
}

func TestA04SpokenTextGivesNoDigits(t *testing.T) {
	espeak, sox := tool(t, "espeak-ng"), tool(t, "sox")
	total, digits := 0, ""
	voices := []string{"en", "en+f2", "de", "de+f3", "fr+f4", "es", "it+f5", "sv+m3"}
	if raceDetector {
		voices = voices[:2]
	}
	for _, voice := range voices {
		for _, pitch := range []string{"30", "60", "90"} {
			wav := filepath.Join(t.TempDir(), "s.wav")
			run(t, nil, espeak, "-v", voice, "-p", pitch, "-w", wav, strings.Repeat(spokenText, 3))
			pcm := fromRaw(run(t, nil, sox, wav, "-t", "raw", "-r", "8000", "-e", "signed", "-b", "16", "-L", "-c", "1", "-", "gain", "-n", "-6"))
			total += len(pcm)
			got, _ := received(NewDTMFReceiver(), pcm)
			digits += got
		}
	}
	t.Logf("%.1f minutes of speech: digits %q", float64(total)/SampleRate/60, digits)
	if total < len(voices)*60*SampleRate {
		t.Fatalf("only %d samples of speech", total)
	}
	if len(digits) > 1 {
		t.Errorf("speech gives digits %q", digits)
	}
}

// voice is a crude model of speech without a sample of anybody's.
type voice struct {
	rnd           *rand.Rand
	n             int
	pitch, target float64
	phase         float64
	formants      [3]float64
	amplitude     float64
}

func newVoice(seed uint64) *voice { return &voice{rnd: rand.New(rand.NewPCG(seed, 77)), pitch: 120} }

func (v *voice) fill(pcm []int16) {
	if v.n == 0 {
		v.n = 5 + v.rnd.IntN(40) // frames of one sound
		v.target = 80 + 300*v.rnd.Float64()
		v.formants = [3]float64{250 + 700*v.rnd.Float64(), 800 + 1700*v.rnd.Float64(), 2000 + 1400*v.rnd.Float64()}
		v.amplitude = 0
		if v.rnd.Float64() < 0.8 {
			v.amplitude = 3000 * (0.2 + v.rnd.Float64())
		}
	}
	v.n--
	v.pitch += 0.15 * (v.target - v.pitch)
	var gain [40]float64
	harmonics := min(39, int(3400/v.pitch))
	for h := 1; h <= harmonics; h++ {
		for i, f := range v.formants {
			d := (float64(h)*v.pitch - f) / (60 + 40*float64(i))
			gain[h] += 1 / (1 + d*d) / float64(i+1)
		}
	}
	for i := range pcm {
		v.phase += v.pitch / SampleRate
		v.phase -= math.Floor(v.phase)
		s := 0.0
		for h := 1; h <= harmonics; h++ {
			s += gain[h] * math.Sin(2*math.Pi*v.phase*float64(h))
		}
		pcm[i] = clip16(s*v.amplitude + v.rnd.NormFloat64()*20)
	}
}

// TestA26MultimonDecodesOurDigits: a decoder of somebody else hears what we send.
func TestA26MultimonDecodesOurDigits(t *testing.T) {
	sox, multimon := tool(t, "sox"), tool(t, "multimon-ng")
	s := NewDTMFSender(-9, -11)
	const digits = "0123456789*#ABCD001122"
	if err := s.Queue(digits, 50*time.Millisecond, 50*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	pcm := filled(t, s)
	in := filepath.Join(t.TempDir(), "in.raw")
	at22k := run(t, raw(pcm), sox, "-t", "raw", "-r", "8000", "-e", "signed", "-b", "16", "-L", "-c", "1", "-", "-t", "raw", "-r", "22050", "-e", "signed", "-b", "16", "-L", "-c", "1", "-")
	if err := os.WriteFile(in, at22k, 0o600); err != nil {
		t.Fatal(err)
	}
	out := run(t, nil, multimon, "-q", "-a", "DTMF", "-t", "raw", in)
	var got strings.Builder
	for _, m := range regexp.MustCompile(`DTMF: (.)`).FindAllSubmatch(out, -1) {
		got.Write(m[1])
	}
	if got.String() != digits {
		t.Errorf("multimon-ng decodes %q, sent %q", got.String(), digits)
	}
}

func TestSenderDigitsHaveTheirLevelsAndTimes(t *testing.T) {
	s := NewDTMFSender(-9, -11)
	if err := s.Queue("5", 80*time.Millisecond, 60*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	pcm := filled(t, s)
	want := 10 * math.Log10(math.Pow(10, -0.9)+math.Pow(10, -1.1))
	if got := Level(pcm[40 : 640-40]); math.Abs(got-want) > 0.3 {
		t.Errorf("level %.2f dBm0, want %.2f", got, want)
	}
	if got := Level(pcm[640:]); got != Quietest {
		t.Errorf("pause has level %.1f", got)
	}
	if len(pcm) != 640+480 {
		t.Errorf("%d samples of digit and pause, want %d", len(pcm), 640+480)
	}
}

func TestSenderRefusesWhatIsNoDigit(t *testing.T) {
	s := NewDTMFSender(-9, -11)
	if err := s.Queue("12x", time.Second, 0); err == nil {
		t.Error("queued")
	}
	frame := []int16{1, 2, 3}
	if s.Fill(frame) || frame[1] != 0 {
		t.Error("something was queued")
	}
}

func TestReceiverHearsTheSender(t *testing.T) {
	for _, on := range []int{40, 50, 100} {
		s := NewDTMFSender(-10, -10)
		d := time.Duration(on) * time.Millisecond
		if err := s.Queue(allKeys, d, d); err != nil {
			t.Fatal(err)
		}
		if got, _ := received(NewDTMFReceiver(), append(filled(t, s), make([]int16, 800)...)); got != allKeys {
			t.Errorf("%d ms: %q", on, got)
		}
	}
}

func TestDTMFDoesNotAllocate(t *testing.T) {
	s, r := NewDTMFSender(-9, -11), NewDTMFReceiver()
	if err := s.Queue(strings.Repeat("5", 100), time.Second, time.Second); err != nil {
		t.Fatal(err)
	}
	frame := make([]int16, 80)
	report := func(DTMFEvent) {}
	if n := testing.AllocsPerRun(500, func() { s.Fill(frame); r.Feed(frame, report) }); n != 0 {
		t.Errorf("%v allocations a frame", n)
	}
}

func BenchmarkDTMFReceiverFrame(b *testing.B) {
	r := NewDTMFReceiver()
	frame := make([]int16, 80)
	NewTone(Cadence{Loop: []Step{{Hz: []float64{697, 1209}}}}, -10).Fill(frame)
	for b.Loop() {
		r.Feed(frame, func(DTMFEvent) {})
	}
}

// filled plays a sender out.
func filled(t *testing.T, s *DTMFSender) []int16 {
	t.Helper()
	var pcm []int16
	frame := make([]int16, 80)
	for s.Fill(frame) {
		pcm = append(pcm, frame...)
		if len(pcm) > 100*SampleRate {
			t.Fatal("the sender does not end")
		}
	}
	return pcm
}

func fromRaw(b []byte) []int16 {
	pcm := make([]int16, len(b)/2)
	for i := range pcm {
		pcm[i] = int16(uint16(b[2*i]) | uint16(b[2*i+1])<<8)
	}
	return pcm
}

func ExampleDTMFReceiver() {
	s, r := NewDTMFSender(-9, -11), NewDTMFReceiver()
	_ = s.Queue("42", 60*time.Millisecond, 60*time.Millisecond)
	frame := make([]int16, 80)
	for s.Fill(frame) {
		r.Feed(frame, func(e DTMFEvent) {
			if e.On {
				fmt.Printf("%c", e.Digit)
			}
		})
	}
	// Output: 42
}
