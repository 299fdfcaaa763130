package link

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// bench joins a Session and a scripted card by two wires in virtual time: there
// is no goroutine, now is moved by hand.
type bench struct {
	t       *testing.T
	now     time.Time
	session *Session
	rng     *rand.Rand
	rate    float64 // octet damage, both ways
	mute    bool    // card takes nothing and says nothing

	toHost, toCard []octet
	hostReader     Reader
	cardReader     Reader

	// The card.
	boot, id  uint32
	cardUp    bool
	seq       uint16
	events    map[uint8][][]byte // waiting, by channel; the first is in flight
	inflight  map[uint8]*flight
	last      map[uint8][2]uint16 // seq and status handled
	commands  map[uint8][][]byte  // acted on
	answer    func(f Header, body []byte) Status
	noAck     bool
	got       []string // frames the host sent: "type@ms"
	start     time.Time
	handledAt map[uint8]time.Time

	// What the session's owner was told.
	ups, downs []string
	heard      map[uint8][]Event
	alarms     []Alarm
	onDown     func(string)
}

type octet struct {
	at time.Time
	c  byte
}

type flight struct {
	wire []byte
	seq  uint16
	due  time.Time
}

func newBench(t *testing.T, seed uint64) *bench {
	b := &bench{t: t, now: time.Unix(1_000_000, 0), rng: rand.New(rand.NewPCG(seed, 38)), boot: 77,
		events: map[uint8][][]byte{}, inflight: map[uint8]*flight{}, last: map[uint8][2]uint16{}, commands: map[uint8][][]byte{},
		heard: map[uint8][]Event{}, handledAt: map[uint8]time.Time{}}
	b.start = b.now
	b.session = NewSession(Options{
		Write: func(h Header, body []byte) {
			b.got = append(b.got, fmt.Sprintf("%02x@%d", byte(h.Type), b.now.Sub(b.start).Milliseconds()))
			b.toCard = b.damage(b.toCard, AppendFrame(nil, h, body))
		},
		Owner: b, Random: b.rng.Uint32, Host: "box",
	})
	return b
}

func (b *bench) Up(w Welcome, restarted bool) {
	b.ups = append(b.ups, fmt.Sprintf("boot %d restarted %t", w.Boot, restarted))
}
func (b *bench) Down(reason string) {
	b.downs = append(b.downs, reason)
	if b.onDown != nil {
		b.onDown(reason)
	}
}
func (b *bench) Event(ch uint8, e Event) { b.heard[ch] = append(b.heard[ch], e) }
func (b *bench) Alarm(a Alarm)           { b.alarms = append(b.alarms, a) }
func (b *bench) Fill(ch, depth uint8)    {}

func (b *bench) damage(wire []octet, p []byte) []octet {
	at := b.now.Add(time.Millisecond)
	for _, c := range p {
		if b.rate > 0 && b.rng.Float64() < b.rate {
			switch b.rng.UintN(3) {
			case 0:
				c ^= byte(1 + b.rng.UintN(255))
			case 1:
				continue
			case 2:
				wire = append(wire, octet{at, byte(b.rng.Uint32())})
			}
		}
		wire = append(wire, octet{at, c})
	}
	return wire
}

func (b *bench) cardSend(h Header, body []byte) {
	h.Clock = uint16(b.now.Sub(b.start).Milliseconds())
	b.toHost = b.damage(b.toHost, AppendFrame(nil, h, body))
}

