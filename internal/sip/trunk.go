package sip

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"localloop/internal/config"
)

// trunk is one peering: a Teams trunk with its three proxies or a plain SIP
// trunk. It owns its listener, connections, transactions and dialogs; nothing is
// shared between trunks, so that a peer of one can never speak in a dialog of
// another.
type trunk struct {
	e         *Endpoint
	name      string
	teams     bool
	transport string // UDP, TCP, TLS
	bind      netip.AddrPort
	source    netip.Addr // local address of connections that we open
	id        *identity  // nil without TLS
	domain    string     // host of From; empty: the peer's
	pinned    map[string]netip.Addr
	log       *slog.Logger
	sipgoLog  *slog.Logger
	quiet     *rate.Limiter // log lines about foreign faults

	live  atomic.Pointer[settings]
	fixed any // the configuration without what Apply may change
	peers []*peer

	listener net.Listener
	udp      *link
	wg       sync.WaitGroup // everything that runs for this trunk
	counters counters

	mu       sync.Mutex
	host     string // ours in Contact and Via
	port     int
	draining bool // no new legs
	closing  bool // no new transactions and links
	servers  map[string]*serverTx
	clients  map[string]*clientTx
	legs     map[string]*leg // by Call-ID and local tag
	all      map[*leg]struct{}
	links    map[*link]struct{}
	inbound  int                // connections that peers opened, handshakes included
	sources  map[netip.Addr]int // the same by address
	refuseTo time.Time
	refusal  string
	sequence uint64 // of leg names
}

type counters struct {
	untrusted, handshakes, malformed, stray, panics atomic.Uint64
}

func newTrunk(e *Endpoint, name string) *trunk {
	log := e.log.With("trunk", name)
	return &trunk{
		e: e, name: name, log: log, sipgoLog: sipgoLogger(log), quiet: rate.NewLimiter(10, 50),
		servers: make(map[string]*serverTx), clients: make(map[string]*clientTx),
		legs: make(map[string]*leg), all: make(map[*leg]struct{}), links: make(map[*link]struct{}),
		sources: make(map[netip.Addr]int),
	}
}

func newTeamsTrunk(e *Endpoint, c config.Teams) (*trunk, error) {
	t := newTrunk(e, c.Name)
	t.teams, t.transport, t.bind, t.source = true, "TLS", c.Listen, c.Source
	t.host, t.domain, t.pinned = c.FQDN, c.FQDN, c.Resolve
	t.fixed = fixedTeams(c)
	t.live.Store(teamsSettings(c, e.opt.Box))
	t.id = &identity{files: c.TLS, names: c.PeerNames, teams: true, now: e.now}
	if len(c.PeerNames) == 0 {
		return nil, fmt.Errorf("trunk %s: no peer names: anybody with a certificate could call", c.Name)
	}
	if len(c.Allow) == 0 {
		return nil, fmt.Errorf("trunk %s: no allowed sources", c.Name)
	}
	return t, t.finish(c.Proxies)
}

func newSIPTrunk(e *Endpoint, c config.SIP) (*trunk, error) {
	t := newTrunk(e, c.Name)
	t.transport, t.bind, t.host, t.domain = strings.ToUpper(c.Transport), c.Listen, c.Host, c.Domain
	t.fixed = fixedSIP(c)
	t.live.Store(sipSettings(c, e.opt.Box))
	if t.bind.Addr().IsValid() && !t.bind.Addr().IsUnspecified() {
		t.source = t.bind.Addr()
	}
	switch t.transport {
	case "UDP", "TCP":
	case "TLS":
		t.id = &identity{files: c.TLS, names: c.PeerNames, now: e.now}
	default:
		return nil, fmt.Errorf("trunk %s: transport %q", c.Name, c.Transport)
	}
	return t, t.finish(c.Peers)
}

