package analog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"localloop/internal/analog/link"
	"localloop/internal/call"
	"localloop/internal/config"
	"localloop/internal/dsp"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// tinyCard is a line card with just enough in it to drive a Bank: it acknowledges,
// rings, streams and does what a test tells it. Octets of frames come from package
// link, whose codec is proved against the document.
type tinyCard struct {
	conn  net.Conn
	kinds []byte // 1 FXS, 2 FXO
	caps  link.Capability

	mu       sync.Mutex
	out      []byte
	wake     chan struct{}
	boot     uint32
	session  uint32
	seq      uint16
	streams  map[uint8]*tinyStream
	commands []tinyCommand
	refuse   map[byte]byte // command id → status
	noRingOn bool
	say      map[uint8]func([]int16)
	heard    map[uint8][]int16
	state    map[uint8]byte // hook of STATE
	fault    map[uint8]byte
	silent   bool
	start    time.Time
}

type tinyStream struct {
	seq  uint16
	sent int
	got  int
}

type tinyCommand struct {
	ch   uint8
	body []byte
	at   time.Time
}

func newTinyCard(kinds ...byte) *tinyCard {
	return &tinyCard{kinds: kinds, caps: link.CanRing | link.CanReverse | link.CanCallerID, boot: 1,
		streams: map[uint8]*tinyStream{}, refuse: map[byte]byte{}, say: map[uint8]func([]int16){},
		heard: map[uint8][]int16{}, state: map[uint8]byte{}, fault: map[uint8]byte{}, wake: make(chan struct{}, 1), start: time.Now()}
}

// plug makes a new port and returns the host's end.
func (c *tinyCard) plug() io.ReadWriteCloser {
	host, card := net.Pipe()
	c.mu.Lock()
	c.conn, c.session, c.out = card, 0, nil
	clear(c.streams)
	c.mu.Unlock()
	done := make(chan struct{})
	go c.reads(card, done)
	go c.writes(card, done)
	go c.streamsRun(card, done)
	return host
}

// unplug closes the port under the host.
func (c *tinyCard) unplug() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.conn.Close()
}

func (c *tinyCard) reads(conn net.Conn, done chan struct{}) {
	defer close(done)
	var r link.Reader
	buf := make([]byte, 512)
	for {
		n, err := conn.Read(buf)
		if err != nil {
			return
		}
		c.mu.Lock()
		r.Feed(buf[:n], c.takes)
		c.mu.Unlock()
	}
}

func (c *tinyCard) writes(conn net.Conn, done chan struct{}) {
	for {
		select {
		case <-done:
			return
		case <-c.wake:
		}
		c.mu.Lock()
		b := c.out
		c.out = nil
		c.mu.Unlock()
		if _, err := conn.Write(b); err != nil {
			return
		}
	}
}

func (c *tinyCard) streamsRun(conn net.Conn, done chan struct{}) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-done:
			return
		case <-tick.C:
		}
		c.mu.Lock()
		for ch, s := range c.streams {
			var pcm [80]int16
			var octets [80]byte
			if f := c.say[ch]; f != nil {
				f(pcm[:])
			}
			dsp.ALaw.Encode(octets[:], pcm[:])
			c.send(link.TypePCM, ch, s.seq, octets[:])
			s.seq++
			s.sent++
		}
		c.mu.Unlock()
	}
}

