package sip

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	sipgo "github.com/emiago/sipgo/sip"
	"go.uber.org/goleak"

	"localloop/internal/call"
	"localloop/internal/config"
	"localloop/internal/sdp"
)

func TestMain(m *testing.M) {
	// T1 of 100 ms: transactions run in real time, and 64*T1 is 6.4 s.
	sipgo.SetTimers(100*time.Millisecond, 400*time.Millisecond, 500*time.Millisecond)
	goleak.VerifyTestMain(m)
}

// liveness bounds waiting for what must happen; it proves no speed.
const liveness = 20 * time.Second

// --- certificates ---

type authority struct {
	root, mid       *x509.Certificate
	key             *rsa.PrivateKey
	rootPEM, midPEM []byte
}

var keys = sync.OnceValue(func() [2]*rsa.PrivateKey {
	var k [2]*rsa.PrivateKey
	for i := range k {
		var err error
		if k[i], err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
			panic(err)
		}
	}
	return k
})

func newAuthority(t testing.TB, name string) *authority {
	t.Helper()
	a := &authority{key: keys()[0]}
	make := func(cn string, serial int64, parent *x509.Certificate) (*x509.Certificate, []byte) {
		c := &x509.Certificate{
			SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: cn}, IsCA: true, BasicConstraintsValid: true,
			NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(1000 * time.Hour), KeyUsage: x509.KeyUsageCertSign,
			SubjectKeyId: []byte(cn),
		}
		if parent == nil {
			parent = c
		}
		der, err := x509.CreateCertificate(rand.Reader, c, parent, &a.key.PublicKey, a.key)
		if err != nil {
			t.Fatal(err)
		}
		out, _ := x509.ParseCertificate(der)
		return out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	}
	a.root, a.rootPEM = make(name+" root", 1, nil)
	a.mid, a.midPEM = make(name+" intermediate", 2, a.root)
	return a
}

func (a *authority) issue(t testing.TB, usage []x509.ExtKeyUsage, names ...string) (tls.Certificate, []byte) {
	t.Helper()
	c := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: names[0]}, DNSNames: names,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(900 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: usage,
	}
	key := keys()[1]
	der, err := x509.CreateCertificate(rand.Reader, c, a.mid, &key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	leaf := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return tls.Certificate{Certificate: [][]byte{der, a.mid.Raw}, PrivateKey: key}, append(leaf, a.midPEM...)
}

var serverOnly = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}

// files writes an identity and the roots it believes.
func (a *authority) files(t testing.TB, believe *authority, names ...string) config.TLS {
	t.Helper()
	dir := t.TempDir()
	_, chain := a.issue(t, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}, names...)
	key := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(keys()[1])})
	c := config.TLS{Certificate: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem"), Roots: filepath.Join(dir, "roots.pem")}
	for name, b := range map[string][]byte{c.Certificate: chain, c.Key: key, c.Roots: believe.rootPEM} {
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

// --- the scripted peer ---

// script is the far end of a trunk: it shows what arrives and says what the test
// tells it to. It has no protocol of its own but echoing headers.
type script struct {
	t    *testing.T
	name string
	addr netip.AddrPort
	rx   chan got
	net  string

	mu      sync.Mutex
	conns   []net.Conn
	opened  int
	options func(got) string // answer to OPTIONS; nil: 200; "" none
	pings   []got
	stop    []func()
	wg      sync.WaitGroup
	udp     net.PacketConn
}

// got is one message with the way it came.
type got struct {
	c    net.Conn
	from net.Addr
	s    *script
	text string
}

func newScript(t *testing.T, name string) *script {
	s := &script{t: t, name: name, rx: make(chan got, 256)}
	t.Cleanup(s.close)
	return s
}

func (s *script) close() {
	s.mu.Lock()
	for _, f := range s.stop {
		f()
	}
	for _, c := range s.conns {
		_ = c.Close()
	}
	s.mu.Unlock()
	s.wg.Wait()
}

// listen accepts connections; with conf over TLS.
func (s *script) listen(addr string, conf *tls.Config) *script {
	s.t.Helper()
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		s.t.Fatal(err)
	}
	s.net = "TCP"
	if conf != nil {
		s.net = "TLS"
	}
	s.addr = addrPort(ln.Addr())
	s.stop = append(s.stop, func() { _ = ln.Close() })
	s.wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			if conf != nil {
				c = tls.Server(c, conf)
			}
			s.serve(c)
		}
	})
	return s
}

