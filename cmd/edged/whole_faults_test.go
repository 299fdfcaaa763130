package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"localloop/internal/config"
	"localloop/internal/sip/siptest"
)

// between is a call between Teams and the carrier that other faults must not touch.
func (r *wholeRig) between() (teams, carrier *siptest.Call) {
	r.t.Helper()
	teams = r.place(wholeEmil, wholeCarrier)
	carrier, err := r.carrier.Incoming(r.within(wholePatience))
	r.must(err)
	r.must(carrier.WaitEstablished(r.within(wholePatience)))
	says(teams, wholeTeamsHz)
	says(carrier, wholePeerHz)
	r.hears(teams, wholePeerHz)
	r.hears(carrier, wholeTeamsHz)
	return teams, carrier
}

func TestWholeLineCardUnplugged(t *testing.T) {
	t.Parallel()
	r := newWhole(t)
	teams, carrier := r.between()
	p := r.lifts(0)
	c := r.place(wholeAnna, wholeReception)
	says(c, wholeTeamsHz)
	r.phoneHears(p, wholeTeamsHz)
	r.hears(c, wholePhoneHz)

	pulled := time.Now()
	r.must(r.card.Unplug(r.within(wholePatience)))
	m := r.over(c)
	if took := time.Since(pulled); took > 2*time.Second {
		t.Errorf("released after %v", took)
	}
	if m.Method != "BYE" || !strings.Contains(m.Get("Reason"), "cause=27") {
		t.Errorf("ended by %s %q, want a BYE with cause 27", m.Method, m.Get("Reason"))
	}
	r.until(wholePatience, "the status shows the line down", func() bool {
		l := r.line("reception")
		return !l.Link && l.Fault != "" && l.State == "out of service"
	})
	if code, _ := r.get("/healthz"); code != 200 {
		t.Errorf("healthz %d: the daemon itself is well", code)
	}
	refused, err := r.teams.Place(r.within(wholePatience), wholeAnna, wholeFQDN, wholeReception)
	r.must(err)
	if m := r.over(refused); m.Status != 503 {
		t.Errorf("a line without a card: %d", m.Status)
	}
	r.hears(teams, wholePeerHz)
	r.hears(carrier, wholeTeamsHz)
	for name, c := range map[string]*siptest.Call{"Teams": teams, "carrier": carrier} {
		hz := map[string]float64{"Teams": wholePeerHz, "carrier": wholeTeamsHz}[name]
		if g := c.Media().ToneGap(hz, pulled); g.Length() > 500*time.Millisecond {
			t.Errorf("the other call: %s heard nothing for %v", name, g.Length())
		}
	}

	p.HangUp()
	_, err = r.card.Replug(r.within(wholePatience))
	r.must(err)
	r.until(wholePatience, "the line is back", func() bool { l := r.line("reception"); return l.Link && l.Fault == "" && l.State == "idle" })
	p = r.lifts(0)
	c = r.place(wholeAnna, wholeReception)
	says(c, wholeTeamsHz)
	r.phoneHears(p, wholeTeamsHz)
	r.hears(c, wholePhoneHz)
	r.bye(c)
	r.hangsUp(p)
	r.bye(teams)
	r.over(carrier)
	r.idle()
}

// C-15, C-16, C-77: connections come and go, the dialog stays.
func TestC15WholeConnectionsClosedDuringACall(t *testing.T) {
	t.Parallel()
	r := newWhole(t)
	p := r.lifts(0)
	c := r.place(wholeAnna, wholeReception)
	says(c, wholeTeamsHz)
	r.phoneHears(p, wholeTeamsHz)
	closed := time.Now()
	r.teams.CloseConnections()
	r.phoneHears(p, wholeTeamsHz)
	r.hears(c, wholePhoneHz)
	if g := c.Media().ToneGap(wholePhoneHz, closed); g.Length() > 500*time.Millisecond {
		t.Errorf("Teams heard nothing for %v", g.Length())
	}
	c.Roam(netip.Addr{})
	r.bye(c)
	r.hangsUp(p)
	r.idle()
	// The other direction: the box says goodbye on a connection that it opens anew.
	p = r.dials(0, "03055520")
	c = r.incoming()
	r.teams.CloseConnections()
	r.hangsUp(p)
	if m := r.over(c); m.Method != "BYE" {
		t.Errorf("ended by %s %d", m.Method, m.Status)
	}
	r.idle()
}

