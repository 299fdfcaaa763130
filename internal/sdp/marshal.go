package sdp

import (
	"net/netip"
	"strconv"
)

var directionNames = [...]string{SendRecv: "sendrecv", SendOnly: "sendonly", RecvOnly: "recvonly", Inactive: "inactive"}

// String returns the attribute's name.
func (d Direction) String() string {
	if int(d) < len(directionNames) {
		return directionNames[d]
	}
	return "sendrecv"
}

// Marshal returns the description as SDP text with CRLF line ends. It writes
// standard attributes only, in the order that Teams is known to take: c= and
// ice-lite with the session, then rtpmap and fmtp, ptime, direction, rtcp,
// rtcp-mux, ICE and crypto with the stream. A description of an analog line has
// no text.
func (d *Description) Marshal() []byte {
	if d.Line != "" {
		return nil
	}
	return d.AppendTo(make([]byte, 0, 1024))
}

// AppendTo appends the text of Marshal to dst.
func (d *Description) AppendTo(dst []byte) []byte {
	if d.Line != "" {
		return dst
	}
	addr := d.RTP.Addr()
	if !addr.IsValid() {
		addr = netip.IPv4Unspecified()
	}
	w := writer(dst)
	w.text("v=0\r\no=- ").number(d.SessionID).text(" ").number(d.Version).text(" ").address(addr).end()
	w.text("s=-\r\nc=").address(addr).end()
	w.text("t=0 0\r\n")
	if d.ICE != nil && d.ICE.Lite {
		w.text("a=ice-lite\r\n")
	}
	// Streams we do not use keep their places; the voice has the place left.
	others, written := d.Others, false
	for i := 0; !written || len(others) > 0; i++ {
		switch {
		case len(others) > 0 && (others[0].Index <= i || written):
			w.text("m=").text(others[0].Kind).text(" 0 ").text(others[0].Transport).text(" ").text(others[0].Formats).end()
			others = others[1:]
		case !written:
			d.appendVoice(&w, addr)
			written = true
		}
	}
	return w
}

func (d *Description) appendVoice(w *writer, addr netip.Addr) {
	w.text("m=audio ").number(uint64(d.RTP.Port())).text(" ").text(d.transport())
	var seen [128]bool // never two payload types with one number, C-101
	codecs := make([]Codec, 0, len(d.Codecs))
	for _, c := range d.Codecs {
		if c.PayloadType < 128 && !seen[c.PayloadType] {
			seen[c.PayloadType] = true
			codecs = append(codecs, c)
			w.text(" ").number(uint64(c.PayloadType))
		}
	}
	if len(codecs) == 0 {
		w.text(" 0") // a refused stream still needs a format, RFC 8866 §9
	}
	w.end()
	for _, c := range codecs {
		if c.Name != "" {
			w.text("a=rtpmap:").number(uint64(c.PayloadType)).text(" ").text(c.Name).text("/").number(uint64(c.ClockRate))
			if c.Channels > 1 {
				w.text("/").number(uint64(c.Channels))
			}
			w.end()
		}
		if c.Fmtp != "" {
			w.text("a=fmtp:").number(uint64(c.PayloadType)).text(" ").text(c.Fmtp).end()
		}
	}
	if d.Ptime > 0 {
		w.text("a=ptime:").number(uint64(d.Ptime.Milliseconds())).end()
	}
	w.text("a=").text(d.Direction.String()).end()
	if d.RTCP.IsValid() {
		w.text("a=rtcp:").number(uint64(d.RTCP.Port()))
		if d.RTCP.Addr() != addr {
			w.text(" ").address(d.RTCP.Addr())
		}
		w.end()
	}
	if d.RTCPMux {
		w.text("a=rtcp-mux\r\n")
	}
	if d.ICE != nil {
		d.ICE.appendTo(w)
	}
	for _, c := range d.Crypto {
		*w = appendCrypto(append(*w, "a=crypto:"...), c)
		w.end()
	}
}

func (d *Description) transport() string {
	switch {
	case d.Transport != "":
		return d.Transport
	case d.Secure:
		return "RTP/SAVP"
	}
	return "RTP/AVP"
}

func (i *ICE) appendTo(w *writer) {
	w.text("a=ice-ufrag:").text(i.Ufrag).end()
	w.text("a=ice-pwd:").text(i.Pwd).end()
	for _, c := range i.Candidates {
		transport := c.Transport
		if transport == "" {
			transport = "UDP" // upper case, as Teams spells it
		}
		w.text("a=candidate:").text(c.Foundation).text(" ").number(uint64(c.Component)).text(" ").text(transport)
		w.text(" ").number(uint64(c.Priority)).text(" ").text(c.Addr.Addr().String()).text(" ").number(uint64(c.Addr.Port()))
		w.text(" typ ").text(c.Type)
		if c.Related.IsValid() {
			w.text(" raddr ").text(c.Related.Addr().String()).text(" rport ").number(uint64(c.Related.Port()))
		}
		w.end()
	}
	for n, a := range i.Remote {
		if !a.IsValid() {
			continue
		}
		if n == 0 || !i.Remote[0].IsValid() {
			w.text("a=remote-candidates:")
		} else {
			w.text(" ")
		}
		w.number(uint64(n + 1)).text(" ").text(a.Addr().String()).text(" ").number(uint64(a.Port()))
	}
	if len(i.Remote) > 0 {
		w.end()
	}
}

// writer appends pieces of lines.
type writer []byte

func (w *writer) text(s string) *writer   { *w = append(*w, s...); return w }
func (w *writer) number(n uint64) *writer { *w = strconv.AppendUint(*w, n, 10); return w }
func (w *writer) end()                    { *w = append(*w, '\r', '\n') }

func (w *writer) address(a netip.Addr) *writer {
	if a.Is4() {
		w.text("IN IP4 ")
	} else {
		w.text("IN IP6 ")
	}
	*w = a.AppendTo(*w)
	return w
}
