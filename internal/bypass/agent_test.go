package bypass

import (
	"bytes"
	"encoding/binary"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pion/stun/v4" // not the version that the product uses
	"go.uber.org/goleak"

	"localloop/internal/sdp"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	public  = netip.MustParseAddrPort("198.51.100.20:20120")
	private = netip.MustParseAddrPort("192.168.1.5:20120")
	host    = netip.MustParseAddrPort("192.168.1.77:50012")
	srflx   = netip.MustParseAddrPort("203.0.113.9:50012")
	relay   = netip.MustParseAddrPort("52.115.10.4:51806")
	relayV6 = netip.MustParseAddrPort("52.115.10.4:3479")
)

// The three priorities of Microsoft's samples (docs/teams.md, ICE and media bypass).
const (
	hostPriority  = 2130706431
	srflxPriority = 1694498815
	relayPriority = 184547839
)

// wire records what an Agent sends and which pairs it selects.
type wire struct {
	mu       sync.Mutex
	sent     []sentDatagram
	selected []Pair
}

type sentDatagram struct {
	b  []byte
	to netip.AddrPort
}

func (w *wire) send(b []byte, to netip.AddrPort) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sent = append(w.sent, sentDatagram{bytes.Clone(b), to})
}

func (w *wire) choose(p Pair) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.selected = append(w.selected, p)
}

func (w *wire) take() []sentDatagram {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.sent
	w.sent = nil
	return s
}

func (w *wire) pair() Pair {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.selected) == 0 {
		return Pair{}
	}
	return w.selected[len(w.selected)-1]
}

func newAgent(t testing.TB) (*Agent, *wire) {
	t.Helper()
	w := &wire{}
	a, err := New(Options{Candidate: public, Local: private, Send: w.send, Selected: w.choose})
	if err != nil {
		t.Fatal(err)
	}
	return a, w
}

// closeNow ends an agent inside a synctest bubble.
func closeNow(t testing.TB, a *Agent) {
	t.Helper()
	if err := a.Close(); err != nil {
		t.Error(err)
	}
}

// request builds a check as a full controlling agent sends it, with what extra
// says. A setter of nil is left out.
func request(a *Agent, theirs string, priority uint32, extra ...stun.Setter) []byte {
	set := []stun.Setter{stun.TransactionID, stun.BindingRequest, stun.NewUsername(a.ufrag + ":" + theirs), number(stun.AttrPriority, priority)}
	set = append(set, extra...)
	return stun.MustBuild(append(set, stun.NewShortTermIntegrity(a.pwd), stun.Fingerprint)...).Raw
}

func number(t stun.AttrType, v uint32) stun.Setter {
	return stun.RawAttribute{Type: t, Value: binary.BigEndian.AppendUint32(nil, v)}
}

func flag(t stun.AttrType) stun.Setter { return stun.RawAttribute{Type: t} }

var (
	controlling  = stun.RawAttribute{Type: stun.AttrICEControlling, Value: []byte("tiebreak")}
	controlled   = stun.RawAttribute{Type: stun.AttrICEControlled, Value: []byte("tiebreak")}
	useCandidate = flag(stun.AttrUseCandidate)
	// implementationVersion and candidateIdentifier are private attributes of
	// Microsoft, [MS-ICE2] §2.2; both may be ignored.
	implementationVersion = number(0x8070, 3)
	candidateIdentifier   = stun.RawAttribute{Type: 0x8054, Value: []byte("1\x00\x00\x00")}
)

// answerTo decodes the one response to a request and proves it complete.
func answerTo(t *testing.T, a *Agent, w *wire, req []byte, from netip.AddrPort) *stun.Message {
	t.Helper()
	sent := w.take()
	if len(sent) != 1 {
		t.Fatalf("%d responses to %v, want one", len(sent), from)
	}
	if sent[0].to != from {
		t.Errorf("response went to %v, want %v", sent[0].to, from)
	}
	m := &stun.Message{Raw: sent[0].b}
	if err := m.Decode(); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(m.TransactionID[:], req[8:20]) {
		t.Error("response has another transaction ID")
	}
	if err := stun.NewShortTermIntegrity(a.pwd).Check(m); err != nil {
		t.Errorf("MESSAGE-INTEGRITY: %v", err)
	}
	if err := stun.Fingerprint.Check(m); err != nil {
		t.Errorf("FINGERPRINT: %v", err)
	}
	return m
}

