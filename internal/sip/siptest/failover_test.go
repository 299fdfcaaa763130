package siptest

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"localloop/internal/media/mediatest"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// bypassLab is a Teams user with full ICE on a LAN and behind a relay, and a box
// whose media is an ICE-lite client with an address on each side.
func bypassLab(t *testing.T) (*Teams, *box, *mediatest.Client) {
	prefix := func(s string) []netip.Prefix { return []netip.Prefix{netip.MustParsePrefix(s)} }
	addr := netip.MustParseAddr
	teams, b := lab(t, func(c *TeamsConfig) {
		c.Confirm = true
		c.Users[0].Media.ICE = true
		c.Users[0].Media.Check = 20 * time.Millisecond
		c.Users[0].Media.Paths = []mediatest.Path{
			{Name: "lan", Local: addr("127.0.0.17"), Reaches: prefix("127.0.0.18/32")},
			{Name: "wan", Local: addr("127.0.0.33"), Reaches: prefix("127.0.0.34/32"), Relay: true},
		}
	})
	media, err := mediatest.Start(mediatest.Config{Name: "box", Secure: true, ICE: true, Lite: true, DSCP: 46, Paths: []mediatest.Path{
		{Name: "lan", Local: addr("127.0.0.18")}, {Name: "wan", Local: addr("127.0.0.34")},
	}})
	must(t, err)
	t.Cleanup(media.Close)
	return teams, b, media
}

// TestCutLANPathMovesVoiceToCloud plays the whole ladder against the doubles: a
// call on the LAN, the confirming re-INVITE, the cut, the box's ICE restart with
// its public address, voice again by the cloud path.
func TestCutLANPathMovesVoiceToCloud(t *testing.T) {
	teams, b, media := bypassLab(t)
	own := b.ping(teams)
	ctx := liveness(t)
	call, err := teams.Place(ctx, teamsUser, boxName, "+493055501")
	must(t, err)
	inv := b.method("INVITE")
	answer, err := media.AnswerVia(inv.Body, "lan")
	must(t, err)
	b.send(inv.link, b.response(inv.Message, 180, nil))
	b.send(inv.link, b.response(inv.Message, 200, answer))
	must(t, call.WaitEstablished(ctx))
	// C-74: the confirming re-INVITE comes by itself when checks are complete.
	confirm := b.method("INVITE")
	d, err := mediatest.ParseDescription(confirm.Body)
	must(t, err)
	if len(d.RemoteCandidates) != 1 || d.RemoteCandidates[0].Addr() != netip.MustParseAddr("127.0.0.18") {
		t.Errorf("remote-candidates %v", d.RemoteCandidates)
	}
	same, err := media.Answer(confirm.Body)
	must(t, err)
	b.send(confirm.link, b.response(confirm.Message, 200, same))
	b.method("ACK")

	client := call.Media()
	media.Say(mediatest.Tone(500, -10))
	client.Say(mediatest.Tone(800, -10))
	for _, hear := range []struct {
		who *mediatest.Client
		hz  float64
	}{{media, 800}, {client, 500}} {
		_, err := hear.who.WaitTone(ctx, hear.hz, time.Time{})
		must(t, err)
	}
	if n := client.Stats().Paths["wan"]; n.Sent[mediatest.RTP]+n.Received[mediatest.RTP] != 0 {
		t.Errorf("RTP on the WAN during a LAN call: %+v", n)
	}

	cut := time.Now()
	client.Cut("lan")
	offer, err := media.Reoffer(mediatest.Reoffer{Restart: true, Paths: []string{"wan"}})
	must(t, err)
	re := b.newRequest("INVITE", addrSpec(inv.Get("Contact")), call.ID(), offer)
	set(set(re, "From", inv.Get("To")+";tag=boxtag"), "To", inv.Get("From"))
	b.send(own, re)
	ok := b.status(200, "INVITE")
	must(t, media.Accept(ok.Body))
	ack := b.newRequest("ACK", re.URI, call.ID(), nil)
	set(set(set(ack, "From", re.Get("From")), "To", re.Get("To")), "CSeq", strings.Replace(re.Get("CSeq"), "INVITE", "ACK", 1))
	b.send(own, ack)
	back, err := client.WaitTone(ctx, 500, cut)
	must(t, err)
	_, err = media.WaitTone(ctx, 800, cut)
	must(t, err)
	if _, _, path := client.Pair(); path != "wan" {
		t.Errorf("voice goes by %q after the cut", path)
	}
	if n := client.Stats().Paths["lan"]; n.STUNRequests != 0 {
		t.Errorf("a lite agent sent %d checks", n.STUNRequests)
	}
	t.Logf("audio back %v after the cut", back.Sub(cut).Round(time.Millisecond))
	noViolations(t, teams)
}

func TestRefusedRestartIsSeenByTheBox(t *testing.T) {
	teams, b, media := bypassLab(t)
	own := b.ping(teams)
	ctx := liveness(t)
	call, err := teams.Place(ctx, teamsUser, boxName, "+493055501")
	must(t, err)
	call.RefuseReinvite(488)
	inv := b.method("INVITE")
	answer, err := media.AnswerVia(inv.Body, "lan")
	must(t, err)
	b.send(inv.link, b.response(inv.Message, 200, answer))
	must(t, call.WaitEstablished(ctx))
	offer, err := media.Reoffer(mediatest.Reoffer{Restart: true, Paths: []string{"wan"}})
	must(t, err)
	re := b.newRequest("INVITE", addrSpec(inv.Get("Contact")), call.ID(), offer)
	set(set(re, "From", inv.Get("To")+";tag=boxtag"), "To", inv.Get("From"))
	// The confirming re-INVITE may be under way: then it is 491, RFC 3261 §14.2.
	b.send(own, re)
	b.expect("488 or 491", func(m *Message) bool {
		_, method := m.CSeq()
		return method == "INVITE" && (m.Status == 488 || m.Status == 491)
	})
	if !call.Established() {
		t.Error("a refused re-INVITE ended the call")
	}
}
