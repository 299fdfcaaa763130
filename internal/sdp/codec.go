package sdp

import (
	"slices"
	"strconv"
	"strings"
)

// static holds the payload types that need no rtpmap, RFC 3551 §6 table 4.
var static = map[uint8]Codec{
	0:  {PayloadType: 0, Name: "PCMU", ClockRate: 8000, Channels: 1},
	3:  {PayloadType: 3, Name: "GSM", ClockRate: 8000, Channels: 1},
	4:  {PayloadType: 4, Name: "G723", ClockRate: 8000, Channels: 1},
	5:  {PayloadType: 5, Name: "DVI4", ClockRate: 8000, Channels: 1},
	6:  {PayloadType: 6, Name: "DVI4", ClockRate: 16000, Channels: 1},
	7:  {PayloadType: 7, Name: "LPC", ClockRate: 8000, Channels: 1},
	8:  {PayloadType: 8, Name: "PCMA", ClockRate: 8000, Channels: 1},
	9:  {PayloadType: 9, Name: "G722", ClockRate: 8000, Channels: 1}, // 16 kHz sound under an 8 kHz clock
	10: {PayloadType: 10, Name: "L16", ClockRate: 44100, Channels: 2},
	11: {PayloadType: 11, Name: "L16", ClockRate: 44100, Channels: 1},
	12: {PayloadType: 12, Name: "QCELP", ClockRate: 8000, Channels: 1},
	13: {PayloadType: 13, Name: "CN", ClockRate: 8000, Channels: 1},
	14: {PayloadType: 14, Name: "MPA", ClockRate: 90000, Channels: 1},
	15: {PayloadType: 15, Name: "G728", ClockRate: 8000, Channels: 1},
	16: {PayloadType: 16, Name: "DVI4", ClockRate: 11025, Channels: 1},
	17: {PayloadType: 17, Name: "DVI4", ClockRate: 22050, Channels: 1},
	18: {PayloadType: 18, Name: "G729", ClockRate: 8000, Channels: 1},
}

// IsEvent reports whether the payload carries telephone events, RFC 4733.
func (c Codec) IsEvent() bool { return strings.EqualFold(c.Name, "telephone-event") }

// IsCN reports whether the payload is comfort noise, RFC 3389.
func (c Codec) IsCN() bool { return strings.EqualFold(c.Name, "CN") }

// IsVoice reports whether the payload is voice: neither events, comfort noise
// nor redundancy, and of a known name.
func (c Codec) IsVoice() bool {
	return c.Name != "" && !c.IsEvent() && !c.IsCN() && !strings.EqualFold(c.Name, "red")
}

// Is reports whether the codec is the named one. The name is an rtpmap name in
// any case, with or without clock rate: "PCMA", "SILK/16000".
func (c Codec) Is(name string) bool {
	name, rate, has := strings.Cut(name, "/")
	return c.Name != "" && strings.EqualFold(c.Name, name) && (!has || rate == strconv.Itoa(c.ClockRate))
}

// codecTable collects the codecs of an m= line.
type codecTable struct{ list []Codec }

// newCodecTable reads the formats. A number that stands twice counts once
// (C-101); a dynamic one has no name until its rtpmap.
func newCodecTable(formats []string) codecTable {
	var t codecTable
	for _, f := range formats {
		pt, err := strconv.ParseUint(f, 10, 7)
		if err != nil || t.find(uint8(pt)) != nil || len(t.list) == maxCodecs {
			continue
		}
		c, known := static[uint8(pt)]
		if !known {
			c = Codec{PayloadType: uint8(pt)}
		}
		t.list = append(t.list, c)
	}
	return t
}

func (t *codecTable) find(pt uint8) *Codec {
	for i := range t.list {
		if t.list[i].PayloadType == pt {
			return &t.list[i]
		}
	}
	return nil
}

// payload splits "number text" and finds the codec; nil if it is not on the m=
// line.
func (t *codecTable) payload(value string) (*Codec, string) {
	number, text, _ := strings.Cut(value, " ")
	pt, err := strconv.ParseUint(number, 10, 7)
	if err != nil {
		return nil, ""
	}
	return t.find(uint8(pt)), strings.TrimSpace(text)
}

