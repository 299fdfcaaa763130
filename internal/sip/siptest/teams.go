package siptest

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"localloop/internal/media/mediatest"
)

// ProxyNames are Microsoft's three names of the commercial cloud, in order.
var ProxyNames = [3]string{"sip.pstnhub.microsoft.com", "sip2.pstnhub.microsoft.com", "sip3.pstnhub.microsoft.com"}

const (
	product    = "Microsoft.PSTNHub.SIPProxy v.2026.9.1.3 i.EUWE.4"
	teamsAllow = "INVITE,ACK,OPTIONS,CANCEL,BYE,NOTIFY"
)

// ErrInactive is returned for calls to a trunk that has not pinged (rule 2).
var ErrInactive = errors.New("trunk is not active")

// Proxy is one of Microsoft's names with the address on which it listens.
type Proxy struct {
	Name   string
	Listen netip.AddrPort // port 0: the kernel's choice
}

// Trunk is a pairing in the tenant.
type Trunk struct {
	FQDN    string
	Address netip.AddrPort // what public DNS would say; the port of the trunk definition
	// LMO adds the X-MS headers (BypassMode is set).
	LMO bool
}

// User is a Teams user with one device (more by Call.Branch).
type User struct {
	Number   string // E.164 with '+'
	Name     string
	Location string   // internal, external
	Path     []string // X-MS-MediaPath; default the trunk's FQDN
	Site     string   // X-MS-UserSite
	Media    mediatest.Config
	Answering
}

// TeamsConfig says what a Teams double is.
type TeamsConfig struct {
	Proxies []Proxy
	// Sources are local addresses from which it opens connections, in turn.
	Sources     []netip.Addr
	Certificate *Certificate   // of the proxies: server authentication only
	Roots       *x509.CertPool // that the box's certificate must chain to
	Trunks      []Trunk
	Users       []User
	IdleAfter   time.Duration // default 120 s
	// OptionsEvery is the pace of its own OPTIONS once a trunk has pinged; default 60 s.
	OptionsEvery time.Duration
	// MinOptions is the shortest interval of the box's OPTIONS per name that is
	// no violation; default 60 s, negative checks nothing.
	MinOptions time.Duration
	// NoTransfer is for a box that offers no transfer by REFER: C-32 is not checked.
	NoTransfer bool
	// Confirm sends the re-INVITE with a=remote-candidates after ICE completed.
	Confirm bool
	// TLS changes the settings of listeners (true) and own connections (false).
	TLS func(server bool, c *tls.Config)
	T1  time.Duration // default 500 ms
	Log *slog.Logger
}

// Behaviour of one proxy name.
type Behaviour struct {
	Silent bool    // reads and does not answer
	Status int     // answers new INVITEs and OPTIONS with it; 0: normally
	Header []Field // added to such a refusal, for example Retry-After
}

// Connection is a connection as the double saw it.
type Connection struct {
	Remote   netip.AddrPort
	Listener string   // proxy name; empty for own connections
	Names    []string // in the box's certificate
	DSCP     int      // of the box's SYN; -1 if unknown or opened by the double
}

// Teams is the double of Microsoft's SIP proxy. Close ends it.
type Teams struct {
	*ua
	cfg       TeamsConfig
	listeners map[string]net.Listener

	tmu       sync.Mutex
	links     map[*link]bool
	seen      []Connection
	pool      map[string][]*link // by FQDN
	trunks    map[string]*Trunk
	users     map[string]*User
	behaviour map[string]Behaviour
	pinged    map[string]map[string]time.Time // FQDN, proxy name: last OPTIONS
	active    map[string]bool                 // own OPTIONS was answered
	pinging   map[string]bool
	next      int
}

