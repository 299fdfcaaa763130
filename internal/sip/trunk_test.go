package sip

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"localloop/internal/call"
	"localloop/internal/config"
)

// plain makes a box whose second trunk is a plain one toward a scripted carrier.
func plain(t *testing.T, transport string, change ...func(*config.SIP)) (*box, *script) {
	t.Helper()
	s := newScript(t, "carrier")
	b := newBox(t, func(b *box, o *Options) {
		c := config.SIP{Name: "carrier", Transport: transport, Listen: netip.MustParseAddrPort("127.0.0.1:0"), Realm: "wan", SRTP: config.SRTPOff, Domain: "carrier.example"}
		switch transport {
		case "udp":
			s.listenUDP("127.0.0.1:0")
		case "tcp":
			s.listen("127.0.0.1:0", nil)
		case "tls":
			s.listen("127.0.0.1:0", b.serverTLS())
			c.TLS, c.PeerNames = o.Teams[0].TLS, []string{proxyName}
		}
		c.Peers = []string{s.addr.String()}
		for _, f := range change {
			f(&c)
		}
		o.SIP = []config.SIP{c}
	})
	return b, s
}

// from makes a caller of the carrier.
func (b *box) from(s *script) *caller {
	b.t.Helper()
	n := unique()
	c := &caller{g: got{s: s}, id: "c" + n, tag: "t" + n, target: "sip:+493055510@box.example", via: "SIP/2.0/" + s.net + " " + s.addr.String(),
		contact: "Contact: <sip:gw@" + s.addr.String() + ">", from: "<sip:030123@carrier.example>", to: "<sip:+493055510@box.example>"}
	to := b.addr("carrier")
	switch s.net {
	case "UDP":
		c.g.from = net.UDPAddrFromAddrPort(to)
	case "TCP":
		conn, err := s.dial("127.0.0.1", to, nil)
		if err != nil {
			b.t.Fatal(err)
		}
		c.g.c = conn
	case "TLS":
		conn, err := s.dial("127.0.0.1", to, b.clientTLS())
		if err != nil {
			b.t.Fatal(err)
		}
		c.g.c = conn
	}
	return c
}

func TestPlainTrunkBothWays(t *testing.T) {
	for _, transport := range []string{"udp", "tcp", "tls"} {
		t.Run(transport, func(t *testing.T) {
			b, s := plain(t, transport)
			b.run()
			c := b.from(s)
			c.request("INVITE", sdpText(1))
			l, setup := b.leg()
			if setup.Source != "carrier" || setup.Called != "+493055510" || setup.Calling.Number != "030123" || setup.Teams != nil || setup.Profile.Realm != "wan" {
				t.Errorf("%+v", setup)
			}
			l.Send(call.Progress{Ringing: true})
			l.Send(call.Progress{Answer: describe(t, 2)})
			s.expect("SIP/2.0 100")
			ringing := s.expect("SIP/2.0 180")
			s.expect("SIP/2.0 183")
			contact := fmt.Sprintf("<sip:%s;transport=%s>", b.addr("carrier"), transport)
			if get(ringing.text, "Contact") != contact || get(ringing.text, "X-MS-SBC") != "" {
				t.Error(ringing.text)
			}
			l.Send(call.Answer{})
			c.finish(b)
			c.request("INFO", "Signal=#\r\nDuration=120\r\n", "CONTENT-TYPE: application/dtmf-relay")
			s.until("SIP/2.0 200")
			if d := want[call.Digit](t, l); d.Digit != '#' || d.Duration != 120*time.Millisecond {
				t.Errorf("%+v", d)
			}
			l.Send(call.Digit{Digit: '5', Duration: 100 * time.Millisecond})
			info := s.until("INFO ")
			if !strings.Contains(info.text, "Signal=5\r\n") || !strings.HasPrefix(info.text, "INFO sip:gw@"+s.addr.String()+" ") {
				t.Error(info.text)
			}
			info.reply("200 OK")
			l.Send(call.Update{Offer: describe(t, 3)})
			re := s.until("INVITE ")
			re.reply("200 OK", c.contact, sdpText(4))
			s.until("ACK ")
			want[call.Answer](t, l)
			l.Send(call.Release{Cause: call.NormalClearing})
			s.until("BYE ").reply("200 OK")
			gone(t, l)

			out := b.dial("carrier", "030555")
			inv := s.until("INVITE ")
			if !strings.HasPrefix(inv.text, "INVITE sip:030555@"+s.addr.String()+" ") || !strings.Contains(get(inv.text, "From"), "@carrier.example;user=phone>") ||
				get(inv.text, "X-MS-SBC") != "" || !strings.Contains(get(inv.text, "Allow"), "INFO") {
				t.Error(inv.text)
			}
			inv.reply("183 Session Progress", "to-tag e", c.contact, sdpText(5))
			if p := want[call.Progress](t, out); p.Answer == nil {
				t.Errorf("%+v", p)
			}
			inv.reply("200 OK", "to-tag e", c.contact, sdpText(5))
			want[call.Answer](t, out)
			s.until("ACK sip:gw@")
			out.Send(call.Release{Cause: call.NormalClearing})
			s.until("BYE ").reply("200 OK")
			gone(t, out)
		})
	}
}

