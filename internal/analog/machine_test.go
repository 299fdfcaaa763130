package analog

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"localloop/internal/call"
)

var allInputs = func() (list []input) {
	for k := inUp; k <= inClosed; k++ {
		switch k {
		case inDigit:
			for _, d := range []byte("1#") {
				list = append(list, input{kind: k, digit: d})
			}
		case inUp:
			list = append(list, input{kind: k}, input{kind: k, offHook: true})
		case inRelease:
			list = append(list, input{kind: k, cause: call.NormalClearing}, input{kind: k, cause: call.UserBusy}, input{kind: k, cause: call.NoCircuit})
		case inDown, inRefused:
			list = append(list, input{kind: k, cause: call.DestinationDown, text: "x"})
		case inRingOff, inClosed:
			list = append(list, input{kind: k, wait: 50 * time.Millisecond}, input{kind: k, wait: time.Second})
		default:
			list = append(list, input{kind: k, text: "1"})
		}
	}
	return list
}()

var tableRules = rules{match: func(d string) int {
	return map[string]int{"1": 1, "11": 3, "111": 2}[d]
}}

// effects are what actions do to the leg of a line and to its stream.
type effects struct {
	leg, timer, stream, hook bool
}

func (e effects) after(acts []act) (effects, error) {
	for _, a := range acts {
		switch a.kind {
		case doAdopt, doSetup:
			if e.leg {
				return e, fmt.Errorf("second leg")
			}
			e.leg = true
		case doRelease:
			if !e.leg {
				return e, fmt.Errorf("release without a leg")
			}
			e.leg = false
		case doProgress, doAnswer:
			if !e.leg {
				return e, fmt.Errorf("event without a leg")
			}
		case doTimer:
			e.timer = a.wait > 0
		case doStream:
			e.stream = a.on
		case doHook:
			e.hook = a.on
		}
	}
	return e, nil
}

// TestFXSEveryReachableStateIsSound walks all states that any order of inputs can
// reach: a leg exists exactly where the state has one, an idle line has no stream
// and no timer, and on-hook leads to idle from every state.
func TestFXSEveryReachableStateIsSound(t *testing.T) {
	type node struct {
		s fxs
		e effects
	}
	seen := map[node]bool{}
	todo := []node{{}}
	states := map[fxsState]bool{}
	for len(todo) > 0 {
		n := todo[0]
		todo = todo[1:]
		if seen[n] {
			continue
		}
		seen[n] = true
		states[n.s.state] = true
		for _, in := range allInputs {
			if in.kind == inTimer && !n.e.timer {
				continue
			}
			e := n.e
			if in.kind == inTimer {
				e.timer = false
			}
			next, acts := n.s.next(in, tableRules)
			e, err := e.after(acts)
			if err != nil {
				t.Fatalf("%+v on %+v: %v", n.s, in, err)
			}
			if e.leg != next.hasLeg() {
				t.Fatalf("%+v on %+v: to %+v with leg %t", n.s, in, next, e.leg)
			}
			if (next.state == fxsIdle || next.state == fxsDown || next.state == fxsParked) && (e.stream || e.timer) {
				t.Fatalf("%+v on %+v: %v has stream %t, timer %t", n.s, in, next.state, e.stream, e.timer)
			}
			if in.kind == inOnHook && next.state != fxsIdle && !slices.Contains([]fxsState{fxsDown, fxsAlerting, fxsRinging}, n.s.state) {
				t.Fatalf("on-hook in %v leads to %v", n.s.state, next.state)
			}
			todo = append(todo, node{next, e})
		}
	}
	if len(states) != int(fxsParked)+1 {
		t.Fatalf("only %d of %d states reached", len(states), fxsParked+1)
	}
}

