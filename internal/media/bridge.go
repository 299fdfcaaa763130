package media

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"localloop/internal/bypass"
	"localloop/internal/dsp"
	"localloop/internal/media/secure"
	"localloop/internal/sdp"
)

// Errors of a Bridge that callers may test for.
var (
	ErrNoLeg    = errors.New("no such leg")
	ErrNoOffer  = errors.New("the leg has no offer to answer")
	ErrClosed   = errors.New("the bridge is closed")
	ErrRejected = errors.New("the answer refuses the voice stream")
)

// Bridge is the voice of one call: it has the methods of call.Bridge, with the
// types of this package. Legs are known by name. Methods return at once; they
// may be called by any goroutine, one call at a time is served.
type Bridge struct {
	e     *Engine
	w     *worker
	id    string
	voice *voice
	ch    chan Event

	mu      sync.Mutex // guards what follows; never taken by the voice half
	parties map[string]*party
	closed  bool
}

// eventsKept is how many events wait for a call that is busy; the life of legs
// has room left when digits have filled the rest.
const (
	eventsKept = 128
	digitsKept = 96
)

func newBridge(e *Engine, w *worker, callID string) *Bridge {
	b := &Bridge{e: e, w: w, id: callID, ch: make(chan Event, eventsKept), parties: map[string]*party{}}
	b.voice = &voice{id: callID, drops: &e.drops, failover: e.o.Failover, limits: e.limits(), log: e.o.Log, epoch: e.epoch,
		wake: w.sooner, end: e.end, events: b.tell}
	return b
}

// tell gives an event to the call. It runs on the loop and must not wait.
func (b *Bridge) tell(ev Event) {
	if _, digit := ev.(DigitHeard); digit && len(b.ch) >= digitsKept {
		b.e.drops.event.Add(1)
		return
	}
	select {
	case b.ch <- ev:
	default:
		b.e.drops.event.Add(1)
	}
}

// run lets f run on the loop. When the loop has ended nothing else touches the
// voice half, and f runs here.
func (b *Bridge) run(f func(now time.Time)) {
	g := func(now time.Time) {
		b.voice.now = now
		f(now)
		b.w.sooner(now)
		b.voice.due = now
	}
	if b.w.loop.Post(g) != nil {
		f(b.e.o.Clock())
	}
}

func (b *Bridge) party(leg string) (*party, error) {
	if b.closed {
		return nil, ErrClosed
	}
	p := b.parties[leg]
	if p == nil {
		return nil, fmt.Errorf("leg %s: %w", leg, ErrNoLeg)
	}
	return p, nil
}

// Join connects the voice of two legs and stops what is played to them.
func (b *Bridge) Join(x, y string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	p, err := b.party(x)
	if err != nil {
		return err
	}
	q, err := b.party(y)
	if err != nil {
		return err
	}
	if p == q {
		return fmt.Errorf("join leg %s to itself: %w", x, ErrNoLeg)
	}
	for _, x := range []*party{p, q} {
		if x.joined != nil {
			x.joined.joined = nil
		}
		x.tone = NoTone
	}
	p.joined, q.joined = q, p
	b.run(func(now time.Time) { b.voice.join(now, p.leg, q.leg) })
	return nil
}

// Play plays a tone of the leg's country until the next Play, Join or Drop.
func (b *Bridge) Play(leg string, t Tone) {
	b.mu.Lock()
	defer b.mu.Unlock()
	p, err := b.party(leg)
	if err != nil {
		return
	}
	p.tone = t
	made := newPlayer(t, p.leg.plan)
	b.run(func(now time.Time) { p.leg.play(now, made) })
}

// Digit sends a digit to the leg: as an RFC 4733 event, or as a tone where the
// peer takes no events and on lines.
func (b *Bridge) Digit(leg string, d Digit) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if p, err := b.party(leg); err == nil {
		b.run(func(now time.Time) { p.leg.digit(now, d) })
	}
}

