package siptest

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"localloop/internal/media/mediatest"
)

// Timers of RFC 3261 §17.1.1.1.
const (
	t1Default = 500 * time.Millisecond
	t2        = 4 * time.Second
)

// Violation is a rule that the other side broke.
type Violation struct {
	At     time.Time
	Rule   string // "C-26", or the RFC's section
	Detail string
}

func (v Violation) String() string { return v.Rule + ": " + v.Detail }

// ua is what Teams and Peer have in common: transactions, dialogs and the log
// of violations. One message is handled at a time per link.
type ua struct {
	name  string
	upper bool
	t1    time.Duration
	log   *slog.Logger
	wg    sync.WaitGroup
	ctx   context.Context // ends with Close; a double is not a long-lived part with a Run of its own
	end   context.CancelFunc

	mu         sync.Mutex
	changed    chan struct{}
	calls      map[string]*Call
	order      []*Call // by beginning
	tx         map[string]*transaction
	served     map[string]*Message // last response by branch and method
	violations []Violation
	incoming   []*Call

	// What differs between the doubles.
	linkFor     func(c *Call) (*link, error)                 // for a request in a dialog
	contact     func(c *Call) string                         // our Contact value
	sentBy      func(l *link) string                         // Via: "SIP/2.0/TLS host:port"
	headers     func(c *Call, m *Message)                    // adds what the double always writes
	police      func(l *link, m *Message, c *Call)           // checks; c may be nil
	outside     func(l *link, m *Message) bool               // a request outside any dialog; true if answered
	accept      func(l *link, m *Message) (*answering, bool) // a new INVITE; false if answered
	established func(c *Call)
	paths       func(offered *Message) []string // media paths of a first offer (nil given) or answer; may be nil
	deaf        func(l *link) bool              // reads and does not react; may be nil
}

type transaction struct {
	request *Message
	link    *link
	on      func(*link, *Message)
	mu      sync.Mutex
	stop    chan struct{}
	stopped bool
}

func newUA(name string, upper bool, t1 time.Duration, log *slog.Logger) *ua {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	if t1 == 0 {
		t1 = t1Default
	}
	ctx, cancel := context.WithCancel(context.Background())
	return &ua{
		name: name, upper: upper, t1: t1, log: log.With("double", name), ctx: ctx, end: cancel, changed: make(chan struct{}),
		calls: map[string]*Call{}, tx: map[string]*transaction{}, served: map[string]*Message{},
	}
}

func (u *ua) notify() {
	close(u.changed)
	u.changed = make(chan struct{})
}

func (u *ua) touch() {
	u.mu.Lock()
	u.notify()
	u.mu.Unlock()
}

// wait returns when ready, called under u.mu, says so.
func (u *ua) wait(ctx context.Context, what string, ready func() bool) error {
	for {
		u.mu.Lock()
		ok, changed := ready(), u.changed
		u.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-changed:
		case <-u.ctx.Done():
			return fmt.Errorf("%s: wait for %s: closed", u.name, what)
		case <-ctx.Done():
			return fmt.Errorf("%s: wait for %s: %w", u.name, what, ctx.Err())
		}
	}
}

// violate records a broken rule.
func (u *ua) violate(rule, format string, args ...any) {
	v := Violation{time.Now(), rule, fmt.Sprintf(format, args...)}
	u.log.Warn("violation", "rule", rule, "detail", v.Detail)
	u.mu.Lock()
	u.violations = append(u.violations, v)
	u.notify()
	u.mu.Unlock()
}

// Violations returns what the other side did wrong so far.
func (u *ua) Violations() []Violation {
	u.mu.Lock()
	defer u.mu.Unlock()
	return append([]Violation(nil), u.violations...)
}

// Calls returns all calls in order, those that have ended included.
func (u *ua) Calls() []*Call {
	u.mu.Lock()
	defer u.mu.Unlock()
	return append([]*Call(nil), u.order...)
}

// register makes the call known under its Call-ID; u.mu is held.
func (u *ua) register(c *Call) {
	u.calls[c.id] = c
	u.order = append(u.order, c)
	u.notify()
}

// Incoming waits for the next call that the other side places and that was not
// returned before. A call that is answered by itself is returned too.
func (u *ua) Incoming(ctx context.Context) (*Call, error) {
	var c *Call
	err := u.wait(ctx, "an incoming call", func() bool {
		if len(u.incoming) == 0 {
			return false
		}
		c, u.incoming = u.incoming[0], u.incoming[1:]
		return true
	})
	return c, err
}

func hexToken(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b)
	return hex.EncodeToString(b)
}

func topBranch(m *Message) string {
	vias := m.All("Via")
	if len(vias) == 0 {
		return ""
	}
	return param(vias[0], "branch")
}

func txKey(m *Message) string {
	_, method := m.CSeq()
	if method == "ACK" {
		method = "INVITE"
	}
	return topBranch(m) + "|" + method
}