// check sends one check and wants success with the reflected address.
func check(t *testing.T, a *Agent, w *wire, theirs string, from netip.AddrPort, priority uint32, extra ...stun.Setter) {
	t.Helper()
	req := request(a, theirs, priority, append([]stun.Setter{controlling}, extra...)...)
	a.Handle(req, from)
	m := answerTo(t, a, w, req, from)
	if m.Type != stun.BindingSuccess {
		t.Fatalf("%v answered with %v", from, m)
	}
	var x stun.XORMappedAddress
	if err := x.GetFrom(m); err != nil || !x.IP.Equal(net.IP(from.Addr().AsSlice())) || x.Port != int(from.Port()) {
		t.Errorf("XOR-MAPPED-ADDRESS %v (%v), want %v", x, err, from)
	}
	synctest.Wait()
}

func noAnswer(t *testing.T, w *wire, what string) {
	t.Helper()
	if s := w.take(); len(s) != 0 {
		t.Errorf("%s: %d responses, want silence", what, len(s))
	}
}

func wantPair(t *testing.T, w *wire, remote netip.AddrPort, nominated bool, ufrag string) {
	t.Helper()
	synctest.Wait()
	p := w.pair()
	if p.Remote != remote || p.Nominated != nominated || p.RemoteUfrag != ufrag || p.Remote.IsValid() && p.Local != private {
		t.Errorf("pair in use is %+v, want remote %v nominated %v of %q", p, remote, nominated, ufrag)
	}
}

// teamsICE is a description in the manner of Microsoft's samples, made up, with
// the lines that a lite agent must pass over.
func teamsICE(ufrag string) *sdp.ICE {
	c := func(f string, component int, transport string, priority uint32, addr netip.AddrPort, kind string) sdp.Candidate {
		return sdp.Candidate{Foundation: f, Component: component, Transport: transport, Priority: priority, Addr: addr, Type: kind}
	}
	rtcp := func(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr(), a.Port()+1) }
	return &sdp.ICE{Ufrag: ufrag, Pwd: "2G9Th5vVgCZ2C5bhpfWeePDQ", Candidates: []sdp.Candidate{
		c("1", 1, "UDP", hostPriority, host, "host"),
		c("1", 2, "UDP", 2130705918, rtcp(host), "host"),
		c("2", 1, "UDP", srflxPriority, srflx, "srflx"),
		c("3", 1, "UDP", relayPriority, relay, "relay"),
		c("4", 1, "TCP-ACT", 1684798975, host, "host"),
		c("5", 1, "UDP", 2130705000, netip.MustParseAddrPort("[2001:db8::1]:50012"), "host"),
	}}
}

func TestC107DescriptionIsLiteWithOneIPv4HostCandidate(t *testing.T) {
	a, _ := newAgent(t)
	defer closeNow(t, a)
	got := a.ICE()
	if !got.Lite || len(got.Candidates) != 1 {
		t.Fatalf("ICE() = lite %v, %d candidates", got.Lite, len(got.Candidates))
	}
	want := sdp.Candidate{Foundation: "1", Component: 1, Transport: "UDP", Priority: 2130706431, Addr: public, Type: "host"}
	if got.Candidates[0] != want {
		t.Errorf("candidate %+v, want %+v", got.Candidates[0], want)
	}
	if len(got.Ufrag) < 4 || len(got.Pwd) < 22 { // RFC 8839 §5.4
		t.Errorf("credentials of %d and %d characters", len(got.Ufrag), len(got.Pwd))
	}
	for _, r := range got.Ufrag + got.Pwd {
		if !strings.ContainsRune("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/", r) {
			t.Errorf("%q is no ice-char", r)
		}
	}
	b, _ := newAgent(t)
	defer closeNow(t, b)
	if b.ICE().Ufrag == got.Ufrag || b.ICE().Pwd == got.Pwd {
		t.Error("two agents share credentials")
	}
	if a.Ufrag() != got.Ufrag {
		t.Error("Ufrag differs from the description")
	}
}

