package link

import (
	"bytes"
	"encoding/hex"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
)

func TestCRCIsX25(t *testing.T) {
	if got := CRC([]byte("123456789")); got != 0x906E {
		t.Fatalf("CRC of the check text is %#04x, want 0x906E", got)
	}
}

// TestTracesOfTheDocument reads the exact frames of docs/linecard-link.md §11, so
// that document and code cannot part.
func TestTracesOfTheDocument(t *testing.T) {
	text, err := os.ReadFile("../../../docs/linecard-link.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(text), "## 11. Traces")
	section, _, _ = strings.Cut(section, "## 12.")
	seen := 0
	for entry := range strings.SplitSeq(section, "\n  decoded\n") {
		raw, rest, ok := strings.Cut(entry, "\n  wire\n")
		if !ok {
			continue
		}
		decoded := octets(t, raw)
		var lines []string
		for l := range strings.SplitSeq(rest, "\n") {
			if !strings.HasPrefix(l, "    ") {
				break
			}
			lines = append(lines, l)
		}
		wire := octets(t, strings.Join(lines, " "))
		h := Header{Type(decoded[0]), decoded[1], uint16(decoded[2]) | uint16(decoded[3])<<8, uint16(decoded[4]) | uint16(decoded[5])<<8}
		body := decoded[6 : len(decoded)-2]
		if got := AppendFrame(nil, h, body); !bytes.Equal(got, wire) {
			t.Errorf("%x: encoded\n%x, document has\n%x", decoded, got, wire)
		}
		n := 0
		var r Reader
		r.Feed(wire, func(got Header, b []byte) {
			n++
			if got != h || !bytes.Equal(b, body) {
				t.Errorf("decoded %v %x, document has %v %x", got, b, h, body)
			}
		})
		if n != 1 {
			t.Errorf("%x: %d frames", wire, n)
		}
		seen++
	}
	if seen < 10 {
		t.Fatalf("only %d traces found in the document", seen)
	}
}

func octets(t *testing.T, text string) []byte {
	t.Helper()
	text = strings.ReplaceAll(text, "… (80 × d5) …", strings.Repeat("d5 ", 80))
	if strings.Count(text, "d5") > 80 { // the first of them stands before the dots
		text = strings.Replace(text, "d5 "+strings.Repeat("d5 ", 80), strings.Repeat("d5 ", 80), 1)
	}
	text = strings.Join(strings.Fields(text), "")
	b, err := hex.DecodeString(text)
	if err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	return b
}

func TestFramesOfAnyContentPass(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for n := range MaxBody + 1 {
		for _, fill := range []func() byte{
			func() byte { return 0 }, func() byte { return 0xFF }, func() byte { return 1 + byte(rng.UintN(255)) }, func() byte { return byte(rng.UintN(3)) },
		} {
			body := make([]byte, n)
			for i := range body {
				body[i] = fill()
			}
			h := Header{Type: TypeEvent, Channel: byte(n), Seq: uint16(rng.Uint32()), Clock: uint16(rng.Uint32())}
			wire := AppendFrame(nil, h, body)
			if len(wire) != n+headerLen+crcLen+2 {
				t.Fatalf("%d octets of body cost %d on the wire, want exactly two more than decoded", n, len(wire))
			}
			if i := bytes.IndexByte(wire, 0); i != len(wire)-1 {
				t.Fatalf("zero at %d of %d", i, len(wire))
			}
			got := 0
			var r Reader
			r.Feed(wire, func(g Header, b []byte) {
				got++
				if g != h || !bytes.Equal(b, body) {
					t.Fatalf("n=%d: %v %x became %v %x", n, h, body, g, b)
				}
			})
			if got != 1 || r.Bad != 0 {
				t.Fatalf("n=%d: %d frames, %d bad", n, got, r.Bad)
			}
		}
	}
}

func TestReaderIsInStepAfterDamage(t *testing.T) {
	frame := AppendFrame(nil, Header{Type: TypePing, Channel: CardChannel, Clock: 7}, []byte{1, 2, 3, 0, 5, 6, 7, 8})
	for name, damage := range map[string]func([]byte) []byte{
		"changed":     func(b []byte) []byte { b[4] ^= 0x40; return b },
		"lost":        func(b []byte) []byte { return append(b[:4], b[5:]...) },
		"inserted":    func(b []byte) []byte { return append(b[:4], append([]byte{0x55}, b[4:]...)...) },
		"delimiter":   func(b []byte) []byte { b[4] = 0; return b },
		"too long":    func(b []byte) []byte { return append(bytes.Repeat([]byte{9}, 1000), 0) },
		"empty":       func(b []byte) []byte { return []byte{0, 0, 0} },
		"short frame": func(b []byte) []byte { return []byte{3, 1, 2, 0} },
	} {
		t.Run(name, func(t *testing.T) {
			var r Reader
			var got int
			wire := append(damage(bytes.Clone(frame)), 0)
			wire = append(append(wire, frame...), frame...)
			for _, c := range wire { // one octet at a time
				r.Feed([]byte{c}, func(h Header, _ []byte) { got++ })
			}
			if got != 2 {
				t.Fatalf("%d frames after the damage, want 2", got)
			}
			if want := name != "empty"; (r.Bad > 0) != want {
				t.Fatalf("%d bad frames counted", r.Bad)
			}
		})
	}
}

// TestA37OneFramePerDamagedOctet sends 20 000 PCM frames through octet damage and
// counts what is lost.
func TestA37OneFramePerDamagedOctet(t *testing.T) {
	for _, rate := range []float64{1e-5, 1e-4, 1e-3} {
		for _, kind := range []string{"changed", "lost", "inserted"} {
			rng := rand.New(rand.NewPCG(37, uint64(rate*1e6)))
			var r Reader
			const frames = 20000
			damaged, got, wrong := 0, 0, 0
			body := make([]byte, frameLen80)
			for i := range frames {
				for j := range body {
					body[j] = byte(rng.Uint32())
				}
				body[0], body[1] = byte(i), byte(i>>8)
				var wire []byte
				for _, c := range AppendFrame(nil, Header{Type: TypePCM, Seq: uint16(i)}, body) {
					if rng.Float64() >= rate {
						wire = append(wire, c)
						continue
					}
					damaged++
					switch kind {
					case "changed":
						wire = append(wire, c^byte(1+rng.UintN(255)))
					case "inserted":
						wire = append(wire, byte(rng.Uint32()), c)
					}
				}
				r.Feed(wire, func(h Header, b []byte) {
					got++
					if byte(h.Seq) != b[0] || byte(h.Seq>>8) != b[1] {
						wrong++
					}
				})
			}
			if lost := frames - got; float64(lost) > 1.1*float64(damaged) || wrong > 0 {
				t.Errorf("%s at %g: %d octets damaged, %d frames lost, %d wrong", kind, rate, damaged, lost, wrong)
			}
		}
	}
}

const frameLen80 = 80

func TestFramesDoNotAllocate(t *testing.T) {
	body := make([]byte, 80)
	wire := make([]byte, 0, MaxWire)
	var r Reader
	var n int
	count := func(Header, []byte) { n++ }
	if a := testing.AllocsPerRun(200, func() {
		wire = AppendFrame(wire[:0], Header{Type: TypePCM}, body)
		r.Feed(wire, count)
	}); a != 0 {
		t.Fatalf("%v allocations a frame", a)
	}
}

// TestMalformedInputsAreCountedOnly feeds 10 000 broken inputs to every parser.
func TestMalformedInputsAreCountedOnly(t *testing.T) {
	rng := rand.New(rand.NewPCG(10000, 1))
	var r Reader
	good := AppendFrame(nil, Header{Type: TypeWelcome, Channel: CardChannel}, testWelcome(1, 2))
	passed := 0
	for range 10000 {
		b := bytes.Clone(good)
		switch rng.UintN(3) {
		case 0:
			b = make([]byte, rng.UintN(400))
			for i := range b {
				b[i] = byte(rng.Uint32())
			}
		case 1:
			for range 1 + rng.UintN(5) {
				b[rng.UintN(uint(len(b)))] ^= byte(1 + rng.UintN(255))
			}
		case 2:
			b = b[:rng.UintN(uint(len(b)-1))] // without its end
		}
		parseAll(b)
		r.Feed(append(b, 0), func(Header, []byte) { passed++ })
	}
	if passed > 2 { // 10 000 / 65 536
		t.Errorf("%d of 10 000 broken frames passed", passed)
	}
	n := 0
	r.Feed(good, func(Header, []byte) { n++ })
	if n != 1 {
		t.Error("reader is out of step")
	}
}

func parseAll(b []byte) {
	_, _ = ParseWelcome(b)
	_, _ = ParseEvent(b)
	_, _ = ParseAlarm(b)
	_, _ = ParsePong(b)
	_, _, _ = parseAck(b)
	ParseFill(b, func(uint8, uint8) {})
}

func FuzzReader(f *testing.F) {
	f.Add([]byte{0, 0, 0})
	f.Add(AppendFrame(nil, Header{Type: TypePCM, Seq: 1}, bytes.Repeat([]byte{0xD5}, 80)))
	f.Add(AppendFrame([]byte{1, 2, 0}, Header{Type: TypeHello}, appendHello(nil, 1, "box")))
	f.Add(bytes.Repeat([]byte{0xFF}, 600))
	f.Fuzz(func(t *testing.T, b []byte) {
		var whole, pieces Reader
		var first, second [][]byte
		keep := func(to *[][]byte) func(Header, []byte) {
			return func(h Header, body []byte) { *to = append(*to, AppendFrame(nil, h, body)) }
		}
		whole.Feed(b, keep(&first))
		for _, c := range b {
			pieces.Feed([]byte{c}, keep(&second))
		}
		if len(first) != len(second) || whole.Bad != pieces.Bad {
			t.Fatalf("whole: %d frames %d bad; octet by octet: %d frames %d bad", len(first), whole.Bad, len(second), pieces.Bad)
		}
		for i := range first {
			if !bytes.Equal(first[i], second[i]) {
				t.Fatal("frames differ")
			}
			n := 0
			var again Reader
			again.Feed(first[i], func(Header, []byte) { n++ })
			if n != 1 {
				t.Fatal("frame does not survive encoding")
			}
		}
	})
}

func FuzzWelcome(f *testing.F) {
	f.Add(testWelcome(1, 2))
	f.Add([]byte{tagVersion, 2, 1, 0, tagSession, 4, 1, 0, 0, 0})
	f.Add([]byte{tagRun, 9, 0, 255, 1, 0, 0, 0, 0, 0, 0, tagCount, 1, 255})
	f.Fuzz(func(t *testing.T, b []byte) {
		w, err := ParseWelcome(b)
		if err != nil || w.Major != Major {
			return
		}
		if len(w.Channels) < 1 || len(w.Channels) > Channels || len(w.Vendor) > maxText || len(w.Serial) > maxText {
			t.Fatalf("%+v", w)
		}
		for _, c := range w.Channels {
			if c.Kind > KindFXO {
				t.Fatalf("kind %d", c.Kind)
			}
		}
	})
}

func FuzzBodies(f *testing.F) {
	f.Add([]byte{byte(Flash), 1, 2})
	f.Add([]byte{byte(DTMF), '5', 1})
	f.Add([]byte{byte(State), 1, 0, 0, 16})
	f.Add([]byte{1, 1, 80, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		parseAll(b)
		if e, s := ParseEvent(b); s == StatusOK {
			if e.ID == DTMF && !isDTMF(e.Value) {
				t.Fatalf("%+v", e)
			}
			if len(b) < 1+eventArgs[e.ID] {
				t.Fatalf("event %d of %d octets", e.ID, len(b))
			}
		}
	})
}

// testWelcome is the body of a WELCOME: channel 0 FXS, channel 1 FXO.
func testWelcome(session, boot uint32) []byte {
	return testWelcomeVersion(1, session, boot)
}

func testWelcomeVersion(major byte, session, boot uint32) []byte {
	b := []byte{tagVersion, 2, major, 0, tagSession, 4, byte(session), byte(session >> 8), byte(session >> 16), byte(session >> 24)}
	b = append(b, 0x7F, 3, 1, 2, 3) // unknown: skipped
	b = append(append(b, tagVendor, 4), "Acme"...)
	b = append(b, tagBoot, 4, byte(boot), byte(boot>>8), byte(boot>>16), byte(boot>>24), tagCount, 1, 2)
	b = append(b, tagRun, 9, 0, 1, 1, 0x0D, 1, 0, 0, 16, 3)
	return append(b, tagRun, 9, 1, 1, 2, 4, 0, 0, 0, 16, 3)
}