// transact sends a request; on gets every response. On links that lose
// datagrams it repeats the request (RFC 3261 §17.1). After 64·T1 without a final
// response to anything but an answered INVITE, on gets a 408 of our own.
func (u *ua) transact(l *link, m *Message, on func(*link, *Message)) (*transaction, error) {
	t := &transaction{request: m, link: l, on: on, stop: make(chan struct{})}
	u.mu.Lock()
	u.tx[txKey(m)] = t
	u.mu.Unlock()
	if err := l.send(m, u.upper); err != nil {
		u.forget(t)
		return nil, fmt.Errorf("send %s: %w", m.Method, err)
	}
	u.wg.Go(func() {
		repeat := time.NewTimer(u.t1)
		defer repeat.Stop()
		give := time.NewTimer(64 * u.t1)
		defer give.Stop()
		for interval := u.t1; ; {
			select {
			case <-t.stop:
				return
			case <-u.ctx.Done():
				return
			case <-give.C:
				u.forget(t)
				timeout := respond(m, 408, "")
				timeout.Reason = "No response"
				on(l, timeout)
				return
			case <-repeat.C:
				if l.reliable() {
					continue
				}
				_ = l.send(m, u.upper)
				interval *= 2
				if m.Method != "INVITE" {
					interval = min(interval, t2)
				}
				repeat.Reset(interval)
			}
		}
	})
	return t, nil
}

func (t *transaction) quiet() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.stopped {
		t.stopped = true
		close(t.stop)
	}
}

func (u *ua) forget(t *transaction) {
	u.mu.Lock()
	delete(u.tx, txKey(t.request))
	u.mu.Unlock()
}

// ask sends a request and waits for its final response.
func (u *ua) ask(ctx context.Context, l *link, m *Message) (*Message, error) {
	finals := make(chan *Message, 1)
	t, err := u.transact(l, m, func(_ *link, r *Message) {
		if r.Status >= 200 {
			select {
			case finals <- r:
			default:
			}
		}
	})
	if err != nil {
		return nil, err
	}
	defer t.quiet()
	select {
	case r := <-finals:
		return r, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("%s: no answer to %s: %w", u.name, m.Method, ctx.Err())
	case <-u.ctx.Done():
		return nil, fmt.Errorf("%s: no answer to %s: closed", u.name, m.Method)
	}
}

// handle takes one message from a link.
func (u *ua) handle(l *link, m *Message) {
	u.log.Debug("received", "from", l.remote.String(), "method", m.Method, "status", m.Status, "call", m.Get("Call-ID"), "cseq", m.Get("CSeq"))
	call := u.call(m)
	u.police(l, m, call)
	if u.deaf != nil && u.deaf(l) {
		return
	}
	if m.IsRequest() {
		u.request(l, m, call)
		return
	}
	u.mu.Lock()
	t := u.tx[txKey(m)]
	u.mu.Unlock()
	_, method := m.CSeq()
	if t == nil {
		if call != nil && method == "INVITE" && m.Status >= 200 {
			call.lateFinal(l, m)
		}
		return
	}
	t.quiet()
	if m.Status >= 200 && method != "INVITE" {
		u.forget(t)
	}
	t.on(l, m)
}

func (u *ua) call(m *Message) *Call {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.calls[m.Get("Call-ID")]
}

// reply sends a response and keeps it for a repeated request.
func (u *ua) reply(l *link, req, resp *Message) {
	u.mu.Lock()
	if len(u.served) > 4096 { // bound of a soak test
		clear(u.served)
	}
	if req.Method != "ACK" {
		u.served[txKey(req)] = resp
	}
	u.mu.Unlock()
	if err := l.send(resp, u.upper); err != nil {
		u.log.Warn("send response", "status", resp.Status, "err", err)
	}
}

func (u *ua) request(l *link, m *Message, call *Call) {
	if m.Method != "ACK" {
		u.mu.Lock()
		again := u.served[txKey(m)]
		u.mu.Unlock()
		if again != nil {
			_ = l.send(again, u.upper)
			return
		}
	}
	refuse := func(status int) {
		r := respond(m, status, hexToken(4))
		u.headers(call, r)
		u.reply(l, m, r)
	}
	switch {
	case call != nil:
		call.request(l, m, refuse)
	case m.Method == "ACK":
	case param(m.Get("To"), "tag") != "" || m.Method == "CANCEL" || m.Method == "BYE":
		refuse(481)
	case m.Method == "INVITE":
		u.invited(l, m)
	default:
		if !u.outside(l, m) {
			refuse(405)
		}
	}
}

// answering says what happens to an incoming call by itself.
type answering struct {
	Answering
	media mediatest.Config
	user  *User
	trunk *Trunk
}

func (u *ua) invited(l *link, m *Message) {
	a, ok := u.accept(l, m)
	if !ok {
		return
	}
	c := u.newCall(m.Get("Call-ID"), a.media)
	c.invite, c.inviteLink, c.answering, c.user, c.trunk = m, l, a, a.user, a.trunk
	c.remoteTag, c.remoteURI = param(m.Get("From"), "tag"), m.Get("From")
	c.localURI = m.Get("To")
	c.remoteTarget, c.routes = addrSpec(m.Get("Contact")), m.All("Record-Route")
	c.remoteSeq, _ = m.CSeq()
	c.record(l, m, true)
	u.mu.Lock()
	u.register(c)
	u.incoming = append(u.incoming, c)
	u.mu.Unlock()
	trying := respond(m, 100, "")
	u.reply(l, m, trying)
	if !a.Manual {
		u.wg.Go(func() { c.answerByItself(u.ctx) })
	}
}

// shut ends the double's goroutines; links are closed by their owner before.
func (u *ua) shut() {
	u.end()
	for _, c := range u.Calls() {
		c.closeMedia()
	}
	u.wg.Wait()
}

func (u *ua) pathsOf(offered *Message) []string {
	if u.paths == nil {
		return nil
	}
	return u.paths(offered)
}

func hasSDP(m *Message) bool {
	return len(m.Body) > 0 && strings.HasPrefix(strings.ToLower(m.Get("Content-Type")), "application/sdp")
}