func TestNewRefusesWhatCannotWork(t *testing.T) {
	send := func([]byte, netip.AddrPort) {}
	for name, o := range map[string]Options{
		"no Send":      {Candidate: public},
		"no candidate": {Send: send},
		"IPv6":         {Send: send, Candidate: netip.MustParseAddrPort("[2001:db8::1]:20000")},
		"unspecified":  {Send: send, Candidate: netip.MustParseAddrPort("0.0.0.0:20000")},
		"no port":      {Send: send, Candidate: netip.MustParseAddrPort("198.51.100.20:0")},
		"no entropy":   {Send: send, Candidate: public, Rand: strings.NewReader("short")},
	} {
		if _, err := New(o); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestC109ThreeClientsAtOnceAreAnsweredInFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, w := newAgent(t)
		defer closeNow(t, a)
		for fork := range 3 {
			theirs := string(rune('A'+fork)) + "frag"
			for i, from := range []netip.AddrPort{host, srflx, relay} {
				from = netip.AddrPortFrom(from.Addr(), from.Port()+uint16(2*fork))
				check(t, a, w, theirs, from, uint32(1000-i), implementationVersion, candidateIdentifier)
				if !a.Admit(from) {
					t.Errorf("voice from %v is not admitted", from)
				}
				if ufrag, ok := a.Fork(from); !ok || ufrag != theirs {
					t.Errorf("%v belongs to fork %q, want %q", from, ufrag, theirs)
				}
			}
		}
		if s := a.Stats(); s.Answered != 9 || len(s.Forks) != 3 || s.Forks[0].State != "checking" {
			t.Errorf("stats %+v", s)
		}
	})
}

func TestC110UnknownAttributes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, w := newAgent(t)
		defer closeNow(t, a)
		check(t, a, w, "fork", host, 1, stun.RawAttribute{Type: 0xC057, Value: []byte("abc")}) // odd length too

		req := request(a, "fork", 1, controlling, number(0x7AAA, 1), number(0x0031, 2))
		a.Handle(req, srflx)
		m := answerTo(t, a, w, req, srflx)
		var code stun.ErrorCodeAttribute
		if err := code.GetFrom(m); err != nil || m.Type != stun.BindingError || code.Code != stun.CodeUnknownAttribute {
			t.Fatalf("answered %v %v %v, want 420", m, code, err)
		}
		// RFC 5389 §15.9: a list of 16-bit types.
		if list, err := m.Get(stun.AttrUnknownAttributes); err != nil || !bytes.Equal(list, []byte{0x7A, 0xAA, 0x00, 0x31}) {
			t.Errorf("UNKNOWN-ATTRIBUTES % x, %v", list, err)
		}
		if a.Admit(srflx) {
			t.Error("a refused check admits voice")
		}
		// The same without the password is not worth an answer.
		forged := request(&Agent{ufrag: a.ufrag, pwd: "wrong"}, "fork", 1, number(0x7AAA, 1))
		a.Handle(forged, srflx)
		noAnswer(t, w, "unknown attribute, wrong password")
	})
}