func (b *bench) cardTakes(h Header, body []byte) {
	if b.mute {
		return
	}
	switch h.Type {
	case TypeHello:
		id := uint32(body[6]) | uint32(body[7])<<8 | uint32(body[8])<<16 | uint32(body[9])<<24
		if id != b.id {
			b.id, b.cardUp, b.seq = id, true, 0
			clear(b.inflight)
			clear(b.last)
			clear(b.events)
		}
		b.cardSend(Header{Type: TypeWelcome, Channel: CardChannel}, testWelcome(id, b.boot))
	case TypePing:
		p := make([]byte, 32)
		copy(p, body[:4])
		id := b.id
		copy(p[4:], []byte{byte(id), byte(id >> 8), byte(id >> 16), byte(id >> 24)})
		copy(p[8:], []byte{byte(b.boot), byte(b.boot >> 8), byte(b.boot >> 16), byte(b.boot >> 24)})
		b.cardSend(Header{Type: TypePong, Channel: CardChannel}, p)
	case TypeCommand, TypeStart, TypeStop:
		status := StatusNoSession
		if b.cardUp {
			last, known := b.last[h.Channel]
			if known && last[0] == h.Seq && b.now.Sub(b.handledAt[h.Channel]) < 3*time.Second {
				status = Status(last[1])
			} else {
				status = StatusOK
				if b.answer != nil {
					status = b.answer(h, body)
				}
				b.commands[h.Channel] = append(b.commands[h.Channel], slices.Clone(body))
				b.last[h.Channel] = [2]uint16{h.Seq, uint16(status)}
				b.handledAt[h.Channel] = b.now
			}
		}
		if !b.noAck {
			b.cardSend(Header{Type: TypeAck, Channel: h.Channel}, []byte{byte(h.Seq), byte(h.Seq >> 8), byte(status)})
		}
	case TypeAck:
		seq := uint16(body[0]) | uint16(body[1])<<8
		if f := b.inflight[h.Channel]; f != nil && f.seq == seq {
			delete(b.inflight, h.Channel)
		}
	}
}

// step moves time by one millisecond.
func (b *bench) step() {
	b.now = b.now.Add(time.Millisecond)
	b.hostRead()
	b.cardRead()
	for ch := range uint8(Channels) {
		if f := b.inflight[ch]; f != nil && !b.mute && !b.now.Before(f.due) {
			f.due = b.now.Add(50 * time.Millisecond)
			b.toHost = b.damage(b.toHost, f.wire)
		}
		if b.inflight[ch] == nil && len(b.events[ch]) > 0 && b.cardUp {
			body := b.events[ch][0]
			b.events[ch] = b.events[ch][1:]
			h := Header{Type: TypeEvent, Channel: ch, Seq: b.seq, Clock: uint16(b.now.Sub(b.start).Milliseconds())}
			f := &flight{AppendFrame(nil, h, body), b.seq, b.now.Add(50 * time.Millisecond)}
			b.seq++
			b.inflight[ch] = f
			b.toHost = b.damage(b.toHost, f.wire)
		}
	}
	if n := b.session.Next(); !n.IsZero() && !b.now.Before(n) {
		b.session.Tick(b.now)
		if n := b.session.Next(); !n.After(b.now) {
			b.t.Fatalf("Tick at %v wants to be called at %v", b.now, n)
		}
	}
}

func (b *bench) hostRead() {
	i := 0
	for ; i < len(b.toHost) && !b.toHost[i].at.After(b.now); i++ {
		b.hostReader.Feed([]byte{b.toHost[i].c}, func(h Header, body []byte) {
			f := Frame{Header: h}
			f.SetBody(body)
			b.session.Receive(b.now, &f)
		})
	}
	b.toHost = append(b.toHost[:0:0], b.toHost[i:]...)
}

func (b *bench) cardRead() {
	i := 0
	for ; i < len(b.toCard) && !b.toCard[i].at.After(b.now); i++ {
		b.cardReader.Feed([]byte{b.toCard[i].c}, b.cardTakes)
	}
	b.toCard = append(b.toCard[:0:0], b.toCard[i:]...)
}

func (b *bench) run(d time.Duration) {
	for end := b.now.Add(d); b.now.Before(end); {
		b.step()
	}
}

func (b *bench) up() *bench {
	b.t.Helper()
	b.session.Open(b.now)
	b.run(10 * time.Millisecond)
	if !b.session.Up() {
		b.t.Fatalf("session is not up: %s", b.session.Fault())
	}
	return b
}

