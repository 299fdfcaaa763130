package analogtest

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"time"
)

// Kind says what is behind a channel.
type Kind byte

// Kinds of channel, docs/linecard-link.md §4.
const (
	Absent Kind = 0
	FXS    Kind = 1 // a phone
	FXO    Kind = 2 // an exchange
)

// Channel describes one channel of a card.
type Channel struct {
	Kind     Kind
	Phone    PhoneOptions    // FXS
	Exchange ExchangeOptions // FXO
	// Reflection is the level of the echo that the two-wire line sends back,
	// relative to what goes to it: 0 none, else for example -12 dB, after
	// ReflectionDelay (2 ms if zero).
	Reflection      float64
	ReflectionDelay time.Duration
}

// CardOptions describes a card. The zero value of a field is the default named.
type CardOptions struct {
	Channels []Channel // 1-24
	Laws     []Law     // laws it knows; both
	Baud     uint32    // start rate, and the rate that throttles it; 921600
	MaxBaud  uint32    // highest rate of SETBAUD; 3000000
	// FixedRate cards answer SETBAUD with UNSUPPORTED.
	FixedRate bool
	FrameMS   []int // frame sizes of {5, 10, 20}; 10 and 20
	BufferMS  int   // playout buffer; 60
	PPM       float64
	BootID    uint32 // of the first start; random if 0
	Vendor    string // "Localloop"
	Model     string // "SIM"
	Firmware  string // "1.0"
	Serial    string // "0"
	// NoFSK leaves out the caller-ID generator, NoOHT on-hook transmission.
	NoFSK, NoOHT bool
	// DTMFReceiver cards report digits by themselves.
	DTMFReceiver bool
	// ToHost and ToCard damage what the card sends and receives.
	ToHost, ToCard Impairment
	// Link is a stable path for the pseudo-terminal, a symbolic link.
	Link string
	// Connect opens the serial line instead of a pseudo-terminal: once at the
	// start and at each Replug.
	Connect func() (conn io.ReadWriteCloser, path string, err error)
	// Trace receives one line for each frame on the wire (§11), direction "<" to the host.
	Trace io.Writer
	// Observe is told what happens; it is called from the card's goroutine
	// without a lock held and must not block.
	Observe func(Event)
}

// Card is a serial line card. New makes it, Run lives it; everything else may be
// called at any time, also before Run.
type Card struct {
	w    *world
	opt  CardOptions
	tick int // ms
	rng  *rand.Rand

	// All below is guarded by w.mu.
	link  link
	ports []port
	boot  uint32
	deaf  uint64 // until this millisecond: starting
	baud  uint32
	count Counters

	plugged bool
	path    string
	conn    io.ReadWriteCloser
	stallIn bool // the card does not read
	stallTo bool // the card does not write
	toHost  *impairer
	toCard  *impairer
	out     outbox
	trace   *tracer
	log     []Command
	alarms  [256]*int16 // values of those that are active
}

// Counters of a card since it was made.
type Counters struct {
	FramesIn    uint64 // valid frames received
	DroppedIn   uint64 // damaged frames received
	FramesOut   uint64
	PCMIn       uint64 // accepted for playout
	PCMOut      uint64
	PCMDropped  uint64 // received for a channel that does not stream, or of another length
	Unknown     uint64 // unknown type, wrong direction, malformed
	Concealed   uint64 // frames played in place of lost ones
	Underruns   uint64 // playout buffer empty
	Overruns    uint64 // playout buffer full, or old frame
	Repeats     uint64 // reliable frames sent again
	Duplicates  uint64 // reliable frames received again
	Refused     uint64 // answered with a status other than OK
	Sessions    uint64 // begun
	LinkDowns   uint64
	OutDropped  uint64 // PCM frames that found no room on the wire
	HostBlocked uint64 // octets lost because nobody read the line
	LateTicks   uint64 // ticks skipped because the machine stood still
	ToHost      Damage
	ToCard      Damage
}

// Command is one reliable frame that a card has handled.
type Command struct {
	At      time.Time
	Channel int // -1: the card
	Name    string
	Args    []byte
	Status  byte
}

// port is one channel with its line.
type port interface {
	base() *channel
	kind() Kind
	capabilities() uint32
	rest()     // a session begins
	linkDown() // at once
	failSafe() // two seconds later
	command(id byte, args []byte) byte
	step()                            // one millisecond
	audio(toLine, fromLine []int16)   // one tick
	state() (hook, ring, rev, f byte) // EVT STATE
}

