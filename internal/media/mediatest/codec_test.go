package mediatest

import (
	"bytes"
	"math"
	"testing"
	"time"
)

// TestG711FollowsTheTables checks code points that ITU-T G.711 prints, and that
// decoding then encoding is the identity.
func TestG711FollowsTheTables(t *testing.T) {
	for _, tc := range []struct {
		law  Law
		code byte
		want int16
	}{
		{ALaw, 0xd5, 8}, {ALaw, 0x55, -8}, {ALaw, 0xaa, 32256}, {ALaw, 0x2a, -32256}, {ALaw, 0xd4, 24},
		{MuLaw, 0xff, 0}, {MuLaw, 0x7f, 0}, {MuLaw, 0x80, 32124}, {MuLaw, 0x00, -32124}, {MuLaw, 0xfe, 8},
	} {
		var out [1]int16
		tc.law.Decode(out[:], []byte{tc.code})
		if out[0] != tc.want {
			t.Errorf("%s %#02x: %d, want %d", tc.law.name(), tc.code, out[0], tc.want)
		}
	}
	for _, law := range []Law{ALaw, MuLaw} {
		for i := range 256 {
			var pcm [1]int16
			var code [1]byte
			law.Decode(pcm[:], []byte{byte(i)})
			law.Encode(code[:], pcm[:])
			if code[0] != byte(i) && pcm[0] != 0 { // µ-law has two zeros
				t.Errorf("%s %#02x decodes to %d, which encodes to %#02x", law.name(), i, pcm[0], code[0])
			}
		}
		for v := math.MinInt16; v <= math.MaxInt16; v++ {
			var code [1]byte
			var pcm [1]int16
			law.Encode(code[:], []int16{int16(v)})
			law.Decode(pcm[:], code[:])
			if d := math.Abs(float64(pcm[0]) - float64(v)); d > 8+math.Abs(float64(v))/16 && math.Abs(float64(v)) < 32256 {
				t.Fatalf("%s: %d became %d", law.name(), v, pcm[0])
			}
		}
	}
}

func TestToneIsFoundByFrequencyAndLevel(t *testing.T) {
	pcm := make([]int16, 160)
	for _, hz := range []float64{350, 440, 697, 1000, 1633, 2100} {
		Tone(hz, -10).Fill(pcm)
		if share, level := ToneShare(pcm, hz); share < 0.9 || math.Abs(level+10) > 1 {
			t.Errorf("%v Hz: share %.2f, level %.1f dBm0", hz, share, level)
		}
		if share, _ := ToneShare(pcm, hz+150); share > 0.1 {
			t.Errorf("%v Hz found in a tone of %v Hz: %.2f", hz+150, hz, share)
		}
	}
	if share, level := ToneShare(make([]int16, 160), 1000); share != 0 || !math.IsInf(level, -1) {
		t.Errorf("silence: %v, %v", share, level)
	}
}

func TestMOSFallsWithLossAndDelay(t *testing.T) {
	if m := MOS(20*time.Millisecond, 0); m < 4.3 || m > 4.5 {
		t.Errorf("clean LAN: %v", m)
	}
	if a, b := MOS(20*time.Millisecond, 0.05), MOS(20*time.Millisecond, 0); a >= b {
		t.Error("loss does not count")
	}
	if a, b := MOS(400*time.Millisecond, 0), MOS(20*time.Millisecond, 0); a >= b-0.5 {
		t.Error("delay does not count")
	}
}

// TestPrivateAttributesAreSealed takes a check apart again: integrity and
// fingerprint must verify over what was put in.
func TestPrivateAttributesAreSealed(t *testing.T) {
	msg := []byte{0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}
	msg = append(msg, 0, attrUsername, 0, 9, 'A', 'B', 'C', 'D', ':', 'E', 'F', 'G', 'H', 0, 0, 0)
	msg = append(msg, 0, attrIntegrity, 0, 20)
	msg = append(msg, make([]byte, 20)...)
	msg[3] = byte(len(msg) - stunHeader)
	out := withPrivate(msg, "secret")
	if got := addressedTo(out); got != "ABCD" {
		t.Errorf("addressed to %q", got)
	}
	if !bytes.Equal(stunAttribute(out, attrMSVersion), []byte{0, 0, 0, 2}) {
		t.Error("private attribute missing")
	}
	if len(stunAttribute(out, attrIntegrity)) != 20 || len(stunAttribute(out, attrFingerprint)) != 4 {
		t.Error("not sealed")
	}
	if n := int(out[2])<<8 | int(out[3]); n != len(out)-stunHeader {
		t.Errorf("length says %d of %d", n, len(out)-stunHeader)
	}
}

func FuzzDescription(f *testing.F) {
	f.Add([]byte("v=0\r\no=- 1 1 IN IP4 127.0.0.9\r\nc=IN IP4 127.0.0.9\r\nt=0 0\r\nm=audio 4000 RTP/SAVP 8 101\r\na=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:pmHzZjoTqRvX0CjXkZdvcb21c3W0d03FyNMiVMiU|2^31|1:1\r\na=candidate:1 1 UDP 2130706431 10.0.0.1 5000 typ srflx raddr 1.2.3.4 rport 9\r\na=remote-candidates:1 10.0.0.1 5000\r\n"))
	f.Add([]byte("v=0\nm=audio 9 RTP/AVP 0\nc=IN IP6 ::1\na=rtcp:x\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		d, err := ParseDescription(text)
		if err != nil {
			return
		}
		again, err := ParseDescription(d.Text(false))
		if err == nil && again.Addr != d.Addr {
			t.Errorf("address %s became %s", d.Addr, again.Addr)
		}
	})
}

func FuzzRTP(f *testing.F) {
	f.Add([]byte{0x80, 8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0xd5})
	f.Add([]byte{0xbf, 101, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1})
	f.Add([]byte{0x81, 200, 0, 6, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		c := &Client{changed: make(chan struct{}), remoteKnown: true, pt: 8, eventPT: 101, cnPT: 13, hasEvents: true, hasCN: true}
		switch kindOf(b) {
		case RTP:
			c.voice("lan", b, time.Now())
		case RTCP:
			c.receiveRTCP(b, time.Now())
		case STUN:
			_ = addressedTo(b)
			_ = withPrivate(b, "x")
		}
	})
}
