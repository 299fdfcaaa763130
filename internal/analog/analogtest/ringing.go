package analogtest

import (
	"encoding/binary"
	"time"
)

// ringing is a RING under way.
type ringing struct {
	steps  []int // ms: ring, silence, …
	repeat int   // -1: the pattern ends
	hz     int
	at     int // step
	spent  int // ms of it
	first  bool
	burst  bool
	told   bool // RING_ON has been sent

	card, host bool // who sends the caller ID
	slotStep   int  // -1: before the first ring
	slotDelay  int
	slotted    bool
	hold       int // ms before the first ring, after a caller ID there
}

const ringDefaultHz = 25

func (p *fxsPort) startRinging(args []byte) byte {
	if len(args) < 7 {
		return stBadArgument
	}
	flags, hz, repeat, n := args[0], int(args[1]), args[2], int(args[6])
	if n < 2 || n > 16 || n%2 != 0 || len(args) < 7+2*n || hz != 0 && (hz < 15 || hz > 68) || flags&3 == 3 {
		return stBadArgument
	}
	r := &ringing{hz: hz, repeat: -1, first: true, card: flags&1 != 0, host: flags&2 != 0,
		slotStep: int(args[3]), slotDelay: int(binary.LittleEndian.Uint16(args[4:]))}
	if hz == 0 {
		r.hz = ringDefaultHz
	}
	if repeat != 0xFF {
		if int(repeat) >= n || repeat%2 != 0 {
			return stBadArgument
		}
		r.repeat = int(repeat)
	}
	for i := range n {
		ms := int(binary.LittleEndian.Uint16(args[7+2*i:]))
		if ms < 50 || ms > 20000 {
			return stBadArgument
		}
		r.steps = append(r.steps, ms)
	}
	if r.card || r.host {
		switch {
		case r.slotStep == 0xFF:
			r.slotStep = -1
		case r.slotStep >= n || r.slotStep%2 == 0 || r.slotDelay+200 > r.steps[r.slotStep]:
			return stBadArgument
		}
		if r.slotDelay < 500 && (r.host || r.slotStep >= 0) {
			return stBadArgument
		}
	}
	switch {
	case r.card && p.stored == nil:
		return stBadArgument
	case r.host && p.c.opt.NoOHT:
		return stUnsupported
	case p.offHook || p.open():
		return stWrongState
	}
	p.stopRinging()
	p.abortCallerID()
	p.slotTo = 0
	p.ring = r
	if r.card && r.slotStep < 0 {
		p.send(*p.stored, false)
		p.stored, r.slotted, r.told = nil, true, true
		p.event(evRingOn, byte(r.hz))
	}
	if r.host && r.slotStep < 0 {
		r.slotted, r.hold = true, r.slotDelay+200
		p.openSlot(r.slotDelay)
	}
	return stOK
}

// openSlot lets the host's PCM through to the on-hook phone.
func (p *fxsPort) openSlot(ms int) {
	p.slotTo = p.w.ms + uint64(ms)
	p.event(evCIDSlot, byte(ms), byte(ms>>8))
}

// stepRing advances the pattern by one millisecond and tells whether ringing
// voltage is on the line.
func (p *fxsPort) stepRing() (burst bool) {
	if p.sender != nil && p.sender.ringing() {
		return true // the alert before the data
	}
	r := p.ring
	if r == nil {
		return false
	}
	if r.slotStep < 0 && r.at == 0 && r.spent == 0 && r.first {
		// Something comes before the first ring, and 200 ms after it.
		if p.sender != nil {
			r.hold = 200
			return false
		}
		if r.hold > 0 {
			r.hold--
			return false
		}
	}
	for r.spent >= r.steps[r.at] {
		if p.sender != nil && r.at%2 == 1 {
			return false // the silence is made longer for the caller ID
		}
		if r.at%2 == 0 {
			p.ringEnd = p.w.ms
		}
		r.spent = 0
		if r.at++; r.at < len(r.steps) {
			break
		}
		r.first = false
		if r.repeat < 0 {
			p.stopRinging()
			p.event(evRingDone)
			return false
		}
		r.at = r.repeat
	}
	if !r.told {
		r.told = true
		p.event(evRingOn, byte(r.hz))
	}
	if r.first && !r.slotted && (r.card || r.host) && r.at == r.slotStep && r.spent >= r.slotDelay {
		r.slotted = true
		if r.card {
			p.send(*p.stored, false)
			p.stored = nil
			if need := r.spent + p.sender.length() + 200; need > r.steps[r.at] {
				r.spent -= need - r.steps[r.at]
			}
		} else if ms := r.steps[r.at] - 200 - r.spent; ms > 0 {
			p.openSlot(ms)
		}
	}
	r.spent++
	r.burst = r.at%2 == 0
	return r.burst
}