// Confirm says that the answer given last is final: other forks are ignored from
// now on (C-116). A later offer in either direction says the same.
func (b *Bridge) Confirm(leg string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if p, err := b.party(leg); err == nil && p.isLine == "" {
		b.confirm(p)
	}
}

// confirm binds the leg to the fork that answered.
func (b *Bridge) confirm(p *party) {
	if p.settled || p.remote == nil || p.cur == nil {
		return
	}
	p.settled = true
	a, ice := p.cur.agent, p.remote.ICE
	if a != nil && ice != nil {
		b.run(func(time.Time) { a.Bind(ice.Ufrag) })
	}
}

// Hold stops or resumes voice toward and from the leg; what is played to it is
// still heard. The next offer to the leg says so.
func (b *Bridge) Hold(leg string, on bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	p, err := b.party(leg)
	if err != nil {
		return
	}
	p.held = on
	b.run(func(now time.Time) {
		p.leg.held = on
		p.leg.sourceChanged()
		if p.leg.peer != nil {
			p.leg.peer.sourceChanged()
		}
	})
}

// Drop forgets a leg and frees its port.
func (b *Bridge) Drop(leg string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	p, err := b.party(leg)
	if err != nil {
		return
	}
	delete(b.parties, leg)
	if p.joined != nil {
		p.joined.joined = nil
	}
	b.e.legs.Add(-1)
	b.run(func(time.Time) { b.drop(p) })
}

// drop frees a leg, on the loop.
func (b *Bridge) drop(p *party) {
	if p.leg.line != nil {
		b.w.removeLine(p.leg)
	}
	b.voice.drop(p.leg)
}

// Events reports digits and the life of the voice. Close closes it.
func (b *Bridge) Events() <-chan Event { return b.ch }

// Close frees everything and returns what was measured. A second call returns
// an empty report. It waits for the loop to take notice, so the Engine must be
// running or have ended.
func (b *Bridge) Close() Report {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return Report{}
	}
	b.closed = true
	done := make(chan Report, 1)
	b.run(func(now time.Time) {
		r := b.voice.measure()
		for _, p := range b.parties {
			b.drop(p)
		}
		b.w.remove(b.voice)
		done <- r
	})
	r := <-done
	b.w.calls.Add(-1)
	b.e.bridges.Add(-1)
	b.e.legs.Add(-int64(len(b.parties)))
	clear(b.parties)
	close(b.ch)
	return r
}

// party is one leg as it was negotiated.
type party struct {
	name    string
	profile sdp.Profile
	leg     *leg
	joined  *party
	held    bool
	tone    Tone
	isLine  string

	cur, next *stand // next: where the leg is moving

	session  uint64
	local    *sdp.Description // the last one that we gave
	remote   *sdp.Description // the peer's that is in force
	offer    *sdp.Description // the peer's offer under way; nil when ours is
	answer   *sdp.Description // our answer to it
	offering bool             // our offer is under way or was answered last
	answers  int              // to our last offer: more than one means forks
	settled  bool             // an earlier round of offer and answer is over: no forks any more
}

// stand is a place from which a leg is served: a path and what was promised
// about it.
type stand struct {
	path  *path
	port  *port
	agent *bypass.Agent
	suite sdp.Suite
	key   []byte // ours; secret
}

// newParty makes a leg. b.mu is held.
func (b *Bridge) newParty(name string, p sdp.Profile) (*party, error) {
	var random [8]byte
	l := &leg{v: b.voice, name: name, plan: planOf(p.Country)}
	for _, fill := range []func([8]byte){
		l.out.begin,
		func(r [8]byte) { l.rtcp.name = hex.EncodeToString(r[:]) },
		func(r [8]byte) { l.rtcp.dice = uint32(r[0])<<24 | uint32(r[1])<<16 | uint32(r[2])<<8 | uint32(r[3]) },
	} {
		if _, err := io.ReadFull(b.e.o.Rand, random[:]); err != nil {
			return nil, fmt.Errorf("random numbers for leg %s: %w", name, err)
		}
		fill(random)
	}
	session := uint64(0)
	if _, err := io.ReadFull(b.e.o.Rand, random[:]); err != nil {
		return nil, fmt.Errorf("random numbers for leg %s: %w", name, err)
	}
	for _, c := range random {
		session = session<<8 | uint64(c)
	}
	return &party{name: name, profile: p, leg: l, session: session >> 2}, nil
}

