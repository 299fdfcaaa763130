package sip

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"localloop/internal/call"
	"localloop/internal/config"
)

const ping = "OPTIONS sip:edge7.branch.example:5061 SIP/2.0\r\nVIA: SIP/2.0/TLS 52.114.0.99:5061;branch=z9hG4bK%s\r\n" +
	"FROM: <sip:sip.pstnhub.microsoft.com:5061>;tag=a%[1]s\r\nTO: <sip:edge7.branch.example:5061>\r\nCALL-ID: ping-%[1]s\r\nCSEQ: 1 OPTIONS\r\n" +
	"CONTACT: <sip:sip.pstnhub.microsoft.com:5061>\r\nMAX-FORWARDS: 70\r\nCONTENT-LENGTH: 0\r\n\r\n"

func TestC1RefusesOldTLS(t *testing.T) {
	b := newBox(t).run()
	conf := b.clientTLS()
	conf.MinVersion, conf.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
	if _, err := b.tp[0].dial("", b.addr("teams"), conf); err == nil {
		t.Error("a client of TLS 1.1 was taken")
	}
	old := b.serverTLS()
	old.MinVersion, old.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
	s := newScript(t, "old").listen("127.0.0.1:0", old)
	p := &peer{t: b.e.trunks[0], host: "127.0.0.1", port: int(s.addr.Port()), opening: make(chan struct{}, 1)}
	if _, err := p.flow(t.Context()); err == nil {
		t.Error("a server of TLS 1.1 was taken")
	}
}

func TestC2TheListedSuites(t *testing.T) {
	for _, suite := range []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384} {
		t.Run(tls.CipherSuiteName(suite), func(t *testing.T) {
			b := newBox(t, func(b *box, o *Options) {
				conf := b.serverTLS()
				conf.MaxVersion, conf.CipherSuites = tls.VersionTLS12, []uint16{suite}
				s := newScript(t, "one suite").listen("127.0.0.1:0", conf)
				o.Teams[0].Proxies[0] = fmt.Sprintf("%s:%d", proxyName, s.addr.Port())
			}).run()
			eventually(t, "connected as client", func() bool { return b.e.Status()[0].Peers[0].Up })
			conf := b.clientTLS()
			conf.MaxVersion, conf.CipherSuites = tls.VersionTLS12, []uint16{suite}
			if _, err := b.tp[0].dial("", b.addr("teams"), conf); err != nil {
				t.Errorf("as server: %v", err)
			}
		})
	}
}

func TestC3SendsTheChainWhateverIssuersAreListed(t *testing.T) {
	var shown atomic.Int32
	b := newBox(t, func(b *box, o *Options) {
		conf := b.serverTLS()
		// A list of issuers that lacks ours; the check comes afterwards.
		conf.ClientAuth, conf.ClientCAs = tls.RequireAnyClientCert, x509.NewCertPool()
		conf.ClientCAs.AddCert(newAuthority(t, "somebody else").root)
		conf.VerifyConnection = func(s tls.ConnectionState) error {
			shown.Store(int32(len(s.PeerCertificates)))
			return nil
		}
		s := newScript(t, "picky").listen("127.0.0.1:0", conf)
		o.Teams[0].Proxies[0] = fmt.Sprintf("%s:%d", proxyName, s.addr.Port())
	}).run()
	eventually(t, "up", func() bool { return b.e.Status()[0].Peers[0].Up })
	if n := shown.Load(); n != 2 {
		t.Errorf("%d certificates shown, want leaf and intermediate", n)
	}
}

