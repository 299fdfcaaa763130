package sip

import (
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"localloop/internal/call"
)

func TestC35C41IncomingCall(t *testing.T) {
	b := newBox(t).run()
	in := b.inbound("127.0.0.2")
	c := b.invite(in, sdpText(1), "X-MS-UserLocation: Internal", "X-MS-MediaPath: "+teamsFQDN, "X-MS-UserSite: site-7", "MS-CONVERSATION-ID: conv-1",
		"USER-AGENT: Microsoft.PSTNHub.SIPProxy v.2026.9.1.3 i.EUWE.4", "RECORD-ROUTE: <sip:52.114.0.99:5061;transport=tls;lr>")
	l, s := b.leg()
	if s.Called != "+493055510" || s.Calling.Number != "+4915550123" || s.Calling.Name != "A. User" || s.Calling.Private || s.Source != "teams" ||
		s.Ref != c.id || s.Offer == nil || s.Offer.Version != 1 {
		t.Errorf("%+v", s)
	}
	if h := s.Teams; h == nil || h.UserLocation != "internal" || h.UserSite != "site-7" || h.ConversationID != "conv-1" || h.Region != "EUWE" ||
		len(h.MediaPath) != 1 || h.MediaPath[0] != teamsFQDN {
		t.Errorf("%+v", s.Teams)
	}
	if s.Profile.Realm != "lan" || s.Profile.Fallback != "wan" {
		t.Errorf("profile %+v", s.Profile)
	}
	b.tp[0].expect("SIP/2.0 100 Trying")
	l.Send(call.Progress{Ringing: true})
	ringing := b.tp[0].expect("SIP/2.0 180 Ringing")
	l.Send(call.Progress{Answer: describe(t, 2)})
	early := b.tp[0].expect("SIP/2.0 183 ")
	l.Send(call.Answer{})
	ok := b.tp[0].expect("SIP/2.0 200 OK")
	contact := fmt.Sprintf("<sip:%s:%d;transport=tls>", teamsFQDN, b.addr("teams").Port())
	for _, r := range []got{ringing, early, ok} {
		if get(r.text, "Contact") != contact || count(r.text, "Contact") != 1 || r.c != in.c || get(r.text, "Record-Route") == "" ||
			tagOf(get(r.text, "To")) != tagOf(get(ok.text, "To")) || get(r.text, "X-MS-SBC") == "" || get(r.text, "Allow") == "" ||
			strings.Contains(r.text, "100rel") || get(r.text, "Require") != "" || !strings.HasPrefix(get(r.text, "Via"), "SIP/2.0/TLS 52.114.0.99:5061") {
			t.Error(r.text)
		}
	}
	if bodyOf(ok.text) != bodyOf(early.text) || !strings.Contains(bodyOf(ok.text), "o=- 7 2 ") {
		t.Error("C-114: the 200 brings another description than the 183")
	}
	c.their = tagOf(get(ok.text, "To"))
	c.request("ACK", "")
	c.request("BYE", "")
	b.tp[0].expect("SIP/2.0 200 OK")
	if r := gone(t, l); r.Cause.Q850 != 16 {
		t.Errorf("%+v", r)
	}
}

// logs keeps lines at level Error.
type logs struct {
	mu    sync.Mutex
	lines strings.Builder
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lines.Write(p)
}
func (l *logs) String() string { l.mu.Lock(); defer l.mu.Unlock(); return l.lines.String() }

