package sip

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"
)

// peer is one next hop of a trunk: one of Microsoft's three names, or a host of
// a carrier. It holds our one connection to it and knows whether it answers.
type peer struct {
	t    *trunk
	host string
	port int

	opening chan struct{} // holds a token while somebody connects

	mu      sync.Mutex
	current *link
	addrs   []netip.Addr // as last resolved
	isUp    bool
	asked   bool // at least one OPTIONS has come to its end
	fails   int
	restTo  time.Time // Retry-After
	answer  time.Time // last 200
	region  string
	why     string // why it is down
}

func newPeer(t *trunk, s string) (*peer, error) {
	p := &peer{t: t, host: s, opening: make(chan struct{}, 1)}
	if host, port, err := net.SplitHostPort(s); err == nil {
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil || n == 0 {
			return nil, fmt.Errorf("port %q", port)
		}
		p.host, p.port = host, int(n)
	}
	if p.port == 0 {
		p.port = 5060
		if t.transport == "TLS" {
			p.port = 5061
		}
	}
	if p.host == "" {
		return nil, errors.New("no host")
	}
	if ip, err := netip.ParseAddr(p.host); err == nil {
		p.addrs = []netip.Addr{ip.Unmap()}
	}
	return p, nil
}

func (p *peer) addr() string { return net.JoinHostPort(p.host, strconv.Itoa(p.port)) }

// uriHost is the peer as host of a URI. Microsoft wants the bare name.
func (p *peer) uriHost() string {
	h := p.host
	if strings.IndexByte(h, ':') >= 0 {
		h = "[" + h + "]"
	}
	if p.t.teams || p.port == 5060 && p.t.transport != "TLS" || p.port == 5061 && p.t.transport == "TLS" {
		return h
	}
	return h + ":" + strconv.Itoa(p.port)
}

func (p *peer) is(a netip.Addr) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, b := range p.addrs {
		if a == b {
			return true
		}
	}
	return false
}

func (p *peer) state() (up, resting bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.isUp, p.t.e.now().Before(p.restTo)
}

// resolve looks the name up each time: the resolver knows how long an answer is
// good, we never pin one (C-20).
func (p *peer) resolve(ctx context.Context) (netip.AddrPort, error) {
	ip, err := netip.ParseAddr(p.host)
	if err != nil {
		if pinned, ok := p.t.pinned[p.host]; ok {
			ip = pinned
		} else if ip, err = p.lookup(ctx); err != nil {
			return netip.AddrPort{}, err
		}
	}
	ip = ip.Unmap()
	if p.t.teams && !p.t.trusted(ip) {
		return netip.AddrPort{}, fmt.Errorf("%s is at %s, outside of the allowed ranges", p.host, ip)
	}
	return netip.AddrPortFrom(ip, uint16(p.port)), nil
}

func (p *peer) lookup(ctx context.Context) (netip.Addr, error) {
	addrs, err := p.t.e.resolver.LookupNetIP(ctx, "ip", p.host)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("resolve %s: %w", p.host, err)
	}
	if len(addrs) == 0 {
		return netip.Addr{}, fmt.Errorf("resolve %s: no address", p.host)
	}
	for i := range addrs {
		addrs[i] = addrs[i].Unmap()
	}
	p.mu.Lock()
	p.addrs = addrs
	p.mu.Unlock()
	local := p.t.source
	for _, a := range addrs {
		if a.Is4() == (!local.IsValid() || local.Is4()) {
			return a, nil
		}
	}
	return addrs[0], nil
}

// flow returns the way to the peer: our connection, opened if there is none.
func (p *peer) flow(ctx context.Context) (flow, error) {
	if p.t.transport == "UDP" {
		to, err := p.resolve(ctx)
		return flow{link: p.t.udp, to: to}, err
	}
	select {
	case p.opening <- struct{}{}:
		defer func() { <-p.opening }()
	case <-ctx.Done():
		return flow{}, fmt.Errorf("connect to %s: %w", p.host, ctx.Err())
	}
	if f, ok := p.standing(); ok {
		return f, nil
	}
	l, err := p.connect(ctx)
	if err != nil {
		return flow{}, err
	}
	return flow{link: l, to: l.remote}, nil
}

// standing is our connection to the peer if there is one.
func (p *peer) standing() (flow, bool) {
	p.mu.Lock()
	l := p.current
	p.mu.Unlock()
	if l == nil || !l.alive() || l.retired.Load() {
		return flow{}, false
	}
	return flow{link: l, to: l.remote}, true
}

func (p *peer) connect(ctx context.Context) (*link, error) {
	to, err := p.resolve(ctx)
	if err != nil {
		return nil, err
	}
	l, err := p.t.dial(ctx, to, p.host)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	p.current = l
	p.mu.Unlock()
	return l, nil
}

// renew replaces the connection (C-9, C-19). Requests go on the new one at once;
// the old one stays until its responses are in.
func (p *peer) renew(ctx context.Context) {
	select {
	case p.opening <- struct{}{}:
		defer func() { <-p.opening }()
	case <-ctx.Done():
		return
	}
	p.mu.Lock()
	old := p.current
	p.mu.Unlock()
	if old == nil || !old.alive() {
		return
	}
	if _, err := p.connect(ctx); err != nil {
		p.t.log.Warn("connection not renewed", "peer", p.host, "error", err)
		return
	}
	old.retire()
}

