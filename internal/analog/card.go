package analog

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"localloop/internal/analog/link"
	"localloop/internal/call"
	"localloop/internal/config"
	"localloop/internal/dsp"
)

// How soon a port that failed is opened again.
const (
	reopenFirst = 100 * time.Millisecond
	reopenLast  = 2 * time.Second
)

// card is one line card: its port, session and lines, owned by the goroutine
// that runs run. Others reach it by post.
type card struct {
	bank *Bank
	name string
	log  *slog.Logger

	mu    sync.Mutex // guards queue and over
	queue []func()
	over  bool
	wake  chan struct{}

	// The owner's.
	conf      config.Card
	lines     []*line
	byChannel [link.Channels]*line
	session   *link.Session
	conn      *link.Conn
	gone      chan error // conn's end
	opening   chan opened
	retryAt   time.Time
	backoff   time.Duration
	fault     string
	welcome   link.Welcome
	epoch     uint16
	alarms    uint64
	opens     uint64

	wanted   []config.Line // what Apply asked for
	wantConf config.Card
	retired  bool
	stale    bool // wanted differs from lines

	streams [link.Channels]atomic.Pointer[stream] // read by the port's reader
	status  atomic.Pointer[[]LineStatus]
}

type opened struct {
	port io.ReadWriteCloser
	err  error
}

func newCard(b *Bank, conf config.Card) *card {
	c := &card{bank: b, name: conf.Name, log: b.log.With("card", conf.Name),
		wake: make(chan struct{}, 1), conf: conf, wantConf: conf, backoff: reopenFirst, fault: "not opened"}
	c.session = link.NewSession(link.Options{
		Write: func(h link.Header, body []byte) {
			if c.conn != nil {
				c.conn.Send(h, body)
			}
		},
		Owner: c, Random: rand.Uint32, Host: b.o.Box.Name, Log: c.log,
	})
	c.status.Store(&[]LineStatus{})
	return c
}

// post has f run by the owner. It reports false when the card has ended.
func (c *card) post(f func()) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over {
		return false
	}
	c.queue = append(c.queue, f)
	select {
	case c.wake <- struct{}{}:
	default:
	}
	return true
}

// drain runs what was posted, until nothing is left.
func (c *card) drain() {
	for {
		c.mu.Lock()
		list := c.queue
		c.queue = nil
		c.mu.Unlock()
		if len(list) == 0 {
			return
		}
		for _, f := range list {
			f()
		}
	}
}

// run owns the card until ctx ends or the card is retired.
func (c *card) run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	defer c.end()
	for !c.retired || !c.free() {
		var frames <-chan link.Frame
		if c.conn != nil {
			frames = c.conn.Frames()
		}
		select {
		case <-ctx.Done():
			return
		case <-c.wake:
		case <-timer.C:
		case o := <-c.opening:
			c.opened(o)
		case err := <-c.gone:
			c.lost(err)
		case f, ok := <-frames:
			if ok {
				c.session.Receive(time.Now(), &f)
			} else {
				c.lost(<-c.gone)
			}
		}
		c.service()
		timer.Reset(c.idle())
	}
}

// service does what is due.
func (c *card) service() {
	c.drain()
	if c.conn != nil {
		c.session.Alive(c.conn.Heard())
		if c.conn.Stalled(time.Now()) {
			c.log.Warn("line card does not take what is sent; port closed")
			c.conn.Close()
		}
	}
	c.session.Tick(time.Now())
	if c.session.Stuck(time.Now()) && c.conn != nil {
		c.conn.Close()
	}
	for _, l := range c.lines {
		if !l.deadline.IsZero() && !time.Now().Before(l.deadline) {
			l.deadline = time.Time{}
			l.feed(input{kind: inTimer})
		}
	}
	if c.stale {
		c.reconcile()
	}
	c.open()
	c.drain()
	c.publish()
}

// idle is how long nothing is due.
func (c *card) idle() time.Duration {
	next := c.session.Next()
	for _, l := range c.lines {
		next = earliest(next, l.deadline)
	}
	if c.conn == nil && c.opening == nil {
		next = earliest(next, c.retryAt)
	}
	if next.IsZero() {
		return time.Minute
	}
	return max(0, time.Until(next))
}

