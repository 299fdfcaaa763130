package media

import (
	"encoding/binary"
	"strings"
	"time"

	"localloop/internal/dsp"
)

// eventDigits are the event codes 0 to 15 of RFC 4733 §3.2.
const eventDigits = "0123456789*#ABCD"

func eventCode(digit byte) (uint8, bool) {
	i := strings.IndexByte(eventDigits, digit)
	return uint8(i), i >= 0
}

const (
	leastDigit   = 60 * time.Millisecond // shorter ones are not heard by every exchange
	defaultDigit = 100 * time.Millisecond
	longestDigit = 10 * time.Second
	digitGap     = 60 * time.Millisecond
	// eventLost ends a digit whose end packets were all lost.
	eventLost = 200 * time.Millisecond
	endings   = 3 // RFC 4733 §2.5.1.4; C-97
	// segment is the longest duration of one event in samples; then the next
	// segment begins (RFC 4733 §2.5.1.3). A multiple of 20 ms below 2^16.
	segment = 160 * 409
)

// eventReader follows the events that a peer sends.
type eventReader struct {
	known    bool // an event was seen at all
	active   bool
	ts       uint32 // of the first segment
	segment  uint32
	code     uint8
	duration uint32 // samples, earlier segments included
	at       time.Time
}

// packet takes an event packet of l. Retransmissions and reordering change
// nothing: an event is known by its timestamp.
func (r *eventReader) packet(l *leg, now time.Time, k packet) {
	if len(k.payload) < 4 {
		return
	}
	code, end := k.payload[0], k.payload[1]&0x80 != 0
	d := uint32(binary.BigEndian.Uint16(k.payload[2:]))
	if int(code) >= len(eventDigits) {
		return // hook flash and others are relayed, but are no digits
	}
	switch {
	case r.known && k.ts == r.segment:
	case r.active && code == r.code && k.ts == r.segment+r.duration-(r.segment-r.ts) && r.duration >= segment/2:
		r.segment = k.ts // the next segment of a long digit
	case r.known && int32(k.ts-r.segment) < 0:
		return // late packet of an earlier event
	default:
		r.finish(l)
		*r = eventReader{known: true, active: true, ts: k.ts, segment: k.ts, code: code}
		r.begin(l, now)
	}
	if !r.active {
		return
	}
	r.at = now
	r.duration = max(r.duration, k.ts-r.ts+d)
	if end {
		r.finish(l)
	}
}

// begin starts the digit at the other side unless it is relayed as events.
func (r *eventReader) begin(l *leg, now time.Time) {
	to := l.peer
	switch {
	case to == nil || l.held:
	case to.line != nil:
		to.line.keyer.press(eventDigits[r.code])
	default:
		if p := to.sending(); p != nil && p.terms.eventPT == absent {
			to.tones(now, eventDigits[r.code], defaultDigit)
		}
	}
}

func (r *eventReader) finish(l *leg) {
	if !r.active {
		return
	}
	r.active = false
	digit, d := eventDigits[r.code], time.Duration(r.duration)*125*time.Microsecond
	if to := l.peer; to != nil && to.line != nil {
		to.line.keyer.release(digit, d)
	}
	l.v.events(DigitHeard{Leg: l.name, Digit: Digit{Digit: digit, Duration: d}})
}

// expire ends an event that has no packets any more.
func (r *eventReader) expire(l *leg, now time.Time) {
	if r.active && now.Sub(r.at) > eventLost {
		r.finish(l)
	}
}

// eventSender sends digits as events to an RTP leg. While one is on its way
// nothing else is sent there.
//
//	idle ──start──▶ sounding ──stop or time──▶ ending (3 packets) ──gap──▶ idle
type eventSender struct {
	queue  [32]queuedDigit
	queued int

	active bool
	code   uint8
	seq    uint16
	ts     uint32 // of the segment, in the sender's own count
	sent   uint32 // duration told last
	begun  time.Time
	until  time.Time // zero while the key is held
	next   time.Time
	ends   int
	gap    time.Time
}

type queuedDigit struct {
	code     uint8
	duration time.Duration
}

func (s *eventSender) busy() bool { return s.active || s.queued > 0 }

// enqueue adds a digit of known duration.
func (s *eventSender) enqueue(code uint8, d time.Duration) {
	if s.queued < len(s.queue) {
		s.queue[s.queued] = queuedDigit{code, d}
		s.queued++
	}
}

// start begins a digit at once, whose end is told later by stop.
func (s *eventSender) start(l *leg, now time.Time, code uint8, until time.Time) {
	l.out.interrupt()
	s.active, s.code, s.begun, s.until, s.next, s.ends = true, code, now, until, now, 0
	s.ts, s.sent = 0, 0
}

// stop ends the digit that start began; it sounds leastDigit at least.
func (s *eventSender) stop(now time.Time) {
	if !s.active || !s.until.IsZero() {
		return
	}
	s.until = now
	if least := s.begun.Add(leastDigit); now.Before(least) {
		s.until = least
	}
}

