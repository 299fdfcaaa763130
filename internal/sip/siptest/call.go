package siptest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"sync"
	"time"

	"localloop/internal/media/mediatest"
)

// Event is one message of a call, in order.
type Event struct {
	At      time.Time
	Message *Message
	In      bool           // from the other side
	From    netip.AddrPort // other end of the link
	Opened  bool           // the link was opened by the double
}

// Call is one dialog (or attempt at one), as the double sees it. All methods
// may be called from any goroutine.
type Call struct {
	u  *ua
	id string

	mediaConfig mediatest.Config
	answering   *answering
	user        *User

	mu           sync.Mutex
	outgoing     bool
	media        *mediatest.Client
	clients      []*mediatest.Client
	localTag     string
	remoteTag    string
	localURI     string // From or To value without our tag
	remoteURI    string
	remoteTarget string
	routes       []string
	seq          int
	remoteSeq    int
	invite       *Message
	inviteLink   *link
	inviteTx     *transaction
	branches     []*Branch
	established  bool
	cancelled    bool
	over         *Message // what ended the call
	pending      bool     // a re-INVITE of ours
	ackWanted    map[int]chan struct{}
	acks         map[int]*Message
	events       []Event
	trunk        *Trunk
	roam         bool
	roamFrom     netip.Addr
	restartPaths []string
	refusal      int
	silent       bool
	final        *Message // final response to our INVITE
	ours         string   // our Contact
}

// Branch is one early dialog of an incoming call: a device of the called user
// with a To-tag and media of its own.
type Branch struct {
	call   *Call
	tag    string
	media  *mediatest.Client
	answer []byte // to the INVITE's offer
}

func (u *ua) newCall(id string, media mediatest.Config) *Call {
	return &Call{
		u: u, id: id, mediaConfig: media, localTag: hexToken(5), seq: rand.IntN(1000) + 1,
		ackWanted: map[int]chan struct{}{}, acks: map[int]*Message{},
	}
}

// ID returns the Call-ID.
func (c *Call) ID() string { return c.id }

// User returns the Teams user that this call belongs to; nil for a Peer.
func (c *Call) User() *User { return c.user }

// Media returns the client that carries the voice; nil before there is one.
func (c *Call) Media() *mediatest.Client {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.media
}

// Invite returns the INVITE that opened the call.
func (c *Call) Invite() *Message {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.invite
}

func (c *Call) record(l *link, m *Message, in bool) {
	e := Event{At: time.Now(), Message: m, In: in}
	if l != nil {
		e.From, e.Opened = l.remote, l.opened
	}
	c.mu.Lock()
	c.events = append(c.events, e)
	c.mu.Unlock()
	c.u.touch()
}

// Events returns all messages so far.
func (c *Call) Events() []Event {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]Event(nil), c.events...)
}

// Await waits for the first message from the other side, from position mark of
// Events on, that match accepts. It returns the position after it.
func (c *Call) Await(ctx context.Context, mark int, what string, match func(*Message) bool) (Event, int, error) {
	var found Event
	err := c.u.wait(ctx, what, func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		for ; mark < len(c.events); mark++ {
			if e := c.events[mark]; e.In && match(e.Message) {
				found = e
				mark++
				return true
			}
		}
		return false
	})
	return found, mark, err
}

// AwaitRequest waits for a request of that method.
func (c *Call) AwaitRequest(ctx context.Context, mark int, method string) (Event, int, error) {
	return c.Await(ctx, mark, method, func(m *Message) bool { return m.Method == method })
}

// AwaitStatus waits for a response to our INVITE (or re-INVITE) of at least status.
func (c *Call) AwaitStatus(ctx context.Context, mark int, status int) (Event, int, error) {
	return c.Await(ctx, mark, fmt.Sprintf("status %d", status), func(m *Message) bool {
		_, method := m.CSeq()
		return !m.IsRequest() && method == "INVITE" && m.Status >= status
	})
}

// WaitEstablished waits until the call is answered and the answer acknowledged.
// It returns an error when the call ended before.
func (c *Call) WaitEstablished(ctx context.Context) error {
	var over *Message
	err := c.u.wait(ctx, "an established call", func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		over = c.over
		return c.established || over != nil
	})
	if err == nil && over != nil {
		err = fmt.Errorf("call ended before it was established: %s", describe(over))
	}
	return err
}

// WaitEnded waits for the end and returns the message that ended the call: BYE,
// CANCEL, or a final response.
func (c *Call) WaitEnded(ctx context.Context) (*Message, error) {
	var over *Message
	err := c.u.wait(ctx, "the end of the call", func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		over = c.over
		return over != nil
	})
	return over, err
}