// callerIDMessage is what CALLERID names.
type callerIDMessage struct {
	method, alert byte
	seizure, mark int
	octets        []byte
}

const (
	alertNone     = 0
	alertDTAS     = 1
	alertReversal = 2
	alertRing     = 3
)

func (p *fxsPort) callerID(args []byte) byte {
	le := binary.LittleEndian
	if p.c.opt.NoFSK {
		return stUnsupported
	}
	if len(args) < 8 || len(args) > 7+230 || args[0] > 2 || args[1] > 2 || args[2] > 3 {
		return stBadArgument
	}
	m := callerIDMessage{args[1], args[2], int(le.Uint16(args[3:])), int(le.Uint16(args[5:])), append([]byte(nil), args[7:]...)}
	if m.seizure > 1000 || m.mark > 1000 {
		return stBadArgument
	}
	if m.method == 2 {
		if _, err := DTMF(string(m.octets), Keying{On: time.Millisecond, Off: time.Millisecond}); err != nil {
			return stBadArgument
		}
	}
	switch {
	case args[0] == 0:
		p.stored = &m
	case args[0] == 2 && m.alert > alertDTAS:
		return stBadArgument
	case (args[0] == 2) != p.offHook || p.sender != nil || p.ring != nil || p.open():
		return stWrongState
	default:
		p.send(m, args[0] == 2)
	}
	return stOK
}

// cidSender is a caller ID on its way to the phone.
type cidSender struct {
	alert    []int16 // DT-AS, or silence while the reversal or the short ring is on
	data     []int16
	ringFor  int // samples of short ring still to come
	offHook  bool
	wantAck  bool
	ackIn    int // samples in which the phone may still acknowledge
	pause    int // samples from the acknowledgement to the data
	receiver dtmfReceiver
	acked    bool
	reversed bool // the alert has reversed the feed,
	feed     int  // which was this
}

// abortCallerID ends what is being sent.
func (p *fxsPort) abortCallerID() {
	p.abortReversal()
	p.sender = nil
}

// abortReversal takes back the reversal of the alert.
func (p *fxsPort) abortReversal() {
	if s := p.sender; s != nil && s.reversed {
		p.feed, s.reversed = s.feed, false
	}
}

func (p *fxsPort) send(m callerIDMessage, offHook bool) {
	s := &cidSender{offHook: offHook}
	quiet := func(ms int) []int16 { return make([]int16, ms*8) }
	dtas := make([]int16, 800)
	(&player{left: -1, sines: []sine{newSine(2130, -18), newSine(2750, -18)}}).fill(dtas)
	switch m.alert {
	case alertDTAS:
		s.alert = append(dtas, quiet(60)...)
		if s.wantAck = offHook; s.wantAck {
			s.alert, s.ackIn = dtas, 160*8
		}
	case alertReversal:
		s.reversed, s.feed = true, p.feed
		p.feed, p.revertAt = p.feed^1, 0 // 0 and 1, 4 and 5
		s.alert = append(append(quiet(100), dtas...), quiet(60)...)
	case alertRing:
		s.ringFor = 250 * 8
		s.alert = quiet(250 + 60)
	}
	switch m.method {
	case 0, 1:
		s.data = [...]modem{bell202, v23}[m.method].fskAudio(m.octets, m.seizure, m.mark, -13.5)
	default:
		s.data, _ = DTMF(string(m.octets), Keying{On: 70 * time.Millisecond, Off: 70 * time.Millisecond})
	}
	p.sender = s
}

// length is what is still to be sent, in ms.
func (s *cidSender) length() int { return (len(s.alert) + len(s.data)) / 8 }

func (s *cidSender) ringing() bool { return s.ringFor > 0 }

// fill replaces what goes to the phone.
func (s *cidSender) fill(p *fxsPort, dst []int16) {
	clear(dst)
	s.ringFor = max(0, s.ringFor-len(dst))
	n := copy(dst, s.alert)
	s.alert = s.alert[n:]
	if n == len(dst) {
		return
	}
	if s.wantAck && !s.acked {
		if s.ackIn -= len(dst) - n; s.ackIn <= 0 {
			p.abortCallerID()
			p.event(evCIDDone, 2)
		}
		return
	}
	if s.pause > 0 {
		s.pause -= len(dst) - n
		return
	}
	k := copy(dst[n:], s.data)
	if s.data = s.data[k:]; len(s.data) == 0 {
		p.abortCallerID()
		p.event(evCIDDone, 0)
	}
}

// listen waits for the acknowledgement of a type-II phone: DTMF A or D.
func (s *cidSender) listen(pcm []int16) {
	if s.wantAck && !s.acked && len(s.alert) == 0 {
		s.receiver.feed(pcm, func(d byte) {
			if d == 'D' || d == 'A' {
				s.acked, s.pause = true, 100*8 // the digit may still last
			}
		})
	}
}
