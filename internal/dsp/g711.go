package dsp

// Law is one of the two laws of ITU-T G.711. Its methods are safe for
// concurrent use.
type Law uint8

// The laws. The zero value is A-law, the law of international circuits.
const (
	ALaw Law = iota
	MuLaw
)

// String is the encoding name of RFC 3551: PCMA or PCMU.
func (l Law) String() string {
	if l == MuLaw {
		return "PCMU"
	}
	return "PCMA"
}

// Silence is the octet of the quietest level.
func (l Law) Silence() byte {
	if l == MuLaw {
		return 0xFF
	}
	return 0xD5
}

// Decode expands src into dst, which must be at least as long as src.
func (l Law) Decode(dst []int16, src []byte) {
	dst = dst[:len(src)]
	table := &alawDecode
	if l == MuLaw {
		table = &mulawDecode
	}
	for i, c := range src {
		dst[i] = table[c]
	}
}

// Encode compresses src into dst, which must be at least as long as src.
func (l Law) Encode(dst []byte, src []int16) {
	dst = dst[:len(src)]
	if l == MuLaw {
		for i, x := range src {
			dst[i] = mulawEncode[uint16(x)>>2]
		}
		return
	}
	for i, x := range src {
		dst[i] = alawEncode[uint16(x)>>4]
	}
}

// The encoders need no more bits of a sample than the decision values of the
// law have: 12 for A-law (Table 1a, decision values are multiples of 16 on the
// scale of int16), 14 for µ-law (Table 2a, multiples of 4).
var (
	alawDecode  = buildDecode(alawValue)
	mulawDecode = buildDecode(mulawValue)
	alawEncode  = buildALawEncode()
	mulawEncode = buildMuLawEncode()
)

func buildDecode(value func(byte) int16) (t [256]int16) {
	for c := range t {
		t[c] = value(byte(c))
	}
	return t
}

// alawValue is the quantized value of G.711 Table 1 on the scale of int16. Even
// bits are inverted on the line (§3.2, note).
func alawValue(c byte) int16 {
	c ^= 0x55
	segment, step := c>>4&7, int16(c&0x0F)
	v := step<<4 + 8
	if segment > 0 {
		v = (v + 0x100) << (segment - 1)
	}
	if c&0x80 == 0 {
		return -v
	}
	return v
}

// mulawValue is the quantized value of G.711 Table 2 on the scale of int16. All
// bits are inverted on the line.
func mulawValue(c byte) int16 {
	c = ^c
	v := ((int16(c&0x0F)<<3 + 0x84) << (c >> 4 & 7)) - 0x84
	if c&0x80 != 0 {
		return -v
	}
	return v
}

func buildALawEncode() (t [1 << 12]byte) {
	for i := range t {
		x := int16(uint16(i) << 4)
		sign := byte(0x80)
		if x < 0 {
			// One's complement keeps the decision values symmetric: -1 falls
			// into the interval of +0.
			x, sign = ^x, 0
		}
		m := x >> 4 // 0…2047
		segment := byte(0)
		for m > 31 {
			m >>= 1
			segment++
		}
		if m > 15 {
			segment++
		}
		t[i] = (sign | segment<<4 | byte(m&0x0F)) ^ 0x55
	}
	return t
}

func buildMuLawEncode() (t [1 << 14]byte) {
	for i := range t {
		x := int16(uint16(i) << 2)
		sign := byte(0)
		if x < 0 {
			x, sign = ^x, 0x80
		}
		m := int(x>>2) + 33 // bias of Table 2a
		if m > 0x1FFF {
			m = 0x1FFF
		}
		segment := byte(0)
		for m > 63 {
			m >>= 1
			segment++
		}
		t[i] = ^(sign | segment<<4 | byte(m>>1&0x0F))
	}
	return t
}
