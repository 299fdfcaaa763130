package mediatest

import (
	"encoding/binary"
	"time"
)

// RTCP packet types, RFC 3550 §12.1.
const (
	rtcpSR   = 200
	rtcpRR   = 201
	rtcpSDES = 202
)

// report sends a compound report at each interval (fixed, not randomised: the
// double is one of two parties).
func (c *Client) report() {
	ticker := time.NewTicker(c.cfg.RTCPEvery)
	defer ticker.Stop()
	for {
		select {
		case <-c.done:
			return
		case now := <-ticker.C:
			c.sendReport(now)
		}
	}
}

func (c *Client) sendReport(now time.Time) {
	c.mu.Lock()
	r := c.route
	if !c.remoteKnown || r.socket == nil {
		c.mu.Unlock()
		return
	}
	packet := c.reports(now)
	if c.cfg.Secure {
		sealed, err := c.out.EncryptRTCP(nil, packet, nil)
		if err != nil {
			c.log.Warn("encrypt RTCP", "err", err)
			c.mu.Unlock()
			return
		}
		packet = sealed
	}
	to := r.remote
	if !c.remote.RTCPMux {
		to = c.remote.RTCP
	}
	c.mu.Unlock()
	r.socket.write(packet, to)
}

// ntp is the 64-bit NTP time, RFC 3550 §4.
func ntp(t time.Time) uint64 {
	const since1900 = 2208988800
	return uint64(t.Unix()+since1900)<<32 | uint64(t.Nanosecond())<<32/1e9
}

func (c *Client) reports(now time.Time) []byte {
	s, r := &c.sender, &c.receiver
	kind, b := byte(rtcpRR), []byte{0x80, 0, 0, 0}
	b = binary.BigEndian.AppendUint32(b, c.ssrc)
	if now.Sub(s.lastRTP) < 2*c.cfg.RTCPEvery && s.packets > 0 {
		kind = rtcpSR
		b = binary.BigEndian.AppendUint64(b, ntp(now))
		b = binary.BigEndian.AppendUint32(b, s.timestamp)
		b = binary.BigEndian.AppendUint32(b, s.packets)
		b = binary.BigEndian.AppendUint32(b, s.octets)
	}
	if r.known {
		b[0] |= 1
		expected := uint64(r.highest-r.first) + 1
		lost := int64(expected) - int64(r.packets)
		interval, got := expected-r.expectedAt, r.packets-r.gotAt
		fraction := byte(0)
		if interval > got && interval > 0 {
			fraction = byte((interval - got) * 256 / interval)
		}
		r.expectedAt, r.gotAt = expected, r.packets
		b = binary.BigEndian.AppendUint32(b, r.ssrc)
		b = binary.BigEndian.AppendUint32(b, uint32(fraction)<<24|uint32(max(lost, 0))&0xffffff)
		b = binary.BigEndian.AppendUint32(b, r.highest)
		b = binary.BigEndian.AppendUint32(b, uint32(r.jitter))
		b = binary.BigEndian.AppendUint32(b, r.lastSR)
		delay := uint32(0)
		if r.lastSR != 0 {
			delay = uint32(now.Sub(r.lastSRAt).Seconds() * 65536)
		}
		b = binary.BigEndian.AppendUint32(b, delay)
	}
	b[1] = kind
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)/4-1))
	text := append([]byte{1, byte(len(c.cname))}, c.cname...)
	for n := 4 - len(text)%4; n > 0; n-- {
		text = append(text, 0)
	}
	b = append(b, 0x81, rtcpSDES, 0, byte((4+len(text))/4))
	b = binary.BigEndian.AppendUint32(b, c.ssrc)
	return append(b, text...)
}

func (c *Client) receiveRTCP(data []byte, at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := &c.receiver
	packet := data
	if c.cfg.Secure {
		packet = nil
		for _, in := range c.in {
			if plain, err := in.ctx.DecryptRTCP(nil, data, nil); err == nil {
				packet = plain
				break
			}
		}
		if packet == nil {
			r.unauthentic++
			return
		}
	}
	for len(packet) >= 8 {
		n := 4 * (int(binary.BigEndian.Uint16(packet[2:])) + 1)
		if n > len(packet) || n < 8 {
			return
		}
		c.rtcp(packet[:n], at)
		packet = packet[n:]
	}
	c.notify()
}

func (c *Client) rtcp(b []byte, at time.Time) {
	r := &c.receiver
	blocks := b[8:]
	switch b[1] {
	case rtcpSR:
		if len(b) < 28 {
			return
		}
		r.srs++
		r.lastSR, r.lastSRAt = uint32(binary.BigEndian.Uint64(b[8:])>>16), at
		blocks = b[28:]
	case rtcpRR:
		r.rrs++
	default:
		return
	}
	for ; len(blocks) >= 24; blocks = blocks[24:] {
		if binary.BigEndian.Uint32(blocks) != c.ssrc {
			continue
		}
		r.farLost = blocks[4]
		r.farCount++
		lsr, dlsr := binary.BigEndian.Uint32(blocks[16:]), binary.BigEndian.Uint32(blocks[20:])
		if lsr != 0 {
			if d := int32(uint32(ntp(at)>>16) - lsr - dlsr); d >= 0 { // RFC 3550 §6.4.1
				r.rtt = time.Duration(d) * time.Second / 65536
			}
		}
	}
}
