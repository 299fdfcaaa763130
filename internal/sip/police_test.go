package sip

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func torture(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "rfc4475", name+".dat"))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// judge is the way of a datagram: read, then police. -1 is silence, 0 passes.
func judge(m *message, f *fault) (int, *fault) {
	if m == nil {
		return -1, f
	}
	if f == nil {
		f = police(m)
	}
	switch {
	case f == nil:
		return 0, nil
	case f.status == 0:
		return -1, f
	}
	return f.status, f
}

// verdicts of the 49 messages: 0 passes to the trunk, -1 is dropped. Methods
// that pass are answered with 405 by the trunk where we do not take them
// (REGISTER, MESSAGE): TestRFC4475Answers.
var verdicts = map[string]int{
	// 3.1.1 valid
	"wsinv": 0, "intmeth": 501, "esc01": 0, "escnull": 0, "esc02": 501, "lwsdisp": 0, "longreq": 0, "dblreq": 0,
	"semiuri": 0, "transports": 0, "mpart01": 0, "unreason": 0, "noreason": 0,
	// 3.1.2 invalid
	"badinv01": 400, "clerr": 400, "ncl": 400, "scalar02": 400, "scalarlg": -1, "quotbal": 400, "ltgtruri": 400,
	"lwsruri": 400, "lwsstart": 400, "trws": 400, "escruri": 400, "baddate": 0, "regbadct": 400, "badaspec": 400,
	"baddn": 0, "badvers": 505, "mismatch01": 400, "mismatch02": 501, "bigcode": -1,
	// 3.2 transaction layer
	"badbranch": 400,
	// 3.3 application layer
	"insuf": 400, "unkscm": 416, "novelsc": 416, "unksm2": 0, "bext01": 420, "invut": 415, "regaut01": 0, "multi01": 400,
	"mcl01": 400, "bcast": -1, "zeromf": 0, "cparam01": 0, "cparam02": 0, "regescrt": 0, "sdp01": 406,
	// 3.4 backward compatibility
	"inv2543": 400,
}

func TestRFC4475Verdicts(t *testing.T) {
	files, err := filepath.Glob("testdata/rfc4475/*.dat")
	if err != nil || len(files) != 49 || len(verdicts) != 49 {
		t.Fatalf("%d files and %d verdicts, want 49: %v", len(files), len(verdicts), err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".dat")
		want, ok := verdicts[name]
		if !ok {
			t.Errorf("%s: no verdict", name)
			continue
		}
		m, f := datagram(torture(t, name))
		got, f := judge(m, f)
		if got != want {
			t.Errorf("%s: verdict %d (%+v), want %d", name, got, f, want)
		}
		if got == 0 && m.req == nil && m.res == nil {
			t.Errorf("%s: passed without having been parsed", name)
		}
		if got > 0 && !m.answerable() {
			t.Errorf("%s: cannot be answered, its Via was not found", name)
		}
	}
}

// TestRFC4475Meaning checks what was understood of the messages that pass.
func TestRFC4475Meaning(t *testing.T) {
	read := func(name string) *message {
		t.Helper()
		m, f := datagram(torture(t, name))
		if v, f := judge(m, f); v != 0 {
			t.Fatalf("%s: %d %+v", name, v, f)
		}
		return m
	}
	m := read("wsinv")
	if m.from.tag() != "98asjd8" || m.to.tag() != "1918181833n" || m.from.display != `J Rosenberg \"` || len(m.vias) != 3 ||
		m.vias[1].branch() != "z9hG4bK9ikj8" || m.cseq != 9 || m.cmeth != "INVITE" || len(m.body) != 150 {
		t.Errorf("wsinv: %+v", m)
	}
	if u, _ := parseURI(read("semiuri").target); u.user != "user;par=u%40example.net" || u.host != "example.com" {
		t.Errorf("semiuri: %+v", u)
	}
	if m := read("escnull"); !strings.Contains(m.to.uri, "null-%00-null") || len(m.list("contact")) != 2 {
		t.Errorf("escnull: %q", m.to.uri)
	}
	if m := read("dblreq"); m.method != "REGISTER" || len(m.body) != 0 {
		t.Errorf("dblreq: %+v", m)
	}
	if m := read("unreason"); m.status != 200 || !strings.HasPrefix(m.reason, "= 2**3 * 5**2") {
		t.Errorf("unreason: %q", m.reason)
	}
	if m := read("noreason"); m.status != 100 || m.reason != "" {
		t.Errorf("noreason: %d %q", m.status, m.reason)
	}
	// A parameter behind the brackets is the contact's, one within is the URI's.
	a, _ := parseAddress(read("cparam01").list("contact")[0])
	if _, ok := a.params.get("unknownparam"); !ok || a.uri != "sip:+19725552222@gw1.example.net" {
		t.Errorf("cparam01: %+v", a)
	}
	a, _ = parseAddress(read("cparam02").list("contact")[0])
	if _, ok := a.params.get("unknownparam"); ok || !strings.HasSuffix(a.uri, ";unknownparam") {
		t.Errorf("cparam02: %+v", a)
	}
	if a, _ = parseAddress(read("regescrt").list("contact")[0]); !strings.Contains(a.uri, "?Route=%3Csip:") {
		t.Errorf("regescrt: %+v", a)
	}
	if m := read("longreq"); len(m.list("via")) != 34 {
		t.Errorf("longreq: %d Via", len(m.list("via")))
	}
}

