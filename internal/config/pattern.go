package config

import (
	"cmp"
	"fmt"
	"math"
	"math/bits"
	"strings"
)

// Pattern is a compiled number pattern of a route. It stands for whole numbers:
//
//	0-9 + * #      themselves; '*' at the end stands for any rest, none included
//	?              any one digit
//	[1-4] [05*#]   one of a set
//	[*]            a star at the end
type Pattern struct {
	text  string
	steps []uint16 // a set of symbols each
	rest  bool
}

const anyDigit = 1<<10 - 1

func symbol(c byte) (uint16, bool) {
	switch {
	case c >= '0' && c <= '9':
		return 1 << (c - '0'), true
	case c == '+':
		return 1 << 10, true
	case c == '*':
		return 1 << 11, true
	case c == '#':
		return 1 << 12, true
	}
	return 0, false
}

// ParsePattern compiles a pattern.
func ParsePattern(text string) (Pattern, error) {
	p := Pattern{text: text}
	if text == "" {
		return p, fmt.Errorf("empty pattern")
	}
	if len(text) > 64 {
		return p, fmt.Errorf("pattern of more than 64 signs")
	}
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '*' && i == len(text)-1:
			p.rest = true
		case c == '?':
			p.steps = append(p.steps, anyDigit)
		case c == '[':
			end := strings.IndexByte(text[i:], ']')
			if end < 0 {
				return p, fmt.Errorf("%q: [ without ]", text)
			}
			set, err := parseSet(text[i+1 : i+end])
			if err != nil {
				return p, fmt.Errorf("%q: %w", text, err)
			}
			p.steps = append(p.steps, set)
			i += end
		case c == '+' && i > 0:
			return p, fmt.Errorf("%q: + stands first only", text)
		default:
			s, ok := symbol(c)
			if !ok {
				return p, fmt.Errorf("%q: %q stands for no digit", text, c)
			}
			p.steps = append(p.steps, s)
		}
	}
	return p, nil
}

func parseSet(text string) (uint16, error) {
	set := uint16(0)
	for i := 0; i < len(text); i++ {
		s, ok := symbol(text[i])
		if !ok || text[i] == '+' {
			return 0, fmt.Errorf("%q in a set stands for no digit", text[i])
		}
		if i+2 < len(text) && text[i+1] == '-' {
			if text[i] > text[i+2] || text[i] < '0' || text[i+2] > '9' {
				return 0, fmt.Errorf("%q is no range of digits", text[i:i+3])
			}
			for c := text[i]; c <= text[i+2]; c++ {
				set |= 1 << (c - '0')
			}
			i += 2
			continue
		}
		set |= s
	}
	if set == 0 {
		return 0, fmt.Errorf("empty set []")
	}
	return set, nil
}

// Match says how a number stands to the pattern. partial means that more digits
// can make it match, or, when it matches already, that it may go on.
func (p Pattern) Match(number string) (match, partial bool) {
	for i := range len(number) {
		if i == len(p.steps) {
			return p.rest, p.rest
		}
		s, ok := symbol(number[i])
		if !ok || s&p.steps[i] == 0 {
			return false, false
		}
	}
	if len(number) < len(p.steps) {
		return false, true
	}
	return true, p.rest
}

// Least is the length of the shortest number that matches.
func (p Pattern) Least() int { return len(p.steps) }

// Compare orders patterns by how much they say of a number: negative when p is
// more specific than q. What counts is the digits pinned down, a set of n
// counting less the larger it is; then a closed end, then length. So "112"
// goes before "1*", "[1-4]234" before "1*", and "1*" before "????".
func (p Pattern) Compare(q Pattern) int {
	open := func(p Pattern) int {
		if p.rest {
			return 1
		}
		return 0
	}
	return cmp.Or(cmp.Compare(q.weight(), p.weight()), cmp.Compare(open(p), open(q)), cmp.Compare(len(q.steps), len(p.steps)))
}

// weight is the digits that are pinned down, in thousandths.
func (p Pattern) weight() int {
	sum := 0.0
	for _, s := range p.steps {
		sum += max(0, 1-math.Log10(float64(bits.OnesCount16(s))))
	}
	return int(math.Round(1000 * sum))
}

// String returns the pattern as configured.
func (p Pattern) String() string { return p.text }