func TestHelloIsRepeatedUntilWelcome(t *testing.T) {
	b := newBench(t, 1)
	b.mute = true
	b.session.Open(b.now)
	b.run(time.Second)
	if want := []string{"01@0", "01@200", "01@400", "01@600", "01@800", "01@1000"}; !slices.Equal(b.got, want) {
		t.Fatalf("sent %v, want %v", b.got, want)
	}
	if b.session.Stuck(b.now) || b.session.Fault() != "no answer" {
		t.Fatalf("stuck %t, fault %q", b.session.Stuck(b.now), b.session.Fault())
	}
	b.run(4 * time.Second)
	if !b.session.Stuck(b.now) {
		t.Fatal("a card that never answers does not lead to reopening")
	}
	b.mute = false
	b.run(250 * time.Millisecond)
	if !b.session.Up() || len(b.ups) != 1 || b.session.Fault() != "" {
		t.Fatalf("ups %v", b.ups)
	}
}

func TestCommandsRepeatThenLinkDown(t *testing.T) {
	b := newBench(t, 2).up()
	b.noAck = true
	b.got = nil
	b.start = b.now
	var answers []Status
	for range 2 {
		if err := b.session.Command(b.now, 0, RingStop(), func(s Status) { answers = append(answers, s) }); err != nil {
			t.Fatal(err)
		}
	}
	b.run(1549 * time.Millisecond)
	var sent []string
	for _, g := range b.got {
		if g[:2] == "20" {
			sent = append(sent, g)
		}
	}
	if want := []string{"20@0", "20@50", "20@150", "20@350", "20@750"}; !slices.Equal(sent, want) {
		t.Fatalf("sent %v, want %v", sent, want)
	}
	if len(b.downs) != 0 || len(answers) != 0 {
		t.Fatalf("down too early: %v %v", b.downs, answers)
	}
	b.run(time.Millisecond)
	if len(b.downs) != 1 || !slices.Equal(answers, []Status{StatusLinkDown, StatusLinkDown}) {
		t.Fatalf("downs %v, answers %v", b.downs, answers)
	}
	if n := len(b.commands[0]); n != 1 {
		t.Fatalf("card acted %d times on one command", n)
	}
	b.noAck = false
	b.run(300 * time.Millisecond)
	if !b.session.Up() {
		t.Fatal("session does not come back")
	}
}

func TestWindowIsFourAndOneForEachChannel(t *testing.T) {
	o := []Header{}
	out := newOutbox(func(h Header, _ []byte) { o = append(o, h) })
	now := time.Unix(0, 0)
	for _, ch := range []uint8{0, 0, 1, 2, 3, 4, 0} {
		if err := out.add(now, TypeCommand, ch, Body{byte(len(o))}, 0, nil); err != nil {
			t.Fatal(err)
		}
	}
	channels := func() (c []uint8) {
		for _, h := range o {
			c = append(c, h.Channel)
		}
		return c
	}
	if want := []uint8{0, 1, 2, 3}; !slices.Equal(channels(), want) {
		t.Fatalf("sent on %v, want %v", channels(), want)
	}
	out.ack(now, 2, 2, StatusOK)
	out.ack(now, 2, 2, StatusOK) // of a repeat
	out.ack(now, 1, 99, StatusOK)
	if want := []uint8{0, 1, 2, 3, 4}; !slices.Equal(channels(), want) {
		t.Fatalf("sent on %v, want %v: channel 0 must wait for its own", channels(), want)
	}
	out.ack(now, 0, 0, StatusOK)
	out.ack(now, 0, 5, StatusOK)
	if want := []uint8{0, 1, 2, 3, 4, 0, 0}; !slices.Equal(channels(), want) {
		t.Fatalf("sent on %v, want %v", channels(), want)
	}
	for i, h := range o {
		if h.Seq != uint16(i) {
			t.Fatalf("seq %d at place %d", h.Seq, i)
		}
	}
	for range maxQueue {
		if err := out.add(now, TypeCommand, 0, nil, 0, nil); err != nil {
			t.Fatal(err)
		}
	}
	if out.add(now, TypeCommand, 0, nil, 0, nil) == nil {
		t.Fatal("queue without limit")
	}
}

