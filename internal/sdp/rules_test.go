package sdp

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const (
	keyA = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwd"
	keyB = "HR0dHBsaGRgXFhUUExIREA8ODQwLCgkIBwYFBAMC"
)

var (
	teamsProfile = Profile{Secure: true, ICE: LiteICE, RTCPMux: true, InactiveHold: true, Codecs: []string{"PCMA", "PCMU"}}
	plainProfile = Profile{Codecs: []string{"PCMA", "PCMU"}}
)

// offer builds an audio offer from the transport, formats and further lines.
func offer(transport, formats string, lines ...string) string {
	return "v=0\r\no=- 1 1 IN IP4 192.0.2.9\r\ns=-\r\nc=IN IP4 192.0.2.9\r\nt=0 0\r\nm=audio 4000 " +
		transport + " " + formats + "\r\n" + strings.Join(append(lines, ""), "\r\n")
}

func crypto(tag, suite, key string) string { return "a=crypto:" + tag + " " + suite + " inline:" + key }

// TestChooseCrypto: C-92, C-93, C-95.
func TestChooseCrypto(t *testing.T) {
	const s80, s32 = "AES_CM_128_HMAC_SHA1_80", "AES_CM_128_HMAC_SHA1_32"
	tests := []struct {
		name  string
		lines []string
		tag   int // -1: none
		mki   int
	}{
		{"C92 _32 first with tag 0", []string{crypto("0", s32, keyA), crypto("1", s80, keyB+"|2^31")}, 1, 0},
		{"C93 another line than the one with MKI", []string{crypto("2", s80, keyA+"|2^31|1:1"), crypto("3", s80, keyB+"|2^31")}, 3, 0},
		{"C93 only a line with MKI", []string{crypto("2", s80, keyA+"|2^31|1:1")}, 2, 1},
		{"C93 _80 with MKI before _32 without", []string{crypto("1", s32, keyA), crypto("2", s80, keyA+"|1:4")}, 2, 4},
		{"C95 GCM beside _80", []string{crypto("1", "AEAD_AES_256_GCM", keyA+keyA), crypto("2", s80, keyB)}, 2, 0},
		{"only unknown suites", []string{crypto("1", "AEAD_AES_256_GCM", keyA+keyA)}, -1, 0},
		{"first of equals", []string{crypto("7", s80, keyA), crypto("8", s80, keyB)}, 7, 0},
		{"key too short", []string{crypto("1", s80, keyA[:36]), crypto("2", s32, keyA)}, 2, 0},
		{"weakened by a session parameter", []string{crypto("1", s80, keyA+" UNENCRYPTED_SRTP"), crypto("2", s80, keyB+" WSH=128 -X")}, 2, 0},
		{"two keys in one line", []string{crypto("1", s80, keyA+"|2^31|1:1;inline:"+keyB+"|2^31|2:1"), crypto("2", s32, keyB)}, 2, 0},
		{"suite in lower case", []string{crypto("5", strings.ToLower(s80), keyA)}, 5, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := mustParse(t, offer("RTP/SAVP", "8", tt.lines...))
			c, ok := ChooseCrypto(d.Crypto)
			if ok != (tt.tag >= 0) || ok && (c.Tag != tt.tag || c.MKILength != tt.mki || len(c.Key) != 30) {
				t.Fatalf("chose %v tag %d, mki length %d, %d bytes of key", ok, c.Tag, c.MKILength, len(c.Key))
			}
			answer, peer, err := Accept(d, teamsProfile)
			if !ok {
				if !errors.Is(err, ErrCrypto) {
					t.Fatalf("Accept: %v, want %v", err, ErrCrypto)
				}
				return
			}
			if err != nil || len(answer.Crypto) != 1 || answer.Crypto[0].Tag != tt.tag || answer.Crypto[0].Key != nil || peer.Tag != tt.tag {
				t.Fatalf("Accept: %v, %v", answer, err)
			}
		})
	}
}

