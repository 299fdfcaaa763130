package sdp

import (
	"bytes"
	"errors"
	"time"
)

// defaultPtime is the packet time of every codec this box sends.
const defaultPtime = 20 * time.Millisecond

// Reasons why an offer cannot be accepted. All are answered with 488.
var (
	ErrRefused   = errors.New("the voice stream is refused (port 0)")
	ErrNotSecure = errors.New("the offer is not RTP/SAVP with SDES keys")
	ErrSecure    = errors.New("the offer is RTP/SAVP and this trunk is without SRTP")
	ErrCrypto    = errors.New("no crypto line of the offer can be used")
	ErrCodec     = errors.New("no codec in common")
)

// Sends reports whether the describing party sends voice.
func (d Direction) Sends() bool { return d == SendRecv || d == SendOnly }

// Receives reports whether the describing party receives voice.
func (d Direction) Receives() bool { return d == SendRecv || d == RecvOnly }

func directionOf(sends, receives bool) Direction {
	switch {
	case sends && receives:
		return SendRecv
	case sends:
		return SendOnly
	case receives:
		return RecvOnly
	}
	return Inactive
}

// Mirror is the same direction seen by the other party.
func (d Direction) Mirror() Direction { return directionOf(d.Receives(), d.Sends()) }

// AnswerDirection is the direction of an answer: what the offer allows of what
// we want, RFC 3264 §6.1. With inactiveHold a one-way direction becomes
// Inactive, because Teams understands no other form of hold (RFC 6337 §5.3 as
// Microsoft reads it).
func AnswerDirection(offered, want Direction, inactiveHold bool) Direction {
	return OfferDirection(directionOf(want.Sends() && offered.Receives(), want.Receives() && offered.Sends()), inactiveHold)
}

// OfferDirection is the direction as an offer may state it; see AnswerDirection
// for inactiveHold.
func OfferDirection(want Direction, inactiveHold bool) Direction {
	if inactiveHold && want != SendRecv {
		return Inactive
	}
	return want
}

// Held reports whether the party that wrote d holds the other: it receives
// nothing any more, by direction or by the old form with address 0.0.0.0
// (RFC 3264 §8.4).
func (d *Description) Held() bool {
	return d.Line == "" && (!d.Direction.Receives() || d.RTP.Addr().IsUnspecified())
}

// Accept applies the rules of an answer that need no address, port, key or
// clock: it checks the offer against the profile and returns the answer's
// codecs, direction, transport, refused streams and the one crypto line with
// the tag and suite to use. Its Key is nil: the caller fills it, the addresses,
// the o= identity and, when ICE is set with only Lite, the credentials and
// candidate. peer is the offer's crypto line to decrypt with; zero without SRTP.
//
// A peer's ICE is answered only when the profile has ICE and the peer will check
// or is lite itself; without a candidate voice is plain c= and m= (C-121).
func Accept(offer *Description, p Profile) (answer *Description, peer Crypto, err error) {
	switch {
	case offer.RTP.Port() == 0:
		return nil, Crypto{}, ErrRefused
	case p.Secure && !offer.Secure:
		return nil, Crypto{}, ErrNotSecure
	case !p.Secure && offer.Secure:
		return nil, Crypto{}, ErrSecure
	}
	answer = &Description{
		Secure:    offer.Secure,
		Transport: offer.Transport,
		RTCPMux:   offer.RTCPMux && p.RTCPMux,
		Ptime:     p.Ptime,
		Direction: AnswerDirection(offer.Direction, SendRecv, p.InactiveHold),
		Others:    offer.Others,
	}
	if answer.Ptime == 0 {
		answer.Ptime = defaultPtime
	}
	if offer.Secure {
		chosen, ok := ChooseCrypto(offer.Crypto)
		if !ok {
			return nil, Crypto{}, ErrCrypto
		}
		peer = chosen
		if chosen.Lifetime == "" && p.InactiveHold {
			chosen.Lifetime = Lifetime // Teams' lines carry one, and so do ours (C-91)
		}
		answer.Crypto = []Crypto{{Tag: chosen.Tag, Suite: chosen.Suite, Lifetime: chosen.Lifetime, MKI: chosen.MKI, MKILength: chosen.MKILength}}
	}
	if answer.Codecs = AnswerCodecs(offer.Codecs, p.Codecs); answer.Codecs == nil {
		return nil, Crypto{}, ErrCodec
	}
	if p.ICE == LiteICE && offer.ICE != nil && (offer.ICE.Lite || len(offer.ICE.Candidates) > 0) {
		answer.ICE = &ICE{Lite: true}
	}
	return answer, peer, nil
}

// Follow gives d the o= identity that belongs after prev: the same session, and
// the version one higher exactly when anything else of the text differs
// (RFC 3264 §8, C-104). With prev nil d is left as it is.
func (d *Description) Follow(prev *Description) {
	if prev == nil {
		return
	}
	d.SessionID, d.Version = prev.SessionID, prev.Version
	if !bytes.Equal(d.Marshal(), prev.Marshal()) {
		d.Version++
	}
}