func TestPingAndSilence(t *testing.T) {
	b := newBench(t, 3).up()
	b.got, b.start = nil, b.now
	b.run(3 * time.Second)
	if n := len(b.got); n < 10 || n > 13 {
		t.Fatalf("%d PING in 3 s of idleness: %v", n, b.got)
	}
	if rt := b.session.Stats().RoundTrip; rt < time.Millisecond || rt > 5*time.Millisecond {
		t.Fatalf("round trip %v over wires of 1 ms", rt)
	}
	b.mute = true
	b.run(time.Second)
	if len(b.downs) != 0 && b.now.Sub(b.start) < 4*time.Second-5*time.Millisecond {
		t.Fatal("down too early")
	}
	b.run(5 * time.Millisecond)
	if len(b.downs) != 1 {
		t.Fatalf("downs after 1 s of silence: %v", b.downs)
	}
	b.mute = false
	b.run(300 * time.Millisecond)
	if want := "boot 77 restarted false"; len(b.ups) != 2 || b.ups[1] != want {
		t.Fatalf("ups %v", b.ups)
	}
}

func TestA38CardRestartIsNoticed(t *testing.T) {
	for name, restart := range map[string]func(b *bench){
		"new boot id in PONG": func(b *bench) { b.boot, b.cardUp, b.id = 78, false, 0 },
		"session lost":        func(b *bench) { b.cardUp, b.id = false, 0 },
		"NO_SESSION": func(b *bench) {
			b.cardUp, b.id = false, 0
			if err := b.session.Command(b.now, 0, Query(), nil); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, 4).up()
			downAt := time.Time{}
			b.onDown = func(string) { downAt = b.now }
			from := b.now
			restart(b)
			b.run(time.Second)
			if len(b.downs) != 1 || downAt.Sub(from) > 300*time.Millisecond {
				t.Fatalf("downs %v after %v", b.downs, downAt.Sub(from))
			}
			if !b.session.Up() || len(b.ups) != 2 {
				t.Fatalf("ups %v", b.ups)
			}
		})
	}
}

func TestWrongDevicesAreNamed(t *testing.T) {
	for name, c := range map[string]struct {
		answer func(b *bench) []byte
		want   string
	}{
		"version": {func(b *bench) []byte {
			return AppendFrame(nil, Header{Type: TypeWelcome, Channel: CardChannel}, testWelcomeVersion(2, b.session.id, 1))
		}, "wrong device: protocol version 2.0, this box speaks 1.0"},
		"echo":   {func(b *bench) []byte { return AppendFrame(nil, Header{Type: TypeHello, Channel: CardChannel}, nil) }, "our own frames come back: echo or loop on the line"},
		"broken": {func(b *bench) []byte { return AppendFrame(nil, Header{Type: TypeWelcome}, []byte{1, 9}) }, "wrong device: welcome: body too short"},
		"stale": {func(b *bench) []byte {
			return AppendFrame(nil, Header{Type: TypeWelcome, Channel: CardChannel}, testWelcome(b.session.id+1, 1))
		}, "no answer"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, 5)
			b.mute = true
			b.session.Open(b.now)
			b.toHost = b.damage(nil, c.answer(b))
			b.run(20 * time.Millisecond)
			if got := b.session.Fault(); got != c.want || b.session.Up() {
				t.Fatalf("fault %q, want %q", got, c.want)
			}
		})
	}
}