func TestC4C5C6WhoMayConnect(t *testing.T) {
	b := newBox(t).run()
	stranger := newAuthority(t, "stranger")
	client := func(a *authority, names ...string) *tls.Config {
		conf := b.clientTLS()
		cert, _ := a.issue(t, serverOnly, names...)
		conf.Certificates = []tls.Certificate{cert}
		return conf
	}
	nobody := b.clientTLS()
	nobody.Certificates = nil
	for _, c := range []struct {
		name string
		conf *tls.Config
		ok   bool
	}{
		{"C-4 for servers only", client(b.them, proxyNames[:]...), true},
		{"C-5 another name", client(b.them, "sip.example.com"), false},
		{"C-6 none", nobody, false},
		{"another root", client(stranger, proxyNames[:]...), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newScript(t, c.name)
			conn, err := s.dial("", b.addr("teams"), c.conf)
			if err == nil {
				// TLS 1.3 hears of the refusal only when it reads.
				_, _ = fmt.Fprintf(conn, ping, unique())
				select {
				case g := <-s.rx:
					if !c.ok {
						t.Fatalf("answered: %s", g.text)
					}
					if !strings.HasPrefix(g.text, "SIP/2.0 200") {
						t.Fatal(g.text)
					}
				case <-done(s):
					if c.ok {
						t.Fatal("closed")
					}
				case <-time.After(liveness):
					t.Fatal("neither answered nor closed")
				}
			} else if c.ok {
				t.Fatal(err)
			}
		})
	}
	eventually(t, "three refused handshakes counted", func() bool { return b.e.Status()[0].Handshakes == 3 })
}

// done is closed when all connections of a script have ended.
func done(s *script) <-chan struct{} {
	c := make(chan struct{})
	s.stop = append(s.stop, func() {})
	go func() { s.wg.Wait(); close(c) }()
	return c
}

// The server's certificate is judged in the same way as the client's.
func TestC5OurConnectionsCheckTheProxy(t *testing.T) {
	b := newBox(t, func(b *box, o *Options) {
		conf := b.serverTLS()
		cert, _ := b.them.issue(t, serverOnly, "sip.example.com")
		conf.Certificates = []tls.Certificate{cert}
		s := newScript(t, "false").listen("127.0.0.1:0", conf)
		o.Teams[0].Proxies[0] = fmt.Sprintf("%s:%d", proxyName, s.addr.Port())
	}).run()
	eventually(t, "judged", func() bool { return strings.Contains(b.e.Status()[0].Peers[0].Why, "holds none of the names") })
	eventually(t, "second up", func() bool { return b.e.Status()[0].Peers[1].Up })
	if b.e.Status()[0].Peers[0].Up {
		t.Error("up")
	}
}

func TestC10C11CertificateAlarms(t *testing.T) {
	b := newBox(t, func(b *box, o *Options) {
		o.Teams[0].TLS = b.us.files(t, b.them, "*.branch.example")
		o.Teams[0].FQDN = "a.b.branch.example"
	})
	alarms := strings.Join(b.e.Status()[0].Alarms, "\n")
	if !strings.Contains(alarms, "does not cover a.b.branch.example") {
		t.Errorf("alarms: %q", alarms)
	}
}

func TestC9RenewedCertificateIsShownAndConnectionsRenewed(t *testing.T) {
	var path string
	b := newBox(t, func(b *box, o *Options) { path = o.Teams[0].TLS.Certificate }).run()
	eventually(t, "up", func() bool { s := b.e.Status()[0]; return s.Peers[0].Up && s.Peers[1].Up && s.Peers[2].Up })
	serial := func() string {
		var n string
		conf := b.clientTLS()
		conf.VerifyConnection = func(s tls.ConnectionState) error { n = s.PeerCertificates[0].SerialNumber.String(); return nil }
		if _, err := b.tp[0].dial("", b.addr("teams"), conf); err != nil {
			t.Fatal(err)
		}
		return n
	}
	old := serial()
	opened := func() (n int) {
		for _, s := range b.tp {
			s.mu.Lock()
			n += s.opened
			s.mu.Unlock()
		}
		return n
	}
	before := opened()
	fresh := b.us.files(t, b.them, teamsFQDN)
	b.e.trunks[0].id.files.Certificate = fresh.Certificate
	if err := b.e.ReloadTLS(t.Context()); err != nil {
		t.Fatal(err)
	}
	if serial() == old {
		t.Error("the old certificate is still shown")
	}
	eventually(t, "connections renewed", func() bool { return opened() >= before+3 })
	b.e.trunks[0].id.files.Certificate = path + ".gone"
	if err := b.e.ReloadTLS(t.Context()); err == nil || serial() == old {
		t.Errorf("bad files must be refused and the good ones kept: %v", err)
	}
}

