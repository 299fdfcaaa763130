package siptest

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"localloop/internal/media/mediatest"
)

// PeerConfig says what a plain SIP peer is: a carrier, a PBX.
type PeerConfig struct {
	Name      string
	Transport string         // udp, tcp, tls
	Listen    netip.AddrPort // port 0: the kernel's choice
	Remote    netip.AddrPort // where INVITEs go; may be set later with SetRemote
	Host      string         // in From and, with the listen port, in Contact; default the listen address
	// Certificate and Roots are for TLS; the remote's certificate must hold RemoteName.
	Certificate *Certificate
	Roots       *x509.CertPool
	RemoteName  string
	Media       mediatest.Config
	Answering   Answering
	// Paths names the media paths of the answer to an INVITE, or of an own first
	// offer (nil given); nil allows all.
	Paths func(invite *Message) []string
	T1    time.Duration
	Log   *slog.Logger
}

// Peer is the double of a SIP trunk. Close ends it.
type Peer struct {
	*ua
	cfg      PeerConfig
	packets  *net.UDPConn
	listener net.Listener
	local    netip.AddrPort

	pmu       sync.Mutex
	remote    netip.AddrPort
	answering Answering
	refuse    int // to OPTIONS
	links     map[*link]bool
}

// StartPeer opens the socket and begins to serve.
func StartPeer(cfg PeerConfig) (*Peer, error) {
	p := &Peer{ua: newUA(cfg.Name, false, cfg.T1, cfg.Log), cfg: cfg, remote: cfg.Remote, answering: cfg.Answering, links: map[*link]bool{}}
	p.ua.linkFor, p.ua.contact, p.ua.sentBy, p.ua.headers = p.dialogLink, p.contactOf, p.via, p.addHeaders
	p.ua.paths = cfg.Paths
	p.ua.police, p.ua.outside, p.ua.accept = p.check, p.outsideDialog, p.acceptCall
	switch cfg.Transport {
	case "udp":
		conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(cfg.Listen))
		if err != nil {
			return nil, fmt.Errorf("peer %s: %w", cfg.Name, err)
		}
		p.packets, p.local = conn, addrPortOf(conn.LocalAddr())
		p.wg.Go(p.readPackets)
	case "tcp", "tls":
		l, err := net.Listen("tcp", cfg.Listen.String())
		if err != nil {
			return nil, fmt.Errorf("peer %s: %w", cfg.Name, err)
		}
		p.local = addrPortOf(l.Addr())
		if cfg.Transport == "tls" {
			l = tls.NewListener(l, &tls.Config{
				MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{cfg.Certificate.TLS}, ClientAuth: tls.RequireAnyClientCert,
				VerifyConnection: func(cs tls.ConnectionState) error { return verify(cfg.Roots, cs, "") },
			})
		}
		p.listener = l
		p.wg.Go(func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				p.wg.Go(func() {
					p.serve(&link{conn: conn, remote: addrPortOf(conn.RemoteAddr()), local: addrPortOf(conn.LocalAddr())})
				})
			}
		})
	default:
		return nil, fmt.Errorf("peer %s: transport %q", cfg.Name, cfg.Transport)
	}
	return p, nil
}

// Address returns where the peer listens.
func (p *Peer) Address() netip.AddrPort { return p.local }

// SetRemote sets where INVITEs go.
func (p *Peer) SetRemote(a netip.AddrPort) {
	p.pmu.Lock()
	defer p.pmu.Unlock()
	p.remote = a
}

// SetAnswering changes what happens to the next incoming calls.
func (p *Peer) SetAnswering(a Answering) {
	p.pmu.Lock()
	defer p.pmu.Unlock()
	p.answering = a
}

// RefuseOptions answers OPTIONS with status; 0 with 200.
func (p *Peer) RefuseOptions(status int) {
	p.pmu.Lock()
	defer p.pmu.Unlock()
	p.refuse = status
}

