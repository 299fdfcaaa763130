package media

import (
	"fmt"
	"net/netip"
	"time"

	"localloop/internal/config"
	"localloop/internal/sdp"
)

const (
	// pace: after so many packets in a row the peer counts as one that sends.
	pace = 3
	// pauseAt ends a row: three packets of 20 ms are missing. Peers with longer
	// packets have longer pauses.
	pauseAt = 80 * time.Millisecond
	// settleTime is how long a path that the kernel calls broken may prove
	// the contrary: link events come also when another link took over.
	settleTime = 200 * time.Millisecond
)

// life follows whether a peer is still there.
//
// While the peer sends voice, a short silence of everything (RTP, RTCP, STUN)
// is death. While it is silent by its own will, only packets that it keeps
// sending then can be missed: without RTCP or consent checks nothing can be
// said and the leg lives (C-99, C-122).
//
//	          3 voice packets in a row                nothing for DeadAfter
//	silent ───────────────────────────▶ sending ──────────────────────────▶ dead
//	   ▲ ▲   comfort noise, RTCP or STUN   │                                 │
//	   │ └──── without voice, hold ────────┘                                 │
//	   └───────────────────────── a valid packet ────────────────────────────┘
type life struct {
	after, silent time.Duration // without any packet: dead, if it was sending; if it was silent

	since   time.Time // joined: before that nobody is missed
	any     time.Time // last valid packet of any kind
	voice   time.Time // last voice on the wire, also comfort noise
	row     int
	sending bool
	keeps   bool // sends RTCP, or checks after the pair was chosen
	firstOK bool // VoiceAlive was reported on this path

	dead   bool
	why    string
	broken time.Time // the kernel said that the way is gone; zero if not
	reason string

	old *path // left behind by a move, still listened to
	// moving is set from a move to the first voice on the new path.
	moving bool
}

// patience takes the thresholds of the leg's trunk, the engine's where it has none.
func (f *life) patience(p sdp.Profile, fallback config.Failover) {
	f.after, f.silent = p.DeadAfter, p.DeadSilent
	if f.after <= 0 {
		f.after = fallback.DeadAfter
	}
	if f.silent <= 0 {
		f.silent = fallback.DeadSilent
	}
}

func (f *life) watch(now time.Time) {
	if f.since.IsZero() {
		f.since = now
	}
	f.any = now
}

// lost reports that the peer is dead or looks so.
func (f *life) lost(now time.Time) bool {
	return f.dead || !f.broken.IsZero() || f.sending && now.Sub(f.any) > 2*pauseAt
}

func (f *life) seen(now time.Time) {
	f.any = now
	f.broken = time.Time{}
}

// check notes a valid connectivity check.
func (f *life) check(now time.Time, selected bool) {
	f.seen(now)
	if selected && now.Sub(f.voice) > pauseAt {
		f.keeps, f.sending, f.row = true, false, 0
	}
}

// moved begins life on another path.
func (f *life) moved(now time.Time) {
	f.moving, f.firstOK = true, false
	f.dead, f.broken, f.sending, f.row, f.keeps = false, time.Time{}, false, 0, false
	f.any = now
	f.why = ""
}

// alive notes a valid RTP packet.
func (l *leg) alive(now time.Time, p *path, kind payload, size int) {
	f := &l.life
	pause := pauseAt
	if kind == pcma || kind == pcmu {
		pause = max(pauseAt, time.Duration(size)*500*time.Microsecond) // four packets
	}
	gap := now.Sub(f.voice)
	first := f.voice.IsZero()
	f.seen(now)
	if kind != event {
		l.in.lastVoice = now
	}
	switch {
	case kind == noise:
		l.in.lastVoice = now.Add(-silentAfter)
		f.sending, f.row = false, 0
	case gap <= pause && !first:
		if f.row++; f.row >= pace {
			f.sending = true
		}
	default:
		f.row = 1
	}
	f.voice = now
	if p != l.cur {
		return // the old way still speaks
	}
	if !first && (f.dead || f.moving) {
		l.gap = max(l.gap, gap)
		if f.moving && len(l.moves) > 0 {
			m := &l.moves[len(l.moves)-1]
			m.Gap, m.OK = gap, true
		}
	}
	f.moving = false
	if !f.firstOK || f.dead {
		f.firstOK, f.dead, f.why = true, false, ""
		l.v.events(VoiceAlive{Leg: l.name, Realm: p.port.realm.name})
	}
}

// controlled notes a valid RTCP packet.
func (l *leg) controlled(now time.Time) {
	f := &l.life
	f.seen(now)
	f.keeps = true
	if now.Sub(f.voice) > pauseAt {
		// It could send RTCP, so it chose not to send voice.
		f.sending, f.row = false, 0
	}
	if f.dead && !f.sending {
		f.dead, f.why = false, ""
		l.v.events(VoiceAlive{Leg: l.name, Realm: l.cur.port.realm.name})
	}
}

// judge looks whether the leg has died.
func (l *leg) judge(now time.Time) {
	f := &l.life
	if l.line != nil || l.cur == nil || l.cur.terms == nil || f.dead || f.since.IsZero() {
		return
	}
	if !f.broken.IsZero() {
		if now.Sub(f.broken) >= settleTime {
			l.die(f.reason)
		} else {
			l.v.sooner(f.broken.Add(settleTime))
		}
		return
	}
	t := l.cur.terms
	if !t.sends {
		f.sending, f.row = false, 0
	}
	var limit time.Duration
	switch {
	case f.sending:
		limit = f.after
	case f.keeps || t.checks && (f.voice.IsZero() || f.moving):
		// With ICE a peer that never says a word is as dead as one that stops.
		limit = f.silent
	default:
		return
	}
	if quiet := now.Sub(f.any); quiet >= limit {
		l.die(fmt.Sprintf("no packets for %.1fs", quiet.Seconds()))
	}
}

func (l *leg) die(why string) {
	f := &l.life
	f.dead, f.why, f.broken = true, why, time.Time{}
	l.v.log.Warn("voice dead", "call", l.v.id, "leg", l.name, "realm", l.cur.port.realm.name, "why", why)
	l.v.events(VoiceDead{Leg: l.name, Why: why})
	if l.next != nil && l.next.selected {
		l.moveTo(l.v.now)
	}
}

// pathBroken takes word from the kernel about a realm, or about one neighbour in
// it.
func (v *voice) pathBroken(now time.Time, realm string, remote netip.Addr, why string) {
	v.now = now
	for _, l := range v.legs {
		f := &l.life
		if l.line != nil || l.cur == nil || f.dead || f.since.IsZero() || l.cur.port.realm.name != realm {
			continue
		}
		if remote.IsValid() && l.cur.remote.Addr() != remote {
			continue
		}
		f.broken, f.reason = now, why
		v.sooner(now.Add(settleTime))
	}
}
