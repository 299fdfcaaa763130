package media

import (
	"time"

	"localloop/internal/dsp"
	"localloop/internal/media/jitter"
)

// player makes what is played to a leg.
type player interface{ Fill(dst []int16) }

// toneLevel is the level of progress tones in dBm0, ITU-T E.180 §3.
const toneLevel = -13.0

// newPlayer makes the player of a tone; nil for NoTone.
func newPlayer(t Tone, plan *dsp.Plan) player {
	switch t {
	case Ringback:
		return dsp.NewTone(plan.Ringback, toneLevel)
	case Busy:
		return dsp.NewTone(plan.Busy, toneLevel)
	case Congestion:
		return dsp.NewTone(plan.Congestion, toneLevel)
	case Unavailable:
		sit := plan.SIT.Loop
		if len(sit) == 0 {
			sit = plan.SIT.Intro
		}
		return dsp.NewTone(dsp.Cadence{Intro: sit, Loop: plan.Congestion.Loop}, toneLevel)
	case Music:
		return dsp.NewTone(music, toneLevel-9)
	}
	return nil
}

// music is a quiet figure of a held chord: it tells that the call is not lost,
// and needs no licence.
var music = dsp.Cadence{Loop: []dsp.Step{
	{Hz: []float64{261.63, 392.00}, Duration: 600 * time.Millisecond},
	{Hz: []float64{329.63, 392.00}, Duration: 600 * time.Millisecond},
	{Hz: []float64{392.00, 523.25}, Duration: 600 * time.Millisecond},
	{Hz: []float64{329.63, 440.00}, Duration: 600 * time.Millisecond},
	{Hz: []float64{293.66, 440.00}, Duration: 600 * time.Millisecond},
	{Hz: []float64{349.23, 440.00}, Duration: 600 * time.Millisecond},
	{Hz: []float64{293.66, 392.00}, Duration: 600 * time.Millisecond},
	{Hz: []float64{246.94, 392.00}, Duration: 600 * time.Millisecond},
	{Duration: 800 * time.Millisecond},
}}

// play plays p to the leg instead of the other side's voice; nil ends it.
func (l *leg) play(now time.Time, p player) {
	l.player = p
	l.out.interrupt()
	if p != nil {
		l.attach()
		l.v.sooner(now)
	}
}

func (l *leg) playing() bool { return l.player != nil || l.inband != nil }

// pacer sends what we make ourselves to an RTP leg, a packet every 20 ms.
type pacer struct {
	next   time.Time // zero when there is nothing to send
	seq    uint16
	ts     uint32
	silent bool // the other side is silent and this peer knows no comfort noise
	noise  jitter.Noise
}

// silentAfter is the pause in the other side's voice after which we fill in.
const silentAfter = 100 * time.Millisecond

// fall takes a comfort noise packet that the peer cannot be given as such.
func (p *pacer) fall(now time.Time, payload []byte) {
	if len(payload) > 0 {
		p.noise.Announced(payload[0])
	}
	if !p.silent {
		p.silent, p.next = true, now.Add(ptime)
	}
}

// paced sends what is due and returns when more is; zero when nothing is.
func (l *leg) paced(now time.Time) time.Time {
	next := l.digits.step(l, now)
	l.heard.expire(l, now)
	what := l.making(now)
	if what == fromNothing {
		l.pace.next = time.Time{}
		return next
	}
	if l.pace.next.IsZero() || now.Sub(l.pace.next) > 5*ptime {
		l.pace.next = now // also after a stall: what was missed is not sent in a burst
	}
	for !now.Before(l.pace.next) {
		l.makePacket(now, what)
		l.pace.next = l.pace.next.Add(ptime)
	}
	if next.IsZero() || l.pace.next.Before(next) {
		next = l.pace.next
	}
	return next
}

// making says what of our own the leg is to hear now.
func (l *leg) making(now time.Time) originKind {
	switch {
	case l.playing():
		return fromPlayer
	case l.silence(now):
		return fromNoise
	}
	return fromNothing
}

// silence reports whether noise has to fill a pause of the other side: carriers
// hang up when nothing comes (C-99). A peer that knows comfort noise
// packets gets those instead.
func (l *leg) silence(now time.Time) bool {
	from, p := l.peer, l.sending()
	if from == nil || from.line != nil || p == nil || l.held || from.held || p.terms.noisePT != absent ||
		!from.in.started || l.digits.busy() || from.heard.active {
		l.pace.silent = false
		return false
	}
	if !l.pace.silent && now.Sub(from.in.lastVoice) > silentAfter {
		l.pace.silent = true
	}
	return l.pace.silent
}

// makePacket fills, encodes and sends 20 ms.
func (l *leg) makePacket(now time.Time, what originKind) {
	pcm := l.v.pcm[:160]
	switch {
	case what == fromNoise:
		l.pace.noise.Fill(pcm)
	case l.inband != nil:
		if !l.inband.Fill(pcm) {
			l.inband = nil
			l.out.interrupt()
			return
		}
	default:
		l.player.Fill(pcm)
	}
	seq, ts := l.pace.seq, l.pace.ts
	l.pace.ts += 160
	p, from := l.sending(), origin{leg: l, what: what}
	if p == nil || l.digits.busy() {
		l.out.blocked(from)
		return
	}
	l.pace.seq++
	p.terms.voice.law().Encode(l.v.plain[12:172], pcm)
	l.emit(now, p, from, seq, ts, p.terms.voicePT, false, 160)
}
