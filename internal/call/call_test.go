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

// bench is a Switch between scripted legs, in virtual time.
type bench struct {
	t       *testing.T
	sw      *call.Switch
	dialer  *calltest.Dialer
	bridges *calltest.Bridges
	ended   chan call.Summary
	trouble []string
}

func newBench(t *testing.T, o call.Options, targets ...call.Target) *bench {
	b := &bench{t: t, dialer: calltest.NewDialer(), bridges: calltest.NewBridges(), ended: make(chan call.Summary, 8)}
	if o.Router == nil {
		o.Router = calltest.Router{Targets: targets, Cause: call.UnallocatedNumber}
	}
	o.Dialer, o.Bridges = b.dialer, b.bridges
	o.Ended = func(s call.Summary) { b.ended <- s }
	o.Trouble = func(trunk, why string) { b.trouble = append(b.trouble, trunk+": "+why) }
	b.sw = call.New(o)
	return b
}

var (
	teamsProfile = sdp.Profile{Realm: "lan", Fallback: "wan", Secure: true, ICE: sdp.LiteICE}
	lineProfile  = sdp.Profile{Line: "line-1", Country: "de"}
	lineTarget   = call.Target{Kind: call.ToLine, Name: "line-1", Number: "+49305550", Profile: lineProfile}
	teamsTarget  = call.Target{Kind: call.ToTrunk, Name: "teams", Number: "+49301", Profile: teamsProfile}
)

func fromTeams() *call.Setup {
	return &call.Setup{Source: "teams", Calling: call.Party{Number: "+4915"}, Called: "+49305550",
		Offer: &sdp.Description{}, Profile: teamsProfile}
}

func fromLine() *call.Setup {
	return &call.Setup{Source: "line-1", Calling: call.Party{Number: "+49305550"}, Called: "+49301",
		Offer: &sdp.Description{Line: "line-1"}, Profile: lineProfile}
}

// next waits for the next event that a leg was sent; in a synctest bubble the
// wait is virtual.
func next(t *testing.T, l *calltest.Leg) call.Event {
	t.Helper()
	select {
	case ev := <-l.Sent:
		return ev
	case <-time.After(time.Hour):
		t.Fatalf("nothing was sent to %s", l.Name())
		return nil
	}
}

func want[E call.Event](t *testing.T, l *calltest.Leg) E {
	t.Helper()
	ev := next(t, l)
	e, ok := ev.(E)
	if !ok {
		t.Fatalf("%s was sent %T %+v, want %T", l.Name(), ev, ev, e)
	}
	return e
}

func (b *bench) dialed() calltest.Dialed {
	b.t.Helper()
	select {
	case d := <-b.dialer.Dialed:
		return d
	case <-time.After(time.Hour):
		b.t.Fatal("nothing was dialled")
		return calltest.Dialed{}
	}
}

func (b *bench) summary() call.Summary {
	b.t.Helper()
	select {
	case s := <-b.ended:
		return s
	case <-time.After(time.Hour):
		b.t.Fatal("the call did not end")
		return call.Summary{}
	}
}

// connect brings a call from caller to its first target up.
func (b *bench) connect(caller *calltest.Leg) (callee *calltest.Leg, br *calltest.Bridge) {
	b.t.Helper()
	b.sw.Accept(caller)
	d := b.dialed()
	br = <-b.bridges.Opened
	d.Leg.Emit(call.Progress{Ringing: true})
	want[call.Progress](b.t, caller)
	d.Leg.Emit(call.Answer{Description: &sdp.Description{}})
	want[call.Answer](b.t, caller)
	synctest.Wait()
	return d.Leg, br
}

