package sdp

import (
	"strings"
	"testing"
)

// TestMalformedAttributesAreLeftOut: a line that cannot be used counts as
// absent, and the rest of the description is read.
func TestMalformedAttributesAreLeftOut(t *testing.T) {
	const suite = string(AESCM128HMACSHA180)
	long := strings.Repeat("x", maxCredential+1)
	lines := []string{
		"a=crypto:", "a=crypto:1 " + suite, "a=crypto:x " + suite + " inline:" + keyA, "a=crypto:9999999999 " + suite + " inline:" + keyA,
		"a=crypto:1 " + suite + " uri:" + keyA, "a=crypto:1 " + suite + " inline:", "a=crypto:1 " + suite + " inline:!!!!",
		"a=crypto:1 " + suite + " inline:" + keyA + "|2^x", "a=crypto:1 " + suite + " inline:" + keyA + "|2^31|x:1",
		"a=crypto:1 " + suite + " inline:" + keyA + "|2^31|1:0", "a=crypto:1 " + suite + " inline:" + keyA + "|2^31|1:129",
		"a=crypto:1 " + suite + " inline:" + keyA + "|2^31|1:1|2:1", "a=crypto:1 " + suite + " inline:" + keyA + " KDR=1",
		"a=candidate:", "a=candidate:1 1 UDP 1 192.0.2.9 4000 typ", "a=candidate:1 x UDP 1 192.0.2.9 4000 typ host",
		"a=candidate:1 0 UDP 1 192.0.2.9 4000 typ host", "a=candidate:1 1 UDP -1 192.0.2.9 4000 typ host",
		"a=candidate:1 1 UDP 1 4f2a.local 4000 typ host", "a=candidate:1 1 UDP 1 192.0.2.9 0 typ host",
		"a=candidate:1 1 UDP 1 192.0.2.9 70000 typ host", "a=candidate:1 1 UDP 1 fe80::1%eth0 4000 typ host",
		"a=candidate:" + strings.Repeat("f", 33) + " 1 UDP 1 192.0.2.9 4000 typ host", "a=candidate:1 1 UDP 1 192.0.2.9 4000 kind host",
		"a=remote-candidates:1 192.0.2.1", "a=remote-candidates:3 192.0.2.1 5", "a=remote-candidates:1 name 5", "a=remote-candidates:1 192.0.2.1 x",
		"a=rtpmap:8", "a=rtpmap:8 PCMU", "a=rtpmap:8 /8000", "a=rtpmap:8 PCMU/0", "a=rtpmap:8 PCMU/x", "a=rtpmap:200 PCMU/8000", "a=rtpmap:8 P C/8000",
		"a=rtpmap:77 X/8000", "a=fmtp:x", "a=fmtp:77 0-15", "a=ptime:x", "a=ptime:100000", "a=ptime:500", "a=ice-ufrag:a b", "a=rtcp",
		"a=ice-pwd:" + long, "a=sendrecv-not", "b=", "k=prompt", "z=0 0", "a=",
	}
	for _, l := range lines {
		d, err := Parse([]byte(offer("RTP/SAVP", "8", l)))
		if err != nil {
			t.Errorf("%s: %v", l, err)
			continue
		}
		clean := mustParse(t, offer("RTP/SAVP", "8"))
		if got, want := string(d.Marshal()), string(clean.Marshal()); got != want {
			t.Errorf("%q left a trace:\n%s", l, got)
		}
	}
}

func TestRelatedAddressMayBeMissingOrHidden(t *testing.T) {
	for tail, want := range map[string]string{
		"":                             "invalid AddrPort",
		" raddr 10.0.0.1 rport 9":      "10.0.0.1:9",
		" raddr 0.0.0.0 rport 0":       "0.0.0.0:0",
		" raddr x.local rport 9":       "invalid AddrPort",
		" generation 0 raddr ::1":      "[::1]:0",
		" rport 5":                     "invalid AddrPort",
		" generation 0 network-cost 9": "invalid AddrPort",
	} {
		c, ok := parseCandidate("1 1 udp 5 192.0.2.9 4000 typ SRFLX" + tail)
		if !ok || c.Related.String() != want || c.Type != "srflx" || c.Priority != 5 {
			t.Errorf("%q: %+v %v", tail, c, ok)
		}
	}
}

func TestVoiceEventAndCN(t *testing.T) {
	d := mustParse(t, offer("RTP/AVP", "101 13 97 9 8 110 118", "a=rtpmap:101 telephone-event/8000", "a=rtpmap:110 telephone-event/16000", "a=rtpmap:97 red/8000", "a=rtpmap:118 CN/16000"))
	if v, ok := d.Voice(); !ok || v.PayloadType != 9 {
		t.Errorf("voice %+v", v)
	}
	for clock, want := range map[int][2]uint8{8000: {101, 13}, 16000: {110, 118}} {
		e, ok1 := d.Event(clock)
		n, ok2 := d.CN(clock)
		if !ok1 || !ok2 || e.PayloadType != want[0] || n.PayloadType != want[1] {
			t.Errorf("%d Hz: %+v %+v", clock, e, n)
		}
	}
	if _, ok := d.Event(48000); ok {
		t.Error("an event of no clock")
	}
}

func TestPeculiarTexts(t *testing.T) {
	ok := map[string]string{
		"no v= or s=":          "c=IN IP4 192.0.2.9\nm=audio 4000 RTP/AVP 8",
		"blank lines":          "v=0\n\nc=IN IP4 192.0.2.9\n\nm=audio 4000 RTP/AVP 8\n\n \n",
		"c= after attributes":  "v=0\nm=audio 4000 RTP/AVP 8\na=sendrecv\nc=IN IP4 192.0.2.9",
		"second c= (layers)":   "v=0\nc=IN IP4 192.0.2.9\nc=IN IP4 192.0.2.10\nm=audio 4000/2 RTP/AVP 8",
		"odd o= line":          "v=0\no=- x\nc=IN IP4 192.0.2.9\nm=audio 4000 RTP/AVP 8",
		"o= beyond 64 bits":    "v=0\no=- 99999999999999999999999 7 IN IP4 x\nc=IN IP4 192.0.2.9\nm=AUDIO 4000 rtp/avp 8",
		"attribute in capital": "v=0\nc=IN IP4 192.0.2.9\nm=audio 4000 RTP/AVP 8\nA=x\na=SENDRECV",
		"mapped IPv4":          "v=0\nc=IN IP6 ::ffff:192.0.2.9\nm=audio 4000 RTP/AVP 8",
	}
	for name, text := range ok {
		d, err := Parse([]byte(text))
		if err != nil || d.RTP.String() != "192.0.2.9:4000" || d.Direction != SendRecv || len(d.Codecs) != 1 {
			t.Errorf("%s: %+v, %v", name, d, err)
		}
	}
	refused := mustParse(t, "v=0\nm=audio 0 RTP/AVP 8\n")
	if refused.RTP.Port() != 0 || !strings.Contains(string(refused.Marshal()), "m=audio 0 RTP/AVP 8\r\n") {
		t.Errorf("%s", refused.Marshal())
	}
	if text := (&Description{Line: "desk"}).Marshal(); text != nil {
		t.Errorf("a line has a text: %s", text)
	}
	if text := (&Description{Line: "desk"}).AppendTo([]byte("x")); string(text) != "x" {
		t.Errorf("a line has a text: %s", text)
	}
	empty := (&Description{Secure: true}).Marshal()
	if !strings.Contains(string(empty), "m=audio 0 RTP/SAVP 0\r\n") {
		t.Errorf("%s", empty)
	}
}
