package link

import (
	"encoding/binary"
	"errors"
)

// Type is the type of a frame, docs/linecard-link.md §2.
type Type uint8

// Types of frames.
const (
	TypeHello   Type = 0x01
	TypeWelcome Type = 0x02
	TypeSetBaud Type = 0x03
	TypeStart   Type = 0x05
	TypeStop    Type = 0x06
	TypePCM     Type = 0x10
	TypeCommand Type = 0x20
	TypeEvent   Type = 0x21
	TypeAck     Type = 0x2F
	TypePing    Type = 0x30
	TypePong    Type = 0x31
	TypeFill    Type = 0x32
	TypeAlarm   Type = 0x3E
	TypeReset   Type = 0x3F
)

// Limits of the link.
const (
	CardChannel = 0xFF // channel of frames that concern the card
	Channels    = 24   // most channels of a card
	MaxBody     = 246  // octets
	headerLen   = 6
	crcLen      = 2
	maxDecoded  = headerLen + MaxBody + crcLen // 254: one COBS block
	minDecoded  = headerLen + crcLen
	// MaxWire is the most octets of a frame on the wire, delimiter included.
	MaxWire = maxDecoded + 2
)

// Header is what every frame begins with.
type Header struct {
	Type    Type
	Channel uint8
	Seq     uint16
	Clock   uint16 // card milliseconds
}

// Frame is a received frame with its body copied, so that it can be handed on.
type Frame struct {
	Header
	body [MaxBody]byte
	n    int
}

// Body is valid as long as the Frame.
func (f *Frame) Body() []byte { return f.body[:f.n] }

// SetBody copies b into the frame. It reports false when b is too long.
func (f *Frame) SetBody(b []byte) bool {
	if len(b) > MaxBody {
		return false
	}
	f.n = copy(f.body[:], b)
	return true
}

// Faults of a received frame. They are counted, never fatal.
var (
	errCOBS   = errors.New("not COBS")
	errLength = errors.New("length")
	errCRC    = errors.New("CRC")
)

// AppendFrame appends the frame as sent, delimiter included. It does not
// allocate when dst has room for MaxWire octets. A body longer than MaxBody is
// a bug of the caller.
func AppendFrame(dst []byte, h Header, body []byte) []byte {
	if len(body) > MaxBody {
		panic("link: body too long")
	}
	var raw [maxDecoded]byte
	raw[0], raw[1] = byte(h.Type), h.Channel
	binary.LittleEndian.PutUint16(raw[2:], h.Seq)
	binary.LittleEndian.PutUint16(raw[4:], h.Clock)
	n := headerLen + copy(raw[headerLen:], body)
	binary.LittleEndian.PutUint16(raw[n:], CRC(raw[:n]))
	return append(appendCOBS(dst, raw[:n+crcLen]), 0)
}

// decodeFrame decodes the octets between two delimiters in place. The body
// returned is a part of wire.
func decodeFrame(wire []byte) (Header, []byte, error) {
	if len(wire) > maxDecoded+1 {
		return Header{}, nil, errLength
	}
	raw, ok := decodeCOBS(wire)
	if !ok {
		return Header{}, nil, errCOBS
	}
	if len(raw) < minDecoded || len(raw) > maxDecoded {
		return Header{}, nil, errLength
	}
	n := len(raw) - crcLen
	if CRC(raw[:n]) != binary.LittleEndian.Uint16(raw[n:]) {
		return Header{}, nil, errCRC
	}
	h := Header{
		Type:    Type(raw[0]),
		Channel: raw[1],
		Seq:     binary.LittleEndian.Uint16(raw[2:]),
		Clock:   binary.LittleEndian.Uint16(raw[4:]),
	}
	return h, raw[headerLen:n], nil
}

// Reader finds frames in a stream of octets. After damage it is in step again
// at the next delimiter. It belongs to one goroutine.
type Reader struct {
	buf  [maxDecoded + 1]byte
	n    int
	skip bool // too long: wait for the delimiter

	Good uint64 // frames delivered
	Bad  uint64 // frames dropped: COBS, length, CRC
}

// Feed takes octets as they come and calls frame for each valid frame. The body
// is valid during the call only. Feed does not allocate.
func (r *Reader) Feed(p []byte, frame func(h Header, body []byte)) {
	for _, c := range p {
		if c != 0 {
			if r.n == len(r.buf) {
				r.skip = true
			} else {
				r.buf[r.n] = c
				r.n++
			}
			continue
		}
		n, skip := r.n, r.skip
		r.n, r.skip = 0, false
		switch {
		case skip:
			r.Bad++
		case n > 0:
			h, body, err := decodeFrame(r.buf[:n])
			if err != nil {
				r.Bad++
				continue
			}
			r.Good++
			frame(h, body)
		}
	}
}
