package link

// appendCOBS encodes src, at most 254 octets, so that no octet is zero.
// It adds exactly one octet.
func appendCOBS(dst, src []byte) []byte {
	code := len(dst)
	dst = append(dst, 0)
	for _, c := range src {
		if c == 0 {
			dst[code] = byte(len(dst) - code)
			code = len(dst)
			dst = append(dst, 0)
			continue
		}
		dst = append(dst, c)
	}
	// A block of 254 has code 0xFF; nothing follows it (§2).
	dst[code] = byte(len(dst) - code)
	return dst
}

// decodeCOBS decodes in place one block of at most 255 octets that holds no
// zero. The result is a part of b.
func decodeCOBS(b []byte) ([]byte, bool) {
	if len(b) == 0 || len(b) > maxDecoded+1 {
		return nil, false
	}
	w := 0
	for r := 0; r < len(b); {
		code := int(b[r])
		if code == 0 || r+code > len(b) {
			return nil, false
		}
		for _, c := range b[r+1 : r+code] {
			if c == 0 {
				return nil, false
			}
			b[w] = c
			w++
		}
		r += code
		if r < len(b) {
			if code == 0xFF {
				return nil, false // a second block: the frame is too long
			}
			b[w] = 0
			w++
		}
	}
	return b[:w], true
}
