// Package secure protects and opens the RTP and RTCP packets of one leg,
// RFC 3711 with keys from SDES (RFC 4568).
//
// The main types are Sender and Receiver: one direction and one master key
// each. They are fences around pion/srtp/v2 (docs/decisions/srtp.md): replay
// protection is always on, state exists only for sources that have proved to
// hold the key, and there are at most two of those. No other package of ours
// knows the library, so that another transform can take its place.
//
// Choosing keys and deciding which addresses may speak is left to package media.
// A Sender or Receiver belongs to one goroutine.
package secure

import (
	"encoding/binary"
	"errors"
	"fmt"

	"localloop/internal/sdp"

	"github.com/pion/rtp"
	"github.com/pion/srtp/v2"
)

// KeyLen is the length of master key and master salt together, in bytes, of
// both suites (RFC 4568 §6.2).
const KeyLen = masterKey + masterSalt

const (
	masterKey  = 16
	masterSalt = 14

	// Overhead is the most that protection adds to a packet: the tag of 80
	// bits, and for RTCP the index of 32 bits.
	Overhead = 14

	// window is the replay window in packets; RFC 3711 §3.3.2 asks for 64. At
	// 50 packets per second this is 2.5 s, more than any network reorders.
	window = 128

	// sources is how many SSRCs of a peer are followed at a time: the one in
	// use and the one that it came from or goes to (C-103).
	sources = 2

	// trials bounds what a scratch context may learn from forged packets: the
	// library makes state for each SSRC before it authenticates.
	trials = 16
)

// Reasons why a packet is not opened. In each case nothing has changed.
var (
	ErrShort  = errors.New("packet too short or not of this protocol")
	ErrAuth   = errors.New("authentication failed")
	ErrReplay = errors.New("replayed or too old")
)

func profile(suite sdp.Suite) (srtp.ProtectionProfile, int, error) {
	switch suite {
	case sdp.AESCM128HMACSHA180:
		return srtp.ProtectionProfileAes128CmHmacSha1_80, 10, nil
	case sdp.AESCM128HMACSHA132:
		return srtp.ProtectionProfileAes128CmHmacSha1_32, 4, nil
	}
	return 0, 0, fmt.Errorf("crypto suite %q is not supported", suite)
}

// newContext is the only place where a context of the library is made: the
// library leaves replay protection off unless asked.
func newContext(key []byte, p srtp.ProtectionProfile) (*srtp.Context, error) {
	if len(key) != KeyLen {
		return nil, fmt.Errorf("master key of %d bytes, want %d", len(key), KeyLen)
	}
	return srtp.CreateContext(key[:masterKey], key[masterKey:], p,
		srtp.SRTPReplayProtection(window), srtp.SRTCPReplayProtection(window))
}

// Sender protects the packets that we send with one of our keys.
type Sender struct {
	ctx    *srtp.Context
	header rtp.Header
}

// NewSender makes a Sender whose rollover counter is zero. The key is not kept.
func NewSender(suite sdp.Suite, key []byte) (*Sender, error) {
	p, _, err := profile(suite)
	if err != nil {
		return nil, err
	}
	ctx, err := newContext(key, p)
	if err != nil {
		return nil, err
	}
	return &Sender{ctx: ctx}, nil
}

// RTP protects a packet. dst must not overlap it and should have Overhead bytes
// more capacity; the result uses it.
func (s *Sender) RTP(dst, packet []byte) ([]byte, error) {
	return s.ctx.EncryptRTP(dst[:0], packet, &s.header)
}

// RTCP protects a compound packet, as RTP does.
func (s *Sender) RTCP(dst, packet []byte) ([]byte, error) {
	dst = append(dst[:0], packet...)
	return s.ctx.EncryptRTCP(dst, packet, nil)
}

// Receiver opens the packets of a peer that uses one key.
type Receiver struct {
	key      []byte
	profile  srtp.ProtectionProfile
	tag      int
	rtp      table
	rtcp     table
	header   rtp.Header
	accepted uint64
}

