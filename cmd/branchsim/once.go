package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"localloop/internal/media/mediatest"
	"localloop/internal/sip/siptest"
)

type onceCommand struct {
	Only []int `help:"Numbers of the standard calls to place, from 1; default all." placeholder:"N"`
}

// standard is one of the standard calls: begin sets it up until both parties can
// speak; fromTeams tells which way is forward.
type standard struct {
	name      string
	fromTeams bool
	begin     func(ctx context.Context, l *lab) (*siptest.Call, error)
	cut       bool
	want      string // path at the end
	// quiet names the side on which there must be no RTP packet at all.
	quiet string
}

var standardCalls = []standard{
	{name: "Teams to phone, user in the building", fromTeams: true, begin: teamsCalls(internalUser), want: "lan", quiet: "wan"},
	{name: "phone to Teams, user in the building", begin: phoneCalls, want: "lan", quiet: "wan"},
	{name: "Teams to phone, user elsewhere", fromTeams: true, begin: teamsCalls(externalUser), want: "cloud", quiet: "lan"},
	{name: "Teams to phone, LAN path cut in mid-call", fromTeams: true, begin: teamsCalls(internalUser), cut: true, want: "cloud"},
}

// limits are the times within which a call must reach each stage; only a fault
// exceeds them.
type limits struct {
	setUp, audio time.Duration
	// repair is from a cut to audio: the promise is 4 s at worst, what lies between
	// is measured and shown, not hidden as a failure.
	repair time.Duration
}

var usualLimits = limits{setUp: 30 * time.Second, audio: 10 * time.Second, repair: 10 * time.Second}

// settle is how long the capture may lag behind the wire.
const settle = 100 * time.Millisecond

// Run places the standard calls one after the other.
func (k onceCommand) Run(ctx context.Context, o *options, t terminal) error {
	calls := standardCalls
	if k.Only != nil {
		calls = nil
		for _, n := range k.Only {
			if n < 1 || n > len(standardCalls) {
				return fmt.Errorf("standard call %d: there are %d", n, len(standardCalls))
			}
			calls = append(calls, standardCalls[n-1])
		}
	}
	return once(t, calls, func(use func(context.Context, *lab) error) error { return withLab(ctx, o, t, use) })
}

// once measures calls in a lab and prints what came of them.
func once(t terminal, calls []standard, inLab func(use func(context.Context, *lab) error) error) error {
	s := summary{OK: true, Calls: []result{}, Violations: []string{}}
	err := inLab(func(ctx context.Context, l *lab) error {
		s.CountedBy = "packet capture outside edged"
		if !l.capture.on {
			s.CountedBy = "the Teams client's sockets (" + l.capture.why + ")"
		}
		for _, c := range calls {
			fmt.Fprintln(t.err, "call:", c.name)
			r := l.measure(ctx, c)
			s.OK = s.OK && r.fault == ""
			s.Calls = append(s.Calls, r)
			if ctx.Err() != nil {
				return ctx.Err()
			}
		}
		s.Violations = grouped(l.teams.Violations())
		return nil
	})
	if err != nil { // the calls that are missing have failed too
		s.OK = false
		for _, c := range calls[len(s.Calls):] {
			s.Calls = append(s.Calls, c.blank("not placed: "+err.Error()))
		}
	}
	if perr := s.print(t.out); perr != nil {
		return perr
	}
	if !s.OK {
		return errFailed
	}
	return nil
}

func teamsCalls(user string) func(context.Context, *lab) (*siptest.Call, error) {
	return func(ctx context.Context, l *lab) (*siptest.Call, error) {
		l.card.answers()
		c, err := l.teams.Place(ctx, user, boxFQDN, receptionNumber)
		if err != nil {
			return nil, err
		}
		return c, c.WaitEstablished(ctx)
	}
}

func phoneCalls(ctx context.Context, l *lab) (*siptest.Call, error) {
	if err := l.card.dials(ctx, dialInternal); err != nil {
		return nil, err
	}
	c, err := l.teams.Incoming(ctx)
	if err != nil {
		return nil, fmt.Errorf("no INVITE reached Teams: %w", err)
	}
	return c, c.WaitEstablished(ctx)
}

