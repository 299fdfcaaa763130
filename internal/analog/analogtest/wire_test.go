package analogtest

import (
	"bytes"
	"encoding/hex"
	"math/rand/v2"
	"strings"
	"testing"
)

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The frames of docs/linecard-link.md §11.
var documented = []struct{ name, plain, wire string }{
	{"HELLO", "01 ff 00 00 00 00 01 02 01 00 02 04 d4 c3 b2 a1 e5 0a",
		"03 01 ff 01 01 01 04 01 02 01 09 02 04 d4 c3 b2 a1 e5 0a 00"},
	{"WELCOME", `02 ff 00 00 00 10 01 02 01 00 02 04 d4 c3 b2 a1 10 04 41 63 6d 65 11 04 4c 43 2d 32 12 03 31 2e
		30 13 02 34 32 14 04 ef be 00 00 15 01 02 16 09 00 01 01 0d 01 00 00 10 03 16 09 01 01 02 04 00
		00 00 10 03 17 04 c0 c6 2d 00 18 03 05 0a 14 19 01 3c 16 7f`,
		`03 02 ff 01 01 05 10 01 02 01 20 02 04 d4 c3 b2 a1 10 04 41 63 6d 65 11 04 4c 43 2d 32 12 03 31
		2e 30 13 02 34 32 14 04 ef be 01 06 15 01 02 16 09 05 01 01 0d 01 01 09 10 03 16 09 01 01 02 04
		01 01 08 10 03 17 04 c0 c6 2d 0b 18 03 05 0a 14 19 01 3c 16 7f 00`},
	{"EVT STATE", "21 00 00 00 01 10 14 00 00 00 00 fa fc", "02 21 01 01 04 01 10 14 01 01 01 03 fa fc 00"},
	{"ACK", "2f 00 00 00 01 10 00 00 00 13 18", "02 2f 01 01 03 01 10 01 01 03 13 18 00"},
	{"CMD RING", "20 00 04 00 00 30 02 01 19 00 01 58 02 02 e8 03 a0 0f 4a 12",
		"02 20 02 04 01 05 30 02 01 19 0b 01 58 02 02 e8 03 a0 0f 4a 12 00"},
	{"ACK RING", "2f 00 00 00 02 30 04 00 00 ed e9", "02 2f 01 01 04 02 30 04 01 03 ed e9 00"},
	{"EVT RING_ON", "21 00 06 00 03 30 06 19 35 d6", "02 21 02 06 07 03 30 06 19 35 d6 00"},
	{"EVT OFFHOOK", "21 00 07 00 45 33 01 01 96 b1", "02 21 02 07 07 45 33 01 01 96 b1 00"},
	{"START", "05 ff 05 00 45 33 0a 00 01 00 00 00 00 01 a9 fb", "04 05 ff 05 04 45 33 0a 02 01 01 01 01 04 01 a9 fb 00"},
	{"PCM", "10 00 00 01 50 33" + strings.Repeat("d5", 80) + "b8 b2", "02 10 01 56 01 50 33" + strings.Repeat("d5", 80) + "b8 b2 00"},
	{"PING", "30 ff 00 00 50 33 44 33 22 11 d4 c3 b2 a1 27 15", "03 30 ff 01 0d 50 33 44 33 22 11 d4 c3 b2 a1 27 15 00"},
	{"PONG", `31 ff 00 00 52 33 44 33 22 11 d4 c3 b2 a1 ef be 00 00 d2 04 00 00 02 00 00 00 00 00 00 00 00 00
		00 00 01 00 00 00 d5 84`, `03 31 ff 01 0d 52 33 44 33 22 11 d4 c3 b2 a1 ef be 01 03 d2 04 01 02 02 01 01 01 01 01 01 01 01
		01 01 02 01 01 01 03 d5 84 00`},
}

func TestFramesOfTheDocument(t *testing.T) {
	if got := crcX25([]byte("123456789")); got != 0x906E {
		t.Errorf("CRC check value %#04x, want 0x906e", got)
	}
	for _, v := range documented {
		plain, wire := unhex(t, v.plain), unhex(t, v.wire)
		f, err := parseFrame(wire[:len(wire)-1])
		if err != nil {
			t.Errorf("%s: %v", v.name, err)
			continue
		}
		if got := f.plain(); !bytes.Equal(got, plain) {
			t.Errorf("%s decoded\n% x, want\n% x", v.name, got, plain)
		}
		if got := f.wire(); !bytes.Equal(got, wire) {
			t.Errorf("%s encoded\n% x, want\n% x", v.name, got, wire)
		}
	}
}

