package media

import (
	"net/netip"
	"time"

	"localloop/internal/media/quality"

	"github.com/pion/rtcp"
)

// Reports go out every 3.9 to 4.7 s: the least interval of RFC 3550 §6.2 with
// its randomness, and never beyond the 5 s that Teams' dashboards want (C-102).
const (
	reportEvery  = 3900 * time.Millisecond
	reportSpread = 800 * time.Millisecond
	firstReport  = time.Second
)

// reports is the RTCP of one leg.
type reports struct {
	next  time.Time
	name  string // CNAME; says nothing about the box (RFC 7022)
	told  uint64 // packets sent at the last report
	dice  uint32
	their uint32    // middle 32 bits of the peer's last sender report
	at    time.Time // when it came
	loss  float64   // of what we send, as the peer sees it, 0 to 1
}

func (r *reports) soon(now time.Time) { r.next = now.Add(firstReport) }

// ntp is the 64 bit time of RFC 3550 §4. A step of the wall clock after the
// start does not show in it: the peer measures with it.
func (v *voice) ntp(now time.Time) uint64 {
	t := v.epoch.Add(now.Sub(v.epoch))
	const epoch = 2208988800 // 1900 to 1970
	return uint64(t.Unix()+epoch)<<32 | uint64(t.Nanosecond())<<32/1e9
}

// report sends a report when one is due.
func (l *leg) report(now time.Time) {
	if l.line != nil || l.cur == nil || l.cur.terms == nil {
		return
	}
	r := &l.rtcp
	if r.next.IsZero() {
		r.soon(now)
	}
	if now.Before(r.next) {
		return
	}
	r.dice = r.dice*1664525 + 1013904223
	r.next = now.Add(reportEvery + reportSpread*time.Duration(r.dice>>16)>>16)
	to, sock := l.controlAddress()
	if !to.IsValid() || to.Port() == 0 || sock == nil {
		return
	}
	var blocks []rtcp.ReceptionReport
	if l.in.started {
		b := l.in.reception.Report()
		block := rtcp.ReceptionReport{SSRC: l.in.ssrc, FractionLost: b.Fraction, TotalLost: b.Lost, LastSequenceNumber: b.Highest, Jitter: b.Jitter}
		if !r.at.IsZero() {
			block.LastSenderReport = r.their
			block.Delay = uint32(now.Sub(r.at) * 65536 / time.Second)
		}
		blocks = append(blocks, block)
	}
	var first rtcp.Packet = &rtcp.ReceiverReport{SSRC: l.out.ssrc, Reports: blocks}
	if l.out.packets != r.told {
		r.told = l.out.packets
		first = &rtcp.SenderReport{SSRC: l.out.ssrc, NTPTime: l.v.ntp(now), RTPTime: l.out.clock(now),
			PacketCount: uint32(l.out.packets), OctetCount: uint32(l.out.octets), Reports: blocks}
	}
	name := &rtcp.SourceDescription{Chunks: []rtcp.SourceDescriptionChunk{{Source: l.out.ssrc,
		Items: []rtcp.SourceDescriptionItem{{Type: rtcp.SDESCNAME, Text: r.name}}}}}
	b, err := rtcp.Marshal([]rtcp.Packet{first, name})
	if err == nil && l.cur.terms.suite != "" {
		if l.cur.send == nil {
			return
		}
		b, err = l.cur.send.RTCP(nil, b)
	}
	if err != nil || sock.Send(b, to) != nil {
		l.v.drops.unsent.Add(1)
		return
	}
	l.cur.port.realm.sent(len(b))
}

// controlAddress is where reports go and the socket that sends them.
func (l *leg) controlAddress() (netip.AddrPort, sender) {
	p := l.cur
	if p.terms.mux {
		return p.remote, p.port.rtp
	}
	to := p.terms.remoteRTCP
	if p.terms.checks && p.remote.IsValid() && to.IsValid() {
		// Only component 1 is checked; the host is the one that answered.
		to = netip.AddrPortFrom(p.remote.Addr(), to.Port())
	}
	if p.port.rtcp == nil {
		return to, nil
	}
	return to, p.port.rtcp
}