// TestC111BadChecksAreSilent shows each bad datagram to a session that runs and
// wants that session to stay as it was.
func TestC111BadChecksAreSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, w := newAgent(t)
		defer closeNow(t, a)
		check(t, a, w, "fork", host, hostPriority, useCandidate)
		wantPair(t, w, host, true, "fork")
		lastCheck, pairs := a.LastCheck(), len(w.selected)
		time.Sleep(time.Second) // virtual: a refreshed LastCheck would differ

		good := request(a, "fork", relayPriority, controlling, useCandidate)
		mutate := func(f func(b []byte) []byte) []byte { return f(bytes.Clone(good)) }
		badPassword := &Agent{ufrag: a.ufrag, pwd: "aNWGmNgrU8N0MXN1r3ZPgypi"}
		user := stun.NewUsername(a.ufrag + ":fork")
		key := stun.NewShortTermIntegrity(a.pwd)
		late := stun.MustBuild(stun.TransactionID, stun.BindingRequest, user, key) // USE-CANDIDATE and PRIORITY behind the signature
		late.Add(stun.AttrUseCandidate, nil)
		for name, bad := range map[string][]byte{
			"wrong password":       request(badPassword, "fork", 1, useCandidate),
			"no integrity":         stun.MustBuild(stun.TransactionID, stun.BindingRequest, user, stun.Fingerprint).Raw,
			"no username":          stun.MustBuild(stun.TransactionID, stun.BindingRequest, key, stun.Fingerprint).Raw,
			"other ufrag":          stun.MustBuild(stun.TransactionID, stun.BindingRequest, stun.NewUsername("else:fork"), key, stun.Fingerprint).Raw,
			"no colon":             stun.MustBuild(stun.TransactionID, stun.BindingRequest, stun.NewUsername(a.ufrag), key, stun.Fingerprint).Raw,
			"control in ufrag":     stun.MustBuild(stun.TransactionID, stun.BindingRequest, stun.NewUsername(a.ufrag+":a\nb"), key, stun.Fingerprint).Raw,
			"long ufrag":           stun.MustBuild(stun.TransactionID, stun.BindingRequest, stun.NewUsername(a.ufrag+":"+strings.Repeat("x", 257)), key, stun.Fingerprint).Raw,
			"wrong fingerprint":    mutate(func(b []byte) []byte { b[len(b)-1] ^= 1; return b }),
			"changed priority":     mutate(func(b []byte) []byte { i := bytes.Index(b, []byte{0, 0x24, 0, 4}); b[i+4] ^= 1; return b }),
			"truncated":            good[:len(good)-9],
			"truncated header":     good[:15],
			"trailing bytes":       append(bytes.Clone(good), 0, 0, 0, 0),
			"length too long":      mutate(func(b []byte) []byte { b[3] += 4; return b }),
			"attribute overlong":   mutate(func(b []byte) []byte { b[headerSize+3] = 0xff; return b }),
			"wrong cookie":         mutate(func(b []byte) []byte { b[4] ^= 0xff; return b }),
			"other method":         mutate(func(b []byte) []byte { b[1] = 3; return b }),
			"indication":           mutate(func(b []byte) []byte { b[1] = 0x11; return b }),
			"success response":     stun.MustBuild(stun.TransactionID, stun.BindingSuccess, &stun.XORMappedAddress{IP: net.IPv4(1, 2, 3, 4), Port: 5}, key, stun.Fingerprint).Raw,
			"empty mapped address": stun.MustBuild(stun.TransactionID, stun.BindingSuccess, flag(stun.AttrXORMappedAddress)).Raw, // GO-2026-6163
			"too large":            request(a, "fork", 1, stun.RawAttribute{Type: 0xC000, Value: make([]byte, maxDatagram)}),
			"empty":                {},
			"two usernames":        stun.MustBuild(stun.TransactionID, stun.BindingRequest, user, stun.NewUsername("x"), stun.NewShortTermIntegrity("no")).Raw,
			"fingerprint first":    stun.MustBuild(stun.TransactionID, stun.BindingRequest, user, stun.Fingerprint, flag(0xC001)).Raw,
		} {
			ignored := map[string]bool{"indication": true, "success response": true, "empty mapped address": true}
			if a.Handle(bad, relay) == ignored[name] {
				t.Errorf("%s: reported as bad: %v", name, !ignored[name])
			}
			noAnswer(t, w, name)
		}
		synctest.Wait()
		if a.Admit(relay) || a.LastCheck() != lastCheck || len(w.selected) != pairs {
			t.Errorf("a bad check left a trace: admitted %v, last check moved %v, pairs %+v", a.Admit(relay), a.LastCheck() != lastCheck, w.selected)
		}
		if s := a.Stats(); s.Panics != 0 || s.Answered != 1 {
			t.Errorf("stats %+v", s)
		}

		// What follows MESSAGE-INTEGRITY is ignored, so this is a plain check.
		a.Handle(late.Raw, relay)
		if m := answerTo2(t, w); m.Type != stun.BindingSuccess {
			t.Errorf("plain check answered %v", m)
		}
		wantPair(t, w, host, true, "fork")

		// The session goes on.
		check(t, a, w, "fork", host, hostPriority, useCandidate)
	})
}

func answerTo2(t *testing.T, w *wire) *stun.Message {
	t.Helper()
	sent := w.take()
	if len(sent) != 1 {
		t.Fatalf("%d responses", len(sent))
	}
	m := &stun.Message{Raw: sent[0].b}
	if err := m.Decode(); err != nil {
		t.Fatal(err)
	}
	synctest.Wait()
	return m
}