func TestC13OneDirectionForEachConnection(t *testing.T) {
	b := newBox(t).run()
	in := b.inbound("127.0.0.1")
	c, l := b.answered(in)
	// Our BYE must not come where their requests came from.
	l.Send(call.Release{Cause: call.NormalClearing})
	gone(t, l)
	bye := b.tp[0].expect("BYE ")
	if bye.c == c.g.c {
		t.Error("our request came on Microsoft's connection")
	}
	bye.reply("200 OK")
}

func TestC16C77DialogsAreFoundOnAnyConnection(t *testing.T) {
	b := newBox(t).run()
	c, l := b.answered(b.inbound("127.0.0.1"))
	c.g = b.inbound("127.0.0.3") // another address, a fresh connection
	c.request("INVITE", sdpText(5))
	u := want[call.Update](t, l)
	if u.Offer == nil || u.Offer.Version != 5 {
		t.Errorf("%+v", u)
	}
	l.Send(call.Answer{Description: describe(t, 6)})
	ok := b.tp[0].until("SIP/2.0 200")
	if !strings.Contains(bodyOf(ok.text), "o=- 7 6 ") || ok.c != c.g.c {
		t.Error("the answer is not on the connection of its request:\n" + ok.text)
	}
	c.request("ACK", "")
	c.g = b.inbound("127.0.0.4")
	c.request("BYE", "", `REASON: Q.850;cause=16;text="x"`)
	b.tp[0].expect("SIP/2.0 200")
	if r := gone(t, l); r.Cause.Q850 != 16 {
		t.Errorf("%+v", r)
	}
	c.request("BYE", "")
	b.tp[0].expect("SIP/2.0 481")
}

func TestC18StrangersAreDroppedUnread(t *testing.T) {
	b := newBox(t).run()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP("127.0.0.99")}}
	c, err := d.Dial("tcp", b.addr("teams").String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(liveness))
	// Before the handshake: not one byte is answered.
	if err := tls.Client(c, b.clientTLS()).Handshake(); err == nil {
		t.Fatal("handshake with a stranger")
	}
	if s := b.e.Status()[0]; s.Untrusted != 1 || s.Handshakes != 0 {
		t.Errorf("untrusted %d, handshakes %d", s.Untrusted, s.Handshakes)
	}
}

func TestC17ManyConnectionsAtOnce(t *testing.T) {
	b := newBox(t).run()
	for i := range 40 {
		g := b.inbound(fmt.Sprintf("127.0.0.%d", 1+i%14))
		g.write(fmt.Sprintf(ping, unique()))
		b.tp[0].expect("SIP/2.0 200")
	}
}

func TestC19ConnectionsAreRenewedWhileInUse(t *testing.T) {
	b := newBox(t)
	b.e.times.renew = time.Millisecond
	b.run()
	l, inv := b.dialled()
	inv.reply("180 Ringing", "to-tag r", teamsContact)
	want[call.Progress](t, l)
	eventually(t, "renewed three times", func() bool { b.tp[0].mu.Lock(); defer b.tp[0].mu.Unlock(); return b.tp[0].opened >= 4 })
	// The answer still comes on the connection that the INVITE went on.
	inv.reply("200 OK", "to-tag r", teamsContact, sdpText(9))
	want[call.Answer](t, l)
	ack := b.tp[0].expect("ACK ")
	if ack.c == inv.c {
		t.Error("new requests must take the new connection")
	}
}

func TestC20NamesAreNotPinned(t *testing.T) {
	r := &movingResolver{}
	b := newBox(t, func(b *box, o *Options) {
		o.Teams[0].Resolve = nil
		o.Resolver = r
	}).run()
	eventually(t, "asked again", func() bool { return r.asked.Load() > 3 })
	eventually(t, "up", func() bool { return b.e.Status()[0].Peers[0].Up })
}