// C-3, C-5, C-18: who may speak SIP at all.
func TestC18WholeStrangers(t *testing.T) {
	t.Parallel()
	r := newWhole(t)
	k, err := wholeKeys()
	r.must(err)
	dropped := func() map[string]uint64 { return r.trunk("teams").Dropped }
	connect := func(from netip.Addr, cert *siptest.Certificate) error {
		d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0))}
		conn, err := d.DialContext(r.within(wholePatience), "tcp", netip.AddrPortFrom(r.wan, 5061).String())
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close() }()
		cfg := &tls.Config{RootCAs: k.root.Pool(), ServerName: wholeFQDN, GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			if cert == nil {
				return &tls.Certificate{}, nil
			}
			return &cert.TLS, nil
		}}
		c := tls.Client(conn, cfg)
		_ = c.SetDeadline(time.Now().Add(wholePatience))
		if err := c.Handshake(); err != nil {
			return err
		}
		via := "Via: SIP/2.0/TLS " + from.String() + ":5061;branch=z9hG4bKstranger\r\n"
		_, err = c.Write([]byte("OPTIONS sip:" + wholeFQDN + " SIP/2.0\r\n" + via + "From: <sip:sip.pstnhub.microsoft.com>;tag=a\r\nTo: <sip:" + wholeFQDN +
			">\r\nCall-ID: stranger\r\nCSeq: 1 OPTIONS\r\nMax-Forwards: 70\r\nContact: <sip:sip.pstnhub.microsoft.com:5061;transport=tls>\r\nContent-Length: 0\r\n\r\n"))
		if err != nil {
			return err
		}
		b := make([]byte, 1024)
		n, err := c.Read(b)
		if n > 0 && !bytes.HasPrefix(b[:n], []byte("SIP/2.0 200")) {
			t.Errorf("answer %q", b[:n])
		}
		return err
	}
	if err := connect(r.cloud, k.proxies); err != nil {
		t.Fatalf("Microsoft itself: %v", err)
	}
	for name, cert := range map[string]*siptest.Certificate{"no certificate": nil, "wrong name": k.wrongName, "wrong authority": k.wrongCA} {
		before := dropped()["handshake"]
		if err := connect(r.cloud, cert); err == nil {
			t.Errorf("%s: SIP was answered", name)
		}
		r.until(wholePatience, name+" is counted", func() bool { return dropped()["handshake"] == before+1 })
	}
	before := dropped()["untrusted"]
	if err := connect(r.stranger, k.proxies); err == nil {
		t.Error("a source out of allow: SIP was answered")
	}
	r.until(wholePatience, "the source out of allow is counted", func() bool { return dropped()["untrusted"] == before+1 })
	// On the UDP trunk a stranger gets silence.
	before = r.trunk("carrier").Dropped["untrusted"]
	u, err := net.DialUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(r.stranger, 0)), net.UDPAddrFromAddrPort(netip.AddrPortFrom(r.wan, 5070)))
	r.must(err)
	defer func() { _ = u.Close() }()
	_, err = u.Write([]byte("OPTIONS sip:x SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1;branch=z9hG4bKx\r\nFrom: <sip:a>;tag=a\r\nTo: <sip:b>\r\nCall-ID: x\r\nCSeq: 1 OPTIONS\r\n\r\n"))
	r.must(err)
	r.until(wholePatience, "the datagram is counted", func() bool { return r.trunk("carrier").Dropped["untrusted"] == before+1 })
	_ = u.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if n, err := u.Read(make([]byte, 100)); err == nil {
		t.Errorf("%d octets of answer", n)
	}
}

