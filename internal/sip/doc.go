// Package sip speaks SIP with Microsoft Teams, carriers and PBXs. Each trunk has
// its own sockets, transactions and dialogs; a dialog is a call.Leg.
//
// The main type is Endpoint: it implements call.Dialer for trunks, accepts calls
// from them, keeps their connections and pings alive and knows which are up.
//
//	bytes ──> frame ──> police ──> sipgo parser ──> transactions ──> dialog ──> call.Event
//	         (limits)  (verdict)                   (sipgo)          (leg)
//
// From github.com/emiago/sipgo come the parser, the message types and the
// transaction state machines. Framing, connections, dialogs and trunks are ours;
// docs/decisions/sip-stack.md says why. No other package may import sipgo.
//
// Standards: RFC 3261 with RFC 6026 (transactions) and RFC 3581 (rport),
// RFC 3264 and RFC 6337 (offer/answer), RFC 3325 and RFC 3323 (identity and
// privacy), RFC 3326 and RFC 3398 (causes), RFC 3960 (early media), RFC 4475
// (torture tests). Microsoft's rules are cited by their number in docs/teams.md:
// C-16 and so on.
//
// Numbers and routes are left to package route, descriptions to package sdp,
// voice to package media, and what to do with a call to package call.
package sip