// movingResolver gives 127.0.0.2, where nobody listens, and later 127.0.0.1.
type movingResolver struct{ asked atomic.Int32 }

func (r *movingResolver) LookupNetIP(context.Context, string, string) ([]netip.Addr, error) {
	if r.asked.Add(1) <= 3 {
		return []netip.Addr{netip.MustParseAddr("127.0.0.2")}, nil
	}
	return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil
}

func TestC22C26C27C32WhatOPTIONSCarry(t *testing.T) {
	b := newBox(t).run()
	var g got
	eventually(t, "OPTIONS at each name", func() bool {
		for _, s := range b.tp {
			s.mu.Lock()
			n := len(s.pings)
			if n > 0 {
				g = s.pings[0]
			}
			s.mu.Unlock()
			if n == 0 {
				return false
			}
		}
		return true
	})
	line, _, _ := strings.Cut(g.text, "\r\n")
	if !strings.HasPrefix(line, "OPTIONS sip:sip3.pstnhub.microsoft.com:") || !strings.HasSuffix(line, " SIP/2.0") || !strings.HasPrefix(get(g.text, "Via"), "SIP/2.0/TLS "+teamsFQDN+":") {
		t.Error(g.text)
	}
	want := fmt.Sprintf("<sip:%s:%d;transport=tls>", teamsFQDN, b.addr("teams").Port())
	if c := get(g.text, "Contact"); c != want || count(g.text, "Contact") != 1 || strings.Contains(g.text, "Record-Route") {
		t.Errorf("Contact %q, want %q", c, want)
	}
	if a := get(g.text, "Allow"); a != "INVITE, ACK, CANCEL, BYE, OPTIONS, NOTIFY" {
		t.Errorf("Allow %q", a)
	}
	if get(g.text, "X-MS-SBC") != "Localloop/edged/1.2.3" || get(g.text, "User-Agent") == "" || strings.Contains(g.text, "100rel") {
		t.Error(g.text)
	}
	s := b.e.Status()[0]
	eventually(t, "region", func() bool { s = b.e.Status()[0]; return s.Peers[2].Region == "EUWE" })
	if !s.Up || !b.e.Healthy("teams") || s.Certificate.IsZero() {
		t.Errorf("%+v", s)
	}
}

func TestC25C28Cadence(t *testing.T) {
	for range 1000 {
		if p := pause(time.Minute); p < time.Minute || p > 70*time.Second {
			t.Fatalf("%v", p)
		}
	}
	// One connection carries them all.
	b := newBox(t).run()
	eventually(t, "four OPTIONS", func() bool { b.tp[1].mu.Lock(); defer b.tp[1].mu.Unlock(); return len(b.tp[1].pings) >= 4 })
	b.tp[1].mu.Lock()
	defer b.tp[1].mu.Unlock()
	if b.tp[1].opened != 1 {
		t.Errorf("%d connections", b.tp[1].opened)
	}
}

func TestC29AnswersOPTIONSOfMicrosoft(t *testing.T) {
	b := newBox(t).run()
	b.e.Refuse("teams", time.Now().Add(time.Hour), "LAN lost") // also then
	g := b.inbound("127.0.0.5")
	g.write(fmt.Sprintf(ping, unique()))
	r := b.tp[0].expect("SIP/2.0 200 OK\r\n")
	if r.c != g.c || !strings.Contains(get(r.text, "Contact"), "<sip:"+teamsFQDN+":") || !strings.Contains(get(r.text, "Allow"), "NOTIFY") ||
		get(r.text, "Server") == "" || tagOf(get(r.text, "To")) == "" || bodyOf(r.text) != "" {
		t.Error(r.text)
	}
}

