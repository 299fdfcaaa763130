package analog

import (
	"testing"
	"time"

	"localloop/internal/analog/analogtest"
	"localloop/internal/analog/link"
	"localloop/internal/call"
)

// deaf loses every octet of one direction.
var deaf = analogtest.Impairment{Loss: 1}

// TestSLCL4StateAfterALinkThatWasDownOneWay: only the card's voice to the host is
// lost. The card hears HELLO without end with one session id, answers into the
// void, and gives its STATEs up; they must come again once the host hears it.
func TestSLCL4StateAfterALinkThatWasDownOneWay(t *testing.T) {
	withDouble(t, analogtest.CardOptions{}, func(t *testing.T, d *double) {
		d.card.Impair(true, deaf)
		time.Sleep(4 * time.Second) // less than it takes the host to reopen the port
		d.wantState("desk", "out of service")
		d.card.Impair(true, analogtest.Impairment{})
		time.Sleep(4 * time.Second)
		if st := d.bank.Status()[0]; st.Link.Opens != 1 {
			t.Fatalf("port opened %d times: the test is not about that", st.Link.Opens)
		}
		d.wantState("desk", "idle")
		d.wantState("trunk", "idle")
	})
}

// TestSLCL5EventsLostWhileDownAreRepaired: what happens to phone and line while
// nobody hears the card is in the STATEs that begin the next session.
func TestSLCL5EventsLostWhileDownAreRepaired(t *testing.T) {
	withDouble(t, analogtest.CardOptions{}, func(t *testing.T, d *double) {
		g := d.dial("desk", "10", call.Party{})
		want[call.Progress](d.rig, g, 3*time.Second)
		d.phone.Lift()
		want[call.Answer](d.rig, g, 2*time.Second)
		d.card.Impair(true, deaf)
		d.card.Impair(false, deaf)
		want[call.Release](d.rig, g, 2*time.Second)
		d.phone.HangUp()
		d.ex.Parallel(true)
		time.Sleep(3 * time.Second)
		d.card.Impair(true, analogtest.Impairment{})
		d.card.Impair(false, analogtest.Impairment{})
		time.Sleep(4 * time.Second)
		d.wantState("desk", "idle")
		d.wantState("trunk", "out of service") // the phone in parallel has the line
		d.ex.Parallel(false)
		time.Sleep(3 * time.Second)
		d.wantState("trunk", "idle")

		d.card.Impair(true, deaf)
		d.card.Impair(false, deaf)
		time.Sleep(2 * time.Second)
		d.phone.Lift()
		time.Sleep(time.Second)
		d.card.Impair(true, analogtest.Impairment{})
		d.card.Impair(false, analogtest.Impairment{})
		time.Sleep(4 * time.Second)
		d.wantState("desk", "parked")
		d.phone.HangUp()
		time.Sleep(2 * time.Second)
		d.wantState("desk", "idle")
	})
}

// TestSLCL5CardThatGaveUpSaysSo: the card misses the host for little more than a
// second, the host never misses the card. The call is dead on the card, so it
// must end in the box, and the card must be in service again.
func TestSLCL5CardThatGaveUpSaysSo(t *testing.T) {
	withDouble(t, analogtest.CardOptions{}, func(t *testing.T, d *double) {
		g := d.dial("desk", "10", call.Party{})
		want[call.Progress](d.rig, g, 3*time.Second)
		d.phone.Lift()
		want[call.Answer](d.rig, g, 2*time.Second)
		time.Sleep(time.Second)
		d.card.Impair(false, deaf)
		ok(t, d.card.WaitLink(limit(t, 3*time.Second), false))
		d.card.Impair(false, analogtest.Impairment{})
		if rel := want[call.Release](d.rig, g, 2*time.Second); !rel.Cause.Is(call.DestinationDown) {
			t.Fatalf("%+v", rel)
		}
		d.phone.HangUp()
		time.Sleep(3 * time.Second)
		d.wantState("desk", "idle")
		g = d.dial("desk", "10", call.Party{})
		want[call.Progress](d.rig, g, 3*time.Second)
	})
}

// TestSLCL2VoiceCarriesTheClockThatItAnswers: also the frames for lost ones.
func TestSLCL2VoiceCarriesTheClockThatItAnswers(t *testing.T) {
	var sent []link.Header
	s := &stream{seq: link.NewStream(0x100), voice: &Voice{}, send: func(h link.Header, _ []byte) { sent = append(sent, h) }}
	body := make([]byte, frameLen)
	for _, h := range []link.Header{{Seq: 0x100, Clock: 5}, {Seq: 0x103, Clock: 35}, {Seq: 0x103, Clock: 45}, {Seq: 0x102, Clock: 45}} {
		h.Type = link.TypePCM
		s.receive(h, body)
	}
	want := []uint16{5, 5, 35, 35, 35}
	if len(sent) != len(want) {
		t.Fatalf("%d frames sent, want %d: old and equal ones are not answered, SLCL §7", len(sent), len(want))
	}
	for i, h := range sent {
		if h.Clock != want[i] || h.Seq != uint16(0x100+i) {
			t.Errorf("frame %d: seq %#x clock %d, want clock %d", i, h.Seq, h.Clock, want[i])
		}
	}
}