func TestFXOEveryReachableStateIsSound(t *testing.T) {
	type node struct {
		s fxo
		e effects
	}
	seen := map[node]bool{}
	todo := []node{{}}
	states := map[fxoState]bool{}
	for len(todo) > 0 {
		n := todo[0]
		todo = todo[1:]
		if seen[n] {
			continue
		}
		seen[n] = true
		states[n.s.state] = true
		for _, in := range allInputs {
			if in.kind == inTimer && !n.e.timer {
				continue
			}
			e := n.e
			if in.kind == inTimer {
				e.timer = false
			}
			next, acts := n.s.next(in)
			e, err := e.after(acts)
			if err != nil {
				t.Fatalf("%+v on %+v: %v", n.s, in, err)
			}
			if e.leg != next.hasLeg() {
				t.Fatalf("%+v on %+v: to %+v with leg %t", n.s, in, next, e.leg)
			}
			switch next.state {
			case fxoIdle, fxoGuard, fxoDown:
				if e.stream || e.hook {
					t.Fatalf("%+v on %+v: %v with stream %t, off-hook %t", n.s, in, next.state, e.stream, e.hook)
				}
			case fxoBurst, fxoOffered, fxoRefused, fxoSeizing, fxoSending:
				if !e.timer {
					t.Fatalf("%+v on %+v: %v without a timer waits for ever", n.s, in, next.state)
				}
			}
			if next.state == fxoGuard && !e.timer {
				t.Fatalf("%+v on %+v: guard without a timer", n.s, in)
			}
			todo = append(todo, node{next, e})
		}
	}
	if len(states) != int(fxoGuard)+1 {
		t.Fatalf("only %d of %d states reached", len(states), fxoGuard+1)
	}
}

func TestFXSDialling(t *testing.T) {
	for name, c := range map[string]struct {
		digits string
		timer  bool
		state  fxsState
		called string
	}{
		"part":                 {"1", false, fxsDigits, ""},
		"part and pause":       {"1", true, fxsReorder, ""},
		"complete":             {"111", false, fxsWaiting, "111"},
		"perhaps longer":       {"11", false, fxsDigits, ""},
		"perhaps longer pause": {"11", true, fxsWaiting, "11"},
		"ended by #":           {"11#", false, fxsWaiting, "11"},
		"part ended by #":      {"1#", false, fxsWaiting, "1"},
		"no number":            {"2", false, fxsReorder, ""},
		"nothing":              {"", true, fxsReorder, ""},
		"# alone":              {"#", false, fxsReorder, ""},
	} {
		t.Run(name, func(t *testing.T) {
			s, _ := fxs{state: fxsIdle}.next(input{kind: inOffHook}, tableRules)
			var acts []act
			for _, d := range []byte(c.digits) {
				s, acts = s.next(input{kind: inDigit, digit: d}, tableRules)
			}
			if c.timer {
				s, acts = s.next(input{kind: inTimer}, tableRules)
			}
			called := ""
			for _, a := range acts {
				if a.kind == doSetup {
					called = a.text
				}
			}
			if s.state != c.state || called != c.called {
				t.Fatalf("%v called %q, want %v %q", s.state, called, c.state, c.called)
			}
		})
	}
	s := fxs{state: fxsDialTone}
	long := rules{match: func(string) int { return 3 }}
	for range maxDigits {
		s, _ = s.next(input{kind: inDigit, digit: '5'}, long)
	}
	if s.state != fxsWaiting || len(s.digits) != maxDigits {
		t.Fatalf("%d digits without an end: %v", len(s.digits), s.state)
	}
}

func TestReleaseToneByCause(t *testing.T) {
	for _, c := range []struct {
		cause call.Cause
		state fxsState
		tone  toneKind
	}{
		{call.NormalClearing, fxsQuiet, toneSilence},
		{call.OriginatorCancelled, fxsQuiet, toneSilence},
		{call.UserBusy, fxsReorder, toneBusy},
		{call.NoCircuit, fxsReorder, toneCongestion},
		{call.UnallocatedNumber, fxsReorder, toneCongestion},
		{call.MediaLost, fxsReorder, toneCongestion},
	} {
		for _, from := range []fxsState{fxsWaiting, fxsTalking} {
			s, acts := fxs{state: from}.next(input{kind: inRelease, cause: c.cause}, tableRules)
			i := slices.IndexFunc(acts, func(a act) bool { return a.kind == doTone })
			if s.state != c.state || i < 0 || acts[i].tone != c.tone {
				t.Errorf("%v in %v: %v %+v", c.cause, from, s.state, acts)
			}
		}
	}
}

func TestNumbersAsDialledHere(t *testing.T) {
	for in, want := range map[string]string{
		"+4930555": "030555", "+4420123": "004420123", "110": "110", "*21#": "*21#", "+49 30/55-5": "030555", "": "", "sip:x": "",
	} {
		if got := dialable(testBox, in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}
