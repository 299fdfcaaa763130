package siptest

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"localloop/internal/media/mediatest"
)

func TestTrunkIsActiveOnlyAfterItPinged(t *testing.T) {
	teams, b := lab(t)
	if _, err := teams.Place(liveness(t), teamsUser, boxName, "+493055501"); !errors.Is(err, ErrInactive) {
		t.Errorf("call to a trunk that never pinged: %v", err)
	}
	b.ping(teams)
	noViolations(t, teams)
	if p := teams.Pings(boxName); len(p) != 1 || p[ProxyNames[0]].IsZero() {
		t.Errorf("pings %v", p)
	}
}

// TestMarkOfSignallingIsReadFromTheSYN: without privilege and without a capture.
func TestMarkOfSignallingIsReadFromTheSYN(t *testing.T) {
	for _, want := range []int{0, 34, 46} {
		teams, b := lab(t)
		b.dscp = want
		b.ping(teams)
		seen := teams.Connections()
		if len(seen) != 1 {
			t.Fatalf("connections %+v", seen)
		}
		if seen[0].DSCP == -1 {
			t.Skip("this kernel saves no SYN")
		}
		if seen[0].DSCP != want {
			t.Errorf("DSCP %d, sent %d", seen[0].DSCP, want)
		}
	}
}

func TestUnknownTrunkGets403(t *testing.T) {
	teams, b := lab(t)
	l := b.dial(teams.Address(ProxyNames[1]))
	b.send(l, set(b.newRequest("OPTIONS", "sip:"+ProxyNames[1], "x", nil), "Contact", "<sip:other.example;transport=tls>"))
	b.status(403, "OPTIONS")
}

