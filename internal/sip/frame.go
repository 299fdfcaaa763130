package sip

import "bytes"

// datagram reads the one message of a datagram, RFC 3261 §18.3.
func datagram(b []byte) (*message, *fault) {
	b = bytes.TrimLeft(b, "\r\n")
	i := bytes.Index(b, crlfcrlf)
	if i < 0 {
		return nil, refuse(0, "no end of the header")
	}
	if i > maxHead {
		return nil, refuse(0, "header too long")
	}
	m, f := lex(b[:i+4])
	if f != nil && f.status == 0 {
		return m, f
	}
	n, g := m.length()
	rest := b[i+4:]
	switch {
	case g != nil && f == nil:
		f = g
	case g != nil:
	case n < 0:
		m.body = rest
	case n > len(rest):
		if f == nil {
			f = refuse(400, "Content-Length beyond the datagram")
		}
	default:
		m.body = rest[:n] // octets behind it are ignored, RFC 4475 §3.1.1.8
	}
	if len(m.body) > maxBody && f == nil {
		f = refuse(413, "body too long")
	}
	return m, f
}

// frame finds the first message of a stream, RFC 3261 §7.5 and §18.3. It
// returns how many bytes are spent; n without a message are CRLFs between
// messages. n = 0 with neither message nor fault asks for more bytes.
func frame(b []byte) (n int, m *message, f *fault) {
	n, _, m, f = framed(b)
	return n, m, f
}

// framed is frame, and how many bytes the message has in all, if that is known.
func framed(b []byte) (n, need int, m *message, f *fault) {
	for bytes.HasPrefix(b[n:], crlf) {
		n += 2
	}
	if n > 0 {
		return n, 0, nil, nil
	}
	i := bytes.Index(b, crlfcrlf)
	if i < 0 {
		// Refuse what cannot become SIP before it has filled the buffer: HTTP,
		// TLS records, lines that end with LF only.
		line, _, whole := bytes.Cut(b, crlf)
		switch {
		case whole && !startsSIP(line), len(line) > maxStart, bytes.IndexByte(line, '\n') >= 0:
			return 0, 0, nil, lost(0, "not SIP")
		case len(b) > maxHead:
			return 0, 0, nil, lost(0, "header too long")
		}
		return 0, 0, nil, nil
	}
	if i > maxHead {
		return 0, 0, nil, lost(0, "header too long")
	}
	head := i + 4
	m, f = lex(b[:head])
	if f != nil && f.close {
		return 0, 0, m, f
	}
	size, g := m.length()
	switch {
	case g != nil:
		return 0, 0, m, g
	case size < 0:
		return 0, 0, m, lost(400, "no Content-Length on a stream")
	case len(b) < head+size:
		return 0, head + size, nil, nil
	}
	m.body = bytes.Clone(b[head : head+size])
	return head + size, 0, m, f
}

func startsSIP(line []byte) bool {
	if len(line) >= 4 && bytes.EqualFold(line[:4], []byte("SIP/")) {
		return true
	}
	i := bytes.LastIndex(bytes.TrimRight(line, " "), []byte(" "))
	return i > 0 && len(line)-i > 5 && bytes.EqualFold(line[i+1:i+5], []byte("SIP/"))
}

// framer finds the messages of a stream that comes in small pieces, without
// reading again at each piece what cannot have become a message.
type framer struct {
	seen int // bytes that held none
	need int // bytes that the message has, 0 before its header is whole
}

// next is frame for a buffer that begins where the last one did, with more bytes
// behind, or behind what the last call spent.
func (f *framer) next(b []byte) (n int, m *message, fl *fault) {
	switch seen := min(f.seen, len(b)); {
	case len(b) < f.need,
		f.need == 0 && seen > 0 && (len(b) <= maxStart || seen > maxStart) && len(b) <= maxHead && bytes.IndexByte(b[seen:], '\n') < 0:
		f.seen = len(b)
		return 0, nil, nil
	}
	n, f.need, m, fl = framed(b)
	f.seen = len(b)
	if n > 0 {
		f.seen = 0
	}
	return n, m, fl
}
