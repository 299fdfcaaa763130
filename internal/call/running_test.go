package call_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"localloop/internal/call"
	"localloop/internal/call/calltest"
	"localloop/internal/sdp"
)

func desc() *sdp.Description { return &sdp.Description{} }

// last is the last thing that the bridge was asked that begins with a word.
func last(br *calltest.Bridge, word string) string {
	log := br.Log()
	for i := len(log) - 1; i >= 0; i-- {
		if strings.HasPrefix(log[i], word) {
			return log[i]
		}
	}
	return ""
}

// teamsToTeams brings up a call both of whose legs are in the LAN with the
// cloud to fall back to.
func (b *bench) teamsToTeams() (caller, callee *calltest.Leg, br *calltest.Bridge, name string) {
	caller = calltest.NewLeg("teams#1", fromTeams())
	callee, br = b.connect(caller)
	return caller, callee, br, b.sw.Calls()[0].Leg
}

func (b *bench) state() string {
	b.t.Helper()
	synctest.Wait()
	if calls := b.sw.Calls(); len(calls) == 1 {
		return calls[0].State
	}
	return "over"
}

// A cut of the LAN kills both legs at once: each moves in its own time.
func TestBothLegsMoveAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, call.Options{}, teamsTarget)
		caller, callee, br, name := b.teamsToTeams()
		br.Emit(call.VoiceDead{Leg: "teams#1", Why: "link lan0 down"})
		want[call.Update](t, caller)
		time.Sleep(time.Second)
		br.Emit(call.VoiceDead{Leg: name, Why: "link lan0 down"})
		want[call.Update](t, callee)
		caller.Emit(call.Answer{Description: desc()})
		callee.Emit(call.Answer{Description: desc()})
		br.Emit(call.VoiceAlive{Leg: "teams#1", Realm: "wan"})
		time.Sleep(1500 * time.Millisecond)
		br.Emit(call.VoiceAlive{Leg: name, Realm: "wan"})
		if s := b.state(); s != "up" {
			t.Errorf("call is %s", s)
		}
		time.Sleep(time.Minute)
		callee.Emit(call.Release{Cause: call.NormalClearing})
		if s := b.summary(); len(s.Moves) != 2 || !s.Moves[0].OK || !s.Moves[1].OK {
			t.Errorf("moves %+v", s.Moves)
		}
	})
}

// One leg comes back, the other does not: the call must not stay up for ever
// with a dead side.
func TestOneOfTwoDeadLegsDoesNotRescueTheCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, call.Options{}, teamsTarget)
		caller, callee, br, name := b.teamsToTeams()
		br.Emit(call.VoiceDead{Leg: "teams#1", Why: "link lan0 down"})
		br.Emit(call.VoiceDead{Leg: name, Why: "link lan0 down"})
		want[call.Update](t, caller)
		want[call.Update](t, callee)
		callee.Emit(call.Answer{Description: desc()})
		synctest.Wait()
		time.Sleep(1900 * time.Millisecond)
		br.Emit(call.VoiceAlive{Leg: name, Realm: "wan"})
		time.Sleep(200 * time.Millisecond)
		if s := b.state(); s != "lost" {
			t.Errorf("call is %s", s)
		}
		// The far end's voice is not the caller's.
		br.Emit(call.VoiceAlive{Leg: name, Realm: "wan"})
		time.Sleep(time.Minute)
		if s := b.state(); s != "over" {
			t.Fatalf("call is %s although one side is gone", s)
		}
		if s := b.summary(); !s.Cause.Is(call.MediaLost) || !strings.Contains(s.Reason, "not answered") {
			t.Errorf("ended with %v %q", s.Cause, s.Reason)
		}
	})
}

// The far end dies while the first is lost already; it is not forgotten when
// the first comes back.
func TestDeathDuringLostIsNotForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		carrier := call.Target{Name: "carrier", Profile: sdp.Profile{Realm: "wan"}}
		b := newBench(t, call.Options{}, carrier)
		_, _, br, name := b.teamsToTeams()
		br.Emit(call.VoiceDead{Leg: name, Why: "no packets for 15s"})
		time.Sleep(time.Second)
		br.Emit(call.VoiceDead{Leg: "teams#1", Why: "no packets for 1s"})
		time.Sleep(time.Second)
		br.Emit(call.VoiceAlive{Leg: name, Realm: "wan"})
		time.Sleep(time.Minute)
		if s := b.state(); s != "over" {
			t.Errorf("call is %s with a dead caller", s)
		}
	})
}