func TestC30A403IsAnAlarmAndTheOthersGoOn(t *testing.T) {
	b := newBox(t)
	b.tp[0].options = func(got) string { return "403 Forbidden" }
	b.run()
	eventually(t, "alarm", func() bool { return strings.Contains(b.e.Status()[0].Peers[0].Why, "not accepted") })
	eventually(t, "others", func() bool { s := b.e.Status()[0]; return s.Peers[1].Up && s.Peers[2].Up && !s.Peers[0].Up })
}

func TestC31SilentProxyIsPassedOverAndComesBack(t *testing.T) {
	b := newBox(t, func(b *box, o *Options) { o.Teams[0].OptionsEvery = 30 * time.Millisecond })
	var silent atomic.Bool
	silent.Store(true)
	b.tp[0].options = func(got) string {
		if silent.Load() {
			return ""
		}
		return "200 OK"
	}
	b.e.times.ask = 100 * time.Millisecond
	b.run()
	eventually(t, "sip2 up", func() bool { return b.e.Status()[0].Peers[1].Up })
	b.dial("teams", "+4915550123")
	b.tp[1].expect("INVITE ")
	silent.Store(false)
	eventually(t, "sip back", func() bool { return b.e.Status()[0].Peers[0].Up })
	b.dial("teams", "+4915550123")
	b.tp[0].expect("INVITE ")
}

// TestSocketsAreMarked: each socket, of listeners and of connections, goes
// through Control before it is used.
func TestSocketsAreMarked(t *testing.T) {
	var n atomic.Int32
	b := newBox(t, func(b *box, o *Options) {
		o.Control = func(network, address string, c syscall.RawConn) error {
			n.Add(1)
			return c.Control(func(fd uintptr) { _ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_IP, syscall.IP_TOS, 34<<2) })
		}
	}).run()
	eventually(t, "up", func() bool { s := b.e.Status()[0]; return s.Peers[0].Up && s.Peers[1].Up && s.Peers[2].Up })
	if n.Load() != 4 {
		t.Errorf("%d sockets marked, want the listener and three connections", n.Load())
	}
	tr := b.e.trunks[0]
	tr.mu.Lock()
	defer tr.mu.Unlock()
	for l := range tr.links {
		raw, err := l.stream.(*tls.Conn).NetConn().(*net.TCPConn).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		_ = raw.Control(func(fd uintptr) {
			if tos, err := syscall.GetsockoptInt(int(fd), syscall.IPPROTO_IP, syscall.IP_TOS); err != nil || tos != 34<<2 {
				t.Errorf("TOS %d: %v", tos, err)
			}
		})
	}
}

func TestRunReportsASocketThatCannotBeOpened(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	b := newBox(t, func(b *box, o *Options) { o.Teams[0].Listen = addrPort(ln.Addr()) })
	if err := b.e.Run(context.Background()); err == nil || !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("%v", err)
	}
}

// TestHalfAMessageIsNotWaitedFor: who begins a message must end it. Idle
// connections stay (C-17), those that trickle do not.
func TestHalfAMessageIsNotWaitedFor(t *testing.T) {
	b := newBox(t)
	b.e.times.t1 = 10 * time.Millisecond
	b.run()
	idle, slow := b.inbound("127.0.0.2"), b.inbound("127.0.0.3")
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		for _, c := range fmt.Sprintf(ping, unique()) {
			if _, err := slow.c.Write([]byte(string(c))); err != nil {
				return
			}
			select {
			case <-time.After(100 * time.Millisecond):
			case <-t.Context().Done():
				return
			}
		}
	}()
	select {
	case <-closed:
	case <-time.After(liveness):
		t.Fatal("half a message holds a connection")
	}
	idle.write(fmt.Sprintf(ping, unique()))
	b.tp[0].expect("SIP/2.0 200")
}