func TestC91C93CryptoLineIsWrittenAsRead(t *testing.T) {
	for _, tail := range []string{"", "|2^31", "|2^31|1:1", "|1:4", "|1048576|4294967297:8"} {
		text := crypto("1", string(AESCM128HMACSHA180), keyA+tail)
		d := mustParse(t, offer("RTP/SAVP", "8", text))
		if got := string(d.Marshal()); !strings.Contains(got, text+"\r\n") || !strings.Contains(got, "m=audio 4000 RTP/SAVP 8\r\n") {
			t.Errorf("%s came back as\n%s", text, got)
		}
	}
}

func TestC91AnswerToTeamsCarriesALifetime(t *testing.T) {
	d := mustParse(t, offer("RTP/SAVP", "8", crypto("1", string(AESCM128HMACSHA180), keyA)))
	if a, _, err := Accept(d, teamsProfile); err != nil || a.Crypto[0].Lifetime != Lifetime {
		t.Errorf("%+v %v", a, err)
	}
	p := plainProfile
	p.Secure = true
	if a, _, err := Accept(d, p); err != nil || a.Crypto[0].Lifetime != "" {
		t.Errorf("another peer gets what it wrote: %+v %v", a, err)
	}
}

func TestKeysAtSessionLevelAreInherited(t *testing.T) {
	session := strings.Replace(offer("RTP/SAVP", "8"), "m=", crypto("4", string(AESCM128HMACSHA180), keyA)+"\r\nm=", 1)
	if d := mustParse(t, session); len(d.Crypto) != 1 || d.Crypto[0].Tag != 4 {
		t.Errorf("%+v", d.Crypto)
	}
	if d := mustParse(t, session+crypto("5", string(AESCM128HMACSHA180), keyB)+"\r\n"); len(d.Crypto) != 1 || d.Crypto[0].Tag != 5 {
		t.Errorf("the stream's own lines count: %+v", d.Crypto)
	}
}

func TestC94OfferThatDoesNotSuitTheTrunkIsRefused(t *testing.T) {
	sdes := crypto("1", string(AESCM128HMACSHA180), keyA)
	tests := []struct {
		name    string
		text    string
		profile Profile
		want    error
	}{
		{"AVP to a secure trunk", offer("RTP/AVP", "8"), teamsProfile, ErrNotSecure},
		{"AVP with keys to a secure trunk", offer("RTP/AVP", "8", sdes), teamsProfile, ErrNotSecure},
		{"SAVP without keys", offer("RTP/SAVP", "8"), teamsProfile, ErrCrypto},
		{"SAVP to a plain trunk", offer("RTP/SAVP", "8", sdes), plainProfile, ErrSecure},
		{"no codec in common", offer("RTP/AVP", "18 101"), plainProfile, ErrCodec},
		{"only events", offer("RTP/AVP", "101", "a=rtpmap:101 telephone-event/8000"), plainProfile, ErrCodec},
		{"port 0", strings.Replace(offer("RTP/AVP", "8"), " 4000 ", " 0 ", 1), plainProfile, ErrRefused},
		{"DTLS profile with SDES", offer("UDP/TLS/RTP/SAVP", "8", sdes), teamsProfile, nil},
		{"feedback profile", offer("RTP/AVPF", "8"), plainProfile, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := mustParse(t, tt.text)
			answer, _, err := Accept(d, tt.profile)
			if !errors.Is(err, tt.want) {
				t.Fatalf("got %v, want %v", err, tt.want)
			}
			if err == nil && answer.Transport != d.Transport {
				t.Errorf("transport %s answered with %s", d.Transport, answer.Transport)
			}
		})
	}
}

func TestC96UnknownIsSkipped(t *testing.T) {
	d := mustParse(t, string(read(t, "teams-offer-bypass.sdp")))
	if n := len(d.ICE.Candidates); n != 6 {
		t.Errorf("%d candidates, want the 6 over UDP and IPv4", n)
	}
	for _, c := range d.ICE.Candidates {
		if c.Transport != "UDP" || !c.Addr.Addr().Is4() {
			t.Errorf("kept %+v", c)
		}
	}
	if len(d.Crypto) != 2 {
		t.Errorf("%d crypto lines, want 2 (cryptoscale is none)", len(d.Crypto))
	}
	want := map[string]Codec{
		"SILK/16000": {104, "SILK", 16000, 1, "maxaveragebitrate=50000;useinbandfec=0;minptime=20"},
		"PCMU":       {0, "PCMU", 8000, 1, ""}, // static, no rtpmap in the text
		"G729":       {18, "G729", 8000, 1, ""},
	}
	for name, w := range want {
		if c, ok := first(d.Codecs, func(c Codec) bool { return c.Is(name) }); !ok || c != w {
			t.Errorf("%s read as %+v", name, c)
		}
	}
}

