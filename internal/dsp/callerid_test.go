package dsp

import (
	"bytes"
	"errors"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

var anHour = time.Date(2026, 11, 23, 14, 5, 0, 0, time.UTC)

func TestCallerIDMessages(t *testing.T) {
	full := CallerID{Number: "+49 30 555-0123", Name: "Jürgen Groß", Time: anHour}
	for _, c := range []struct {
		name   string
		scheme CIDScheme
		cid    CallerID
		want   string // without checksum
	}{
		{"Bellcore", Bellcore, full, "\x80\x24\x01\x0811231405\x02\x0b49305550123\x07\x0dJuergen Gross"},
		{"ETSI", ETSI, full, "\x80\x26\x11\x01\x01\x01\x0811231405\x02\x0c+49305550123\x07\x0bJ\xfcrgen Gro\xdf"},
		{"single", BellcoreSingle, full, "\x04\x1311231405" + "49305550123"},
		{"private", Bellcore, CallerID{NumberAbsent: 'P', NameAbsent: 'P', Time: anHour}, "\x80\x10\x01\x0811231405\x04\x01P\x08\x01P"},
		{"unavailable", Bellcore, CallerID{NumberAbsent: 'O', NameAbsent: 'O'}, "\x80\x06\x04\x01O\x08\x01O"},
		{"single private", BellcoreSingle, CallerID{NumberAbsent: 'P', Time: anHour}, "\x04\x0911231405P"},
		{"too long", Bellcore, CallerID{Number: strings.Repeat("7", 40), Name: strings.Repeat("x", 99)},
			"\x80\x27\x02\x14" + strings.Repeat("7", 20) + "\x07\x0f" + strings.Repeat("x", 15)},
	} {
		want := []byte(c.want)
		want[1] = byte(len(want) - 2)
		var sum byte
		for _, b := range want {
			sum += b
		}
		want = append(want, 0-sum)
		if got := EncodeCallerID(c.scheme, c.cid); !bytes.Equal(got, want) {
			t.Errorf("%s:\n got %q\nwant %q", c.name, got, want)
		}
	}
	for scheme, want := range map[CIDScheme]string{DTMFAC: "A49305550123C", DTMFDC: "D49305550123C", DTMFAHash: "A49305550123#", NTT: "", NoCallerID: ""} {
		if got := EncodeCallerID(scheme, full); string(got) != want {
			t.Errorf("scheme %d: %q, want %q", scheme, got, want)
		}
	}
}

func TestCallerIDIsReadBack(t *testing.T) {
	for _, scheme := range []CIDScheme{Bellcore, ETSI, BT} {
		for _, cid := range []CallerID{
			{Number: "305550123", Name: "Alice", Time: anHour},
			{NumberAbsent: 'P', NameAbsent: 'P', Time: anHour},
			{NumberAbsent: 'O', NameAbsent: 'O'},
		} {
			got, err := ParseCallerID(EncodeCallerID(scheme, cid), anHour.Add(time.Hour))
			if err != nil || got != cid {
				t.Errorf("scheme %d: %+v, %v; want %+v", scheme, got, err, cid)
			}
		}
	}
}

func TestCallerIDTimeIsTheNearestToNow(t *testing.T) {
	m := EncodeCallerID(BellcoreSingle, CallerID{Number: "1", Time: time.Date(2026, 12, 31, 23, 59, 0, 0, time.UTC)})
	got, err := ParseCallerID(m, time.Date(2027, 1, 1, 0, 1, 0, 0, time.UTC))
	if err != nil || got.Time.Year() != 2026 {
		t.Errorf("got %v, %v", got.Time, err)
	}
}

func TestA23DamagedCallerIDIsRefused(t *testing.T) {
	m := EncodeCallerID(ETSI, CallerID{Number: "305550123", Name: "Alice", Time: anHour})
	for i := 2; i < len(m); i++ {
		for bit := range 8 {
			d := bytes.Clone(m)
			d[i] ^= 1 << bit
			if _, err := ParseCallerID(d, anHour); !errors.Is(err, ErrChecksum) {
				t.Fatalf("octet %d bit %d: %v", i, bit, err)
			}
		}
	}
	if _, err := ParseCallerID(sealCID(0x82, []byte{0x0B, 1, 0xFF}), anHour); !errors.Is(err, ErrOtherMessage) {
		t.Errorf("message waiting: %v", err)
	}
}

func FuzzParseCallerID(f *testing.F) {
	for _, s := range []CIDScheme{Bellcore, ETSI, BellcoreSingle} {
		f.Add(EncodeCallerID(s, CallerID{Number: "305550123", Name: "Alice", Time: anHour}))
	}
	f.Add(sealCID(cidMultiple, []byte{1, 8, '0', '2', '2', '9', '2', '5', '6', '1'}))
	f.Add(sealCID(cidMultiple, []byte{7, 200, 'x'}))
	f.Add([]byte{0x80, 0xFF})
	f.Fuzz(func(t *testing.T, m []byte) {
		if len(m) >= 3 { // let the fuzzer past the checksum
			m = bytes.Clone(m)
			m[1] = byte(len(m) - 3)
			m[len(m)-1] = -sumOctets(m[:len(m)-1])
		}
		cid, err := ParseCallerID(m, anHour)
		if err != nil {
			return
		}
		if len(cid.Number) > maxCIDNumber || strings.ContainsFunc(cid.Name, func(r rune) bool { return r < ' ' }) {
			t.Errorf("%q: %+v", m, cid)
		}
		if _, err := ParseCallerID(EncodeCallerID(ETSI, cid), anHour); err != nil {
			t.Errorf("%q gives %+v, which does not survive: %v", m, cid, err)
		}
	})
}

// FuzzFSKReceiver modulates any octets with any framing: whatever is on the line,
// a message is reported only whole.
func FuzzFSKReceiver(f *testing.F) {
	f.Add([]byte{0x80, 0xFF, 1, 2, 3}, uint16(300), uint16(180), int16(0))
	f.Add(EncodeCallerID(ETSI, CallerID{Number: "305550123"}), uint16(0), uint16(80), int16(200))
	f.Add(bytes.Repeat([]byte{0xFF}, 270), uint16(3), uint16(30), int16(-3000))
	f.Fuzz(func(t *testing.T, octets []byte, seizure, mark uint16, offset int16) {
		octets = octets[:min(len(octets), 270)]
		fsk, r := NewFSK(Bell202, -10), NewFSKReceiver()
		fsk.Send(Framing{Seizure: int(seizure % 400), Mark: int(mark % 400), Tail: 5}, octets)
		frame := make([]int16, 80)
		for fsk.Fill(frame) {
			for i := range frame {
				frame[i] += offset / 4
			}
			r.Feed(frame, func(m []byte) {
				if len(m) < 3 || len(m) != int(m[1])+3 {
					t.Errorf("%d octets: %q", len(m), m)
				}
				_, _ = ParseCallerID(m, anHour)
			})
		}
	})
}

// onLine is a message as samples between silences.
func onLine(scheme CIDScheme, offHook bool, message []byte, level float64) []int16 {
	modem, framing, _ := CIDFraming(scheme, offHook)
	f := NewFSK(modem, level)
	f.Send(framing, message)
	pcm := make([]int16, 800)
	frame := make([]int16, 80)
	for f.Fill(frame) {
		pcm = append(pcm, frame...)
	}
	return append(pcm, make([]int16, 800)...)
}

func TestA12CallerIDFramingHasTheBitsOfItsStandard(t *testing.T) {
	message := EncodeCallerID(Bellcore, CallerID{Number: "5550123"})
	for _, c := range []struct {
		scheme  CIDScheme
		offHook bool
		lead    time.Duration // before the first octet
	}{
		{Bellcore, false, 400 * time.Millisecond},
		{ETSI, false, 400 * time.Millisecond},
		{BT, false, 310 * time.Millisecond},
		{Bellcore, true, 80 * time.Second / 1200},
	} {
		_, framing, ok := CIDFraming(c.scheme, c.offHook)
		if !ok {
			t.Fatal(c.scheme)
		}
		want := c.lead + time.Duration(10*len(message)+10)*time.Second/1200
		if got := framing.Duration(message); (got - want).Abs() > time.Millisecond {
			t.Errorf("scheme %d: %v, want %v", c.scheme, got, want)
		}
		pcm := onLine(c.scheme, c.offHook, message, -13.5)
		if got := Level(pcm[1000 : 1000+int(c.lead.Seconds()*8000)-400]); math.Abs(got+13.5) > 0.3 {
			t.Errorf("scheme %d: level %.2f", c.scheme, got)
		}
	}
}

// TestA23CallerIDIsHeard: all schemes, through µ-law, levels, noise and a line
// that is 1 % off in rate.
func TestA23CallerIDIsHeard(t *testing.T) {
	const seed = 23
	rnd := rand.New(rand.NewPCG(seed, 0))
	message := EncodeCallerID(ETSI, CallerID{Number: "+49305550123", Name: "Alice U*U\x55", Time: anHour})
	for _, c := range []struct {
		name         string
		scheme       CIDScheme
		offHook      bool
		level, noise float64
		rate         float64
		hum          float64
	}{
		{"Bellcore", Bellcore, false, -13.5, -90, 1, -90},
		{"ETSI", ETSI, false, -13.5, -90, 1, -90},
		{"BT", BT, false, -13.5, -90, 1, -90},
		{"Bellcore off-hook", Bellcore, true, -13.5, -90, 1, -90},
		{"ETSI off-hook", ETSI, true, -13.5, -90, 1, -90},
		{"faint", ETSI, false, -36, -90, 1, -90},
		{"loud", Bellcore, false, 0, -90, 1, -90},
		{"1 % fast", Bellcore, false, -13.5, -90, 1.01, -90},
		{"1 % slow", ETSI, false, -13.5, -90, 0.99, -90},
		{"noise 15 dB down", Bellcore, false, -20, -35, 1, -90},
		{"noise 15 dB down", ETSI, false, -20, -35, 1, -90},
		{"hum", ETSI, false, -20, -90, 1, -24},
	} {
		for try := range 10 {
			pcm := onLine(c.scheme, c.offHook, message, c.level)
			line := make([]int16, int(float64(len(pcm)-1)/c.rate)-1)
			for i := range line {
				at := float64(i) * c.rate
				n, frac := int(at), at-math.Floor(at)
				v := float64(pcm[n])*(1-frac) + float64(pcm[n+1])*frac
				v += rnd.NormFloat64()*peak(c.noise)/math.Sqrt2 + peak(c.hum)*math.Sin(2*math.Pi*50*float64(i)/8000)
				line[i] = clip16(v)
			}
			code := make([]byte, len(line))
			MuLaw.Encode(code, line)
			MuLaw.Decode(line, code)
			var got [][]byte
			r := NewFSKReceiver()
			for len(line) > 0 {
				n := min(80, len(line))
				r.Feed(line[:n], func(m []byte) { got = append(got, bytes.Clone(m)) })
				line = line[n:]
			}
			if len(got) != 1 || !bytes.Equal(got[0], message) {
				t.Errorf("seed %d, %s, try %d: got %q", seed, c.name, try, got)
			}
		}
	}
}

func TestNoCallerIDInSpeechNoiseAndTones(t *testing.T) {
	r := NewFSKReceiver()
	report := func(m []byte) {
		if _, err := ParseCallerID(m, anHour); err == nil {
			t.Errorf("message %q", m)
		}
	}
	pcm := make([]int16, 80)
	v := newVoice(6)
	for range 3 * 6000 {
		v.fill(pcm)
		r.Feed(pcm, report)
	}
	for _, name := range []string{"us", "de"} {
		p, _ := Country(name)
		for _, c := range []Cadence{p.Dial, p.Busy, p.SIT, AlertTone(false)} {
			tone := NewTone(c, -10)
			for range 500 {
				tone.Fill(pcm)
				r.Feed(pcm, report)
			}
		}
	}
}

// TestA12MultimonDecodesOurCallerID and the next: decoders of somebody else.
func TestA12MultimonDecodesOurCallerID(t *testing.T) {
	sox, multimon := tool(t, "sox"), tool(t, "multimon-ng")
	for _, scheme := range []CIDScheme{Bellcore, ETSI, BT} {
		pcm := onLine(scheme, false, EncodeCallerID(scheme, CallerID{Number: "305550123", Name: "Alice", Time: anHour}), -13.5)
		in := filepath.Join(t.TempDir(), "in.raw")
		at22k := run(t, raw(pcm), sox, "-t", "raw", "-r", "8000", "-e", "signed", "-b", "16", "-L", "-c", "1", "-", "-t", "raw", "-r", "22050", "-e", "signed", "-b", "16", "-L", "-c", "1", "-")
		if err := os.WriteFile(in, at22k, 0o600); err != nil {
			t.Fatal(err)
		}
		out := run(t, nil, multimon, "-q", "-a", "CLIPFSK", "-t", "raw", in)
		for _, want := range []string{`CLIPFSK: CS`, `DATE=11231405`, `CID=305550123`, `CNT=Alice`} {
			if !regexp.MustCompile(want).Match(out) {
				t.Errorf("scheme %d: %s not in %q", scheme, want, out)
			}
		}
	}
}

func TestA12MinimodemDecodesOurCallerID(t *testing.T) {
	sox, minimodem := tool(t, "sox"), tool(t, "minimodem")
	pcm := onLine(Bellcore, false, EncodeCallerID(Bellcore, CallerID{Number: "305550123", Name: "Alice", Time: anHour}), -13.5)
	wav := filepath.Join(t.TempDir(), "in.wav")
	run(t, raw(pcm), sox, "-t", "raw", "-r", "8000", "-e", "signed", "-b", "16", "-L", "-c", "1", "-", wav)
	out := run(t, nil, minimodem, "--rx", "callerid", "-f", wav)
	for _, want := range []string{"305550123", "Alice"} {
		if !bytes.Contains(out, []byte(want)) {
			t.Errorf("%s not in %q", want, out)
		}
	}
}

func TestFSKDoesNotAllocate(t *testing.T) {
	f, r := NewFSK(V23, -13.5), NewFSKReceiver()
	_, framing, _ := CIDFraming(ETSI, false)
	message := EncodeCallerID(ETSI, CallerID{Number: "1"})
	frame := make([]int16, 80)
	report := func([]byte) {}
	if n := testing.AllocsPerRun(500, func() {
		if !f.Fill(frame) {
			f.Send(framing, message)
		}
		r.Feed(frame, report)
	}); n != 0 {
		t.Errorf("%v allocations a frame", n)
	}
}
