package sip

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"localloop/internal/call"
)

// Its end is a busy that carriers take for congestion, C-60.
func TestC50C51C67C68OutgoingInvite(t *testing.T) {
	b := newBox(t).run()
	l, inv := b.dialled()
	line, _, _ := strings.Cut(inv.text, "\r\n")
	if line != "INVITE sip:+4915550123@"+proxyName+";user=phone SIP/2.0" {
		t.Error(line)
	}
	self := fmt.Sprintf("%s:%d;transport=tls>", teamsFQDN, b.addr("teams").Port())
	if get(inv.text, "Contact") != "<sip:+493055501@"+self || count(inv.text, "Contact") != 1 {
		t.Error(get(inv.text, "Contact"))
	}
	if f := get(inv.text, "From"); !strings.HasPrefix(f, `"Front \"gate\"" <sip:+493055501@`+teamsFQDN+`;user=phone>;tag=`) {
		t.Error(f)
	}
	if !strings.HasPrefix(bodyOf(inv.text), "v=0\r\no=- 7 1 ") || get(inv.text, "Content-Type") != "application/sdp" ||
		strings.Contains(inv.text, "100rel") || get(inv.text, "Require") != "" || get(inv.text, "X-MS-SBC") == "" || get(inv.text, "Max-Forwards") != "70" {
		t.Error(inv.text)
	}
	inv.reply("100 Trying")
	inv.reply("486 Busy Here", "to-tag b", `REASON: Q.850;cause=34;text="guid;busy"`)
	b.tp[0].expect("ACK ")
	if r := gone(t, l); r.Cause.Q850 != 17 || r.Cause.Status != 486 { // C-60
		t.Errorf("%+v", r)
	}
}

func TestC51NumbersThatMicrosoftCannotFind(t *testing.T) {
	b := newBox(t).run()
	for _, n := range []string{"0155", "112", "", "+49abc", "+49155501230123456"} {
		if r := gone(t, b.dial("teams", n)); r.Cause.Status != 484 {
			t.Errorf("%q: %+v", n, r)
		}
	}
	if _, err := b.e.Dial(t.Context(), call.Target{Name: "nobody"}, call.Setup{}); err == nil {
		t.Error("unknown trunk")
	}
	if _, err := b.e.Dial(t.Context(), call.Target{Name: "teams", Number: "+4915550123"}, call.Setup{}); err == nil {
		t.Error("C-50: no offer")
	}
}

// TestWithheldNumberIsAssertedToMicrosoftOnly is C-43 for calls of ours.
func TestWithheldNumberIsAssertedToMicrosoftOnly(t *testing.T) {
	b := newBox(t).run()
	_, err := b.e.Dial(t.Context(), call.Target{Name: "teams", Number: "+4915550123"},
		call.Setup{Calling: call.Party{Number: "+493055501", Name: "secret", Private: true}, Offer: describe(t, 1)})
	if err != nil {
		t.Fatal(err)
	}
	inv := b.tp[0].expect("INVITE ")
	if !strings.HasPrefix(get(inv.text, "From"), `"Anonymous" <sip:anonymous@anonymous.invalid>;tag=`) || get(inv.text, "Privacy") != "id" ||
		!strings.Contains(get(inv.text, "P-Asserted-Identity"), "+493055501@") || strings.Contains(inv.text, "secret") || strings.Contains(get(inv.text, "Contact"), "@") {
		t.Error(inv.text)
	}
	tr := b.e.trunks[0]
	plain := &trunk{host: "h"}
	if from, _, extra := plain.present(call.Party{Number: "+493055501", Private: true}, "carrier.example"); strings.Contains(from+fmt.Sprint(extra), "493055501") {
		t.Errorf("%s %v", from, extra)
	}
	for _, number := range []string{"", "100", "front gate", "+1\r\nX: y"} {
		if from, user, extra := tr.present(call.Party{Number: number}, teamsFQDN); !strings.Contains(from, "anonymous") || user != "" || len(extra) != 1 {
			t.Errorf("%q: %s %s %v", number, from, user, extra)
		}
	}
	if from, _, _ := plain.present(call.Party{Number: "+49\r\n5", Name: "a\r\nX: y"}, "c"); strings.ContainsAny(from, "\r\n") {
		t.Errorf("%q", from)
	}
}