// TestFramingSplit cuts the messages at every byte, and puts them behind each
// other: a stream gives the same messages and never goes out of step.
func TestFramingSplit(t *testing.T) {
	type out struct{ text, body string }
	feed := func(stream []byte, cuts ...int) (msgs []out, closed bool) {
		var buf []byte
		last := 0
		for _, c := range append(cuts, len(stream)) {
			buf = append(buf, stream[last:c]...)
			last = c
			for !closed {
				n, m, f := frame(buf)
				if f != nil && f.close {
					return msgs, true
				}
				if n == 0 {
					break
				}
				if m != nil {
					msgs = append(msgs, out{m.method + m.target + m.get("call-id"), string(m.body)})
				}
				buf = buf[n:]
			}
		}
		return msgs, closed
	}
	// Those end a stream: where the message ends cannot be known.
	closing := map[string]bool{"ncl": true, "mcl01": true, "inv2543": true, "bigcode": false, "clerr": false}
	for name := range verdicts {
		raw := torture(t, name)
		whole, closed := feed(raw)
		if c, ok := closing[name]; ok && c != closed {
			t.Errorf("%s: closed %v", name, closed)
		}
		for cut := 1; cut < len(raw); cut += 1 + len(raw)/400 {
			parts, c := feed(raw, cut)
			if len(parts) != len(whole) || c != closed {
				t.Fatalf("%s cut at %d: %d messages, closed %v; whole: %d, %v", name, cut, len(parts), c, len(whole), closed)
			}
			for i := range parts {
				if parts[i] != whole[i] {
					t.Fatalf("%s cut at %d: %+v, whole %+v", name, cut, parts[i], whole[i])
				}
			}
		}
		if closed || name == "clerr" || name == "dblreq" {
			continue
		}
		good := torture(t, "esc01")
		both, _ := feed(append(append([]byte{}, raw...), good...))
		if len(both) != len(whole)+1 || !strings.HasPrefix(both[len(both)-1].text, "INVITE") {
			t.Errorf("%s then esc01: %d messages", name, len(both))
		}
	}
}

func TestC23KeepAliveIsNoError(t *testing.T) {
	if n, m, f := frame([]byte("\r\n\r\nOPT")); n != 4 || m != nil || f != nil {
		t.Errorf("frame: %d %v %v", n, m, f)
	}
}

func TestStreamRefusesWhatIsNotSIP(t *testing.T) {
	for name, b := range map[string]string{
		"http": "GET / HTTP/1.1\r\n", "tls": "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n", "bare lf": "OPTIONS sip:a SIP/2.0\nVia: x\n",
		"endless line": strings.Repeat("A", maxStart+1), "endless header": "OPTIONS sip:a SIP/2.0\r\n" + strings.Repeat("a: b\r\n", maxHead/6+1),
		"no length":    "OPTIONS sip:a SIP/2.0\r\nVia: SIP/2.0/TCP a;branch=z9hG4bKx\r\n\r\n",
		"huge body":    "OPTIONS sip:a SIP/2.0\r\nContent-Length: 99999999999999999999\r\n\r\n",
		"length words": "OPTIONS sip:a SIP/2.0\r\nContent-Length: 1 1\r\n\r\n",
	} {
		if _, _, f := frame([]byte(b)); f == nil || !f.close {
			t.Errorf("%s: %+v, want the stream closed", name, f)
		}
	}
}

