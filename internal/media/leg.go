package media

import (
	"bytes"
	"net/netip"
	"sync/atomic"
	"time"

	"localloop/internal/bypass"
	"localloop/internal/dsp"
	"localloop/internal/media/quality"
	"localloop/internal/media/secure"
)

// leg is one party's voice: streams, keys and life of an RTP peer, or a line.
type leg struct {
	v    *voice
	name string
	plan *dsp.Plan // tones of the party's country
	line *lineLeg  // nil for RTP
	peer *leg      // the joined other side
	held bool

	cur, next *path // next is set while the leg moves

	out    outgoing
	digits eventSender
	player player          // what is played instead of the other side's voice
	inband *dsp.DTMFSender // digits as tones, over everything else; nil when done
	pace   pacer

	in       incoming
	heard    eventReader
	life     life
	rtcp     reports
	moves    []Move
	gap      time.Duration
	rejected uint64
	roundTo  time.Duration
}

// incoming is what is known of the stream that a peer sends.
type incoming struct {
	ssrc    uint32
	started bool
	// A new source on a leg without SRTP counts from its second packet on: one
	// stray packet must not disturb a stream that nothing authenticates.
	candidate    uint32
	hasCandidate bool
	reception    quality.Reception
	lastVoice    time.Time
}

// path is one way between a leg and its peer: a port, and how the peer is
// reached and recognised there.
type path struct {
	port  *port
	agent *bypass.Agent // nil without ICE
	terms *terms        // nil until the peer's description is known

	send     *secure.Sender
	recv     *secure.Receiver
	pending  *secure.Receiver // the peer's next key, until it is used
	sendKey  []byte
	recvKey  []byte
	remote   netip.AddrPort // where RTP goes; invalid while unknown
	latched  bool           // remote was learned from a packet
	heard    bool           // a valid packet came from remote
	pair     bypass.Pair
	selected bool
	checks   time.Time // agent's last check that was counted
}

// drops counts packets that were not used, by reason. Shared by all calls of an
// Engine.
type drops struct {
	unknown   atomic.Uint64 // neither STUN, RTP nor RTCP, or of no leg
	source    atomic.Uint64 // from an address that was not checked or described
	auth      atomic.Uint64
	replay    atomic.Uint64
	malformed atomic.Uint64
	duplicate atomic.Uint64
	payload   atomic.Uint64 // payload type not agreed
	unsent    atomic.Uint64 // not sent: no key, no address or a failing socket
	check     atomic.Uint64 // STUN that is no connectivity check of the peer
	event     atomic.Uint64 // events for the call that nobody fetched
}

func (l *leg) reject(c *atomic.Uint64) {
	c.Add(1)
	l.rejected++
}

// agree puts terms into force on a path. With fork the answer of another fork
// replaces the one before entirely (C-56, C-116); without, packets under
// the old key are still opened until the first under the new one, because a
// peer changes over when our answer reaches it.
func (l *leg) agree(now time.Time, p *path, t *terms, fork bool) {
	l.v.now = now
	old := p.terms
	p.terms = t
	if t.suite != "" {
		l.rekey(p, t, fork)
	} else {
		p.send, p.recv, p.pending = nil, nil, nil
	}
	switch {
	case t.checks && p.agent != nil:
		if old != nil && !old.checks || old == nil {
			p.remote = netip.AddrPort{}
		}
		if err := p.agent.SetRemote(t.ice); err != nil {
			l.v.log.Warn("remote candidates", "call", l.v.id, "leg", l.name, "err", err)
		}
		if t.final {
			p.agent.Bind(t.ufrag)
		}
		if old != nil && old.ufrag != t.ufrag {
			// The fork before is void; its address is not admitted any more.
			p.selected, p.remote = false, netip.AddrPort{}
		}
		l.choose(now, p)
	case old == nil || old.remote != t.remote || old.checks:
		// C-120, C-121: no checks will come, the default address counts.
		p.remote, p.latched, p.heard = t.remote, false, false
	}
	if p == l.next && !t.checks {
		// RFC 3264 §8.3.1: send to the new address at once; the old port stays
		// open until voice comes on the new one.
		l.moveTo(now)
	}
	if p == l.cur && (old == nil || old.voice != t.voice || old.voicePT != t.voicePT) {
		l.out.interrupt()
	}
	l.v.sooner(now)
}