func TestC53C56C63C65Forks(t *testing.T) {
	b := newBox(t).run()
	l, inv := b.dialled()
	inv.reply("100 Trying")
	inv.reply("180 Ringing", "to-tag a", teamsContact)
	inv.reply("180 Ringing", "to-tag b", teamsContact)
	inv.reply("180 Ringing", "to-tag b", teamsContact) // repeated: no news
	inv.reply("183 Session Progress", "to-tag b", teamsContact, sdpText(20))
	inv.reply("200 OK", "to-tag c", teamsContact, sdpText(30), "X-MS-UserLocation: external", "X-MS-MediaPath: "+teamsFQDN)
	for range 2 {
		if p := want[call.Progress](t, l); !p.Ringing || p.Answer != nil {
			t.Errorf("%+v", p)
		}
	}
	if p := want[call.Progress](t, l); p.Ringing || p.Answer == nil || p.Answer.Version != 20 {
		t.Errorf("%+v", p)
	}
	a := want[call.Answer](t, l)
	if a.Description == nil || a.Description.Version != 30 || a.Teams == nil || a.Teams.UserLocation != "external" {
		t.Errorf("%+v", a)
	}
	ack := b.tp[0].expect("ACK ")
	if tagOf(get(ack.text, "To")) != "c" || get(ack.text, "CSeq") != strings.Replace(get(inv.text, "CSeq"), "INVITE", "ACK", 1) ||
		get(ack.text, "Via") == get(inv.text, "Via") || !strings.HasPrefix(ack.text, "ACK sip:api-du-a-euwe.pstnhub.microsoft.com:443;x-i=6d0f1111-2222;x-c=9c3e0a/s/1/77ab SIP/2.0") {
		t.Error(ack.text)
	}
	// Repeated: the same ACK again.
	inv.reply("200 OK", "to-tag c", teamsContact, sdpText(30))
	if again := b.tp[0].expect("ACK "); again.text != ack.text {
		t.Error(again.text)
	}
	// A late one of another fork: acknowledged and ended; the call stays.
	inv.reply("200 OK", "to-tag d", teamsContact, sdpText(40))
	if x := b.tp[0].expect("ACK "); tagOf(get(x.text, "To")) != "d" {
		t.Error(x.text)
	}
	bye := b.tp[0].expect("BYE ")
	if tagOf(get(bye.text, "To")) != "d" {
		t.Error(bye.text)
	}
	bye.reply("200 OK")
	l.Send(call.Release{Cause: call.NormalClearing})
	bye = b.tp[0].expect("BYE ")
	if tagOf(get(bye.text, "To")) != "c" {
		t.Error(bye.text)
	}
	bye.reply("200 OK")
	gone(t, l)
}

func TestC57AnswerWithoutRinging(t *testing.T) {
	b := newBox(t).run()
	l, inv := b.dialled()
	inv.reply("200 OK", "to-tag bot", teamsContact, sdpText(2))
	want[call.Answer](t, l)
	b.tp[0].expect("ACK ")
	// A peer's BYE and re-INVITE find this dialog on a connection of theirs.
	c := &caller{g: b.inbound("127.0.0.7"), id: get(inv.text, "Call-ID"), tag: "bot", their: tagOf(get(inv.text, "From")), cseq: 5,
		target: "sip:+493055501@" + teamsFQDN, via: "SIP/2.0/TLS 52.114.0.99:5061", contact: teamsContact, from: "<sip:+4915550123@" + proxyName + ">", to: "<sip:+493055501@" + teamsFQDN + ">"}
	c.request("INVITE", sdpText(3))
	want[call.Update](t, l)
	l.Send(call.Answer{Description: describe(t, 4)})
	b.tp[0].until("SIP/2.0 200")
	c.request("ACK", "")
	c.tag = "other" // same Call-ID, another dialog
	c.request("BYE", "")
	b.tp[0].until("SIP/2.0 481")
	c.tag = "bot"
	c.request("BYE", "")
	b.tp[0].until("SIP/2.0 200")
	gone(t, l)
}

