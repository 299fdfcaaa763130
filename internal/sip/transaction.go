package sip

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	sipgo "github.com/emiago/sipgo/sip"
)

// maxServers bounds the transactions that peers of a trunk can keep us busy with.
const maxServers = 4096

// serverTx is a request of a peer that we answer.
type serverTx struct {
	t   *trunk
	tx  *sipgo.ServerTx
	m   *message
	src netip.AddrPort
	l   *link
	leg *leg // of an INVITE; set before the transaction is visible to others
	// final is the final status sent, 0 before: an ACK for 2xx is the dialog's,
	// any other the transaction's.
	final atomic.Int32
}

// serverKey identifies the transaction that a request belongs to, RFC 3261
// §17.2.3. Without the cookie the rules of RFC 2543 apply. No part holds NUL: see
// policeIdentity.
func serverKey(m *message, method string) string {
	v := m.vias[0]
	b := v.branch()
	if !strings.HasPrefix(b, cookie) {
		return strings.Join([]string{m.callID, m.from.tag(), m.target, v.text(), strconv.FormatUint(uint64(m.cseq), 10), method}, "\x00")
	}
	return strings.Join([]string{b, v.sentBy(), method}, "\x00")
}

// receive takes a message from a link. It is the edge at which foreign bytes
// become ours: a panic here costs the one message.
func (t *trunk) receive(l *link, src netip.AddrPort, m *message, f *fault) {
	defer func() {
		if r := recover(); r != nil {
			t.counters.panics.Add(1)
			t.log.Error("panic while reading a message", "panic", r, "remote", src)
		}
	}()
	if f == nil {
		f = police(m)
	}
	if f != nil {
		t.fault(l, src, m, f)
		return
	}
	if m.request {
		t.onRequest(l, src, m)
	} else {
		t.onResponse(m)
	}
}

// fault answers or drops a message that the police did not let pass.
func (t *trunk) fault(l *link, src netip.AddrPort, m *message, f *fault) {
	n := t.counters.malformed.Add(1)
	if t.quiet.Allow() {
		t.log.Info("message refused", "remote", src, "status", f.status, "why", f.why, "count", n)
	}
	if f.status == 0 || m == nil || !m.request || m.method == "ACK" {
		return
	}
	if m.answerable() {
		t.stateless(l, src, m, f.status, f.extra...)
	}
}

// answerable reports whether a response would find its way back. A Via that
// cannot be read is echoed as it came, to where it came from.
func (m *message) answerable() bool {
	if m.vias == nil {
		_ = m.policeRoute()
	}
	if m.vias == nil {
		for _, v := range m.list("via") {
			m.vias = append(m.vias, via{raw: v})
		}
	}
	return m.vias != nil
}

// stateless answers without a transaction; the peer repeats its request if the
// answer is lost.
func (t *trunk) stateless(l *link, src netip.AddrPort, m *message, status int, extra ...field) {
	r := t.response(m, src, status, newTag(), extra, "", nil)
	if err := (flow{link: l, to: m.replyTo(src)}).WriteMsg(r); err != nil {
		t.log.Debug("response not sent", "remote", src, "error", err)
	}
}

// replyTo is where a response goes on an unreliable transport, RFC 3261 §18.2.2,
// RFC 3581 §4. Never anywhere else than to the source's address.
func (m *message) replyTo(src netip.AddrPort) netip.AddrPort {
	v := m.vias[0]
	if _, ok := v.params.get("rport"); ok || v.host == "" {
		return src
	}
	port := uint16(v.port)
	if port == 0 {
		port = 5060
	}
	return netip.AddrPortFrom(src.Addr(), port)
}

func (t *trunk) onRequest(l *link, src netip.AddrPort, m *message) {
	m.req.SetTransport(t.transport)
	m.req.SetSource(src.String())
	switch m.method {
	case "ACK":
		t.onACK(m)
		return
	case "CANCEL":
		if s := t.admit(l, src, m, nil); s != nil {
			t.onCancel(s)
		}
		return
	}
	if t.retransmitted(m) {
		return
	}
	if m.to.tag() != "" {
		g := t.findLeg(m.callID, m.to.tag())
		if s := t.admit(l, src, m, g); s != nil {
			t.inDialog(s, g)
		}
		return
	}
	if m.method == "INVITE" {
		t.onInvite(l, src, m)
		return
	}
	if s := t.admit(l, src, m, nil); s != nil {
		t.outOfDialog(s)
	}
}

