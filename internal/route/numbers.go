package route

import (
	"strings"

	"localloop/internal/config"
)

// numbers converts between what is dialled in the box's place and E.164.
type numbers struct {
	country, area, trunk, abroad string
	// closed: no national prefix, numbers are dialled whole (E.164 annex A).
	closed bool
	// nanp: country code 1, where length tells local from national numbers.
	nanp bool
}

// Least digits of numbers that are completed. Shorter ones are extensions and
// short codes, which routes see as dialled.
const (
	leastLocal  = 3
	leastWhole  = 6 // closed plans
	leastAbroad = 6 // after '+', country code included
	nanpLocal   = 7
	nanpWhole   = 10
)

func newNumbers(b config.Box) numbers {
	return numbers{
		country: b.CountryCode, area: b.AreaCode, trunk: b.TrunkPrefix, abroad: b.InternationalPrefix,
		closed: b.TrunkPrefix == "" && b.AreaCode == "", nanp: b.CountryCode == "1",
	}
}

// clean takes the visual separators of RFC 3966 out of a number. What is no
// number is left alone.
func clean(s string) string {
	if strings.ContainsFunc(s, func(r rune) bool { return !strings.ContainsRune("+0123456789*#-. ()/", r) }) {
		return s
	}
	return strings.NewReplacer("-", "", ".", "", " ", "", "(", "", ")", "", "/", "").Replace(s)
}

func isDigits(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }

// international returns the E.164 form of a number, or "" if there is none.
// Numbers without any prefix are completed only for analog lines: from a trunk
// they may be extensions.
func (n numbers) international(dialled string, fromLine bool) string {
	if strings.HasPrefix(dialled, "+") {
		return dialled
	}
	if !isDigits(dialled) || n.country == "" {
		return ""
	}
	for _, f := range n.forms(dialled) {
		if f.whole && (fromLine || f.prefixed) {
			return f.number
		}
	}
	return ""
}

// form is one reading of dialled digits as an E.164 number.
type form struct {
	number   string
	whole    bool // long enough to be one; else more digits must follow
	prefixed bool // by an international or national prefix
	final    bool // no further digit can follow
}

// forms lists the readings of digits, which may be incomplete. Whole readings
// come first.
func (n numbers) forms(digits string) []form {
	if rest, ok := cutPrefix(digits, n.abroad); ok {
		return []form{{number: "+" + rest, whole: len(rest) >= leastAbroad, prefixed: true}}
	}
	var list []form
	if n.abroad != "" && strings.HasPrefix(n.abroad, digits) {
		list = append(list, form{number: "+", prefixed: true})
	}
	if rest, ok := cutPrefix(digits, n.trunk); ok {
		least := leastLocal
		if n.nanp {
			least = nanpWhole
		}
		return append([]form{{number: "+" + n.country + rest, whole: len(rest) >= least, prefixed: true, final: n.nanp && len(rest) >= least}}, list...)
	}
	if n.trunk != "" && strings.HasPrefix(n.trunk, digits) {
		list = append(list, form{number: "+" + n.country, prefixed: true})
	}
	switch {
	case n.nanp:
		if len(digits) == nanpLocal && n.area != "" {
			list = append([]form{{number: "+1" + n.area + digits, whole: true, final: true}}, list...)
		}
		// A number may go on after seven digits to ten, not further.
		if len(digits) <= nanpWhole {
			list = append(list, form{number: "+1" + digits, whole: len(digits) == nanpWhole, final: len(digits) == nanpWhole})
		}
		if len(digits) < nanpLocal && n.area != "" {
			list = append(list, form{number: "+1" + n.area + digits})
		}
	case n.area != "":
		list = append(list, form{number: "+" + n.country + n.area + digits, whole: len(digits) >= leastLocal})
	case n.closed:
		list = append(list, form{number: "+" + n.country + digits, whole: len(digits) >= leastWhole})
	}
	return list
}

func cutPrefix(s, prefix string) (string, bool) {
	if prefix == "" {
		return s, false
	}
	return strings.CutPrefix(s, prefix)
}

// dialled is the number as an exchange line of the box wants it: '+' cannot be
// dialled. National numbers get the national prefix, which every exchange takes
// for local ones too.
func (n numbers) dialled(number string) string {
	digits, ok := strings.CutPrefix(number, "+")
	if !ok {
		return number
	}
	if rest, home := cutPrefix(digits, n.country); home {
		return n.trunk + rest
	}
	return n.abroad + digits
}