func TestC100C101AnswerCodecs(t *testing.T) {
	const ev8, ev16 = "a=rtpmap:101 telephone-event/8000", "a=rtpmap:110 telephone-event/16000"
	tests := []struct {
		name    string
		formats string
		lines   []string
		ours    []string
		want    string
	}{
		{"our order counts", "9 0 8 101 13", []string{ev8}, []string{"PCMA", "PCMU"}, "8 101 13"},
		{"offered numbers are kept", "96 97", []string{"a=rtpmap:96 pcma/8000", "a=rtpmap:97 telephone-event/8000"}, []string{"PCMA"}, "96 97"},
		{"event of the codec's clock", "104 8 101 110 118", []string{"a=rtpmap:104 SILK/16000", ev8, ev16, "a=rtpmap:118 CN/16000"}, []string{"SILK/16000"}, "104 110 118"},
		{"no event of another clock", "8 110 118", []string{ev16, "a=rtpmap:118 CN/16000"}, []string{"PCMA"}, "8"},
		{"duplicate numbers", "8 8 0 101 101", []string{ev8}, []string{"PCMU"}, "0 101"},
		{"no names: what this box has itself", "104 3 0 8", []string{"a=rtpmap:104 SILK/16000"}, nil, "8"},
		{"stereo is not ours", "98 8", []string{"a=rtpmap:98 PCMA/8000/2"}, []string{"PCMA"}, "8"},
		{"unknown dynamic number", "99 8", nil, nil, "8"},
		{"redundancy is not voice", "97 0", []string{"a=rtpmap:97 RED/8000"}, nil, "0"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := mustParse(t, offer("RTP/AVP", tt.formats, tt.lines...))
			a := Description{RTP: d.RTP, Codecs: AnswerCodecs(d.Codecs, tt.ours)}
			m, _, _ := strings.Cut(string(a.Marshal())[strings.Index(string(a.Marshal()), "m="):], "\r\n")
			if want := "m=audio 4000 RTP/AVP " + tt.want; m != want {
				t.Errorf("got %s, want %s", m, want)
			}
		})
	}
}

func TestC101NeverTwoEqualPayloadNumbers(t *testing.T) {
	d := Description{RTP: netip.MustParseAddrPort("192.0.2.1:4000"), Codecs: []Codec{{8, "PCMA", 8000, 1, ""}, {8, "PCMU", 8000, 1, ""}, {13, "CN", 8000, 1, ""}}}
	if text := string(d.Marshal()); !strings.Contains(text, "RTP/AVP 8 13\r\n") || strings.Contains(text, "PCMU") {
		t.Error(text)
	}
	if d := mustParse(t, offer("RTP/AVP", "8 0 8 0 101 101", "a=rtpmap:101 telephone-event/8000")); len(d.Codecs) != 3 {
		t.Errorf("read %v", d.Codecs)
	}
	seen := map[uint8]bool{}
	for _, c := range OfferCodecs([]string{"G722", "PCMA", "PCMA", "pcmu", "SILK"}) {
		if seen[c.PayloadType] {
			t.Errorf("number %d twice", c.PayloadType)
		}
		seen[c.PayloadType] = true
	}
	if own := OfferCodecs(nil); len(own) != 4 || own[0].Name != "PCMA" || own[1].Name != "PCMU" || !own[2].IsEvent() || !own[3].IsCN() {
		t.Errorf("offered by default %v", own)
	}
	if none := OfferCodecs([]string{"SILK"}); none != nil {
		t.Errorf("offered %v", none)
	}
	if len(seen) != 5 {
		t.Errorf("offered %v, want 9 8 0 101 13", seen)
	}
}