func TestHeldLegIsSilentByAgreement(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, call.Options{}, lineTarget)
		caller, callee, br, name := b.teamsToTeams()
		caller.Emit(call.Update{Offer: desc(), Hold: true})
		want[call.Answer](t, caller)
		synctest.Wait()
		if got, want := last(br, "play"), "play "+name+" 4"; got != want {
			t.Errorf("bridge was asked %q, want %q", got, want)
		}
		br.Emit(call.VoiceDead{Leg: "teams#1", Why: "no packets for 15s"})
		time.Sleep(time.Hour)
		if s := b.state(); s != "up" {
			t.Fatalf("held call is %s", s)
		}
		// A refresh of the other side does not end the music.
		joins := strings.Count(strings.Join(br.Log(), ";"), "join")
		callee.Emit(call.Update{Offer: desc()})
		want[call.Answer](t, callee)
		synctest.Wait()
		if n := strings.Count(strings.Join(br.Log(), ";"), "join"); n != joins {
			t.Error("a refresh joined a held call")
		}
		// Back from hold, with voice in time.
		caller.Emit(call.Update{Offer: desc()})
		want[call.Answer](t, caller)
		synctest.Wait()
		if got, want := last(br, "join"), "join teams#1 "+name; got != want || strings.Count(strings.Join(br.Log(), ";"), "join") != joins+1 {
			t.Errorf("not joined after the hold: %v", br.Log())
		}
		time.Sleep(time.Second)
		br.Emit(call.VoiceAlive{Leg: "teams#1", Realm: "lan"})
		time.Sleep(time.Minute)
		if s := b.state(); s != "up" {
			t.Fatalf("call is %s", s)
		}
		caller.Emit(call.Release{Cause: call.NormalClearing})
		b.summary()
	})
}

func TestLegThatDiedOnHoldIsMissedAfterIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, call.Options{}, lineTarget)
		caller, _, br, _ := b.teamsToTeams()
		caller.Emit(call.Update{Offer: desc(), Hold: true})
		want[call.Answer](t, caller)
		br.Emit(call.VoiceDead{Leg: "teams#1", Why: "link lan0 down"})
		synctest.Wait()
		start := time.Now()
		caller.Emit(call.Update{Offer: desc()})
		want[call.Answer](t, caller)
		u := want[call.Update](t, caller)
		if d := time.Since(start); d != 2*time.Second || !strings.HasSuffix(u.Offer.Line, "in wan") {
			t.Errorf("moved after %v to %q", d, u.Offer.Line)
		}
		caller.Emit(call.Release{Cause: call.NormalClearing})
		b.summary()
	})
}

// Teams writes the user's location into every re-INVITE. It must not lead a leg
// back to the LAN that has just failed, and must not confuse a move.
func TestLocationHeaderDoesNotUndoAMove(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, call.Options{}, lineTarget)
		caller, _, br, _ := b.teamsToTeams()
		br.Emit(call.VoiceDead{Leg: "teams#1", Why: "link lan0 down"})
		want[call.Update](t, caller)
		caller.Emit(call.Answer{Description: desc()})
		inside := teamsProfile
		caller.Emit(call.Update{Offer: desc(), Profile: &inside}) // after ICE, with remote-candidates
		want[call.Answer](t, caller)
		synctest.Wait()
		if got := last(br, "offered"); got != "offered teams#1 wan" {
			t.Errorf("offer was taken as %q", got)
		}
		br.Emit(call.VoiceAlive{Leg: "teams#1", Realm: "wan"})
		time.Sleep(time.Minute)
		if s := b.state(); s != "up" {
			t.Fatalf("call is %s", s)
		}
		caller.Emit(call.Release{Cause: call.NormalClearing})
		if s := b.summary(); len(s.Moves) != 1 || !s.Moves[0].OK {
			t.Errorf("moves %+v", s.Moves)
		}
	})
}

// C-75 seen from the call: the peer's offer was in the leg's queue when ours
// went out. Ours stands, the peer is told to repeat.
func TestC75OfferThatCrossesOursIsRefusedWith491(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, call.Options{}, lineTarget)
		caller, _, br, _ := b.teamsToTeams()
		br.Emit(call.VoiceDead{Leg: "teams#1", Why: "no packets for 1s"})
		want[call.Update](t, caller)
		caller.Emit(call.Update{Offer: desc()})
		if r := want[call.Refuse](t, caller); r.Cause.Status != 491 {
			t.Errorf("refused with %v", r.Cause)
		}
		caller.Emit(call.Answer{Description: desc()})
		synctest.Wait()
		br.Emit(call.VoiceAlive{Leg: "teams#1", Realm: "wan"})
		time.Sleep(time.Minute)
		if s := b.state(); s != "up" {
			t.Errorf("call is %s", s)
		}
		caller.Emit(call.Release{Cause: call.NormalClearing})
		b.summary()
	})
}