func (s *script) listenUDP(addr string) *script {
	s.t.Helper()
	pc, err := net.ListenPacket("udp", addr)
	if err != nil {
		s.t.Fatal(err)
	}
	s.udp, s.addr, s.net = pc, addrPort(pc.LocalAddr()), "UDP"
	s.stop = append(s.stop, func() { _ = pc.Close() })
	s.wg.Go(func() {
		buf := make([]byte, 65536)
		for {
			n, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			s.take(got{from: from, s: s, text: string(buf[:n])})
		}
	})
	return s
}

// dial opens a connection of the peer's own to the box.
func (s *script) dial(local string, to netip.AddrPort, conf *tls.Config) (net.Conn, error) {
	d := net.Dialer{Timeout: liveness}
	if local != "" {
		d.LocalAddr = &net.TCPAddr{IP: net.ParseIP(local)}
	}
	c, err := d.Dial("tcp", to.String())
	if err != nil {
		return nil, err
	}
	if conf != nil {
		tc := tls.Client(c, conf)
		if err := tc.Handshake(); err != nil {
			_ = c.Close()
			return nil, err
		}
		c = tc
	}
	s.serve(c)
	return c, nil
}

func (s *script) serve(c net.Conn) {
	s.mu.Lock()
	s.conns = append(s.conns, c)
	s.opened++
	s.mu.Unlock()
	s.wg.Go(func() {
		defer c.Close()
		r := bufio.NewReader(c)
		for {
			var b strings.Builder
			n := 0
			for {
				line, err := r.ReadString('\n')
				if err != nil {
					return
				}
				b.WriteString(line)
				if name, v, ok := strings.Cut(line, ":"); ok && strings.EqualFold(name, "Content-Length") {
					n, _ = strconv.Atoi(strings.TrimSpace(v))
				}
				if line == "\r\n" && b.Len() > 2 {
					break
				} else if line == "\r\n" {
					b.Reset()
				}
			}
			body := make([]byte, n)
			if _, err := io.ReadFull(r, body); err != nil {
				return
			}
			b.Write(body)
			s.take(got{c: c, s: s, text: b.String()})
		}
	})
}

func (s *script) take(g got) {
	if strings.HasPrefix(g.text, "OPTIONS ") {
		s.mu.Lock()
		s.pings = append(s.pings, g)
		f := s.options
		s.mu.Unlock()
		status := "200 OK"
		if f != nil {
			status = f(g)
		}
		if status != "" {
			g.reply(status, "SERVER: Microsoft.PSTNHub.SIPProxy v.2026.9.1.3 i.EUWE.4")
		}
		return
	}
	s.rx <- g
}

// expect waits for the next message and checks how it begins.
func (s *script) expect(start string) got {
	s.t.Helper()
	select {
	case g := <-s.rx:
		if !strings.HasPrefix(g.text, start) {
			s.t.Fatalf("%s: want %q, got\n%s", s.name, start, g.text)
		}
		return g
	case <-time.After(liveness):
		s.t.Fatalf("%s: nothing came, want %q", s.name, start)
	}
	return got{}
}

// until skips messages until one begins as wanted.
func (s *script) until(start string) got {
	s.t.Helper()
	for deadline := time.After(liveness); ; {
		select {
		case g := <-s.rx:
			if strings.HasPrefix(g.text, start) {
				return g
			}
		case <-deadline:
			s.t.Fatalf("%s: %q never came", s.name, start)
		}
	}
}

// none fails if a message arrives within d.
func (s *script) none(d time.Duration) {
	s.t.Helper()
	select {
	case g := <-s.rx:
		s.t.Fatalf("%s: did not expect\n%s", s.name, g.text)
	case <-time.After(d):
	}
}

func (g got) write(text string) {
	g.s.t.Helper()
	var err error
	if g.c != nil {
		_, err = g.c.Write([]byte(text))
	} else {
		_, err = g.s.udp.WriteTo([]byte(text), g.from)
	}
	if err != nil {
		g.s.t.Logf("%s: write: %v", g.s.name, err)
	}
}