func TestC104VersionGrowsExactlyWithChanges(t *testing.T) {
	base := mustParse(t, string(read(t, "our-offer.sdp")))
	step := func(prev *Description, change func(*Description)) *Description {
		next := *prev
		next.SessionID, next.Version = 0, 0 // a description made anew
		change(&next)
		next.Follow(prev)
		return &next
	}
	same := step(base, func(*Description) {})
	if same.Version != base.Version || same.SessionID != base.SessionID {
		t.Errorf("unchanged text: %d %d", same.SessionID, same.Version)
	}
	changes := map[string]func(*Description){
		"direction": func(d *Description) { d.Direction = Inactive },
		"address":   func(d *Description) { d.RTP = netip.MustParseAddrPort("10.0.0.1:4000") },
		"rtcp":      func(d *Description) { d.RTCP = netip.AddrPort{} },
		"mux":       func(d *Description) { d.RTCPMux = false },
		"codecs":    func(d *Description) { d.Codecs = d.Codecs[1:] },
		"key":       func(d *Description) { d.Crypto = []Crypto{{Tag: 1, Suite: AESCM128HMACSHA180, Key: make([]byte, 30)}} },
		"ice":       func(d *Description) { d.ICE = &ICE{Ufrag: "a", Pwd: "b", Lite: true} },
		"ptime":     func(d *Description) { d.Ptime = 30 * time.Millisecond },
	}
	for name, change := range changes {
		next := step(base, change)
		if next.Version != base.Version+1 || next.SessionID != base.SessionID {
			t.Errorf("%s changed: version %d after %d", name, next.Version, base.Version)
		}
		if again := step(next, func(*Description) {}); again.Version != next.Version {
			t.Errorf("%s: version %d after %d without a change", name, again.Version, next.Version)
		}
	}
	if s := string(base.Marshal()); !strings.Contains(s, "o=- 60217 1 IN") {
		t.Error(s)
	}
}

const iceLines = "a=ice-ufrag:abcd\r\na=ice-pwd:0123456789012345678901\r\n"

func TestC117C118Restart(t *testing.T) {
	parse := func(session, media string) *ICE {
		text := offer("RTP/AVP", "8", "a=candidate:1 1 UDP 1 192.0.2.9 4000 typ host")
		return mustParse(t, strings.Replace(text, "m=audio", session+"m=audio", 1)+media).ICE
	}
	old := parse("", iceLines)
	both := strings.NewReplacer("abcd", "wxyz", "0123", "9876").Replace(iceLines)
	tests := []struct {
		name string
		new  *ICE
		want bool
	}{
		{"both changed", parse("", both), true},
		{"same values at session level", parse(iceLines, ""), false},
		{"session level overruled by the stream", parse(both, iceLines), false},
		{"both changed at session level", parse(both, ""), true},
		{"only the fragment", parse("", strings.Replace(iceLines, "abcd", "wxyz", 1)), false},
		{"only the password", parse("", strings.Replace(iceLines, "0123", "9876", 1)), false},
		{"no ICE any more", nil, false},
	}
	for _, tt := range tests {
		if got := Restarted(old, tt.new); got != tt.want {
			t.Errorf("%s: %v", tt.name, got)
		}
	}
	if Restarted(nil, old) {
		t.Error("a first offer is no restart")
	}
}

func TestC120C121WhoChecks(t *testing.T) {
	cand := "a=candidate:1 1 UDP 1 192.0.2.9 4000 typ host"
	sdes := crypto("1", string(AESCM128HMACSHA180), keyA)
	tests := []struct {
		name      string
		lines     []string
		checks    bool
		answerICE bool
	}{
		{"full agent", []string{iceLines + cand}, true, true},
		{"C120 peer is lite", []string{iceLines + cand, "a=ice-lite"}, false, true},
		{"C121 no candidate", []string{iceLines}, false, false},
		{"C121 only TCP candidates", []string{iceLines, strings.Replace(cand, "UDP", "TCP-ACT", 1)}, false, false},
		{"no ICE", nil, false, false},
		{"password missing", []string{"a=ice-ufrag:abcd", cand}, false, false},
	}
	for _, tt := range tests {
		d := mustParse(t, strings.ReplaceAll(offer("RTP/SAVP", "8", append(tt.lines, sdes)...), "\r\n\r\n", "\r\n"))
		if d.Checks() != tt.checks {
			t.Errorf("%s: checks %v", tt.name, d.Checks())
		}
		a, _, err := Accept(d, teamsProfile)
		if err != nil || (a.ICE != nil) != tt.answerICE {
			t.Errorf("%s: answer %+v, %v", tt.name, a, err)
		}
		if want := netip.MustParseAddrPort("192.0.2.9:4000"); d.RTP != want {
			t.Errorf("%s: default address %v", tt.name, d.RTP)
		}
		p := teamsProfile
		p.ICE = NoICE
		if a, _, _ = Accept(d, p); a.ICE != nil {
			t.Errorf("%s: ICE on a trunk without", tt.name)
		}
	}
}