// enlist makes a party known to both halves.
func (b *Bridge) enlist(p *party) {
	b.parties[p.name] = p
	b.e.legs.Add(1)
	b.run(func(time.Time) {
		b.voice.legs = append(b.voice.legs, p.leg)
		if p.leg.line != nil {
			b.w.addLine(p.leg)
		}
	})
}

// lineParty makes a leg of an analog line.
func (b *Bridge) lineParty(name, line string, p sdp.Profile) (*party, error) {
	if b.e.o.Lines == nil {
		return nil, fmt.Errorf("line %s: there are no lines", line)
	}
	l, ok := b.e.o.Lines(line)
	if !ok {
		return nil, fmt.Errorf("line %s is not there", line)
	}
	q, err := b.newParty(name, p)
	if err != nil {
		return nil, err
	}
	q.isLine = line
	q.leg.line = newLineLeg(q.leg, l, b.voice.limits, b.w.loop.Ring)
	b.enlist(q)
	return q, nil
}

// planOf is the plan of a country; where it is not known, the tones that ITU-T
// E.180 recommends, which are Germany's.
func planOf(country string) *dsp.Plan {
	if p, ok := dsp.Country(country); ok {
		return p
	}
	if p, ok := dsp.Country("de"); ok {
		return p
	}
	return &dsp.Plan{}
}

// newKey makes an SDES key of ours.
func (b *Bridge) newKey() ([]byte, error) {
	key := make([]byte, secure.KeyLen)
	if _, err := io.ReadFull(b.e.o.Rand, key); err != nil {
		return nil, fmt.Errorf("key: %w", err)
	}
	return key, nil
}

// newStand opens a place in a realm. on shares the port of another place: an ICE
// restart that stays in its realm keeps the address.
func (b *Bridge) newStand(p *party, realm string, on *stand, ice bool) (*stand, error) {
	s := &stand{}
	if on != nil {
		s.port = on.port
	} else {
		r, err := b.e.realm(realm)
		if err != nil {
			return nil, err
		}
		if s.port, err = r.open(b.e.wire.Listen, b.e.o.Control); err != nil {
			return nil, err
		}
		s.port.leg = p.leg
	}
	if ice {
		if err := b.addAgent(p, s); err != nil {
			if on == nil {
				s.port.close()
			}
			return nil, err
		}
	}
	s.path = &path{port: s.port, agent: s.agent}
	return s, nil
}

func (b *Bridge) addAgent(p *party, s *stand) error {
	port := s.port
	var a *bypass.Agent
	var err error
	a, err = bypass.New(bypass.Options{
		Candidate: port.address(), Local: port.rtp.Local(), Rand: b.e.o.Rand, Log: b.e.o.Log,
		Send: port.answer,
		Selected: func(pair bypass.Pair) {
			port.pick(a, pair)
			// From whatever goroutine: the loop takes it up.
			_ = b.w.loop.Post(func(now time.Time) { p.leg.chosen(now, a) })
		},
	})
	if err != nil {
		return fmt.Errorf("ice of leg %s: %w", p.name, err)
	}
	s.agent = a
	return nil
}

// serve attaches the sockets of a place to the loop.
func (b *Bridge) serve(p *party, s *stand, next bool) {
	b.run(func(now time.Time) {
		if s.port.detach == nil {
			s.port.detach = b.w.loop.Detach
			if err := errors.Join(b.w.loop.Attach(s.port.rtp, s.port), b.w.loop.Attach(s.port.rtcp, s.port)); err != nil {
				b.e.o.Log.Error("attach port", "call", b.id, "leg", p.name, "err", err)
			}
		}
		if !next {
			p.leg.cur = s.path
			return
		}
		p.leg.abandon("replaced by another offer", s.port)
		p.leg.next = s.path
	})
}
