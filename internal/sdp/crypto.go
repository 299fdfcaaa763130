package sdp

import (
	"encoding/base64"
	"strconv"
	"strings"
)

// keyLengths holds master key and salt together, in bytes, for the suites whose
// key can be checked while reading: RFC 4568 §6.2, RFC 6188 §3.
var keyLengths = map[Suite]int{
	AESCM128HMACSHA180: 30,
	AESCM128HMACSHA132: 30,
}

// AESCM128HMACSHA132 has a shorter tag, RFC 4568 §6.2.2. Microsoft lists it,
// sometimes first; this box prefers the other.
const AESCM128HMACSHA132 Suite = "AES_CM_128_HMAC_SHA1_32"

// Lifetime is the lifetime of a key as Teams wants it written, C-91.
const Lifetime = "2^31"

// parseCrypto reads an a=crypto value, RFC 4568 §9.1. It reports false for a
// line that must not be chosen: malformed, with more than one key, or with a
// session parameter that changes the protection (§6.3.7). Suites that are not
// known are kept; ChooseCrypto passes over them.
func parseCrypto(value string) (Crypto, bool) {
	f := strings.Fields(value)
	if len(f) < 3 {
		return Crypto{}, false
	}
	tag, err := strconv.ParseUint(f[0], 10, 30) // at most 9 digits
	if err != nil {
		return Crypto{}, false
	}
	for _, p := range f[3:] {
		// A window size hint changes nothing here; '-' marks what may be ignored.
		if !strings.HasPrefix(strings.ToUpper(p), "WSH=") && !strings.HasPrefix(p, "-") {
			return Crypto{}, false
		}
	}
	if len(f[2]) < 7 || !strings.EqualFold(f[2][:7], "inline:") || strings.Contains(f[2], ";") {
		return Crypto{}, false
	}
	c := Crypto{Tag: int(tag), Suite: Suite(strings.ToUpper(f[1]))}
	parts := strings.Split(f[2][7:], "|")
	if c.Key, err = base64.RawStdEncoding.DecodeString(strings.TrimRight(parts[0], "=")); err != nil || len(c.Key) == 0 {
		return Crypto{}, false
	}
	if n, known := keyLengths[c.Suite]; known && n != len(c.Key) {
		return Crypto{}, false
	}
	rest := parts[1:]
	if len(rest) > 0 && !strings.Contains(rest[0], ":") {
		c.Lifetime, rest = rest[0], rest[1:]
		if !isLifetime(c.Lifetime) {
			return Crypto{}, false
		}
	}
	if len(rest) == 0 {
		return c, true
	}
	mki, length, ok := strings.Cut(rest[0], ":")
	m, err1 := strconv.ParseUint(mki, 10, 64)
	n, err2 := strconv.ParseUint(length, 10, 8)
	if !ok || len(rest) > 1 || err1 != nil || err2 != nil || n == 0 || n > 128 {
		return Crypto{}, false
	}
	c.MKI, c.MKILength = m, int(n)
	return c, true
}

func isLifetime(s string) bool {
	s = strings.TrimPrefix(s, "2^")
	_, err := strconv.ParseUint(s, 10, 64)
	return err == nil
}

// appendCrypto writes the value of an a=crypto line.
func appendCrypto(dst []byte, c Crypto) []byte {
	dst = strconv.AppendInt(dst, int64(c.Tag), 10)
	dst = append(dst, ' ')
	dst = append(dst, c.Suite...)
	dst = append(dst, " inline:"...)
	dst = base64.StdEncoding.AppendEncode(dst, c.Key)
	if c.Lifetime != "" {
		dst = append(dst, '|')
		dst = append(dst, c.Lifetime...)
	}
	if c.MKILength > 0 {
		dst = append(dst, '|')
		dst = strconv.AppendUint(dst, c.MKI, 10)
		dst = append(dst, ':')
		dst = strconv.AppendInt(dst, int64(c.MKILength), 10)
	}
	return dst
}

// ChooseCrypto picks the line to accept from an offer: the suite with the
// 80-bit tag before the one with 32 bits, and within a suite a line without MKI
// before one with (C-92, C-93, C-95), else the first. The answer echoes its
// tag, and its own key goes with the same suite. It reports false when no line
// can be used: then the offer is refused with 488 (C-94).
func ChooseCrypto(offer []Crypto) (Crypto, bool) {
	best, rank := Crypto{}, 0
	for _, c := range offer {
		r := 0
		switch c.Suite {
		case AESCM128HMACSHA180:
			r = 3
		case AESCM128HMACSHA132:
			r = 1
		default:
			continue
		}
		if c.MKILength == 0 {
			r++
		}
		if r > rank {
			best, rank = c, r
		}
	}
	return best, rank > 0
}

// AnsweredCrypto finds the peer's line in its answer to our offered lines: the
// one that echoes a tag of ours with the same suite, else the first with the
// suite that Teams requires, because Microsoft's answers sometimes hold two
// lines (docs/teams.md, Descriptions and SRTP; open question U16).
func AnsweredCrypto(offered, answered []Crypto) (Crypto, bool) {
	for _, a := range answered {
		for _, o := range offered {
			if a.Tag == o.Tag && a.Suite == o.Suite {
				return a, true
			}
		}
	}
	for _, a := range answered {
		for _, o := range offered {
			if a.Suite == o.Suite && a.Suite == AESCM128HMACSHA180 {
				return a, true
			}
		}
	}
	return Crypto{}, false
}