func TestWholeDrain(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		hurry bool
	}{{"the call ends by itself", false}, {"a second signal ends it", true}} {
		t.Run(c.name, func(t *testing.T) {
			r := newWhole(t, wholeDrain(time.Minute))
			p := r.lifts(0)
			call := r.place(wholeAnna, wholeReception)
			says(call, wholeTeamsHz)
			r.phoneHears(p, wholeTeamsHz)
			r.stop()
			r.until(wholePatience, "the log says that calls are waited for", func() bool { return strings.Contains(r.log.String(), "waiting for calls to end") })
			refused, err := r.teams.Place(r.within(wholePatience), wholeEmil, wholeFQDN, wholeWorkshop)
			r.must(err)
			if m := r.over(refused); m.Status != 503 {
				t.Errorf("a new call during the drain: %d", m.Status)
			}
			r.phoneHears(p, wholeTeamsHz)
			r.hears(call, wholePhoneHz)
			select {
			case err := <-r.ended:
				t.Fatalf("the daemon did not wait for the call: %v", err)
			default:
			}
			if c.hurry {
				r.endDrain()
				if m := r.over(call); m.Method != "BYE" || !strings.Contains(m.Get("Reason"), "cause=41") {
					t.Errorf("ended by %s %d %q", m.Method, m.Status, m.Get("Reason"))
				}
			} else {
				r.bye(call)
			}
			p.HangUp()
			r.awaitStop()
			b, err := os.ReadFile(r.file("cdr.jsonl"))
			r.must(err)
			if n := strings.Count(string(b), "\n"); n != 2 {
				t.Errorf("%d call records were kept, want 2: %s", n, b)
			}
		})
	}
}