func (t *trunk) finish(peers []string) error {
	if len(peers) == 0 {
		return fmt.Errorf("trunk %s: no peers", t.name)
	}
	for _, s := range peers {
		p, err := newPeer(t, s)
		if err != nil {
			return fmt.Errorf("trunk %s: peer %q: %w", t.name, s, err)
		}
		t.peers = append(t.peers, p)
	}
	return t.loadTLS()
}

// loadTLS reads the key material again. What was good stays when it fails.
func (t *trunk) loadTLS() error {
	if t.id == nil {
		return nil
	}
	if err := t.id.load(); err != nil {
		return fmt.Errorf("trunk %s: %w", t.name, err)
	}
	t.logAlarms()
	return nil
}

// alarms is what is wrong with our certificate now.
func (t *trunk) alarms() []string {
	if t.id == nil {
		return nil
	}
	t.mu.Lock()
	host := t.host
	t.mu.Unlock()
	return t.id.alarms(host)
}

func (t *trunk) logAlarms() {
	for _, a := range t.alarms() {
		t.log.Error("certificate alarm", "alarm", a)
	}
}

// remind logs the alarms of a certificate that grows old each day (C-12).
func (t *trunk) remind(ctx context.Context) {
	for {
		select {
		case <-time.After(24 * time.Hour):
			t.logAlarms()
		case <-ctx.Done():
			return
		}
	}
}

// run serves the trunk, whose socket is open, until ctx ends; then it hangs up
// what is left and waits for everything.
func (t *trunk) run(ctx context.Context) {
	if t.udp != nil {
		if t.adopt(t.udp) {
			t.wg.Go(func() { t.udp.readPackets(); t.forget(t.udp) })
		}
	} else {
		t.wg.Go(func() { t.accept(ctx) })
	}
	for _, p := range t.peers {
		t.wg.Go(func() { p.watch(ctx) })
	}
	if t.id != nil {
		t.wg.Go(func() { t.remind(ctx) })
	}
	<-ctx.Done()
	t.shut()
}

func (t *trunk) shut() {
	if t.listener != nil {
		_ = t.listener.Close()
	}
	// First the dialogs: each says goodbye while its connection stands.
	t.mu.Lock()
	t.draining = true
	legs := make([]*leg, 0, len(t.all))
	for g := range t.all {
		legs = append(legs, g)
	}
	t.mu.Unlock()
	for _, g := range legs {
		g.stop()
	}
	for _, g := range legs {
		<-g.parted
	}
	t.mu.Lock()
	t.closing = true
	var end []interface{ Terminate() }
	for _, s := range t.servers {
		end = append(end, s.tx)
	}
	for _, c := range t.clients {
		end = append(end, c)
	}
	var links []*link
	for l := range t.links {
		links = append(links, l)
	}
	t.mu.Unlock()
	for _, x := range end {
		x.Terminate()
	}
	for _, l := range links {
		l.close()
	}
	if t.udp != nil {
		t.udp.close() // where run never took it up
	}
	t.wg.Wait()
}

// trusted reports whether messages from an address are read.
func (t *trunk) trusted(a netip.Addr) bool {
	a = a.Unmap()
	allow := t.live.Load().allow
	for _, p := range allow {
		if p.Contains(a) {
			return true
		}
	}
	if len(allow) > 0 {
		return false
	}
	for _, p := range t.peers {
		if p.is(a) {
			return true
		}
	}
	return false
}

// setLocal completes what we call ourselves with the socket's address.
func (t *trunk) setLocal(a netip.AddrPort) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.port = int(a.Port())
	t.bind = a
	if t.host != "" {
		return
	}
	ip := a.Addr()
	if ip.IsUnspecified() {
		ip = t.route()
	}
	t.host = ip.String()
}

// route asks the kernel from which address the first peer is reached. Nothing
// is sent.
func (t *trunk) route() netip.Addr {
	c, err := net.Dial("udp", t.peers[0].addr())
	if err != nil {
		return netip.IPv4Unspecified()
	}
	defer c.Close()
	return addrPort(c.LocalAddr()).Addr()
}

