package dsp

import (
	"fmt"
	"sort"
	"strconv"
	"strings"
	"time"
)

// Check says how far the tones of a country rest on two sources.
type Check uint8

// Checks of the table against a second table, compiled separately.
const (
	// OneSource: not compared, the country is in one source only.
	OneSource Check = iota
	// PartlyAgree: dial tone, ringback or busy tone differ between sources; a
	// country engineer decides.
	PartlyAgree
	// CoreAgrees: dial tone, ringback and busy tone are the same in both.
	CoreAgrees
)

// Plan is the tones and cadences of one country. Each call of Country makes a
// Plan of its own; the caller may change it.
type Plan struct {
	Code string // ISO 3166-1 alpha-2 in lower case, but uk
	Name string

	Dial        Cadence
	Ringback    Cadence
	Busy        Cadence
	Congestion  Cadence // reorder tone
	CallWaiting Cadence
	SIT         Cadence // special information tone
	Stutter     Cadence // special dial tone: messages wait
	// Ring is the cadence of the bell: on, off, on, off … repeated.
	Ring []time.Duration

	// DTMFHigh and DTMFLow are the levels in dBm0 at which digits are sent.
	DTMFHigh, DTMFLow float64
	// CallerID is the usual scheme; operators differ, so a line may set its own.
	CallerID CIDScheme
	// Checked says how sure the tones are.
	Checked Check
	// Assumed names the tones that the source lacks or that no voice channel
	// can carry, and that were completed from ITU-T E.180 and E.182.
	Assumed []string
}

// row is one line of the generated table. Cadences are in the notation of
// ParseCadence.
type row struct {
	code, name                       string
	dial, ringback, busy, congestion string
	callWaiting, sit, stutter        string
	ring                             string // "400 200 400 2000", ms
	high, low                        float64
	callerID                         CIDScheme
	checked                          Check
}

// sitE180 is the special information tone of ITU-T E.180 §5.
const sitE180 = "950/330 1400/330 1800/330 0/1000"

// Country gives the plan of a country by its ISO 3166-1 alpha-2 code, either
// case; "uk" and "gb" are the same.
func Country(code string) (*Plan, bool) {
	code = strings.ToLower(code)
	if code == "gb" {
		code = "uk"
	}
	i := sort.Search(len(countries), func(i int) bool { return countries[i].code >= code })
	if i == len(countries) || countries[i].code != code {
		return nil, false
	}
	r := &countries[i]
	p := &Plan{
		Code: r.code, Name: r.name,
		DTMFHigh: r.high, DTMFLow: r.low,
		CallerID: r.callerID, Checked: r.checked,
	}
	p.Busy = p.cadence("busy", r.busy, "425/500 0/500")
	dial := notes(p.Busy.Loop[0].Hz) + "/0"
	p.Dial = p.cadence("dial", r.dial, dial)
	p.Ringback = p.cadence("ringback", r.ringback, "425/1000 0/4000")
	p.Congestion = p.cadence("congestion", r.congestion, half(p.Busy))
	p.CallWaiting = p.cadence("call waiting", r.callWaiting, "425/300 0/10000")
	p.SIT = p.cadence("special information", r.sit, sitE180)
	if r.dial != "" {
		dial = r.dial
	}
	p.Stutter = p.cadence("stutter", r.stutter, dial)
	for word := range strings.FieldsSeq(r.ring) {
		d, err := time.ParseDuration(word + "ms")
		if err != nil {
			return nil, false // the table is wrong: TestCountryTableIsComplete
		}
		p.Ring = append(p.Ring, d)
	}
	return p, true
}

// Countries lists the codes in order.
func Countries() []string {
	list := make([]string, len(countries))
	for i := range countries {
		list[i] = countries[i].code
	}
	return list
}

// cadence reads a tone of the table, or the one that stands in for it.
func (p *Plan) cadence(name, text, instead string) Cadence {
	if text == "" {
		p.Assumed = append(p.Assumed, name)
		text = instead
	}
	c, err := ParseCadence(text)
	if err != nil {
		return Cadence{} // the table is wrong: TestCountryTableIsComplete
	}
	return c
}

// half is busy at twice the rate: E.180 asks that congestion be told from busy
// by its faster cadence.
func half(busy Cadence) string {
	var b strings.Builder
	for _, s := range busy.Loop {
		fmt.Fprintf(&b, "%s/%d ", notes(s.Hz), max(1, s.Duration.Milliseconds()/2))
	}
	return b.String()
}

// notes writes frequencies for ParseCadence.
func notes(hz []float64) string {
	if len(hz) == 0 {
		return "0"
	}
	words := make([]string, len(hz))
	for i, f := range hz {
		words[i] = strconv.FormatFloat(f, 'f', -1, 64)
	}
	return strings.Join(words, "+")
}
