package config

import (
	"fmt"
	"strconv"
	"strings"
)

// MarshalText writes "20000-20999".
func (r PortRange) MarshalText() ([]byte, error) {
	return fmt.Appendf(nil, "%d-%d", r.Low, r.High), nil
}

// UnmarshalText reads "20000-20999". The lower end must be a port, 1 or more,
// and not above the upper one.
func (r *PortRange) UnmarshalText(text []byte) error {
	low, high, ok := strings.Cut(string(text), "-")
	l, err1 := strconv.ParseUint(strings.TrimSpace(low), 10, 16)
	h, err2 := strconv.ParseUint(strings.TrimSpace(high), 10, 16)
	switch {
	case !ok || err1 != nil || err2 != nil:
		return fmt.Errorf("%q is not a range of ports such as \"20000-20999\"", text)
	case l == 0 || h < l:
		return fmt.Errorf("ports %d to %d are no range", l, h)
	}
	r.Low, r.High = uint16(l), uint16(h)
	return nil
}

// Ports is how many ports the range holds.
func (r PortRange) Ports() int {
	if r.High < r.Low {
		return 0
	}
	return int(r.High) - int(r.Low) + 1
}

// Contains reports whether a port lies in the range.
func (r PortRange) Contains(port uint16) bool { return r.Low <= port && port <= r.High }

// String is the form in the file.
func (r PortRange) String() string { return fmt.Sprintf("%d-%d", r.Low, r.High) }

// Code points with names: RFC 2474 (CS), RFC 2597 (AF), RFC 3246 (EF), RFC 5865
// (VA).
const (
	EF   DSCP = 46
	AF41 DSCP = 34
	VA   DSCP = 44
)

// MarshalText writes the name, or the number where there is none.
func (d DSCP) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads a name in any case or a number from 0 to 63.
func (d *DSCP) UnmarshalText(text []byte) error {
	name := strings.ToUpper(strings.TrimSpace(string(text)))
	for c := DSCP(0); c < 64; c++ {
		if s := c.String(); s == name {
			*d = c
			return nil
		}
	}
	if n, err := strconv.ParseUint(name, 10, 8); err == nil && n < 64 {
		*d = DSCP(n)
		return nil
	}
	return fmt.Errorf("%q is no DSCP: want EF, VA, AF11 to AF43, CS0 to CS7 or 0 to 63", text)
}

// String returns the name of the code point, or its number.
func (d DSCP) String() string {
	class, drop := d>>3, d>>1&3
	switch {
	case d == EF:
		return "EF"
	case d == VA:
		return "VA"
	case d < 64 && d&7 == 0:
		return fmt.Sprintf("CS%d", class)
	case d&1 == 0 && class >= 1 && class <= 4 && drop >= 1:
		return fmt.Sprintf("AF%d%d", class, drop)
	}
	return strconv.Itoa(int(d))
}
