package analog

import (
	"time"

	"localloop/internal/analog/link"
	"localloop/internal/call"
	"localloop/internal/dsp"
)

const (
	// cidDelay is from the end of the first burst to caller ID; at least 500 ms, A-12.
	cidDelay = 600 * time.Millisecond
	// cidTail is from the end of caller ID to the second burst, A-12.
	cidTail = 200 * time.Millisecond
	// slotLeast is a silence long enough for the slot; shorter ones part double rings.
	slotLeast = 900 * time.Millisecond
)

// ringPattern is the country's cadence with a slot for caller ID in the first
// silence that is long enough, A-8.
func ringPattern(p *dsp.Plan) link.Ring {
	r := link.Ring{Steps: p.Ring, SlotDelay: cidDelay, SlotStep: uint8(len(p.Ring) - 1)}
	for i := 1; i < len(p.Ring); i += 2 {
		if p.Ring[i] >= slotLeast {
			r.SlotStep = uint8(i)
			break
		}
	}
	return r
}

// callerIDFor is what the phone shall show of a calling party.
func (l *line) callerIDFor(from call.Party) dsp.CallerID {
	id := dsp.CallerID{Number: dialable(l.card.bank.o.Box, from.Number), Name: from.Name, Time: time.Now()}
	switch {
	case from.Private:
		id.Number, id.Name, id.NumberAbsent, id.NameAbsent = "", "", 'P', 'P'
	case id.Number == "":
		id.NumberAbsent = 'O'
	}
	if id.Name == "" && id.NameAbsent == 0 {
		id.NameAbsent = 'O'
	}
	return id
}

// ring rings the phone. Caller ID is the card's to send where it can; else it is
// PCM of ours in the slot; else there is none. A phone rings without caller ID
// rather than not at all.
func (l *line) ring() {
	l.rings++
	l.pcmCID = nil
	pattern := ringPattern(l.plan)
	sch := scheme(l.conf, l.plan)
	octets := dsp.EncodeCallerID(sch, l.callerIDFor(l.incomingParty()))
	can := l.card.welcome.Channels[l.channel()].Can
	cmd, ok := cidCommand(sch, octets)
	switch {
	case ok && can&link.CanCallerID != 0:
		if cmd.Alert != link.AlertNone {
			pattern.SlotStep = link.BeforeRing
		}
		body, err := cmd.Body()
		if err != nil {
			break
		}
		rings := l.rings
		err = l.card.session.Command(time.Now(), l.channel(), body, func(s link.Status) {
			if rings != l.rings || s == link.StatusLinkDown {
				return // answered, given up, or the line is down
			}
			if s == link.StatusOK {
				pattern.Slot = link.SlotByCard
			} else {
				l.log.Warn("line card refuses caller ID", "status", s.String())
			}
			l.sendRing(pattern)
		})
		if err == nil {
			return
		}
	case ok && cmd.Method != link.MethodDTMF && can&link.CanOnHookPCM != 0:
		if modem, framing, fsk := dsp.CIDFraming(sch, false); fsk && fits(pattern, framing.Duration(octets)) {
			l.pcmCID = dsp.NewFSK(modem, dsp.FSKLevel)
			l.pcmCID.Send(framing, octets)
			pattern.Slot = link.SlotByHost
			l.setStream(true)
			l.sound(toneSilence)
		}
	}
	l.sendRing(pattern)
}

// fits reports whether a message ends in time before the second burst.
func fits(r link.Ring, message time.Duration) bool {
	return r.SlotDelay+message+cidTail <= r.Steps[r.SlotStep]
}

// slot is the card's word that PCM reaches the phone now.
func (l *line) slot(room time.Duration) {
	if l.pcmCID == nil || l.stream == nil || room < slotLeast {
		return
	}
	l.voice.set(fskSender{l.pcmCID})
	l.pcmCID = nil
}

func (l *line) sendRing(pattern link.Ring) {
	rings := l.rings
	refused := func(s link.Status) {
		if rings == l.rings {
			l.refused(s)
		}
	}
	body, err := pattern.Body()
	if err != nil {
		l.log.Error("ring", "error", err)
		l.card.post(func() { refused(link.StatusBadArgument) })
		return
	}
	l.command(body, refused)
}

// cidCommand is the command for a card with a generator. It is false for schemes
// that send nothing.
func cidCommand(s dsp.CIDScheme, octets []byte) (link.CallerID, bool) {
	if len(octets) == 0 {
		return link.CallerID{}, false
	}
	c := link.CallerID{Octets: octets}
	switch s {
	case dsp.DTMFAC, dsp.DTMFDC, dsp.DTMFAHash:
		c.Method = link.MethodDTMF
		// DTMF caller ID goes before the first ring, after a reversal.
		c.Alert = link.AlertReversal
		return c, true
	}
	modem, framing, ok := dsp.CIDFraming(s, false)
	if !ok {
		return link.CallerID{}, false
	}
	c.Seizure, c.Mark = uint16(framing.Seizure), uint16(framing.Mark)
	if modem == dsp.V23 {
		c.Method = link.MethodV23
	}
	if s == dsp.BT {
		c.Alert = link.AlertReversal // SIN 227: reversal, DT-AS, data, ring
	}
	return c, true
}

// incomingParty is who calls: the Setup that the line's leg was dialled with.
func (l *line) incomingParty() call.Party {
	if l.leg == nil {
		return call.Party{}
	}
	return l.leg.setup.Calling
}