func (c standard) blank(fault string) result {
	r := result{name: c.name, direction: "phone to Teams", fault: fault, pathReason: "no call"}
	if c.fromTeams {
		r.direction = "Teams to phone"
	}
	none := unknown("no call")
	r.lanRTP, r.wanRTP, r.cutToAudio, r.mos, r.dscpVoice, r.dscpSignalling = none, none, none, none, none, none
	return r
}

// measure places one call, and says what was measured of it.
func (l *lab) measure(ctx context.Context, c standard) result {
	r := c.blank("")
	before, _ := l.capture.snapshot()
	setUp, cancel := context.WithTimeout(ctx, l.o.limits.setUp)
	call, err := c.begin(setUp, l)
	cancel()
	if err != nil {
		r.fault = err.Error()
		l.clear(ctx, call)
		return r
	}
	media := call.Media()
	began := time.Now()
	media.Say(mediatest.Tone(teamsHz, teamsLevel))
	r.cutToAudio = unknown("no path was cut")
	r.fault = l.audio(ctx, c, media, began, &r)
	if r.fault == "" {
		pause(ctx, l.o.Talk)
	}
	if c.cut && r.fault == "" {
		r.fault = l.cutInMidCall(ctx, call, media, &r)
	}
	// Counters are read before the call is taken down, path and quality too.
	stats := media.Stats()
	_, _, path := media.Pair()
	r.mediaPath = map[string]string{"lan": "lan", "wan": "cloud"}[path]
	if r.mediaPath == "" {
		r.pathReason = "ICE nominated no pair"
	}
	r.mos = quality(stats)
	if fault := l.clear(ctx, call); r.fault == "" {
		r.fault = fault
	}
	l.count(&r, before, stats, media)
	if r.fault == "" {
		r.fault = c.judge(r)
	}
	return r
}

// audio waits for both tones at their far ends.
func (l *lab) audio(ctx context.Context, c standard, media *mediatest.Client, since time.Time, r *result) string {
	ctx, cancel := context.WithTimeout(ctx, l.o.limits.audio)
	defer cancel()
	_, atTeams := media.WaitTone(ctx, phoneHz, since)
	atPhone := l.card.hears(ctx)
	r.audioForward, r.audioBackward = atTeams == nil, atPhone == nil
	if c.fromTeams {
		r.audioForward, r.audioBackward = r.audioBackward, r.audioForward
	}
	switch {
	case atTeams != nil:
		return atTeams.Error()
	case atPhone != nil:
		return atPhone.Error()
	}
	return ""
}

// cutInMidCall breaks the LAN path while both speak, and waits until both hear
// each other again.
func (l *lab) cutInMidCall(ctx context.Context, call *siptest.Call, media *mediatest.Client, r *result) string {
	p, err := l.cutAndRepair(ctx, call, media, l.o.limits.repair, false)
	r.audioForward, r.audioBackward = p.phoneHears, p.teamsHears
	if err != nil {
		r.cutToAudio = unknown("%v", err)
		return fmt.Sprintf("after the cut: %v", err)
	}
	r.cutToAudio = measured(milliseconds(p.audio()))
	return ""
}

// repair is what followed a cut; times count from the cut.
type repair struct {
	restart time.Duration // to the re-INVITE at Teams
	teams   time.Duration // to the phone's voice at Teams, on the new path
	phone   time.Duration // to the end of the gap at the phone

	teamsHears, phoneHears bool
}

// audio is when the slower direction was back.
func (p repair) audio() time.Duration { return max(p.teams, p.phone) }

func milliseconds(d time.Duration) float64 { return float64(d.Milliseconds()) }