func TestDirections(t *testing.T) {
	tests := []struct {
		offered, want   Direction
		answer, asTeams Direction
	}{
		{SendRecv, SendRecv, SendRecv, SendRecv},
		{SendOnly, SendRecv, RecvOnly, Inactive},
		{RecvOnly, SendRecv, SendOnly, Inactive},
		{Inactive, SendRecv, Inactive, Inactive},
		{SendRecv, SendOnly, SendOnly, Inactive},
		{SendOnly, SendOnly, Inactive, Inactive},
		{RecvOnly, SendOnly, SendOnly, Inactive},
		{SendRecv, Inactive, Inactive, Inactive},
	}
	for _, tt := range tests {
		if got := AnswerDirection(tt.offered, tt.want, false); got != tt.answer {
			t.Errorf("offered %v, want %v: %v, not %v", tt.offered, tt.want, got, tt.answer)
		}
		if got := AnswerDirection(tt.offered, tt.want, true); got != tt.asTeams {
			t.Errorf("to Teams, offered %v, want %v: %v, not %v", tt.offered, tt.want, got, tt.asTeams)
		}
	}
	for d := SendRecv; d <= Inactive; d++ {
		if d.Mirror().Mirror() != d || d.Mirror().Sends() != d.Receives() {
			t.Errorf("mirror of %v is %v", d, d.Mirror())
		}
	}
}

func TestMuxIsAnsweredOnlyWhenOfferedAndWanted(t *testing.T) {
	for _, tt := range []struct{ offered, wanted, want bool }{{true, true, true}, {true, false, false}, {false, true, false}} {
		lines := []string{}
		if tt.offered {
			lines = append(lines, "a=rtcp-mux")
		}
		p := plainProfile
		p.RTCPMux = tt.wanted
		a, _, err := Accept(mustParse(t, offer("RTP/AVP", "8", lines...)), p)
		if err != nil || a.RTCPMux != tt.want {
			t.Errorf("%+v: %v %v", tt, a.RTCPMux, err)
		}
	}
}

func TestHeld(t *testing.T) {
	tests := []struct {
		name, text string
		held       bool
	}{
		{"active", offer("RTP/AVP", "8"), false},
		{"sendonly", offer("RTP/AVP", "8", "a=sendonly"), true},
		{"inactive", offer("RTP/AVP", "8", "a=inactive"), true},
		{"recvonly is not a hold of us", offer("RTP/AVP", "8", "a=recvonly"), false},
		{"old form", strings.Replace(offer("RTP/AVP", "8"), "c=IN IP4 192.0.2.9", "c=IN IP4 0.0.0.0", 1), true},
		{"session level", strings.Replace(offer("RTP/AVP", "8"), "m=", "a=inactive\r\nm=", 1), true},
		{"stream before session", strings.Replace(offer("RTP/AVP", "8", "a=sendrecv"), "m=", "a=inactive\r\nm=", 1), false},
	}
	for _, tt := range tests {
		if got := mustParse(t, tt.text).Held(); got != tt.held {
			t.Errorf("%s: %v", tt.name, got)
		}
	}
	if (&Description{Line: "phone"}).Held() {
		t.Error("a line is never held by its description")
	}
}

