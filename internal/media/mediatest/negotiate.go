package mediatest

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/pion/srtp/v3"
)

const suite80 = "AES_CM_128_HMAC_SHA1_80"

// Errors that a caller may test for.
var (
	// ErrRejected: the other side's description cannot be used; 488 as UAS.
	ErrRejected = errors.New("session description not acceptable")
	// ErrChanged: an answer differs from an earlier one to the same offer where
	// it must not (ufrag and pwd between 183 and 200).
	ErrChanged = errors.New("answer changed")
)

// Reoffer says what a new offer in a running call changes.
type Reoffer struct {
	// Restart begins a new ICE generation, RFC 8445 §2.4.
	Restart bool
	Paths   []string // of the new generation; empty: all
	Rekey   bool     // new SDES key; its ROC begins at 0 (C-76)
	// Direction, empty for sendrecv.
	Direction string
	// Confirm adds a=remote-candidates and makes the nominated pair the default
	// address, as a controlling agent does when checks are complete.
	Confirm bool
}

// Offer writes an offer. The first makes the credentials; later ones without
// changes repeat it, version included.
func (c *Client) Offer() ([]byte, error) { return c.Reoffer(Reoffer{}) }

// Reoffer writes an offer that changes something.
func (c *Client) Reoffer(r Reoffer) ([]byte, error) {
	c.mu.Lock()
	needGen := c.cfg.ICE && (c.gen == nil || r.Restart)
	c.mu.Unlock()
	if needGen {
		g, err := c.newGen(r.Paths)
		if err != nil {
			return nil, err
		}
		c.mu.Lock()
		c.replaceGen(g)
		c.mu.Unlock()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	d := c.base()
	d.Direction = r.Direction
	if d.Direction == "" {
		d.Direction = "sendrecv"
	}
	d.Codecs = c.offeredCodecs()
	if c.cfg.Secure {
		if c.localKey == nil || r.Rekey {
			c.localKey = newKey()
		}
		if c.cfg.Teams {
			d.Crypto = []Crypto{
				{Tag: 2, Suite: suite80, Key: c.localKey, MKI: []byte{1}},
				{Tag: 3, Suite: suite80, Key: c.localKey},
			}
		} else {
			d.Crypto = []Crypto{{Tag: 1, Suite: suite80, Key: c.localKey}}
		}
	}
	if r.Confirm && c.route.socket != nil {
		d.Addr, d.RTCP = c.route.socket.local, c.route.socket.local
		d.RemoteCandidates = []netip.AddrPort{c.route.remote}
	}
	return c.publish(d), nil
}

// replaceGen makes g the newest generation; the others live until it nominates.
func (c *Client) replaceGen(g *generation) {
	if c.gen != nil {
		c.older = append(c.older, c.gen)
	}
	c.gen, c.iceState = g, "new"
}

// base is the part of our descriptions that negotiation does not change.
func (c *Client) base() Description {
	d := Description{SessionID: c.sessionID, Addr: c.sockets[0].local, RTCPMux: !c.cfg.NoMux, Ptime: 20, Profile: "RTP/AVP"}
	d.RTCP = d.Addr
	if c.cfg.NoMux {
		d.RTCP = netip.AddrPortFrom(d.Addr.Addr(), d.Addr.Port()+1)
	}
	if c.cfg.Secure {
		d.Profile = "RTP/SAVP"
	}
	if c.gen != nil {
		d.Ufrag, d.Pwd, d.Lite = c.gen.ufrag, c.gen.pwd, c.cfg.Lite
		d.Addr = c.gen.paths[0].local
		d.RTCP = d.Addr
		for i, s := range c.gen.paths {
			d.Candidates = append(d.Candidates, describeCandidate(s, i))
		}
	}
	return d
}

func (c *Client) offeredCodecs() []Codec {
	codecs := slices.Clone(c.cfg.Extra)
	for _, l := range c.cfg.Laws {
		codecs = append(codecs, Codec{PayloadType: l.payloadType(), Name: l.name() + "/8000"})
	}
	return append(codecs, Codec{PayloadType: 101, Name: "telephone-event/8000", Fmtp: "0-16"}, Codec{PayloadType: 13, Name: "CN/8000"})
}

// publish numbers the description (RFC 3264 §8: one up when it changes) and writes it.
func (c *Client) publish(d Description) []byte {
	d.Version = c.version
	text := d.Text(c.cfg.Teams)
	if c.lastText != nil && string(text) != string(c.lastText) {
		c.version++
		d.Version = c.version
		text = d.Text(c.cfg.Teams)
	}
	c.lastText, c.local = text, d
	return text
}

// Answer takes an offer, answers it and begins to use it. A changed ufrag and
// pwd is an ICE restart: new credentials of ours, voice stays on the old pair
// until the new one is nominated (RFC 8445 §2.4, C-117 seen from the other side).
func (c *Client) Answer(offer []byte) ([]byte, error) {
	return c.AnswerVia(offer)
}

// AnswerVia is Answer with the paths that an ICE generation made by it may use:
// a media processor that takes the call over has other ways than the client had.
func (c *Client) AnswerVia(offer []byte, paths ...string) ([]byte, error) {
	d, err := ParseDescription(offer)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRejected, err)
	}
	crypto, err := c.chooseCrypto(d)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	useICE := c.cfg.ICE && d.Ufrag != "" && len(d.Candidates) > 0
	restart := useICE && (!c.remoteKnown || c.remote.Ufrag != d.Ufrag || c.remote.Pwd != d.Pwd)
	half := useICE && c.remoteKnown && (c.remote.Ufrag == d.Ufrag) != (c.remote.Pwd == d.Pwd)
	fresh := !c.remoteKnown && c.gen != nil
	c.mu.Unlock()
	if half {
		return nil, fmt.Errorf("%w: ufrag and pwd must change together", ErrRejected)
	}
	if restart && !fresh {
		g, err := c.newGen(paths)
		if err != nil {
			return nil, err
		}
		c.mu.Lock()
		c.replaceGen(g)
		c.mu.Unlock()
	}
	c.mu.Lock()
	codecs, err := c.agree(d)
	if err != nil {
		c.mu.Unlock()
		return nil, err
	}
	a := c.base()
	if !useICE {
		a.Ufrag, a.Pwd, a.Candidates, a.Lite = "", "", nil, false
	}
	a.Codecs, a.Profile = codecs, d.Profile
	a.RTCPMux = a.RTCPMux && d.RTCPMux
	a.Direction = mirror(d.Direction)
	if crypto != nil {
		if c.localKey == nil {
			c.localKey = newKey()
		}
		a.Crypto = []Crypto{{Tag: crypto.Tag, Suite: suite80, Key: c.localKey, MKI: crypto.MKI}}
	}
	text := c.publish(a)
	var ours *Crypto
	if crypto != nil {
		ours = &a.Crypto[0]
	}
	gen, err := c.apply(d, crypto, ours, useICE)
	c.mu.Unlock()
	if err == nil && gen != nil {
		err = gen.start(d)
	}
	return text, err
}