func TestRefusedMoveKeepsACallWhoseOldPathCameBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, call.Options{}, lineTarget)
		caller, _, br, _ := b.teamsToTeams()
		br.Emit(call.VoiceDead{Leg: "teams#1", Why: "no packets for 1s"})
		want[call.Update](t, caller)
		br.Emit(call.VoiceAlive{Leg: "teams#1", Realm: "lan"})
		synctest.Wait()
		caller.Emit(call.Refuse{Cause: call.IncompatibleMedia})
		time.Sleep(time.Minute)
		if s := b.state(); s != "up" {
			t.Fatalf("call is %s although its voice lives", s)
		}
		// It may be moved again.
		br.Emit(call.VoiceDead{Leg: "teams#1", Why: "no packets for 1s"})
		want[call.Update](t, caller)
		caller.Emit(call.Release{Cause: call.NormalClearing})
		b.summary()
	})
}

func TestRestartLimitIsTheTrunks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, call.Options{}, lineTarget)
		setup := fromTeams()
		setup.Profile.RestartWithin = 500 * time.Millisecond
		caller := calltest.NewLeg("teams#1", setup)
		callee, br := b.connect(caller)
		start := time.Now()
		br.Emit(call.VoiceDead{Leg: "teams#1", Why: "no packets for 1s"})
		r := want[call.Release](t, callee)
		if d := time.Since(start); d != 5500*time.Millisecond || !strings.Contains(r.Reason, "500ms") {
			t.Errorf("released after %v: %s", d, r.Reason)
		}
		b.summary()
	})
}

// A hold that the bridge cannot take is no hold.
func TestRefusedHoldChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, call.Options{}, lineTarget)
		caller, _, br, _ := b.teamsToTeams()
		br.Refuse("teams#1")
		caller.Emit(call.Update{Offer: desc(), Hold: true})
		want[call.Refuse](t, caller)
		synctest.Wait()
		if got := last(br, "play"); strings.HasSuffix(got, " 4") {
			t.Errorf("bridge was asked %q", got)
		}
		caller.Emit(call.Release{Cause: call.NormalClearing})
		b.summary()
	})
}

func TestAnswerOfNothingIsIgnored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, call.Options{}, lineTarget)
		caller, callee, _, _ := b.teamsToTeams()
		caller.Emit(call.Answer{Description: desc()})
		callee.Emit(call.Answer{Description: desc()})
		callee.Emit(call.Progress{Ringing: true})
		if s := b.state(); s != "up" {
			t.Errorf("call is %s", s)
		}
		caller.Emit(call.Release{Cause: call.NormalClearing})
		b.summary()
	})
}

// An offerless INVITE has no leg in the bridge before the answer: early media
// must not be joined to it.
func TestC47OfferlessCallerWithEarlyMedia(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, call.Options{}, teamsTarget)
		s := fromTeams()
		s.Offer = nil
		caller := calltest.NewLeg("pbx#1", s)
		b.sw.Accept(caller)
		d := b.dialed()
		br := <-b.bridges.Opened
		d.Leg.Emit(call.Progress{Answer: desc()})
		if p := want[call.Progress](t, caller); !p.Ringing || p.Answer != nil {
			t.Errorf("caller was told %+v", p)
		}
		synctest.Wait()
		br.Emit(call.VoiceAlive{Leg: b.sw.Calls()[0].Leg, Realm: "lan"})
		synctest.Wait()
		d.Leg.Emit(call.Answer{})
		want[call.Answer](t, caller)
		caller.Emit(call.Answer{Description: desc()})
		synctest.Wait()
		if log := br.Log(); !slices.Contains(log, "answered pbx#1") || last(br, "NO") != "" {
			t.Errorf("bridge was asked %v", log)
		}
		caller.Emit(call.Release{Cause: call.NormalClearing})
		b.summary()
	})
}

// Once the caller hears the far end, a fork that rings does not put ringback
// over it (C-53, C-55).
func TestC53RingbackIsNotPlayedOverEarlyMedia(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, call.Options{}, teamsTarget)
		caller := calltest.NewLeg("line-1", fromLine())
		b.sw.Accept(caller)
		d := b.dialed()
		br := <-b.bridges.Opened
		d.Leg.Emit(call.Progress{Ringing: true})
		d.Leg.Emit(call.Progress{Ringing: true})
		d.Leg.Emit(call.Progress{Answer: desc()})
		synctest.Wait()
		if n := strings.Count(strings.Join(br.Log(), ";"), "play"); n != 1 {
			t.Errorf("ringback began %d times: %v", n, br.Log())
		}
		br.Emit(call.VoiceAlive{Leg: b.sw.Calls()[0].Leg, Realm: "lan"})
		d.Leg.Emit(call.Progress{Ringing: true})
		d.Leg.Emit(call.Progress{Answer: desc()}) // another fork
		synctest.Wait()
		log := br.Log()
		if n := strings.Count(strings.Join(log, ";"), "play"); n != 1 {
			t.Errorf("ringback over early media: %v", log)
		}
		caller.Emit(call.Release{Cause: call.OriginatorCancelled})
		b.summary()
	})
}