func (c *tinyCard) send(t link.Type, ch uint8, seq uint16, body []byte) {
	if c.silent {
		return
	}
	h := link.Header{Type: t, Channel: ch, Seq: seq, Clock: uint16(time.Since(c.start).Milliseconds())}
	c.out = append(c.out, link.AppendFrame(nil, h, body)...)
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

func (c *tinyCard) takes(h link.Header, body []byte) {
	ack := func(status byte) {
		c.send(link.TypeAck, h.Channel, 0, []byte{byte(h.Seq), byte(h.Seq >> 8), status})
	}
	u32 := func(b []byte) uint32 {
		return uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16 | uint32(b[3])<<24
	}
	le := func(v uint32) []byte { return []byte{byte(v), byte(v >> 8), byte(v >> 16), byte(v >> 24)} }
	switch h.Type {
	case link.TypeHello:
		c.session, c.seq = u32(body[6:]), 0
		clear(c.streams)
		w := append([]byte{0x01, 2, 1, 0, 0x02, 4}, le(c.session)...)
		w = append(append(w, 0x14, 4), le(c.boot)...)
		w = append(w, 0x15, 1, byte(len(c.kinds)))
		for i, k := range c.kinds {
			w = append(append(append(w, 0x16, 9, byte(i), 1, k), le(uint32(c.caps))...), 16, 3)
		}
		c.send(link.TypeWelcome, 0xFF, 0, w)
		for i := range c.kinds {
			c.event(uint8(i), 0x14, c.state[uint8(i)], 0, 0, c.fault[uint8(i)])
		}
	case link.TypePing:
		p := append(append(append([]byte{}, body[:4]...), le(c.session)...), le(c.boot)...)
		c.send(link.TypePong, 0xFF, 0, append(p, make([]byte, 20)...))
	case link.TypeStart:
		ack(0)
		for ch := range uint8(24) {
			if u32(body[2:])>>ch&1 == 1 {
				epoch := uint16(body[6]) | uint16(body[7])<<8
				c.streams[ch] = &tinyStream{seq: epoch}
			}
		}
	case link.TypeStop:
		ack(0)
		for ch := range uint8(24) {
			if u32(body)>>ch&1 == 1 {
				delete(c.streams, ch)
			}
		}
	case link.TypeCommand:
		c.commands = append(c.commands, tinyCommand{h.Channel, append([]byte{}, body...), time.Now()})
		ack(c.refuse[body[0]])
		if c.refuse[body[0]] == 0 {
			switch {
			case body[0] == 0x02 && !c.noRingOn:
				c.event(h.Channel, 0x06, 25)
			case body[0] == 0x12:
				c.event(h.Channel, 0x14, c.state[h.Channel], 0, 0, c.fault[h.Channel])
			}
		}
	case link.TypePCM:
		if s := c.streams[h.Channel]; s != nil {
			s.got++
			pcm := make([]int16, 80)
			dsp.ALaw.Decode(pcm, body)
			c.heard[h.Channel] = append(c.heard[h.Channel], pcm...)
		}
	}
}

func (c *tinyCard) event(ch uint8, body ...byte) {
	c.send(link.TypeEvent, ch, c.seq, body)
	c.seq++
}

// Event reports an event.
func (c *tinyCard) Event(ch uint8, body ...byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch body[0] {
	case 0x01:
		c.state[ch] = 1
	case 0x02:
		c.state[ch] = 0
	}
	c.event(ch, body...)
}

// Say sets what the channel sends to the host.
func (c *tinyCard) Say(ch uint8, fill func([]int16)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.say[ch] = fill
}

// Listen forgets what the channel heard and returns what it hears for d.
func (c *tinyCard) Listen(ch uint8, d time.Duration) []int16 {
	c.mu.Lock()
	c.heard[ch] = nil
	c.mu.Unlock()
	time.Sleep(d)
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.heard[ch]
}

// Did lists the commands of an id on a channel.
func (c *tinyCard) Did(ch uint8, id byte) (list []tinyCommand) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, cmd := range c.commands {
		if cmd.ch == ch && cmd.body[0] == id {
			list = append(list, cmd)
		}
	}
	return list
}

func (c *tinyCard) Streams(ch uint8) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.streams[ch] != nil
}

// rig is a Bank with its cards in a bubble of virtual time.
type rig struct {
	t     *testing.T
	bank  *Bank
	cards map[string]*tinyCard
	calls chan call.Leg
	out   map[string]bool // cards whose port cannot be opened
	mu    sync.Mutex
}

type testPlan map[string]int

func (p testPlan) Complete(_, digits string) int {
	if v, ok := p[digits]; ok {
		return v
	}
	for full := range p {
		if strings.HasPrefix(full, digits) {
			return 1
		}
	}
	return 0
}

var testBox = config.Box{Name: "box", Country: "de", CountryCode: "49", TrunkPrefix: "0", InternationalPrefix: "00"}

func fxsLine(name, card string, ch int) config.Line {
	return config.Line{Name: name, Card: card, Channel: ch, Kind: "fxs", Number: "+4930555" + fmt.Sprint(10+ch), Display: "Desk"}
}

func fxoLine(name, card string, ch int) config.Line {
	return config.Line{Name: name, Card: card, Channel: ch, Kind: "fxo", Number: "+49305550"}
}