// control takes an RTCP packet.
func (l *leg) control(now time.Time, p *port, onRTCP bool, b []byte, from netip.AddrPort) {
	var way *path
	var plain []byte
	var err error
	for _, w := range l.paths() {
		if w == nil || w.port != p || w.terms == nil {
			continue
		}
		if onRTCP {
			// Not muxed: the port of the peer's RTCP is its own affair.
			if !w.remote.IsValid() || from.Addr() != w.remote.Addr() {
				continue
			}
		} else if !w.admits(from) {
			continue
		}
		if plain, err = w.openRTCP(b); err == nil {
			way = w
			break
		}
	}
	if way == nil {
		l.refused(err)
		return
	}
	packets, err := rtcp.Unmarshal(plain)
	if err != nil || len(packets) == 0 {
		l.reject(&l.v.drops.malformed)
		return
	}
	if way == l.cur {
		l.controlled(now)
	}
	for _, k := range packets {
		switch k := k.(type) {
		case *rtcp.SenderReport:
			l.rtcp.their, l.rtcp.at = uint32(k.NTPTime>>16), now
			l.answered(now, k.Reports)
		case *rtcp.ReceiverReport:
			l.answered(now, k.Reports)
		}
	}
}

func (p *path) openRTCP(b []byte) ([]byte, error) {
	if p.recv == nil {
		return b, nil
	}
	plain, err := p.recv.RTCP(b)
	if err != nil && p.pending != nil {
		// The peer's first packet under the new key may be RTCP; voice decides
		// about the change of keys.
		return p.pending.RTCP(b)
	}
	return plain, err
}

// answered reads what the peer says about our stream.
func (l *leg) answered(now time.Time, blocks []rtcp.ReceptionReport) {
	for _, b := range blocks {
		if b.SSRC != l.out.ssrc {
			continue
		}
		l.rtcp.loss = float64(b.FractionLost) / 256
		if b.LastSenderReport == 0 {
			continue
		}
		// RFC 3550 §6.4.1: A - LSR - DLSR, in units of 1/65536 s.
		rtt := uint32(l.v.ntp(now)>>16) - b.LastSenderReport - b.Delay
		if rtt < 10<<16 { // more than 10 s is a fault of the peer's clock
			l.roundTo = time.Duration(rtt) * time.Second / 65536
		}
	}
}

// measure makes the leg's row of the report.
func (l *leg) measure() LegReport {
	r := LegReport{Leg: l.name, Rejected: l.rejected, RoundTrip: l.roundTo, Gap: l.gap, Moves: l.moves}
	if l.line != nil {
		c := l.line.buffer.Counts()
		r.MediaPath, r.Realm, r.Codec = "line", "", "PCM"
		r.Sent, r.Received, r.Late = l.line.sent, l.line.received, c.Late
		r.Lost = l.line.frames.dropped.Load()
		return r
	}
	r.Sent, r.Received = l.out.packets, l.in.reception.Received()
	r.Lost, r.Jitter = l.in.reception.Lost(), l.in.reception.Jitter()
	if p := l.cur; p != nil {
		r.Realm, r.MediaPath = p.port.realm.name, "lan"
		if p.port.realm.cloud {
			r.MediaPath = "cloud"
		}
		r.Local = p.port.rtp.Local().String()
		if p.remote.IsValid() {
			r.Remote = p.remote.String()
		}
		if p.selected {
			r.Pair = p.pair.Local.String() + " " + p.pair.Remote.String()
		}
		if p.terms != nil {
			r.Codec = p.terms.voice.law().String()
		}
	}
	// What the listener at the other side had of it.
	delay, codec := 2*r.Jitter+2*ptime, quality.G711Bare
	if l.peer != nil && l.peer.line != nil {
		b := l.peer.line.buffer
		r.Late = b.Counts().Late
		delay, codec = b.Delay()+ptime, quality.G711
	}
	if heard := r.Received + r.Lost; heard >= 50 {
		r.MOS = quality.MOS(quality.Rating(codec, delay+r.RoundTrip/2, float64(r.Lost+r.Late)/float64(heard)))
	}
	return r
}