// TestUDPRepeats: on UDP the transactions repeat what was lost.
func TestUDPRepeats(t *testing.T) {
	b, s := plain(t, "udp")
	b.run()
	l := b.dial("carrier", "030555")
	first := s.expect("INVITE ")
	if again := s.expect("INVITE "); again.text != first.text {
		t.Error("the repeated INVITE is another")
	}
	first.reply("486 Busy Here", "to-tag x")
	s.until("ACK ")
	gone(t, l)
	c := b.from(s)
	branch := c.request("INVITE", sdpText(1))
	in, _ := b.leg()
	in.Send(call.Release{Cause: call.UserBusy})
	busy := s.until("SIP/2.0 486")
	if again := s.until("SIP/2.0 486"); again.text != busy.text {
		t.Error("the repeated 486 is another")
	}
	c.their = tagOf(get(busy.text, "To"))
	c.raw("ACK", branch, "")
	gone(t, in)
	// Quiet after the ACK; a repeated INVITE makes no second call.
	select {
	case <-b.legs:
		t.Error("a second leg")
	default:
	}
}

func TestUDPStrangersAreIgnored(t *testing.T) {
	b, s := plain(t, "udp")
	b.run()
	pc, err := net.ListenPacket("udp", "127.0.0.50:0")
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	to := net.UDPAddrFromAddrPort(b.addr("carrier"))
	if _, err := pc.WriteTo([]byte("OPTIONS sip:a SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.50;rport;branch=z9hG4bK1\r\n\r\n"), to); err != nil {
		t.Fatal(err)
	}
	eventually(t, "counted", func() bool { return b.e.Status()[1].Untrusted == 1 })
	_ = pc.SetReadDeadline(time.Now().Add(30 * time.Millisecond))
	if n, _, err := pc.ReadFrom(make([]byte, 100)); err == nil {
		t.Errorf("%d bytes of answer", n)
	}
	s.none(10 * time.Millisecond)
}

func TestPlainTrunkFailsOver(t *testing.T) {
	second := newScript(t, "second").listenUDP("127.0.0.1:0")
	b, s := plain(t, "udp", func(c *config.SIP) { c.Peers = append(c.Peers, second.addr.String()) })
	b.run()
	l := b.dial("carrier", "030555")
	s.expect("INVITE ").reply("503 Service Unavailable", "to-tag x")
	inv := second.expect("INVITE ")
	inv.reply("200 OK", "to-tag y", "Contact: <sip:gw@"+second.addr.String()+">", sdpText(2))
	want[call.Answer](t, l)
	second.until("ACK ")
	l.Send(call.Release{Cause: call.NormalClearing})
	gone(t, l)
	second.until("BYE ").reply("200 OK")
}

func TestPlainTrunkHealth(t *testing.T) {
	b, s := plain(t, "udp", func(c *config.SIP) { c.OptionsEvery = 50 * time.Millisecond })
	b.e.times.ask = 200 * time.Millisecond
	b.run()
	eventually(t, "up", func() bool { return b.e.Healthy("carrier") })
	s.mu.Lock()
	s.options = func(got) string { return "" }
	s.mu.Unlock()
	eventually(t, "down", func() bool { return !b.e.Healthy("carrier") })
	s.mu.Lock()
	s.options = func(got) string { return "404 Not Found" } // alive all the same
	s.mu.Unlock()
	eventually(t, "up again", func() bool { return b.e.Healthy("carrier") })
}