// TestOneSourceCannotTakeAllConnections: the others still get theirs.
func TestOneSourceCannotTakeAllConnections(t *testing.T) {
	b := newBox(t).run()
	var greedy []net.Conn
	defer func() {
		for _, c := range greedy {
			c.Close()
		}
	}()
	// Connections that never begin their handshake.
	for range maxPerSource + 10 {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
		c, err := d.Dial("tcp", b.addr("teams").String())
		if err != nil {
			t.Fatal(err)
		}
		greedy = append(greedy, c)
	}
	eventually(t, "refused", func() bool { return b.e.Status()[0].Untrusted >= 10 })
	if n := b.e.Status()[0].Untrusted; n != 10 {
		t.Errorf("%d refused", n)
	}
	g := b.inbound("127.0.0.3")
	g.write(fmt.Sprintf(ping, unique()))
	b.tp[0].expect("SIP/2.0 200")
	// Their place is free once they are gone.
	for _, c := range greedy {
		c.Close()
	}
	eventually(t, "room again", func() bool {
		c, err := b.tp[0].dial("127.0.0.2", b.addr("teams"), b.clientTLS())
		return err == nil && c != nil
	})
}

// TestApplyClosesConnectionsFromOutside: a source that is allowed no longer
// cannot go on over the connection that it has. Its calls stay.
func TestApplyClosesConnectionsFromOutside(t *testing.T) {
	b := newBox(t).run()
	teams, box := append([]config.Teams{}, b.e.opt.Teams...), b.e.opt.Box
	in := b.inbound("127.0.0.9")
	c, l := b.answered(in)
	acknowledged(t, l)
	teams[0].Allow = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/29")}
	if err := b.e.Apply(teams, nil, box); err != nil {
		t.Fatal(err)
	}
	tr := b.e.trunks[0]
	eventually(t, "closed", func() bool {
		tr.mu.Lock()
		defer tr.mu.Unlock()
		for k := range tr.links {
			if !k.ours {
				return false
			}
		}
		return true
	})
	c.g = b.inbound("127.0.0.2")
	c.request("BYE", "")
	b.tp[0].until("SIP/2.0 200")
	gone(t, l)
}

// TestC12AlarmsFollowTheClock: a certificate that was young when it was read
// still raises its alarm, each time a threshold is passed.
func TestC12AlarmsFollowTheClock(t *testing.T) {
	id := &identity{teams: true, now: time.Now}
	us := newAuthority(t, "public")
	id.files = us.files(t, us, teamsFQDN)
	if err := id.load(); err != nil {
		t.Fatal(err)
	}
	end := id.expiry()
	for left, want := range map[time.Duration]string{
		31 * 24 * time.Hour: "", 29*24*time.Hour + time.Hour: "ends in 29 days", time.Hour: "ends in 0 days", -time.Hour: "has ended",
		2000 * time.Hour: "not valid before",
	} {
		id.now = func() time.Time { return end.Add(-left) }
		got := strings.Join(id.alarms(teamsFQDN), "; ")
		if !strings.Contains(got, want) || want == "" && got != "" {
			t.Errorf("%v left: %q, want %q", left, got, want)
		}
	}
}

// TestC10SelfSigned: the usual self-signed certificate, which is no authority.
func TestC10SelfSigned(t *testing.T) {
	key := keys()[0]
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: teamsFQDN}, DNSNames: []string{teamsFQDN},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(1000 * time.Hour), BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, _ := x509.ParseCertificate(der)
	id := &identity{teams: true, now: time.Now}
	got := strings.Join(id.audit(&tls.Certificate{Certificate: [][]byte{der}, Leaf: leaf}, teamsFQDN), "; ")
	if !strings.Contains(got, "self-signed") {
		t.Errorf("%q", got)
	}
}

// A peer that cannot be reached is tried again in seconds, though OPTIONS go out
// once a minute only (C-28).
func TestUnreachablePeerIsTriedAgainSoon(t *testing.T) {
	for i, want := range []time.Duration{5, 10, 20, 40, 80, 80} {
		if got := again(i); got != want*time.Second {
			t.Errorf("attempt %d after %v, want %v", i, got, want*time.Second)
		}
	}
	if again(1000) != 80*time.Second {
		t.Errorf("after very many attempts: %v", again(1000))
	}
}