// rtpmap reads "number name/rate[/channels]", RFC 8866 §6.6.
func (t *codecTable) rtpmap(value string) {
	c, text := t.payload(value)
	f := strings.Split(text, "/")
	if c == nil || len(f) < 2 || f[0] == "" || strings.ContainsAny(f[0], " \t") {
		return
	}
	rate, err := strconv.ParseUint(f[1], 10, 24)
	if err != nil || rate == 0 {
		return
	}
	channels := uint64(1)
	if len(f) > 2 {
		if channels, err = strconv.ParseUint(f[2], 10, 8); err != nil || channels == 0 {
			channels = 1
		}
	}
	c.Name, c.ClockRate, c.Channels = f[0], int(rate), int(channels)
}

func (t *codecTable) fmtp(value string) {
	if c, text := t.payload(value); c != nil {
		c.Fmtp = text
	}
}

// Voice returns the codec in use once d answers an offer: the first that is
// voice (C-100).
func (d *Description) Voice() (Codec, bool) {
	return first(d.Codecs, func(c Codec) bool { return c.IsVoice() })
}

// Event returns the telephone-event payload with the given clock rate in Hz. It
// must be the one of the voice codec, RFC 4733 §2.1.
func (d *Description) Event(clock int) (Codec, bool) {
	return first(d.Codecs, func(c Codec) bool { return c.IsEvent() && c.ClockRate == clock })
}

// CN returns the comfort noise payload with the given clock rate in Hz.
func (d *Description) CN(clock int) (Codec, bool) {
	return first(d.Codecs, func(c Codec) bool { return c.IsCN() && c.ClockRate == clock })
}

func first(list []Codec, f func(Codec) bool) (Codec, bool) {
	if i := slices.IndexFunc(list, f); i >= 0 {
		return list[i], true
	}
	return Codec{}, false
}

// ownCodecs are the voice codecs that this box sends and receives itself. They
// stand for an empty list of names.
var ownCodecs = []string{"PCMA", "PCMU"}

// OfferCodecs makes the codec list of a first offer from names in order of
// preference; empty means PCMA and PCMU. Telephone events and comfort noise follow the voice. Names that
// have no static payload type are passed over: this box offers none.
func OfferCodecs(names []string) []Codec {
	if len(names) == 0 {
		names = ownCodecs
	}
	var list []Codec
	for _, n := range names {
		for pt := uint8(0); pt < 19; pt++ {
			c, known := static[pt]
			if !known || !c.IsVoice() || !c.Is(n) || c.ClockRate != 8000 || slices.Contains(list, c) {
				continue
			}
			if c.Name == "G729" {
				c.Fmtp = "annexb=no"
			}
			list = append(list, c)
		}
	}
	if list == nil {
		return nil
	}
	return append(list,
		Codec{PayloadType: 101, Name: "telephone-event", ClockRate: 8000, Channels: 1, Fmtp: "0-16"},
		static[13])
}

// AnswerCodecs makes the codec list of the answer to an offer: one voice codec,
// the first of names (in order of preference) that was offered, then events and
// comfort noise of its clock rate if they were offered. Payload numbers and
// parameters are the offer's (RFC 3264 §6.1). One codec, because a peer may
// change between several at any packet (§10.2). Empty names accept any voice
// codec. The list is nil when nothing fits: the offer is refused with 488.
func AnswerCodecs(offer []Codec, names []string) []Codec {
	if len(names) == 0 {
		names = ownCodecs
	}
	voice, ok := Codec{}, false
	for _, n := range names {
		if voice, ok = first(offer, func(c Codec) bool { return c.IsVoice() && c.Is(n) && c.Channels <= 1 }); ok {
			break
		}
	}
	if !ok {
		return nil
	}
	list := []Codec{voice}
	for _, is := range []func(Codec) bool{Codec.IsEvent, Codec.IsCN} {
		c, ok := first(offer, func(c Codec) bool { return is(c) && c.ClockRate == voice.ClockRate })
		if !ok {
			continue
		}
		if c.IsEvent() {
			c.Fmtp = eventsInCommon(c.Fmtp)
		}
		list = append(list, c)
	}
	return list
}

// eventsInCommon is what we announce to receive: digits and flash, and no more
// than was offered when the offer stops at the digits (RFC 4733 §2.4.1).
func eventsInCommon(offered string) string {
	if offered == "0-15" || offered == "0-11" {
		return offered
	}
	return "0-16"
}