// StartTeams opens the listeners and begins to serve.
func StartTeams(cfg TeamsConfig) (*Teams, error) {
	setDefault := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	setDefault(&cfg.IdleAfter, 2*time.Minute)
	setDefault(&cfg.OptionsEvery, time.Minute)
	setDefault(&cfg.MinOptions, time.Minute)
	t := &Teams{
		ua: newUA("teams", true, cfg.T1, cfg.Log), cfg: cfg, listeners: map[string]net.Listener{},
		links: map[*link]bool{}, pool: map[string][]*link{}, trunks: map[string]*Trunk{}, users: map[string]*User{},
		behaviour: map[string]Behaviour{}, pinged: map[string]map[string]time.Time{}, active: map[string]bool{}, pinging: map[string]bool{},
	}
	t.ua.linkFor, t.ua.contact, t.ua.sentBy, t.ua.headers = t.dialogLink, t.contactOf, t.via, t.addHeaders
	t.ua.police, t.ua.outside, t.ua.accept, t.ua.established = t.check, t.outsideDialog, t.acceptCall, t.confirm
	t.ua.deaf = func(l *link) bool { return t.behaviourOf(l).Silent }
	for i := range cfg.Trunks {
		t.trunks[strings.ToLower(cfg.Trunks[i].FQDN)] = &cfg.Trunks[i]
	}
	for _, u := range cfg.Users {
		t.SetUser(u)
	}
	for _, p := range cfg.Proxies {
		if err := t.Listen(p); err != nil {
			t.Close()
			return nil, err
		}
	}
	t.wg.Go(t.closeIdle)
	return t, nil
}

// Listen opens a proxy's listener: at the start, or again after StopListening.
func (t *Teams) Listen(p Proxy) error {
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		// The saved SYN carries the mark of the box's connection, without privilege.
		return c.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_SAVE_SYN, 1) })
	}}
	lc.SetMultipathTCP(false) // Go's default; such sockets save no SYN
	tcp, err := lc.Listen(t.ctx, "tcp", p.Listen.String())
	if err != nil {
		return fmt.Errorf("teams proxy %s: %w", p.Name, err)
	}
	config := &tls.Config{
		MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{t.cfg.Certificate.TLS}, ClientAuth: tls.RequireAnyClientCert,
		VerifyConnection: func(cs tls.ConnectionState) error { return verify(t.cfg.Roots, cs, "") },
	}
	if t.cfg.TLS != nil {
		t.cfg.TLS(true, config)
	}
	t.tmu.Lock()
	t.listeners[p.Name] = tcp
	t.tmu.Unlock()
	t.wg.Go(func() {
		for {
			conn, err := tcp.Accept()
			if err != nil {
				return
			}
			t.wg.Go(func() { t.accepted(conn, p.Name, config) })
		}
	})
	return nil
}

// Address returns where a proxy name listens.
func (t *Teams) Address(name string) netip.AddrPort {
	t.tmu.Lock()
	defer t.tmu.Unlock()
	if l := t.listeners[name]; l != nil {
		return addrPortOf(l.Addr())
	}
	return netip.AddrPort{}
}

// StopListening closes a proxy's listener and its connections: the data centre
// is gone.
func (t *Teams) StopListening(name string) {
	t.tmu.Lock()
	l := t.listeners[name]
	delete(t.listeners, name)
	t.tmu.Unlock()
	if l != nil {
		_ = l.Close()
	}
	t.closeLinks(func(l *link) bool { return !l.opened && l.name == name })
}

// Close ends the double and waits for its goroutines.
func (t *Teams) Close() {
	t.ua.end()
	t.tmu.Lock()
	for _, l := range t.listeners {
		_ = l.Close()
	}
	t.tmu.Unlock()
	t.closeLinks(func(*link) bool { return true })
	t.ua.shut()
}

// CloseConnections closes all connections, as idle ones are closed (C-15).
// Calls go on.
func (t *Teams) CloseConnections() { t.closeLinks(func(*link) bool { return true }) }

func (t *Teams) closeLinks(which func(*link) bool) {
	t.tmu.Lock()
	var list []*link
	for l := range t.links {
		if which(l) {
			list = append(list, l)
		}
	}
	t.tmu.Unlock()
	for _, l := range list {
		l.close()
	}
}

func (t *Teams) closeIdle() {
	ticker := time.NewTicker(max(t.cfg.IdleAfter/8, 10*time.Millisecond))
	defer ticker.Stop()
	for {
		select {
		case <-t.ctx.Done():
			return
		case now := <-ticker.C:
			t.closeLinks(func(l *link) bool { return now.UnixNano()-l.lastUsed.Load() > int64(t.cfg.IdleAfter) })
		}
	}
}