func TestC24SpellingsAreEqual(t *testing.T) {
	head := func(names ...string) string {
		v := []string{"SIP/2.0/TLS a.example:5061;branch=z9hG4bKq", "<sip:a@b.example>;tag=1", "<sip:c@d.example>", "77@x", "4 OPTIONS", "70", "0"}
		s := "OPTIONS sip:c@d.example SIP/2.0\r\n"
		for i, n := range names {
			s += n + ": " + v[i] + "\r\n"
		}
		return s + "\r\n"
	}
	fold := "OPTIONS sip:c@d.example SIP/2.0\r\nVia\t:\r\n SIP/2.0/TLS\r\n\ta.example:5061;branch=z9hG4bKq\r\nFrom:<sip:a@b.example>\r\n ;tag=1\r\n" +
		"To:\r\n <sip:c@d.example>\r\nCall-ID: 77@x\r\nCSeq: 4\r\n OPTIONS\r\nMax-Forwards:70\r\nl: 0\r\n\r\n"
	var first string
	for _, s := range []string{
		head("Via", "From", "To", "Call-ID", "CSeq", "Max-Forwards", "Content-Length"),
		head("VIA", "FROM", "TO", "CALL-ID", "CSEQ", "MAX-FORWARDS", "CONTENT-LENGTH"),
		head("v", "f", "t", "i", "cseq", "max-forwards", "l"), fold,
	} {
		_, m, f := frame([]byte(s))
		if v, f := judge(m, f); v != 0 {
			t.Fatalf("%d %+v\n%s", v, f, s)
		}
		out := m.vias[0].text() + m.from.uri + m.from.tag() + m.to.uri + m.callID + m.req.CSeq().Value() + m.req.Via().Value()
		if first == "" {
			first = out
		} else if out != first {
			t.Errorf("%q differs from %q", out, first)
		}
	}
}

func TestC45FindsTheDescriptionInMultipart(t *testing.T) {
	body := "--b7\r\nContent-Type: application/pidf+xml\r\n\r\n<presence/>\r\n--b7\r\ncontent-type: application/sdp\r\n\r\n" + sdpText(3) + "\r\n--b7--\r\n"
	for name, ct := range map[string]string{"plain": "multipart/mixed; boundary=b7", "quoted": `Multipart/Mixed;boundary="b7"`} {
		got, err := sdpBody(ct, []byte(body))
		if err != nil || !strings.HasPrefix(string(got), "v=0") {
			t.Errorf("%s: %q %v", name, got, err)
		}
	}
	for name, b := range map[string]string{"none": "--b7\r\nContent-Type: text/plain\r\n\r\nx\r\n--b7--\r\n", "no end": "--b7\r\nContent-Type", "other": "hello"} {
		if got, err := sdpBody("multipart/mixed;boundary=b7", []byte(b)); err == nil {
			t.Errorf("%s: %q", name, got)
		}
	}
}

// mutate damages a message in a way that peers and attackers do.
func mutate(r *rand.Rand, b []byte) []byte {
	b = bytes.Clone(b)
	for range 1 + r.IntN(4) {
		if len(b) == 0 {
			return b
		}
		i := r.IntN(len(b))
		switch r.IntN(6) {
		case 0:
			b[i] = byte(r.Uint32())
		case 1:
			b = append(b[:i], b[min(len(b), i+1+r.IntN(20)):]...)
		case 2:
			b = append(b[:i:i], append(bytes.Repeat(b[i:i+1], r.IntN(200)), b[i:]...)...)
		case 3:
			b = b[:i]
		case 4:
			j := r.IntN(len(b))
			b = append(b[:i:i], b[min(i, j):]...)
		case 5:
			b[i] = ";,<>\"\r\n\x00 :=%@"[r.IntN(13)]
		}
	}
	return b
}

func seeds(t testing.TB) [][]byte {
	var out [][]byte
	for name := range verdicts {
		out = append(out, torture(t, name))
	}
	return out
}

func FuzzDatagram(f *testing.F) {
	for _, b := range seeds(f) {
		f.Add(b)
	}
	tr := &trunk{transport: "UDP", host: "h", port: 5060, e: &Endpoint{version: "1"}}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, fl := datagram(b)
		if v, fl := judge(m, fl); v > 0 {
			if m.answerable() {
				_ = tr.response(m, addrPort(nil), v, "x", fl.extra, "", nil).String()
			}
			return
		} else if v < 0 {
			return
		}
		if len(m.fields) > maxFields || len(m.body) > maxBody {
			t.Fatal("limits are not kept")
		}
		_, _ = m.description()
		_, _ = m.called(), m.callingParty()
		_, _, _ = m.teamsHeaders(), answeredElsewhere(m), m.retryAfter()
		_ = causeOf(486, m)
		if m.request && m.method == "INVITE" {
			d := uasDialog(m, "t")
			req, target := d.request(tr, "BYE", 1, nil, "", nil)
			if strings.ContainsAny(target, "\r\n") || strings.Contains(req.String(), "\r\n\r\nx") {
				t.Fatal("target breaks the line")
			}
		}
		if m.request {
			_ = tr.response(m, addrPort(nil), 200, "x", nil, "", nil).String()
		}
	})
}

