package analog

import (
	"strings"

	"localloop/internal/config"
	"localloop/internal/dsp"
)

// dialable is a number as people at the box's place dial it: E.164 is turned
// into the national or international form, other numbers stay.
func dialable(box config.Box, number string) string {
	digits, e164 := strings.CutPrefix(number, "+")
	if e164 {
		if national, ok := strings.CutPrefix(digits, box.CountryCode); ok && box.CountryCode != "" {
			digits = box.TrunkPrefix + national
		} else {
			digits = box.InternationalPrefix + digits
		}
	}
	return strings.Map(func(r rune) rune {
		if r >= '0' && r <= '9' || r == '*' || r == '#' || r >= 'A' && r <= 'D' {
			return r
		}
		return -1
	}, digits)
}

// plan is the tones of the line. An unknown country gets those of ITU-T E.180,
// which Germany uses.
func plan(l config.Line, box config.Box) *dsp.Plan {
	if p, ok := dsp.Country(l.Profile(box).Country); ok {
		return p
	}
	p, _ := dsp.Country("de")
	return p
}

// pulseDigit is the digit that n dial pulses mean: n, but n-1 in Sweden and 10-n
// in New Zealand, A-5. 0 if it is none.
func pulseDigit(n uint8, country string) byte {
	if n < 1 || n > 10 {
		return 0
	}
	switch country {
	case "se":
		return '0' + n - 1
	case "nz":
		return '0' + 10 - n
	}
	return '0' + n%10
}

// scheme is how caller ID is sent on the line.
func scheme(l config.Line, p *dsp.Plan) dsp.CIDScheme {
	switch l.CallerID {
	case "off":
		return dsp.NoCallerID
	case "bellcore":
		return dsp.Bellcore
	case "etsi":
		if p.CallerID == dsp.BT {
			return dsp.BT // the British form of it
		}
		return dsp.ETSI
	}
	return p.CallerID
}