func TestC58Retry503OnTheNextName(t *testing.T) {
	b := newBox(t).run()
	l, inv := b.dialled()
	before := func() int { b.tp[0].mu.Lock(); defer b.tp[0].mu.Unlock(); return b.tp[0].opened }
	n := before()
	inv.reply("503 Service Unavailable", "to-tag x", "RETRY-AFTER: 1")
	b.tp[0].expect("ACK ")
	second := b.tp[1].expect("INVITE sip:+4915550123@sip2.pstnhub.microsoft.com;user=phone ")
	if get(second.text, "Call-ID") == get(inv.text, "Call-ID") || get(second.text, "Via") == get(inv.text, "Via") {
		t.Error("same Call-ID or branch")
	}
	eventually(t, "the connection was closed and is opened anew for OPTIONS", func() bool { return before() > n })
	second.reply("503 Service Unavailable", "to-tag x")
	third := b.tp[2].expect("INVITE ")
	third.reply("503 Service Unavailable", "to-tag x")
	if r := gone(t, l); r.Cause.Status != 503 {
		t.Errorf("%+v", r)
	}
}

func TestC59C61FinalIsFinal(t *testing.T) {
	b := newBox(t).run()
	for status, want := range map[string]call.Cause{
		"603 Decline": call.CallRejected, "404 Not Found": call.UnallocatedNumber, "480 Temporarily Unavailable": {Q850: 18, Status: 480},
		"403 Forbidden": call.Forbidden, "500 Server Internal Error": {Q850: 41, Status: 500}, "302 Moved": {Q850: 23, Status: 480},
		"600 Busy Everywhere": call.UserBusy, "407 Proxy Authentication Required": call.Forbidden,
	} {
		l, inv := b.dialled()
		inv.reply(status, "to-tag x")
		if r := gone(t, l); !r.Cause.Is(want) {
			t.Errorf("%s: %+v, want %+v", status, r.Cause, want)
		}
		if want.Is(call.CallRejected) && want.TryNext() {
			t.Error("603 would be tried again")
		}
		b.tp[0].expect("ACK ")
	}
	for _, s := range b.tp[1:] {
		s.none(20 * time.Millisecond)
	}
}

func TestFailoverWhenNothingIsHeard(t *testing.T) {
	b := newBox(t)
	b.e.times.first = 300 * time.Millisecond
	b.run()
	l, inv := b.dialled()
	second := b.tp[1].expect("INVITE ") // no provisional response from the first
	second.reply("180 Ringing", "to-tag s", teamsContact)
	want[call.Progress](t, l)
	// The first wakes up: it is cancelled, and if it answers all the same, ended.
	inv.reply("180 Ringing", "to-tag f", teamsContact)
	cancel := b.tp[0].expect("CANCEL ")
	if get(cancel.text, "Via") != get(inv.text, "Via") {
		t.Error(cancel.text)
	}
	cancel.reply("200 OK")
	inv.reply("200 OK", "to-tag f", teamsContact, sdpText(5))
	b.tp[0].expect("ACK ")
	b.tp[0].expect("BYE ").reply("200 OK")
	second.reply("200 OK", "to-tag s", teamsContact, sdpText(6))
	if a := want[call.Answer](t, l); a.Description.Version != 6 {
		t.Errorf("%+v", a)
	}
	b.tp[1].expect("ACK ")
}

func TestFailoverWhenNobodyListens(t *testing.T) {
	b := newBox(t, func(b *box, o *Options) { o.Teams[0].Proxies[0] = proxyName + ":1" }).run()
	b.dial("teams", "+4915550123")
	b.tp[1].expect("INVITE ")
}