// New makes a card; it starts nothing.
func New(o CardOptions) (*Card, error) {
	if n := len(o.Channels); n < 1 || n > 24 {
		return nil, fmt.Errorf("card with %d channels: 1 to 24", n)
	}
	def := func(v *uint32, d uint32) {
		if *v == 0 {
			*v = d
		}
	}
	def(&o.Baud, 921600)
	def(&o.MaxBaud, 3000000)
	if len(o.Laws) == 0 {
		o.Laws = []Law{ALaw, MuLaw}
	}
	if len(o.FrameMS) == 0 {
		o.FrameMS = []int{10, 20}
	}
	if o.BufferMS == 0 {
		o.BufferMS = 60
	}
	for v, d := range map[*string]string{&o.Vendor: "Localloop", &o.Model: "SIM", &o.Firmware: "1.0", &o.Serial: "0"} {
		if *v == "" {
			*v = d
		}
	}
	c := &Card{w: newWorld(o.Observe), opt: o, tick: 10, boot: o.BootID, baud: o.Baud,
		rng:    rand.New(rand.NewPCG(uint64(o.BootID), 0xCA4D)),
		toHost: newImpairer(o.ToHost), toCard: newImpairer(o.ToCard), out: newOutbox(len(o.Channels)), plugged: true}
	if c.boot == 0 {
		c.boot = rand.Uint32() | 1
	}
	for _, ms := range o.FrameMS {
		switch ms {
		case 5:
			c.tick = 5
		case 10, 20:
		default:
			return nil, fmt.Errorf("frame size %d ms: not 5, 10 or 20", ms)
		}
	}
	if o.Trace != nil {
		c.trace = &tracer{w: o.Trace}
	}
	c.link.init(c)
	for i, d := range o.Channels {
		b := newChannel(c, i, d)
		switch d.Kind {
		case FXS:
			c.ports = append(c.ports, newFXSPort(b, d.Phone))
		case FXO:
			c.ports = append(c.ports, newFXOPort(b, d.Exchange))
		case Absent:
			c.ports = append(c.ports, absentPort{b})
		default:
			return nil, fmt.Errorf("channel %d: kind %d", i, d.Kind)
		}
	}
	return c, nil
}

// Phone returns the phone on channel n; it is nil if that is no FXS.
func (c *Card) Phone(n int) *Phone {
	if p, ok := c.ports[n].(*fxsPort); ok {
		return p.phone
	}
	return nil
}

// Exchange returns the exchange on channel n; it is nil if that is no FXO.
func (c *Card) Exchange(n int) *Exchange {
	if p, ok := c.ports[n].(*fxoPort); ok {
		return p.ex
	}
	return nil
}

// Run lives the card until ctx ends: its clock, and the serial line whenever it
// is plugged in. It returns the error of a line that could not be opened, else nil.
func (c *Card) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ticking := make(chan struct{})
	go func() {
		defer close(ticking)
		c.run(ctx)
	}()
	err := c.serve(ctx)
	cancel()
	<-ticking
	return err
}

// Serve is Run over one given line: it is the card's only one. The card closes
// it at the end.
func (c *Card) Serve(ctx context.Context, line io.ReadWriteCloser) error {
	used := false
	c.w.mu.Lock()
	c.opt.Connect = func() (io.ReadWriteCloser, string, error) {
		if used {
			return nil, "", os.ErrClosed
		}
		used = true
		return line, "", nil
	}
	c.w.mu.Unlock()
	return c.Run(ctx)
}

// run is the clock: an absolute schedule, so that being late never adds up. A
// machine that stood still for more than half a second loses the ticks.
func (c *Card) run(ctx context.Context) {
	period := time.Duration(float64(c.tick) * float64(time.Millisecond) / (1 + c.opt.PPM/1e6))
	due := time.Now()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		due = due.Add(period)
		timer.Reset(time.Until(due))
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		late := time.Since(due)
		c.w.mu.Lock()
		if late > 500*time.Millisecond {
			n := late / period
			due = due.Add(n * period)
			c.count.LateTicks += uint64(n)
		}
		c.step(due)
		events := c.w.take()
		c.w.wake()
		c.w.mu.Unlock()
		c.w.deliver(events)
		c.out.kick()
	}
}

// step is one tick: the milliseconds of all lines, then their audio, then the link.
func (c *Card) step(now time.Time) {
	c.w.now = now
	for range c.tick {
		c.w.ms++
		for _, p := range c.ports {
			p.step()
		}
	}
	for _, p := range c.ports {
		p.base().frame(p)
	}
	c.link.step()
}

