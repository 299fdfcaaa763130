package analogtest

import "math/bits"

// Law is a G.711 companding law.
type Law uint8

// The two laws of ITU-T G.711.
const (
	MuLaw Law = iota
	ALaw
)

func (l Law) String() string {
	if l == ALaw {
		return "PCMA"
	}
	return "PCMU"
}

// overload is the peak of the sine that just reaches the virtual decision value
// (+3.14 dBm0 in A-law, ITU-T G.711 tables 1 and 2), as 16-bit samples.
const overload = 32768

// Encode compands src into dst, which must be as long.
func (l Law) Encode(dst []byte, src []int16) {
	if l == ALaw {
		for i, s := range src {
			dst[i] = encodeA(s)
		}
		return
	}
	for i, s := range src {
		dst[i] = encodeMu(s)
	}
}

// Decode expands src into dst, which must be as long.
func (l Law) Decode(dst []int16, src []byte) {
	if l == ALaw {
		for i, b := range src {
			dst[i] = decodeA(b)
		}
		return
	}
	for i, b := range src {
		dst[i] = decodeMu(b)
	}
}

// Silence is the code word of the smallest positive amplitude.
func (l Law) Silence() byte {
	if l == ALaw {
		return 0xD5
	}
	return 0xFF
}

// encodeMu follows the segments of G.711 table 2a: 14-bit magnitude, bias 33.
func encodeMu(s int16) byte {
	m, sign := int(s), byte(0x80)
	if m < 0 {
		m, sign = -m, 0
	}
	m = min(m>>2, 8158) + 33
	seg := bits.Len(uint(m)) - 6 // 33..63 is segment 0
	code := byte(seg<<4) | byte(m>>(seg+1))&0x0F
	return sign | ^code&0x7F
}

func decodeMu(b byte) int16 {
	code := ^b & 0x7F
	seg, q := int(code>>4), int(code&0x0F)
	v := ((2*q+33)<<seg - 33) << 2
	if b&0x80 == 0 {
		v = -v
	}
	return int16(v)
}

// encodeA follows G.711 table 1a: 13-bit magnitude, even bits inverted.
func encodeA(s int16) byte {
	m, sign := int(s), byte(0x80)
	if m < 0 {
		m, sign = ^m, 0
	}
	m >>= 4 // 0..2047, in the smallest steps: those of segments 0 and 1
	code := byte(m)
	if m >= 32 {
		seg := bits.Len(uint(m)) - 4
		code = byte(seg<<4) | byte(m>>(seg-1))&0x0F
	}
	return (sign | code) ^ 0x55
}

func decodeA(b byte) int16 {
	b ^= 0x55
	seg, q := int(b>>4)&7, int(b&0x0F)
	v := (2*q + 1) << 3
	if seg > 0 {
		v = (2*q + 33) << (seg + 2)
	}
	if b&0x80 == 0 {
		v = -v
	}
	return int16(v)
}
