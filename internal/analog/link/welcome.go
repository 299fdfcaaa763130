package link

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// Version of the protocol that this package speaks.
const (
	Major = 1
	Minor = 0
)

// Kind of a channel.
type Kind uint8

// Kinds of channels.
const (
	KindAbsent Kind = 0
	KindFXS    Kind = 1
	KindFXO    Kind = 2
)

func (k Kind) String() string {
	switch k {
	case KindFXS:
		return "fxs"
	case KindFXO:
		return "fxo"
	}
	return "absent"
}

// Capability is a set of what a channel can do, §4.
type Capability uint32

// Capabilities of a channel.
const (
	CanRing       Capability = 1 << 0
	CanMeter      Capability = 1 << 1
	CanReverse    Capability = 1 << 2
	CanCallerID   Capability = 1 << 3
	CanGround     Capability = 1 << 4
	CanDTMF       Capability = 1 << 5
	CanNeon       Capability = 1 << 6
	CanVMWIRev    Capability = 1 << 7
	CanOnHookPCM  Capability = 1 << 8
	CanTone       Capability = 1 << 9
	CanLifeline   Capability = 1 << 10
	CanEcho       Capability = 1 << 11
	CanTest       Capability = 1 << 12
	CanFlash      Capability = 1 << 13
	CanPulse      Capability = 1 << 14
	maxText                  = 24
	maxTextOnWire            = 64 // tolerated, cut to maxText
)

// Law of a stream.
type Law uint8

// Laws of G.711.
const (
	ALaw  Law = 0
	MuLaw Law = 1
)

// ChannelKind is what WELCOME says of one channel.
type ChannelKind struct {
	Kind Kind
	Can  Capability
	Echo uint8 // ms of echo tail
	Laws uint8 // bit 0 A-law, bit 1 µ-law
}

// Speaks reports whether the channel can carry the law.
func (c ChannelKind) Speaks(l Law) bool { return c.Laws>>l&1 == 1 }

// Welcome is the card's answer to HELLO.
type Welcome struct {
	Major, Minor uint8
	Session      uint32
	Vendor       string
	Model        string
	Firmware     string
	Serial       string
	Boot         uint32
	Channels     []ChannelKind
	MaxBaud      uint32 // 0: not said
	FrameSizes   []uint8
	Buffer       uint8 // ms of playout
}

const (
	tagVersion  = 0x01
	tagSession  = 0x02
	tagHost     = 0x03
	tagVendor   = 0x10
	tagModel    = 0x11
	tagFirmware = 0x12
	tagSerial   = 0x13
	tagBoot     = 0x14
	tagCount    = 0x15
	tagRun      = 0x16
	tagMaxBaud  = 0x17
	tagSizes    = 0x18
	tagBuffer   = 0x19
)

// appendHello appends the body of HELLO.
func appendHello(dst []byte, session uint32, host string) []byte {
	dst = append(dst, tagVersion, 2, Major, Minor, tagSession, 4)
	dst = binary.LittleEndian.AppendUint32(dst, session)
	if host = host[:min(len(host), maxText)]; host != "" {
		dst = append(append(dst, tagHost, byte(len(host))), host...)
	}
	return dst
}

var errTruncated = errors.New("body too short")

// ParseWelcome reads the body of WELCOME. Unknown tags are skipped. The version
// is not judged here: a card of another major version is to be named in a
// message, so only version and session need to be right then.
func ParseWelcome(b []byte) (Welcome, error) {
	w := Welcome{FrameSizes: []uint8{10}, Buffer: 60}
	type run struct {
		first, count int
		c            ChannelKind
	}
	var runs [MaxBody / 2]run
	n, count := 0, -1
	seen := map[byte]bool{}
	for len(b) > 0 {
		if len(b) < 2 || len(b) < 2+int(b[1]) {
			return Welcome{}, fmt.Errorf("welcome: %w", errTruncated)
		}
		tag, v := b[0], b[2:2+int(b[1])]
		b = b[2+len(v):]
		if need, known := welcomeLen[tag]; known && len(v) < need {
			return Welcome{}, fmt.Errorf("welcome: tag %#02x of %d octets", tag, len(v))
		}
		seen[tag] = true
		switch tag {
		case tagVersion:
			w.Major, w.Minor = v[0], v[1]
		case tagSession:
			w.Session = binary.LittleEndian.Uint32(v)
		case tagVendor:
			w.Vendor = cleanText(v)
		case tagModel:
			w.Model = cleanText(v)
		case tagFirmware:
			w.Firmware = cleanText(v)
		case tagSerial:
			w.Serial = cleanText(v)
		case tagBoot:
			w.Boot = binary.LittleEndian.Uint32(v)
		case tagCount:
			count = int(v[0])
		case tagRun:
			runs[n] = run{int(v[0]), int(v[1]), ChannelKind{
				Kind(v[2]), Capability(binary.LittleEndian.Uint32(v[3:])), v[7], v[8]}}
			n++
		case tagMaxBaud:
			w.MaxBaud = binary.LittleEndian.Uint32(v)
		case tagSizes:
			w.FrameSizes = append([]uint8(nil), v...)
		case tagBuffer:
			w.Buffer = v[0]
		}
	}
	if !seen[tagVersion] || !seen[tagSession] {
		return Welcome{}, errors.New("welcome: no version or no session")
	}
	if w.Major != Major {
		return w, nil
	}
	if !seen[tagBoot] || count < 1 || count > Channels {
		return Welcome{}, fmt.Errorf("welcome: boot id missing or %d channels", count)
	}
	w.Channels = make([]ChannelKind, count)
	var described [Channels]bool
	for _, r := range runs[:n] {
		if r.first+r.count > count || r.c.Kind > KindFXO {
			return Welcome{}, fmt.Errorf("welcome: channels %d+%d of %d, kind %d", r.first, r.count, count, r.c.Kind)
		}
		for i := r.first; i < r.first+r.count; i++ {
			if described[i] {
				return Welcome{}, fmt.Errorf("welcome: channel %d described twice", i)
			}
			described[i] = true
			w.Channels[i] = r.c
		}
	}
	for i := range w.Channels {
		if !described[i] {
			return Welcome{}, fmt.Errorf("welcome: channel %d not described", i)
		}
	}
	return w, nil
}

var welcomeLen = map[byte]int{tagVersion: 2, tagSession: 4, tagBoot: 4, tagCount: 1,
	tagRun: 9, tagMaxBaud: 4, tagSizes: 1, tagBuffer: 1}

// cleanText keeps what may go into a log line.
func cleanText(v []byte) string {
	v = v[:min(len(v), maxTextOnWire)]
	s := strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7F || r == utf8.RuneError {
			return -1
		}
		return r
	}, string(v))
	for len(s) > maxText {
		_, size := utf8.DecodeLastRuneInString(s)
		s = s[:len(s)-size]
	}
	return s
}