// clock is the card's millisecond counter as frames carry it.
func (c *Card) clock() uint16 { return uint16(c.w.ms) }

// Reboot starts the card anew as after a loss of power: it is deaf and dumb for
// 100 ms, has a new boot id and no session.
func (c *Card) Reboot() {
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	c.restart(1)
}

func (c *Card) restart(cause int16) {
	c.boot++
	if c.boot == 0 {
		c.boot = 1
	}
	c.deaf = c.w.ms + 100
	c.baud = c.opt.Baud
	c.out.forget()
	c.link.init(c)
	c.link.resetCause = cause
	for _, p := range c.ports {
		p.rest()
	}
	c.w.tell(-1, "card restarted, boot id %08x", c.boot)
}

// BootID is the present boot id.
func (c *Card) BootID() uint32 {
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	return c.boot
}

// Alarm reports a card alarm to the host (§6.5). One that is active is told again
// at the beginning of each session.
func (c *Card) Alarm(id byte, active bool, value int16) {
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	c.alarms[id] = nil
	if active {
		c.alarms[id] = &value
	}
	c.link.reliable(tAlarm, chCard, c.clock(), alarmBody(id, active, value))
}

// Fault reports a fault of channel n and makes it known in its STATE: kind 1-5
// of EVT FAULT; active false ends it.
func (c *Card) Fault(n int, kind byte, active bool) {
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	b := c.ports[n].base()
	b.fault = 0
	if active {
		b.fault = kind
	}
	b.event(evFault, kind, bit(active))
}

// Counters returns the counters.
func (c *Card) Counters() Counters {
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	n := c.count
	n.DroppedIn = uint64(c.link.in.dropped) + n.DroppedIn
	n.ToHost, n.ToCard = c.toHost.done, c.toCard.done
	return n
}

// Commands returns the last reliable frames handled, at most 512.
func (c *Card) Commands() []Command {
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	return append([]Command(nil), c.log...)
}

// CardSnapshot is a card at one instant.
type CardSnapshot struct {
	Path      string
	Plugged   bool
	LinkUp    bool
	Session   uint32
	Boot      uint32
	Baud      uint32
	Counters  Counters
	Streaming []int // channels
}

// Snapshot returns the present state.
func (c *Card) Snapshot() CardSnapshot {
	n := c.Counters()
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	s := CardSnapshot{Path: c.path, Plugged: c.conn != nil, LinkUp: c.link.up, Session: c.link.session,
		Boot: c.boot, Baud: c.baud, Counters: n}
	for i, p := range c.ports {
		if p.base().stream.on {
			s.Streaming = append(s.Streaming, i)
		}
	}
	return s
}

// WaitLink returns when a host has begun a session and the link is up, or, for
// up false, when it is down.
func (c *Card) WaitLink(ctx context.Context, up bool) error {
	return c.w.await(ctx, fmt.Sprintf("link up %t", up), func() bool { return c.link.up == up })
}

// WaitReady returns when a host has begun a session and has acknowledged the
// state of every channel: only then does it know the card's lines.
func (c *Card) WaitReady(ctx context.Context) error {
	return c.w.await(ctx, "the host to know the lines", func() bool {
		for _, q := range c.link.waiting {
			if len(q) > 0 {
				return false
			}
		}
		return c.link.up
	})
}

// WaitStream returns when channel n streams, or, for on false, when it does not.
func (c *Card) WaitStream(ctx context.Context, n int, on bool) error {
	return c.w.await(ctx, fmt.Sprintf("stream on channel %d %t", n, on), func() bool { return c.ports[n].base().stream.on == on })
}

// Impair changes the damage done to what the card sends (toHost) or receives.
func (c *Card) Impair(toHost bool, i Impairment) {
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	n := newImpairer(i)
	if toHost {
		n.done, c.toHost = c.toHost.done, n
	} else {
		n.done, c.toCard = c.toCard.done, n
	}
}

// Stall stops the card from reading (fromHost) or from writing; false goes on.
func (c *Card) Stall(fromHost, on bool) {
	c.w.mu.Lock()
	if fromHost {
		c.stallIn = on
	} else {
		c.stallTo = on
	}
	c.w.wake()
	c.w.mu.Unlock()
	c.out.kick()
}

// Garbage sends n random octets to the host.
func (c *Card) Garbage(n int) {
	c.w.mu.Lock()
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(c.rng.Uint32())
	}
	c.w.mu.Unlock()
	c.out.put(outgoing{octets: p, at: time.Now()})
}

func bit(b bool) byte {
	if b {
		return 1
	}
	return 0
}