// get returns a header value of a message text.
func get(text, name string) string {
	head, _, _ := strings.Cut(text, "\r\n\r\n")
	for _, line := range strings.Split(head, "\r\n")[1:] {
		if n, v, ok := strings.Cut(line, ":"); ok && strings.EqualFold(strings.TrimSpace(n), name) {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

func count(text, name string) (n int) {
	head, _, _ := strings.Cut(text, "\r\n\r\n")
	for _, line := range strings.Split(head, "\r\n")[1:] {
		if h, _, ok := strings.Cut(line, ":"); ok && strings.EqualFold(strings.TrimSpace(h), name) {
			n++
		}
	}
	return n
}

func bodyOf(text string) string { _, b, _ := strings.Cut(text, "\r\n\r\n"); return b }

func tagOf(v string) string {
	_, t, _ := strings.Cut(v, ";tag=")
	t, _, _ = strings.Cut(t, ";")
	return t
}

// reply answers as Microsoft does, with header names in capitals. A line that
// begins with "to-tag " sets the tag; an empty line starts the body.
func (g got) reply(status string, extra ...string) {
	g.s.t.Helper()
	to := get(g.text, "To")
	body := ""
	var lines []string
	for _, x := range extra {
		switch {
		case strings.HasPrefix(x, "to-tag "):
			if tagOf(to) == "" {
				to += ";tag=" + x[7:]
			}
		case strings.HasPrefix(x, "v=0"):
			body = x
			lines = append(lines, "CONTENT-TYPE: application/sdp")
		default:
			lines = append(lines, x)
		}
	}
	text := fmt.Sprintf("SIP/2.0 %s\r\nVIA: %s\r\nFROM: %s\r\nTO: %s\r\nCALL-ID: %s\r\nCSEQ: %s\r\n", status,
		get(g.text, "Via"), get(g.text, "From"), to, get(g.text, "Call-ID"), get(g.text, "CSeq"))
	for _, l := range lines {
		text += l + "\r\n"
	}
	g.write(text + fmt.Sprintf("CONTENT-LENGTH: %d\r\n\r\n%s", len(body), body))
}

const teamsContact = "CONTACT: <sip:api-du-a-euwe.pstnhub.microsoft.com:443;x-i=6d0f1111-2222;x-c=9c3e0a/s/1/77ab>"

// description as text: distinct versions tell offers and answers apart.
func sdpText(version int, lines ...string) string {
	s := fmt.Sprintf("v=0\r\no=- 7 %d IN IP4 192.0.2.10\r\ns=-\r\nc=IN IP4 192.0.2.10\r\nt=0 0\r\n"+
		"m=audio 20000 RTP/SAVP 8 101\r\na=rtpmap:8 PCMA/8000\r\na=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-16\r\n"+
		"a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:pmHzZjoTqRvX0CjXkZdvcb21c3W0d03FyNMiVMiU|2^31\r\n", version)
	for _, l := range lines {
		s += l + "\r\n"
	}
	return s
}

func describe(t testing.TB, version int, lines ...string) *sdp.Description {
	t.Helper()
	d, err := sdp.Parse([]byte(sdpText(version, lines...)))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// --- the box under test ---

type box struct {
	t      *testing.T
	e      *Endpoint
	legs   chan call.Leg
	us     *authority // who issued our certificate
	them   *authority // Microsoft's
	tp     [3]*script // the three proxies
	cancel context.CancelFunc
}

const (
	teamsFQDN = "edge7.branch.example"
	proxyName = "sip.pstnhub.microsoft.com"
)

var proxyNames = [3]string{proxyName, "sip2.pstnhub.microsoft.com", "sip3.pstnhub.microsoft.com"}

// serverTLS is Microsoft's side: a certificate for servers only, ours demanded.
func (b *box) serverTLS() *tls.Config {
	cert, _ := b.them.issue(b.t, serverOnly, proxyNames[:]...)
	pool := x509.NewCertPool()
	pool.AddCert(b.us.root)
	return &tls.Config{Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool, MinVersion: tls.VersionTLS12}
}

// clientTLS is a connection that Microsoft opens to us.
func (b *box) clientTLS() *tls.Config {
	cert, _ := b.them.issue(b.t, serverOnly, proxyNames[:]...)
	pool := x509.NewCertPool()
	pool.AddCert(b.us.root)
	return &tls.Config{Certificates: []tls.Certificate{cert}, RootCAs: pool, ServerName: teamsFQDN}
}

func newBox(t *testing.T, change ...func(*box, *Options)) *box {
	t.Helper()
	b := &box{t: t, legs: make(chan call.Leg, 4096), us: newAuthority(t, "public"), them: newAuthority(t, "microsoft")}
	teams := config.Teams{
		Name: "teams", FQDN: teamsFQDN, Listen: netip.MustParseAddrPort("127.0.0.1:0"),
		Source: netip.MustParseAddr("127.0.0.1"), TLS: b.us.files(t, b.them, teamsFQDN),
		PeerNames: []string{proxyName}, Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/28")},
		Resolve: map[string]netip.Addr{}, Bypass: true, InternalRealm: "lan", ExternalRealm: "wan", OptionsEvery: 300 * time.Millisecond,
	}
	for i, name := range proxyNames {
		b.tp[i] = newScript(t, name).listen("127.0.0.1:0", b.serverTLS())
		teams.Proxies = append(teams.Proxies, fmt.Sprintf("%s:%d", name, b.tp[i].addr.Port()))
		teams.Resolve[name] = b.tp[i].addr.Addr()
	}
	opt := Options{Teams: []config.Teams{teams}, Box: config.Box{Name: "box", Country: "de"}, Version: "1.2.3",
		Accept: func(l call.Leg) { b.legs <- l }}
	for _, f := range change {
		f(b, &opt)
	}
	e, err := New(opt)
	if err != nil {
		t.Fatal(err)
	}
	b.e = e
	e.times.first, e.times.ask, e.times.connect = 5*time.Second, 2*time.Second, 2*time.Second
	return b
}

func (b *box) run() *box {
	b.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	b.cancel = cancel
	done := make(chan error, 1)
	go func() { done <- b.e.Run(ctx) }()
	b.t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				b.t.Errorf("run: %v", err)
			}
		case <-time.After(liveness):
			b.t.Error("run does not end")
		}
	})
	select {
	case <-b.e.Ready():
	case err := <-done:
		done <- err
		b.t.Fatal(err)
	}
	return b
}