func earliest(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// open begins to open the port when it is time. Opening may wait, so it has a
// goroutine of its own, which ends with the answer.
func (c *card) open() {
	if c.conn != nil || c.opening != nil || c.retired || time.Now().Before(c.retryAt) {
		return
	}
	c.opening = make(chan opened, 1)
	go func(answer chan<- opened, conf config.Card) {
		p, err := c.bank.o.Open(conf)
		answer <- opened{p, err}
	}(c.opening, c.conf)
}

func (c *card) opened(o opened) {
	c.opening = nil
	if o.err != nil {
		if c.fault != o.err.Error() {
			c.fault = o.err.Error()
			c.log.Warn("line card", "error", o.err)
		}
		c.later()
		return
	}
	c.opens++
	c.fault = ""
	c.conn = link.NewConn(o.port, c.pcm)
	c.gone = make(chan error, 1)
	go func(conn *link.Conn, gone chan<- error) { gone <- conn.Run() }(c.conn, c.gone)
	c.session.Open(time.Now())
}

// lost takes the end of the port.
func (c *card) lost(err error) {
	c.conn, c.gone = nil, nil
	if c.fault == "" {
		c.fault = err.Error()
	}
	c.session.Close("unplugged")
	c.log.Warn("line card port closed", "error", err)
	c.later()
}

// later sets when the port is opened again.
func (c *card) later() {
	c.retryAt = time.Now().Add(c.backoff)
	c.backoff = min(2*c.backoff, reopenLast)
}

// end leaves nothing behind: port, goroutines, calls.
func (c *card) end() {
	if c.opening != nil {
		if o := <-c.opening; o.port != nil {
			o.port.Close()
		}
		c.opening = nil
	}
	if c.conn != nil {
		c.conn.Close()
		for range c.conn.Frames() {
		}
		<-c.gone
	}
	c.session.Close("closed")
	for _, l := range c.lines {
		l.down("line card " + c.name + " closed")
	}
	c.mu.Lock()
	c.over = true
	list := c.queue
	c.queue = nil
	c.mu.Unlock()
	for _, f := range list {
		f() // a Dial that was posted last gets its Release
	}
	c.conn = nil
	c.publish()
}

// pcm takes a PCM frame, in the goroutine that reads the port.
func (c *card) pcm(h link.Header, body []byte) {
	if int(h.Channel) < len(c.streams) {
		if s := c.streams[h.Channel].Load(); s != nil {
			s.receive(h, body)
		}
	}
}

// law is the configured law of the link.
func (c *card) law() dsp.Law {
	if c.conf.Law == "ulaw" {
		return dsp.MuLaw
	}
	return dsp.ALaw
}

// Up is called by the session: the card answers. Lines come back with their
// State events.
func (c *card) Up(w link.Welcome, restarted bool) {
	c.welcome = w
	c.backoff, c.fault = reopenFirst, ""
	c.log.Info("line card up", "vendor", w.Vendor, "model", w.Model, "firmware", w.Firmware,
		"serial", w.Serial, "channels", len(w.Channels), "restarted", restarted)
	for _, l := range c.lines {
		c.prepare(l)
	}
}

// prepare tells the card the settings of a line, or finds that they do not fit.
func (c *card) prepare(l *line) {
	if why := c.unfit(l.conf); why != "" {
		l.down(why)
		c.log.Error("line does not fit its card", "line", l.conf.Name, "reason", why)
		return
	}
	l.command(link.Gain(l.conf.TxGain, l.conf.RxGain), nil)
}

func (c *card) unfit(conf config.Line) string {
	if conf.Channel < 0 || conf.Channel >= len(c.welcome.Channels) {
		return fmt.Sprintf("line card %s has no channel %d", c.name, conf.Channel)
	}
	ch := c.welcome.Channels[conf.Channel]
	if ch.Kind.String() != conf.Kind {
		return fmt.Sprintf("channel %d of line card %s is %s, not %s", conf.Channel, c.name, ch.Kind, conf.Kind)
	}
	law := link.ALaw
	if c.law() == dsp.MuLaw {
		law = link.MuLaw
	}
	if !ch.Speaks(law) {
		return fmt.Sprintf("channel %d of line card %s does not speak %s", conf.Channel, c.name, c.conf.Law)
	}
	return ""
}

// Down is called by the session: every call on the card ends, only those.
func (c *card) Down(reason string) {
	c.log.Warn("line card down", "reason", reason)
	for i := range c.streams {
		c.streams[i].Store(nil)
	}
	for _, l := range c.lines {
		l.stream = nil
		l.down("line card " + c.name + " " + reason)
	}
}

// Event is called by the session.
func (c *card) Event(channel uint8, e link.Event) {
	if l := c.byChannel[channel]; l != nil && c.unfit(l.conf) == "" {
		l.event(e)
	}
}

// Alarm is called by the session.
func (c *card) Alarm(a link.Alarm) {
	c.alarms++
	c.log.Warn("line card alarm", "alarm", a.String())
}

// Fill is called by the session.
func (c *card) Fill(channel, depth uint8) {
	if s := c.streams[channel].Load(); s != nil {
		s.seq.Depth(depth)
	}
}

// freed is called when a line has become free: what waited for it may go on.
func (c *card) freed() { c.stale = c.stale || c.pending() }

func (c *card) free() bool {
	return !slices.ContainsFunc(c.lines, func(l *line) bool { return !l.free() })
}

// pending reports that the lines are not as wanted.
func (c *card) pending() bool {
	if c.retired || c.conf != c.wantConf || len(c.lines) != len(c.wanted) {
		return true
	}
	return slices.ContainsFunc(c.lines, func(l *line) bool { return !slices.Contains(c.wanted, l.conf) })
}

// want sets what the configuration asks of the card.
func (c *card) want(conf config.Card, lines []config.Line, retire bool) {
	c.wantConf, c.wanted, c.retired = conf, lines, retire
	c.stale = true
}

// reconcile makes the lines what is wanted, as far as they are free; the rest
// follows when they become free.
func (c *card) reconcile() {
	c.stale = false
	c.lines = slices.DeleteFunc(c.lines, func(l *line) bool {
		if !l.free() || slices.Contains(c.wanted, l.conf) {
			return false
		}
		c.byChannel[l.channel()] = nil
		c.bank.remove(l)
		return true
	})
	if c.conf != c.wantConf && c.free() {
		c.conf = c.wantConf
		c.retryAt = time.Time{}
		if c.conn != nil {
			c.conn.Close()
		}
	}
	for _, conf := range c.wanted {
		if slices.ContainsFunc(c.lines, func(l *line) bool { return l.conf == conf }) {
			continue
		}
		if conf.Channel < 0 || conf.Channel >= link.Channels || c.byChannel[conf.Channel] != nil {
			continue // the channel's line is in use; again when it is free
		}
		l := newLine(c, conf, nil)
		if !c.bank.add(l) {
			continue // the name is in use on another card
		}
		c.lines = append(c.lines, l)
		c.byChannel[conf.Channel] = l
		if c.session.Up() {
			c.prepare(l)
			l.query()
		}
	}
}

// begin dials a line for a leg that Dial has made.
func (c *card) begin(l *line, g *leg, to call.Target) {
	if g.ended {
		return
	}
	if c.over || !slices.Contains(c.lines, l) {
		g.release(call.DestinationDown, "line "+l.conf.Name+" is gone")
		return
	}
	number := dialable(c.bank.o.Box, to.Number)
	if l.exchange() && number == "" {
		g.release(call.AddressIncomplete, "no number to dial")
		return
	}
	l.offer(g, number)
}

// linkFault says why the card is not up, for people.
func (c *card) linkFault() string {
	if c.session.Up() {
		return ""
	}
	if c.conn == nil {
		return c.fault
	}
	n := c.conn.Counters()
	if f := c.session.Fault(); n.Octets == 0 || n.Good > 0 {
		return f
	}
	return "wrong device: octets, but no frame of a line card"
}
