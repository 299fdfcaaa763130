package analog

import "sync/atomic"

// frameLen is the samples of a frame: 10 ms.
const frameLen = 80

// party takes the frames of a line and gives those for it: the call's voice, or
// a tone of ours. Both methods run in the goroutine that reads the port and
// neither allocates nor waits.
type party interface {
	hear(frame []int16)
	speak(frame []int16)
}

// Voice is the PCM of one line, frames of 80 samples, 16 bit, 8 kHz. It satisfies
// media.Line. Attach, Write and Detach may be called from any one goroutine, Write
// also from within the sink.
type Voice struct {
	call atomic.Pointer[attachment] // package media's
	tone atomic.Pointer[toneParty]  // ours; goes before the call's
	ear  atomic.Pointer[earParty]   // listens along, FXO

	lost   atomic.Uint64 // frames that did not come from the card
	heard  atomic.Uint64
	spoken atomic.Uint64
	starve atomic.Uint64 // frames that the call did not provide
}

// toneParty and earParty wrap interfaces for atomic pointers.
type (
	toneParty struct{ party }
	earParty  struct{ hear func(frame []int16) }
)

// attachment is the call's side: a sink and a queue of frames for the line.
type attachment struct {
	sink   func(frame []int16)
	frames [8][frameLen]int16
	head   atomic.Uint32 // Write's
	tail   atomic.Uint32 // reader's

	// The reader's: how few frames were left over in the last taken ones.
	least uint32
	taken int
}

const (
	// maxQueued is how many frames may wait for the line: more is only delay.
	maxQueued = 3
	// spareAfter is how many frames in a row must have found another behind them
	// before one is left out: a hiccup of the call's loop must not stay as delay.
	spareAfter = 100
)

// Attach directs the frames received from the line to sink, which is called from
// the goroutine that reads the port; the frame is valid during the call only. A
// new Attach replaces the old. While the line sounds a tone of its own, sink is
// not called.
func (v *Voice) Attach(sink func(frame []int16)) {
	v.call.Store(&attachment{sink: sink, least: maxQueued})
}

// Write queues 80 samples for the line. The card is the clock: one frame is taken
// for each that came; what is too much is dropped. Without Attach it does nothing.
func (v *Voice) Write(frame []int16) {
	a := v.call.Load()
	if a == nil || len(frame) != frameLen {
		return
	}
	head := a.head.Load()
	if head-a.tail.Load() >= uint32(len(a.frames)) {
		return
	}
	a.frames[head%uint32(len(a.frames))] = [frameLen]int16(frame)
	a.head.Store(head + 1)
}

// Detach ends what Attach began. The sink may still be running in the reader's
// goroutine when Detach returns.
func (v *Voice) Detach() { v.call.Store(nil) }

func (a *attachment) hear(frame []int16) { a.sink(frame) }

// speak takes the oldest frame that is not too old. It reports false when
// there is none.
func (a *attachment) speak(frame []int16) bool {
	tail, head := a.tail.Load(), a.head.Load()
	if tail == head {
		clear(frame)
		return false
	}
	if head-tail > maxQueued {
		tail = head - maxQueued
	}
	copy(frame, a.frames[tail%uint32(len(a.frames))][:])
	tail++
	a.least = min(a.least, head-tail)
	if a.taken++; a.taken == spareAfter {
		if a.least > 0 {
			tail++
		}
		a.taken, a.least = 0, maxQueued
	}
	a.tail.Store(tail)
	return true
}

// hear passes a frame from the line on.
func (v *Voice) hear(frame []int16) {
	v.heard.Add(1)
	if e := v.ear.Load(); e != nil {
		e.hear(frame)
	}
	if t := v.tone.Load(); t != nil {
		t.hear(frame)
	} else if a := v.call.Load(); a != nil {
		a.hear(frame)
	}
}

// speak fills a frame for the line.
func (v *Voice) speak(frame []int16) {
	v.spoken.Add(1)
	if t := v.tone.Load(); t != nil {
		t.speak(frame)
	} else if a := v.call.Load(); a != nil {
		if !a.speak(frame) {
			v.starve.Add(1)
		}
	} else {
		clear(frame)
	}
}

// set puts a party of ours on the line; nil leaves it to the call.
func (v *Voice) set(p party) {
	if p == nil {
		v.tone.Store(nil)
		return
	}
	v.tone.Store(&toneParty{p})
}

func (v *Voice) listen(hear func(frame []int16)) {
	if hear == nil {
		v.ear.Store(nil)
		return
	}
	v.ear.Store(&earParty{hear})
}