// TestA37EventsAndCommandsSurviveDamage runs events and commands on four channels
// through octet damage: none is lost, doubled or out of order, and the link stays.
func TestA37EventsAndCommandsSurviveDamage(t *testing.T) {
	for _, rate := range []float64{1e-4, 1e-3, 5e-3} {
		t.Run(fmt.Sprint(rate), func(t *testing.T) {
			const n = 2000
			b := newBench(t, 37).up()
			b.rate = rate
			for i := range n {
				for ch := range uint8(2) {
					b.events[ch] = append(b.events[ch], []byte{byte(Flash), byte(i), byte(i >> 8)})
				}
			}
			sent := 0
			ok := 0
			for b.now.Sub(b.start) < 10*time.Minute && (sent < n || len(b.heard[0]) < n || len(b.heard[1]) < n || ok < 2*n) {
				if sent < n && len(b.session.out.waiting) < 8 {
					for ch := range uint8(2) {
						if err := b.session.Command(b.now, ch, Body{0x80, byte(sent), byte(sent >> 8)}, func(s Status) {
							if s == StatusOK {
								ok++
							}
						}); err != nil {
							t.Fatal(err)
						}
					}
					sent++
				}
				b.step()
			}
			if len(b.downs) != 0 {
				t.Fatalf("link went down: %v", b.downs)
			}
			for ch := range uint8(2) {
				if len(b.heard[ch]) != n || len(b.commands[ch]) != n {
					t.Fatalf("channel %d: %d events, %d commands of %d", ch, len(b.heard[ch]), len(b.commands[ch]), n)
				}
				for i := range n {
					if got := int(b.heard[ch][i].Millis); got != i {
						t.Fatalf("channel %d: event %d at place %d", ch, got, i)
					}
					if c := b.commands[ch][i]; int(c[1])|int(c[2])<<8 != i {
						t.Fatalf("channel %d: command %x at place %d", ch, c, i)
					}
				}
			}
			st := b.session.Stats()
			t.Logf("%d commands repeated, %d events doubled on the wire, %d frames dropped by the host", st.Repeats, st.Doubles, b.hostReader.Bad)
			if st.Repeats == 0 || st.Doubles == 0 && rate > 1e-4 {
				t.Error("the damage did nothing: the test proves nothing")
			}
		})
	}
}

func TestUnknownEventsAndChannelsAreAnsweredNotFatal(t *testing.T) {
	b := newBench(t, 6).up()
	var statuses []Status
	b.session.write = func(h Header, body []byte) {
		if h.Type == TypeAck {
			_, s, _ := parseAck(body)
			statuses = append(statuses, s)
		}
	}
	for i, c := range []struct {
		ch   uint8
		body []byte
	}{{0, []byte{0x7E}}, {0, []byte{byte(Flash), 1}}, {9, []byte{byte(OnHook)}}, {0, nil}, {0, []byte{byte(OnHook), 1, 2, 3}}} {
		f := Frame{Header: Header{Type: TypeEvent, Channel: c.ch, Seq: uint16(i)}}
		f.SetBody(c.body)
		b.session.Receive(b.now, &f)
	}
	want := []Status{StatusUnknown, StatusBadArgument, StatusBadArgument, StatusBadArgument, StatusOK}
	if !slices.Equal(statuses, want) || len(b.heard[0]) != 1 || !b.session.Up() {
		t.Fatalf("%v, want %v; heard %v", statuses, want, b.heard)
	}
}

func TestSequenceNumberThatCameRoundIsNoRepeat(t *testing.T) {
	b := newBench(t, 7).up()
	for range 2 {
		f := Frame{Header: Header{Type: TypeEvent, Channel: 1, Seq: 5}}
		f.SetBody([]byte{byte(LoopOpen)})
		b.session.Receive(b.now, &f)
		b.session.Receive(b.now, &f)
		b.run(3 * time.Second)
	}
	if n := len(b.heard[1]); n != 2 {
		t.Fatalf("%d events, want 2", n)
	}
}