// An exchange line has voice at once; nothing announces it.
func TestEarlyMediaOfAnExchangeLineIsHeardAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, call.Options{}, lineTarget)
		caller := calltest.NewLeg("teams#1", fromTeams())
		b.sw.Accept(caller)
		d := b.dialed()
		br := <-b.bridges.Opened
		d.Leg.Emit(call.Progress{Answer: &sdp.Description{Line: "line-1"}})
		if p := want[call.Progress](t, caller); p.Answer == nil {
			t.Error("no early media toward the caller")
		}
		synctest.Wait()
		if last(br, "join") == "" || last(br, "play") != "" {
			t.Errorf("the exchange is not heard: %v", br.Log())
		}
		caller.Emit(call.Release{Cause: call.OriginatorCancelled})
		b.summary()
	})
}

// Early media that cannot be used costs the early media, not the call.
func TestBadEarlyDescriptionIsForgiven(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		second := teamsTarget
		second.Name = "other"
		b := newBench(t, call.Options{}, teamsTarget, second)
		caller := calltest.NewLeg("teams#1", fromTeams())
		b.sw.Accept(caller)
		d := b.dialed()
		br := <-b.bridges.Opened
		d.Leg.Emit(call.Progress{Ringing: true})
		want[call.Progress](t, caller)
		br.Refuse(b.sw.Calls()[0].Leg)
		d.Leg.Emit(call.Progress{Answer: desc()})
		want[call.Progress](t, caller)
		// Nor does it make an answer without a description a good one.
		d.Leg.Emit(call.Answer{})
		if r := want[call.Release](t, caller); r.Cause.Status != 488 {
			t.Errorf("caller got %v", r.Cause)
		}
		b.summary()
	})
}

// Voice that died before the answer is missed after it: the bridge says so once.
func TestEarlyMediaThatDiedIsMissedAfterTheAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, call.Options{}, teamsTarget)
		caller := calltest.NewLeg("line-1", fromLine())
		b.sw.Accept(caller)
		d := b.dialed()
		br := <-b.bridges.Opened
		d.Leg.Emit(call.Progress{Answer: desc()})
		synctest.Wait()
		name := b.sw.Calls()[0].Leg
		br.Emit(call.VoiceAlive{Leg: name, Realm: "lan"})
		br.Emit(call.VoiceDead{Leg: name, Why: "no packets for 1s"})
		synctest.Wait()
		d.Leg.Emit(call.Answer{Description: desc()})
		if u := want[call.Update](t, d.Leg); !strings.HasSuffix(u.Offer.Line, "in wan") {
			t.Errorf("moved by %q", u.Offer.Line)
		}
		caller.Emit(call.Release{Cause: call.NormalClearing})
		b.summary()
	})
}

// A fault in the answer itself must not be taken for a failed move.
func TestUnusableAnswerFromOutsideIsRefusedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, call.Options{}, teamsTarget)
		caller := calltest.NewLeg("line-1", fromLine())
		b.sw.Accept(caller)
		d := b.dialed()
		br := <-b.bridges.Opened
		synctest.Wait()
		br.Refuse(b.sw.Calls()[0].Leg)
		outside := sdp.Profile{Realm: "wan"}
		start := time.Now()
		d.Leg.Emit(call.Answer{Description: desc(), Profile: &outside})
		if r := want[call.Release](t, caller); !r.Cause.Is(call.IncompatibleMedia) || time.Since(start) != 0 {
			t.Errorf("caller got %v after %v", r.Cause, time.Since(start))
		}
		want[call.Release](t, d.Leg)
		b.summary()
	})
}