func TestTeamsCallRingsAndReachesAPhone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, call.Options{}, lineTarget)
		caller := calltest.NewLeg("teams#1", fromTeams())
		callee, br := b.connect(caller)
		time.Sleep(42 * time.Second) // virtual
		callee.Emit(call.Release{Cause: call.NormalClearing})
		if r := want[call.Release](t, caller); !r.Cause.Is(call.NormalClearing) {
			t.Errorf("caller released with %v", r.Cause)
		}
		s := b.summary()
		if s.Duration() != 42*time.Second || s.EndedBy == "" || len(s.Attempts) != 1 {
			t.Errorf("summary %+v", s)
		}
		log := strings.Join(br.Log(), "; ")
		for _, step := range []string{"offered teams#1 lan", "confirm line-1/", "answer-to teams#1", "join teams#1", "close"} {
			if !strings.Contains(log, step) {
				t.Errorf("bridge was not asked %q: %s", step, log)
			}
		}
	})
}

// The caller on a line hears ringback of ours; early media joins only when the
// callee really sends voice.
func TestC54C55SilentEarlyMediaKeepsRingback(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, call.Options{}, teamsTarget)
		caller := calltest.NewLeg("line-1", fromLine())
		b.sw.Accept(caller)
		d := b.dialed()
		br := <-b.bridges.Opened
		d.Leg.Emit(call.Progress{Ringing: true})
		want[call.Progress](t, caller)
		d.Leg.Emit(call.Progress{Answer: &sdp.Description{}})
		want[call.Progress](t, caller)
		synctest.Wait()
		if log := br.Log(); slices.ContainsFunc(log, func(s string) bool { return strings.HasPrefix(s, "join") }) {
			t.Fatalf("joined before any voice came: %v", log)
		}
		callee := b.sw.Calls()[0].Leg
		br.Emit(call.VoiceAlive{Leg: callee, Realm: "lan"})
		synctest.Wait()
		if log := br.Log(); log[len(log)-1] != "join line-1 "+callee {
			t.Fatalf("not joined when voice came: %v", log)
		}
		caller.Emit(call.Release{Cause: call.NormalClearing})
		b.summary()
	})
}

func TestC39NothingSeizedGives503InSixSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, call.Options{}, lineTarget)
		caller := calltest.NewLeg("teams#1", fromTeams())
		start := time.Now()
		b.sw.Accept(caller)
		d := b.dialed()
		r := want[call.Release](t, caller)
		if r.Cause.Status != 503 || time.Since(start) != 6*time.Second {
			t.Errorf("got %v after %v, want 503 after 6s", r.Cause, time.Since(start))
		}
		want[call.Release](t, d.Leg)
		b.summary()
	})
}

func TestRefusalTriesTheNextTargetOnlyWhenTheWayFailed(t *testing.T) {
	second := lineTarget
	second.Name = "line-2"
	for _, c := range []struct {
		name  string
		cause call.Cause
		next  bool
	}{
		{"congestion", call.NoCircuit, true},
		{"destination down", call.DestinationDown, true},
		{"incompatible", call.IncompatibleMedia, true},
		{"busy", call.UserBusy, false},
		{"rejected C-59", call.CallRejected, false},
		{"unallocated C-61", call.UnallocatedNumber, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t, call.Options{}, lineTarget, second)
				caller := calltest.NewLeg("teams#1", fromTeams())
				b.sw.Accept(caller)
				b.dialed().Leg.Emit(call.Release{Cause: c.cause})
				if c.next {
					d := b.dialed()
					if d.Target.Name != "line-2" {
						t.Fatalf("dialled %s", d.Target.Name)
					}
					caller.Emit(call.Release{Cause: call.OriginatorCancelled})
					want[call.Release](t, d.Leg)
				} else if r := want[call.Release](t, caller); !r.Cause.Is(c.cause) {
					t.Errorf("caller got %v, want %v", r.Cause, c.cause)
				}
				s := b.summary()
				if s.Attempts[0].Cause != c.cause {
					t.Errorf("attempt recorded %v", s.Attempts[0].Cause)
				}
			})
		})
	}
}

func TestSilentTargetIsLeftForTheNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		second := lineTarget
		second.Name = "line-2"
		b := newBench(t, call.Options{}, lineTarget, second)
		caller := calltest.NewLeg("teams#1", fromTeams())
		b.sw.Accept(caller)
		first := b.dialed()
		d := b.dialed()
		want[call.Release](t, first.Leg)
		d.Leg.Emit(call.Progress{Ringing: true})
		want[call.Progress](t, caller)
		d.Leg.Emit(call.Answer{Description: &sdp.Description{}})
		want[call.Answer](t, caller)
		caller.Emit(call.Release{Cause: call.NormalClearing})
		b.summary()
	})
}

func TestC40CallerGivesUpBeforeAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, call.Options{}, lineTarget)
		caller := calltest.NewLeg("teams#1", fromTeams())
		b.sw.Accept(caller)
		d := b.dialed()
		d.Leg.Emit(call.Progress{Ringing: true})
		want[call.Progress](t, caller)
		caller.Emit(call.Release{Cause: call.OriginatorCancelled})
		want[call.Release](t, d.Leg)
		if s := b.summary(); !s.Answer.IsZero() || s.Cause != call.OriginatorCancelled {
			t.Errorf("summary %+v", s)
		}
	})
}

// The ladder of a running call: LAN dead, ICE restart in the other realm,
// checked in time.
func TestFailoverMovesALegToCloudMedia(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, call.Options{}, lineTarget)
		caller := calltest.NewLeg("teams#1", fromTeams())
		callee, br := b.connect(caller)
		br.Emit(call.VoiceDead{Leg: "teams#1", Why: "no packets for 1s"})
		u := want[call.Update](t, caller)
		if u.Offer == nil || !strings.HasSuffix(u.Offer.Line, "in wan") {
			t.Fatalf("update offers %+v, want the wan realm", u.Offer)
		}
		caller.Emit(call.Answer{Description: &sdp.Description{}})
		synctest.Wait()
		// Voice on the old path during the move does not count.
		br.Emit(call.VoiceAlive{Leg: "teams#1", Realm: "lan"})
		time.Sleep(time.Second)
		br.Emit(call.VoiceAlive{Leg: "teams#1", Realm: "wan"})
		time.Sleep(time.Minute)
		callee.Emit(call.Release{Cause: call.NormalClearing})
		s := b.summary()
		if len(s.Moves) != 1 || !s.Moves[0].OK || s.Moves[0].From != "lan" || s.Moves[0].To != "wan" {
			t.Errorf("moves %+v", s.Moves)
		}
		if len(b.trouble) != 1 || !strings.HasPrefix(b.trouble[0], "teams:") {
			t.Errorf("trouble %v, want one for teams", b.trouble)
		}
		want[call.Release](t, caller)
	})
}

func TestFailoverThatIsNotCheckedInTwoSecondsReleasesWithACause(t *testing.T) {
	for _, answered := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t, call.Options{}, lineTarget)
			caller := calltest.NewLeg("teams#1", fromTeams())
			callee, br := b.connect(caller)
			br.Emit(call.VoiceDead{Leg: "teams#1", Why: "link lan0 down"})
			start := time.Now()
			want[call.Update](t, caller)
			if answered {
				caller.Emit(call.Answer{Description: &sdp.Description{}})
			}
			r := want[call.Release](t, callee)
			if d := time.Since(start); d != 7*time.Second { // 2 s restart, 5 s announcement
				t.Errorf("released after %v", d)
			}
			if !r.Cause.Is(call.MediaLost) || !strings.Contains(r.Reason, "link lan0 down") {
				t.Errorf("released with %+v", r)
			}
			log := strings.Join(br.Log(), "; ")
			if !strings.Contains(log, "play ") {
				t.Errorf("the phone heard nothing: %s", log)
			}
			s := b.summary()
			if len(s.Moves) != 1 || s.Moves[0].OK {
				t.Errorf("moves %+v", s.Moves)
			}
			wantWhy := "not answered"
			if answered {
				wantWhy = "no connectivity check"
			}
			if !strings.Contains(s.Reason, wantWhy) {
				t.Errorf("reason %q does not say %q", s.Reason, wantWhy)
			}
		})
	}
}

func TestDeadLegWithoutFallbackMayComeBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		carrier := call.Target{Name: "carrier", Profile: sdp.Profile{Realm: "wan"}}
		b := newBench(t, call.Options{}, carrier)
		caller := calltest.NewLeg("line-1", fromLine())
		callee, br := b.connect(caller)
		leg := b.sw.Calls()[0].Leg
		br.Emit(call.VoiceDead{Leg: leg, Why: "no packets for 15s"})
		time.Sleep(3 * time.Second)
		br.Emit(call.VoiceAlive{Leg: leg, Realm: "wan"})
		time.Sleep(time.Minute)
		if len(b.sw.Calls()) != 1 {
			t.Fatal("the call was released although voice came back")
		}
		callee.Emit(call.Release{Cause: call.NormalClearing})
		b.summary()
	})
}

// C-133 for a central SBC: we guessed that the user is in the building.
func TestC133AnswerFromOutsideMovesTheLegWithoutTrouble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, call.Options{}, teamsTarget)
		caller := calltest.NewLeg("line-1", fromLine())
		b.sw.Accept(caller)
		d := b.dialed()
		br := <-b.bridges.Opened
		outside := teamsProfile
		outside.Realm, outside.Fallback = "wan", ""
		d.Leg.Emit(call.Answer{Description: &sdp.Description{}, Profile: &outside})
		want[call.Answer](t, caller)
		u := want[call.Update](t, d.Leg)
		if !strings.HasSuffix(u.Offer.Line, "in wan") {
			t.Fatalf("update offers %q", u.Offer.Line)
		}
		d.Leg.Emit(call.Answer{Description: &sdp.Description{}})
		synctest.Wait()
		br.Emit(call.VoiceAlive{Leg: b.sw.Calls()[0].Leg, Realm: "wan"})
		time.Sleep(time.Minute)
		if len(b.trouble) != 0 {
			t.Errorf("a wrong guess was reported as trouble: %v", b.trouble)
		}
		d.Leg.Emit(call.Release{Cause: call.NormalClearing})
		if s := b.summary(); len(s.Moves) != 1 || !s.Moves[0].OK {
			t.Errorf("moves %+v", s.Moves)
		}
	})
}

// A refresh of one side, answered or refused, is not seen by the other (C-73).
func TestC74ReofferIsAnsweredInPlaceAndTheOtherSideNotDisturbed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, call.Options{}, lineTarget)
		caller := calltest.NewLeg("teams#1", fromTeams())
		callee, br := b.connect(caller)
		caller.Emit(call.Update{Offer: &sdp.Description{}})
		want[call.Answer](t, caller)
		br.Refuse("teams#1")
		caller.Emit(call.Update{Offer: &sdp.Description{}})
		if r := want[call.Refuse](t, caller); r.Cause.Status != 488 {
			t.Errorf("refused with %v", r.Cause)
		}
		synctest.Wait()
		select {
		case ev := <-callee.Sent:
			t.Errorf("the other side was sent %T", ev)
		default:
		}
		callee.Emit(call.Release{Cause: call.NormalClearing})
		b.summary()
	})
}

func TestC47OfferlessCallerGetsAnOfferOfOurs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, call.Options{}, lineTarget)
		s := fromTeams()
		s.Offer = nil
		caller := calltest.NewLeg("pbx#1", s)
		b.sw.Accept(caller)
		d := b.dialed()
		br := <-b.bridges.Opened
		d.Leg.Emit(call.Answer{Description: &sdp.Description{}})
		if a := want[call.Answer](t, caller); !strings.HasPrefix(a.Description.Line, "offer to pbx#1") {
			t.Fatalf("200 carries %q", a.Description.Line)
		}
		caller.Emit(call.Answer{Description: &sdp.Description{}})
		synctest.Wait()
		if log := br.Log(); !slices.Contains(log, "answered pbx#1") {
			t.Errorf("the answer in the ACK was not used: %v", log)
		}
		caller.Emit(call.Release{Cause: call.NormalClearing})
		b.summary()
	})
}

func TestLimitsSpareEmergencyCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		urgent := lineTarget
		urgent.Emergency = true
		for _, c := range []struct {
			target call.Target
			taken  bool
		}{{lineTarget, false}, {urgent, true}} {
			b := newBench(t, call.Options{MaxCalls: 1}, c.target)
			first := calltest.NewLeg("teams#1", fromTeams())
			b.connect(first)
			second := calltest.NewLeg("teams#2", fromTeams())
			b.sw.Accept(second)
			if c.taken {
				b.dialed()
				second.Emit(call.Release{Cause: call.OriginatorCancelled})
			} else if r := want[call.Release](t, second); r.Cause.Status != 503 {
				t.Errorf("second call got %v", r.Cause)
			}
			b.summary()
			first.Emit(call.Release{Cause: call.NormalClearing})
			b.summary()
		}
	})
}

func TestDrainLetsCallsEndThenReleasesTheRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, call.Options{}, lineTarget)
		caller := calltest.NewLeg("teams#1", fromTeams())
		callee, _ := b.connect(caller)
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		start := time.Now()
		go func() {
			time.Sleep(time.Second)
			late := calltest.NewLeg("teams#2", fromTeams())
			b.sw.Accept(late)
			if r := want[call.Release](t, late); r.Cause.Status != 503 {
				t.Errorf("a call during the drain got %v", r.Cause)
			}
		}()
		b.sw.Drain(ctx)
		if d := time.Since(start); d != 30*time.Second {
			t.Errorf("drained after %v", d)
		}
		want[call.Release](t, caller)
		want[call.Release](t, callee)
	})
}

func TestFaultsOfOursReleaseTheCallWithACause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, call.Options{})
		l := calltest.NewLeg("teams#1", fromTeams())
		b.sw.Accept(l)
		if r := want[call.Release](t, l); r.Cause.Status != 404 {
			t.Errorf("no route: got %v", r.Cause)
		}
		b.summary()
	})
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, call.Options{}, lineTarget)
		b.bridges.Full = true
		l := calltest.NewLeg("teams#1", fromTeams())
		b.sw.Accept(l)
		if r := want[call.Release](t, l); r.Cause.Status != 503 {
			t.Errorf("no media port: got %v", r.Cause)
		}
		b.summary()
	})
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, call.Options{}, lineTarget)
		b.dialer.Fail = map[string]error{"line-1": context.DeadlineExceeded}
		l := calltest.NewLeg("teams#1", fromTeams())
		b.sw.Accept(l)
		if r := want[call.Release](t, l); r.Cause.Status != 503 {
			t.Errorf("undiallable target: got %v", r.Cause)
		}
		b.summary()
	})
}

type panicRouter struct{}

func (panicRouter) Route(call.Setup) ([]call.Target, call.Cause) { panic("bug") }

func TestABugInOneCallReleasesThatCallOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, call.Options{Router: panicRouter{}})
		l := calltest.NewLeg("teams#1", fromTeams())
		b.sw.Accept(l)
		if r := want[call.Release](t, l); r.Cause.Status != 503 {
			t.Errorf("got %v", r.Cause)
		}
		b.summary()
		synctest.Wait()
		if n := len(b.sw.Calls()); n != 0 {
			t.Errorf("%d calls left", n)
		}
	})
}

func TestScriptedLegKeepsThePromisesOfALeg(t *testing.T) {
	l := calltest.NewLeg("x", nil)
	calltest.LegConformance(t, l)
}