func TestC112NominationMovesTheNominatedPair(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, w := newAgent(t)
		defer closeNow(t, a)
		if err := a.SetRemote(teamsICE("QUEP")); err != nil {
			t.Fatal(err)
		}
		for _, s := range []struct {
			from netip.AddrPort
			p    uint32
		}{{host, 100}, {srflx, 90}, {relay, 80}} {
			check(t, a, w, "QUEP", s.from, s.p)
		}
		wantPair(t, w, host, false, "QUEP")
		start := time.Now()
		check(t, a, w, "QUEP", srflx, 90, useCandidate)
		wantPair(t, w, srflx, true, "QUEP")
		// Regular nomination of a lower pair later on (C-112: "after traffic on Y").
		check(t, a, w, "QUEP", relay, 80, useCandidate)
		wantPair(t, w, relay, true, "QUEP")
		if took := time.Since(start); took > 20*time.Millisecond {
			t.Errorf("two moves took %v of virtual time, more than one packet", took)
		}
		if s := a.Stats(); s.Forks[0].State != "connected" || s.Forks[0].RemoteType != "relay" || s.Forks[0].Nominated != relay {
			t.Errorf("stats %+v", s.Forks)
		}
	})
}

func TestAggressiveNominationMeansTheBestPair(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, w := newAgent(t)
		defer closeNow(t, a)
		check(t, a, w, "re", relay, 80, useCandidate)
		wantPair(t, w, relay, true, "re")
		check(t, a, w, "re", host, 100, useCandidate)
		wantPair(t, w, host, true, "re")
		check(t, a, w, "re", srflx, 90, useCandidate)
		check(t, a, w, "re", relay, 80, useCandidate)
		wantPair(t, w, host, true, "re") // no flapping

		// The peer has left that pair: consent on it has run out.
		for range 7 {
			time.Sleep(5 * time.Second)
			check(t, a, w, "re", srflx, 90, useCandidate)
		}
		wantPair(t, w, srflx, true, "re")
	})
}

func TestC113BestCheckedPairBeforeNomination(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, w := newAgent(t)
		defer closeNow(t, a)
		check(t, a, w, "QUEP", relay, 1862270975)
		wantPair(t, w, relay, false, "QUEP")
		check(t, a, w, "QUEP", srflx, 1862270719) // lower, as far as its check says
		wantPair(t, w, relay, false, "QUEP")
		// The answer arrives and says what these addresses are.
		if err := a.SetRemote(teamsICE("QUEP")); err != nil {
			t.Fatal(err)
		}
		wantPair(t, w, srflx, false, "QUEP")
		if p := w.pair(); p.Priority != srflxPriority {
			t.Errorf("priority %d, want the signalled %d", p.Priority, srflxPriority)
		}
		check(t, a, w, "QUEP", host, 1)
		wantPair(t, w, host, false, "QUEP")
	})
}

func TestC114FinishedBeforeThe200StaysFinished(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, w := newAgent(t)
		defer closeNow(t, a)
		early := a.ICE() // the 183
		_ = a.SetRemote(teamsICE("QUEP"))
		check(t, a, w, "QUEP", host, 1)
		check(t, a, w, "QUEP", host, 1, useCandidate)
		n := len(w.selected)
		late := a.ICE() // the 200
		if early.Ufrag != late.Ufrag || early.Pwd != late.Pwd || !slices.Equal(early.Candidates, late.Candidates) {
			t.Errorf("183 and 200 differ: %+v %+v", early, late)
		}
		a.Bind("QUEP")
		synctest.Wait()
		wantPair(t, w, host, true, "QUEP")
		if len(w.selected) != n || !a.Admit(host) || a.LastCheck().IsZero() {
			t.Errorf("the 200 disturbed a finished ICE: %+v", w.selected[n:])
		}
	})
}

func TestC115ChecksBeforeAnyDescriptionAreAnsweredAndNominate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, w := newAgent(t)
		defer closeNow(t, a)
		if err := a.SetRemote(nil); err != nil {
			t.Fatal(err)
		}
		check(t, a, w, "early", srflx, 5)
		check(t, a, w, "early", srflx, 5, useCandidate)
		wantPair(t, w, srflx, true, "early")
	})
}