func TestAnsweredCrypto(t *testing.T) {
	ours := []Crypto{{Tag: 1, Suite: AESCM128HMACSHA180}}
	c80, c32 := Crypto{Tag: 4, Suite: AESCM128HMACSHA180}, Crypto{Tag: 1, Suite: AESCM128HMACSHA132}
	echo := Crypto{Tag: 1, Suite: AESCM128HMACSHA180, Lifetime: "2^31"}
	tests := []struct {
		name   string
		answer []Crypto
		tag    int
		ok     bool
	}{
		{"echoed tag among two", []Crypto{c80, echo}, 1, true},
		{"no echo: first _80", []Crypto{c32, c80}, 4, true},
		{"echoed tag with another suite", []Crypto{c32}, 0, false},
		{"none", nil, 0, false},
	}
	for _, tt := range tests {
		if got, ok := AnsweredCrypto(ours, tt.answer); ok != tt.ok || got.Tag != tt.tag {
			t.Errorf("%s: %+v %v", tt.name, got, ok)
		}
	}
}

// TestOtherStreamsKeepTheirPlaces: RFC 3264 §6 wants as many m= lines in the
// answer, in the same order.
func TestOtherStreamsKeepTheirPlaces(t *testing.T) {
	text := "v=0\no=- 1 1 IN IP4 192.0.2.9\ns=-\nc=IN IP4 192.0.2.9\nt=0 0\n" +
		"m=application 9 UDP/DTLS/SCTP webrtc-datachannel\nm=audio 0 RTP/AVP 8\nm=audio 4000 RTP/AVP 8\na=sendonly\nm=video 4002 RTP/AVP 96 97\nc=IN IP4 host.example\n"
	d := mustParse(t, text)
	if d.RTP.Port() != 4000 || d.Direction != SendOnly {
		t.Fatalf("took port %d", d.RTP.Port())
	}
	a, _, err := Accept(d, plainProfile)
	if err != nil {
		t.Fatal(err)
	}
	a.RTP = netip.MustParseAddrPort("192.0.2.1:6000")
	var m []string
	for l := range strings.SplitSeq(string(a.Marshal()), "\r\n") {
		if strings.HasPrefix(l, "m=") {
			m = append(m, l)
		}
	}
	want := []string{"m=application 0 UDP/DTLS/SCTP webrtc-datachannel", "m=audio 0 RTP/AVP 8", "m=audio 6000 RTP/AVP 8", "m=video 0 RTP/AVP 96 97"}
	if diff := cmp.Diff(want, m); diff != "" {
		t.Error(diff)
	}
}

func TestRTCPAndRemoteCandidates(t *testing.T) {
	ap := netip.MustParseAddrPort
	d := mustParse(t, offer("RTP/AVP", "8", "a=rtcp:53020 IN IP4 192.0.2.77", iceLines+"a=remote-candidates:2 192.0.2.1 45665 1 192.0.2.1 45664"))
	if d.RTCP != ap("192.0.2.77:53020") || d.RTCPMux {
		t.Errorf("rtcp %v", d.RTCP)
	}
	want := []netip.AddrPort{ap("192.0.2.1:45664"), ap("192.0.2.1:45665")}
	if diff := cmp.Diff(want, d.ICE.Remote, compare); diff != "" {
		t.Error(diff)
	}
	text := string(d.Marshal())
	for _, l := range []string{"a=rtcp:53020 IN IP4 192.0.2.77\r\n", "a=remote-candidates:1 192.0.2.1 45664 2 192.0.2.1 45665\r\n"} {
		if !strings.Contains(text, l) {
			t.Errorf("%q missing in\n%s", l, text)
		}
	}
	v6 := mustParse(t, strings.ReplaceAll(offer("RTP/AVP", "8", "a=rtcp:4001"), "IP4 192.0.2.9", "IP6 2001:db8::9"))
	if v6.RTCP != ap("[2001:db8::9]:4001") || !strings.Contains(string(v6.Marshal()), "c=IN IP6 2001:db8::9\r\n") {
		t.Errorf("IPv6: %s", v6.Marshal())
	}
}

