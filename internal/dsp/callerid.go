package dsp

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// CIDScheme is how caller ID is sent on a line.
type CIDScheme uint8

// Schemes. The zero value sends nothing.
const (
	NoCallerID CIDScheme = iota
	// Bellcore is Telcordia GR-30 and GR-31: Bell 202 FSK after the first ring.
	Bellcore
	// ETSI is EN 300 659: V.23 FSK after the first ring, or before it after a
	// dual-tone alerting signal.
	ETSI
	// BT is SIN 227 and 242: polarity reversal, DT-AS, V.23 FSK, then ring.
	BT
	// NTT is J-CLIP: V.23 FSK after a short ring. Its framing is not spoken
	// here: the table of countries names it so that nothing wrong is sent.
	NTT
	// DTMFAC sends "A number C" in DTMF.
	DTMFAC
	// DTMFDC sends "D number C" in DTMF.
	DTMFDC
	// DTMFAHash sends "A number #" in DTMF.
	DTMFAHash
	// BellcoreSingle is Bellcore in the single data message format: time and
	// number only.
	BellcoreSingle
)

// CallerID is what a phone may show before it is answered.
type CallerID struct {
	Number string // as the phone shall show it; empty if absent
	Name   string // empty if absent
	// NumberAbsent and NameAbsent say why: 'P' private, 'O' unavailable. 0
	// with an empty text sends nothing of it.
	NumberAbsent, NameAbsent byte
	// Time of the call, in local time; zero if not to be sent.
	Time time.Time
}

// Message types and parameters, GR-30-CORE and ETSI EN 300 659-3 §5.
const (
	cidSingle   = 0x04
	cidMultiple = 0x80

	paramTime         = 0x01
	paramNumber       = 0x02
	paramNumberAbsent = 0x04
	paramName         = 0x07
	paramNameAbsent   = 0x08
	paramCallType     = 0x11
	callTypeVoice     = 0x01
)

// Limits of EN 300 659-3 §5.4 and GR-31.
const (
	maxCIDNumber       = 20
	maxCIDName         = 50
	maxCIDNameBellcore = 15
)

// EncodeCallerID makes the message of a scheme: for FSK the octets from message
// type to checksum, for DTMF schemes the digits to queue. Number and name are
// cut to what the scheme allows and freed of what phones cannot show. It is nil
// for schemes that send nothing, and where DTMF has no number to send.
func EncodeCallerID(scheme CIDScheme, cid CallerID) []byte {
	number := cidNumber(cid.Number, scheme == ETSI || scheme == BT)
	absent := cid.NumberAbsent
	if absent != 'P' {
		absent = 'O' // the only other reason
	}
	switch scheme {
	case Bellcore, ETSI, BT:
	case BellcoreSingle:
		body := cidTime(cid.Time)
		if number == "" {
			number = string(absent)
		}
		return sealCID(cidSingle, append(body, number...))
	case DTMFAC, DTMFDC, DTMFAHash:
		if number == "" {
			return nil
		}
		digits := strings.Trim(number, "*#") // would end the string early
		switch scheme {
		case DTMFAC:
			return []byte("A" + digits + "C")
		case DTMFDC:
			return []byte("D" + digits + "C")
		}
		return []byte("A" + digits + "#")
	default:
		return nil
	}
	var body []byte
	add := func(kind byte, text string) {
		body = append(append(body, kind, byte(len(text))), text...)
	}
	if scheme != Bellcore {
		add(paramCallType, string([]byte{callTypeVoice}))
	}
	if !cid.Time.IsZero() {
		add(paramTime, string(cidTime(cid.Time)))
	}
	switch {
	case number != "":
		add(paramNumber, number)
	case cid.NumberAbsent != 0:
		add(paramNumberAbsent, string(absent))
	}
	switch name := cidName(cid.Name, scheme == Bellcore); {
	case name != "":
		add(paramName, name)
	case cid.NameAbsent == 'P':
		add(paramNameAbsent, "P")
	case cid.NameAbsent != 0:
		add(paramNameAbsent, "O")
	}
	return sealCID(cidMultiple, body)
}

func sealCID(kind byte, body []byte) []byte {
	m := append([]byte{kind, byte(len(body))}, body...)
	return append(m, -sumOctets(m))
}

func sumOctets(m []byte) (sum byte) {
	for _, c := range m {
		sum += c
	}
	return sum
}

// cidTime is MMDDHHMM; a message of the single format cannot do without.
func cidTime(t time.Time) []byte {
	if t.IsZero() {
		return []byte("01010000")
	}
	return []byte(t.Format("01021504"))
}

// cidNumber keeps what a phone can show and dial back.
func cidNumber(number string, plus bool) string {
	kept := strings.Map(func(r rune) rune {
		if r >= '0' && r <= '9' || r == '*' || r == '#' || r == '+' && plus {
			return r
		}
		return -1
	}, number)
	return kept[:min(len(kept), maxCIDNumber)]
}

