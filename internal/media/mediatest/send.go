package mediatest

import (
	"context"
	"encoding/binary"
	"net/netip"
	"strings"
	"time"
)

const (
	frameTime    = 20 * time.Millisecond
	frameSamples = 160
	noiseEvery   = 25 // frames between two CN packets of a silent party: 500 ms
	noiseLevel   = 70 // -dBov of the comfort noise, RFC 3389 §3
	digitGap     = 60 * time.Millisecond
)

// sender is what the client says; all under Client.mu.
type sender struct {
	voice     Voice
	silent    bool // CN instead of voice
	frames    int  // since silent
	sequence  uint16
	timestamp uint32
	marked    bool // first packet after a pause is marked, RFC 3551 §4.1
	packets   uint32
	octets    uint32
	lastRTP   time.Time
	digits    []digit
}

type digit struct {
	event    byte
	left     int // packets of the event that are still to come, without the repeated ends
	ends     int
	duration uint16
	started  bool
	begin    uint32 // RTP timestamp
	gap      int    // frames of silence after it
}

// Say sets the voice that is sent from now on; nil sends nothing at all, as a
// client does that is muted and has no comfort noise.
func (c *Client) Say(v Voice) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sender.voice, c.sender.silent = v, false
}

// Silence sends sparse comfort noise from now on (RFC 3389), as a muted Teams
// user does. Without CN agreed it sends nothing.
func (c *Client) Silence() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sender.voice, c.sender.silent, c.sender.frames = nil, true, 0
}

// Dial queues digits (0-9 * # A-D) as RFC 4733 events of length on. Voice pauses
// meanwhile.
func (c *Client) Dial(digits string, on time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, d := range strings.ToUpper(digits) {
		event := strings.IndexRune("0123456789*#ABCD", d)
		if event < 0 {
			continue
		}
		c.sender.digits = append(c.sender.digits, digit{
			event: byte(event), left: max(int(on/frameTime), 1), ends: 3, gap: int(digitGap / frameTime),
		})
	}
}

// WaitDialled waits until all digits of Dial have been sent.
func (c *Client) WaitDialled(ctx context.Context) error {
	return c.wait(ctx, "the end of dialling", func() bool { return len(c.sender.digits) == 0 })
}

// pace sends a frame each 20 ms of the monotonic clock. After a stall it goes on
// with the current frame: a client does not send bursts.
func (c *Client) pace() {
	ticker := time.NewTicker(frameTime)
	defer ticker.Stop()
	for {
		select {
		case <-c.done:
			return
		case <-ticker.C:
			c.frame()
		}
	}
}

func (c *Client) frame() {
	c.mu.Lock()
	s := &c.sender
	s.timestamp += frameSamples
	if !c.remoteKnown || !c.sendOK || c.route.socket == nil {
		s.marked = false
		c.mu.Unlock()
		return
	}
	var packet []byte
	switch {
	case len(s.digits) > 0:
		packet = c.digitFrame()
	case s.voice != nil:
		var pcm [frameSamples]int16
		s.voice.Fill(pcm[:])
		payload := make([]byte, frameSamples)
		c.law.Encode(payload, pcm[:])
		packet = c.packet(c.pt, !s.marked, s.timestamp, payload)
		s.marked = true
	case s.silent && c.hasCN:
		if s.frames%noiseEvery == 0 {
			packet = c.packet(c.cnPT, false, s.timestamp, []byte{noiseLevel})
		}
		s.frames++
		s.marked = false
	default:
		s.marked = false
	}
	r := c.route
	c.mu.Unlock()
	if packet != nil {
		r.socket.write(packet, r.remote)
	}
}

// digitFrame builds the next packet of an event, RFC 4733 §2.5.1: timestamp of
// its beginning, duration that grows, end sent three times.
func (c *Client) digitFrame() []byte {
	s := &c.sender
	d := &s.digits[0]
	if d.left == 0 && d.ends == 0 {
		if d.gap--; d.gap < 0 {
			s.digits = s.digits[1:]
			c.notify()
		}
		return nil
	}
	if !c.hasEvents {
		s.digits = s.digits[1:]
		return nil
	}
	first := !d.started
	if first {
		d.started, d.begin = true, s.timestamp
	}
	end := byte(0)
	if d.left > 0 {
		d.duration += frameSamples
		d.left--
	} else {
		end = 0x80
		d.ends--
	}
	payload := []byte{d.event, end | 10, 0, 0}
	binary.BigEndian.PutUint16(payload[2:], d.duration)
	return c.packet(c.eventPT, first, d.begin, payload)
}

// packet builds one RTP packet, protected if the session is. c.mu is held.
func (c *Client) packet(pt uint8, marker bool, timestamp uint32, payload []byte) []byte {
	s := &c.sender
	b := make([]byte, 12, 12+len(payload)+16)
	b[0], b[1] = 0x80, pt
	if marker {
		b[1] |= 0x80
	}
	binary.BigEndian.PutUint16(b[2:], s.sequence)
	binary.BigEndian.PutUint32(b[4:], timestamp)
	binary.BigEndian.PutUint32(b[8:], c.ssrc)
	b = append(b, payload...)
	s.sequence++
	s.packets++
	s.octets += uint32(len(payload))
	s.lastRTP = time.Now()
	if !c.cfg.Secure {
		return b
	}
	if c.out == nil {
		return nil
	}
	sealed, err := c.out.EncryptRTP(nil, b, nil)
	if err != nil {
		c.log.Warn("encrypt RTP", "err", err)
		return nil
	}
	return sealed
}

// SendRaw sends a datagram from a path as it is: rubbish, forged STUN, replayed
// packets.
func (c *Client) SendRaw(path string, data []byte, to netip.AddrPort) {
	for _, s := range c.sockets {
		if s.Name == path {
			s.write(data, to)
		}
	}
}