func TestLongestFrameWithoutZeroFits(t *testing.T) {
	f := frame{typ: 0x80, ch: 1, seq: 0x0101, clock: 0x0101, body: bytes.Repeat([]byte{7}, 246)}
	for f.seq = 0x0101; bytes.IndexByte(f.plain(), 0) >= 0; f.seq++ { // until the CRC has no zero
	}
	w := f.wire()
	if len(w) != 256 || w[0] != 0xFF {
		t.Fatalf("%d octets, first %#x; want 256 beginning with 0xff", len(w), w[0])
	}
	g, err := parseFrame(w[:255])
	if err != nil || !bytes.Equal(g.body, f.body) {
		t.Fatalf("not read back: %v", err)
	}
}

func TestSplitterFindsTheNextFrameAfterDamage(t *testing.T) {
	const seed = 7
	rng := rand.New(rand.NewPCG(seed, 1))
	good := frame{tPing, chCard, 0, 0, []byte{1, 0, 0, 0, 5, 0, 0, 0}}.wire()
	for range 2000 {
		bad := bytes.Clone(good)
		i := rng.IntN(len(bad))
		switch rng.IntN(3) {
		case 0:
			bad[i] ^= byte(1 + rng.IntN(255))
		case 1:
			bad = append(bad[:i], bad[i+1:]...)
		default:
			bad = append(bad[:i:i], append([]byte{byte(rng.Uint32())}, bad[i:]...)...)
		}
		var s splitter
		n := 0
		s.feed(append(append(bad, good...), good...), func(frame) { n++ })
		if n < 1 || n > 3 {
			t.Fatalf("seed %d: % x: %d frames", seed, bad, n)
		}
	}
}

func FuzzSplitter(f *testing.F) {
	for _, v := range documented {
		b, _ := hex.DecodeString(strings.Join(strings.Fields(v.wire), ""))
		f.Add(b)
	}
	f.Add(bytes.Repeat([]byte{0xFF}, 600))
	f.Add([]byte{0, 0, 1, 0, 2, 0, 5, 1})
	f.Fuzz(func(t *testing.T, p []byte) {
		var s splitter
		s.feed(p, func(g frame) {
			if len(g.body) > 246 {
				t.Fatalf("body of %d", len(g.body))
			}
			var again splitter
			n := 0
			again.feed(g.wire(), func(h frame) {
				n++
				if !bytes.Equal(h.plain(), g.plain()) {
					t.Fatal("changed on the way")
				}
			})
			if n != 1 {
				t.Fatalf("%d frames of one", n)
			}
			parseTLVs(g.body)
		})
		if len(s.buf) > maxDecoded+2 {
			t.Fatalf("holds %d octets", len(s.buf))
		}
	})
}

// FuzzCard gives the card anything a host may send; it must neither crash nor
// answer with more than it should.
func FuzzCard(f *testing.F) {
	for _, v := range documented {
		b, _ := hex.DecodeString(strings.Join(strings.Fields(v.plain), ""))
		f.Add(b[0], b[1], b[6:len(b)-2])
	}
	for id := range commandNames {
		f.Add(byte(tCmd), byte(0), []byte{id, 1, 2, 0, 1, 88, 2, 2, 3, 0, 4, 0, 0xE8, 3, 0xA0, 15})
		f.Add(byte(tCmd), byte(1), []byte{id, 1, 2, 0, 1, '2', '3'})
	}
	f.Fuzz(func(t *testing.T, typ, ch byte, body []byte) {
		if len(body) > 246 {
			return
		}
		c, err := New(CardOptions{Channels: []Channel{{Kind: FXS}, {Kind: FXO}, {}}, BootID: 1})
		if err != nil {
			t.Fatal(err)
		}
		c.receive(frame{tHello, chCard, 0, 0, helloBody(9)}.wire())
		c.receive(frame{typ, ch, 0, 0, body}.wire())
		for range 40 {
			c.w.mu.Lock()
			c.step(c.w.now)
			c.w.mu.Unlock()
		}
		for range 200 {
			if m, ok := c.out.next(); !ok {
				return
			} else if len(m.octets) > 256 {
				t.Fatalf("%d octets in one frame", len(m.octets))
			}
		}
		t.Fatal("more than 200 frames in 400 ms")
	})
}