func TestAllProxiesDead(t *testing.T) {
	b := newBox(t, func(b *box, o *Options) {
		for i, n := range proxyNames {
			o.Teams[0].Proxies[i] = n + ":1"
		}
	}).run()
	if r := gone(t, b.dial("teams", "+4915550123")); r.Cause.Q850 != 38 || !r.Cause.TryNext() || !strings.Contains(r.Reason, "not reached") {
		t.Errorf("%+v", r)
	}
	eventually(t, "why", func() bool { return b.e.Status()[0].Peers[0].Why != "" })
	if b.e.Healthy("teams") || b.e.Healthy("nobody") {
		t.Error("healthy")
	}
}

func TestConnectionLostWhileRinging(t *testing.T) {
	b := newBox(t).run()
	l, inv := b.dialled()
	inv.reply("180 Ringing", "to-tag r", teamsContact)
	want[call.Progress](t, l)
	_ = inv.c.Close()
	if r := gone(t, l); r.Cause.Q850 != 41 {
		t.Errorf("%+v", r)
	}
	b.tp[1].none(20 * time.Millisecond)
}

// TestC15ConnectionClosedDuringTheCall: the call goes on, on another connection.
func TestC15ConnectionClosedDuringTheCall(t *testing.T) {
	b := newBox(t).run()
	l, inv := b.dialled()
	inv.reply("200 OK", "to-tag r", teamsContact, sdpText(2))
	want[call.Answer](t, l)
	b.tp[0].expect("ACK ")
	_ = inv.c.Close()
	eventually(t, "noticed", func() bool {
		p := b.e.trunks[0].peers[0]
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.current == nil || !p.current.alive() || p.current.stream.LocalAddr().String() != inv.c.RemoteAddr().String()
	})
	l.Send(call.Release{Cause: call.NormalClearing})
	bye := b.tp[0].expect("BYE ")
	if bye.c == inv.c {
		t.Error("on the closed connection")
	}
	bye.reply("200 OK")
	gone(t, l)
}

func TestC62Cancel(t *testing.T) {
	for _, c := range []struct {
		cause  call.Cause
		reason string
	}{
		{call.OriginatorCancelled, "Q.850;cause=16"}, {call.AnsweredElsewhere, `SIP;cause=200;text="Call completed elsewhere"`}, {call.NoAnswer, "Q.850;cause=19"},
	} {
		b := newBox(t).run()
		l, inv := b.dialled()
		l.Send(call.Release{Cause: c.cause}) // before any response: nothing may go out yet
		if r := gone(t, l); !r.Cause.Is(c.cause) {
			t.Errorf("%+v", r)
		}
		b.tp[0].none(30 * time.Millisecond)
		inv.reply("100 Trying")
		cancel := b.tp[0].expect("CANCEL ")
		if get(cancel.text, "Via") != get(inv.text, "Via") || get(cancel.text, "Reason") != c.reason || get(cancel.text, "Call-ID") != get(inv.text, "Call-ID") ||
			get(cancel.text, "CSeq") != strings.Replace(get(inv.text, "CSeq"), "INVITE", "CANCEL", 1) || get(cancel.text, "From") != get(inv.text, "From") {
			t.Error(cancel.text)
		}
		cancel.reply("200 OK")
		inv.reply("487 Request Terminated", "to-tag q")
		b.tp[0].expect("ACK ")
	}
}

func TestCancelCrossesAnswer(t *testing.T) {
	b := newBox(t).run()
	l, inv := b.dialled()
	inv.reply("180 Ringing", "to-tag r", teamsContact)
	want[call.Progress](t, l)
	l.Send(call.Release{Cause: call.OriginatorCancelled})
	gone(t, l)
	b.tp[0].expect("CANCEL ").reply("200 OK")
	inv.reply("200 OK", "to-tag r", teamsContact, sdpText(3))
	b.tp[0].expect("ACK ")
	b.tp[0].expect("BYE ").reply("200 OK")
}