// rekey gives the path the contexts for the keys of t. The same key keeps its
// context and so its rollover counter, also across paths; a new key starts at
// zero (C-76).
func (l *leg) rekey(p *path, t *terms, fork bool) {
	other := l.cur
	if p == l.cur {
		other = l.next
	}
	if p.send == nil || !bytes.Equal(p.sendKey, t.sendKey) {
		if other != nil && other.send != nil && bytes.Equal(other.sendKey, t.sendKey) {
			p.send = other.send
		} else if s, err := secure.NewSender(t.suite, t.sendKey); err == nil {
			p.send = s
		} else {
			l.v.log.Error("key for sending", "call", l.v.id, "leg", l.name, "err", err)
			p.send = nil
		}
		p.sendKey = t.sendKey
	}
	if p.recv != nil && bytes.Equal(p.recvKey, t.recvKey) {
		return
	}
	var r *secure.Receiver
	if other != nil && other.recv != nil && bytes.Equal(other.recvKey, t.recvKey) {
		r = other.recv
	} else {
		var err error
		if r, err = secure.NewReceiver(t.suite, t.recvKey); err != nil {
			l.v.log.Error("key for receiving", "call", l.v.id, "leg", l.name, "err", err)
			return
		}
	}
	p.recvKey = t.recvKey
	if p.recv == nil || fork {
		p.recv, p.pending = r, nil
	} else {
		p.pending = r
	}
}

// check takes a STUN message and gives it to the agent that it is meant for:
// during a restart two agents share a port.
func (l *leg) check(now time.Time, p *port, b []byte, from netip.AddrPort) {
	ufrag, named := bypass.LocalUfrag(b)
	for _, w := range [...]*path{l.next, l.cur} {
		if w == nil || w.port != p || w.agent == nil {
			continue
		}
		if named && w.agent.Ufrag() != string(ufrag) {
			continue
		}
		if w.agent.Handle(b, from) {
			l.v.drops.check.Add(1)
		}
		if last := w.agent.LastCheck(); !last.Equal(w.checks) {
			w.checks = last
			if w == l.cur {
				l.life.check(now, w.selected)
			}
		}
		l.choose(now, w)
		return
	}
	l.reject(&l.v.drops.source)
}

// choose follows the agent's selection (C-112, C-113) and moves the leg when
// the new path is ready: at its nomination, or at its first valid pair when the
// old path is dead anyway (C-117).
func (l *leg) choose(now time.Time, p *path) {
	pair := p.port.selection(p.agent)
	if pair != nil && !pair.Remote.IsValid() && p.selected {
		p.selected, p.remote = false, netip.AddrPort{}
	}
	if pair == nil || !pair.Remote.IsValid() || p.terms == nil || !p.terms.checks || pair.RemoteUfrag != "" && pair.RemoteUfrag != p.terms.ufrag {
		return
	}
	p.pair, p.selected = *pair, true
	p.remote = pair.Remote
	if p == l.next && (pair.Nominated || l.life.lost(now)) {
		l.moveTo(now)
	}
}

// chosen takes up the selection of an agent.
func (l *leg) chosen(now time.Time, a *bypass.Agent) {
	for _, p := range [...]*path{l.cur, l.next} {
		if p != nil && p.agent == a {
			l.v.now = now
			l.choose(now, p)
			return
		}
	}
}

// moveTo makes the next path the one that is sent on.
func (l *leg) moveTo(now time.Time) {
	old := l.cur
	l.cur, l.next = l.next, nil
	l.out.interrupt()
	why := l.life.why
	if why == "" {
		why = "new offer"
	}
	m := Move{From: old.port.realm.name, To: l.cur.port.realm.name, Why: why}
	if !l.v.joined.IsZero() {
		m.After = now.Sub(l.v.joined)
	}
	l.moves = append(l.moves, m)
	l.life.moved(now)
	l.rtcp.soon(now)
	if l.cur.selected {
		// A checked pair is proof enough: a muted peer sends no voice for a while.
		l.v.events(VoiceAlive{Leg: l.name, Realm: l.cur.port.realm.name})
	}
	if old.port == l.cur.port {
		if old.agent != nil && old.agent != l.cur.agent {
			l.v.end(old.agent)
		}
		l.life.old = nil
		return
	}
	// The peer's voice may still come on the old way for a moment.
	l.retire(l.life.old)
	l.life.old = old
}