// bubble runs f with a Bank over the cards.
func bubble(t *testing.T, lines []config.Line, cards map[string]func() *tinyCard, f func(t *testing.T, r *rig)) {
	synctest.Test(t, func(t *testing.T) {
		r := &rig{t: t, cards: map[string]*tinyCard{}, calls: make(chan call.Leg, 10), out: map[string]bool{}}
		var conf []config.Card
		for name, make := range cards {
			r.cards[name] = make()
			conf = append(conf, config.Card{Name: name, Device: "/dev/" + name, Baud: 921600, Law: "alaw"})
		}
		var err error
		r.bank, err = New(Options{Box: testBox, Cards: conf, Lines: lines,
			Open: func(c config.Card) (io.ReadWriteCloser, error) {
				r.mu.Lock()
				defer r.mu.Unlock()
				if r.out[c.Name] {
					return nil, errors.New("no such device")
				}
				return r.cards[c.Name].plug(), nil
			},
			Accept: func(g call.Leg) { r.calls <- g },
			Plan:   testPlan{"112": 2, "030555": 3, "0305551234": 2, "11833": 2},
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- r.bank.Run(ctx) }()
		time.Sleep(time.Second)
		f(t, r)
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func fxsCard() *tinyCard { return newTinyCard(1, 1) }
func fxoCard() *tinyCard { return newTinyCard(2) }

func (r *rig) state(line string) string {
	for _, s := range r.bank.Status() {
		if s.Line == line {
			return s.State
		}
	}
	return "unknown"
}

func (r *rig) wantState(line, want string) {
	r.t.Helper()
	synctest.Wait() // until what was sent has been taken in
	if got := r.state(line); got != want {
		r.t.Fatalf("line %s is %q, want %q", line, got, want)
	}
}

// want takes the next event of a leg, which must come within d.
func want[E call.Event](r *rig, g call.Leg, d time.Duration) E {
	r.t.Helper()
	select {
	case e, ok := <-g.Events():
		if v, right := e.(E); ok && right {
			return v
		}
		r.t.Fatalf("leg %s: %T %+v", g.Name(), e, e)
	case <-time.After(d):
		r.t.Fatalf("leg %s: nothing within %v", g.Name(), d)
	}
	panic("not reached")
}

// quiet fails when the leg says anything within d.
func (r *rig) quiet(g call.Leg, d time.Duration) {
	r.t.Helper()
	select {
	case e := <-g.Events():
		r.t.Fatalf("leg %s: %T %+v", g.Name(), e, e)
	case <-time.After(d):
	}
}

func (r *rig) accept(d time.Duration) call.Leg {
	r.t.Helper()
	select {
	case g := <-r.calls:
		return g
	case <-time.After(d):
		r.t.Fatalf("no call within %v", d)
	}
	panic("not reached")
}

func (r *rig) dial(line, number string, from call.Party) call.Leg {
	r.t.Helper()
	g, err := r.bank.Dial(r.t.Context(), call.Target{Kind: call.ToLine, Name: line, Number: number}, call.Setup{Calling: from})
	if err != nil {
		r.t.Fatal(err)
	}
	return g
}

// power is the level of one frequency in dBm0, Goertzel.
func power(pcm []int16, hz float64) float64 {
	if len(pcm) == 0 {
		return -99
	}
	var re, im float64
	for i, s := range pcm {
		sin, cos := math.Sincos(2 * math.Pi * hz * float64(i) / 8000)
		re += float64(s) * cos
		im += float64(s) * sin
	}
	amplitude := 2 * math.Hypot(re, im) / float64(len(pcm))
	return 20 * math.Log10(max(amplitude, 1e-3)/22827)
}

// sine is an endless tone.
func sine(hz, dBm0 float64) func([]int16) {
	n := 0
	return func(pcm []int16) {
		for i := range pcm {
			pcm[i] = int16(22827 * math.Pow(10, dBm0/20) * math.Sin(2*math.Pi*hz*float64(n)/8000))
			n++
		}
	}
}

// keys is a phone whose keys are pressed.
func keys(digits string) func([]int16) {
	s := dsp.NewDTMFSender(-9, -11)
	if err := s.Queue(digits, 50*time.Millisecond, 50*time.Millisecond); err != nil {
		panic(err)
	}
	return func(pcm []int16) { s.Fill(pcm) }
}