func (t *Teams) accepted(conn net.Conn, name string, config *tls.Config) {
	l := &link{remote: addrPortOf(conn.RemoteAddr()), local: addrPortOf(conn.LocalAddr()), name: name, dscp: synDSCP(conn)}
	secure := tls.Server(conn, config)
	l.conn = secure
	l.lastUsed.Store(time.Now().UnixNano())
	if !t.track(l) {
		return
	}
	defer t.untrack(l)
	ctx, cancel := context.WithTimeout(t.ctx, 10*time.Second)
	err := secure.HandshakeContext(ctx)
	cancel()
	if err != nil {
		t.violate("C-3", "TLS handshake from %s: %v", l.remote, err)
		l.close()
		return
	}
	l.names = secure.ConnectionState().PeerCertificates[0].DNSNames
	t.tmu.Lock()
	t.seen = append(t.seen, Connection{Remote: l.remote, Listener: name, Names: l.names, DSCP: l.dscp})
	t.tmu.Unlock()
	t.touch()
	l.serve(t.handle, t.badStream)
}

func (t *Teams) badStream(l *link, err error) {
	t.violate("RFC 3261 §7", "stream from %s: %v", l.remote, err)
}

func (t *Teams) track(l *link) bool {
	t.tmu.Lock()
	defer t.tmu.Unlock()
	if t.ctx.Err() != nil {
		l.close()
		return false
	}
	t.links[l] = true
	return true
}

func (t *Teams) untrack(l *link) {
	t.tmu.Lock()
	delete(t.links, l)
	for name, list := range t.pool {
		t.pool[name] = slices.DeleteFunc(list, func(o *link) bool { return o == l })
	}
	t.tmu.Unlock()
}

// synDSCP reads the code point of the SYN that opened conn (TCP_SAVED_SYN).
func synDSCP(conn net.Conn) int {
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return -1
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return -1
	}
	dscp := -1
	_ = raw.Control(func(fd uintptr) {
		// The string ends at the first zero octet, so an absent second octet is zero.
		head, err := unix.GetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_SAVED_SYN)
		switch {
		case err != nil || head == "":
		case head[0]>>4 == 4 && len(head) > 1:
			dscp = int(head[1] >> 2)
		case head[0]>>4 == 4:
			dscp = 0
		case head[0]>>4 == 6:
			dscp = int(head[0]&0x0f) << 2
			if len(head) > 1 {
				dscp |= int(head[1] >> 6)
			}
		}
	})
	return dscp
}

// Connections returns all connections that were ever accepted, in order.
func (t *Teams) Connections() []Connection {
	t.tmu.Lock()
	defer t.tmu.Unlock()
	return slices.Clone(t.seen)
}

// dial opens an own connection to a trunk.
func (t *Teams) dial(ctx context.Context, trunk *Trunk, source netip.Addr, certificate *tls.Certificate) (*link, error) {
	d := net.Dialer{Timeout: 5 * time.Second}
	if source.IsValid() {
		d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(source, 0))
	}
	conn, err := d.DialContext(ctx, "tcp", trunk.Address.String())
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", trunk.FQDN, err)
	}
	config := &tls.Config{
		MinVersion: tls.VersionTLS12, ServerName: trunk.FQDN, InsecureSkipVerify: true, // verified below, any key usage
		VerifyConnection:     func(cs tls.ConnectionState) error { return verify(t.cfg.Roots, cs, trunk.FQDN) },
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return certificate, nil },
	}
	if t.cfg.TLS != nil {
		t.cfg.TLS(false, config)
	}
	secure := tls.Client(conn, config)
	if err := secure.HandshakeContext(ctx); err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("TLS to %s: %w", trunk.FQDN, err)
	}
	l := &link{
		conn: secure, remote: addrPortOf(conn.RemoteAddr()), local: addrPortOf(conn.LocalAddr()), opened: true, name: trunk.FQDN, dscp: -1,
		names: secure.ConnectionState().PeerCertificates[0].DNSNames,
	}
	l.lastUsed.Store(time.Now().UnixNano())
	return l, nil
}

