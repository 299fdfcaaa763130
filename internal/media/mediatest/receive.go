package mediatest

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"
)

// maxFrames bounds what is remembered of the other side's voice: ten minutes.
const maxFrames = 10 * 60 * 50

// frame is one RTP packet of voice, decoded.
type frame struct {
	at        time.Time
	path      string
	timestamp uint32
	pcm       []int16
}

// receiver is what the client has heard; all under Client.mu.
type receiver struct {
	frames    []frame
	dropped   int // frames forgotten at the front
	noise     uint64
	digits    []Heard
	digitFrom uint32 // RTP timestamp of the event that is being received
	digitOpen bool

	ssrc                 uint32
	known                bool
	first                uint32 // extended sequence number
	highest              uint32
	packets              uint64
	late                 uint64
	jitter               float64 // RFC 3550 A.8, in samples
	transit              int64
	expectedAt, gotAt    uint64 // at the last report, for the fraction lost
	unauthentic, unknown uint64
	lastRTP              time.Time
	// reports
	lastSR   uint32 // middle 32 bits of NTP
	lastSRAt time.Time
	srs, rrs uint64
	rtt      time.Duration
	farLost  uint8 // fraction lost that the other side reported last
	farCount uint32
}

// Heard is one digit that arrived as RFC 4733 events.
type Heard struct {
	Digit    byte
	At       time.Time
	Duration time.Duration
	Ended    bool // an end packet arrived
}

func (c *Client) receiveRTP(s *socket, data []byte, from netip.AddrPort, at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := &c.receiver
	if !c.remoteKnown {
		r.unknown++
		return
	}
	packet := data
	if c.cfg.Secure {
		packet = nil
		for _, in := range c.in {
			if plain, err := in.ctx.DecryptRTP(nil, data, nil); err == nil {
				packet = plain
				break
			}
		}
		if packet == nil {
			r.unauthentic++
			c.notify()
			return
		}
	} else if c.gen == nil && from != c.remote.Addr {
		r.unknown++
		return
	}
	c.voice(s.Name, packet, at)
}

// voice takes an RTP packet in clear. c.mu is held.
func (c *Client) voice(path string, b []byte, at time.Time) {
	r := &c.receiver
	header := 12 + 4*int(b[0]&0x0f)
	if len(b) < header {
		r.unknown++
		return
	}
	if b[0]&0x10 != 0 { // extension
		if len(b) < header+4 {
			r.unknown++
			return
		}
		header += 4 + 4*int(binary.BigEndian.Uint16(b[header+2:]))
	}
	if len(b) < header {
		r.unknown++
		return
	}
	pt, sequence := b[1]&0x7f, binary.BigEndian.Uint16(b[2:])
	timestamp, ssrc := binary.BigEndian.Uint32(b[4:]), binary.BigEndian.Uint32(b[8:])
	payload := b[header:]
	if b[0]&0x20 != 0 && len(payload) > 0 { // padding
		if n := int(payload[len(payload)-1]); n <= len(payload) {
			payload = payload[:len(payload)-n]
		}
	}
	if !c.count(ssrc, sequence, timestamp, at) {
		return
	}
	r.lastRTP = at
	switch {
	case pt == c.pt:
		pcm := make([]int16, len(payload))
		c.law.Decode(pcm, payload)
		if len(r.frames) == maxFrames {
			r.frames = append(r.frames[:0], r.frames[maxFrames/2:]...)
			r.dropped += maxFrames / 2
		}
		r.frames = append(r.frames, frame{at, path, timestamp, pcm})
	case pt == c.eventPT && c.hasEvents:
		c.event(timestamp, payload, at)
	case pt == c.cnPT && c.hasCN:
		r.noise++
	default:
		r.unknown++
		return
	}
	c.notify()
}

// count keeps sequence, loss and jitter as RFC 3550 A.1, A.3 and A.8 do. It
// reports false for a duplicate of the newest packet.
func (c *Client) count(ssrc uint32, sequence uint16, timestamp uint32, at time.Time) bool {
	r := &c.receiver
	transit := at.Sub(c.epoch).Nanoseconds()*sampleRate/1e9 - int64(timestamp)
	if !r.known || ssrc != r.ssrc {
		r.ssrc, r.known = ssrc, true
		r.first, r.highest, r.packets, r.transit = uint32(sequence), uint32(sequence), 1, transit
		r.expectedAt, r.gotAt = 0, 0
		return true
	}
	if d := int16(sequence - uint16(r.highest)); d > 0 {
		r.highest += uint32(d)
	} else if d == 0 {
		r.late++
		return false
	} else {
		r.late++
	}
	r.packets++
	d := transit - r.transit
	r.transit = transit
	r.jitter += (max(float64(d), -float64(d)) - r.jitter) / 16
	return true
}

