package media

import (
	"bytes"
	"net/netip"
	"testing"
	"time"

	"localloop/internal/dsp"
	"localloop/internal/sdp"

	"github.com/pion/srtp/v3"
	"github.com/pion/stun"
)

var secureProfile = sdp.Profile{Realm: "lan", Secure: true, RTCPMux: true, Codecs: []string{"PCMA"}, Country: "de"}

func keyOf(b byte) []byte { return bytes.Repeat([]byte{b}, 30) }

// context is the independent SRTP of a peer.
func context3(t testing.TB, key []byte) *srtp.Context {
	t.Helper()
	c, err := srtp.CreateContext(key[:16], key[16:], srtp.ProtectionProfileAes128CmHmacSha1_80, srtp.SRTPReplayProtection(64))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (p *memPeer) sealWith(key []byte) {
	c := context3(p.r.t, key)
	p.seal = func(b []byte) []byte {
		out, err := c.EncryptRTP(nil, b, nil)
		if err != nil {
			p.r.t.Error(err)
		}
		return out
	}
}

func (p *memPeer) openWith(key []byte) {
	c := context3(p.r.t, key)
	p.open = func(b []byte) []byte {
		out, err := c.DecryptRTP(nil, b, nil)
		if err != nil {
			return nil
		}
		return out
	}
}

func (p *memPeer) secret(key []byte, tag int, codecs ...sdp.Codec) *sdp.Description {
	d := p.describe(codecs...)
	d.Secure, d.Transport, d.RTCPMux = true, "RTP/SAVP", true
	d.Crypto = []sdp.Crypto{{Tag: tag, Suite: sdp.AESCM128HMACSHA180, Key: key, Lifetime: "2^31"}}
	return d
}

// securely sets up an SRTP caller and a plain called party.
func securely(t testing.TB, r *rig, key []byte) (a, b *memPeer, ours *sdp.Description) {
	t.Helper()
	a, b = r.peer("10.0.0.50:4000", 440), r.peer("10.0.0.60:5000", 1000)
	ours = r.caller("a", a, secureProfile, a.secret(key, 2, codecA, events(101)))
	r.called("b", b, plainProfile, b.describe(codecA, events(101)))
	a.sealWith(key)
	a.openWith(ours.Crypto[0].Key)
	r.join("a", "b")
	return a, b, ours
}

func TestSecureVoiceAndWhatIsRefused(t *testing.T) {
	r := newRig(t)
	a, b, ours := securely(t, r, keyOf(1))
	if len(ours.Crypto) != 1 || ours.Crypto[0].Tag != 2 || ours.Crypto[0].Lifetime != "2^31" || ours.Transport != "RTP/SAVP" {
		t.Errorf("C-91, C-92: %+v", ours.Crypto)
	}
	r.run(time.Second, both(a, b))
	if x := share(b.heard(8, dsp.ALaw), 440); x < 0.98 {
		t.Errorf("plain side hears share %.2f", x)
	}
	if x := share(a.heard(8, dsp.ALaw), 1000); x < 0.98 {
		t.Errorf("secure side hears share %.2f", x)
	}
	n := len(b.packets)
	good := a.rtp(8, false, make([]byte, 160))
	a.raw(good)
	a.raw(good)      // replayed
	a.raw(good[:20]) // truncated
	forged := a.rtp(8, false, make([]byte, 160))
	forged[30] ^= 1
	a.raw(forged)
	seal := a.seal
	a.seal = nil
	a.raw(a.rtp(8, false, make([]byte, 160))) // not encrypted
	a.seal = seal
	a.rawFrom(netip.MustParseAddrPort("10.0.0.99:1"), a.rtp(8, false, make([]byte, 160)))
	r.pump()
	if got := len(b.packets) - n; got != 1 {
		t.Errorf("%d packets went through, want the good one", got)
	}
	d := r.e.Stats().Drops
	// The truncated packet is long enough for a tag, so it is a forgery.
	if d["replay"] != 1 || d["malformed"]+d["authentication"] != 3 || d["source"] != 1 {
		t.Errorf("drops %v", d)
	}
	a.seq += 2
	b.packets = nil
	r.run(time.Second, both(a, b))
	if len(b.packets) != 50 {
		t.Errorf("%d packets afterwards", len(b.packets))
	}
	if x := r.close()["a"]; x.Rejected != 5 {
		t.Errorf("rejected %d", x.Rejected)
	}
}

// TestC76RekeyAtARefresh: the peer offers a new key, sends under the old one
// until our answer has reached it, then starts at rollover 0 while its numbers
// go on. With the same key the rollover counter is kept.
func TestC76RekeyAtARefresh(t *testing.T) {
	r := newRig(t)
	a, b, ours := securely(t, r, keyOf(1))
	a.seq = 65500 // rolls over in the first second
	r.run(2*time.Second, both(a, b))
	again := r.caller("a", a, secureProfile, a.secret(keyOf(1), 2, codecA, events(101)))
	if again.Version != ours.Version || !bytes.Equal(again.Crypto[0].Key, ours.Crypto[0].Key) {
		t.Error("the same offer got another answer")
	}
	b.packets = nil
	r.run(time.Second, both(a, b))
	if len(b.packets) != 50 {
		t.Fatalf("same key: %d of 50 packets", len(b.packets))
	}
	next := r.caller("a", a, secureProfile, a.secret(keyOf(2), 2, codecA, events(101)))
	if !bytes.Equal(next.Crypto[0].Key, ours.Crypto[0].Key) {
		t.Error("our key changed without an ICE restart")
	}
	b.packets = nil
	r.run(200*time.Millisecond, both(a, b)) // still the old key
	a.sealWith(keyOf(2))
	r.run(time.Second, both(a, b))
	if len(b.packets) != 60 {
		t.Errorf("over the change of keys: %d of 60 packets", len(b.packets))
	}
	unbroken(t, "b", b.packets)
	old := context3(t, keyOf(1))
	a.seal = func(p []byte) []byte { out, _ := old.EncryptRTP(nil, p, nil); return out }
	n := len(b.packets)
	a.talk()
	r.pump()
	if len(b.packets) != n {
		t.Error("the old key is still good")
	}
}

// TestForksReplaceEachOther: early media of one fork, then the answer of
// another; our key is one for both, theirs are their own (C-56).
func TestForksReplaceEachOther(t *testing.T) {
	r := newRig(t)
	a := r.peer("10.0.0.50:4000", 440)
	r.caller("a", a, plainProfile, a.describe(codecA))
	b, c := r.peer("10.0.0.60:5000", 700), r.peer("10.0.0.70:6000", 1100)
	offer, err := r.b.OfferTo("t", secureProfile)
	if err != nil {
		t.Fatal(err)
	}
	if offer.Crypto[0].Lifetime != "2^31" || offer.Crypto[0].Suite != sdp.AESCM128HMACSHA180 {
		t.Errorf("C-91: %+v", offer.Crypto[0].Suite)
	}
	for _, p := range []*memPeer{b, c} {
		p.to = offer.RTP
		p.openWith(offer.Crypto[0].Key)
	}
	b.sealWith(keyOf(11))
	c.sealWith(keyOf(12))
	if err := r.b.Answered("t", b.secret(keyOf(11), 1, codecA)); err != nil {
		t.Fatal(err)
	}
	r.join("a", "t")
	talk := func(list ...*memPeer) func(int) {
		return func(i int) {
			if i%2 == 0 {
				for _, p := range list {
					p.talk()
				}
			}
		}
	}
	r.run(time.Second, talk(a, b, c))
	if x := share(a.heard(8, dsp.ALaw), 700); x < 0.98 {
		t.Errorf("early media of the first fork has share %.2f", x)
	}
	if err := r.b.Answered("t", c.secret(keyOf(12), 1, codecA)); err != nil {
		t.Fatal(err)
	}
	r.b.Confirm("t")
	r.pump()
	a.packets, b.packets = nil, nil
	r.run(time.Second, talk(a, b, c))
	if x := share(a.heard(8, dsp.ALaw), 1100); x < 0.98 {
		t.Errorf("the answering fork has share %.2f", x)
	}
	if len(b.packets) > 0 || len(c.packets) < 49 {
		t.Errorf("%d packets to the void fork, %d to the other", len(b.packets), len(c.packets))
	}
	unbroken(t, "a", a.packets)
}

// stunCheck makes a connectivity check of a controlling agent.
func stunCheck(t testing.TB, ours *sdp.ICE, theirs string, nominate bool) []byte {
	t.Helper()
	set := []stun.Setter{stun.TransactionID, stun.BindingRequest, stun.NewUsername(ours.Ufrag + ":" + theirs),
		stun.RawAttribute{Type: stun.AttrPriority, Value: []byte{0x6e, 0, 1, 0xff}},
		stun.RawAttribute{Type: stun.AttrICEControlling, Value: []byte{1, 2, 3, 4, 5, 6, 7, 8}}}
	if nominate {
		set = append(set, stun.RawAttribute{Type: stun.AttrUseCandidate})
	}
	set = append(set, stun.NewShortTermIntegrity(ours.Pwd), stun.Fingerprint)
	m, err := stun.Build(set...)
	if err != nil {
		t.Fatal(err)
	}
	return m.Raw
}

// TestC112C113C124ChecksDecideWhoSpeaksAndWhereVoiceGoes.
func TestC112C113C124ChecksDecideWhoSpeaksAndWhereVoiceGoes(t *testing.T) {
	r := newRig(t)
	x, y, b := r.peer("10.0.0.50:4000", 440), r.peer("10.0.0.51:4000", 440), r.peer("10.0.0.60:5000", 1000)
	prof := secureProfile
	prof.ICE = sdp.LiteICE
	offer := x.secret(keyOf(1), 1, codecA)
	offer.ICE = &sdp.ICE{Ufrag: "QUEP", Pwd: "2G9Th5vVgCZ2C5bhpfWeePDQ", Candidates: []sdp.Candidate{
		{Foundation: "1", Component: 1, Transport: "UDP", Priority: 2130706431, Addr: x.addr, Type: "host"},
		{Foundation: "2", Component: 1, Transport: "UDP", Priority: 2130706431 >> 1, Addr: y.addr, Type: "srflx"}}}
	ours := r.caller("a", x, prof, offer)
	if ours.ICE == nil || !ours.ICE.Lite || len(ours.ICE.Candidates) != 1 || ours.ICE.Candidates[0].Addr != ours.RTP {
		t.Fatalf("C-107: %+v", ours.ICE)
	}
	y.to = x.to
	r.called("b", b, plainProfile, b.describe(codecA))
	r.join("a", "b")
	shared := context3(t, keyOf(1))
	seal := func(p []byte) []byte { out, _ := shared.EncryptRTP(nil, p, nil); return out }
	x.seal, y.seal = seal, seal
	open := context3(t, ours.Crypto[0].Key)
	dec := func(p []byte) []byte { out, _ := open.DecryptRTP(nil, p, nil); return out }
	x.open, y.open = dec, dec

	x.talk() // C-124: nobody has checked
	r.run(100*time.Millisecond, func(i int) {
		if i%2 == 0 {
			b.talk()
		}
	})
	if len(b.packets)+len(x.packets)+len(y.packets) != 0 {
		t.Fatal("voice passed without a check")
	}
	forged := stunCheck(t, ours.ICE, "QUEP", false)
	forged[len(forged)-1] ^= 1
	y.raw(forged)
	r.pump()
	if d := r.e.Stats().Drops; d["check"] != 1 {
		t.Errorf("a forged check: drops %v", d)
	}
	y.raw(stunCheck(t, ours.ICE, "QUEP", false))
	r.pump()
	b.talk()
	y.talk()
	r.pump()
	if len(y.packets) != 1 || len(b.packets) != 1 {
		t.Fatalf("C-113: %d packets to the checked source, %d through", len(y.packets), len(b.packets))
	}
	x.ssrc, x.seq, x.ts = y.ssrc, y.seq, y.ts
	x.raw(stunCheck(t, ours.ICE, "QUEP", true))
	eventually(t, "the nomination", func() bool { // the agent decides in a goroutine of its own
		r.pump()
		x.raw(stunCheck(t, ours.ICE, "QUEP", true))
		n := len(x.packets)
		b.talk()
		r.pump()
		return len(x.packets) > n
	})
	ny := len(y.packets)
	r.run(time.Second, func(i int) {
		if i%2 == 0 {
			b.talk()
			x.talk()
		}
	})
	if len(y.packets) != ny || len(x.packets) < 50 {
		t.Errorf("C-112: %d packets more to the old pair, %d to the nominated", len(y.packets)-ny, len(x.packets))
	}
	if rep := r.close()["a"]; rep.Remote != x.addr.String() || rep.Pair == "" {
		t.Errorf("%+v", rep)
	}
}

func TestC120C121PeersWithoutChecksGetPlainAddresses(t *testing.T) {
	for name, ice := range map[string]*sdp.ICE{
		"lite":          {Ufrag: "abcd", Pwd: "0123456789012345678901", Lite: true, Candidates: []sdp.Candidate{{Foundation: "1", Component: 1, Transport: "UDP", Priority: 1, Addr: netip.MustParseAddrPort("10.0.0.50:4000"), Type: "host"}}},
		"no candidates": {Ufrag: "abcd", Pwd: "0123456789012345678901"},
		"no ICE":        nil,
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			a, b := r.peer("10.0.0.50:4000", 440), r.peer("10.0.0.60:5000", 1000)
			prof := secureProfile
			prof.ICE = sdp.LiteICE
			offer := a.secret(keyOf(1), 1, codecA)
			offer.ICE = ice
			ours := r.caller("a", a, prof, offer)
			r.called("b", b, plainProfile, b.describe(codecA))
			a.sealWith(keyOf(1))
			a.openWith(ours.Crypto[0].Key)
			r.join("a", "b")
			r.run(time.Second, both(a, b))
			if len(a.packets) != 50 || len(b.packets) != 50 {
				t.Errorf("%d and %d packets", len(a.packets), len(b.packets))
			}
		})
	}
}