// shun answers a 503: the connection is given up, and for a while the peer comes
// last (C-58).
func (p *peer) shun(l *link, wait time.Duration) {
	p.mu.Lock()
	if p.current == l {
		p.current = nil
	}
	if wait <= 0 {
		wait = restFor
	}
	p.restTo = p.t.e.now().Add(wait)
	p.mu.Unlock()
	if l != nil && l.stream != nil {
		l.retire()
	}
}

// watch pings the peer and keeps its connection young, until ctx ends.
func (p *peer) watch(ctx context.Context) {
	unreached := 0 // times in a row
	for {
		wait := pause(p.t.live.Load().every)
		if p.t.live.Load().every > 0 {
			if p.ping(ctx) {
				unreached = 0
			} else {
				wait = min(wait, again(unreached))
				unreached++
			}
		} else if _, err := p.resolve(ctx); err != nil && ctx.Err() == nil {
			p.t.log.Warn("peer not found", "peer", p.host, "error", err)
		}
		p.mu.Lock()
		old := p.current
		p.mu.Unlock()
		if old != nil && time.Since(old.born) > p.t.e.times.renew {
			c, cancel := context.WithTimeout(ctx, p.t.e.times.ask)
			p.renew(c)
			cancel()
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return
		}
	}
}

// pause is the time to the next OPTIONS: never less than the interval, up to a
// sixth more so that boxes and proxies do not beat in step (C-28: 60-70 s).
func pause(every time.Duration) time.Duration {
	if every <= 0 {
		return 5 * time.Minute
	}
	return every + jitter(every/6)
}

// again is the time to the next attempt to reach a peer to which there was no
// connection, so that a box that starts before its uplink need not wait for the
// next OPTIONS: 5 s, doubled up to the interval. No OPTIONS is sent meanwhile, so
// their pace stays as Microsoft wants it (C-28).
func again(unreached int) time.Duration { return 5 * time.Second << min(unreached, 4) }

// ping sends one OPTIONS and notes what came of it (C-25, C-30). It reports
// whether there was a way to send it.
func (p *peer) ping(ctx context.Context) (sent bool) {
	c, cancel := context.WithTimeout(ctx, p.t.e.times.ask)
	defer cancel()
	f, err := p.flow(c)
	if err != nil {
		p.down(ctx, err.Error())
		return false
	}
	target := "sip:" + p.uriHost()
	if p.t.teams {
		target = "sip:" + p.addr()
	}
	f.target = target
	from := p.t.domain
	if from == "" || !p.t.teams {
		from = p.t.self()
	}
	req := p.t.newRequest("OPTIONS", target, 1, []field{
		{"From", "<sip:" + from + ">;tag=" + newTag()},
		{"To", "<sip:" + p.uriHost() + ">"},
		{"Call-ID", p.t.newCallID()},
		{"Contact", p.t.contact("")},
		{"Allow", p.t.methods()},
		{"Accept", "application/sdp"},
	}, "", nil)
	m, err := p.t.ask(c, req, f)
	switch {
	case err != nil && f.link.stream != nil && ctx.Err() == nil:
		// No answer on a connection that stands: a dead path that TCP has not
		// noticed. The next one starts anew.
		p.drop(f.link)
		p.down(ctx, "no answer to OPTIONS: "+err.Error())
	case err != nil:
		p.down(ctx, "no answer to OPTIONS: "+err.Error())
	case m.status == 403 && p.t.teams:
		p.down(ctx, "403: Contact or FQDN "+p.t.domain+" not accepted: check the trunk in the tenant and the certificate")
	case m.status == 408 || m.status == 503 || p.t.teams && m.status >= 300:
		p.down(ctx, "OPTIONS answered with "+strconv.Itoa(m.status)+" "+clip(m.reason))
	default:
		// A plain peer that answers 404 or 405 is alive all the same.
		p.alive(region(m))
	}
	return true
}

func (p *peer) drop(l *link) {
	p.mu.Lock()
	if p.current == l {
		p.current = nil
	}
	p.mu.Unlock()
	l.retire()
}

func (p *peer) alive(region string) {
	p.mu.Lock()
	was, first := p.isUp, !p.asked
	p.isUp, p.asked, p.fails, p.why, p.region, p.answer = true, true, 0, "", region, p.t.e.now()
	p.mu.Unlock()
	if !was || first {
		p.t.log.Info("peer up", "peer", p.host, "region", region)
	}
}

// down notes a failure. Three in a row make a peer that was up be down; one that
// never was stays down.
func (p *peer) down(ctx context.Context, why string) {
	if ctx.Err() != nil {
		return
	}
	p.mu.Lock()
	p.fails++
	was := p.isUp
	if p.fails >= maxFails {
		p.isUp = false
	}
	changed := !p.asked || p.why != why || was != p.isUp
	p.asked, p.why = true, why
	up := p.isUp
	p.mu.Unlock()
	if changed {
		p.t.log.Error("peer does not answer as it should", "peer", p.host, "up", up, "why", why)
	}
}

const (
	maxFails = 3
	restFor  = 5 * time.Second // after a 503 without Retry-After
)

func (t *trunk) newCallID() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return token(20) + "@" + t.host
}
