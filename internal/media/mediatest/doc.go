// Package mediatest is the far end of a voice path for tests and for the
// simulated branch: a media client as Microsoft Teams has one, or a plain RTP
// endpoint as a carrier has one.
//
// The main type is Client. It negotiates with session descriptions (Offer,
// Answer, Accept), runs ICE as a full controlling agent with regular nomination
// (pion/ice/v4) or plain RTP without ICE, protects voice with SDES keys
// (pion/srtp/v3), sends a tone, speech or comfort noise every 20 ms, and finds
// the other side's tone by frequency in what it decrypts. It counts datagrams
// by path and by DSCP as they reach its sockets, and can cut, delay, lose and
// corrupt a path.
//
// It shares no code with the product that it judges: its G.711, its tones, its
// session descriptions and its RTCP are its own.
//
// Standards: RFC 3550, RFC 3551, RFC 3389 (comfort noise), RFC 3711 and 4568
// (through srtp/v3), RFC 4733, RFC 8445 and 5245 (through ice/v4), RFC 7675
// (consent), RFC 8866, ITU-T G.711, G.107. What Microsoft does differently
// follows docs/teams.md.
//
// Left out: codecs other than G.711, which a client may offer but not choose;
// TURN, for which a socket on another local address stands.
package mediatest