func TestErrorsNameTheLine(t *testing.T) {
	good := strings.ReplaceAll(offer("RTP/AVP", "8"), "\r\n", "\n")
	tests := []struct {
		name, text string
		line       int
		says       string
	}{
		{"empty", "", 0, "no m=audio"},
		{"too long", strings.Repeat("a=x\n", MaxText/4+1), 0, "bytes"},
		{"too many lines", strings.Repeat("a=x\n", maxLines+1), maxLines + 1, "lines"},
		{"no type", strings.Replace(good, "s=-", "hello", 1), 3, "type=value"},
		{"version", strings.Replace(good, "v=0", "v=1", 1), 1, "version"},
		{"name in c=", strings.Replace(good, "c=IN IP4 192.0.2.9", "c=IN IP4 sbc.example", 1), 4, "sbc.example"},
		{"multicast", strings.Replace(good, "c=IN IP4 192.0.2.9", "c=IN IP4 224.2.1.1/127", 1), 4, "unicast"},
		{"c= missing", strings.Replace(good, "c=IN IP4 192.0.2.9\n", "", 1), 5, "c="},
		{"port", strings.Replace(good, "4000", "70000", 1), 6, "70000"},
		{"short m=", strings.Replace(good, " RTP/AVP 8", "", 1), 6, "m="},
		{"no number among the formats", strings.Replace(good, "AVP 8", "AVP *", 1), 6, "payload"},
		{"image only", strings.Replace(good, "audio", "image", 1), 0, "m=audio"},
		{"rtcp", good + "a=rtcp:x\n", 7, "a=rtcp"},
		{"carriage return inside", strings.Replace(good, "s=-", "s=\r-", 1), 3, "control"},
		{"NUL", strings.Replace(good, "s=-", "s=\x00", 1), 3, "control"},
		{"17 streams", good + strings.Repeat("m=video 1 RTP/AVP 96\n", 16), 22, "16"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Parse([]byte(tt.text))
			var pe *ParseError
			if !errors.As(err, &pe) || pe.Line != tt.line || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("got %v, want line %d and %q", err, tt.line, tt.says)
			}
		})
	}
}

func TestBoundsLeaveOutTheRest(t *testing.T) {
	var lines []string
	for range 200 {
		lines = append(lines, "a=candidate:1 1 UDP 1 192.0.2.9 4000 typ host", crypto("1", "X", "AAAA"))
	}
	d := mustParse(t, offer("RTP/AVP", "8", append(lines, iceLines)...))
	if len(d.ICE.Candidates) != maxCandidates || len(d.Crypto) != maxCryptos {
		t.Errorf("%d candidates, %d crypto lines", len(d.ICE.Candidates), len(d.Crypto))
	}
}

// FuzzParse: whatever was read is written so that it reads the same, and the
// rules take it without panic.
func FuzzParse(f *testing.F) {
	for _, name := range []string{"teams-offer-bypass.sdp", "our-answer-bypass.sdp", "our-offer.sdp", "teams-answer.sdp", "baresip-offer.sdp", "asterisk-offer.sdp"} {
		f.Add(read(f, name))
		f.Add(crlf(read(f, name)))
	}
	f.Add([]byte(offer("RTP/AVP", "8 96", "a=rtpmap:96 X/8000/2", "a=rtcp:1 IN IP6 ::1", "a=remote-candidates:2 ::1 5", iceLines)))
	f.Fuzz(func(t *testing.T, text []byte) {
		d, err := Parse(text)
		if err != nil {
			var pe *ParseError
			if !errors.As(err, &pe) {
				t.Fatalf("error of type %T", err)
			}
			return
		}
		for _, p := range []Profile{teamsProfile, plainProfile, {}} {
			if a, _, err := Accept(d, p); err == nil && (len(a.Codecs) == 0 || a.Secure && len(a.Crypto) != 1) {
				t.Fatalf("accepted with %+v", a)
			}
		}
		out := d.Marshal()
		if len(out) > MaxText {
			return // rtpmap lines were added
		}
		again, err := Parse(out)
		if err != nil {
			t.Fatalf("%v in our own text\n%s", err, out)
		}
		if diff := cmp.Diff(d, again, compare); diff != "" {
			t.Fatalf("%s\n%s", diff, out)
		}
	})
}
