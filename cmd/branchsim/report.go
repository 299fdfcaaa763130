package main

import (
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"strings"
	"text/tabwriter"

	"localloop/internal/sip/siptest"
)

// measure is a number that was measured, or the reason why it was not. It is
// written as two JSON keys: name (null if unknown) and nameReason.
type measure struct {
	value  float64
	known  bool
	reason string
}

func measured(v float64) measure { return measure{value: v, known: true} }
func unknown(format string, args ...any) measure {
	return measure{reason: fmt.Sprintf(format, args...)}
}
func (m measure) text(format string) string {
	if !m.known {
		return "-"
	}
	return fmt.Sprintf(format, m.value)
}

// result is one standard call.
type result struct {
	name, direction             string
	mediaPath                   string // of the end of the call; empty if unknown
	pathReason                  string
	lanRTP, wanRTP              measure
	audioForward, audioBackward bool // caller to called party; the other way
	cutToAudio                  measure
	mos                         measure
	dscpVoice, dscpSignalling   measure
	fault                       string // why the call failed
}

// MarshalJSON writes the keys in the order of the interface.
func (r result) MarshalJSON() ([]byte, error) {
	var b strings.Builder
	b.WriteByte('{')
	first := true
	add := func(name string, v any) {
		if !first {
			b.WriteByte(',')
		}
		first = false
		text, err := json.Marshal(v)
		if err != nil {
			text = []byte("null") // strings, numbers and booleans do not fail
		}
		fmt.Fprintf(&b, "%q:%s", name, text)
	}
	number := func(name string, m measure) {
		if m.known {
			add(name, m.value)
			return
		}
		add(name, nil)
		add(name+"Reason", m.reason)
	}
	add("name", r.name)
	add("direction", r.direction)
	if r.mediaPath != "" {
		add("mediaPath", r.mediaPath)
	} else {
		add("mediaPath", nil)
		add("mediaPathReason", r.pathReason)
	}
	number("lanRtpPackets", r.lanRTP)
	number("wanRtpPackets", r.wanRTP)
	add("audioForward", r.audioForward)
	add("audioBackward", r.audioBackward)
	number("cutToAudioMs", r.cutToAudio)
	number("mos", r.mos)
	number("dscpVoice", r.dscpVoice)
	number("dscpSignalling", r.dscpSignalling)
	add("ok", r.fault == "")
	if r.fault != "" {
		add("fault", r.fault)
	}
	b.WriteByte('}')
	return []byte(b.String()), nil
}

// summary is the last line of branchsim once.
type summary struct {
	Calls      []result `json:"calls"`
	CountedBy  string   `json:"countedBy"`  // where packets and marks were counted
	Violations []string `json:"violations"` // rules of the Direct Routing interface that edged broke
	OK         bool     `json:"ok"`
}

func (s summary) print(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "call\tpath\tLAN RTP\tWAN RTP\taudio\tcut to audio\tMOS\tDSCP voice\tDSCP sig\tresult")
	yes := map[bool]string{true: "yes", false: "NO"}
	for _, r := range s.Calls {
		verdict := "ok"
		if r.fault != "" {
			verdict = "FAILED: " + r.fault
		}
		path := r.mediaPath
		if path == "" {
			path = "-"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t→ %s ← %s\t%s\t%s\t%s\t%s\t%s\n", r.name, path, r.lanRTP.text("%.0f"), r.wanRTP.text("%.0f"),
			yes[r.audioForward], yes[r.audioBackward], r.cutToAudio.text("%.0f ms"), r.mos.text("%.2f"), r.dscpVoice.text("%.0f"), r.dscpSignalling.text("%.0f"), verdict)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(w, "counted by:", s.CountedBy)
	for _, v := range s.Violations {
		fmt.Fprintln(w, "violation:", v)
	}
	line, err := json.Marshal(s)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "%s\n", line)
	return err
}

// mark tells the one code point that all packets carried.
func mark(of string, histogram [64]uint64, why string) measure {
	if why != "" {
		return unknown("%s", why)
	}
	var seen []string
	code := 0
	for dscp, n := range histogram {
		if n > 0 {
			code = dscp
			seen = append(seen, fmt.Sprintf("%d×%d", n, dscp))
		}
	}
	switch len(seen) {
	case 0:
		return unknown("no %s packet of the box was seen", of)
	case 1:
		return measured(float64(code))
	}
	return unknown("%s packets carried different marks (count×DSCP): %s", of, strings.Join(seen, ", "))
}

// callID is what makes violations of the same kind differ.
var callID = regexp.MustCompile(`call [^)]*`)

// grouped counts violations of the same kind, in the order of their first.
func grouped(list []siptest.Violation) []string {
	kinds, count := []string{}, map[string]int{}
	for _, v := range list {
		kind := callID.ReplaceAllString(v.String(), "call …")
		if count[kind]++; count[kind] == 1 {
			kinds = append(kinds, kind)
		}
	}
	for i, kind := range kinds {
		kinds[i] = fmt.Sprintf("%s ×%d", kind, count[kind])
	}
	return kinds
}
