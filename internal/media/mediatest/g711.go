package mediatest

// Law is one of the two G.711 companding laws.
type Law uint8

// The two laws of ITU-T G.711.
const (
	ALaw Law = iota
	MuLaw
)

func (l Law) name() string {
	if l == MuLaw {
		return "PCMU"
	}
	return "PCMA"
}

func (l Law) payloadType() uint8 {
	if l == MuLaw {
		return 0
	}
	return 8
}

// Decode expands G.711 octets; dst must be as long as src.
func (l Law) Decode(dst []int16, src []byte) {
	for i, b := range src {
		if l == MuLaw {
			dst[i] = expandMu(b)
		} else {
			dst[i] = expandA(b)
		}
	}
}

// Encode compresses samples; dst must be as long as src.
func (l Law) Encode(dst []byte, src []int16) {
	for i, s := range src {
		if l == MuLaw {
			dst[i] = compressMu(s)
		} else {
			dst[i] = compressA(s)
		}
	}
}

// expandMu follows ITU-T G.711 table 2: all bits inverted, bias 33 on 14 bits.
func expandMu(b byte) int16 {
	b = ^b
	magnitude := ((int(b&0x0f)<<1 + 33) << (b >> 4 & 7)) - 33
	if b&0x80 != 0 {
		return int16(-magnitude << 2)
	}
	return int16(magnitude << 2)
}

func compressMu(s int16) byte {
	v, sign := int(s)>>2, byte(0)
	if v < 0 {
		v, sign = -v, 0x80
	}
	v = min(v, 8158) + 33
	segment := byte(0)
	for v>>(segment+6) != 0 {
		segment++
	}
	return ^(sign | segment<<4 | byte(v>>(segment+1))&0x0f)
}

// expandA follows ITU-T G.711 table 1: even bits inverted, 13 bits.
func expandA(b byte) int16 {
	b ^= 0x55
	segment := b >> 4 & 7
	magnitude := int(b&0x0f)<<1 + 1
	if segment > 0 {
		magnitude = (magnitude + 32) << (segment - 1)
	}
	if b&0x80 == 0 {
		return int16(-magnitude << 3)
	}
	return int16(magnitude << 3)
}

func compressA(s int16) byte {
	v, sign := int(s)>>3, byte(0x80)
	if v < 0 {
		v, sign = -v-1, 0
	}
	segment := byte(0)
	for v>>(segment+5) != 0 {
		segment++
	}
	var code byte
	if segment == 0 {
		code = byte(v >> 1)
	} else {
		code = segment<<4 | byte(v>>segment)&0x0f
	}
	return (code | sign) ^ 0x55
}