// TestHoldFormsOfCarriers: each form is a hold, C-69.
func TestHoldFormsOfCarriers(t *testing.T) {
	b, s := plain(t, "udp")
	b.run()
	c := b.from(s)
	c.request("INVITE", sdpText(1))
	l, _ := b.leg()
	l.Send(call.Answer{Description: describe(t, 2)})
	c.finish(b)
	for i, h := range []struct {
		body string
		hold bool
	}{
		{sdpText(2, "a=sendonly"), false}, {sdpText(3), false}, {sdpText(4, "a=inactive"), true}, {sdpText(5, "a=sendrecv"), false},
		{strings.ReplaceAll(sdpText(6), "c=IN IP4 192.0.2.10", "c=IN IP4 0.0.0.0"), true},
	} {
		c.request("INVITE", h.body)
		if u := want[call.Update](t, l); u.Hold != h.hold {
			t.Errorf("C-69, C-71 %d: %+v", i, u)
		}
		l.Send(call.Answer{Description: describe(t, 3)})
		s.until("SIP/2.0 200")
		c.request("ACK", "")
	}
	l.Send(call.Release{})
	gone(t, l)
}

// TestRFC4475Answers sends the messages to a live trunk: each gets the answer
// that the table gives, and the trunk works afterwards.
func TestRFC4475Answers(t *testing.T) {
	b, s := plain(t, "udp")
	b.run()
	to := net.UDPAddrFromAddrPort(b.addr("carrier"))
	beyond := map[string]int{ // what the trunk says to those that pass the police
		"escnull": 405, "dblreq": 405, "mpart01": 405, "regaut01": 405, "unksm2": 405, "cparam01": 405, "cparam02": 405, "regescrt": 405,
		"lwsdisp": 200, "transports": 200, "zeromf": 200, "baddn": 200, "unreason": -1, "noreason": -1,
		"wsinv":   481, // has a To tag
		"semiuri": 200, "esc01": 0, "longreq": 0, "baddate": 0,
	}
	for name, verdict := range verdicts {
		if v, ok := beyond[name]; ok && verdict == 0 {
			verdict = v
		}
		raw := torture(t, name)
		// So that the answer comes to us, not to port 5060.
		if i := bytes.Index(raw, []byte("\r\nVia: ")); i >= 0 && name != "wsinv" {
			end := i + 2 + bytes.Index(raw[i+2:], crlf)
			if !bytes.Contains(raw[i:end], []byte(";")) { // RFC 2543: not even a branch
				raw = append(append(append([]byte{}, raw[:end]...), ";rport"...), raw[end:]...)
			}
		}
		raw = bytes.Replace(raw, []byte(";branch="), []byte(";rport;branch="), 1)
		if name != "badbranch" { // some share one, and would be repetitions of each other
			raw = bytes.Replace(raw, []byte("branch=z9hG4bK"), []byte("branch=z9hG4bK"+name), 1)
		}
		if _, err := s.udp.WriteTo(raw, to); err != nil {
			t.Fatal(err)
		}
		want := verdict
		if verdict == 0 {
			// A call: refused so that the next message finds the trunk free.
			l, _ := b.leg()
			l.Send(call.Release{Cause: call.UserBusy})
			gone(t, l)
			want = 486
		}
		m, _ := datagram(raw)
		id := m.get("call-id")
		for deadline := time.After(2 * time.Second); ; {
			var got string
			select {
			case g := <-s.rx:
				if get(g.text, "Call-ID") != id || strings.HasPrefix(g.text, "SIP/2.0 100") {
					continue // repeated for an earlier one
				}
				got = g.text
			case <-time.After(5 * time.Millisecond):
				if want > 0 {
					select {
					case <-deadline:
					default:
						continue
					}
				}
			}
			if want < 0 && got != "" || want > 0 && !strings.HasPrefix(got, fmt.Sprintf("SIP/2.0 %d ", want)) {
				t.Errorf("%s: want %d, got %q", name, want, got)
			}
			break
		}
	}
	c := b.from(s)
	c.request("INVITE", sdpText(1))
	b.leg()
}

// inStep waits until the box has read what was sent to it: a socket's buffer
// would drop the rest unread. It throws away what came back.
func (s *script) inStep(to net.Addr) {
	s.t.Helper()
	for range 20 {
		id := "step-" + unique()
		text := "OPTIONS sip:a SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1;rport;branch=z9hG4bK" + id + "\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:a@b>\r\nCall-ID: " + id +
			"\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n"
		if _, err := s.udp.WriteTo([]byte(text), to); err != nil {
			s.t.Fatal(err)
		}
		for again := time.After(time.Second); ; {
			select {
			case g := <-s.rx:
				if get(g.text, "Call-ID") == id {
					return
				}
				continue
			case <-again:
			}
			break
		}
	}
	s.t.Fatal("the box does not answer any more")
}

