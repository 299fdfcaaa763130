package link

import (
	"encoding/binary"
	"fmt"
	"log/slog"
	"time"
)

// Times of a session, §4 and §5.
const (
	helloEvery   = 200 * time.Millisecond
	idlePing     = 250 * time.Millisecond
	statsPing    = time.Second
	silenceLimit = time.Second
	// reopenAfter is how long HELLO may stay unanswered before the port is
	// closed and opened again: a USB function that hangs comes back so.
	reopenAfter = 5 * time.Second
)

// Owner is told what a Session finds out. Calls come from within the Session's
// methods, in the goroutine that called them; it may call Command, but not
// Receive or Tick, from within.
type Owner interface {
	// Up reports a new session. restarted says that the card's boot id is
	// another than that of the session before.
	Up(w Welcome, restarted bool)
	// Down reports the end of a session that was up.
	Down(reason string)
	Event(channel uint8, e Event)
	Alarm(a Alarm)
	// Fill reports the playout depth of a streaming channel in ms.
	Fill(channel, depth uint8)
}

// Session is the protocol state of one card. It owns no port and no clock, and
// belongs to one goroutine.
//
//	         Open                WELCOME
//	closed ────────▶ greeting ───────────▶ up
//	   ▲  Close          ▲ │ HELLO/200 ms  │ silence 1 s, out of repeats, other boot id,
//	   └─────────────────┘ └─┐             │ NO_SESSION: Owner.Down
//	       (also from up)    ◀─────────────┘
type Session struct {
	owner  Owner
	write  func(Header, []byte)
	random func() uint32
	host   string
	log    *slog.Logger

	state     state
	id        uint32
	boot      uint32
	booted    bool // boot is known
	welcome   Welcome
	out       *outbox
	in        inbox
	clock     uint16 // newest of the card
	token     uint32
	pingSent  time.Time
	opened    time.Time
	nextHello time.Time
	heard     time.Time // last valid frame
	sent      time.Time // last frame of ours, or of PCM
	nextStats time.Time
	fault     string

	stats Stats
}

type state uint8

const (
	closed state = iota
	greeting
	up
)

// Stats are the counters of a session's life. They are read by its goroutine.
type Stats struct {
	Sessions  uint64
	Downs     uint64
	Repeats   uint64 // reliable frames sent again
	Events    uint64
	Doubles   uint64 // repeats of the card that were recognised
	Ignored   uint64 // unknown types, wrong direction, outside a session
	Malformed uint64 // valid frames whose body could not be read
	RoundTrip time.Duration
	Card      Pong
}

// Options of a Session.
type Options struct {
	// Write sends one frame. It must not wait.
	Write  func(h Header, body []byte)
	Owner  Owner
	Random func() uint32 // session ids
	Host   string        // our name in HELLO, optional
	Log    *slog.Logger
}

// NewSession returns a closed session.
func NewSession(o Options) *Session {
	s := &Session{owner: o.Owner, random: o.Random, host: o.Host, log: o.Log}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.write = o.Write
	s.out = newOutbox(func(h Header, b []byte) { s.put(h, b) })
	return s
}

// Open begins greeting: a port has been opened.
func (s *Session) Open(now time.Time) {
	s.fault = "no answer"
	s.opened = now
	s.greet(now)
}

func (s *Session) greet(now time.Time) {
	s.state = greeting
	s.out.drop()
	s.in.last = map[uint8]handled{}
	// Never the id before: the card would take HELLO for a repeat and keep its
	// STATEs to itself, §4.
	last := s.id
	for s.id = s.random(); s.id == 0 || s.id == last; {
		s.id = s.random()
	}
	s.heard, s.sent = now, now
	s.hello(now)
}

func (s *Session) hello(now time.Time) {
	s.nextHello = now.Add(helloEvery)
	s.put(Header{Type: TypeHello, Channel: CardChannel}, appendHello(nil, s.id, s.host))
}

// Close ends the session: the port is gone.
func (s *Session) Close(reason string) {
	was := s.state
	s.state = closed
	s.fault = reason
	s.out.drop()
	if was == up {
		s.stats.Downs++
		s.owner.Down(reason)
	}
}

