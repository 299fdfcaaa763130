package secure

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"runtime"
	"testing"

	"localloop/internal/sdp"

	oracle "github.com/pion/srtp/v3"
)

const suite = sdp.AESCM128HMACSHA180

func key(b byte) []byte { return bytes.Repeat([]byte{b}, KeyLen) }

func packet(ssrc uint32, seq uint16, payload string) []byte {
	b := make([]byte, 12, 64)
	b[0], b[1] = 0x80, 8
	binary.BigEndian.PutUint16(b[2:], seq)
	binary.BigEndian.PutUint32(b[4:], uint32(seq)*160)
	binary.BigEndian.PutUint32(b[8:], ssrc)
	return append(b, payload...)
}

// peer is the independent other side.
func peer(t testing.TB, k []byte) *oracle.Context {
	t.Helper()
	c, err := oracle.CreateContext(k[:16], k[16:], oracle.ProtectionProfileAes128CmHmacSha1_80, oracle.SRTPReplayProtection(64))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func seal(t testing.TB, c *oracle.Context, p []byte) []byte {
	t.Helper()
	out, err := c.EncryptRTP(nil, p, nil)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func receiver(t testing.TB, k []byte) *Receiver {
	t.Helper()
	r, err := NewReceiver(suite, k)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestSenderAndReceiverAgreeWithAnotherImplementationOverRollover(t *testing.T) {
	s, err := NewSender(suite, key(1))
	if err != nil {
		t.Fatal(err)
	}
	far, farTx, r := peer(t, key(1)), peer(t, key(2)), receiver(t, key(2))
	buf := make([]byte, 0, 256)
	for i := 0; i < 140000; i += 7 { // two rollovers, with gaps
		p := packet(7, uint16(i+100), "hello")
		out, err := s.RTP(buf, p)
		if err != nil {
			t.Fatal(err)
		}
		got, err := far.DecryptRTP(nil, out, nil)
		if err != nil || !bytes.Equal(got, p) {
			t.Fatalf("packet %d to the oracle: %x, %v", i, got, err)
		}
		got, err = r.RTP(seal(t, farTx, p))
		if err != nil || !bytes.Equal(got, p) {
			t.Fatalf("packet %d from the oracle: %x, %v", i, got, err)
		}
	}
	report := []byte{0x80, 201, 0, 1, 0, 0, 0, 7}
	out, err := s.RTCP(buf, report)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := far.DecryptRTCP(nil, out, nil); err != nil || !bytes.Equal(got, report) {
		t.Fatalf("RTCP to the oracle: %x, %v", got, err)
	}
	enc, err := farTx.EncryptRTCP(nil, report, nil)
	if err != nil {
		t.Fatal(err)
	}
	again := bytes.Clone(enc)
	if got, err := r.RTCP(enc); err != nil || !bytes.Equal(got, report) {
		t.Fatalf("RTCP from the oracle: %x, %v", got, err)
	}
	if _, err := r.RTCP(again); !errors.Is(err, ErrReplay) {
		t.Errorf("replayed RTCP: %v, want ErrReplay", err)
	}
}

func TestForgedReplayedAndTruncatedPacketsChangeNothing(t *testing.T) {
	far, r := peer(t, key(3)), receiver(t, key(3))
	first := seal(t, far, packet(1, 10, "a"))
	if _, err := r.RTP(bytes.Clone(first)); err != nil {
		t.Fatal(err)
	}
	forged := seal(t, far, packet(1, 11, "b"))
	forged[len(forged)-1] ^= 1
	bad := map[string]struct {
		b    []byte
		want error
	}{
		"replayed":        {bytes.Clone(first), ErrReplay},
		"forged":          {forged, ErrAuth},
		"another key":     {seal(t, peer(t, key(4)), packet(1, 11, "c")), ErrAuth},
		"unknown source":  {seal(t, peer(t, key(4)), packet(99, 11, "c")), ErrAuth},
		"empty":           {nil, ErrShort},
		"truncated":       {bytes.Clone(first)[:20], ErrShort},
		"wrong version":   {append([]byte{0x40}, first[1:]...), ErrShort},
		"sources missing": {append([]byte{0x8F}, first[1:]...), ErrShort},
		"long extension":  {append(append([]byte{0x90}, first[1:12]...), bytes.Repeat([]byte{0xFF}, 20)...), ErrShort},
	}
	for name, c := range bad {
		if _, err := r.RTP(c.b); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	if _, err := r.RTP(seal(t, far, packet(1, 12, "d"))); err != nil {
		t.Errorf("the good stream afterwards: %v", err)
	}
	if r.Accepted() != 2 {
		t.Errorf("accepted %d, want 2", r.Accepted())
	}
}

func TestC103NewSourceIsFollowedAndOnlyTwoAreKept(t *testing.T) {
	far, r := peer(t, key(5)), receiver(t, key(5))
	for i, ssrc := range []uint32{1, 1, 2, 1, 2, 3, 3} {
		if _, err := r.RTP(seal(t, far, packet(ssrc, uint16(100+i), "v"))); err != nil {
			t.Fatalf("packet %d of source %d: %v", i, ssrc, err)
		}
	}
	if r.rtp.n != sources || r.rtp.known[0].ssrc != 3 || r.rtp.known[1].ssrc != 2 {
		t.Errorf("kept %+v", r.rtp.known)
	}
}

// TestForgedSourcesCostNoMemory is the fence against state made before
// authentication (docs/decisions/srtp.md).
func TestForgedSourcesCostNoMemory(t *testing.T) {
	r := receiver(t, key(6))
	rng := rand.New(rand.NewPCG(1, 2))
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	p := make([]byte, 60)
	for range 50000 {
		copy(p, packet(rng.Uint32(), uint16(rng.Uint32()), "forged forged forged forged forged"))
		if _, err := r.RTP(p[:56]); !errors.Is(err, ErrAuth) {
			t.Fatal(err)
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 200_000 {
		t.Errorf("heap grew by %d bytes", grown)
	}
	if _, err := r.RTP(seal(t, peer(t, key(6)), packet(1, 1, "x"))); err != nil {
		t.Errorf("a good packet afterwards: %v", err)
	}
}

func TestC76NewKeyStartsAtRolloverZeroAndSameKeyKeepsIt(t *testing.T) {
	far, r := peer(t, key(7)), receiver(t, key(7))
	for i := 65000; i < 66000; i++ {
		if _, err := r.RTP(seal(t, far, packet(1, uint16(i), "x"))); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := r.RTP(seal(t, far, packet(1, uint16(66001%65536), "x"))); err != nil {
		t.Errorf("same key beyond the rollover: %v", err)
	}
	fresh, farFresh := receiver(t, key(8)), peer(t, key(8))
	if _, err := fresh.RTP(seal(t, farFresh, packet(1, 470, "x"))); err != nil {
		t.Errorf("new key, peer at rollover 0: %v", err)
	}
}

func TestBadKeysAndSuitesAreRefused(t *testing.T) {
	if _, err := NewSender("AEAD_AES_128_GCM", key(1)); err == nil {
		t.Error("unknown suite accepted")
	}
	if _, err := NewReceiver(suite, key(1)[:29]); err == nil {
		t.Error("short key accepted")
	}
}

func FuzzReceiver(f *testing.F) {
	far := peer(f, key(9))
	f.Add(seal(f, far, packet(1, 1, "x")), true)
	f.Add([]byte{0x80, 200, 0, 6}, false)
	f.Add(bytes.Repeat([]byte{0x9F}, 80), true)
	f.Fuzz(func(t *testing.T, b []byte, isRTP bool) {
		r := receiver(t, key(9))
		open := r.RTCP
		if isRTP {
			open = r.RTP
		}
		if len(b) > 2048 {
			return
		}
		if got, err := open(bytes.Clone(b)); err == nil && len(got) >= len(b) {
			t.Fatalf("opened %x to %x", b, got)
		}
	})
}

func BenchmarkRTP(b *testing.B) {
	s, err := NewSender(suite, key(1))
	if err != nil {
		b.Fatal(err)
	}
	p, buf := packet(1, 0, string(make([]byte, 160))), make([]byte, 0, 256)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		binary.BigEndian.PutUint16(p[2:], uint16(i))
		if _, err := s.RTP(buf, p); err != nil {
			b.Fatal(err)
		}
	}
}