func TestC116AfterTheAnswerOtherForksAreIgnored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, w := newAgent(t)
		defer closeNow(t, a)
		_ = a.SetRemote(teamsICE("forkB"))
		check(t, a, w, "forkB", host, 10)
		check(t, a, w, "forkB", host, 10, useCandidate) // B's early media
		wantPair(t, w, host, true, "forkB")
		check(t, a, w, "forkD", relayV6, 99)
		wantPair(t, w, host, true, "forkB") // a fork without an answer does not take over

		// 200 of fork C, which has not been heard yet.
		if err := a.SetRemote(teamsICE("forkC")); err != nil {
			t.Fatal(err)
		}
		a.Bind("forkC")
		wantPair(t, w, netip.AddrPort{}, false, "")
		if a.Admit(host) || a.Admit(relayV6) || !a.LastCheck().IsZero() {
			t.Error("B or D still counts after the 200 of C")
		}
		a.Handle(request(a, "forkB", 10, controlling, useCandidate), host)
		noAnswer(t, w, "check of B after the 200 of C")
		check(t, a, w, "forkC", srflx, 7, useCandidate)
		wantPair(t, w, srflx, true, "forkC")
		if a.Admit(host) {
			t.Error("B is admitted again")
		}
		if err := a.SetRemote(teamsICE("forkB")); err == nil {
			t.Error("a late answer of B was taken")
		}
		if s := a.Stats(); s.OtherFork != 1 || len(s.Forks) != 1 {
			t.Errorf("stats %+v", s)
		}
	})
}

func TestC116CurrentAnswerDecidesBetweenForks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, w := newAgent(t)
		defer closeNow(t, a)
		check(t, a, w, "forkB", host, 10)
		check(t, a, w, "forkB", host, 10, useCandidate)
		check(t, a, w, "forkC", relay, 1)
		wantPair(t, w, host, true, "forkB")
		_ = a.SetRemote(teamsICE("forkC"))
		wantPair(t, w, relay, false, "forkC")
		a.Bind("forkC")
		wantPair(t, w, relay, false, "forkC")
		if a.Admit(host) || !a.Admit(relay) {
			t.Error("admission did not follow the 200")
		}
	})
}

// TestC117RestartRunsBesideTheOldGeneration has two agents on one socket.
func TestC117RestartRunsBesideTheOldGeneration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		before, w1 := newAgent(t)
		check(t, before, w1, "QUEP", host, 1, useCandidate)
		after, w2 := newAgent(t)
		defer closeNow(t, after)
		if before.Ufrag() == after.Ufrag() || before.ICE().Pwd == after.ICE().Pwd {
			t.Fatal("the restart kept a credential")
		}
		byUfrag := map[string]*Agent{before.Ufrag(): before, after.Ufrag(): after}
		deliver := func(b []byte, from netip.AddrPort) {
			ufrag, ok := LocalUfrag(b)
			if !ok {
				t.Fatal("no ufrag in a good check")
			}
			byUfrag[string(ufrag)].Handle(b, from)
		}
		deliver(request(before, "QUEP", 1, controlling), host) // consent on the old pair
		if len(w1.take()) != 1 {
			t.Error("the old generation stopped answering")
		}
		wantPair(t, w1, host, true, "QUEP")
		deliver(request(after, "NEW1", 1, controlling), relay)
		deliver(request(after, "NEW1", 1, controlling, useCandidate), relay)
		wantPair(t, w2, relay, true, "NEW1")
		closeNow(t, before)
		if before.Admit(host) || !after.Admit(relay) {
			t.Error("admission after the change of generation")
		}
	})
}

func TestC118RestartIsAChangeOfCredentials(t *testing.T) {
	one := teamsICE("QUEP")
	moved := *one // the same values, at session level
	moved.Candidates = moved.Candidates[:1]
	if Restarts(one, &moved) || Restarts(nil, one) || Restarts(one, nil) {
		t.Error("taken for a restart")
	}
	again := *one
	again.Ufrag, again.Pwd = "QUEQ", "aNWGmNgrU8N0MXN1r3ZPgypi"
	if !Restarts(one, &again) {
		t.Error("restart not seen")
	}
}