// down ends a session that was up and greets again at once.
func (s *Session) down(now time.Time, reason string) {
	s.Close(reason)
	s.opened = now
	s.greet(now)
}

// Up reports whether the card answers.
func (s *Session) Up() bool { return s.state == up }

// Fault says why the session is not up, for people. Empty when it is.
func (s *Session) Fault() string {
	if s.state == up {
		return ""
	}
	return s.fault
}

// Stuck reports that the card has not answered for so long that the port should
// be closed and opened again.
func (s *Session) Stuck(now time.Time) bool {
	return s.state == greeting && now.Sub(s.opened) >= reopenAfter
}

// Stats returns a copy of the counters.
func (s *Session) Stats() Stats {
	st := s.stats
	st.Repeats = s.out.repeats
	return st
}

// Command queues a command of docs/linecard-link.md §8. done, which may be nil,
// is called once with the card's answer or with StatusLinkDown; commands of a
// channel are carried out in order.
func (s *Session) Command(now time.Time, channel uint8, body Body, done func(Status)) error {
	return s.order(now, TypeCommand, channel, body, done)
}

// StartStream begins PCM frames of 10 ms on the channels of mask, §6.1.
func (s *Session) StartStream(now time.Time, law Law, mask uint32, epoch uint16, done func(Status)) error {
	b := binary.LittleEndian.AppendUint32([]byte{10, byte(law)}, mask)
	return s.order(now, TypeStart, CardChannel, binary.LittleEndian.AppendUint16(b, epoch), done)
}

// StopStream ends PCM on the channels of mask, §6.2.
func (s *Session) StopStream(now time.Time, mask uint32, done func(Status)) error {
	return s.order(now, TypeStop, CardChannel, binary.LittleEndian.AppendUint32(nil, mask), done)
}

func (s *Session) order(now time.Time, t Type, ch uint8, body []byte, done func(Status)) error {
	if s.state != up {
		if done != nil {
			done(StatusLinkDown)
		}
		return nil
	}
	if err := s.out.add(now, t, ch, body, s.clock, done); err != nil {
		return fmt.Errorf("channel %d: %w", ch, err)
	}
	s.sent = now
	return nil
}

// put sends a frame with the card's newest clock. A repeat keeps its own.
func (s *Session) put(h Header, body []byte) {
	if h.Clock == 0 {
		h.Clock = s.clock
	}
	s.write(h, body)
}

// Alive says that valid PCM came: it needs no other handling here.
func (s *Session) Alive(at time.Time) {
	if at.After(s.heard) {
		s.heard = at
	}
}

// Receive takes a valid frame other than PCM.
func (s *Session) Receive(now time.Time, f *Frame) {
	if s.state == closed {
		return
	}
	if s.state == greeting {
		s.greeted(now, f)
		return
	}
	s.heard = now
	s.clock = f.Clock
	switch f.Type {
	case TypeEvent, TypeAlarm:
		s.reliable(now, f)
	case TypeAck:
		s.acked(now, f)
	case TypePing:
		s.pong(f)
	case TypePong:
		s.ponged(now, f)
	case TypeFill:
		ParseFill(f.Body(), s.owner.Fill)
	case TypeWelcome: // the answer to a repeated HELLO
	default:
		s.stats.Ignored++
	}
}

func (s *Session) greeted(now time.Time, f *Frame) {
	switch f.Type {
	case TypeWelcome:
	case TypeHello:
		s.fault = "our own frames come back: echo or loop on the line"
		s.stats.Ignored++
		return
	default:
		s.stats.Ignored++
		return
	}
	w, err := ParseWelcome(f.Body())
	switch {
	case err != nil:
		s.stats.Malformed++
		s.fault = "wrong device: " + err.Error()
		return
	case w.Session != s.id:
		s.stats.Ignored++ // of an earlier HELLO
		return
	case w.Major != Major:
		s.fault = fmt.Sprintf("wrong device: protocol version %d.%d, this box speaks %d.%d", w.Major, w.Minor, Major, Minor)
		return
	}
	restarted := s.booted && w.Boot != s.boot
	s.boot, s.booted, s.welcome = w.Boot, true, w
	s.state, s.heard, s.clock, s.fault = up, now, f.Clock, ""
	s.nextStats = now.Add(statsPing)
	s.stats.Sessions++
	s.owner.Up(w, restarted)
}