// Established reports whether the call stands now.
func (c *Call) Established() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.established && c.over == nil
}

func describe(m *Message) string {
	if m.IsRequest() {
		return strings.TrimSpace(m.Method + " " + m.Get("Reason"))
	}
	return strings.TrimSpace(fmt.Sprintf("%d %s %s", m.Status, m.Reason, m.Get("Reason")))
}

// Roam sends the following requests of this call over a fresh connection from
// the given local address (any if invalid), as Microsoft's proxies do (C-16).
func (c *Call) Roam(from netip.Addr) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.roam, c.roamFrom = true, from
}

// RestartVia names the media paths that an ICE restart of the other side may
// use; empty allows all.
func (c *Call) RestartVia(paths ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.restartPaths = paths
}

// RefuseReinvite answers re-INVITEs with status from now on; 0 answers them
// properly, -1 does not answer at all.
func (c *Call) RefuseReinvite(status int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.refusal = max(status, 0)
	c.silent = status < 0
}

// openMedia starts the client of a branch or of an outgoing call.
func (c *Call) openMedia() (*mediatest.Client, error) {
	m, err := mediatest.Start(c.mediaConfig)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	c.clients = append(c.clients, m)
	c.mu.Unlock()
	return m, nil
}

func (c *Call) closeMedia() {
	c.mu.Lock()
	clients := append([]*mediatest.Client(nil), c.clients...)
	c.mu.Unlock()
	for _, m := range clients {
		m.Close()
	}
}

// finish ends the call once; media is closed in the background because its
// goroutines may be the ones that report.
func (c *Call) finish(by *Message) {
	c.mu.Lock()
	if c.over != nil {
		c.mu.Unlock()
		return
	}
	c.over = by
	c.mu.Unlock()
	c.u.wg.Go(c.closeMedia)
	c.u.touch()
}

// newRequest builds a request of this dialog.
func (c *Call) newRequest(method string, l *link) *Message {
	c.mu.Lock()
	if method != "ACK" && method != "CANCEL" {
		c.seq++
	}
	m := &Message{Method: method, URI: c.remoteTarget, Version: "SIP/2.0"}
	m.Add("Via", c.u.sentBy(l)+";branch=z9hG4bK"+hexToken(8))
	m.Add("From", c.localURI+";tag="+c.localTag)
	to := c.remoteURI
	if c.remoteTag != "" && param(to, "tag") == "" {
		to += ";tag=" + c.remoteTag
	}
	m.Add("To", to)
	m.Add("Call-ID", c.id)
	m.Add("CSeq", fmt.Sprintf("%d %s", c.seq, method))
	m.Add("Max-Forwards", "68")
	for _, r := range c.routes {
		m.Add("Route", r)
	}
	c.mu.Unlock()
	m.Add("Contact", c.u.contact(c))
	c.u.headers(c, m)
	return m
}

// Bye ends the call and waits for the answer.
func (c *Call) Bye(ctx context.Context) error {
	l, err := c.u.linkFor(c)
	if err != nil {
		return err
	}
	m := c.newRequest("BYE", l)
	m.Add("Reason", `Q.850;cause=16;text="`+hexToken(8)+`;CallEndedByUser"`)
	c.record(l, m, false)
	r, err := c.u.ask(ctx, l, m)
	c.finish(m)
	if err != nil {
		return err
	}
	c.record(l, r, true)
	if r.Status >= 300 {
		return fmt.Errorf("BYE: %s", describe(r))
	}
	return nil
}

// Cancel gives up an outgoing call that is not answered yet, and waits for the
// final response to the INVITE.
func (c *Call) Cancel(ctx context.Context) (*Message, error) {
	c.mu.Lock()
	t := c.inviteTx
	c.mu.Unlock()
	if t == nil || !c.outgoing {
		return nil, errors.New("cancel: no INVITE of ours")
	}
	inv := t.request
	m := &Message{Method: "CANCEL", URI: inv.URI, Version: "SIP/2.0"}
	m.Add("Via", inv.Get("Via"))
	for _, h := range []string{"From", "To", "Call-ID", "Max-Forwards"} {
		m.Add(h, inv.Get(h))
	}
	n, _ := inv.CSeq()
	m.Add("CSeq", fmt.Sprintf("%d CANCEL", n))
	m.Add("Reason", `Q.850;cause=16;text="`+hexToken(8)+`;CallCancelled"`)
	c.u.headers(nil, m)
	c.mu.Lock()
	c.cancelled = true
	c.mu.Unlock()
	c.record(t.link, m, false)
	r, err := c.u.ask(ctx, t.link, m)
	if err != nil {
		return nil, err
	}
	if r.Status >= 300 {
		return nil, fmt.Errorf("CANCEL: %s", describe(r))
	}
	var final *Message
	err = c.u.wait(ctx, "the final response after CANCEL", func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		final = c.final
		return final != nil
	})
	return final, err
}