func (c *Client) event(timestamp uint32, payload []byte, at time.Time) {
	r := &c.receiver
	if len(payload) < 4 || payload[0] > 15 {
		r.unknown++
		return
	}
	duration := time.Duration(binary.BigEndian.Uint16(payload[2:])) * time.Second / sampleRate
	ended := payload[1]&0x80 != 0
	if !r.digitOpen || r.digitFrom != timestamp {
		r.digits = append(r.digits, Heard{Digit: "0123456789*#ABCD"[payload[0]], At: at})
		r.digitFrom, r.digitOpen = timestamp, true
	}
	d := &r.digits[len(r.digits)-1]
	d.Duration = max(d.Duration, duration)
	d.Ended = d.Ended || ended
}

// Digits returns the RFC 4733 digits heard so far.
func (c *Client) Digits() []Heard {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]Heard(nil), c.receiver.digits...)
}

// WaitDigits waits until the completed digits heard so far begin with want.
func (c *Client) WaitDigits(ctx context.Context, want string) error {
	var got []byte
	err := c.wait(ctx, "digits "+want, func() bool {
		got = got[:0]
		for _, d := range c.receiver.digits {
			if d.Ended {
				got = append(got, d.Digit)
			}
		}
		return bytes.HasPrefix(got, []byte(want))
	})
	if err != nil {
		return fmt.Errorf("%w (heard %q)", err, got)
	}
	return nil
}

// toneRun is how many frames in a row must hold a tone: 60 ms, so that a chance
// hit in speech or noise does not count.
const toneRun = 3

// WaitTone waits until hz is heard in packets that arrived after since, and
// returns when its first packet arrived.
func (c *Client) WaitTone(ctx context.Context, hz float64, since time.Time) (time.Time, error) {
	var found time.Time
	next, run := 0, 0 // absolute frame index
	var begin time.Time
	err := c.wait(ctx, fmt.Sprintf("a tone of %.0f Hz", hz), func() bool {
		r := &c.receiver
		for next = max(next, r.dropped); next-r.dropped < len(r.frames); next++ {
			f := r.frames[next-r.dropped]
			if !f.at.After(since) || !hasTone(f.pcm, hz) {
				run = 0
				continue
			}
			if run++; run == 1 {
				begin = f.at
			}
			if run >= toneRun {
				found = begin
				return true
			}
		}
		return false
	})
	return found, err
}

// Gap is a time without a tone.
type Gap struct{ From, To time.Time }

// Length of the gap.
func (g Gap) Length() time.Duration { return g.To.Sub(g.From) }

// ToneGap returns the longest time between since and the newest packet in which
// hz was not heard, packets lost or silent alike. It is zero before hz has been
// heard after since.
func (c *Client) ToneGap(hz float64, since time.Time) Gap {
	c.mu.Lock()
	defer c.mu.Unlock()
	longest, last, heard := Gap{}, since, false
	for _, f := range c.receiver.frames {
		if !f.at.After(since) || !hasTone(f.pcm, hz) {
			continue
		}
		heard = true
		if g := (Gap{last, f.at}); g.Length() > longest.Length() {
			longest = g
		}
		last = f.at
	}
	if !heard {
		return Gap{}
	}
	return longest
}

// Hears reports whether hz was heard within the last window.
func (c *Client) Hears(hz float64, window time.Duration) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	run, since := 0, time.Now().Add(-window)
	for _, f := range c.receiver.frames {
		if f.at.After(since) && hasTone(f.pcm, hz) {
			if run++; run >= toneRun {
				return true
			}
		} else {
			run = 0
		}
	}
	return false
}

// Recording returns the voice received after since as 8 kHz samples, placed by
// RTP timestamp; what is missing is zero. A jump of more than ten seconds begins
// at once where the last packet ended.
func (c *Client) Recording(since time.Time) []int16 {
	c.mu.Lock()
	defer c.mu.Unlock()
	var pcm []int16
	var base uint32
	started := false
	for _, f := range c.receiver.frames {
		if !f.at.After(since) {
			continue
		}
		if !started {
			base, started = f.timestamp, true
		}
		at := int64(int32(f.timestamp - base))
		if at < 0 || at > int64(len(pcm))+10*sampleRate {
			base, at = f.timestamp-uint32(len(pcm)), int64(len(pcm))
		}
		for int64(len(pcm)) < at+int64(len(f.pcm)) {
			pcm = append(pcm, 0)
		}
		copy(pcm[at:], f.pcm)
	}
	return pcm
}

// WaitVoice waits until a packet of voice has arrived after since.
func (c *Client) WaitVoice(ctx context.Context, since time.Time) error {
	return c.wait(ctx, "voice", func() bool {
		n := len(c.receiver.frames)
		return n > 0 && c.receiver.frames[n-1].at.After(since)
	})
}