// Close ends the peer and waits for its goroutines.
func (p *Peer) Close() {
	p.ua.end()
	if p.packets != nil {
		_ = p.packets.Close()
	}
	if p.listener != nil {
		_ = p.listener.Close()
	}
	p.pmu.Lock()
	for l := range p.links {
		l.close()
	}
	p.pmu.Unlock()
	p.ua.shut()
}

func (p *Peer) readPackets() {
	buf := make([]byte, 64<<10)
	for {
		n, from, err := p.packets.ReadFromUDPAddrPort(buf)
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			continue
		}
		from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
		m, err := Parse(append([]byte(nil), buf[:n]...))
		if err != nil {
			if n > 4 { // CRLF keep-alives are shorter
				p.violate("RFC 3261 §7", "datagram from %s: %v", from, err)
			}
			continue
		}
		p.handle(&link{packets: p.packets, remote: from, local: p.local}, m)
	}
}

func (p *Peer) serve(l *link) {
	p.pmu.Lock()
	if p.ctx.Err() != nil {
		p.pmu.Unlock()
		_ = l.conn.Close()
		return
	}
	p.links[l] = true
	p.pmu.Unlock()
	defer func() {
		p.pmu.Lock()
		delete(p.links, l)
		p.pmu.Unlock()
	}()
	l.serve(p.handle, func(l *link, err error) { p.violate("RFC 3261 §7", "stream from %s: %v", l.remote, err) })
}

// linkTo returns a way to the address: an open connection, or a new one.
func (p *Peer) linkTo(to netip.AddrPort) (*link, error) {
	if p.packets != nil {
		return &link{packets: p.packets, remote: to, local: p.local}, nil
	}
	p.pmu.Lock()
	for l := range p.links {
		if l.remote == to && !l.closed.Load() {
			p.pmu.Unlock()
			return l, nil
		}
	}
	p.pmu.Unlock()
	d := net.Dialer{Timeout: 5 * time.Second, LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(p.local.Addr(), 0))}
	conn, err := d.DialContext(p.ctx, "tcp", to.String())
	if err != nil {
		return nil, fmt.Errorf("peer %s: %w", p.cfg.Name, err)
	}
	l := &link{remote: to, local: addrPortOf(conn.LocalAddr()), opened: true, conn: conn}
	if p.cfg.Transport == "tls" {
		l.conn = tls.Client(conn, &tls.Config{
			MinVersion: tls.VersionTLS12, InsecureSkipVerify: true, // verified below, any key usage
			Certificates:     []tls.Certificate{p.cfg.Certificate.TLS},
			VerifyConnection: func(cs tls.ConnectionState) error { return verify(p.cfg.Roots, cs, p.cfg.RemoteName) },
		})
	}
	p.wg.Go(func() { p.serve(l) })
	return l, nil
}

// Place calls a number at the remote.
func (p *Peer) Place(_ context.Context, from, number string, extra ...Field) (*Call, error) {
	p.pmu.Lock()
	remote := p.remote
	p.pmu.Unlock()
	l, err := p.linkTo(remote)
	if err != nil {
		return nil, err
	}
	c := p.newCall(hexToken(10)+"@"+p.host(), p.cfg.Media)
	c.outgoing = true
	c.localURI = fmt.Sprintf("<sip:%s@%s>", from, p.host())
	c.remoteURI = fmt.Sprintf("<sip:%s@%s>", number, remote)
	c.remoteTarget = fmt.Sprintf("sip:%s@%s%s", number, remote, p.transportParam())
	m := c.newRequest("INVITE", l)
	for _, f := range extra {
		m.replace(f)
	}
	return c, p.place(c, l, m)
}

func (p *Peer) host() string {
	if p.cfg.Host != "" {
		return p.cfg.Host
	}
	return p.local.String()
}

func (p *Peer) transportParam() string {
	if p.cfg.Transport == "udp" {
		return ""
	}
	return ";transport=" + p.cfg.Transport
}