// table follows up to two sources, the more recently heard one first. Each has
// a context of its own, so that forged SSRCs never touch the state of a good one.
type table struct {
	known   [sources]source
	n       int
	scratch *srtp.Context
	tried   int
}

type source struct {
	ssrc uint32
	ctx  *srtp.Context
}

// NewReceiver makes a Receiver whose rollover counters are zero (RFC 3711
// §3.3.1; C-76). It keeps a copy of the key.
func NewReceiver(suite sdp.Suite, key []byte) (*Receiver, error) {
	p, tag, err := profile(suite)
	if err != nil {
		return nil, err
	}
	if _, err := newContext(key, p); err != nil {
		return nil, err
	}
	return &Receiver{key: append([]byte(nil), key...), profile: p, tag: tag}, nil
}

// RTP opens a packet in place and returns what remains of it: header and
// payload. The error is ErrShort, ErrAuth or ErrReplay.
func (r *Receiver) RTP(packet []byte) ([]byte, error) {
	if !fits(packet, r.tag) {
		return nil, ErrShort
	}
	return r.open(&r.rtp, binary.BigEndian.Uint32(packet[8:]), packet, r.openRTP)
}

// RTCP opens a compound packet in place, as RTP does.
func (r *Receiver) RTCP(packet []byte) ([]byte, error) {
	// SRTCP has the long tag with both suites, RFC 4568 §6.2.2.
	if len(packet) < 8+4+10 || packet[0]>>6 != 2 {
		return nil, ErrShort
	}
	return r.open(&r.rtcp, binary.BigEndian.Uint32(packet[4:]), packet, openRTCP)
}

// Accepted counts the packets that were opened.
func (r *Receiver) Accepted() uint64 { return r.accepted }

func (r *Receiver) openRTP(ctx *srtp.Context, packet []byte) ([]byte, error) {
	return ctx.DecryptRTP(packet[:0], packet, &r.header)
}

func openRTCP(ctx *srtp.Context, packet []byte) ([]byte, error) {
	return ctx.DecryptRTCP(packet, packet, nil)
}

type opener func(*srtp.Context, []byte) ([]byte, error)

func (r *Receiver) open(t *table, ssrc uint32, packet []byte, with opener) ([]byte, error) {
	for i := range t.n {
		if t.known[i].ssrc != ssrc {
			continue
		}
		plain, err := with(t.known[i].ctx, packet)
		if err != nil {
			return nil, classify(err)
		}
		if i > 0 {
			t.known[0], t.known[i] = t.known[i], t.known[0]
		}
		r.accepted++
		return plain, nil
	}
	// A source that is new must first show in a scratch context that it holds
	// the key (C-103, docs/decisions/srtp.md).
	if t.scratch == nil || t.tried >= trials {
		ctx, err := newContext(r.key, r.profile)
		if err != nil {
			return nil, err
		}
		t.scratch, t.tried = ctx, 0
	}
	t.tried++
	plain, err := with(t.scratch, packet)
	if err != nil {
		return nil, classify(err)
	}
	copy(t.known[1:], t.known[:sources-1])
	t.known[0] = source{ssrc: ssrc, ctx: t.scratch}
	t.n = min(t.n+1, sources)
	t.scratch = nil
	r.accepted++
	return plain, nil
}

// classify maps the library's errors. Lengths were checked before, so what is
// not a wrong tag is its replay error, which it does not export.
func classify(err error) error {
	if errors.Is(err, srtp.ErrFailedToVerifyAuthTag) {
		return ErrAuth
	}
	return ErrReplay
}

// fits reports whether header, sources and extension (RFC 3550 §5.1, §5.3.1)
// and the tag fit into an RTP packet.
func fits(packet []byte, tag int) bool {
	n := 12
	if len(packet) < n+tag || packet[0]>>6 != 2 {
		return false
	}
	n += 4 * int(packet[0]&0x0F)
	if packet[0]&0x10 != 0 {
		if len(packet) < n+4+tag {
			return false
		}
		n += 4 + 4*int(binary.BigEndian.Uint16(packet[n+2:]))
	}
	return len(packet) >= n+tag
}