// Accept takes the answer to our last offer and begins to use it.
func (c *Client) Accept(answer []byte) error {
	d, err := ParseDescription(answer)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrRejected, err)
	}
	c.mu.Lock()
	var theirs, ours *Crypto
	if c.cfg.Secure {
		for i := range d.Crypto {
			for j := range c.local.Crypto {
				if d.Crypto[i].Tag == c.local.Crypto[j].Tag && d.Crypto[i].Suite == c.local.Crypto[j].Suite && len(d.Crypto[i].Key) == 30 {
					theirs, ours = &d.Crypto[i], &c.local.Crypto[j]
				}
			}
		}
		if theirs == nil {
			c.mu.Unlock()
			return fmt.Errorf("%w: answer has no a=crypto with a tag that was offered", ErrRejected)
		}
	}
	useICE := c.gen != nil && d.Ufrag != ""
	if c.gen != nil && d.Ufrag == "" && len(d.Candidates) == 0 {
		c.log.Debug("answer without ICE")
	}
	if useICE {
		c.gen.mu.Lock()
		changed := c.gen.started && (c.gen.remoteUfrag != d.Ufrag || c.gen.remotePwd != d.Pwd)
		c.gen.mu.Unlock()
		if changed {
			c.mu.Unlock()
			return fmt.Errorf("%w: ufrag or pwd", ErrChanged)
		}
	}
	if _, err = c.agree(d); err != nil {
		c.mu.Unlock()
		return err
	}
	gen, err := c.apply(d, theirs, ours, useICE)
	c.mu.Unlock()
	if err == nil && gen != nil {
		err = gen.start(d)
	}
	return err
}