// TestTenThousandMalformedMessages (C-151): a call that runs is not harmed, nothing is
// left behind.
func TestTenThousandMalformedMessages(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	b, s := plain(t, "udp")
	b.run()
	c := b.from(s)
	c.request("INVITE", sdpText(1))
	l, _ := b.leg()
	l.Send(call.Answer{Description: describe(t, 2)})
	c.finish(b)
	go func() { // mutants that are still calls are refused
		for x := range b.legs {
			x.Send(call.Release{Cause: call.UserBusy})
			for range x.Events() {
			}
		}
	}()
	defer close(b.legs)
	own := "INVITE sip:+493055510@box.example SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:1;branch=z9hG4bKm\r\nFrom: " + c.from + ";tag=" + c.tag + "\r\nTo: " + c.to + ";tag=" + c.their +
		"\r\nCall-ID: " + c.id + "\r\nCSeq: 1 BYE\r\nContent-Length: 0\r\n\r\n"
	pool := append(seeds(t), []byte(own), []byte(fmt.Sprintf(ping, "q")))
	to := net.UDPAddrFromAddrPort(b.addr("carrier"))
	for i := range 10000 {
		m := mutate(r, pool[r.IntN(len(pool))])
		if bytes.Contains(m, []byte(c.id)) {
			m = bytes.ReplaceAll(m, []byte(c.their), []byte("x")) // not by chance a valid BYE
		}
		if len(m) > 60000 {
			continue
		}
		if _, err := s.udp.WriteTo(m, to); err != nil {
			t.Fatal(err)
		}
		if i%50 == 0 {
			s.inStep(to)
		}
	}
	s.inStep(to)
	eventually(t, "legs gone but ours", func() bool { return b.e.Status()[1].Legs == 1 })
	st := b.e.Status()[1]
	t.Logf("malformed %d, stray %d", st.Malformed, st.Stray)
	if st.Panics != 0 || st.Malformed < 3000 {
		t.Errorf("%+v", st)
	}
	c.cseq = 1000
	c.request("INVITE", sdpText(7))
	if u := want[call.Update](t, l); u.Offer.Version != 7 {
		t.Errorf("%+v", u)
	}
	l.Send(call.Answer{Description: describe(t, 8)})
	s.until("SIP/2.0 200")
	c.request("ACK", "")
	c.request("BYE", "")
	gone(t, l)
}

// TestMalformedStreamClosesItsConnectionOnly: what cannot be framed ends the one
// connection, with an answer where one can be given.
func TestMalformedStreamClosesItsConnectionOnly(t *testing.T) {
	b := newBox(t).run()
	c, l := b.answered(b.inbound(""))
	bad := b.inbound("127.0.0.8")
	bad.write(string(torture(t, "mcl01")))
	if r := b.tp[0].expect("SIP/2.0 400"); r.c != bad.c {
		t.Error("answered elsewhere")
	}
	_ = bad.c.SetReadDeadline(time.Now().Add(liveness))
	eventually(t, "closed", func() bool { _, err := bad.c.Write([]byte("\r\n")); return err != nil })
	c.request("BYE", "")
	b.tp[0].expect("SIP/2.0 200")
	gone(t, l)
}

func TestC38Microsoft183InTime(t *testing.T) {
	b := newBox(t)
	b.e.times.alert = 20 * time.Millisecond
	b.run()
	b.invite(b.inbound(""), sdpText(1))
	l, _ := b.leg()
	b.tp[0].expect("SIP/2.0 100")
	if r := b.tp[0].expect("SIP/2.0 183"); bodyOf(r.text) != "" || tagOf(get(r.text, "To")) == "" {
		t.Error(r.text)
	}
	l.Send(call.Progress{Ringing: true})
	b.tp[0].expect("SIP/2.0 180")
	l.Send(call.Release{Cause: call.NoAnswer})
	b.tp[0].expect("SIP/2.0 480")
	gone(t, l)
}

func TestApply(t *testing.T) {
	b, _ := plain(t, "udp")
	teams, sips, box := append([]config.Teams{}, b.e.opt.Teams...), append([]config.SIP{}, b.e.opt.SIP...), b.e.opt.Box
	b.run()
	teams[0].InternalRealm = "office"
	if err := b.e.Apply(teams, sips, box); err != nil {
		t.Fatal(err)
	}
	b.invite(b.inbound(""), sdpText(1), "X-MS-UserLocation: internal")
	if _, s := b.leg(); s.Profile.Realm != "office" {
		t.Errorf("%+v", s.Profile)
	}
	teams[0].Proxies = teams[0].Proxies[:1]
	if err := b.e.Apply(teams, nil, box); err == nil || !strings.Contains(err.Error(), "trunk teams: its sockets") || !strings.Contains(err.Error(), "trunk carrier: removed") {
		t.Errorf("%v", err)
	}
}