func TestSecureRelayAllocatesOnlyInTheLibrary(t *testing.T) {
	r := newRig(t)
	a, b, _ := securely(t, r, keyOf(1))
	b.talk()
	var sealed [][]byte
	for range 1100 {
		sealed = append(sealed, append(a.rtp(8, false, make([]byte, 160)), make([]byte, 0, 64)...))
	}
	r.peers = nil
	s, i := r.loop.socks[a.to], 0
	n := testing.AllocsPerRun(1000, func() {
		s.to.Datagram(r.now, s, sealed[i], a.addr)
		i++
	})
	if n > 6 { // pion/srtp/v2 DecryptRTP: 5, docs/decisions/srtp.md
		t.Errorf("%v allocations per packet", n)
	}
}

// TestC117NominationMovesThePathAlsoWhenThePeerIsSilent: the old path is used
// until the nomination, then the new one, though no voice has come on it.
func TestC117NominationMovesThePathAlsoWhenThePeerIsSilent(t *testing.T) {
	r := newRig(t)
	x, b := r.peer("10.0.0.50:4000", 440), r.peer("10.0.0.60:5000", 1000)
	prof := secureProfile
	prof.ICE = sdp.LiteICE
	offer := x.secret(keyOf(1), 1, codecA)
	credentials := func(ufrag string) *sdp.ICE {
		return &sdp.ICE{Ufrag: ufrag, Pwd: ufrag + "345678901234567890123", Candidates: []sdp.Candidate{{Foundation: "1", Component: 1, Transport: "UDP", Priority: 2130706431, Addr: x.addr, Type: "host"}}}
	}
	offer.ICE = credentials("old1")
	ours := r.caller("a", x, prof, offer)
	r.called("b", b, plainProfile, b.describe(codecA))
	r.join("a", "b")
	x.sealWith(keyOf(1))
	x.openWith(ours.Crypto[0].Key)
	toX := func() int {
		n := len(x.packets)
		b.talk()
		r.pump()
		return len(x.packets) - n
	}
	eventually(t, "voice to the first pair", func() bool {
		x.raw(stunCheck(t, ours.ICE, "old1", true))
		r.pump()
		return toX() == 1
	})
	r.run(time.Second, both(x, b))

	prof.Realm = "wan"
	moved, err := r.b.OfferTo("a", prof)
	if err != nil {
		t.Fatal(err)
	}
	answer := x.secret(keyOf(1), 1, codecA)
	answer.ICE = credentials("new1")
	if err := r.b.Answered("a", answer); err != nil {
		t.Fatal(err)
	}
	r.pump()
	if n := toX(); n != 1 || x.packets[len(x.packets)-1].from != x.to {
		t.Fatalf("before the nomination %d packets, from %v", n, x.packets[len(x.packets)-1].from)
	}
	x.to = r.ours(moved)
	eventually(t, "voice from the new address", func() bool {
		// Virtual time stands still: the old path does not die meanwhile.
		x.raw(stunCheck(t, moved.ICE, "new1", true))
		r.pump()
		return toX() == 1 && x.packets[len(x.packets)-1].from == x.to
	})
	// The call waits for word that the move went well; a muted peer's checks must do.
	if alive := countEvents[VoiceAlive](r); len(alive) == 0 || alive[len(alive)-1] != (VoiceAlive{Leg: "a", Realm: "wan"}) {
		t.Errorf("after the move of a silent peer: %+v", alive)
	}
	unbroken(t, "a", x.packets)
}