func TestA39StreamAnswersEachFrameOnce(t *testing.T) {
	s := NewStream(0xFFF0)
	seq, in, out := uint16(0xFFF0), 0, 0
	rng := rand.New(rand.NewPCG(39, 1))
	for range 5000 {
		if rng.UintN(50) > 0 {
			_, send, ok := s.Receive(seq)
			if !ok {
				t.Fatalf("frame %d refused", seq)
			}
			out += send
		}
		seq++
		in++
	}
	if lag := in + 1 - out; lag < 0 || lag > 8 {
		t.Fatalf("%d frames came, %d went", in, out)
	}
}

func TestStreamRules(t *testing.T) {
	s := NewStream(100)
	for i, c := range []struct {
		seq        uint16
		lost, send int
		ok         bool
	}{
		{90, 0, 0, false}, // of the stream before
		{100, 0, 2, true}, // one in reserve
		{100, 0, 0, false},
		{101, 0, 1, true},
		{104, 2, 3, true},
		{103, 0, 0, false},
		{113, 8, 9, true},
		{150, 0, 1, true}, // too far to conceal
		{151, 0, 1, true},
	} {
		lost, send, ok := s.Receive(c.seq)
		if lost != c.lost || send != c.send || ok != c.ok {
			t.Fatalf("%d: seq %d gives %d %d %t, want %d %d %t", i, c.seq, lost, send, ok, c.lost, c.send, c.ok)
		}
	}
	for _, d := range []uint8{5, 20, 5, 5} {
		s.Depth(d)
	}
	if _, send, _ := s.Receive(152); send != 2 {
		t.Fatalf("starving card gets %d frames, want 2", send)
	}
	for range 3 {
		s.Depth(50)
	}
	if _, send, _ := s.Receive(153); send != 0 {
		t.Fatalf("full card gets %d frames, want 0", send)
	}
	if _, send, _ := s.Receive(154); send != 1 {
		t.Fatalf("then %d frames, want 1", send)
	}
}

// TestSLCL4NoSessionIDTwice: a HELLO with the id before would be a repeat for the
// card, which keeps its STATEs then.
func TestSLCL4NoSessionIDTwice(t *testing.T) {
	var ids []uint32
	numbers := []uint32{0, 7, 7, 0, 7, 8, 8, 9}
	s := NewSession(Options{
		Write: func(h Header, body []byte) {
			ids = append(ids, uint32(body[6])|uint32(body[7])<<8|uint32(body[8])<<16|uint32(body[9])<<24)
		},
		Random: func() uint32 { n := numbers[0]; numbers = numbers[1:]; return n },
	})
	for range 3 {
		s.Open(time.Unix(0, 0))
		s.Close("test")
	}
	if want := []uint32{7, 8, 9}; !slices.Equal(ids, want) {
		t.Fatalf("session ids %v, want %v", ids, want)
	}
}

// TestSLCL5OtherSessionInPongEndsTheSession: the card has taken the link for down.
func TestSLCL5OtherSessionInPongEndsTheSession(t *testing.T) {
	b := newBench(t, 11).up()
	b.id = 0
	b.run(600 * time.Millisecond)
	if len(b.downs) != 1 || len(b.ups) != 2 || !b.session.Up() {
		t.Fatalf("downs %v, ups %v", b.downs, b.ups)
	}
}

func TestSLCL81SlotThatNoCardAccepts(t *testing.T) {
	r := Ring{Slot: SlotByCard, SlotStep: 1, SlotDelay: 500 * time.Millisecond, Steps: []time.Duration{time.Second, 700 * time.Millisecond}}
	if _, err := r.Body(); err != nil {
		t.Fatal(err)
	}
	for _, d := range []time.Duration{499 * time.Millisecond, 501 * time.Millisecond} {
		r.SlotDelay = d
		if _, err := r.Body(); err == nil {
			t.Errorf("slot after %v of 700 ms", d)
		}
	}
}