func (p *Peer) contactOf(*Call) string {
	at := p.local.String()
	if p.cfg.Host != "" {
		at = net.JoinHostPort(p.cfg.Host, strconv.Itoa(int(p.local.Port())))
	}
	return fmt.Sprintf("<sip:%s@%s%s>", p.cfg.Name, at, p.transportParam())
}

// Ping sends OPTIONS to the remote and returns the status of the answer.
func (p *Peer) Ping(ctx context.Context) (int, error) {
	p.pmu.Lock()
	remote := p.remote
	p.pmu.Unlock()
	l, err := p.linkTo(remote)
	if err != nil {
		return 0, err
	}
	m := &Message{Method: "OPTIONS", URI: fmt.Sprintf("sip:%s%s", remote, p.transportParam()), Version: "SIP/2.0"}
	m.Add("Via", p.via(l)+";branch=z9hG4bK"+hexToken(8))
	m.Add("From", fmt.Sprintf("<sip:%s>;tag=%s", p.host(), hexToken(4)))
	m.Add("To", fmt.Sprintf("<sip:%s>", remote))
	m.Add("Call-ID", hexToken(10))
	m.Add("CSeq", "1 OPTIONS")
	m.Add("Max-Forwards", "70")
	m.Add("Contact", p.contactOf(nil))
	p.addHeaders(nil, m)
	r, err := p.ask(ctx, l, m)
	if err != nil {
		return 0, err
	}
	return r.Status, nil
}

func (p *Peer) via(*link) string {
	return fmt.Sprintf("SIP/2.0/%s %s;rport", strings.ToUpper(p.cfg.Transport), p.local)
}

func (p *Peer) addHeaders(_ *Call, m *Message) {
	if m.IsRequest() {
		m.Add("User-Agent", "Carrier/1.0")
	}
	m.Add("Allow", "INVITE, ACK, CANCEL, BYE, OPTIONS, INFO")
}

// dialogLink sends to the address in the other side's Contact, or by the way on
// which the call began when that is a name or a connection that still stands.
func (p *Peer) dialogLink(c *Call) (*link, error) {
	c.mu.Lock()
	target, first := c.remoteTarget, c.inviteLink
	c.mu.Unlock()
	if first != nil && first.reliable() && !first.closed.Load() {
		return first, nil
	}
	u, err := parseURI(target)
	if err == nil {
		if a, err := netip.ParseAddr(u.host); err == nil {
			if u.port == 0 {
				u.port = 5060
			}
			return p.linkTo(netip.AddrPortFrom(a, uint16(u.port)))
		}
	}
	p.pmu.Lock()
	remote := p.remote
	p.pmu.Unlock()
	if remote.IsValid() {
		return p.linkTo(remote)
	}
	if first != nil {
		return p.linkTo(first.remote)
	}
	return nil, fmt.Errorf("peer %s: no way to %s", p.cfg.Name, target)
}

func (p *Peer) check(l *link, m *Message, _ *Call) {
	if m.Version != "SIP/2.0" {
		p.violate("C-22", "start line says %q", m.Version)
	}
	if m.IsRequest() && !m.Has("Max-Forwards") {
		p.violate("RFC 3261 §8.1.1", "%s without Max-Forwards", m.Method)
	}
	if m.IsRequest() && m.Method == "INVITE" && len(m.All("Contact")) != 1 {
		p.violate("RFC 3261 §8.1.1.8", "INVITE with %d Contact values", len(m.All("Contact")))
	}
}

func (p *Peer) outsideDialog(l *link, m *Message) bool {
	if m.Method != "OPTIONS" {
		return false
	}
	p.pmu.Lock()
	status := p.refuse
	p.pmu.Unlock()
	if status == 0 {
		status = 200
	}
	r := respond(m, status, hexToken(4))
	p.addHeaders(nil, r)
	p.reply(l, m, r)
	return true
}

func (p *Peer) acceptCall(*link, *Message) (*answering, bool) {
	p.pmu.Lock()
	defer p.pmu.Unlock()
	return &answering{Answering: p.answering, media: p.cfg.Media}, true
}