// TestRealmFollowsTheUserLocation: C-127, C-128; odd and missing headers, C-136,
// C-137.
func TestRealmFollowsTheUserLocation(t *testing.T) {
	for _, c := range []struct{ header, realm, alarm string }{
		{"X-MS-USERLOCATION: internal", "lan", ""}, {"x-ms-userlocation: INTERNAL", "lan", ""}, {"X-Ms-UserLocation: external", "wan", ""},
		{"X-MS-UserLocation: roaming", "wan", "unknown X-MS-UserLocation"}, {"X-NONE: 1", "wan", "BypassMode"},
	} {
		t.Run(c.header, func(t *testing.T) {
			var log logs
			b := newBox(t, func(_ *box, o *Options) {
				o.Log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelError}))
			}).run()
			b.invite(b.inbound(""), sdpText(1), c.header)
			l, s := b.leg()
			if s.Profile.Realm != c.realm {
				t.Errorf("realm %q, want %q", s.Profile.Realm, c.realm)
			}
			if found := strings.Contains(log.String(), "BypassMode") || strings.Contains(log.String(), "unknown X-MS"); found != (c.alarm != "") || !strings.Contains(log.String(), c.alarm) {
				t.Errorf("log: %s", log.String())
			}
			l.Send(call.Release{Cause: call.UserBusy})
			gone(t, l)
		})
	}
}

func TestC36C37NumbersAsDialled(t *testing.T) {
	b := newBox(t).run()
	in := b.inbound("")
	for user, want := range map[string]string{
		"112": "112", "*21#": "*21#", "%2A21%23": "*21#", "+49-30.555(10)": "+493055510", "+493055510;ext=7": "+493055510", "911;phone-context=+1": "911",
	} {
		c := &caller{g: in, id: "n" + unique(), tag: "f", target: "sip:" + user + "@" + teamsFQDN, via: "SIP/2.0/TLS 52.114.0.99:5061", contact: teamsContact,
			from: "<sip:anonymous@anonymous.invalid>", to: "<sip:x@y.example>"}
		c.request("INVITE", sdpText(1), "P-ASSERTED-IDENTITY: <tel:+4915550123>,<sip:user@tenant.example>", "PRIVACY: id")
		l, s := b.leg()
		if s.Called != want || s.Calling != (call.Party{Number: "+4915550123", Private: true}) {
			t.Errorf("%s: called %q by %+v", user, s.Called, s.Calling)
		}
		l.Send(call.Release{Cause: call.UserBusy})
		gone(t, l)
	}
}

func TestC39CausesBecomeStatus(t *testing.T) {
	b := newBox(t).run()
	in := b.inbound("")
	for _, c := range []struct {
		cause  call.Cause
		status int
		q850   string
	}{
		{call.NoCircuit, 503, "34"}, {call.DestinationDown, 503, "27"}, {call.RecoveryOnTimer, 504, "102"}, {call.UserBusy, 486, "17"},
		{call.UnallocatedNumber, 404, "1"}, {call.AddressIncomplete, 484, "28"}, {call.NoAnswer, 480, "19"}, {call.CallRejected, 603, "21"},
		{call.NormalClearing, 480, "16"}, {call.IncompatibleMedia, 488, "88"},
	} {
		cl := b.invite(in, sdpText(1))
		l, _ := b.leg()
		l.Send(call.Release{Cause: c.cause})
		r := b.tp[0].until(fmt.Sprintf("SIP/2.0 %d", c.status))
		if !strings.HasPrefix(get(r.text, "Reason"), "Q.850;cause="+c.q850) {
			t.Errorf("%v: Reason %q", c.cause, get(r.text, "Reason"))
		}
		cl.their = tagOf(get(r.text, "To"))
		if r := gone(t, l); !r.Cause.Is(c.cause) {
			t.Errorf("%v: %+v", c.cause, r)
		}
		l.Send(call.Release{Cause: c.cause}) // after the end: nothing
	}
}