func (s *Session) reliable(now time.Time, f *Frame) {
	status, again := s.in.repeat(now, f.Channel, f.Seq)
	if again {
		s.stats.Doubles++
		s.ack(f, status)
		return
	}
	var act func()
	switch {
	case f.Type == TypeAlarm:
		var a Alarm
		if a, status = ParseAlarm(f.Body()); status == StatusOK {
			act = func() { s.owner.Alarm(a) }
		}
	case int(f.Channel) >= len(s.welcome.Channels):
		status = StatusBadArgument
	default:
		var e Event
		if e, status = ParseEvent(f.Body()); status == StatusOK {
			e.Clock = f.Clock
			act = func() { s.owner.Event(f.Channel, e) }
		}
	}
	s.in.remember(now, f.Channel, f.Seq, status)
	s.ack(f, status)
	s.sent = now
	if act == nil {
		s.stats.Malformed++
		return
	}
	s.stats.Events++
	act()
}

func (s *Session) ack(f *Frame, status Status) {
	b := [3]byte{byte(f.Seq), byte(f.Seq >> 8), byte(status)}
	s.put(Header{Type: TypeAck, Channel: f.Channel}, b[:])
}

func (s *Session) acked(now time.Time, f *Frame) {
	seq, status, ok := parseAck(f.Body())
	switch {
	case !ok:
		s.stats.Malformed++
	case status == StatusNoSession:
		s.down(now, "card restarted: it knows no session")
	default:
		s.out.ack(now, f.Channel, seq, status)
	}
}

func (s *Session) ping(now time.Time) {
	s.token++
	s.pingSent, s.sent = now, now
	s.nextStats = now.Add(statsPing)
	b := binary.LittleEndian.AppendUint32(make([]byte, 0, 8), s.token)
	s.put(Header{Type: TypePing, Channel: CardChannel}, binary.LittleEndian.AppendUint32(b, s.id))
}

// pong answers a PING of the card; a host has no boot id and no counters to show.
func (s *Session) pong(f *Frame) {
	if len(f.Body()) < 4 {
		s.stats.Malformed++
		return
	}
	b := make([]byte, 32)
	copy(b, f.Body()[:4])
	binary.LittleEndian.PutUint32(b[4:], s.id)
	s.put(Header{Type: TypePong, Channel: CardChannel}, b)
}

func (s *Session) ponged(now time.Time, f *Frame) {
	p, ok := ParsePong(f.Body())
	switch {
	case !ok:
		s.stats.Malformed++
	case p.Boot != s.boot:
		s.down(now, "card restarted: another boot id")
	case p.Session != s.id:
		s.down(now, "card lost the session")
	default:
		if p.Token == s.token {
			s.stats.RoundTrip = now.Sub(s.pingSent)
		}
		s.stats.Card = p
	}
}

// Tick does what is due at now.
func (s *Session) Tick(now time.Time) {
	switch s.state {
	case greeting:
		if !now.Before(s.nextHello) {
			s.hello(now)
		}
	case up:
		switch {
		case now.Sub(s.heard) >= silenceLimit:
			s.down(now, "card silent for "+silenceLimit.String())
		case !s.out.tick(now):
			s.down(now, "card does not acknowledge")
		case !now.Before(s.pingDue()):
			s.ping(now)
		}
	}
}

// pingDue is when the next PING goes out: nothing sent or nothing heard for
// idlePing, or statistics due.
func (s *Session) pingDue() time.Time {
	quiet := s.heard
	if s.pingSent.After(quiet) {
		quiet = s.pingSent
	}
	return earlier(earlier(s.sent, quiet).Add(idlePing), s.nextStats)
}

// Next is when Tick wants to be called; zero when closed.
func (s *Session) Next() time.Time {
	switch s.state {
	case greeting:
		return s.nextHello
	case up:
		return earlier(earlier(s.pingDue(), s.heard.Add(silenceLimit)), s.out.next())
	}
	return time.Time{}
}