func TestWholeReload(t *testing.T) {
	t.Parallel()
	r := newWhole(t)
	p := r.lifts(0)
	c := r.place(wholeAnna, wholeReception)
	says(c, wholeTeamsHz)
	r.phoneHears(p, wholeTeamsHz)
	r.hears(c, wholePhoneHz)
	began := time.Now()
	good := r.configuration()

	refused := func(name, text, want string) {
		r.sub(name, func(t *testing.T) {
			r.write(text)
			r.reload <- struct{}{}
			r.until(wholePatience, "the refusal is shown", func() bool { return strings.Contains(r.status().Config.Refused, want) })
			if _, metrics := r.get("/metrics"); !bytes.Contains(metrics, []byte("edged_config_refused 1")) {
				t.Error("edged_config_refused is not 1")
			}
			if len(r.status().Calls) != 1 || !c.Established() {
				t.Error("the running call was touched")
			}
			var out bytes.Buffer
			r.write(good) // status reads the file for the address only
			if code := execute([]string{"-c", r.file("edged.toml"), "status"}, env{&out, &out}); code != 0 || !strings.Contains(out.String(), "REFUSED") {
				t.Errorf("edged status: %d %s", code, out.String())
			}
		})
	}
	refused("unknown key", good+"\n[nonsense]\nx = 1\n", "nonsense")
	refused("no such certificate file", strings.ReplaceAll(good, "box.pem", "gone.pem"), "no such file")
	refused("a change that needs a restart", good+"\n[media]\njitter_max = \"150ms\"\n", "restart")
	refused("not TOML at all", "\x00\xff[[[", "edged.toml")

	r.sub("a line and a route are added", func(t *testing.T) {
		r.extra = "\n[[line]]\nname = \"attic\"\ncard = \"card\"\nchannel = 4\nkind = \"fxs\"\nnumber = \"" + wholeAttic + "\"\n" +
			"\n[[route]]\nname = \"attic\"\nmatch = \"" + wholeAttic + "\"\nto = [\"line:attic\"]\n"
		r.write(r.configuration())
		r.reload <- struct{}{}
		r.until(wholePatience, "the new line is idle", func() bool { return r.line("attic").State == "idle" })
		r.until(wholePatience, "the reload is accepted", func() bool { return r.status().Config.Refused == "" })
		q := r.lifts(4)
		second := r.place(wholeEmil, wholeAttic)
		says(second, wholeTeamsHz)
		r.hears(second, wholePhoneHz)
		r.phoneHears(q, wholeTeamsHz)
		r.bye(second)
		r.hangsUp(q)
	})
	r.sub("a new certificate is shown to peers", func(t *testing.T) {
		k, err := wholeKeys()
		r.must(err)
		old := r.trunk("teams").Certificate
		r.must(os.WriteFile(r.file("box.pem"), k.newBox.CertPEM, 0o600))
		r.must(os.WriteFile(r.file("box.key"), k.newBox.KeyPEM, 0o600))
		connections := len(r.teams.Connections())
		r.reload <- struct{}{}
		r.until(wholePatience, "the certificate's end moved", func() bool { return r.trunk("teams").Certificate.After(old) })
		r.until(wholePatience, "connections are renewed (C-9)", func() bool { return len(r.teams.Connections()) >= connections+3 })
		conn, err := tls.DialWithDialer(&net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(r.cloud, 0)), Timeout: wholePatience}, "tcp",
			netip.AddrPortFrom(r.wan, 5061).String(), &tls.Config{RootCAs: k.root.Pool(), ServerName: wholeFQDN, Certificates: []tls.Certificate{k.proxies.TLS}})
		r.must(err)
		if shown := conn.ConnectionState().PeerCertificates[0]; !bytes.Equal(shown.Raw, k.newBox.TLS.Certificate[0]) {
			t.Errorf("the old certificate is shown, until %v", shown.NotAfter)
		}
		_ = conn.Close()
	})
	r.sub("a bad certificate leaves the good one", func(t *testing.T) {
		r.must(os.WriteFile(r.file("box.pem"), []byte("no PEM"), 0o600))
		r.reload <- struct{}{}
		r.until(wholePatience, "the refusal is shown", func() bool { return strings.Contains(r.status().Config.Refused, "box.pem") })
		if !r.trunk("teams").Up {
			t.Error("the trunk is down")
		}
	})
	if g := c.Media().ToneGap(wholePhoneHz, began); g.Length() > 500*time.Millisecond {
		t.Errorf("the running call: nothing for %v", g.Length())
	}
	r.hears(c, wholePhoneHz)
	r.bye(c)
	r.hangsUp(p)
	r.idle()
}

func TestWholeSecondDaemonOnTheSameBox(t *testing.T) {
	t.Parallel()
	r := newWhole(t)
	cfg, err := config.Load(r.file("edged.toml"))
	r.must(err)
	if _, err := build(cfg, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "is another edged running?") || !strings.Contains(err.Error(), r.http.String()) {
		t.Errorf("build: %v", err)
	}
	var out bytes.Buffer
	if code := execute([]string{"-c", r.file("edged.toml"), "run"}, env{&out, &out}); code != 1 || !strings.Contains(out.String(), "is another edged running?") {
		t.Errorf("edged run: %d %s", code, out.String())
	}
	// The SIP port alone taken: run says which trunk and which address.
	other := strings.Replace(r.configuration(), r.http.String(), netip.AddrPortFrom(r.http.Addr(), 8081).String(), 1)
	second, err := config.Parse("other.toml", []byte(other))
	r.must(err)
	d, err := build(second, slog.New(slog.DiscardHandler))
	r.must(err)
	ctx, cancel := context.WithTimeout(r.ctx, wholePatience)
	defer cancel()
	if err := d.run(ctx, nil, nil); err == nil || !strings.Contains(err.Error(), "trunk teams") || !strings.Contains(err.Error(), "address already in use") {
		t.Errorf("run: %v", err)
	}
}

