package link

import (
	"encoding/binary"
	"fmt"
)

// EventID names what a channel reports, §9.
type EventID uint8

// Events.
const (
	OffHook    EventID = 0x01
	OnHook     EventID = 0x02
	Flash      EventID = 0x03
	Pulse      EventID = 0x04
	DTMF       EventID = 0x05
	RingOn     EventID = 0x06
	RingOff    EventID = 0x07
	Polarity   EventID = 0x08
	LoopOpen   EventID = 0x09
	LoopClosed EventID = 0x0A
	Battery    EventID = 0x0B
	GroundKey  EventID = 0x0C
	RingDone   EventID = 0x0D
	CIDDone    EventID = 0x0E
	ToneDone   EventID = 0x0F
	Fault      EventID = 0x10
	MWINeon    EventID = 0x11
	Parallel   EventID = 0x12
	CIDSlot    EventID = 0x13
	State      EventID = 0x14
	MeterDone  EventID = 0x15
	DialDone   EventID = 0x16
	HookDone   EventID = 0x17
)

// eventArgs are the least octets of arguments of each event.
var eventArgs = map[EventID]int{OffHook: 1, OnHook: 0, Flash: 2, Pulse: 1, DTMF: 2, RingOn: 1, RingOff: 2,
	Polarity: 1, LoopOpen: 0, LoopClosed: 2, Battery: 1, GroundKey: 1, RingDone: 0, CIDDone: 1, ToneDone: 0,
	Fault: 2, MWINeon: 1, Parallel: 1, CIDSlot: 2, State: 4, MeterDone: 2, DialDone: 0, HookDone: 1}

// Event is one report of a channel. Which fields mean something depends on ID.
type Event struct {
	ID    EventID
	Clock uint16 // card milliseconds when it happened
	// On: DTMF begins, battery present, polarity reversed, key, neon, fault
	// active, parallel phone off-hook; OffHook: by ring trip; State: off-hook.
	On     bool
	Millis uint16 // Flash, RingOff, LoopClosed, CIDSlot
	// Value: pulses, ASCII digit, ring frequency in Hz, result, fault kind,
	// action; State: fault.
	Value    uint8
	Count    uint16 // MeterDone
	Ringing  bool   // State
	Reversed bool   // State
}

// FaultNoBattery is the fault value of a State event for an FXO without battery.
const FaultNoBattery = 16

// ParseEvent reads the body of EVT. The status is what to acknowledge with; it
// is StatusOK if and only if the event is to be handled.
func ParseEvent(b []byte) (Event, Status) {
	if len(b) == 0 {
		return Event{}, StatusBadArgument
	}
	e := Event{ID: EventID(b[0])}
	need, known := eventArgs[e.ID]
	if !known {
		return e, StatusUnknown
	}
	if b = b[1:]; len(b) < need {
		return e, StatusBadArgument
	}
	switch e.ID {
	case OffHook:
		e.On = b[0]&1 != 0
	case Flash, RingOff, LoopClosed, CIDSlot:
		e.Millis = binary.LittleEndian.Uint16(b)
	case Pulse:
		if e.Value = b[0]; e.Value == 0 {
			return e, StatusBadArgument
		}
	case DTMF:
		if e.Value, e.On = b[0], b[1] != 0; !isDTMF(e.Value) {
			return e, StatusBadArgument
		}
	case RingOn, CIDDone, HookDone:
		e.Value = b[0]
	case Polarity, Battery, GroundKey, MWINeon, Parallel:
		e.On = b[0] != 0
	case Fault:
		e.Value, e.On = b[0], b[1] != 0
	case State:
		e.On, e.Ringing, e.Reversed, e.Value = b[0] != 0, b[1] != 0, b[2] != 0, b[3]
	case MeterDone:
		e.Count = binary.LittleEndian.Uint16(b)
	}
	return e, StatusOK
}

func isDTMF(d byte) bool {
	return d >= '0' && d <= '9' || d >= 'A' && d <= 'D' || d == '*' || d == '#'
}

// Alarm is a report about the card as a whole, §6.5.
type Alarm struct {
	ID     uint8
	Active bool
	Value  int16
}

// ParseAlarm reads the body of ALARM.
func ParseAlarm(b []byte) (Alarm, Status) {
	if len(b) < 4 {
		return Alarm{}, StatusBadArgument
	}
	a := Alarm{b[0], b[1] != 0, int16(binary.LittleEndian.Uint16(b[2:]))}
	if a.ID == 0 || a.ID > 5 && a.ID < 0x80 {
		return a, StatusUnknown
	}
	return a, StatusOK
}

func (a Alarm) String() string {
	name := map[uint8]string{1: "over-temperature", 2: "DC/DC converter", 3: "supply", 4: "reset cause", 5: "receive overrun"}[a.ID]
	if name == "" {
		name = fmt.Sprintf("alarm %#02x", a.ID)
	}
	return fmt.Sprintf("%s value %d active %t", name, a.Value, a.Active)
}

// Status answers a reliable frame, §3.
type Status uint8

// Statuses. StatusLinkDown is never on the wire: the link went down before an
// answer came.
const (
	StatusOK          Status = 0
	StatusUnknown     Status = 1
	StatusBadArgument Status = 2
	StatusUnsupported Status = 3
	StatusWrongState  Status = 4
	StatusNoSession   Status = 5
	StatusHardware    Status = 6
	StatusLinkDown    Status = 255
)

func (s Status) String() string {
	switch s {
	case StatusOK:
		return "ok"
	case StatusUnknown:
		return "unknown"
	case StatusBadArgument:
		return "bad argument"
	case StatusUnsupported:
		return "unsupported"
	case StatusWrongState:
		return "wrong state"
	case StatusNoSession:
		return "no session"
	case StatusHardware:
		return "hardware"
	case StatusLinkDown:
		return "link down"
	}
	return fmt.Sprintf("status %d", uint8(s))
}

func parseAck(b []byte) (seq uint16, s Status, ok bool) {
	if len(b) < 3 || b[2] == uint8(StatusLinkDown) {
		return 0, 0, false
	}
	return binary.LittleEndian.Uint16(b), Status(b[2]), true
}

// Pong is the card's statistics, §5.
type Pong struct {
	Token, Session, Boot uint32
	Received             uint32 // valid frames
	Dropped              uint32
	Overruns             uint32
	Underruns            uint32 // of playout
	Repeats              uint32
}

// ParsePong reads the body of PONG.
func ParsePong(b []byte) (Pong, bool) {
	if len(b) < 32 {
		return Pong{}, false
	}
	u := func(i int) uint32 { return binary.LittleEndian.Uint32(b[4*i:]) }
	return Pong{u(0), u(1), u(2), u(3), u(4), u(5), u(6), u(7)}, true
}

// ParseFill calls each for every channel of a FILL body with its depth in ms.
func ParseFill(b []byte, each func(channel, depth uint8)) {
	for ; len(b) >= 2; b = b[2:] {
		if b[0] < Channels {
			each(b[0], b[1])
		}
	}
}