// Reinvite offers anew in the call and waits for the answer, which is given to
// the media client. 491 is tried again as RFC 3261 §14.1 says.
func (c *Call) Reinvite(ctx context.Context, r mediatest.Reoffer, extra ...Field) (*Message, error) {
	for attempt := 0; ; attempt++ {
		resp, err := c.reinvite(ctx, r, extra)
		if err != nil || resp.Status != 491 || attempt == 3 {
			return resp, err
		}
		wait := time.Duration(rand.IntN(200)) * 10 * time.Millisecond
		if c.outgoing { // we made the Call-ID
			wait = 2100*time.Millisecond + time.Duration(rand.IntN(190))*10*time.Millisecond
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil, ctx.Err()
		}
	}
}

func (c *Call) reinvite(ctx context.Context, r mediatest.Reoffer, extra []Field) (*Message, error) {
	c.mu.Lock()
	media, over := c.media, c.over
	if media == nil || over != nil {
		c.mu.Unlock()
		return nil, errors.New("re-INVITE: no call")
	}
	if c.pending {
		c.mu.Unlock()
		return nil, errors.New("re-INVITE: one is under way")
	}
	c.pending = true
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		c.pending = false
		c.mu.Unlock()
	}()
	offer, err := media.Reoffer(r)
	if err != nil {
		return nil, err
	}
	l, err := c.u.linkFor(c)
	if err != nil {
		return nil, err
	}
	m := c.newRequest("INVITE", l)
	for _, f := range extra {
		m.replace(f)
	}
	m.Add("Content-Type", "application/sdp")
	m.Body = offer
	c.record(l, m, false)
	resp, err := c.u.ask(ctx, l, m)
	if err != nil {
		return nil, err
	}
	c.record(l, resp, true)
	c.acknowledge(l, m, resp)
	if resp.Status < 300 {
		if target := addrSpec(resp.Get("Contact")); target != "" {
			c.mu.Lock()
			c.remoteTarget = target
			c.mu.Unlock()
		}
		if err := media.Accept(resp.Body); err != nil {
			return resp, fmt.Errorf("answer to re-INVITE: %w", err)
		}
	}
	return resp, nil
}

// acknowledge sends the ACK for a final response: in the transaction for a
// refusal, as a request of the dialog for a 2xx (RFC 3261 §13.2.2.4, §17.1.1.3).
func (c *Call) acknowledge(l *link, invite, resp *Message) {
	var ack *Message
	if resp.Status >= 300 {
		ack = &Message{Method: "ACK", URI: invite.URI, Version: "SIP/2.0"}
		ack.Add("Via", invite.All("Via")[0])
		ack.Add("From", invite.Get("From"))
		ack.Add("To", resp.Get("To"))
		ack.Add("Call-ID", c.id)
		ack.Add("Max-Forwards", "68")
	} else {
		if dl, err := c.u.linkFor(c); err == nil {
			l = dl
		}
		ack = c.newRequest("ACK", l)
		for i, f := range ack.Fields {
			if f.Name == "To" {
				ack.Fields[i].Value = resp.Get("To")
			}
		}
	}
	fields := ack.Fields[:0]
	for _, f := range ack.Fields {
		if f.Name != "CSeq" {
			fields = append(fields, f)
		}
	}
	n, _ := resp.CSeq()
	ack.Fields = append(fields, Field{"CSeq", fmt.Sprintf("%d ACK", n)})
	if err := l.send(ack, c.u.upper); err != nil {
		c.u.log.Warn("send ACK", "err", err)
	}
	c.record(l, ack, false)
}

// lateFinal acknowledges a final response whose transaction is over: a repeated
// 200, or a refusal whose ACK was lost.
func (c *Call) lateFinal(l *link, m *Message) {
	c.mu.Lock()
	invite := c.invite
	c.mu.Unlock()
	if invite != nil {
		c.acknowledge(l, invite, m)
	}
}

// Outgoing reports whether the double placed the call.
func (c *Call) Outgoing() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.outgoing
}

// Pending reports whether an outgoing call still waits for its final response.
func (c *Call) Pending() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.outgoing && c.final == nil && c.over == nil
}