// retire closes a path that is not used any more.
func (l *leg) retire(p *path) {
	if p == nil || l.cur != nil && p.port == l.cur.port {
		return
	}
	if p.agent != nil {
		l.v.end(p.agent)
	}
	p.port.close()
}

// abandon gives up a move that has not happened. keep is a port that the next
// attempt goes on using.
func (l *leg) abandon(why string, keep *port) {
	if l.next == nil {
		return
	}
	n := l.next
	l.next = nil
	m := Move{From: l.cur.port.realm.name, To: n.port.realm.name, Why: why}
	if !l.v.joined.IsZero() {
		m.After = l.v.now.Sub(l.v.joined)
	}
	l.moves = append(l.moves, m)
	if n.port != keep {
		l.retire(n)
	}
	if n.agent != nil && (n.port == l.cur.port || n.port == keep) {
		l.v.end(n.agent)
	}
}

// paths are the ways on which packets may come, the likely one first.
func (l *leg) paths() [3]*path { return [3]*path{l.cur, l.next, l.life.old} }

// admits says whether a packet from an address may be looked at (C-124). Without
// ICE it is the described address, or once another port of the same host: the
// peer is behind a port translator (symmetric RTP).
func (p *path) admits(from netip.AddrPort) bool {
	switch {
	case p == nil || p.terms == nil:
		return false
	case p.terms.checks && p.agent != nil:
		// Voice counts only from the fork whose answer is in force (C-116).
		ufrag, ok := p.agent.Fork(from)
		return ok && ufrag == p.terms.ufrag
	case from == p.remote:
		return true
	}
	return !p.latched && !p.heard && from.Addr() == p.terms.remote.Addr()
}

// confirm notes that a valid packet came from an address that admits let pass.
func (p *path) confirm(from netip.AddrPort) {
	if p.terms.checks || p.heard {
		return
	}
	p.heard = true
	if from != p.remote {
		p.latched, p.remote = true, from
	}
}

// sending is the path to send on; nil when nothing may be sent now.
func (l *leg) sending() *path {
	p := l.cur
	if p == nil || p.terms == nil || !p.terms.receives || !p.remote.IsValid() || p.remote.Port() == 0 {
		return nil
	}
	if p.terms.suite != "" && p.send == nil {
		return nil
	}
	return p
}

// transmit sends the RTP packet of n bytes in v.plain.
func (l *leg) transmit(p *path, n int) bool {
	b := l.v.plain[:n]
	if p.send != nil {
		var err error
		if b, err = p.send.RTP(l.v.sealed[:0], b); err != nil {
			l.v.drops.unsent.Add(1)
			return false
		}
	}
	if p.port.rtp.Send(b, p.remote) != nil {
		l.v.drops.unsent.Add(1)
		return false
	}
	p.port.realm.sent(len(b))
	return true
}

// emit numbers and sends a payload that is in v.plain[12:12+size].
func (l *leg) emit(now time.Time, p *path, from origin, seq uint16, ts uint32, pt uint8, marker bool, size int) bool {
	outSeq, outTS, fresh, ok := l.out.number(now, from, seq, ts)
	if !ok {
		l.v.drops.duplicate.Add(1)
		return false
	}
	header(l.v.plain[:], marker || fresh, pt, outSeq, outTS, l.out.ssrc)
	sent := l.transmit(p, 12+size)
	l.out.sent(now, outSeq, outTS, size)
	return sent
}

// sourceChanged tells the leg that other voice follows.
func (l *leg) sourceChanged() {
	l.out.interrupt()
	l.digits.stop(l.v.now)
	if l.line != nil {
		l.line.buffer.Reset()
		l.line.keyer.stop()
	}
	l.pace.silent = false
}

// attach makes a line's voice flow; without effect on RTP.
func (l *leg) attach() {
	if l.line != nil && !l.line.attached {
		l.line.attached = true
		l.line.line.Attach(l.line.sink)
	}
}

func (l *leg) close() {
	if l.line != nil {
		if l.line.attached {
			l.line.attached = false
			l.line.line.Detach()
		}
		return
	}
	old, next := l.life.old, l.next
	l.life.old, l.next = nil, nil
	cur := l.cur
	for _, p := range [...]*path{old, next, cur} {
		if p != nil && p.agent != nil {
			l.v.end(p.agent)
		}
		if p != nil {
			p.port.close()
		}
	}
}
