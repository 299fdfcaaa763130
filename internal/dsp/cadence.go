package dsp

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Step is one part of a cadence.
type Step struct {
	// Hz are the frequencies sounded together at equal level; none is silence.
	Hz []float64
	// AM is the rate in Hz at which the tone is amplitude modulated by 90 %;
	// 0 is none.
	AM float64
	// Level in dB relative to the tone.
	Level float64
	// Duration; 0 lasts until stopped.
	Duration time.Duration
	// Alternatives are other frequencies that exchanges of the country use. A
	// detector accepts them; a generator sends Hz.
	Alternatives [][]float64
}

// Cadence is a tone: Intro once, then Loop for ever. An empty Loop is silence.
// It is constant data, never changed after it was made.
type Cadence struct {
	Intro, Loop []Step
}

// IsZero reports a cadence without a step.
func (c Cadence) IsZero() bool { return len(c.Intro) == 0 && len(c.Loop) == 0 }

// ParseCadence reads the notation of the table of countries. Steps are
// separated by spaces: frequencies, a slash and milliseconds (0: until
// stopped). "0/500" is silence, "350+440/0" two frequencies, "400*25/400" is
// amplitude modulated, "425@-10/375" 10 dB lower, "440|450/400" has an
// alternative. A step before a lone "!" is sounded once.
func ParseCadence(text string) (Cadence, error) {
	var c Cadence
	for _, word := range strings.Fields(text) {
		if word == "!" {
			if len(c.Intro) > 0 {
				return Cadence{}, fmt.Errorf("cadence %q: a second '!' sign", text)
			}
			c.Intro, c.Loop = c.Loop, nil
			continue
		}
		s, err := parseStep(word)
		if err != nil {
			return Cadence{}, fmt.Errorf("cadence %q: %w", text, err)
		}
		c.Loop = append(c.Loop, s)
	}
	return c, nil
}

func parseStep(word string) (Step, error) {
	var s Step
	tone, ms, ok := strings.Cut(word, "/")
	n, err := strconv.Atoi(ms)
	if !ok || err != nil || n < 0 || n > 1e6 {
		return s, fmt.Errorf("step %q: want frequencies/milliseconds", word)
	}
	s.Duration = time.Duration(n) * time.Millisecond
	if tone == "0" {
		return s, nil
	}
	tone, alternatives, _ := strings.Cut(tone, "|")
	tone, level, hasLevel := strings.Cut(tone, "@")
	if hasLevel {
		if s.Level, err = strconv.ParseFloat(level, 64); err != nil || s.Level < -60 || s.Level > 10 {
			return s, fmt.Errorf("step %q: level", word)
		}
	}
	tone, am, hasAM := strings.Cut(tone, "*")
	if hasAM {
		if s.AM, err = parseHz(am); err != nil {
			return s, fmt.Errorf("step %q: %w", word, err)
		}
	}
	if s.Hz, err = parseHzList(tone); err != nil {
		return s, fmt.Errorf("step %q: %w", word, err)
	}
	for alt := range strings.SplitSeq(alternatives, "|") {
		if alt == "" {
			continue
		}
		hz, err := parseHzList(alt)
		if err != nil {
			return s, fmt.Errorf("step %q: %w", word, err)
		}
		s.Alternatives = append(s.Alternatives, hz)
	}
	return s, nil
}

// maxTones is the most frequencies that one step sounds: the howler has four.
const maxTones = 4

func parseHzList(text string) ([]float64, error) {
	var list []float64
	for f := range strings.SplitSeq(text, "+") {
		hz, err := parseHz(f)
		if err != nil {
			return nil, err
		}
		list = append(list, hz)
	}
	if len(list) > maxTones {
		return nil, fmt.Errorf("%d frequencies, at most %d", len(list), maxTones)
	}
	return list, nil
}

func parseHz(text string) (float64, error) {
	hz, err := strconv.ParseFloat(text, 64)
	if err != nil || !(hz > 0 && hz < SampleRate/2) {
		return 0, fmt.Errorf("frequency %q", text)
	}
	return hz, nil
}
