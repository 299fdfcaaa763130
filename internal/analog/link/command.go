package link

import (
	"encoding/binary"
	"fmt"
	"math"
	"time"
)

// Body makes the body of a CMD, §8. The builders below return bodies that a
// Session takes; they check what the card would refuse.
type Body []byte

// Hook actions of an FXO.
const (
	HookOn    uint8 = 0
	HookOff   uint8 = 1
	HookFlash uint8 = 2
	HookWink  uint8 = 3
)

// Hook seizes, releases, flashes or winks an FXO. d is for flash and wink.
func Hook(action uint8, d time.Duration) Body {
	return binary.LittleEndian.AppendUint16(Body{0x01, action}, millis(d))
}

// Where the caller ID of a Ring goes.
const (
	SlotNone   uint8 = 0
	SlotByCard uint8 = 1 // stored before by CallerID
	SlotByHost uint8 = 2 // PCM after event CIDSlot
	// BeforeRing as Ring.SlotStep: before the first ring, after the alert.
	BeforeRing uint8 = 0xFF
	// NoRepeat as Ring.Repeat ends ringing after the last step.
	NoRepeat uint8 = 0xFF
)

// Ring is a ringing pattern, §8.1.
type Ring struct {
	Slot      uint8
	Frequency uint8 // Hz, 0: the card's
	Repeat    uint8 // step at which ringing goes on after the last
	SlotStep  uint8 // index of the silent step
	SlotDelay time.Duration
	Steps     []time.Duration // ring, silence, ring …
}

// Body is the command; an error says what no card would accept.
func (r Ring) Body() (Body, error) {
	n := len(r.Steps)
	if n < 2 || n > 16 || n%2 != 0 {
		return nil, fmt.Errorf("ring pattern of %d steps", n)
	}
	if r.Repeat != NoRepeat && (int(r.Repeat) >= n || r.Repeat%2 != 0) {
		return nil, fmt.Errorf("ring pattern repeats at step %d of %d", r.Repeat, n)
	}
	if r.Slot != SlotNone && r.SlotStep != BeforeRing && (int(r.SlotStep) >= n || r.SlotStep%2 == 0) {
		return nil, fmt.Errorf("caller-ID slot in step %d of %d", r.SlotStep, n)
	}
	if r.Slot != SlotNone && r.SlotStep != BeforeRing && (r.SlotDelay < 500*time.Millisecond || r.SlotDelay+200*time.Millisecond > r.Steps[r.SlotStep]) {
		return nil, fmt.Errorf("caller-ID slot after %v of %v", r.SlotDelay, r.Steps[r.SlotStep])
	}
	b := Body{0x02, r.Slot, r.Frequency, r.Repeat, r.SlotStep}
	b = binary.LittleEndian.AppendUint16(b, millis(r.SlotDelay))
	b = append(b, byte(n))
	for _, d := range r.Steps {
		if d < 50*time.Millisecond || d > 20*time.Second {
			return nil, fmt.Errorf("ring step of %v", d)
		}
		b = binary.LittleEndian.AppendUint16(b, millis(d))
	}
	return b, nil
}

// RingStop ends ringing.
func RingStop() Body { return Body{0x03} }

// Line feed modes of an FXS.
const (
	FeedForward    uint8 = 0
	FeedReverse    uint8 = 1
	FeedOpen       uint8 = 2
	FeedTipOpen    uint8 = 3
	FeedForwardOHT uint8 = 4
	FeedReverseOHT uint8 = 5
)

// LineFeed sets the feed of an FXS, for d or (0) until the next.
func LineFeed(mode uint8, d time.Duration) Body {
	return binary.LittleEndian.AppendUint16(Body{0x04, mode}, millis(d))
}

// Caller-ID methods and alerts, §8.2.
const (
	MethodBell202 uint8 = 0
	MethodV23     uint8 = 1
	MethodDTMF    uint8 = 2

	AlertNone     uint8 = 0
	AlertDTAS     uint8 = 1
	AlertReversal uint8 = 2
	AlertRing     uint8 = 3
)

// CallerID is a message for the caller-ID generator of the card.
type CallerID struct {
	Where   uint8 // 0 next ring, 1 now on-hook, 2 now off-hook
	Method  uint8
	Alert   uint8
	Seizure uint16 // bits
	Mark    uint16 // bits
	Octets  []byte
}

// Body is the command; an error says that the message does not fit.
func (c CallerID) Body() (Body, error) {
	if len(c.Octets) == 0 || len(c.Octets) > 230 {
		return nil, fmt.Errorf("caller ID of %d octets", len(c.Octets))
	}
	b := Body{0x07, c.Where, c.Method, c.Alert}
	b = binary.LittleEndian.AppendUint16(b, c.Seizure)
	b = binary.LittleEndian.AppendUint16(b, c.Mark)
	return append(b, c.Octets...), nil
}

// Gain sets levels toward and from the line, in dB, steps of 0.1.
func Gain(toLine, fromLine float64) Body {
	tenth := func(dB float64) uint16 {
		return uint16(int16(math.Round(10 * min(max(dB, -20), 6))))
	}
	b := binary.LittleEndian.AppendUint16(Body{0x0A}, tenth(toLine))
	return binary.LittleEndian.AppendUint16(b, tenth(fromLine))
}

// Query asks for event State.
func Query() Body { return Body{0x12} }

func millis(d time.Duration) uint16 {
	return uint16(min(max(d.Milliseconds(), 0), math.MaxUint16))
}