// step sends what is due and returns when the next packet is; zero when idle.
func (s *eventSender) step(l *leg, now time.Time) time.Time {
	if !s.active && s.queued > 0 && !now.Before(s.gap) {
		q := s.queue[0]
		copy(s.queue[:], s.queue[1:s.queued])
		s.queued--
		s.start(l, now, q.code, now.Add(q.duration))
	}
	if !s.active {
		if s.queued > 0 {
			return s.gap
		}
		return time.Time{}
	}
	if now.Before(s.next) {
		return s.next
	}
	end := !s.until.IsZero() && !now.Before(s.until)
	if s.ends == 0 {
		// The duration counts the interval that begins: the first packet says 20 ms.
		d := uint32(now.Sub(s.begun)/ptime)*160 + 160
		if end {
			d = max(160, uint32(s.until.Sub(s.begun)/ptime)*160)
		}
		if d-s.ts > segment {
			s.packet(l, now, segment, false)
			s.ts += segment
		}
		s.sent = max(s.sent, d)
	}
	s.packet(l, now, uint16(s.sent-s.ts), end)
	if end {
		if s.ends++; s.ends == endings {
			s.active = false
			s.gap = now.Add(digitGap)
			l.out.interrupt()
			if s.queued == 0 {
				return time.Time{}
			}
			return s.gap
		}
	}
	s.next = s.next.Add(ptime)
	if s.next.Before(now) {
		s.next = now.Add(ptime)
	}
	return s.next
}

func (s *eventSender) packet(l *leg, now time.Time, duration uint16, end bool) {
	p := l.sending()
	if p == nil || p.terms.eventPT == absent {
		return
	}
	const volume = 10 // -10 dBm0
	b := l.v.plain[12:16]
	b[0], b[1] = s.code, volume
	if end {
		b[1] |= 0x80
	}
	binary.BigEndian.PutUint16(b[2:], duration)
	l.emit(now, p, origin{leg: l, what: fromDigit}, s.seq, s.ts, p.terms.eventPT, false, 4)
	s.seq++
}

// digit sends a digit to the leg as the leg takes digits.
func (l *leg) digit(now time.Time, d Digit) {
	code, ok := eventCode(d.Digit)
	if !ok {
		return
	}
	if d.Duration <= 0 {
		d.Duration = defaultDigit
	}
	d.Duration = min(max(d.Duration, leastDigit), longestDigit)
	if l.line != nil {
		l.line.keyer.press(d.Digit)
		l.line.keyer.release(d.Digit, d.Duration)
		return
	}
	if p := l.cur; p != nil && p.terms != nil && p.terms.eventPT == absent {
		l.tones(now, d.Digit, d.Duration)
		return
	}
	l.digits.enqueue(code, d.Duration)
	l.v.sooner(now)
}

// tones sends a digit to an RTP leg that did not agree to events: as tones in
// the voice.
func (l *leg) tones(now time.Time, digit byte, d time.Duration) {
	if l.inband == nil {
		l.inband = dsp.NewDTMFSender(digitHigh, digitLow)
	}
	l.inband.Queue(string(digit), d, digitGap)
	l.out.interrupt()
	l.v.sooner(now)
}

// Levels of digits, within every national limit (ETSI ES 201 235-2 §4.2.4).
const (
	digitHigh = -9.0 // dBm0
	digitLow  = -11.0
)

// keyer sounds digits toward a line for as long as the far key is held.
type keyer struct {
	queue  [32]press
	n      int
	tone   *dsp.Tone
	played int // samples of the present tone, or of the gap after it
	gap    bool
}

type press struct {
	digit byte
	limit int // samples; 0 while the key is held
}

const (
	heldAtMost = 8000 * 10 // a key whose release was lost
	minTone    = 8000 * 6 / 100
	minPause   = 8000 * 5 / 100
)

func (k *keyer) busy() bool { return k.n > 0 }

func (k *keyer) press(digit byte) {
	if k.n < len(k.queue) {
		k.queue[k.n] = press{digit: digit}
		k.n++
	}
}

// release tells how long the digit pressed last was held.
func (k *keyer) release(digit byte, d time.Duration) {
	for i := k.n - 1; i >= 0; i-- {
		if k.queue[i].digit == digit && k.queue[i].limit == 0 {
			k.queue[i].limit = max(minTone, int(min(d, longestDigit)*8000/time.Second))
			return
		}
	}
}

// stop releases whatever is held.
func (k *keyer) stop() {
	for i := range k.n {
		if k.queue[i].limit == 0 {
			k.queue[i].limit = minTone
		}
	}
}

var (
	keypadRows    = [4]float64{697, 770, 852, 941}
	keypadColumns = [4]float64{1209, 1336, 1477, 1633}
)

const keypad = "123A456B789C*0#D"

// fill writes a frame of the digit under way, pauses included.
func (k *keyer) fill(dst []int16) {
	if k.gap {
		clear(dst)
		if k.played += len(dst); k.played >= minPause {
			k.gap, k.played = false, 0
			copy(k.queue[:], k.queue[1:k.n])
			k.n--
		}
		return
	}
	head := &k.queue[0]
	if k.tone == nil {
		at := max(0, strings.IndexByte(keypad, head.digit))
		hz := []float64{keypadRows[at/4], keypadColumns[at%4]}
		k.tone, k.played = dsp.NewTone(dsp.Cadence{Loop: []dsp.Step{{Hz: hz}}}, digitHigh+2), 0
	}
	limit := head.limit
	if limit == 0 {
		limit = heldAtMost
	}
	if k.played+len(dst) >= limit {
		k.tone.Stop()
	}
	k.tone.Fill(dst)
	if k.played += len(dst); k.tone.Done() {
		k.tone, k.gap, k.played = nil, true, 0
	}
}