// retransmitted hands a repeated request to its transaction, which repeats the
// last response.
func (t *trunk) retransmitted(m *message) bool {
	t.mu.Lock()
	s := t.servers[serverKey(m, m.method)]
	t.mu.Unlock()
	if s == nil {
		return false
	}
	_ = s.tx.Receive(m.req)
	return true
}

// admit opens a server transaction; nil if it is a retransmission or there is
// no room.
func (t *trunk) admit(l *link, src netip.AddrPort, m *message, g *leg) *serverTx {
	if m.method == "CANCEL" && t.retransmitted(m) {
		return nil
	}
	key := serverKey(m, m.method)
	s := &serverTx{t: t, m: m, src: src, l: l, leg: g}
	s.tx = sipgo.NewServerTx(key, m.req, flow{link: l, to: m.replyTo(src)}, t.sipgoLog)
	t.mu.Lock()
	_, again := t.servers[key]
	full := len(t.servers) >= maxServers || t.closing
	if !again && !full {
		t.servers[key] = s
	}
	t.mu.Unlock()
	if again {
		return nil
	}
	if full {
		t.stateless(l, src, m, 503, field{"Retry-After", "5"})
		return nil
	}
	l.users.Add(1)
	s.tx.OnTerminate(func(string, error) {
		t.mu.Lock()
		delete(t.servers, key)
		t.mu.Unlock()
	})
	_ = s.tx.Init() // never fails; starts the timer of an automatic 100
	return s
}

func (t *trunk) onACK(m *message) {
	t.mu.Lock()
	s := t.servers[serverKey(m, "INVITE")]
	t.mu.Unlock()
	if s != nil && s.final.Load() >= 300 {
		_ = s.tx.Receive(m.req)
		return
	}
	if g := t.findLeg(m.callID, m.to.tag()); g != nil {
		g.post(func() { g.onACK(m) })
	}
}

// onCancel answers a CANCEL, RFC 3261 §9.2, and tells the leg. The INVITE's own
// 487 comes from the leg, with the tag that its other responses had.
func (t *trunk) onCancel(s *serverTx) {
	t.mu.Lock()
	invite := t.servers[serverKey(s.m, "INVITE")]
	t.mu.Unlock()
	if invite == nil || invite.leg == nil {
		s.respond(481, "", nil, "", nil)
		return
	}
	g := invite.leg
	s.respond(200, g.localTag, nil, "", nil)
	g.post(func() { g.onCancel(invite, s.m) })
}

// respond sends a response in the transaction. An empty tag makes a new one.
func (s *serverTx) respond(status int, tag string, extra []field, contentType string, body []byte) {
	if tag == "" {
		tag = newTag()
	}
	if status >= 200 {
		s.final.Store(int32(status))
	}
	if status < 200 && !s.l.alive() {
		// The failure would end the transaction, and a CANCEL that comes on
		// another connection would not find it.
		return
	}
	r := s.t.response(s.m, s.src, status, tag, extra, contentType, body)
	if err := s.tx.Respond(r); err != nil && !errors.Is(err, sipgo.ErrTransactionTerminated) {
		s.t.log.Debug("response not sent", "status", status, "remote", s.src, "error", err)
	}
}

// clientTx is a request of ours.
type clientTx struct {
	*sipgo.ClientTx
	link *link
	in   chan *message

	mu   sync.Mutex
	seen map[*sipgo.Response]*message
}

// on is told each response, end that the transaction is over and why. They are
// called from goroutines of the transaction, one at a time for on.
type onResponse func(*message)