// cutAndRepair breaks the LAN path, waits until voice is back, and mends the
// path. A Teams user who is mute is not waited for at the phone.
func (l *lab) cutAndRepair(ctx context.Context, call *siptest.Call, media *mediatest.Client, limit time.Duration, mute bool) (p repair, err error) {
	position := len(call.Events())
	cut := time.Now()
	if err := l.cut(media); err != nil {
		return p, err
	}
	defer func() {
		if rerr := l.restore(media); err == nil {
			err = rerr
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	offer, _, err := call.AwaitRequest(ctx, position, "INVITE")
	if err != nil {
		return p, fmt.Errorf("no re-INVITE: %w", err)
	}
	p.restart = offer.At.Sub(cut)
	back, err := media.WaitTone(ctx, phoneHz, offer.At)
	if err != nil {
		return p, err
	}
	p.teams, p.teamsHears = back.Sub(cut), true
	if !mute {
		if err := l.card.hears(ctx); err != nil {
			return p, err
		}
	}
	pause(ctx, time.Second) // for a while: a first frame alone is no voice
	if !media.Hears(phoneHz, 500*time.Millisecond) {
		return p, errors.New("at Teams the phone was heard only for a moment")
	}
	if !mute {
		p.phone, p.phoneHears = l.card.gap(cut), true
	}
	return p, nil
}

// clear takes a call down from the calling side and waits until the line is idle.
func (l *lab) clear(ctx context.Context, call *siptest.Call) string {
	ctx, cancel := context.WithTimeout(ctx, l.o.limits.setUp)
	defer cancel()
	fault := ""
	if call != nil && call.Established() {
		if call.Outgoing() {
			if err := call.Bye(ctx); err != nil {
				fault = err.Error()
			}
		}
	}
	if err := l.card.hangUp(ctx); err != nil && fault == "" {
		fault = err.Error()
	}
	if call != nil {
		if call.Pending() { // never answered: give it up
			if _, err := call.Cancel(ctx); err != nil {
				l.log.Info("cancel", "err", err)
			}
		}
		if _, err := call.WaitEnded(ctx); err != nil && fault == "" {
			fault = "the call did not end: " + err.Error()
		}
	}
	// The card stops streaming when edged has given the line free.
	if err := l.card.idle(ctx); err != nil && fault == "" {
		fault = "the line was not released: " + err.Error()
	}
	return fault
}

// count fills in packets and marks of the call.
func (l *lab) count(r *result, before counts, stats mediatest.Stats, media *mediatest.Client) {
	pause(context.Background(), settle)
	after, ok := l.capture.snapshot()
	if ok {
		d := after.since(before)
		r.lanRTP, r.wanRTP = measured(float64(d.lanRTP)), measured(float64(d.wanRTP))
		r.dscpVoice, r.dscpSignalling = mark("voice", d.voice, ""), mark("signalling", d.signalling, "")
		return
	}
	rtp := func(path string) measure {
		n := stats.Paths[path]
		return measured(float64(n.Sent[mediatest.RTP] + n.Received[mediatest.RTP]))
	}
	r.lanRTP, r.wanRTP = rtp("lan"), rtp("wan")
	var voice, signalling [64]uint64
	for _, p := range media.Stats().Paths {
		for dscp, n := range p.DSCP[mediatest.RTP] {
			voice[dscp] += n
		}
	}
	for _, c := range l.teams.Connections() {
		if c.DSCP >= 0 {
			signalling[c.DSCP]++
		}
	}
	r.dscpVoice, r.dscpSignalling = mark("voice", voice, ""), mark("signalling", signalling, "")
}

// quality is the worse of the two directions by ITU-T G.107: what the client
// lost, what the box reported lost, half the round trip, one packet and a
// jitter buffer of 40 ms.
func quality(s mediatest.Stats) measure {
	switch {
	case s.Received == 0:
		return unknown("no voice was received")
	case !s.RoundTripOK:
		return unknown("no RTCP report gave a round trip time")
	}
	delay := s.RoundTrip/2 + 20*time.Millisecond + 40*time.Millisecond
	lost := float64(s.Lost) / float64(s.Lost+s.Received)
	return measured(min(mediatest.MOS(delay, lost), mediatest.MOS(delay, s.FarLost)))
}

// judge compares what was measured with what the call is to prove.
func (c standard) judge(r result) string {
	switch {
	case !r.audioForward || !r.audioBackward:
		return "one party does not hear the other"
	case r.mediaPath != c.want:
		return fmt.Sprintf("voice goes by %q, not by %q", r.mediaPath, c.want)
	case c.quiet == "wan" && r.wanRTP.value != 0:
		return fmt.Sprintf("%.0f RTP packets on the WAN", r.wanRTP.value)
	case c.quiet == "lan" && r.lanRTP.value != 0:
		return fmt.Sprintf("%.0f RTP packets on the LAN", r.lanRTP.value)
	case c.want == "lan" && r.lanRTP.value == 0, c.want == "cloud" && r.wanRTP.value == 0:
		return "no RTP packet was counted on the path in use"
	case c.cut && !r.cutToAudio.known:
		return "time from cut to audio was not measured"
	}
	return ""
}

// pause waits without holding up the end of the program.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
