package link

// crcTable is CRC-16/X-25 by octets: reflected polynomial 0x8408.
var crcTable = func() (t [256]uint16) {
	for i := range t {
		c := uint16(i)
		for range 8 {
			if c&1 != 0 {
				c = c>>1 ^ 0x8408
			} else {
				c >>= 1
			}
		}
		t[i] = c
	}
	return t
}()

// CRC is the check sequence of frames: CRC-16/X-25, the FCS of RFC 1662
// appendix C. CRC of "123456789" is 0x906E.
func CRC(p []byte) uint16 {
	c := uint16(0xFFFF)
	for _, b := range p {
		c = c>>8 ^ crcTable[byte(c)^b]
	}
	return ^c
}