func TestC40CancelBeforeAnswer(t *testing.T) {
	b := newBox(t).run()
	for _, reason := range []string{"X-NONE: 1", `REASON: SIP;cause=200;text="Call completed elsewhere"`} {
		in := b.inbound("")
		c := b.invite(in, sdpText(1))
		b.tp[0].expect("SIP/2.0 100")
		l, _ := b.leg()
		l.Send(call.Progress{Ringing: true})
		branch := b.tp[0].expect("SIP/2.0 180")
		_, v, _ := strings.Cut(get(branch.text, "Via"), "branch=")
		v, _, _ = strings.Cut(v, ";")
		c.raw("CANCEL", v, "", reason)
		r1, r2 := b.tp[0].expect("SIP/2.0 "), b.tp[0].expect("SIP/2.0 ")
		if !strings.HasPrefix(r1.text, "SIP/2.0 200") || get(r1.text, "CSeq") != "1 CANCEL" || !strings.HasPrefix(r2.text, "SIP/2.0 487") || get(r2.text, "CSeq") != "1 INVITE" {
			t.Errorf("%s\n%s", r1.text, r2.text)
		}
		if tagOf(get(r2.text, "To")) != tagOf(get(branch.text, "To")) {
			t.Error("487 with another tag than the 180")
		}
		want := call.OriginatorCancelled
		if strings.HasPrefix(reason, "REASON") {
			want = call.AnsweredElsewhere
		}
		if r := gone(t, l); !r.Cause.Is(want) {
			t.Errorf("%+v", r)
		}
	}
}

func TestC47OfferlessInvite(t *testing.T) {
	b := newBox(t).run()
	b.up()
	c := b.invite(b.inbound(""), "")
	l, s := b.leg()
	if s.Offer != nil {
		t.Fatal("offer out of nothing")
	}
	l.Send(call.Progress{Ringing: true})
	l.Send(call.Answer{Description: describe(t, 3)})
	ok := b.tp[0].until("SIP/2.0 200")
	if !strings.Contains(bodyOf(ok.text), "o=- 7 3 ") {
		t.Error("no offer in the 200")
	}
	c.their = tagOf(get(ok.text, "To"))
	c.request("ACK", sdpText(4))
	if a := want[call.Answer](t, l); a.Description == nil || a.Description.Version != 4 {
		t.Errorf("%+v", a)
	}
	l.Send(call.Release{})
	gone(t, l)
	b.tp[0].until("BYE ").reply("200 OK")
}

func TestAckMissing(t *testing.T) {
	t.Parallel()
	b := newBox(t).run()
	b.up()
	c := b.invite(b.inbound(""), sdpText(1))
	l, _ := b.leg()
	l.Send(call.Answer{Description: describe(t, 2)})
	first := b.tp[0].until("SIP/2.0 200")
	if again := b.tp[0].expect("SIP/2.0 200"); again.text != first.text {
		t.Errorf("the 200 changes:\n%s\n%s", first.text, again.text)
	}
	b.tp[0].until("BYE ").reply("200 OK")
	if r := gone(t, l); !r.Cause.Is(call.RecoveryOnTimer) {
		t.Errorf("%+v", r)
	}
	_ = c
}

func TestByeWaitsForTheAck(t *testing.T) {
	b := newBox(t).run()
	b.up()
	c := b.invite(b.inbound(""), sdpText(1))
	l, _ := b.leg()
	l.Send(call.Answer{Description: describe(t, 2)})
	l.Send(call.Release{Cause: call.NormalClearing})
	gone(t, l)
	ok := b.tp[0].until("SIP/2.0 200")
	c.their = tagOf(get(ok.text, "To"))
	c.request("ACK", "")
	b.tp[0].until("BYE ").reply("200 OK")
}

func TestC42TargetIsKeptByteForByte(t *testing.T) {
	b := newBox(t).run()
	_, l := b.answered(b.inbound("127.0.0.6"))
	l.Send(call.Release{Cause: call.NormalClearing.With("bye")})
	gone(t, l)
	bye := b.tp[0].expect("BYE ") // at the proxy, not at port 443 of the Contact
	line, _, _ := strings.Cut(bye.text, "\r\n")
	uri := strings.TrimSuffix(strings.TrimPrefix(teamsContact, "CONTACT: <"), ">")
	if line != "BYE "+uri+" SIP/2.0" {
		t.Errorf("%q, want the target %q", line, uri)
	}
	if get(bye.text, "Reason") != `Q.850;cause=16;text="bye"` {
		t.Error(bye.text)
	}
	bye.reply("200 OK")
}

