package analogtest

import (
	"encoding/binary"
	"math"
	"time"
)

// Commands, docs/linecard-link.md §8.
const (
	cmdHook      = 0x01
	cmdRing      = 0x02
	cmdRingStop  = 0x03
	cmdLinefeed  = 0x04
	cmdTone      = 0x05
	cmdToneStop  = 0x06
	cmdCallerID  = 0x07
	cmdVMWI      = 0x08
	cmdMeter     = 0x09
	cmdGain      = 0x0A
	cmdImpedance = 0x0B
	cmdEcho      = 0x0C
	cmdLifeline  = 0x0D
	cmdTest      = 0x0E
	cmdTiming    = 0x0F
	cmdFailsafe  = 0x10
	cmdDial      = 0x11
	cmdQuery     = 0x12
)

var commandNames = map[byte]string{
	cmdHook: "HOOK", cmdRing: "RING", cmdRingStop: "RING_STOP", cmdLinefeed: "LINEFEED", cmdTone: "TONE",
	cmdToneStop: "TONE_STOP", cmdCallerID: "CALLERID", cmdVMWI: "VMWI", cmdMeter: "METER", cmdGain: "GAIN",
	cmdImpedance: "IMPEDANCE", cmdEcho: "ECHO", cmdLifeline: "LIFELINE", cmdTest: "TEST", cmdTiming: "TIMING",
	cmdFailsafe: "FAILSAFE", cmdDial: "DIAL", cmdQuery: "QUERY",
}

// Events, docs/linecard-link.md §9.
const (
	evOffHook    = 0x01
	evOnHook     = 0x02
	evFlash      = 0x03
	evPulse      = 0x04
	evDTMF       = 0x05
	evRingOn     = 0x06
	evRingOff    = 0x07
	evPolarity   = 0x08
	evLoopOpen   = 0x09
	evLoopClosed = 0x0A
	evBattery    = 0x0B
	evRingDone   = 0x0D
	evCIDDone    = 0x0E
	evToneDone   = 0x0F
	evFault      = 0x10
	evParallel   = 0x12
	evCIDSlot    = 0x13
	evState      = 0x14
	evMeterDone  = 0x15
	evDialDone   = 0x16
	evHookDone   = 0x17
)

var eventNames = map[byte]string{
	evOffHook: "OFFHOOK", evOnHook: "ONHOOK", evFlash: "FLASH", evPulse: "PULSE", evDTMF: "DTMF", evRingOn: "RING_ON",
	evRingOff: "RING_OFF", evPolarity: "POLARITY", evLoopOpen: "LOOP_OPEN", evLoopClosed: "LOOP_CLOSED", evBattery: "BATTERY",
	evRingDone: "RING_DONE", evCIDDone: "CID_DONE", evToneDone: "TONE_DONE", evFault: "FAULT", evParallel: "PARALLEL", evCIDSlot: "CID_SLOT",
	evState: "STATE", evMeterDone: "METER_DONE", evDialDone: "DIAL_DONE", evHookDone: "HOOK_DONE",
}

// common carries out the commands that FXS and FXO share; handled is false for others.
func (b *channel) common(id byte, args []byte) (status byte, handled bool) {
	switch id {
	case cmdTone:
		p, ok := parseTone(args)
		if !ok {
			return stBadArgument, true
		}
		b.tone = p
	case cmdToneStop:
		b.tone = nil
	case cmdGain:
		if len(args) < 4 {
			return stBadArgument, true
		}
		to, from := int16(binary.LittleEndian.Uint16(args)), int16(binary.LittleEndian.Uint16(args[2:]))
		if min(to, from) < -200 || max(to, from) > 60 {
			return stBadArgument, true
		}
		b.gainTo, b.gainFrom = math.Pow(10, float64(to)/200), math.Pow(10, float64(from)/200)
	case cmdImpedance:
		if len(args) < 1 || args[0] > 3 {
			return stBadArgument, true
		}
	case cmdEcho, cmdLifeline, cmdTest:
		return stUnsupported, true
	default:
		return 0, false
	}
	return stOK, true
}

// parseTone reads the arguments of TONE.
func parseTone(args []byte) (*player, bool) {
	if len(args) < 2 || args[1] < 1 || args[1] > 16 || len(args) < 2+7*int(args[1]) {
		return nil, false
	}
	n := int(args[1])
	repeat := -1
	if args[0] != 0xFF {
		if repeat = int(args[0]); repeat >= n {
			return nil, false
		}
	}
	var c Cadence
	for i := range n {
		s := args[2+7*i:]
		var b Burst
		for _, hz := range []uint16{binary.LittleEndian.Uint16(s), binary.LittleEndian.Uint16(s[2:])} {
			if hz >= 4000 {
				return nil, false
			}
			if hz > 0 {
				b.Hz = append(b.Hz, float64(hz))
			}
		}
		if l := int8(s[4]); len(b.Hz) > 0 {
			if l > 3 || l < -63 {
				return nil, false
			}
			b.level = float64(l)
			b.leveled = true
		}
		b.For = time.Duration(binary.LittleEndian.Uint16(s[5:])) * time.Millisecond
		c = append(c, b)
	}
	return newPlayer(c, repeat, 0), true
}

// absentPort is a channel without hardware.
type absentPort struct{ *channel }

func (absentPort) kind() Kind                       { return Absent }
func (absentPort) capabilities() uint32             { return 0 }
func (absentPort) rest()                            {}
func (absentPort) linkDown()                        {}
func (absentPort) failSafe()                        {}
func (absentPort) step()                            {}
func (absentPort) state() (hook, ring, rev, f byte) { return 0, 0, 0, 5 }
func (absentPort) command(byte, []byte) byte        { return stUnsupported }
func (absentPort) audio(toLine, fromLine []int16)   { clear(fromLine) }
