// Package media carries the voice of calls: RTP and SRTP legs, analog lines,
// and everything between them.
//
// The main types are Engine, which owns ports, loops and realms, and Bridge,
// the voice of one call. A Bridge takes offers and answers, gives ours, joins
// two legs, plays tones, carries digits (RFC 4733), reports a leg whose voice
// has died, moves a leg to another realm, and measures.
//
// A Bridge has two halves. The negotiating half runs in the goroutine of the
// call and holds descriptions, ports and keys (bridge.go, negotiate.go). The
// voice half runs on one media loop and holds streams and SRTP contexts
// (voice.go and what it names); it learns of changes by posted commands, never
// blocks, and per packet takes no lock and sends on no channel. The voice half
// is driven by packet, frame and tick with the time given, so tests run it in
// virtual time without sockets.
//
// Voice is G.711 in either law; what both sides of a call can do without
// transcoding is preferred. Relaying between RTP legs adds no buffer; toward a
// line the card's clock is the master.
//
// Standards: RFC 3550, 3551, 3711, 4568, 4733, 3389, 5761, 7983, 8035, 8445
// (lite), ITU-T G.107, G.711. Connectivity checks are left to package bypass,
// the rules of offer and answer to package sdp, signals to package dsp.
package media