func TestC42RouteSetAndOddTargets(t *testing.T) {
	b := newBox(t).run()
	b.up()
	for _, target := range []string{
		"sip:a%20b;x=1@h.example:5061;X-I=AbC;lr;empty=?Subject=a%0d&b=c", "sip:api.example:443;x-c=9c//3e/s/1/==;x-i=", "SIP:Host.Example;Transport=TLS",
	} {
		in := b.inbound("")
		c := &caller{g: in, id: "t" + unique(), tag: "f", target: "sip:+493055510@" + teamsFQDN, via: "SIP/2.0/TLS 52.114.0.99:5061", contact: "Contact: <" + target + ">",
			from: "<sip:+4915550123@a.example>", to: "<sip:x@y.example>"}
		c.request("INVITE", sdpText(1), "RECORD-ROUTE: <sip:one.example;lr;x=y>, <sip:two.example;lr>", "RECORD-ROUTE: <sip:three.example;lr>")
		l, _ := b.leg()
		l.Send(call.Answer{Description: describe(t, 2)})
		c.finish(b)
		l.Send(call.Release{})
		gone(t, l)
		bye := b.tp[0].until("BYE ")
		line, rest, _ := strings.Cut(bye.text, "\r\n")
		if line != "BYE "+target+" SIP/2.0" {
			t.Errorf("%q, want %q", line, target)
		}
		var routes []string
		for _, h := range strings.Split(rest, "\r\n") {
			if v, ok := strings.CutPrefix(h, "Route: "); ok {
				routes = append(routes, v)
			}
		}
		if strings.Join(routes, "|") != `<sip:one.example;lr;x=y>|<sip:two.example;lr>|<sip:three.example;lr>` {
			t.Errorf("%q", routes)
		}
		bye.reply("200 OK")
	}
}

// TestRefusedTrunkAnswers503 is our part of C-144.
func TestRefusedTrunkAnswers503(t *testing.T) {
	b := newBox(t).run()
	c, l := b.answered(b.inbound(""))
	b.e.Refuse("teams", time.Now().Add(time.Minute), "LAN lost")
	b.invite(b.inbound(""), sdpText(1))
	r := b.tp[0].until("SIP/2.0 503")
	if s := get(r.text, "Retry-After"); s != "60" {
		t.Errorf("Retry-After %q", s)
	}
	if s := b.e.Status()[0]; s.Why != "LAN lost" {
		t.Errorf("%+v", s)
	}
	// The running call stays.
	c.request("INVITE", sdpText(3))
	want[call.Update](t, l)
	l.Send(call.Answer{Description: describe(t, 4)})
	b.tp[0].until("SIP/2.0 200")
	c.request("ACK", "")
	b.e.Refuse("teams", time.Time{}, "")
	b.invite(b.inbound(""), sdpText(1))
	b.leg()
}

// An emergency call is let in while the trunk's other calls are sent away.
func TestRefusedTrunkTakesEmergencyCalls(t *testing.T) {
	b := newBox(t, func(_ *box, o *Options) {
		o.Emergency = func(number string) bool { return number == "+493055510" }
	}).run()
	b.e.Refuse("teams", time.Now().Add(time.Minute), "LAN lost")
	b.invite(b.inbound(""), sdpText(1))
	b.leg()
}