// open returns a connection of ours to the trunk: a pooled one (two at most, as
// a proxy VM keeps), or a fresh one.
func (t *Teams) open(ctx context.Context, trunk *Trunk, fresh bool, source netip.Addr) (*link, error) {
	t.tmu.Lock()
	if list := t.pool[trunk.FQDN]; !fresh && len(list) > 0 {
		t.next++
		l := list[t.next%len(list)]
		t.tmu.Unlock()
		return l, nil
	}
	if !source.IsValid() && len(t.cfg.Sources) > 0 {
		t.next++
		source = t.cfg.Sources[t.next%len(t.cfg.Sources)]
	}
	t.tmu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	l, err := t.dial(ctx, trunk, source, &t.cfg.Certificate.TLS)
	if err != nil {
		return nil, err
	}
	if !t.track(l) {
		return nil, net.ErrClosed
	}
	t.tmu.Lock()
	if len(t.pool[trunk.FQDN]) < 2 {
		t.pool[trunk.FQDN] = append(t.pool[trunk.FQDN], l)
	}
	t.tmu.Unlock()
	t.wg.Go(func() {
		defer t.untrack(l)
		l.serve(t.handle, t.badStream)
	})
	return l, nil
}

// TryConnect opens a connection to the trunk with another certificate (none if
// nil), sends OPTIONS, and returns the answer's status: what a stranger gets.
func (t *Teams) TryConnect(ctx context.Context, fqdn string, certificate *tls.Certificate) (int, error) {
	trunk := t.trunk(fqdn)
	if trunk == nil {
		return 0, fmt.Errorf("no trunk %s", fqdn)
	}
	if certificate == nil {
		certificate = &tls.Certificate{}
	}
	l, err := t.dial(ctx, trunk, netip.Addr{}, certificate)
	if err != nil {
		return 0, err
	}
	if !t.track(l) {
		return 0, net.ErrClosed
	}
	broken := make(chan error, 1)
	done := make(chan struct{})
	t.wg.Go(func() {
		defer close(done)
		defer t.untrack(l)
		l.serve(t.handle, func(_ *link, err error) { broken <- err })
		select {
		case broken <- net.ErrClosed:
		default:
		}
	})
	defer func() { l.close(); <-done }()
	answers := make(chan int, 1)
	m := t.optionsTo(trunk, l)
	tx, err := t.transact(l, m, func(_ *link, r *Message) {
		select {
		case answers <- r.Status:
		default:
		}
	})
	if err != nil {
		return 0, err
	}
	defer tx.quiet()
	select {
	case status := <-answers:
		return status, nil
	case err := <-broken:
		return 0, fmt.Errorf("connection refused by %s: %w", fqdn, err)
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

func (t *Teams) trunk(fqdn string) *Trunk {
	t.tmu.Lock()
	defer t.tmu.Unlock()
	return t.trunks[strings.ToLower(fqdn)]
}

// SetTrunk adds or changes a pairing.
func (t *Teams) SetTrunk(trunk Trunk) {
	t.tmu.Lock()
	defer t.tmu.Unlock()
	t.trunks[strings.ToLower(trunk.FQDN)] = &trunk
}

// SetUser adds or changes a user; calls under way keep what they began with.
func (t *Teams) SetUser(u User) {
	t.tmu.Lock()
	defer t.tmu.Unlock()
	t.users[u.Number] = &u
}

// User returns a user by number, nil if there is none.
func (t *Teams) User(number string) *User {
	t.tmu.Lock()
	defer t.tmu.Unlock()
	return t.users[number]
}

// Behave changes what a proxy name answers.
func (t *Teams) Behave(name string, b Behaviour) {
	t.tmu.Lock()
	defer t.tmu.Unlock()
	t.behaviour[name] = b
}

// Pings returns when each proxy name had the last OPTIONS of a trunk.
func (t *Teams) Pings(fqdn string) map[string]time.Time {
	t.tmu.Lock()
	defer t.tmu.Unlock()
	return maps.Clone(t.pinged[strings.ToLower(fqdn)])
}

// WaitPinged waits until the trunk has sent OPTIONS to all of the proxy names.
func (t *Teams) WaitPinged(ctx context.Context, fqdn string, names ...string) error {
	return t.wait(ctx, "OPTIONS of "+fqdn, func() bool {
		have := t.Pings(fqdn)
		for _, n := range names {
			if have[n].IsZero() {
				return false
			}
		}
		return len(have) > 0
	})
}

// WaitActive waits until the trunk has pinged and has answered our own OPTIONS.
func (t *Teams) WaitActive(ctx context.Context, fqdn string) error {
	return t.wait(ctx, "trunk "+fqdn, func() bool {
		t.tmu.Lock()
		defer t.tmu.Unlock()
		return t.active[strings.ToLower(fqdn)]
	})
}