func TestOutboundCallCarriesLMOHeadersAndVoice(t *testing.T) {
	teams, b := lab(t, func(c *TeamsConfig) {
		c.Sources = []netip.Addr{netip.MustParseAddr("127.0.0.1")}
	})
	b.ping(teams)
	ctx := liveness(t)
	call, err := teams.Place(ctx, teamsUser, boxName, "+493055501")
	if err != nil {
		t.Fatal(err)
	}
	inv := b.method("INVITE")
	if inv.link.opened {
		t.Error("INVITE on the box's own connection (C-13, C-14)")
	}
	if !strings.HasPrefix(inv.URI, "sip:+493055501@"+boxName) || !strings.Contains(inv.URI, "user=phone") {
		t.Errorf("R-URI %s", inv.URI)
	}
	for name, want := range map[string]string{"X-MS-UserLocation": "internal", "X-MS-MediaPath": boxName, "X-MS-UserSite": "site-1"} {
		if got := inv.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	raw := string(inv.Bytes(false))
	if !strings.Contains(raw, "CALL-ID: ") || !strings.Contains(raw, "MS-CONVERSATION-ID: ") {
		t.Error("header names are not in capitals")
	}
	media := startMedia(t, "box")
	answer, err := media.Answer(inv.Body)
	if err != nil {
		t.Fatal(err)
	}
	b.send(inv.link, b.response(inv.Message, 100, nil))
	b.send(inv.link, b.response(inv.Message, 180, nil))
	b.send(inv.link, b.response(inv.Message, 200, answer))
	b.method("ACK")
	if err := call.WaitEstablished(ctx); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	media.Say(mediatest.Tone(500, -10))
	call.Media().Say(mediatest.Tone(800, -10))
	if _, err := media.WaitTone(ctx, 800, began); err != nil {
		t.Error(err)
	}
	if _, err := call.Media().WaitTone(ctx, 500, began); err != nil {
		t.Error(err)
	}
	// C-16 seen from Microsoft: BYE from another address on a fresh connection.
	call.Roam(netip.MustParseAddr("127.0.0.3"))
	done := make(chan error, 1)
	go func() { done <- call.Bye(ctx) }()
	bye := b.method("BYE")
	if bye.link == inv.link || bye.link.remote.Addr() != netip.MustParseAddr("127.0.0.3") {
		t.Errorf("BYE came from %s", bye.link.remote)
	}
	b.send(bye.link, b.response(bye.Message, 200, nil))
	if err := <-done; err != nil {
		t.Error(err)
	}
	noViolations(t, teams)
}

func TestInboundCallIsAnsweredWithLocation(t *testing.T) {
	teams, b := lab(t)
	l := b.ping(teams)
	media := startMedia(t, "box")
	offer, err := media.Offer()
	if err != nil {
		t.Fatal(err)
	}
	b.send(l, b.newRequest("INVITE", "sip:"+teamsUser+"@"+ProxyNames[0]+";user=phone", "in-1", offer))
	b.status(100, "INVITE")
	b.status(180, "INVITE")
	ok := b.status(200, "INVITE")
	if ok.Get("X-MS-UserLocation") != "internal" || ok.Get("X-MS-MediaPath") != boxName {
		t.Errorf("200 carries location %q, path %q", ok.Get("X-MS-UserLocation"), ok.Get("X-MS-MediaPath"))
	}
	if err := media.Accept(ok.Body); err != nil {
		t.Fatal(err)
	}
	target := addrSpec(ok.Get("Contact"))
	ack := b.newRequest("ACK", target, "in-1", nil)
	set(set(ack, "To", ok.Get("To")), "CSeq", strings.Replace(ok.Get("CSeq"), "INVITE", "ACK", 1))
	b.send(l, ack)
	ctx := liveness(t)
	call, err := teams.Incoming(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := call.WaitEstablished(ctx); err != nil {
		t.Fatal(err)
	}
	media.Say(mediatest.Tone(500, -10))
	if _, err := call.Media().WaitTone(ctx, 500, time.Time{}); err != nil {
		t.Error(err)
	}
	bye := set(b.newRequest("BYE", target, "in-1", nil), "To", ok.Get("To"))
	b.send(l, bye)
	b.status(200, "BYE")
	if over, err := call.WaitEnded(ctx); err != nil || over.Method != "BYE" {
		t.Errorf("ended by %v, %v", over, err)
	}
	noViolations(t, teams)
}

func TestThirdForkAnswersAfterAnothersEarlyMedia(t *testing.T) {
	teams, b := lab(t, func(c *TeamsConfig) { c.Users[0].Manual = true })
	l := b.ping(teams)
	media := startMedia(t, "box")
	offer, _ := media.Offer()
	b.send(l, b.newRequest("INVITE", "sip:"+teamsUser+"@"+ProxyNames[0]+";user=phone", "fork-1", offer))
	ctx := liveness(t)
	call, err := teams.Incoming(ctx)
	if err != nil {
		t.Fatal(err)
	}
	first, second, third := call.Branch(), call.Branch(), call.Branch()
	for _, step := range []func() error{first.Ring, second.Progress, func() error { return third.Answer() }} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
	a, p, ok := b.status(180, "INVITE"), b.status(183, "INVITE"), b.status(200, "INVITE")
	tags := map[string]bool{param(a.Get("To"), "tag"): true, param(p.Get("To"), "tag"): true, param(ok.Get("To"), "tag"): true}
	if len(tags) != 3 {
		t.Errorf("To-tags %v: each device has its own", tags)
	}
	early, err1 := mediatest.ParseDescription(p.Body)
	final, err2 := mediatest.ParseDescription(ok.Body)
	if err1 != nil || err2 != nil || early.Addr == final.Addr || bytes.Equal(early.Crypto[0].Key, final.Crypto[0].Key) {
		t.Errorf("183 and 200 of different devices share media: %v %v", err1, err2)
	}
	if call.Media() != third.Media() {
		t.Error("the call's voice is not the answering device's")
	}
}

func TestCancelledCallGets487(t *testing.T) {
	teams, b := lab(t, func(c *TeamsConfig) { c.Users[0].RingFor = time.Hour })
	l := b.ping(teams)
	media := startMedia(t, "box")
	offer, _ := media.Offer()
	inv := b.newRequest("INVITE", "sip:"+teamsUser+"@"+ProxyNames[0]+";user=phone", "cancel-1", offer)
	b.send(l, inv)
	b.status(180, "INVITE")
	cancel := b.newRequest("CANCEL", inv.URI, "cancel-1", nil)
	set(set(cancel, "Via", inv.Get("Via")), "CSeq", strings.Replace(inv.Get("CSeq"), "INVITE", "CANCEL", 1))
	b.send(l, cancel)
	b.status(200, "CANCEL")
	b.status(487, "INVITE")
	noViolations(t, teams)
}

func TestTeamsCancelsItsOwnCall(t *testing.T) {
	teams, b := lab(t)
	b.ping(teams)
	ctx := liveness(t)
	call, err := teams.Place(ctx, teamsUser, boxName, "+493055501")
	if err != nil {
		t.Fatal(err)
	}
	inv := b.method("INVITE")
	b.send(inv.link, b.response(inv.Message, 180, nil))
	type result struct {
		m   *Message
		err error
	}
	done := make(chan result, 1)
	go func() {
		m, err := call.Cancel(ctx)
		done <- result{m, err}
	}()
	cancel := b.method("CANCEL")
	if topBranch(cancel.Message) != topBranch(inv.Message) {
		t.Error("CANCEL with another branch")
	}
	b.send(cancel.link, b.response(cancel.Message, 200, nil))
	b.send(inv.link, b.response(inv.Message, 487, nil))
	b.method("ACK")
	if r := <-done; r.err != nil || r.m.Status != 487 {
		t.Errorf("%+v", r)
	}
}

func TestICERestartOfTheBoxIsAnsweredWithNewCredentials(t *testing.T) {
	lan, wan := netip.MustParseAddr("127.0.0.17"), netip.MustParseAddr("127.0.0.33")
	teams, b := lab(t, func(c *TeamsConfig) {
		c.Users[0].Media.ICE = true
		c.Users[0].Media.Paths = []mediatest.Path{{Name: "lan", Local: lan}, {Name: "wan", Local: wan, Relay: true}}
	})
	b.ping(teams)
	ctx := liveness(t)
	call, err := teams.Place(ctx, teamsUser, boxName, "+493055501")
	if err != nil {
		t.Fatal(err)
	}
	call.RestartVia("wan")
	inv := b.method("INVITE")
	offer, err := mediatest.ParseDescription(inv.Body)
	if err != nil || len(offer.Candidates) != 2 {
		t.Fatalf("offer %v, %d candidates", err, len(offer.Candidates))
	}
	lite := func(version uint64, addr, ufrag string) mediatest.Description {
		a := netip.MustParseAddrPort(addr)
		return mediatest.Description{
			SessionID: 9, Version: version, Profile: "RTP/SAVP", Addr: a, RTCP: a, RTCPMux: true, Lite: true, Ufrag: ufrag, Pwd: strings.Repeat(ufrag, 6), Direction: "sendrecv",
			Codecs:     []mediatest.Codec{{PayloadType: 8, Name: "PCMA/8000"}},
			Crypto:     []mediatest.Crypto{{Tag: 3, Suite: "AES_CM_128_HMAC_SHA1_80", Key: make([]byte, 30)}},
			Candidates: []mediatest.Candidate{{Foundation: "1", Component: 1, Transport: "UDP", Priority: 1, Addr: a, Type: "host"}},
		}
	}
	b.send(inv.link, b.response(inv.Message, 200, lite(1, "127.0.0.18:4000", "aaaa").Text(false)))
	b.method("ACK")
	if err := call.WaitEstablished(ctx); err != nil {
		t.Fatal(err)
	}
	// The box moves the leg to its public address.
	target := addrSpec(inv.Get("Contact"))
	l := b.dial(teams.Address(ProxyNames[2]))
	full := b.newRequest("INVITE", target, call.ID(), lite(2, "127.0.0.34:4000", "bbbb").Text(false))
	set(set(full, "From", inv.Get("To")+";tag=boxtag"), "To", inv.Get("From"))
	b.send(l, full)
	ok := b.status(200, "INVITE")
	answer, err := mediatest.ParseDescription(ok.Body)
	if err != nil {
		t.Fatal(err)
	}
	if answer.Ufrag == offer.Ufrag || answer.Pwd == offer.Pwd {
		t.Error("answer to an ICE restart kept ufrag or pwd")
	}
	if len(answer.Candidates) != 1 || answer.Candidates[0].Type != "relay" || answer.Candidates[0].Addr.Addr() != wan {
		t.Errorf("candidates after RestartVia(wan): %+v", answer.Candidates)
	}
	if ok.Get("X-MS-UserLocation") != "" {
		t.Error("X-MS headers in the 200 to a re-INVITE")
	}
	ack := b.newRequest("ACK", target, call.ID(), nil)
	set(set(set(ack, "From", full.Get("From")), "To", full.Get("To")), "CSeq", strings.Replace(full.Get("CSeq"), "INVITE", "ACK", 1))
	b.send(l, ack)
	if _, _, err := call.AwaitRequest(ctx, 0, "ACK"); err != nil {
		t.Error(err)
	}
	noViolations(t, teams)
}

// TestBrokenRulesAreNamed spoils a correct message one rule at a time.
func TestBrokenRulesAreNamed(t *testing.T) {
	teams, b := lab(t)
	l := b.ping(teams)
	media := startMedia(t, "box")
	offer, _ := media.Offer()
	uri := "sip:" + teamsUser + "@" + ProxyNames[0] + ";user=phone"
	invite := func() *Message { return b.newRequest("INVITE", uri, "v-"+hexToken(4), offer) }
	body := func(old, new string) func() *Message {
		return func() *Message {
			m := invite()
			m.Body = bytes.ReplaceAll(m.Body, []byte(old), []byte(new))
			return m
		}
	}
	ice := "a=ice-ufrag:abcd\r\na=ice-pwd:abcdabcdabcdabcdabcdabcd\r\n"
	for rule, make := range map[string]func() *Message{
		"C-26: Contact holds the address": func() *Message { return set(invite(), "Contact", "<sip:127.0.0.1:5061;transport=tls>") },
		"C-26: Contact without transport": func() *Message { return set(invite(), "Contact", "<sip:"+boxName+">") },
		"C-26: Contact x.example is not":  func() *Message { return set(invite(), "Contact", "<sip:x.example;transport=tls>") },
		"C-27":                            func() *Message { return set(invite(), "Contact", "<sip:@"+boxName+";transport=tls>") },
		"C-32":                            func() *Message { return set(invite(), "Allow", "INVITE, ACK, BYE") },
		"C-33":                            func() *Message { return set(invite(), "Contact", "<sips:"+boxName+";transport=tls>") },
		"C-49":                            func() *Message { return b.newRequest("UPDATE", uri, "u-1", nil) },
		"C-50":                            func() *Message { return b.newRequest("INVITE", uri, "n-1", nil) },
		"C-51: Request-URI": func() *Message {
			m := invite()
			m.URI = "sip:015550123@" + ProxyNames[0]
			return m
		},
		"C-51: From":         func() *Message { return set(invite(), "From", "<sip:5501@"+boxName+">;tag=boxtag") },
		"C-66":               func() *Message { return set(invite(), "Replaces", "x;to-tag=1;from-tag=2") },
		"C-67":               func() *Message { return set(invite(), "Contact", boxContact+", "+boxContact) },
		"C-68":               func() *Message { return set(invite(), "Supported", "timer, 100rel") },
		"C-69":               body("a=sendrecv", "a=sendonly"),
		"C-91: profile":      body("RTP/SAVP", "RTP/AVP"),
		"C-91: no AES":       body("SHA1_80", "SHA1_32"),
		"C-101":              body("RTP/SAVP 8", "RTP/SAVP 8 8"),
		"C-107: no a=ice-li": body("a=rtcp-mux\r\n", "a=rtcp-mux\r\n"+ice+"a=candidate:1 1 UDP 1 127.0.0.1 1 typ host\r\n"),
		"C-107: 2 candidate": body("a=rtcp-mux\r\n", "a=rtcp-mux\r\na=ice-lite\r\n"+ice+"a=candidate:1 1 UDP 1 127.0.0.1 1 typ host\r\na=candidate:2 1 UDP 1 127.0.0.2 1 typ host\r\n"),
		"C-150":              func() *Message { return remove(invite(), "X-MS-SBC") },
		"RFC 3261 §8.1.1":    func() *Message { return remove(invite(), "Max-Forwards") },
		"C-22: INVITE":       func() *Message { return set(invite(), "Via", "SIP/2.0/UDP x;branch=z9hG4bKx"+hexToken(4)) },
	} {
		before := len(teams.Violations())
		m := make()
		b.send(l, m)
		_, method := m.CSeq()
		b.expect("final response to "+rule, func(r *Message) bool {
			_, of := r.CSeq()
			return r.Status >= 200 && of == method && r.Get("Call-ID") == m.Get("Call-ID")
		})
		found := false
		for _, v := range teams.Violations()[before:] {
			text := v.String()
			if method, rest, ok := strings.Cut(v.Detail, "): "); ok && method != "" {
				text = v.Rule + ": " + rest
			}
			found = found || strings.HasPrefix(text, rule) || strings.HasPrefix(v.String(), rule)
		}
		if !found {
			t.Errorf("%s was not noticed; noticed: %v", rule, teams.Violations()[before:])
		}
	}
	// Wrong kind of connection, both ways.
	call, err := teams.Place(liveness(t), teamsUser, boxName, "+493055501")
	if err != nil {
		t.Fatal(err)
	}
	inv := b.method("INVITE")
	b.send(l, b.response(inv.Message, 180, nil))
	b.send(inv.link, b.newRequest("OPTIONS", "sip:"+ProxyNames[0], "wrong-1", nil))
	b.status(200, "OPTIONS")
	if _, _, err := call.AwaitStatus(liveness(t), 0, 180); err != nil {
		t.Fatal(err)
	}
	for _, rule := range []string{"C-13", "C-14"} {
		found := false
		for _, v := range teams.Violations() {
			found = found || v.Rule == rule
		}
		if !found {
			t.Errorf("%s was not noticed", rule)
		}
	}
}

func TestOptionsTooOftenAreNoticed(t *testing.T) {
	teams, b := lab(t, func(c *TeamsConfig) { c.MinOptions = time.Minute })
	l := b.ping(teams)
	b.send(l, b.newRequest("OPTIONS", "sip:"+ProxyNames[0], "ping-2", nil))
	b.status(200, "OPTIONS")
	v := teams.Violations()
	if len(v) != 1 || v[0].Rule != "C-28" {
		t.Errorf("violations %v", v)
	}
}

func TestProxyCanRefuseAndFallSilent(t *testing.T) {
	teams, b := lab(t)
	l := b.ping(teams)
	media := startMedia(t, "box")
	offer, _ := media.Offer()
	teams.Behave(ProxyNames[0], Behaviour{Status: 503, Header: []Field{{"Retry-After", "1"}}})
	b.send(l, b.newRequest("INVITE", "sip:"+teamsUser+"@"+ProxyNames[0]+";user=phone", "r-1", offer))
	if r := b.status(503, "INVITE"); r.Get("Retry-After") != "1" {
		t.Error("no Retry-After")
	}
	teams.Behave(ProxyNames[0], Behaviour{Silent: true})
	b.send(l, remove(b.newRequest("OPTIONS", "sip:"+ProxyNames[0], "r-2", nil), "X-MS-SBC"))
	ctx := liveness(t)
	if err := teams.wait(ctx, "the silent name to read", func() bool { return len(teams.violations) > 0 }); err != nil {
		t.Fatal(err)
	}
	l2 := b.dial(teams.Address(ProxyNames[1]))
	b.send(l2, b.newRequest("OPTIONS", "sip:"+ProxyNames[1], "r-3", nil))
	if r := b.status(200, "OPTIONS"); r.Get("Call-ID") != "r-3" {
		t.Errorf("the silent name answered %s", r.Get("Call-ID"))
	}
}

func TestStrangersAreRefusedBeforeSIP(t *testing.T) {
	teams, _ := lab(t)
	stranger, err := NewCA("stranger")
	if err != nil {
		t.Fatal(err)
	}
	wrong, err := stranger.Issue(Leaf{Names: []string{boxName}})
	if err != nil {
		t.Fatal(err)
	}
	for name, certs := range map[string][]tls.Certificate{"no certificate": nil, "foreign root": {wrong.TLS}} {
		conn, err := tls.Dial("tcp", teams.Address(ProxyNames[0]).String(), &tls.Config{InsecureSkipVerify: true, Certificates: certs})
		if err != nil {
			continue // TLS 1.2 tells the client at once
		}
		if _, err := bufio.NewReader(conn).ReadByte(); err == nil {
			t.Errorf("%s: accepted", name)
		}
		_ = conn.Close()
	}
}

func TestCallOutlivesItsConnections(t *testing.T) {
	teams, b := lab(t)
	b.ping(teams)
	ctx := liveness(t)
	call, err := teams.Place(ctx, teamsUser, boxName, "+493055501")
	if err != nil {
		t.Fatal(err)
	}
	inv := b.method("INVITE")
	media := startMedia(t, "box")
	answer, err := media.Answer(inv.Body)
	if err != nil {
		t.Fatal(err)
	}
	b.send(inv.link, b.response(inv.Message, 200, answer))
	b.method("ACK")
	if err := call.WaitEstablished(ctx); err != nil {
		t.Fatal(err)
	}
	teams.CloseConnections()
	done := make(chan error, 1)
	go func() { done <- call.Bye(ctx) }()
	bye := b.method("BYE")
	b.send(bye.link, b.response(bye.Message, 200, nil))
	if err := <-done; err != nil {
		t.Error(err)
	}
}
