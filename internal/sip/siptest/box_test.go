package siptest

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"localloop/internal/media/mediatest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const boxName = "edge.branch.example"

// liveness is a deadline that only a hang exceeds.
func liveness(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// keys are made once: RSA takes its time under the race detector.
var keys = sync.OnceValues(func() (map[string]*Certificate, error) {
	root, err := NewCA("root")
	if err != nil {
		return nil, err
	}
	ca, err := root.Intermediate("issuing")
	if err != nil {
		return nil, err
	}
	authority = root
	m := map[string]*Certificate{}
	for name, names := range map[string][]string{"proxy": {ProxyNames[0], ProxyNames[1], ProxyNames[2]}, "box": {boxName}} {
		if m[name], err = ca.Issue(Leaf{Names: names}); err != nil {
			return nil, err
		}
	}
	return m, nil
})

var authority *CA

func certificate(t *testing.T, name string) *Certificate {
	t.Helper()
	m, err := keys()
	if err != nil {
		t.Fatal(err)
	}
	return m[name]
}

// box is a scripted SBC: what arrives waits in inbox, what leaves is written out
// by the test.
type box struct {
	t        *testing.T
	listener net.Listener
	wg       sync.WaitGroup
	inbox    chan arrived
	mu       sync.Mutex
	links    []*link
	seq      int
	dscp     int // of connections that it opens
}

type arrived struct {
	*Message
	link *link
}

func startBox(t *testing.T) *box {
	t.Helper()
	c := certificate(t, "box")
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{c.TLS}, ClientAuth: tls.RequireAnyClientCert,
		VerifyConnection: func(cs tls.ConnectionState) error { return verify(authority.Pool(), cs, "") }})
	if err != nil {
		t.Fatal(err)
	}
	b := &box{t: t, listener: l, inbox: make(chan arrived, 64)}
	b.wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			b.serve(&link{conn: conn, remote: addrPortOf(conn.RemoteAddr()), local: addrPortOf(conn.LocalAddr())})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		b.mu.Lock()
		for _, l := range b.links {
			l.close()
		}
		b.mu.Unlock()
		b.wg.Wait()
	})
	return b
}

func (b *box) serve(l *link) *link {
	b.mu.Lock()
	b.links = append(b.links, l)
	b.mu.Unlock()
	b.wg.Go(func() {
		l.serve(func(l *link, m *Message) {
			// Pings are answered by themselves; tests look for the rest.
			if m.Method == "OPTIONS" {
				_ = l.send(b.response(m, 200, nil), false)
				return
			}
			select {
			case b.inbox <- arrived{m, l}:
			default:
			}
		}, func(*link, error) {})
	})
	return l
}

func (b *box) address() netip.AddrPort { return addrPortOf(b.listener.Addr()) }

// dial opens an own connection to a proxy.
func (b *box) dial(to netip.AddrPort) *link {
	b.t.Helper()
	c := certificate(b.t, "box")
	d := net.Dialer{Control: func(_, _ string, raw syscall.RawConn) error {
		return raw.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_TOS, b.dscp<<2) })
	}}
	conn, err := tls.DialWithDialer(&d, "tcp", to.String(), &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{c.TLS}})
	if err != nil {
		b.t.Fatal(err)
	}
	return b.serve(&link{conn: conn, remote: to, local: addrPortOf(conn.LocalAddr()), opened: true})
}

// expect returns the next message that match accepts; others are dropped.
func (b *box) expect(what string, match func(*Message) bool) arrived {
	b.t.Helper()
	ctx := liveness(b.t)
	for {
		select {
		case a := <-b.inbox:
			if match(a.Message) {
				return a
			}
		case <-ctx.Done():
			b.t.Fatalf("box: no %s", what)
		}
	}
}

func (b *box) method(name string) arrived {
	b.t.Helper()
	return b.expect(name, func(m *Message) bool { return m.Method == name })
}

func (b *box) status(code int, method string) arrived {
	b.t.Helper()
	return b.expect(fmt.Sprintf("%d to %s", code, method), func(m *Message) bool {
		_, of := m.CSeq()
		return m.Status == code && of == method
	})
}