// outOfDialog answers requests that open nothing.
func (t *trunk) outOfDialog(s *serverTx) {
	switch s.m.method {
	case "OPTIONS":
		// Also while we refuse calls: Microsoft has no other sign of life (C-29).
		s.respond(200, "", nil, "", nil)
	case "BYE", "NOTIFY", "INFO":
		s.respond(481, "", nil, "", nil)
	default:
		s.respond(405, "", nil, "", nil)
	}
}

// inDialog hands a request to the leg of its dialog. Dialogs are found by
// Call-ID and tags alone: it may come on any connection (C-16, C-77).
func (t *trunk) inDialog(s *serverTx, g *leg) {
	switch s.m.method {
	case "INVITE", "BYE", "OPTIONS", "INFO", "NOTIFY":
	default:
		s.respond(405, "", nil, "", nil)
		return
	}
	if g == nil {
		s.respond(481, "", nil, "", nil)
		return
	}
	switch {
	case g.post(func() { g.onRequest(s) }):
	case g.finished():
		s.respond(481, g.localTag, nil, "", nil)
	default:
		s.respond(500, g.localTag, nil, "", nil)
	}
}

const maxLegs = 1000

// urgent reports an INVITE to an emergency number.
func (t *trunk) urgent(m *message) bool {
	return t.e.opt.Emergency != nil && t.e.opt.Emergency(m.called())
}

// onInvite opens an incoming leg.
func (t *trunk) onInvite(l *link, src netip.AddrPort, m *message) {
	t.mu.Lock()
	until, why := t.refuseTo, t.refusal
	full := len(t.all) >= maxLegs || t.draining
	merged := t.legs[mergeKey(m)] != nil
	t.mu.Unlock()
	switch wait := until.Sub(t.e.now()); {
	case merged:
		// The same INVITE by two ways, RFC 3261 §8.2.2.2.
		t.stateless(l, src, m, 482)
		return
	case (wait > 0 || full) && !t.urgent(m):
		if full {
			why, wait = "no room for another call", 5*time.Second
		}
		if s := t.admit(l, src, m, nil); s != nil {
			t.log.Info("call refused", "why", why)
			s.respond(503, "", []field{
				{"Retry-After", strconv.Itoa(int(wait/time.Second) + 1)},
				{"Reason", "Q.850;cause=42;text=" + quote(clip(why))},
			}, "", nil)
		}
		return
	}
	g := newLeg(t)
	s := t.admit(l, src, m, g)
	if s == nil {
		t.drop(g)
		return
	}
	s.respond(100, "", nil, "", nil)
	g.incoming(s)
}

// Legs are found by the Call-ID and our tag.
func legKey(callID, tag string) string { return callID + "\x00" + tag }

// mergeKey finds an INVITE that came before by another way, RFC 3261 §8.2.2.2. No
// tag of ours begins with NUL.
func mergeKey(m *message) string {
	return legKey(m.callID, "\x00"+m.from.tag()+"\x00"+strconv.FormatUint(uint64(m.cseq), 10))
}

func (t *trunk) findLeg(callID, tag string) *leg {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.legs[legKey(callID, tag)]
}

func (t *trunk) enter(g *leg, keys ...string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, k := range keys {
		t.legs[k] = g
		g.keys = append(g.keys, k)
	}
}

func (t *trunk) drop(g *leg) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, k := range g.keys {
		delete(t.legs, k)
	}
	delete(t.all, g)
}

// up reports whether calls may be sent: a peer answers, or nobody asks.
func (t *trunk) up() bool {
	if t.live.Load().every <= 0 {
		return true
	}
	for _, p := range t.peers {
		if up, _ := p.state(); up {
			return true
		}
	}
	return false
}

// order is the peers in the order in which they are to be tried: those that are
// up first, each group as configured (C-31).
func (t *trunk) order() []*peer {
	var up, down []*peer
	for _, p := range t.peers {
		if ok, resting := p.state(); (ok || t.live.Load().every <= 0) && !resting {
			up = append(up, p)
		} else {
			down = append(down, p)
		}
	}
	return append(up, down...)
}
