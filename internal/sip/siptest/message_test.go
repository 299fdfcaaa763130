package siptest

import (
	"bufio"
	"bytes"
	"strings"
	"testing"
)

const torture = "INVITE sip:+49@b.example;user=phone SIP/2.0\r\n" +
	"v: SIP/2.0/TLS one.example;branch=z9hG4bK1 ,\r\n SIP/2.0/UDP two.example;branch=z9hG4bK2\r\n" +
	"FROM:   \"Smith, J. <x>\" <sip:a@b.example;x-t=1>;TAG=77\r\n" +
	"t: <sip:c@d.example>\r\n" +
	"CALL-id: 9@z\r\n" +
	"cseq: 4   INVITE\r\n" +
	"m: <sip:api.example:443;x-i=a;x-c=b/s/1/c>\r\n" +
	"c: application/sdp\r\n" +
	"l: 4\r\n\r\nv=0\r"

func TestC24CompactFoldedAndCapitalHeadersReadTheSame(t *testing.T) {
	for name, read := range map[string]func() (*Message, error){
		"datagram": func() (*Message, error) { return Parse([]byte(torture)) },
		"stream":   func() (*Message, error) { return Read(bufio.NewReader(strings.NewReader("\r\n\r\n" + torture))) },
	} {
		m, err := read()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if vias := m.All("Via"); len(vias) != 2 || topBranch(m) != "z9hG4bK1" {
			t.Errorf("%s: Via %q", name, vias)
		}
		if param(m.Get("From"), "tag") != "77" || addrSpec(m.Get("From")) != "sip:a@b.example;x-t=1" {
			t.Errorf("%s: From %q", name, m.Get("From"))
		}
		if n, method := m.CSeq(); n != 4 || method != "INVITE" {
			t.Errorf("%s: CSeq %d %q", name, n, method)
		}
		if addrSpec(m.Get("Contact")) != "sip:api.example:443;x-i=a;x-c=b/s/1/c" {
			t.Errorf("%s: Contact %q", name, m.Get("Contact"))
		}
		if string(m.Body) != "v=0\r" || !hasSDP(m) {
			t.Errorf("%s: body %q", name, m.Body)
		}
		again, err := Parse(m.Bytes(true))
		if err != nil || !bytes.Equal(again.Bytes(true), m.Bytes(true)) {
			t.Errorf("%s: not stable: %v", name, err)
		}
	}
}

func TestMalformedMessagesAreErrors(t *testing.T) {
	for _, text := range []string{
		"", "\r\n", "INVITE\r\n\r\n", "SIP/2.0 99 x\r\n\r\n", "SIP/2.0 abc x\r\n\r\n", "INVITE sip:a SIP/2.0\r\n folded: first\r\n\r\n",
		"INVITE sip:a SIP/2.0\r\nno colon\r\n\r\n", "INVITE sip:a SIP/2.0\r\nl: -1\r\n\r\n", "INVITE sip:a SIP/2.0\r\nl: 9\r\n\r\nx",
		"INVITE sip:a SIP/2.0\r\nA: " + strings.Repeat("x", maxHead) + "\r\n\r\n", "INVITE sip:a SIP/2.0\r\nA: b\r\n",
	} {
		if m, err := Parse([]byte(text)); err == nil {
			t.Errorf("%.60q read as %+v", text, m)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(torture))
	f.Add([]byte("SIP/2.0 200 OK\r\nVia: SIP/2.0/TLS x;branch=1\r\nContent-Length: 0\r\n\r\n"))
	f.Add([]byte("SIP/2.0 200\r\n\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := Parse(b)
		if err != nil {
			return
		}
		for _, name := range []string{"Via", "Contact", "From", "To"} {
			for _, v := range m.All(name) {
				_ = param(v, "tag")
				_, _ = parseURI(addrSpec(v))
			}
		}
		_, _ = m.CSeq()
		if m.IsRequest() {
			_ = respond(m, 200, "tag").Bytes(true)
		}
	})
}

func FuzzStream(f *testing.F) {
	f.Add([]byte("\r\n\r\n" + torture + torture))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bufio.NewReader(bytes.NewReader(b))
		for {
			if _, err := Read(r); err != nil {
				return
			}
		}
	})
}