// cidName is the name in ISO 8859-1, or in ASCII where phones know no more.
func cidName(name string, ascii bool) string {
	limit := maxCIDName
	if ascii {
		limit = maxCIDNameBellcore
	}
	var b []byte
	for _, r := range name {
		switch {
		case r < ' ' || r >= 0x7F && r < 0xA0:
			continue
		case r < 0x7F || r <= 0xFF && !ascii:
			b = append(b, byte(r))
		case r >= 0xC0 && r <= 0xFF:
			b = append(b, latinFold[2*(r-0xC0):2*(r-0xC0)+2]...)
			b = []byte(strings.TrimRight(string(b), "_"))
		default:
			b = append(b, '?')
		}
	}
	return strings.TrimSpace(string(b[:min(len(b), limit)]))
}

// latinFold writes the letters U+00C0 to U+00FF with ASCII, two places each.
const latinFold = "A_A_A_A_AeA_AeC_E_E_E_E_I_I_I_I_D_N_O_O_O_O_Oex_O_U_U_U_UeY_Thss" +
	"a_a_a_a_aea_aec_e_e_e_e_i_i_i_i_d_n_o_o_o_o_oe/_o_u_u_u_uey_thy_"

// Errors of ParseCallerID.
var (
	// ErrChecksum: the message was damaged on the line. It is discarded, there
	// is no repetition (GR-30).
	ErrChecksum = errors.New("caller ID checksum")
	// ErrOtherMessage: a whole message that is not about a caller, message
	// waiting for instance.
	ErrOtherMessage = errors.New("not a caller ID message")
)

// ParseCallerID reads a message, from its type to its checksum, in the single
// or multiple data format. The message has no year and no zone: they are taken
// from now, so that the time is the nearest to it.
func ParseCallerID(m []byte, now time.Time) (CallerID, error) {
	if len(m) < 3 || len(m) != int(m[1])+3 {
		return CallerID{}, fmt.Errorf("caller ID of %d octets: wrong length", len(m))
	}
	if sumOctets(m) != 0 {
		return CallerID{}, ErrChecksum
	}
	var cid CallerID
	body := m[2 : len(m)-1]
	switch m[0] {
	case cidSingle:
		if len(body) < 8 {
			return CallerID{}, fmt.Errorf("caller ID body of %d octets: too short", len(body))
		}
		cid.Time = nearestTime(body[:8], now)
		cid.number(body[8:])
		return cid, nil
	case cidMultiple:
	default:
		return CallerID{}, fmt.Errorf("message type %#02x: %w", m[0], ErrOtherMessage)
	}
	for len(body) > 0 {
		if len(body) < 2 || len(body) < 2+int(body[1]) {
			return CallerID{}, fmt.Errorf("caller ID parameter %#02x runs past the message", body[0])
		}
		kind, value := body[0], body[2:2+int(body[1])]
		body = body[2+int(body[1]):]
		switch kind {
		case paramTime:
			cid.Time = nearestTime(value, now)
		case paramNumber:
			cid.number(value)
		case paramNumberAbsent:
			cid.NumberAbsent = absence(value)
		case paramName:
			cid.Name = latin1(value)
		case paramNameAbsent:
			cid.NameAbsent = absence(value)
		}
	}
	return cid, nil
}

// number takes digits, or the P or O that stand for them.
func (cid *CallerID) number(value []byte) {
	if text := string(value); text == "P" || text == "O" {
		cid.NumberAbsent = text[0]
		return
	}
	cid.Number = cidNumber(string(value), true)
}

func absence(value []byte) byte {
	if len(value) == 1 && value[0] == 'P' {
		return 'P'
	}
	return 'O'
}

func latin1(value []byte) string {
	runes := make([]rune, 0, len(value))
	for _, c := range value {
		if c >= ' ' && c < 0x7F || c >= 0xA0 {
			runes = append(runes, rune(c))
		}
	}
	return strings.TrimSpace(string(runes))
}

// nearestTime reads MMDDHHMM; zero if it is no time.
func nearestTime(text []byte, now time.Time) time.Time {
	if len(text) != 8 {
		return time.Time{}
	}
	for _, c := range text {
		if c < '0' || c > '9' {
			return time.Time{}
		}
	}
	two := func(i int) int { return int(text[i]-'0')*10 + int(text[i+1]-'0') }
	month, day, hour, minute := two(0), two(2), two(4), two(6)
	var best time.Time
	for year := now.Year() - 1; year <= now.Year()+1; year++ {
		t := time.Date(year, time.Month(month), day, hour, minute, 0, 0, now.Location())
		if int(t.Month()) != month || t.Day() != day || hour > 23 || minute > 59 {
			continue // 29 February of another year, or nonsense
		}
		if best.IsZero() || t.Sub(now).Abs() < best.Sub(now).Abs() {
			best = t
		}
	}
	return best
}
