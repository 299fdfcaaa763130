package dsp

import "time"

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
	// NTT is J-CLIP: V.23 FSK after a short ring.
	NTT
	// DTMFAC sends "A number C" in DTMF.
	DTMFAC
	// DTMFDC sends "D number C" in DTMF.
	DTMFDC
	// DTMFAHash sends "A number #" in DTMF.
	DTMFAHash
)

// CallerID is what a phone may show before it is answered.
type CallerID struct {
	Number string // digits as the phone shall show them; empty if absent
	Name   string // ISO 8859-1 after encoding; empty if absent
	// NumberAbsent and NameAbsent say why: 'P' private, 'O' unavailable, 0 if
	// present.
	NumberAbsent, NameAbsent byte
	// Time of the call, in local time; zero if not to be sent.
	Time time.Time
}