// FuzzFrame: what is read of two messages behind each other is what is read of
// each, so no message can hide in another.
func FuzzFrame(f *testing.F) {
	all := seeds(f)
	for i, b := range all {
		f.Add(b, all[(i+7)%len(all)], uint16(i))
	}
	f.Fuzz(func(t *testing.T, a, b []byte, cut uint16) {
		n, m, fl := frame(a)
		if n > len(a) {
			t.Fatal("spent more than there was")
		}
		if m == nil || n == 0 || fl != nil && fl.close {
			return
		}
		n2, m2, _ := frame(append(bytes.Clone(a[:n]), b...))
		if n2 != n || m2 == nil || !bytes.Equal(m2.body, m.body) || m2.target != m.target {
			t.Fatal("the message depends on what follows it")
		}
		if c := int(cut) % (n + 1); c < n {
			if n3, m3, f3 := frame(a[:c]); m3 != nil && n3 > 0 && (f3 == nil || !f3.close) {
				t.Fatalf("a message of %d bytes was found in its first %d", n, c)
			}
		}
	})
}

func FuzzHeaders(f *testing.F) {
	for _, s := range []string{
		`"J Rosenberg \\\"" <sip:j@example.com>;tag=1`, "sip:a@b;tag=2", "<sip:api-du-a-euwe.pstnhub.microsoft.com:443;x-i=6d0f;x-c=9c3e/s/1/77ab>",
		"<tel:+4915550123>,<sip:user@tenant.example>", "SIP/2.0/TLS [2001:db8::1]:5061;branch=z9hG4bK1;rport", `Q.850;cause=17;text="x;y, z"`,
		"sip:+49-30.55(5)10;ext=5@[::1]:99;user=phone?a=b", "proxy.branch.example, vn.branch.example", "Signal=5\r\nDuration=160",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if a, err := parseAddress(s); err == nil {
			if !validURI(a.uri) {
				t.Fatalf("%q: uri %q", s, a.uri)
			}
			// What we write of it reads the same.
			if b, err := parseAddress(a.bare()); err == nil && b.uri != a.uri {
				t.Fatalf("%q: %q became %q", s, a.uri, b.uri)
			}
			if u, err := parseURI(a.uri); err == nil {
				n := u.userNumber()
				if strings.ContainsAny(escapeUser(n), " <>@\r\n\";") {
					t.Fatalf("%q: user part %q", s, escapeUser(n))
				}
			}
		}
		if v, err := parseVia(s); err == nil {
			w, err := parseVia(v.text())
			if err != nil || w.sentBy() != v.sentBy() || w.branch() != v.branch() {
				t.Fatalf("%q: %q does not read back: %v", s, v.text(), err)
			}
		}
		_ = splitList(s)
		_, _ = dtmfRelay("application/dtmf-relay", s)
		m := &message{fields: []field{{"reason", s}, {"x-ms-userlocation", s}, {"x-ms-mediapath", s}, {"p-asserted-identity", s}, {"privacy", s}, {"retry-after", s}}}
		_, _, _, _, _ = m.teamsHeaders(), m.callingParty(), answeredElsewhere(m), m.retryAfter(), reasonField(causeOf(486, m), false)
		if strings.ContainsAny(quote(s), "\r\n") {
			t.Fatal("quote breaks the line")
		}
		_, _ = sdpBody("multipart/mixed; boundary=x", []byte(s))
	})
}

// BenchmarkTrickle reads a large message that comes a byte at a time: the work
// must not grow with its square.
func BenchmarkTrickle(b *testing.B) {
	head := "OPTIONS sip:a@b SIP/2.0\r\nVia: SIP/2.0/TCP a;branch=z9hG4bKx\r\n" +
		strings.Repeat("X-Long: "+strings.Repeat("x", 400)+"\r\n", 70) + "Content-Length: 60000\r\n\r\n"
	text := []byte(head + strings.Repeat("b", 60000))
	for b.Loop() {
		var f framer
		for i := range text {
			n, m, fl := f.next(text[:i+1])
			if fl != nil || n > 0 && i != len(text)-1 {
				b.Fatal(n, m, fl)
			}
		}
	}
}

// TestFramerAgreesWithFrame: what is left out while bytes are missing changes
// nothing in what is found.
func TestFramerAgreesWithFrame(t *testing.T) {
	for _, s := range seeds(t) {
		var f framer
		text := append(bytes.Clone(s), "\r\n\r\nOPTIONS sip:a@b SIP/2.0\r\n\r\n"...)
		for i := range text {
			b := text[:i+1]
			n, m, fault := frame(b)
			n2, m2, fault2 := f.next(b)
			if n != n2 || (m == nil) != (m2 == nil) || (fault == nil) != (fault2 == nil) {
				t.Fatalf("%q: %d %v %v, framer %d %v %v", b, n, m, fault, n2, m2, fault2)
			}
			if n > 0 || fault != nil {
				break
			}
		}
	}
}