// TestC74C75Reinvites: also what an offerless one of ours (C-70) and a forgotten
// dialog (C-78) come to.
func TestC74C75Reinvites(t *testing.T) {
	b := newBox(t).run()
	in := b.inbound("")
	c, l := b.answered(in, "X-MS-UserLocation: internal")
	// New headers move the profile; none leave it alone.
	c.request("INVITE", sdpText(3, "a=inactive"), "X-MS-UserLocation: external", "X-MS-MediaPath: a.example, b.example")
	u := want[call.Update](t, l)
	if u.Profile == nil || u.Profile.Realm != "wan" || !u.Hold || u.Teams == nil || len(u.Teams.MediaPath) != 2 {
		t.Errorf("%+v", u)
	}
	l.Send(call.Refuse{Cause: call.IncompatibleMedia})
	b.tp[0].until("SIP/2.0 488")
	c.request("INVITE", sdpText(4))
	if u := want[call.Update](t, l); u.Profile != nil || u.Hold {
		t.Errorf("%+v", u)
	}
	// A second one while the first is open, RFC 3261 §14.2.
	c.request("INVITE", sdpText(5))
	if r := b.tp[0].until("SIP/2.0 500"); get(r.text, "Retry-After") == "" {
		t.Error(r.text)
	}
	// Ours waits until theirs is done.
	l.Send(call.Update{Offer: describe(t, 10)})
	b.tp[0].none(50 * time.Millisecond)
	l.Send(call.Answer{Description: describe(t, 6)})
	ok := b.tp[0].expect("SIP/2.0 200")
	c.cseq-- // the ACK is for the INVITE before
	c.request("ACK", "")
	c.cseq++
	out := b.tp[0].expect("INVITE ")
	if !strings.Contains(bodyOf(out.text), "o=- 7 10 ") || get(out.text, "Contact") == "" {
		t.Error(out.text)
	}
	// Glare: theirs gets 491, ours too and comes again after a while.
	out.reply("100 Trying")
	c.request("INVITE", sdpText(7))
	b.tp[0].expect("SIP/2.0 491")
	out.reply("491 Request Pending")
	b.tp[0].expect("ACK ")
	again := b.tp[0].expect("INVITE ")
	if get(again.text, "CSeq") == get(out.text, "CSeq") || bodyOf(again.text) != bodyOf(out.text) {
		t.Error(again.text)
	}
	again.reply("200 OK", teamsContact+";q=1", sdpText(8))
	if ack := b.tp[0].expect("ACK "); get(ack.text, "CSeq") != strings.Replace(get(again.text, "CSeq"), "INVITE", "ACK", 1) {
		t.Error(ack.text)
	}
	if a := want[call.Answer](t, l); a.Description.Version != 8 {
		t.Errorf("%+v", a)
	}
	// Refused: the call stays.
	l.Send(call.Update{Offer: describe(t, 11)})
	b.tp[0].expect("INVITE ").reply("488 Not Acceptable Here")
	if r := want[call.Refuse](t, l); r.Cause.Status != 488 {
		t.Errorf("%+v", r)
	}
	b.tp[0].expect("ACK ")
	// C-70: never without an offer.
	l.Send(call.Update{})
	want[call.Refuse](t, l)
	// C-78: the peer has forgotten the call.
	l.Send(call.Update{Offer: describe(t, 12)})
	b.tp[0].expect("INVITE ").reply("481 Call/Transaction Does Not Exist")
	gone(t, l)
	b.tp[0].until("BYE ").reply("481 Call/Transaction Does Not Exist")
	_ = ok
}

func TestC49MethodsWeDoNotTake(t *testing.T) {
	b := newBox(t).run()
	c, l := b.answered(b.inbound(""))
	for _, m := range []string{"UPDATE", "PRACK", "REFER", "MESSAGE"} {
		c.request(m, "")
		if r := b.tp[0].expect("SIP/2.0 405"); get(r.text, "Allow") != "INVITE, ACK, CANCEL, BYE, OPTIONS, NOTIFY" {
			t.Error(r.text)
		}
	}
	c.request("FROBNICATE", "")
	b.tp[0].expect("SIP/2.0 501")
	c.request("NOTIFY", "")
	b.tp[0].expect("SIP/2.0 481")
	c.request("OPTIONS", "")
	b.tp[0].expect("SIP/2.0 200")
	c.request("BYE", "", "REQUIRE: 100rel")
	if r := b.tp[0].expect("SIP/2.0 420"); get(r.text, "Unsupported") != "100rel" {
		t.Error(r.text)
	}
	c.cseq-- // a request that was refused before it counted
	l.Send(call.Release{})
	gone(t, l)
	b.tp[0].expect("BYE ").reply("200 OK")
}