func (c *Client) chooseCrypto(d Description) (*Crypto, error) {
	secure := strings.Contains(d.Profile, "SAVP")
	if secure != c.cfg.Secure {
		return nil, fmt.Errorf("%w: profile %s", ErrRejected, d.Profile)
	}
	if !secure {
		return nil, nil
	}
	var best *Crypto
	for i, k := range d.Crypto {
		if k.Suite == suite80 && len(k.Key) == 30 && (best == nil || best.MKI != nil && k.MKI == nil) {
			best = &d.Crypto[i]
		}
	}
	if best == nil {
		return nil, fmt.Errorf("%w: no %s key", ErrRejected, suite80)
	}
	return best, nil
}

// agree picks the first codec of the other side's that we speak. c.mu is held.
func (c *Client) agree(d Description) ([]Codec, error) {
	var codecs []Codec
	seen := map[uint8]bool{}
	found, events, noise := false, false, false
	for _, k := range d.Codecs {
		if seen[k.PayloadType] {
			return nil, fmt.Errorf("%w: payload type %d twice", ErrRejected, k.PayloadType) // C-101
		}
		seen[k.PayloadType] = true
		name := strings.ToUpper(k.Name)
		switch {
		case name == "TELEPHONE-EVENT/8000" && !events:
			events, c.eventPT = true, k.PayloadType
			codecs = append(codecs, k)
		case name == "CN/8000" && !noise:
			noise, c.cnPT = true, k.PayloadType
			codecs = append(codecs, k)
		default:
			for _, l := range c.cfg.Laws {
				if name == l.name()+"/8000" && !found {
					found, c.law, c.pt = true, l, k.PayloadType
					codecs = append([]Codec{k}, codecs...)
				}
			}
		}
	}
	if !found {
		return nil, fmt.Errorf("%w: no G.711 among %v", ErrRejected, d.Codecs)
	}
	c.hasEvents, c.hasCN = events, noise
	return codecs, nil
}

// apply puts a negotiated pair of descriptions into force. It returns the
// generation that is to check. c.mu is held.
func (c *Client) apply(d Description, theirs, ours *Crypto, useICE bool) (*generation, error) {
	if theirs != nil {
		if err := c.setKeys(*theirs, *ours); err != nil {
			return nil, err
		}
	}
	if c.cfg.Lite && d.Lite {
		useICE = false // both lite: nobody checks, the default addresses are the pair (RFC 8445 §8.2, C-120)
	}
	c.remote, c.remoteKnown = d, true
	c.sendOK = (d.Direction == "sendrecv" || d.Direction == "recvonly") && d.Addr.Port() != 0 && !d.Addr.Addr().IsUnspecified()
	if !useICE {
		c.route = route{}
		for _, s := range c.sockets {
			if s.reaches(d.Addr.Addr()) {
				c.route = route{s, d.Addr}
				break
			}
		}
	}
	c.notify()
	if useICE {
		return c.gen, nil
	}
	return nil, nil
}

// setKeys makes new contexts where a key is new, and keeps the ROC where it is not.
func (c *Client) setKeys(theirs, ours Crypto) error {
	if len(c.in) == 0 || !sameKey(c.in[0].key, theirs.Key) {
		var options []srtp.ContextOption
		if theirs.MKI != nil {
			options = append(options, srtp.MasterKeyIndicator(theirs.MKI))
		}
		options = append(options, srtp.SRTPReplayProtection(128), srtp.SRTCPReplayProtection(128))
		ctx, err := srtp.CreateContext(theirs.Key[:16], theirs.Key[16:], srtp.ProtectionProfileAes128CmHmacSha1_80, options...)
		if err != nil {
			return fmt.Errorf("srtp: %w", err)
		}
		c.in = append([]inContext{{theirs.Key, ctx}}, c.in...)
		if len(c.in) > 2 {
			c.in = c.in[:2] // packets of the old key are still on their way
		}
	}
	if c.out == nil || !sameKey(c.outKey, ours.Key) {
		var options []srtp.ContextOption
		if ours.MKI != nil {
			options = append(options, srtp.MasterKeyIndicator(ours.MKI))
		}
		ctx, err := srtp.CreateContext(ours.Key[:16], ours.Key[16:], srtp.ProtectionProfileAes128CmHmacSha1_80, options...)
		if err != nil {
			return fmt.Errorf("srtp: %w", err)
		}
		c.out, c.outKey = ctx, ours.Key
	}
	return nil
}

func mirror(direction string) string {
	switch direction {
	case "sendonly":
		return "recvonly"
	case "recvonly":
		return "sendonly"
	case "inactive":
		return "inactive"
	}
	return "sendrecv"
}
