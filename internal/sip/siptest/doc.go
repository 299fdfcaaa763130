// Package siptest is the other side of SIP for tests and for the simulated
// branch: a Teams proxy, and a plain SIP peer such as a carrier.
//
// The main types are Teams (three proxy names on their own listeners, mutual
// TLS from a test CA, requests only on connections that it opened itself, header
// names in capitals, Local Media Optimization headers, strict checks of what it
// receives), Peer (UDP, TCP or TLS; caller and called party), Call (one dialog
// as a test sees it: verbs and waits, no sleeping) and CA.
//
// It shares no code with the product that it judges: message text, transactions
// and dialogs are its own, media comes from mediatest. What breaks a rule of the
// product's contract is not refused silently but kept as a Violation under the
// number of the statement that it breaks (C-26, C-42 …).
//
// Standards: RFC 3261, RFC 3264, RFC 3326; what Microsoft does differently
// follows docs/teams.md.
//
// Left out: digest authentication, REFER, session timers.
package siptest