func TestC21LargeMessages(t *testing.T) {
	b := newBox(t).run()
	var lines []string
	for i := range 60 {
		lines = append(lines, fmt.Sprintf("a=x-unknown-%d:%s", i, strings.Repeat("x", 80)))
	}
	b.invite(b.inbound(""), sdpText(1, lines...), "X-LONG: "+strings.Repeat("y", 6000))
	l, s := b.leg()
	if s.Offer == nil {
		t.Error("no offer")
	}
	l.Send(call.Release{Cause: call.UserBusy})
	gone(t, l)
}

func TestC48SessionTimersAreObeyedNotRequired(t *testing.T) {
	b := newBox(t).run()
	c, l := b.answered(b.inbound(""), "SESSION-EXPIRES: 1800;refresher=uac", "SUPPORTED: timer")
	for i := range 3 {
		c.request("INVITE", sdpText(1))
		want[call.Update](t, l)
		l.Send(call.Answer{Description: describe(t, 2)})
		ok := b.tp[0].until("SIP/2.0 200")
		if get(ok.text, "Require") != "" {
			t.Errorf("refresh %d: %s", i, ok.text)
		}
		c.request("ACK", "")
	}
	l.Send(call.Release{})
	gone(t, l)
}

func TestForgottenReinviteIsAnswered(t *testing.T) {
	t.Parallel()
	b := newBox(t).run()
	c, l := b.answered(b.inbound(""))
	c.request("INVITE", sdpText(3))
	want[call.Update](t, l)
	b.tp[0].until("SIP/2.0 503")
	l.Send(call.Release{})
	gone(t, l)
}

func TestShutdownEndsCalls(t *testing.T) {
	b := newBox(t)
	b.run()
	_, l := b.answered(b.inbound(""))
	b.invite(b.inbound(""), sdpText(1))
	ringing, _ := b.leg()
	b.e.trunks[0].mu.Lock()
	n := len(b.e.trunks[0].all)
	b.e.trunks[0].mu.Unlock()
	if n != 2 {
		t.Fatalf("%d legs", n)
	}
	b.cancel()
	gone(t, l)
	gone(t, ringing)
	// Both callers hear of it, on two connections.
	for refused, ended := false, false; !refused || !ended; {
		g := b.tp[0].expect("")
		refused = refused || strings.HasPrefix(g.text, "SIP/2.0 503")
		ended = ended || strings.HasPrefix(g.text, "BYE ")
	}
}

// TestLegOverflow: a leg whose queue is full ends rather than grows.
func TestLegOverflowReleases(t *testing.T) {
	b := newBox(t).run()
	_, l := b.answered(b.inbound(""))
	block := make(chan struct{})
	l.(*leg).post(func() { <-block })
	for range 3 * maxInbox {
		l.Send(call.Progress{Ringing: true})
	}
	close(block)
	if r := gone(t, l); r.Cause.Q850 != 42 {
		t.Errorf("%+v", r)
	}
}

// TestPanicCostsOneCall: a bug in one leg leaves the others alone.
func TestPanicCostsOneCall(t *testing.T) {
	b := newBox(t).run()
	_, l := b.answered(b.inbound(""))
	c2, l2 := b.answered(b.inbound(""))
	l.(*leg).post(func() { panic("test") })
	gone(t, l)
	c2.request("BYE", "")
	b.tp[0].until("SIP/2.0 200")
	gone(t, l2)
	if n := b.e.Status()[0].Panics; n != 1 {
		t.Errorf("%d panics", n)
	}
}