func (b *box) addr(trunk string) netip.AddrPort {
	for _, s := range b.e.Status() {
		if s.Name == trunk {
			return s.Local
		}
	}
	b.t.Fatal("no trunk " + trunk)
	return netip.AddrPort{}
}

// eventually waits until f holds.
func eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(liveness); !f(); {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// inbound opens a connection as Microsoft would.
func (b *box) inbound(local string) got {
	b.t.Helper()
	c, err := b.tp[0].dial(local, b.addr("teams"), b.clientTLS())
	if err != nil {
		b.t.Fatal(err)
	}
	return got{c: c, s: b.tp[0]}
}

var sequence struct {
	sync.Mutex
	n int
}

func unique() string {
	sequence.Lock()
	defer sequence.Unlock()
	sequence.n++
	return strconv.Itoa(sequence.n)
}

// call is one call from the peer, as it knows it.
type caller struct {
	g        got
	id, tag  string
	their    string // our tag
	target   string
	cseq     int
	via      string
	contact  string
	from, to string
}

// invite sends an INVITE from Microsoft.
func (b *box) invite(g got, body string, extra ...string) *caller {
	b.t.Helper()
	n := unique()
	c := &caller{
		g: g, id: "call-" + n, tag: "f" + n, target: "sip:+493055510@" + teamsFQDN + ":5061;user=phone;transport=tls", via: "SIP/2.0/TLS 52.114.0.99:5061",
		contact: teamsContact, from: `"A. User" <sip:+4915550123@` + proxyName + `:5061;user=phone>`, to: "<sip:+493055510@" + teamsFQDN + ":5061;user=phone>",
	}
	c.request("INVITE", body, extra...)
	return c
}

// request sends a request of the peer in the call; ACK and CANCEL keep the CSeq.
func (c *caller) request(method, body string, extra ...string) string {
	if method != "ACK" && method != "CANCEL" {
		c.cseq++
	}
	branch := "z9hG4bK" + unique()
	return c.raw(method, branch, body, extra...)
}

func (c *caller) raw(method, branch, body string, extra ...string) string {
	to := c.to
	if c.their != "" {
		to += ";tag=" + c.their
	}
	text := fmt.Sprintf("%s %s SIP/2.0\r\nVIA: %s;branch=%s\r\nFROM: %s;tag=%s\r\nTO: %s\r\nCALL-ID: %s\r\nCSEQ: %d %s\r\nMAX-FORWARDS: 68\r\n",
		method, c.target, c.via, branch, c.from, c.tag, to, c.id, c.cseq, method)
	if method == "INVITE" {
		text += c.contact + "\r\n"
	}
	for _, l := range extra {
		text += l + "\r\n"
	}
	if body != "" && !strings.Contains(text, "CONTENT-TYPE") {
		text += "CONTENT-TYPE: application/sdp\r\n"
	}
	c.g.write(text + fmt.Sprintf("CONTENT-LENGTH: %d\r\n\r\n%s", len(body), body))
	return branch
}

// leg returns the next incoming leg and its Setup.
func (b *box) leg() (call.Leg, call.Setup) {
	b.t.Helper()
	select {
	case l := <-b.legs:
		s, ok := next(b.t, l).(call.Setup)
		if !ok {
			b.t.Fatal("the first event is no Setup")
		}
		return l, s
	case <-time.After(liveness):
		b.t.Fatal("no leg")
		return nil, call.Setup{}
	}
}

func next(t testing.TB, l call.Leg) call.Event {
	t.Helper()
	select {
	case e, ok := <-l.Events():
		if !ok {
			t.Fatal("events closed")
		}
		return e
	case <-time.After(liveness):
		t.Fatal("no event")
		return nil
	}
}

// want returns the next event, which must be of type E.
func want[E call.Event](t testing.TB, l call.Leg) E {
	t.Helper()
	e := next(t, l)
	v, ok := e.(E)
	if !ok {
		t.Fatalf("event %T %+v, want %T", e, e, v)
	}
	return v
}

// gone checks that the leg ends with one Release and nothing behind it.
func gone(t testing.TB, l call.Leg) call.Release {
	t.Helper()
	r := want[call.Release](t, l)
	select {
	case e, ok := <-l.Events():
		if ok {
			t.Fatalf("event %T after Release", e)
		}
	case <-time.After(liveness):
		t.Fatal("events not closed after Release")
	}
	return r
}

// answered establishes an incoming call.
func (b *box) answered(g got, extra ...string) (*caller, call.Leg) {
	b.t.Helper()
	b.up()
	c := b.invite(g, sdpText(1), extra...)
	l, _ := b.leg()
	l.Send(call.Answer{Description: describe(b.t, 2)})
	c.finish(b)
	return c, l
}

func (c *caller) finish(b *box) {
	b.t.Helper()
	ok := c.g.s.until("SIP/2.0 200")
	c.their = tagOf(get(ok.text, "To"))
	c.request("ACK", "")
}

// acknowledged waits until the leg has seen the ACK for its last 2xx.
func acknowledged(t testing.TB, l call.Leg) {
	t.Helper()
	eventually(t, "acknowledged", func() bool {
		none := make(chan bool)
		l.(*leg).post(func() { none <- l.(*leg).ack == nil })
		return <-none
	})
}

// up waits until the first proxy is known to answer: it comes first from then on.
func (b *box) up() {
	b.t.Helper()
	eventually(b.t, "trunk up", func() bool { return b.e.Status()[0].Peers[0].Up })
}

// dialled places a call to Microsoft and returns the INVITE.
func (b *box) dialled() (call.Leg, got) {
	b.t.Helper()
	b.up()
	l := b.dial("teams", "+4915550123")
	return l, b.tp[0].expect("INVITE ")
}

func (b *box) dial(trunk, number string) call.Leg {
	b.t.Helper()
	l, err := b.e.Dial(context.Background(), call.Target{Kind: call.ToTrunk, Name: trunk, Number: number},
		call.Setup{Calling: call.Party{Number: "+493055501", Name: `Front "gate"`}, Called: number, Offer: describe(b.t, 1)})
	if err != nil {
		b.t.Fatal(err)
	}
	return l
}