func TestEmergencyTriesEveryTargetWhateverTheCause(t *testing.T) {
	for _, cause := range []call.Cause{call.UserBusy, call.CallRejected, call.UnallocatedNumber, call.Forbidden, call.NoCircuit} {
		synctest.Test(t, func(t *testing.T) {
			one, two, three := lineTarget, lineTarget, lineTarget
			one.Emergency, two.Emergency, three.Emergency = true, true, true
			one.Name, two.Name, three.Name = "line-1", "line-2", "line-3"
			b := newBench(t, call.Options{}, one, two, three)
			caller := calltest.NewLeg("teams#1", fromTeams())
			b.sw.Accept(caller)
			b.dialed().Leg.Emit(call.Release{Cause: cause})
			second := b.dialed()
			second.Leg.Emit(call.Progress{Answer: desc()}) // it seized the line …
			want[call.Progress](t, caller)
			second.Leg.Emit(call.Release{Cause: cause}) // … and hears the busy tone
			third := b.dialed()
			time.Sleep(20 * time.Second) // slow, but there is nobody else
			third.Leg.Emit(call.Progress{Ringing: true})
			third.Leg.Emit(call.Answer{Description: desc()})
			for {
				if _, ok := next(t, caller).(call.Answer); ok {
					break
				}
			}
			caller.Emit(call.Release{Cause: call.NormalClearing})
			if s := b.summary(); len(s.Attempts) != 3 || s.Attempts[1].Cause != cause || !s.Attempts[1].Alerted || s.Attempts[0].Alerted {
				t.Errorf("attempts %+v", s.Attempts)
			}
		})
	}
}

func TestEmergencyCallIsNotEndedForLostVoice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		urgent := call.Target{Name: "carrier", Emergency: true, Profile: sdp.Profile{Realm: "wan"}}
		b := newBench(t, call.Options{}, urgent)
		caller, _, br, name := b.teamsToTeams()
		br.Emit(call.VoiceDead{Leg: name, Why: "no packets for 15s"})
		time.Sleep(10 * time.Minute)
		if s := b.state(); s != "up" || last(br, "play") != "" {
			t.Errorf("call is %s, bridge was asked %v", s, br.Log())
		}
		caller.Emit(call.Release{Cause: call.NormalClearing})
		b.summary()
	})
}

func TestEmergencyCallIsTakenDuringADrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		urgent := lineTarget
		urgent.Emergency = true
		b := newBench(t, call.Options{}, urgent)
		first := calltest.NewLeg("teams#1", fromTeams())
		b.connect(first)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		drained := make(chan struct{})
		go func() { b.sw.Drain(ctx); close(drained) }()
		synctest.Wait()
		late := calltest.NewLeg("teams#2", fromTeams())
		b.connect(late)
		first.Emit(call.Release{Cause: call.NormalClearing})
		synctest.Wait()
		select {
		case <-drained:
			t.Error("the drain did not wait for the emergency call")
		default:
		}
		late.Emit(call.Release{Cause: call.NormalClearing})
		<-drained
		// Now nobody runs any more.
		after := calltest.NewLeg("teams#3", fromTeams())
		b.sw.Accept(after)
		want[call.Release](t, after)
		synctest.Wait()
	})
}

func TestDrainWhileSeekingReleasesBothLegs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, call.Options{}, lineTarget)
		caller := calltest.NewLeg("teams#1", fromTeams())
		b.sw.Accept(caller)
		d := b.dialed()
		silent := calltest.NewLeg("teams#2", nil) // a leg that never says what it wants
		b.sw.Accept(silent)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		b.sw.Drain(ctx)
		want[call.Release](t, caller)
		want[call.Release](t, d.Leg)
		want[call.Release](t, silent)
		if s := b.summary(); s.Attempts[0].Cause.Status != 503 {
			t.Errorf("the attempt reads as answered: %+v", s.Attempts[0])
		}
	})
}

func TestLegThatBeginsWronglyIsReleased(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, call.Options{}, lineTarget)
		l := calltest.NewLeg("teams#1", nil)
		b.sw.Accept(l)
		l.Emit(call.Progress{})
		want[call.Release](t, l)
		synctest.Wait()
		b.sw.Drain(t.Context())
	})
}

func TestCallerThatGivesUpIsRecordedInTheAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, call.Options{}, lineTarget)
		caller := calltest.NewLeg("teams#1", fromTeams())
		b.sw.Accept(caller)
		b.dialed()
		caller.Emit(call.Release{Cause: call.OriginatorCancelled})
		if s := b.summary(); s.Attempts[0].Cause != call.OriginatorCancelled {
			t.Errorf("the attempt reads as answered: %+v", s.Attempts[0])
		}
	})
}

// A bridge whose voice ends by itself must not make the call spin.
func TestVoiceThatEndsBeforeItsCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, call.Options{}, lineTarget)
		caller, _, br, _ := b.teamsToTeams()
		br.Close()
		synctest.Wait() // never, if the call spins
		caller.Emit(call.Release{Cause: call.NormalClearing})
		b.summary()
	})
}