// TestGlareLeavesTheTurnToThePeer: while we wait to repeat an offer that got
// 491, the peer's own is taken (RFC 3261 §14.1); ours follows, with a version of
// the description above all that were sent (RFC 3264 §8).
func TestGlareLeavesTheTurnToThePeer(t *testing.T) {
	b := newBox(t)
	b.e.times.t1 = 2 * time.Second
	b.run()
	c, l := b.answered(b.inbound(""))
	g := l.(*leg)
	g.post(func() { g.calling = &outgoing{} }) // who called waits longer: 8 s at this T1
	l.Send(call.Update{Offer: describe(t, 10)})
	out := b.tp[0].until("INVITE ")
	c.request("INVITE", sdpText(7))
	b.tp[0].expect("SIP/2.0 491")
	out.reply("491 Request Pending")
	b.tp[0].expect("ACK ")
	// The ACK is the transaction's: the leg may hear of the 491 a moment later,
	// until when it rightly refuses the peer's offer too.
	for range 1000 {
		c.request("INVITE", sdpText(8))
		if r := b.tp[0].expect("SIP/2.0 "); strings.HasPrefix(r.text, "SIP/2.0 100") {
			break
		}
	}
	want[call.Update](t, l)
	l.Send(call.Answer{Description: describe(t, 11)})
	ok := b.tp[0].until("SIP/2.0 200")
	if !strings.Contains(bodyOf(ok.text), "o=- 7 11 ") {
		t.Error(ok.text)
	}
	c.request("ACK", "")
	acknowledged(t, l)
	g.post(func() { g.repeat(g.reOut) }) // the wait is over
	again := b.tp[0].expect("INVITE ")
	if !strings.Contains(bodyOf(again.text), "o=- 7 12 ") {
		t.Error(again.text)
	}
	again.reply("200 OK", teamsContact, sdpText(9))
	b.tp[0].expect("ACK ")
	want[call.Answer](t, l)
	l.Send(call.Update{Offer: describe(t, 12)})
	if next := b.tp[0].expect("INVITE "); !strings.Contains(bodyOf(next.text), "o=- 7 13 ") {
		t.Error(next.text)
	}
}

// TestCancelledReinviteMakesWay: an offer of ours that waited for the peer's goes
// out when the peer takes its own back.
func TestCancelledReinviteMakesWay(t *testing.T) {
	b := newBox(t).run()
	c, l := b.answered(b.inbound(""))
	branch := c.request("INVITE", sdpText(3))
	b.tp[0].until("SIP/2.0 100")
	want[call.Update](t, l)
	l.Send(call.Update{Offer: describe(t, 10)})
	b.tp[0].none(50 * time.Millisecond)
	c.raw("CANCEL", branch, "")
	b.tp[0].until("INVITE ")
}

// TestReinviteThatIsNeverAnswered: a 100 stops Timer B, yet neither the call nor
// the transaction may wait for ever.
func TestReinviteThatIsNeverAnswered(t *testing.T) {
	t.Parallel()
	for name, hangUp := range map[string]bool{"in the call": false, "after BYE": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBox(t)
			b.e.times.t1 = 10 * time.Millisecond
			b.run()
			_, l := b.answered(b.inbound(""))
			l.Send(call.Update{Offer: describe(t, 10)})
			b.tp[0].until("INVITE ").reply("100 Trying")
			if hangUp {
				l.Send(call.Release{Cause: call.NormalClearing})
			}
			r := gone(t, l)
			if !hangUp && !r.Cause.Is(call.RecoveryOnTimer) {
				t.Errorf("%+v", r)
			}
			b.tp[0].until("BYE ").reply("200 OK")
			eventually(t, "no leg left", func() bool { return b.e.Status()[0].Legs == 0 })
		})
	}
}

// TestPanicTellsThePeer: whoever called hears that the call is over.
func TestPanicTellsThePeer(t *testing.T) {
	b := newBox(t).run()
	b.up()
	in := b.inbound("")
	b.invite(in, sdpText(1))
	ringing, _ := b.leg()
	ringing.(*leg).post(func() { panic("test") })
	b.tp[0].until("SIP/2.0 503")
	gone(t, ringing)
	_, l := b.answered(in)
	l.(*leg).post(func() { panic("test") })
	gone(t, l)
	b.tp[0].until("BYE ").reply("200 OK")
}

