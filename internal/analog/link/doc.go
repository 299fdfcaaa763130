// Package link is the host's side of SLCL 1.0, the serial line-card link of
// docs/linecard-link.md: frames, sessions, reliable commands and events, and
// the rules of PCM streams.
//
// The main types are Session (the protocol, one goroutine, no port), Conn (a
// port with its reader and writer) and Stream (the sequence rules of PCM).
// Session is passive: its owner gives it frames and the time, and asks when it
// wants to be called next. So it is tested with a scripted card in virtual time.
//
// COBS: Cheshire and Baker, IEEE/ACM ToN 1999. Check sequence: RFC 1662 appendix C.
// What is on a line (tones, digits, calls) is left to package analog; G.711
// octets pass through unopened.
package link