func TestC120BothLiteUsesTheDefaultCandidateAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, w := newAgent(t)
		defer closeNow(t, a)
		lite := &sdp.ICE{Ufrag: "lite", Pwd: "pwd", Lite: true, Candidates: []sdp.Candidate{
			{Foundation: "1", Component: 2, Transport: "UDP", Priority: 2130706430, Addr: relay, Type: "host"},
			{Foundation: "1", Component: 1, Transport: "UDP", Priority: 2130706431, Addr: srflx, Type: "host"},
		}}
		if err := a.SetRemote(lite); err != nil {
			t.Fatal(err)
		}
		wantPair(t, w, srflx, true, "lite")
		if !a.Admit(srflx) || a.Admit(relay) {
			t.Error("voice of the lite peer: wrong source admitted")
		}
		a.Bind("lite")
		wantPair(t, w, srflx, true, "lite")
		if len(w.selected) != 1 {
			t.Errorf("selected %d times", len(w.selected))
		}
		noAnswer(t, w, "both lite")
	})
}

func TestC122ConsentMayRunOutAndTheCallStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, w := newAgent(t)
		defer closeNow(t, a)
		check(t, a, w, "QUEP", host, 1, useCandidate)
		last := a.LastCheck()
		time.Sleep(12 * time.Hour)
		if !a.Admit(host) || w.pair().Remote != host || a.LastCheck() != last {
			t.Error("the pair was lost in silence")
		}
		if s := a.Stats(); s.Forks[0].State != "disconnected" {
			t.Errorf("consent is %q after 12 h without a check", s.Forks[0].State)
		}
		check(t, a, w, "QUEP", host, 1)
		time.Sleep(3 * time.Second)
		if s := a.Stats(); s.Forks[0].State != "connected" {
			t.Errorf("consent is %q after it has come back", s.Forks[0].State)
		}
	})
}

func TestC124VoiceIsAdmittedFromCheckedSourcesOnly(t *testing.T) {
	a, w := newAgent(t)
	defer closeNow(t, a)
	if a.Admit(host) {
		t.Fatal("admitted before any check")
	}
	a.Handle(request(a, "QUEP", 1, controlling), netip.AddrPortFrom(netip.AddrFrom16(host.Addr().As16()), host.Port()))
	if s := w.take(); len(s) != 1 || s[0].to != host {
		t.Errorf("answer to an IPv4-mapped source: %+v", s)
	}
	for from, want := range map[netip.AddrPort]bool{
		host: true,
		netip.AddrPortFrom(netip.AddrFrom16(host.Addr().As16()), host.Port()): true, // dual-stack socket
		netip.AddrPortFrom(host.Addr(), host.Port()+1):                        false,
		srflx: false,
	} {
		if got := a.Admit(from); got != want {
			t.Errorf("Admit(%v) = %v", from, got)
		}
	}
	if n := testing.AllocsPerRun(100, func() { a.Admit(host); a.Admit(relay) }); n != 0 {
		t.Errorf("Admit allocates %v times", n)
	}
}

func TestC125RelayPortsAreLikeAnyOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, w := newAgent(t)
		defer closeNow(t, a)
		_ = a.SetRemote(teamsICE("QUEP"))
		check(t, a, w, "QUEP", relay, relayPriority)
		check(t, a, w, "QUEP", relay, relayPriority, useCandidate)
		wantPair(t, w, relay, true, "QUEP")
		check(t, a, w, "QUEP", relayV6, 1)
		check(t, a, w, "QUEP", relayV6, 1, useCandidate)
		wantPair(t, w, relayV6, true, "QUEP")
	})
}

func TestRoleConflictIsAnsweredAndPionStaysControlled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, w := newAgent(t)
		defer closeNow(t, a)
		for _, tie := range []string{"\x00\x00\x00\x00\x00\x00\x00\x00", "\xff\xff\xff\xff\xff\xff\xff\xff"} {
			req := request(a, "QUEP", 1, stun.RawAttribute{Type: stun.AttrICEControlled, Value: []byte(tie)}, useCandidate)
			a.Handle(req, host)
			m := answerTo(t, a, w, req, host)
			var code stun.ErrorCodeAttribute
			if err := code.GetFrom(m); err != nil || code.Code != stun.CodeRoleConflict {
				t.Errorf("answered %v %v, want 487", m, err)
			}
		}
		synctest.Wait()
		if s := a.Stats(); s.RoleConflict != 2 || s.RequestsSuppressed != 0 || len(s.Forks) != 0 || a.Admit(host) {
			t.Errorf("stats %+v", s)
		}
	})
}

