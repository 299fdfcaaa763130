package analogtest

import (
	"encoding/binary"
	"errors"
)

// Frame types, docs/linecard-link.md §2.
const (
	tHello   = 0x01
	tWelcome = 0x02
	tSetBaud = 0x03
	tStart   = 0x05
	tStop    = 0x06
	tPCM     = 0x10
	tCmd     = 0x20
	tEvt     = 0x21
	tAck     = 0x2F
	tPing    = 0x30
	tPong    = 0x31
	tFill    = 0x32
	tAlarm   = 0x3E
	tReset   = 0x3F
)

// chCard is the channel of frames that concern the card.
const chCard = 0xFF

const (
	headerLen  = 6
	crcLen     = 2
	minDecoded = headerLen + crcLen
	maxDecoded = 254
)

type frame struct {
	typ, ch    byte
	seq, clock uint16
	body       []byte
}

var errFrame = errors.New("bad frame")

// crcX25 is the FCS of RFC 1662: reflected 0x8408, start and final XOR 0xFFFF.
func crcX25(p []byte) uint16 {
	crc := uint16(0xFFFF)
	for _, b := range p {
		crc ^= uint16(b)
		for range 8 {
			if crc&1 != 0 {
				crc = crc>>1 ^ 0x8408
			} else {
				crc >>= 1
			}
		}
	}
	return ^crc
}

// plain returns header, body and CRC.
func (f frame) plain() []byte {
	p := make([]byte, headerLen, headerLen+len(f.body)+crcLen)
	p[0], p[1] = f.typ, f.ch
	binary.LittleEndian.PutUint16(p[2:], f.seq)
	binary.LittleEndian.PutUint16(p[4:], f.clock)
	p = append(p, f.body...)
	return binary.LittleEndian.AppendUint16(p, crcX25(p))
}

// wire returns the octets on the line, with the delimiter behind.
func (f frame) wire() []byte { return append(stuff(f.plain()), 0) }

// stuff is COBS for at most 254 octets: one block chain without zeros.
func stuff(p []byte) []byte {
	out := make([]byte, 1, len(p)+2)
	code := 0 // index of the code octet of the run under way
	for _, b := range p {
		if b == 0 {
			out[code] = byte(len(out) - code)
			code = len(out)
			out = append(out, 0)
			continue
		}
		out = append(out, b)
	}
	out[code] = byte(len(out) - code)
	return out
}

func unstuff(in []byte) ([]byte, error) {
	out := make([]byte, 0, len(in))
	for len(in) > 0 {
		n := int(in[0])
		if n == 0 || n > len(in) {
			return nil, errFrame
		}
		out = append(out, in[1:n]...)
		in = in[n:]
		if n < 0xFF && len(in) > 0 {
			out = append(out, 0)
		}
	}
	return out, nil
}

func parseFrame(stuffed []byte) (frame, error) {
	if len(stuffed) > maxDecoded+1 {
		return frame{}, errFrame
	}
	p, err := unstuff(stuffed)
	if err != nil || len(p) < minDecoded || len(p) > maxDecoded {
		return frame{}, errFrame
	}
	end := len(p) - crcLen
	if binary.LittleEndian.Uint16(p[end:]) != crcX25(p[:end]) {
		return frame{}, errFrame
	}
	return frame{typ: p[0], ch: p[1], seq: binary.LittleEndian.Uint16(p[2:]),
		clock: binary.LittleEndian.Uint16(p[4:]), body: p[headerLen:end]}, nil
}

// splitter finds frames in a stream of octets.
type splitter struct {
	buf     []byte
	over    bool // too long: dropped until the next delimiter
	valid   uint32
	dropped uint32
}

func (s *splitter) feed(p []byte, take func(frame)) {
	for _, b := range p {
		if b != 0 {
			if len(s.buf) > maxDecoded+1 {
				s.over = true
				continue
			}
			s.buf = append(s.buf, b)
			continue
		}
		if len(s.buf) == 0 {
			continue
		}
		f, err := parseFrame(s.buf)
		if s.over || err != nil {
			s.dropped++
		} else {
			s.valid++
			take(f)
		}
		s.buf, s.over = s.buf[:0], false
	}
}

// tlv is one element of HELLO and WELCOME.
type tlv struct {
	tag   byte
	value []byte
}

func parseTLVs(p []byte) ([]tlv, error) {
	var list []tlv
	for len(p) > 0 {
		if len(p) < 2 || int(p[1])+2 > len(p) {
			return nil, errFrame
		}
		list = append(list, tlv{p[0], p[2 : 2+int(p[1])]})
		p = p[2+int(p[1]):]
	}
	return list, nil
}

func appendTLV(dst []byte, tag byte, value ...byte) []byte {
	return append(append(dst, tag, byte(len(value))), value...)
}

func appendText(dst []byte, tag byte, s string) []byte {
	if s == "" {
		return dst
	}
	return appendTLV(dst, tag, []byte(clipped(s, 24))...)
}