const (
	boxAllow   = "INVITE, ACK, CANCEL, BYE, OPTIONS, REFER, NOTIFY"
	boxContact = "<sip:+493055501@" + boxName + ":5061;transport=tls>"
)

func (b *box) response(req *Message, status int, body []byte, extra ...Field) *Message {
	r := respond(req, status, "boxtag")
	r.Add("Contact", boxContact)
	r.Add("Allow", boxAllow)
	r.Add("X-MS-SBC", "Localloop/Edge/1")
	r.Fields = append(r.Fields, extra...)
	if body != nil {
		r.Add("Content-Type", "application/sdp")
		r.Body = body
	}
	return r
}

func (b *box) send(l *link, m *Message) {
	b.t.Helper()
	if err := l.send(m, false); err != nil {
		b.t.Fatal(err)
	}
}

// newRequest makes a correct request; tests spoil it.
func (b *box) newRequest(method, uri, callID string, body []byte) *Message {
	b.seq++
	m := &Message{Method: method, URI: uri}
	m.Add("Via", fmt.Sprintf("SIP/2.0/TLS %s:5061;branch=z9hG4bK-box-%d", boxName, b.seq))
	m.Add("From", "<sip:+493055501@"+boxName+";user=phone>;tag=boxtag")
	m.Add("To", "<"+uri+">")
	m.Add("Call-ID", callID)
	m.Add("CSeq", fmt.Sprintf("%d %s", b.seq, method))
	m.Add("Max-Forwards", "69")
	m.Add("Contact", boxContact)
	m.Add("Allow", boxAllow)
	m.Add("X-MS-SBC", "Localloop/Edge/1")
	if body != nil {
		m.Add("Content-Type", "application/sdp")
		m.Body = body
	}
	return m
}

func set(m *Message, name, value string) *Message { m.replace(Field{name, value}); return m }

func remove(m *Message, name string) *Message {
	var kept []Field
	for _, f := range m.Fields {
		if !strings.EqualFold(f.Name, name) {
			kept = append(kept, f)
		}
	}
	m.Fields = kept
	return m
}

func startMedia(t *testing.T, name string) *mediatest.Client {
	t.Helper()
	c, err := mediatest.Start(mediatest.Config{Name: name, Secure: true, Paths: []mediatest.Path{{Name: "lan", Local: netip.MustParseAddr("127.0.0.1")}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

const teamsUser = "+4915550123"

// lab is a Teams double with one trunk (the scripted box) and one user.
func lab(t *testing.T, change ...func(*TeamsConfig)) (*Teams, *box) {
	t.Helper()
	b := startBox(t)
	any := netip.MustParseAddrPort("127.0.0.1:0")
	cfg := TeamsConfig{
		Certificate: certificate(t, "proxy"), Roots: authority.Pool(), MinOptions: -1,
		Proxies: []Proxy{{ProxyNames[0], any}, {ProxyNames[1], any}, {ProxyNames[2], any}},
		Trunks:  []Trunk{{FQDN: boxName, Address: b.address(), LMO: true}},
		Users: []User{{Number: teamsUser, Name: "A. User", Location: "internal", Site: "site-1", Media: mediatest.Config{
			Name: "user", Secure: true, Teams: true, Paths: []mediatest.Path{{Name: "lan", Local: netip.MustParseAddr("127.0.0.1")}},
		}}},
	}
	for _, f := range change {
		f(&cfg)
	}
	teams, err := StartTeams(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(teams.Close)
	return teams, b
}

// ping makes the trunk active and returns the box's own connection.
func (b *box) ping(teams *Teams) *link {
	b.t.Helper()
	l := b.dial(teams.Address(ProxyNames[0]))
	b.send(l, b.newRequest("OPTIONS", "sip:"+ProxyNames[0]+":5061", "ping-1", nil))
	r := b.status(200, "OPTIONS")
	if r.link != l {
		b.t.Error("answer to OPTIONS on another connection")
	}
	if err := teams.WaitActive(liveness(b.t), boxName); err != nil {
		b.t.Fatal(err)
	}
	return l
}

func noViolations(t *testing.T, teams interface{ Violations() []Violation }) {
	t.Helper()
	for _, v := range teams.Violations() {
		t.Errorf("violation of a correct box: %s", v)
	}
}
