// Package analog turns analog lines behind serial line cards into call legs:
// FXS lines, where a phone is connected, and FXO lines, where an exchange is.
//
// The main type is Bank: all cards and lines of the box. A line in use is a
// call.Leg, Bank is a call.Dialer, and Voice is the PCM of one line as package
// media takes it.
//
// One goroutine owns a card, its session and its lines; line states change by
// pure functions (fxs.next, fxo.next) whose actions that goroutine carries out.
// Voice runs apart, in the goroutine that reads the port, without lock and
// allocation. The package reads the clock only through package time.
//
// Bytes on the serial line: docs/linecard-link.md, subpackage link. Ring cadence,
// ring trip, hook timing and caller-ID FSK are the card's; tones, DTMF and the
// recognition of tones are PCM, made and heard here by package dsp. Signals:
// ITU-T E.180, Q.23, Telcordia GR-30, ETSI EN 300 659-1. Statements A-1 … A-40:
// docs/lines.md.
//
// Choosing targets is left to package route, ringback and voice of a call to
// package media. Hook flash is counted and otherwise ignored as long as there is
// no second call to switch to.
package analog