// TestPionIsFenced asserts the fence that docs/decisions/ice.md draws.
func TestPionIsFenced(t *testing.T) {
	a, _ := newAgent(t)
	defer closeNow(t, a)
	f := newFork(a, "QUEP", time.Now())
	cfg := a.pionConfig(f, newConn(a))
	if len(cfg.Urls) != 0 || cfg.UDPMuxSrflx != nil || cfg.TCPMux != nil || cfg.ProxyDialer != nil {
		t.Error("pion has a STUN or TURN server, or a mux that parses XOR-MAPPED-ADDRESS (GO-2026-6163, GO-2026-4479)")
	}
	if !cfg.Lite || cfg.MulticastDNSMode != 1 || cfg.BindingRequestHandler == nil || cfg.LoggerFactory == nil {
		t.Errorf("fence is open: %+v", cfg)
	}
	if _, ok := cfg.Net.(noNet); !ok {
		t.Errorf("pion has a network: %T", cfg.Net)
	}
	if ifs, err := cfg.Net.Interfaces(); len(ifs) != 0 || err != nil {
		t.Error("pion sees interfaces")
	}
}

func TestSecretsStayOutOfTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var text strings.Builder
		w := &wire{}
		a, err := New(Options{Candidate: public, Send: w.send, Log: slog.New(slog.NewTextHandler(&text, &slog.HandlerOptions{Level: slog.LevelDebug}))})
		if err != nil {
			t.Fatal(err)
		}
		remote := teamsICE("QUEP")
		_ = a.SetRemote(remote)
		check(t, a, w, "QUEP", host, 1, useCandidate)
		a.Handle(request(a, "QUEP", 1, controlled), host)
		closeNow(t, a)
		if !strings.Contains(text.String(), "Setting new connection state") {
			t.Errorf("pion's log does not reach slog:\n%s", text.String())
		}
		for _, secret := range []string{a.pwd, remote.Pwd} {
			if strings.Contains(text.String(), secret) {
				t.Errorf("a password is in the log:\n%s", text.String())
			}
		}
	})
}

func TestC108NothingButResponsesLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, w := newAgent(t)
		_ = a.SetRemote(teamsICE("QUEP"))
		for range 20 {
			for _, from := range []netip.AddrPort{host, srflx, relay} {
				a.Handle(request(a, "QUEP", 1, controlling, useCandidate), from)
			}
			time.Sleep(time.Second)
		}
		time.Sleep(time.Minute) // keepalives of pion would fall due
		closeNow(t, a)
		s := a.Stats()
		if s.RequestsSuppressed == 0 {
			t.Error("pion v2 wanted no request: the fence may be taken down")
		}
		sent := w.take()
		if uint64(len(sent)) != s.Answered || s.Answered != 60 {
			t.Errorf("%d datagrams left, %d checks answered, want 60", len(sent), s.Answered)
		}
		for _, d := range sent {
			if d.b[0]&1 == 0 && d.b[1]&0x10 == 0 {
				t.Fatalf("a STUN request left: % x", d.b)
			}
		}
	})
}

func TestCloseIsIdempotentAndFinal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, w := newAgent(t)
		check(t, a, w, "QUEP", host, 1)
		closeNow(t, a)
		closeNow(t, a)
		a.Handle(request(a, "QUEP", 1, controlling, useCandidate), host)
		a.Handle(request(a, "OTHER", 1, controlling), host)
		a.Bind("OTHER")
		if err := a.SetRemote(teamsICE("QUEP")); err == nil {
			t.Error("SetRemote after Close was taken")
		}
		noAnswer(t, w, "after Close")
		if a.Admit(host) || len(w.selected) != 1 {
			t.Errorf("alive after Close: %+v", w.selected)
		}
	})
}

// TestCloseIsBoundedWhenACallbackHangs runs in real time: a goroutine at a mutex
// stops a synctest bubble's clock.
func TestCloseIsBoundedWhenACallbackHangs(t *testing.T) {
	hanging, release := make(chan struct{}), make(chan struct{})
	a, err := New(Options{Candidate: public, Send: func([]byte, netip.AddrPort) {}, Selected: func(p Pair) {
		if p.Nominated {
			close(hanging)
			<-release
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	a.Handle(request(a, "QUEP", 1, controlling, useCandidate), srflx)
	<-hanging
	if a.Close() == nil {
		t.Error("Close hid the hanging callback")
	}
	close(release) // goleak sees whether everything ends now
}
