package analogtest

import (
	"errors"
	"fmt"
	"time"
)

// CallerID is what a caller-ID display shows.
type CallerID struct {
	Number string
	Name   string
	// Absent is why there is no number: 'P' private, 'O' out of area, 0 given.
	Absent     byte
	NameAbsent byte
	Date       string // MMDDHHMM as sent, empty if absent
	Dialled    string // number dialled, MDMF parameter 03
	Type       byte   // message type octet: 0x80 MDMF call set-up, 0x04 SDMF, 0x82 message waiting
	MWI        *bool  // message waiting indicator, MDMF parameter 0B
}

// Message types and parameters, ETSI EN 300 659-3 §5 and GR-30.
const (
	cidSDMF    = 0x04
	cidMDMF    = 0x80
	cidWaiting = 0x82
)

var errCallerID = errors.New("caller ID message damaged")

// ParseCallerID reads the octets of one message from its type to its checksum.
func ParseCallerID(msg []byte) (CallerID, error) {
	if len(msg) < 3 || int(msg[1])+3 != len(msg) {
		return CallerID{}, fmt.Errorf("%w: %d octets", errCallerID, len(msg))
	}
	var sum byte
	for _, b := range msg {
		sum += b
	}
	if sum != 0 {
		return CallerID{}, fmt.Errorf("%w: checksum", errCallerID)
	}
	id := CallerID{Type: msg[0]}
	body := msg[2 : len(msg)-1]
	switch msg[0] {
	case cidSDMF:
		if len(body) < 9 {
			return CallerID{}, fmt.Errorf("%w: SDMF of %d octets", errCallerID, len(body))
		}
		id.Date, id.Number = string(body[:8]), string(body[8:])
		if id.Number == "P" || id.Number == "O" {
			id.Absent, id.Number = id.Number[0], ""
		}
		return id, nil
	case cidMDMF, cidWaiting:
	default:
		return CallerID{}, fmt.Errorf("%w: type %#02x", errCallerID, msg[0])
	}
	for len(body) > 0 {
		if len(body) < 2 || int(body[1])+2 > len(body) {
			return CallerID{}, fmt.Errorf("%w: parameter over the end", errCallerID)
		}
		tag, v := body[0], body[2:2+int(body[1])]
		body = body[2+len(v):]
		first := byte(0)
		if len(v) > 0 {
			first = v[0]
		}
		switch tag {
		case 0x01:
			id.Date = string(v)
		case 0x02:
			id.Number = string(v)
		case 0x03:
			id.Dialled = string(v)
		case 0x04:
			id.Absent = first
		case 0x07:
			id.Name = string(v)
		case 0x08:
			id.NameAbsent = first
		case 0x0B:
			on := first != 0
			id.MWI = &on
		}
	}
	return id, nil
}

// MDMF writes id as a multiple data message with its checksum; at is the time shown.
func (id CallerID) MDMF(at time.Time) []byte {
	var body []byte
	put := func(tag byte, v string) {
		body = append(body, tag, byte(len(v)))
		body = append(body, v...)
	}
	put(0x01, at.Format("01021504"))
	if id.Absent != 0 {
		put(0x04, string(id.Absent))
	} else {
		put(0x02, clipped(id.Number, 20))
	}
	switch {
	case id.NameAbsent != 0:
		put(0x08, string(id.NameAbsent))
	case id.Name != "":
		put(0x07, clipped(id.Name, 50))
	}
	msg := append([]byte{cidMDMF, byte(len(body))}, body...)
	var sum byte
	for _, b := range msg {
		sum += b
	}
	return append(msg, -sum)
}

func clipped(s string, n int) string { return s[:min(n, len(s))] }