// TestRequestToALegThatEnds: what reaches a leg too late, or is lost in a queue
// that overflows, is answered all the same and leaves no transaction.
func TestRequestToALegThatEnds(t *testing.T) {
	b := newBox(t).run()
	c, l := b.answered(b.inbound(""))
	g := l.(*leg)
	blocked, block := make(chan struct{}), make(chan struct{})
	g.post(func() { close(blocked); <-block })
	<-blocked
	for g.post(func() {}) {
	}
	c.request("OPTIONS", "")
	b.tp[0].expect("SIP/2.0 500")
	close(block)
	gone(t, l)
	b.tp[0].until("BYE ").reply("200 OK")
	<-g.parted
	b.e.trunks[0].enter(g, legKey(c.id, c.their)) // it was found just before
	c.request("BYE", "")
	b.tp[0].until("SIP/2.0 481")
	eventually(t, "no transaction left", func() bool {
		tr := b.e.trunks[0]
		tr.mu.Lock()
		defer tr.mu.Unlock()
		return len(tr.servers) <= 1 // the INVITE's, until Timer L
	})
}

// TestCallerWhoseConnectionIsLost: a CANCEL still finds the INVITE although a 180
// could not be sent; an answer that cannot be sent ends the call at once instead
// of leaving the called party with silence until the ACK is given up.
func TestCallerWhoseConnectionIsLost(t *testing.T) {
	b := newBox(t).run()
	b.up()
	lose := func(in got, l call.Leg) {
		in.c.Close()
		eventually(t, "connection lost", func() bool {
			dead := make(chan bool)
			l.(*leg).post(func() { dead <- !l.(*leg).invite.l.alive() })
			return <-dead
		})
		l.Send(call.Progress{Ringing: true})
	}
	in := b.inbound("")
	b.invite(in, sdpText(1))
	l, _ := b.leg()
	lose(in, l)
	l.Send(call.Answer{Description: describe(t, 2)})
	if r := gone(t, l); !r.Cause.Is(call.NetworkOutOfOrder) {
		t.Errorf("%+v", r)
	}

	in = b.inbound("")
	c := b.invite(in, sdpText(1))
	invite := b.tp[0].until("SIP/2.0 100")
	for get(invite.text, "Call-ID") != c.id {
		invite = b.tp[0].until("SIP/2.0 100")
	}
	l, _ = b.leg()
	lose(in, l)
	c.g = b.inbound("")
	_, branch, _ := strings.Cut(get(invite.text, "Via"), "branch=")
	branch, _, _ = strings.Cut(branch, ";")
	c.raw("CANCEL", branch, "")
	b.tp[0].until("SIP/2.0 200")
	if r := gone(t, l); !r.Cause.Is(call.OriginatorCancelled) {
		t.Errorf("%+v", r)
	}
}

// TestLoopsEnd: a call that comes round through others loses a hop each time
// (RFC 3261 §8.1.1.6, RFC 5393): without that it would take every leg we have.
func TestLoopsEnd(t *testing.T) {
	b := newBox(t).run()
	b.up()
	in := b.inbound("")
	b.invite(in, sdpText(1))
	_, s := b.leg()
	if s.MaxForwards != 68 {
		t.Errorf("Max-Forwards %d", s.MaxForwards)
	}
	for received, sent := range map[int]string{0: "70", 68: "67", 2: "1", 200: "70"} {
		l, err := b.e.Dial(t.Context(), call.Target{Kind: call.ToTrunk, Name: "teams", Number: "+4915550123"},
			call.Setup{Offer: describe(t, 1), MaxForwards: received})
		if err != nil {
			t.Fatal(err)
		}
		if got := get(b.tp[0].until("INVITE ").text, "Max-Forwards"); got != sent {
			t.Errorf("%d becomes %s, want %s", received, got, sent)
		}
		l.Send(call.Release{})
		gone(t, l)
	}
	l, err := b.e.Dial(t.Context(), call.Target{Kind: call.ToTrunk, Name: "teams", Number: "+4915550123"},
		call.Setup{Offer: describe(t, 1), MaxForwards: 1})
	if err != nil {
		t.Fatal(err)
	}
	if r := gone(t, l); r.Cause.Status != 483 {
		t.Errorf("%+v", r)
	}
}
