package media

import (
	"errors"
	"net/netip"
	"time"

	"localloop/internal/dsp"
	"localloop/internal/media/quality"
	"localloop/internal/media/secure"
)

// media takes an RTP packet. The order is that of trust: the address first,
// then the key, then the header, then the stream.
func (l *leg) media(now time.Time, p *port, b []byte, from netip.AddrPort) {
	var way *path
	var plain []byte
	var err error
	for _, w := range l.paths() {
		if w == nil || w.port != p || !w.admits(from) {
			continue
		}
		if plain, err = w.open(b); err == nil {
			way = w
			break
		}
	}
	if way == nil {
		l.refused(err)
		return
	}
	k, ok := parse(plain)
	if !ok {
		l.reject(&l.v.drops.malformed)
		return
	}
	kind := way.terms.kinds[k.pt]
	if kind == unknown {
		l.v.drops.payload.Add(1)
		return
	}
	if !l.in.follows(k.ssrc, way.recv != nil) {
		return
	}
	way.confirm(from)
	verdict := quality.Fresh
	if kind == event {
		verdict = l.in.reception.Event(now, k.seq)
	} else {
		verdict = l.in.reception.Packet(now, k.seq, k.ts)
	}
	switch verdict {
	case quality.Duplicate, quality.Old:
		l.v.drops.duplicate.Add(1)
		return
	case quality.Restarted:
		if l.peer != nil {
			l.peer.sourceChanged()
		}
	}
	if way == l.next {
		// The peer already speaks on the new path: that is proof enough.
		if way.remote.IsValid() {
			l.moveTo(now)
		}
	} else if way == l.cur && l.life.old != nil {
		l.retire(l.life.old)
		l.life.old = nil
	}
	l.alive(now, way, kind, len(k.payload))
	l.deliver(now, kind, k)
}

// open authenticates and decrypts in place; without SRTP it returns b.
func (p *path) open(b []byte) ([]byte, error) {
	if p.recv == nil {
		return b, nil
	}
	plain, err := p.recv.RTP(b)
	if err == secure.ErrAuth && p.pending != nil {
		if plain, err = p.pending.RTP(b); err == nil {
			p.recv, p.pending = p.pending, nil
		}
	}
	return plain, err
}

func (l *leg) refused(err error) {
	switch {
	case err == nil:
		l.reject(&l.v.drops.source)
	case errors.Is(err, secure.ErrAuth):
		l.reject(&l.v.drops.auth)
	case errors.Is(err, secure.ErrReplay):
		l.reject(&l.v.drops.replay)
	default:
		l.reject(&l.v.drops.malformed)
	}
}

// follows decides whether a packet belongs to the stream, and takes up a new
// source (C-103).
func (in *incoming) follows(ssrc uint32, authenticated bool) bool {
	if in.started && ssrc == in.ssrc {
		in.hasCandidate = false
		return true
	}
	if in.started && !authenticated && (!in.hasCandidate || in.candidate != ssrc) {
		in.candidate, in.hasCandidate = ssrc, true
		return false
	}
	if in.started {
		in.reception.Moved()
	}
	in.ssrc, in.started, in.hasCandidate = ssrc, true, false
	return true
}

// deliver gives a packet to the joined leg.
func (l *leg) deliver(now time.Time, kind payload, k packet) {
	to := l.peer
	if kind == event {
		l.heard.packet(l, now, k)
	}
	if to == nil || l.held {
		return
	}
	if to.line != nil {
		to.line.fromRTP(now, l, kind, k)
		return
	}
	from := origin{leg: l, ssrc: k.ssrc, what: fromPeer}
	p := to.sending()
	if p == nil || to.held || to.playing() || to.digits.busy() {
		to.out.blocked(from)
		return
	}
	t := p.terms
	pt, size := t.voicePT, len(k.payload)
	if size > len(l.v.plain)-12 {
		l.v.drops.malformed.Add(1)
		return
	}
	switch kind {
	case pcma, pcmu:
		to.pace.silent = false
		if table := transcode(kind, t.voice); table != nil {
			for i, c := range k.payload {
				l.v.plain[12+i] = table[c]
			}
		} else {
			copy(l.v.plain[12:], k.payload)
		}
	case event:
		pt = t.eventPT
		if pt == absent {
			to.out.skip(from, k.seq)
			return // the reader has it played as tones
		}
		copy(l.v.plain[12:], k.payload)
	case noise:
		pt = t.noisePT
		if pt == absent {
			to.out.skip(from, k.seq)
			to.pace.fall(now, k.payload)
			l.v.sooner(now)
			return
		}
		copy(l.v.plain[12:], k.payload)
	}
	to.emit(now, p, from, k.seq, k.ts, pt, k.marker, size)
}

// The tables between the laws.
var (
	aToMu = between(dsp.ALaw, dsp.MuLaw)
	muToA = between(dsp.MuLaw, dsp.ALaw)
)

func between(from, to dsp.Law) *[256]byte {
	var t [256]byte
	for i := range t {
		var pcm [1]int16
		from.Decode(pcm[:], []byte{byte(i)})
		to.Encode(t[i:i+1], pcm[:])
	}
	return &t
}

// transcode returns the table from one law to another; nil when they are the same.
func transcode(from, to payload) *[256]byte {
	switch {
	case from == pcma && to == pcmu:
		return aToMu
	case from == pcmu && to == pcma:
		return muToA
	}
	return nil
}