func TestUnusableAnswers(t *testing.T) {
	b := newBox(t).run()
	for _, body := range []string{"X-NONE: 1", "v=0\r\nnonsense"} {
		l, inv := b.dialled()
		inv.reply("200 OK", "to-tag r", teamsContact, body)
		b.tp[0].expect("ACK ")
		b.tp[0].expect("BYE ").reply("200 OK")
		if r := gone(t, l); !r.Cause.Is(call.IncompatibleMedia) {
			t.Errorf("%+v", r)
		}
	}
	// A description that came early and is not repeated will do.
	l, inv := b.dialled()
	inv.reply("183 Session Progress", "to-tag r", teamsContact, sdpText(4))
	inv.reply("200 OK", "to-tag r", teamsContact)
	want[call.Progress](t, l)
	if a := want[call.Answer](t, l); a.Description != nil {
		t.Errorf("%+v", a)
	}
}

// TestInviteIsNotEndedByTimerB: a response that overtakes our own bookkeeping
// must not leave the timer of the first response running (a trap of sipgo).
func TestInviteRingsLongerThanTimerB(t *testing.T) {
	t.Parallel()
	b := newBox(t).run()
	l, inv := b.dialled()
	inv.reply("180 Ringing", "to-tag r", teamsContact)
	want[call.Progress](t, l)
	b.tp[0].none(64 * b.e.times.t1)
	inv.reply("200 OK", "to-tag r", teamsContact, sdpText(3))
	want[call.Answer](t, l)
	b.tp[0].expect("ACK ")
	// Also when dozens of 183 came before, as from a slow exchange with PRACK.
	l, inv = b.dialled()
	for i := range 40 {
		inv.reply("183 Session Progress", "to-tag r", teamsContact, sdpText(100+i))
		want[call.Progress](t, l)
	}
	inv.reply("200 OK", "to-tag r", teamsContact, sdpText(3))
	want[call.Answer](t, l)
}

func TestDialBeforeRun(t *testing.T) {
	b := newBox(t)
	if _, err := b.e.Dial(context.Background(), call.Target{Name: "teams", Number: "+4915550123"}, call.Setup{Offer: describe(t, 1)}); err == nil {
		t.Error("dialled without sockets")
	}
}

// The offer guessed that the user is in the building; the 200 knows (C-133, C-135).
func TestAnswerTellsWhereTheUserIs(t *testing.T) {
	for _, c := range []struct{ header, realm string }{
		{"X-MS-UserLocation: external", "wan"}, {"X-MS-UserLocation: Internal", "lan"}, {"X-NONE: 1", "wan"},
	} {
		b := newBox(t).run()
		l, inv := b.dialled()
		inv.reply("200 OK", "to-tag a", teamsContact, c.header, sdpText(2))
		a := want[call.Answer](t, l)
		b.tp[0].expect("ACK ")
		if a.Profile == nil || a.Profile.Realm != c.realm {
			t.Errorf("%s: profile %+v, want realm %q", c.header, a.Profile, c.realm)
		}
	}
}

// TestReleaseDoesNotWaitForAConnection: the owner of a call hears of its end at
// once, however long the way to the peer takes to open; the BYE follows.
func TestReleaseDoesNotWaitForAConnection(t *testing.T) {
	b := newBox(t)
	b.e.times.connect = liveness
	b.run()
	_, l := b.answered(b.inbound(""))
	acknowledged(t, l)
	// Nobody gets a connection: all are being opened, and the old ones are gone.
	for _, p := range b.e.trunks[0].peers {
		p.opening <- struct{}{}
		if f, ok := p.standing(); ok {
			f.close()
		}
	}
	l.Send(call.Update{Offer: describe(t, 10)})
	l.Send(call.Release{Cause: call.NormalClearing})
	gone(t, l)
	for _, p := range b.e.trunks[0].peers {
		<-p.opening
	}
	// In the order in which they were wanted.
	b.tp[0].until("INVITE ").reply("487 Request Terminated")
	b.tp[0].until("BYE ").reply("200 OK")
}