func TestNewRefusesWhatCannotWork(t *testing.T) {
	accept := func(call.Leg) {}
	good := config.SIP{Name: "a", Transport: "udp", Peers: []string{"192.0.2.1"}, Listen: netip.MustParseAddrPort("127.0.0.1:0")}
	bad := good
	bad.Peers = []string{"host:99999"}
	tls := good
	tls.Transport, tls.TLS.Certificate = "tls", "/nonexistent"
	for name, o := range map[string]Options{
		"no Accept": {}, "no peers": {Accept: accept, SIP: []config.SIP{{Name: "x", Transport: "udp"}}}, "port": {Accept: accept, SIP: []config.SIP{bad}},
		"twice": {Accept: accept, SIP: []config.SIP{good, good}}, "certificate": {Accept: accept, SIP: []config.SIP{tls}},
		"teams without certificate": {Accept: accept, Teams: []config.Teams{{Name: "t", FQDN: "a.b", PeerNames: []string{"x"}, Allow: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, Proxies: []string{"x:1"}}}},
		"transport":                 {Accept: accept, SIP: []config.SIP{{Name: "x", Transport: "sctp", Peers: []string{"a"}}}},
	} {
		if _, err := New(o); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

// TestManyCallsAtOnce: calls on a few connections end without a trace.
func TestManyCallsAtOnce(t *testing.T) {
	b := newBox(t).run()
	b.up()
	const n = 60
	in := [4]got{b.inbound("127.0.0.2"), b.inbound("127.0.0.3"), b.inbound("127.0.0.4"), b.inbound("127.0.0.5")}
	calls := make(map[string]*caller)
	for i := range n {
		c := b.invite(in[i%4], sdpText(1))
		calls[c.id] = c
	}
	legs := make([]call.Leg, n)
	for i := range legs {
		legs[i], _ = b.leg()
		legs[i].Send(call.Progress{Ringing: true})
		legs[i].Send(call.Answer{Description: describe(t, 2)})
	}
	acked, ended := 0, 0
	for ended < n {
		g := b.tp[0].expect("")
		c := calls[get(g.text, "Call-ID")]
		switch {
		case c == nil:
			t.Fatal(g.text)
		case strings.HasPrefix(g.text, "SIP/2.0 200") && strings.HasSuffix(get(g.text, "CSeq"), "INVITE"):
			if c.their == "" {
				c.their = tagOf(get(g.text, "To"))
				c.request("ACK", "")
				acked++
				c.request("BYE", "")
			}
		case strings.HasPrefix(g.text, "SIP/2.0 200"):
			ended++
		}
	}
	for _, l := range legs {
		gone(t, l)
	}
	eventually(t, "no leg left", func() bool { return b.e.Status()[0].Legs == 0 })
	tr := b.e.trunks[0]
	eventually(t, "no transaction left", func() bool {
		tr.mu.Lock()
		defer tr.mu.Unlock()
		return len(tr.servers) == 0 && len(tr.legs) == 0
	})
}

// TestKeysCannotBeForged: what joins the parts of our keys may stand in none.
func TestKeysCannotBeForged(t *testing.T) {
	b, s := plain(t, "udp")
	b.run()
	c := b.from(s)
	c.request("INVITE", sdpText(1))
	s.until("SIP/2.0 100")
	b.leg()
	// The key under which a merged INVITE is found, as a tag.
	c.their = "\x00" + c.tag + "\x001"
	c.request("BYE", "")
	s.until("SIP/2.0 400")
}

// TestRequestsWithoutTheCookie: a peer of RFC 2543 sends the same Via each time;
// CSeq tells its requests apart.
func TestRequestsWithoutTheCookie(t *testing.T) {
	b, s := plain(t, "udp")
	b.run()
	c := b.from(s)
	c.request("INVITE", sdpText(1))
	l, _ := b.leg()
	l.Send(call.Answer{Description: describe(t, 2)})
	c.their = tagOf(get(s.until("SIP/2.0 200").text, "To"))
	c.request("ACK", "")
	for _, digit := range "12" {
		c.cseq++
		c.raw("INFO", "1", "Signal="+string(digit)+"\r\n", "CONTENT-TYPE: application/dtmf-relay")
		if d := want[call.Digit](t, l); d.Digit != byte(digit) {
			t.Errorf("%c, want %c", d.Digit, digit)
		}
	}
}