// request opens a client transaction. end is called exactly once if the error
// is nil.
func (t *trunk) request(req *sipgo.Request, f flow, on onResponse, end func(error)) (*clientTx, error) {
	key := clientKey(branchOf(req), string(req.Method))
	c := &clientTx{
		ClientTx: sipgo.NewClientTx(key, req, f, t.sipgoLog), link: f.link,
		in: make(chan *message, 32), seen: make(map[*sipgo.Response]*message),
	}
	t.mu.Lock()
	if t.closing {
		t.mu.Unlock()
		return nil, errClosed
	}
	t.clients[key] = c
	// Counted while the trunk cannot close: see trunk.shut.
	t.wg.Add(2)
	t.mu.Unlock()
	f.Ref(1)
	c.OnTerminate(func(string, error) {
		t.mu.Lock()
		delete(t.clients, key)
		t.mu.Unlock()
	})
	// A 2xx that is repeated, or comes from another fork, does not come as a
	// response: RFC 6026 §7.2 in sipgo's form.
	c.OnRetransmission(func(r *sipgo.Response) { on(c.take(r)) })
	if err := c.Init(); err != nil {
		c.Terminate()
		t.wg.Add(-2)
		return nil, err
	}
	// Responses are fed only from here on: one that comes before Init has set
	// Timer B would leave it running, and it would end a call that rings.
	go func() {
		defer t.wg.Done()
		for {
			select {
			case m := <-c.in:
				if !c.note(m) {
					c.Terminate()
					return
				}
				c.Receive(m.res)
			case <-c.Done():
				return
			}
		}
	}()
	go func() {
		defer t.wg.Done()
		for {
			select {
			case r := <-c.Responses():
				on(c.take(r))
			case <-c.Done():
				end(c.Err())
				c.link.settle()
				return
			}
		}
	}()
	if !f.alive() {
		c.Terminate() // the link died before it could know of us
	}
	return c, nil
}

// note remembers a message until sipgo passes its response up. Those that it
// never does, a 180 behind the 200, stay until the transaction ends; a peer that
// sends hundreds of them is not worth waiting for.
func (c *clientTx) note(m *message) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seen[m.res] = m
	return len(c.seen) <= maxUnread
}

const maxUnread = 256

// take finds the message of a response that sipgo passes up.
func (c *clientTx) take(r *sipgo.Response) *message {
	c.mu.Lock()
	defer c.mu.Unlock()
	m := c.seen[r]
	delete(c.seen, r)
	return m
}

func clientKey(branch, method string) string { return branch + "\x00" + method }

func branchOf(req *sipgo.Request) string {
	b, _ := req.Via().Params.Get("branch")
	return b
}

// onResponse finds the request that a response is for, RFC 3261 §17.1.3. Others
// are dropped: nothing of ours waits for them.
func (t *trunk) onResponse(m *message) {
	t.mu.Lock()
	c := t.clients[clientKey(m.vias[0].branch(), m.cmeth)]
	t.mu.Unlock()
	if c == nil {
		t.counters.stray.Add(1)
		return
	}
	select {
	case c.in <- m:
	default:
		// A peer that floods one transaction loses responses, as on UDP.
		t.counters.stray.Add(1)
	}
}

// ask sends a request outside of a call and waits for its final response.
func (t *trunk) ask(ctx context.Context, req *sipgo.Request, f flow) (*message, error) {
	answer := make(chan *message, 1)
	over := make(chan error, 1)
	c, err := t.request(req, f, func(m *message) {
		if m != nil && m.status >= 200 {
			select {
			case answer <- m:
			default:
			}
		}
	}, func(err error) { over <- err })
	if err != nil {
		return nil, err
	}
	defer c.Terminate()
	select {
	case m := <-answer:
		return m, nil
	case err := <-over:
		select {
		case m := <-answer: // over because it was answered
			return m, nil
		default:
			return nil, err
		}
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// sipgoLogger keeps sipgo's own words at debug level: what matters is logged by
// the owner of the transaction.
func sipgoLogger(l *slog.Logger) *slog.Logger {
	return slog.New(quietHandler{l.Handler()})
}

type quietHandler struct{ slog.Handler }

func (h quietHandler) Enabled(ctx context.Context, _ slog.Level) bool {
	return h.Handler.Enabled(ctx, slog.LevelDebug-4)
}

func (h quietHandler) Handle(ctx context.Context, r slog.Record) error {
	r.Level = slog.LevelDebug - 4
	return h.Handler.Handle(ctx, r)
}

func (h quietHandler) WithAttrs(a []slog.Attr) slog.Handler {
	return quietHandler{h.Handler.WithAttrs(a)}
}
func (h quietHandler) WithGroup(n string) slog.Handler { return quietHandler{h.Handler.WithGroup(n)} }
