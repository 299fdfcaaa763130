package mediatest

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha1"
	"encoding/binary"
	"hash/crc32"
)

// STUN attribute types, RFC 8489 §18.3, and the private ones that Microsoft's
// agents send ([MS-ICE2] §2.2.3): comprehension-optional, so an answerer must
// ignore them (C-110).
const (
	attrUsername       = 0x0006
	attrIntegrity      = 0x0008
	attrFingerprint    = 0x8028
	attrMSVersion      = 0x8070
	attrMSCandidate    = 0x8054
	stunHeader         = 20
	integrityAttribute = 24
	fingerprintXOR     = 0x5354554e
)

// stunAttribute returns the value of the first attribute of that type.
func stunAttribute(msg []byte, kind uint16) []byte {
	for rest := msg[stunHeader:]; len(rest) >= 4; {
		n := int(binary.BigEndian.Uint16(rest[2:]))
		padded := (n + 3) &^ 3
		if len(rest) < 4+padded {
			return nil
		}
		if binary.BigEndian.Uint16(rest) == kind {
			return rest[4 : 4+n]
		}
		rest = rest[4+padded:]
	}
	return nil
}

// addressedTo returns our user name fragment from a check's USERNAME.
func addressedTo(msg []byte) string {
	ours, _, _ := bytes.Cut(stunAttribute(msg, attrUsername), []byte(":"))
	return string(ours)
}

// withPrivate puts Microsoft's private attributes into a check and seals it
// again with the other side's password, RFC 8489 §14.5 and §14.7.
func withPrivate(msg []byte, remotePwd string) []byte {
	at := bytes.Index(msg[stunHeader:], []byte{0, attrIntegrity, 0, 20})
	if at < 0 || at%4 != 0 {
		return msg
	}
	out := append([]byte(nil), msg[:stunHeader+at]...)
	out = append(out, attrMSVersion>>8, attrMSVersion&0xff, 0, 4, 0, 0, 0, 2)
	out = append(out, attrMSCandidate>>8, attrMSCandidate&0xff, 0, 4, '1', 0, 0, 0)
	setLength := func(n int) { binary.BigEndian.PutUint16(out[2:], uint16(n)) }
	setLength(len(out) - stunHeader + integrityAttribute)
	mac := hmac.New(sha1.New, []byte(remotePwd))
	mac.Write(out)
	out = append(append(out, 0, attrIntegrity, 0, 20), mac.Sum(nil)...)
	setLength(len(out) - stunHeader + 8)
	sum := crc32.ChecksumIEEE(out) ^ fingerprintXOR
	out = append(out, attrFingerprint>>8, attrFingerprint&0xff, 0, 4)
	return binary.BigEndian.AppendUint32(out, sum)
}