// What people and machines see while a call is up.
func TestWholeStatusDuringACall(t *testing.T) {
	t.Parallel()
	r := newWhole(t)
	p := r.lifts(0)
	c := r.place(wholeAnna, wholeReception)
	says(c, wholeTeamsHz)
	r.phoneHears(p, wholeTeamsHz)
	r.hears(c, wholePhoneHz)
	s := r.status()
	if len(s.Calls) != 1 || s.Calls[0].State != "up" || s.Calls[0].Calling != wholeAnna || s.Calls[0].Called != wholeReception || s.Calls[0].Source != "teams" {
		t.Errorf("calls %+v", s.Calls)
	}
	if l := r.line("reception"); l.State != "in call" || l.Hook != "off-hook" || !l.Link || l.Fault != "" || l.Number != wholeReception {
		t.Errorf("line %+v", l)
	}
	if len(s.Cards) != 1 || !s.Cards[0].Up || s.Cards[0].Sessions != 1 {
		t.Errorf("cards %+v", s.Cards)
	}
	for _, tr := range s.Trunks {
		if !tr.Up || tr.Refusing != "" || len(tr.Peers) == 0 || !tr.Peers[0].Up || tr.Peers[0].Last.IsZero() {
			t.Errorf("trunk %+v", tr)
		}
	}
	for _, m := range s.Media.Realms {
		if m.Name == "lan" && (m.Sent == 0 || m.Received == 0) || m.Name == "wan" && m.Sent != 0 {
			t.Errorf("realm %+v", m)
		}
	}
	code, body := r.get("/healthz")
	var checks []struct {
		Name string
		OK   bool
	}
	if err := json.Unmarshal(body, &checks); err != nil || code != 200 || len(checks) < 2 || !checks[0].OK || !checks[1].OK {
		t.Errorf("healthz %d %v %s", code, err, body)
	}
	_, metrics := r.get("/metrics")
	for _, want := range []string{`edged_trunk_up{kind="teams",trunk="teams"} 1`, `edged_line_up{kind="fxs",line="reception"} 1`, `edged_calls{state="up"} 1`,
		"edged_media_legs 2", "edged_config_refused 0", `edged_trunk_dropped_total{reason="malformed",trunk="teams"} 0`} {
		if !bytes.Contains(metrics, []byte(want)) {
			t.Errorf("metrics lack %s", want)
		}
	}
	if code, page := r.get("/"); code != 200 || !bytes.Contains(page, []byte(wholeAnna[1:])) {
		t.Errorf("page %d", code)
	}
	var out bytes.Buffer
	if code := execute([]string{"-c", r.file("edged.toml"), "status"}, env{&out, &out}); code != 0 {
		t.Errorf("edged status: %d", code)
	}
	for _, want := range []string{"trunk teams", "line reception", "in call", wholeAnna + " to " + wholeReception, "up"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("edged status lacks %q:\n%s", want, out.String())
		}
	}
	out.Reset()
	if code := execute([]string{"-c", r.file("edged.toml"), "status", "--json"}, env{&out, &out}); code != 0 || !json.Valid(out.Bytes()) {
		t.Errorf("edged status --json: %d %s", code, out.String())
	}
	for number, want := range map[string]string{"03055510": "line:reception", "08912345": "sip:carrier", "112": "line:exchange"} {
		out.Reset()
		if code := execute([]string{"-c", r.file("edged.toml"), "route", number, "--from", "workshop"}, env{&out, &out}); code != 0 || !strings.Contains(out.String(), want) {
			t.Errorf("edged route %s: %d, lacks %s:\n%s", number, code, want, out.String())
		}
	}
	r.must(c.Media().WaitPackets(r.within(wholePatience), 150)) // enough to judge
	r.bye(c)
	r.hangsUp(p)
	r.idle()
	rec := r.lastRecord()
	if !strings.HasPrefix(rec.Cause, "200/16") || rec.Seconds <= 0 || rec.MOS == nil || *rec.MOS < 3.5 {
		t.Errorf("record %+v", rec)
	}
	// Each key that crossed was seen by the doubles: the search is not in vain.
	r.searchForSecrets()
	if len(r.keysSeen) < 10 {
		t.Errorf("only %d secrets to search for", len(r.keysSeen))
	}
}
