package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"text/template"
	"time"

	"go.uber.org/goleak"

	"localloop/internal/analog/analogtest"
	"localloop/internal/config"
	"localloop/internal/media/mediatest"
	"localloop/internal/sip/siptest"
	"localloop/internal/web"
)

// TestMain looks for goroutines that are left when all daemons have stopped.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The whole daemon on loopback, with a double on each side: Teams, three SIP
// peers, and a line card with three phones and two exchanges.

// Who speaks at which frequency: no DTMF, no progress tone, no harmonic of each
// other.
const (
	wholePhoneHz    = 620
	wholeTeamsHz    = 1010
	wholePeerHz     = 560
	wholeExchangeHz = 1140
	wholeLevel      = -14 // dBm0, speech
)

// Numbers. The last three lead to the SIP trunks.
const (
	wholeFQDN      = "edge.branch.example"
	wholeReception = "+493055510"
	wholeWorkshop  = "+493055511"
	wholeAttic     = "+493055514" // its line is added by a reload
	wholeAnna      = "+493055520" // Teams user in the building
	wholeEmil      = "+493055530" // Teams user elsewhere
	wholeManual    = "+493055540" // Teams user in the building, moved by the test
	wholeBusy      = "+493055550" // Teams user who is busy
	wholeCarrier   = "+4989100"   // UDP, RTP
	wholePBX       = "+4940100"   // TCP, RTP
	wholeSecure    = "+4969100"   // TLS, SRTP
	wholeOutside   = "+4930777000"
)

// wholePatience bounds each wait for something that must happen.
const wholePatience = 30 * time.Second

// wholeNext is where the search for a subnet begins.
var wholeNext atomic.Int32

// wholeSubnet finds loopback addresses 127.2.N.0/24 that no other rig uses, of
// this process or another, and holds a listener on them as a sign.
func wholeSubnet(t *testing.T) byte {
	t.Helper()
	for range 250 {
		n := byte(1 + (int(wholeNext.Add(1))+os.Getpid()*7)%250)
		l, err := net.Listen("tcp", netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 2, n, 1}), 5059).String())
		if err == nil {
			t.Cleanup(func() { _ = l.Close() })
			return n
		}
	}
	t.Fatal("no loopback addresses free in 127.2.0.0/16")
	return 0
}

// wholeKeys is the PKI of all rigs: RSA keys are slow to make.
var wholeKeys = sync.OnceValues(func() (k struct {
	root, foreign *siptest.CA
	proxies, peer *siptest.Certificate
	box, newBox   *siptest.Certificate
	wrongName     *siptest.Certificate
	wrongCA       *siptest.Certificate
}, err error) {
	if k.root, err = siptest.NewCA("whole root"); err != nil {
		return k, err
	}
	if k.foreign, err = siptest.NewCA("somebody else's root"); err != nil {
		return k, err
	}
	issuing, err := k.root.Intermediate("whole issuing")
	if err != nil {
		return k, err
	}
	issue := func(ca *siptest.CA, l siptest.Leaf) *siptest.Certificate {
		c, e := ca.Issue(l)
		err = errors.Join(err, e)
		return c
	}
	k.proxies = issue(issuing, siptest.Leaf{Names: siptest.ProxyNames[:], Usage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	k.peer = issue(issuing, siptest.Leaf{Names: []string{"sbc.carrier.example"}})
	k.box = issue(issuing, siptest.Leaf{Names: []string{wholeFQDN}})
	k.newBox = issue(issuing, siptest.Leaf{Names: []string{wholeFQDN}, To: time.Now().Add(500 * 24 * time.Hour)})
	k.wrongName = issue(issuing, siptest.Leaf{Names: []string{"sip.evil.example"}})
	k.wrongCA = issue(k.foreign, siptest.Leaf{Names: siptest.ProxyNames[:]})
	return k, err
})

// wholeLog is a log that tests search.
type wholeLog struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *wholeLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *wholeLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// wholeRig is the daemon and everything around it.
type wholeRig struct {
	t                       *testing.T
	ctx                     context.Context // of the test: bounds its waits
	dir                     string
	lan, wan, client, cloud netip.Addr
	carrierAt, pbxAt, sbcAt netip.Addr
	stranger                netip.Addr
	http                    netip.AddrPort
	teams                   *siptest.Teams
	carrier, pbx, secure    *siptest.Peer
	card                    *analogtest.Card
	log                     *wholeLog
	d                       *daemon
	cfg                     *config.Config
	reload, hurry           chan struct{}
	stop                    context.CancelFunc
	ended                   chan error // what run returned
	stopped, hurried        bool
	web                     *http.Client
	allowed                 []string // rules that the test breaks on purpose
	keysSeen                map[string]string
	extra                   string // further configuration
	refuseFor, deadAfter    time.Duration
	drain                   time.Duration
	stopDoubles             func()
}

type wholeOption func(*wholeRig)

func wholeRefuseFor(d time.Duration) wholeOption { return func(r *wholeRig) { r.refuseFor = d } }
func wholeDrain(d time.Duration) wholeOption     { return func(r *wholeRig) { r.drain = d } }
func wholeDeadAfter(d time.Duration) wholeOption { return func(r *wholeRig) { r.deadAfter = d } }

// newWhole starts the doubles, then the daemon, and waits until each has found
// the others. Cleanup stops all and looks for broken rules and for secrets in what
// was written.
func newWhole(t *testing.T, options ...wholeOption) *wholeRig {
	t.Helper()
	n := wholeSubnet(t)
	at := func(host byte) netip.Addr { return netip.AddrFrom4([4]byte{127, 2, n, host}) }
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	r := &wholeRig{
		t: t, ctx: ctx, dir: t.TempDir(), lan: at(10), wan: at(20), client: at(11), cloud: at(30),
		carrierAt: at(41), pbxAt: at(42), sbcAt: at(43), stranger: at(66), http: netip.AddrPortFrom(at(9), 8080),
		log: &wholeLog{}, reload: make(chan struct{}, 1), hurry: make(chan struct{}), ended: make(chan error, 1),
		web: &http.Client{Transport: &http.Transport{}, Timeout: 10 * time.Second}, keysSeen: map[string]string{},
		refuseFor: time.Minute, deadAfter: time.Second, drain: 5 * time.Second,
		// Allow without REFER: transfers come with step 2, and a peer that sees it
		// would transfer by it (trunk.methods).
		allowed: []string{"C-32"},
	}
	for _, o := range options {
		o(r)
	}
	t.Cleanup(func() {
		cancel()
		r.web.CloseIdleConnections()
	})
	r.writeKeys()
	r.startDoubles()
	t.Cleanup(r.shut)
	r.write(r.configuration())
	r.start()
	r.must(r.card.WaitLink(r.within(wholePatience), true))
	r.must(r.teams.WaitActive(r.within(wholePatience), wholeFQDN))
	for name := range map[string]bool{"teams": true, "carrier": true, "pbx": true, "secure": true} {
		r.until(wholePatience, "trunk "+name+" up", func() bool { return r.trunk(name).Up })
	}
	for _, name := range []string{"reception", "workshop", "exchange", "exchange2"} {
		r.until(wholePatience, "line "+name+" idle", func() bool { return r.line(name).State == "idle" })
	}
	return r
}

// sub runs a part of a test on the same rig.
func (r *wholeRig) sub(name string, f func(t *testing.T)) {
	outer := r.t
	defer func() { r.t = outer }()
	outer.Run(name, func(t *testing.T) {
		r.t = t
		f(t)
	})
}

// within bounds one wait.
func (r *wholeRig) within(d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(r.ctx, d)
	context.AfterFunc(r.ctx, cancel)
	r.t.Cleanup(cancel)
	return ctx
}

func (r *wholeRig) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

// until asks again and again, for what has no event: the daemon's own state.
func (r *wholeRig) until(d time.Duration, what string, ok func() bool) {
	r.t.Helper()
	ctx := r.within(d)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-ctx.Done():
			r.t.Fatalf("not within %v: %s", d, what)
		case <-tick.C:
		}
	}
}

func (r *wholeRig) file(name string) string { return filepath.Join(r.dir, name) }

func (r *wholeRig) writeKeys() {
	k, err := wholeKeys()
	r.must(err)
	for name, b := range map[string][]byte{"root.pem": k.root.PEM(), "box.pem": k.box.CertPEM, "box.key": k.box.KeyPEM} {
		r.must(os.WriteFile(r.file(name), b, 0o600))
	}
}

func (r *wholeRig) startDoubles() {
	k, err := wholeKeys()
	r.must(err)
	var proxies []siptest.Proxy
	for i, name := range siptest.ProxyNames {
		proxies = append(proxies, siptest.Proxy{Name: name, Listen: netip.AddrPortFrom(r.cloud, 5061+uint16(i))})
	}
	host := func(a netip.Addr) []netip.Prefix { return []netip.Prefix{netip.PrefixFrom(a, 32)} }
	media := func(name string, paths ...mediatest.Path) mediatest.Config {
		return mediatest.Config{Name: name, Paths: paths, ICE: true, Secure: true, Teams: true, DSCP: 46, RTCPEvery: time.Second,
			Extra: []mediatest.Codec{{PayloadType: 104, Name: "SILK/16000"}, {PayloadType: 9, Name: "G722/8000"}}}
	}
	inside := func(name string) mediatest.Config {
		return media(name, mediatest.Path{Name: "lan", Local: r.client, Reaches: host(r.lan)},
			mediatest.Path{Name: "wan", Local: r.cloud, Reaches: host(r.wan), Relay: true})
	}
	quick := siptest.Answering{RingFor: 100 * time.Millisecond}
	user := func(number, name, where string, m mediatest.Config, a siptest.Answering) siptest.User {
		u := siptest.User{Number: number, Name: name, Location: where, Media: m, Answering: a}
		if where == "internal" {
			u.Site = "branch-1"
		}
		return u
	}
	r.teams, err = siptest.StartTeams(siptest.TeamsConfig{
		Proxies: proxies, Sources: []netip.Addr{r.cloud}, Certificate: k.proxies, Roots: k.root.Pool(),
		Trunks: []siptest.Trunk{{FQDN: wholeFQDN, Address: netip.AddrPortFrom(r.wan, 5061), LMO: true}},
		Users: []siptest.User{
			user(wholeAnna, "Anna", "internal", inside("anna"), quick),
			user(wholeEmil, "Emil", "external", media("emil", mediatest.Path{Name: "wan", Local: r.cloud, Reaches: host(r.wan)}), quick),
			user(wholeManual, "Mara", "internal", inside("mara"), siptest.Answering{Manual: true}),
			user(wholeBusy, "Bert", "internal", inside("bert"), siptest.Answering{Refuse: 486}),
		},
		Confirm: true, OptionsEvery: 10 * time.Second,
	})
	r.must(err)
	peer := func(name, transport string, listen, remote netip.Addr, secure bool) *siptest.Peer {
		cfg := siptest.PeerConfig{Name: name, Transport: transport, Listen: netip.AddrPortFrom(listen, 5070), Remote: netip.AddrPortFrom(remote, 5070),
			Media:     mediatest.Config{Name: name, Paths: []mediatest.Path{{Name: "wan", Local: listen}}, Secure: secure, NoMux: !secure, RTCPEvery: time.Second},
			Answering: quick}
		if transport == "tls" {
			cfg.Certificate, cfg.Roots, cfg.RemoteName = k.peer, k.root.Pool(), wholeFQDN
		}
		p, err := siptest.StartPeer(cfg)
		r.must(err)
		return p
	}
	r.carrier = peer("carrier", "udp", r.carrierAt, r.wan, false)
	r.pbx = peer("pbx", "tcp", r.pbxAt, r.lan, false)
	r.secure = peer("secure", "tls", r.sbcAt, r.client.Next(), true)
	phone := func(name string) analogtest.Channel {
		return analogtest.Channel{Kind: analogtest.FXS, Phone: analogtest.PhoneOptions{Name: name, Country: "de", Watch: []float64{wholeTeamsHz, wholePeerHz, wholeExchangeHz}}}
	}
	exchange := func(name string) analogtest.Channel {
		return analogtest.Channel{Kind: analogtest.FXO, Exchange: analogtest.ExchangeOptions{Name: name, Country: "de", Watch: []float64{wholeTeamsHz, wholePhoneHz},
			Reversal: true, Route: func(number string) analogtest.Destination {
				return analogtest.Destination{Ringing: 1500 * time.Millisecond, SpeakHz: wholeExchangeHz, SpeakDBm0: wholeLevel, Busy: strings.HasSuffix(number, "9")}
			}}}
	}
	r.card, err = analogtest.New(analogtest.CardOptions{Link: r.file("tty"), Channels: []analogtest.Channel{
		phone("reception"), phone("workshop"), exchange("exchange"), exchange("exchange2"), phone("attic"),
	}})
	r.must(err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.card.Run(ctx) }()
	r.stopDoubles = func() {
		cancel()
		if err := <-done; err != nil {
			r.t.Errorf("line card: %v", err)
		}
		r.teams.Close()
		r.carrier.Close()
		r.pbx.Close()
		r.secure.Close()
	}
}

var wholeTemplate = template.Must(template.New("whole").Parse(`[box]
name = "whole"
country = "de"
area_code = "30"
http = "{{.HTTP}}"
state = {{printf "%q" .Dir}}
drain_timeout = "{{.Drain}}"

[[realm]]
name = "lan"
address = "{{.LAN}}"
ports = "20000-20199"

[[realm]]
name = "wan"
address = "{{.WAN}}"
ports = "20000-20199"
cloud = true

[[teams]]
name = "teams"
fqdn = "{{.FQDN}}"
listen = "{{.WAN}}:5061"
source = "{{.WAN}}"
tls = { certificate = "{{.Dir}}/box.pem", key = "{{.Dir}}/box.key", roots = "{{.Dir}}/root.pem" }
proxies = ["sip.pstnhub.microsoft.com:5061", "sip2.pstnhub.microsoft.com:5062", "sip3.pstnhub.microsoft.com:5063"]
allow = ["{{.Cloud}}/32"]
bypass = true
internal_realm = "lan"
external_realm = "wan"

[teams.failover]
refuse_for = "{{.RefuseFor}}"
dead_after = "{{.DeadAfter}}"

[teams.resolve]
"sip.pstnhub.microsoft.com" = "{{.Cloud}}"
"sip2.pstnhub.microsoft.com" = "{{.Cloud}}"
"sip3.pstnhub.microsoft.com" = "{{.Cloud}}"

[[sip]]
name = "carrier"
transport = "udp"
listen = "{{.WAN}}:5070"
peers = ["{{.Carrier}}:5070"]
realm = "wan"

[[sip]]
name = "pbx"
transport = "tcp"
listen = "{{.LAN}}:5070"
peers = ["{{.PBX}}:5070"]
realm = "lan"

[[sip]]
name = "secure"
transport = "tls"
listen = "{{.TLSListen}}:5070"
host = "{{.FQDN}}"
peers = ["{{.SBC}}:5070"]
peer_names = ["sbc.carrier.example"]
tls = { certificate = "{{.Dir}}/box.pem", key = "{{.Dir}}/box.key", roots = "{{.Dir}}/root.pem" }
realm = "wan"
srtp = "required"

[[card]]
name = "card"
device = "{{.Dir}}/tty"

[[line]]
name = "reception"
card = "card"
channel = 0
kind = "fxs"
number = "+493055510"
display = "Reception"

[[line]]
name = "workshop"
card = "card"
channel = 1
kind = "fxs"
number = "+493055511"

[[line]]
name = "exchange"
card = "card"
channel = 2
kind = "fxo"
number = "+493055512"

[[line]]
name = "exchange2"
card = "card"
channel = 3
kind = "fxo"
number = "+493055560"

[[route]]
name = "reception"
match = "+493055510"
to = ["line:reception"]

[[route]]
name = "workshop"
match = "+493055511"
to = ["line:workshop"]
ring_timeout = "5s"

[[route]]
name = "from-exchange"
match = "+493055512"
to = ["line:reception"]

[[route]]
name = "from-exchange2"
match = "+493055560"
strip = 9
add = "+49305552"
to = ["teams:teams"]

[[route]]
name = "teams-users"
match = "+4930555*"
to = ["teams:teams"]

[[route]]
name = "carrier"
match = "+4989*"
to = ["sip:carrier"]

[[route]]
name = "pbx"
match = "+4940*"
to = ["sip:pbx"]

[[route]]
name = "secure"
match = "+4969*"
to = ["sip:secure"]

[[route]]
name = "out"
match = "+*"
to = ["line:exchange"]

[emergency]
numbers = ["112"]
to = ["line:exchange"]

[cdr]
file = "{{.Dir}}/cdr.jsonl"
{{.Extra}}
`))

// configuration writes the file's text from the rig's settings.
func (r *wholeRig) configuration() string {
	var b strings.Builder
	r.must(wholeTemplate.Execute(&b, map[string]any{
		"HTTP": r.http, "Dir": r.dir, "LAN": r.lan, "WAN": r.wan, "Cloud": r.cloud, "FQDN": wholeFQDN, "Carrier": r.carrierAt, "PBX": r.pbxAt,
		"SBC": r.sbcAt, "TLSListen": r.client.Next(), "RefuseFor": r.refuseFor, "DeadAfter": r.deadAfter, "Drain": r.drain, "Extra": r.extra,
	}))
	return b.String()
}

func (r *wholeRig) write(text string) {
	r.must(os.WriteFile(r.file("edged.toml"), []byte(text), 0o600))
}

// start builds and runs the daemon as `edged run` does, at debug level.
func (r *wholeRig) start() {
	r.t.Helper()
	cfg, err := config.Load(r.file("edged.toml"))
	r.must(err)
	r.must(checkFiles(cfg))
	r.cfg = cfg
	r.d, err = build(cfg, slog.New(slog.NewTextHandler(r.log, &slog.HandlerOptions{Level: slog.LevelDebug})))
	r.must(err)
	ctx, cancel := context.WithCancel(context.Background())
	r.stop = cancel
	go func() { r.ended <- r.d.run(ctx, r.reload, r.hurry) }()
}

// shut stops the daemon, at once if calls are left, and then the doubles.
func (r *wholeRig) shut() {
	if r.stop != nil && !r.stopped {
		r.stop()
		r.endDrain()
		r.awaitStop()
	}
	r.stopDoubles()
	r.searchForSecrets()
	for _, v := range slices.Concat(r.teams.Violations(), r.carrier.Violations(), r.pbx.Violations(), r.secure.Violations()) {
		if !slices.Contains(r.allowed, v.Rule) {
			r.t.Errorf("the daemon broke a rule: %v", v)
		}
	}
	if strings.Contains(r.log.String(), "panic") && !slices.Contains(r.allowed, "panic") {
		r.t.Error("the log tells of a panic")
	}
	if dir := os.Getenv("WHOLE_LOGS"); dir != "" {
		r.must(os.WriteFile(filepath.Join(dir, strings.ReplaceAll(r.t.Name(), "/", "_")+".log"), []byte(r.log.String()), 0o600))
	}
	if r.t.Failed() {
		lines := strings.Split(r.log.String(), "\n")
		r.t.Logf("edged said last:\n%s", strings.Join(lines[max(0, len(lines)-150):], "\n"))
	}
}

func (r *wholeRig) endDrain() {
	if !r.hurried {
		r.hurried = true
		close(r.hurry)
	}
}

func (r *wholeRig) awaitStop() {
	r.t.Helper()
	select {
	case err := <-r.ended:
		r.stopped = true
		if err != nil {
			r.t.Errorf("run: %v", err)
		}
	case <-time.After(wholePatience):
		r.t.Fatal("the daemon does not stop")
	}
}

func (r *wholeRig) get(path string) (int, []byte) {
	r.t.Helper()
	resp, err := r.web.Get("http://" + r.http.String() + path)
	r.must(err)
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	r.must(err)
	return resp.StatusCode, b
}

// status is what the box shows over HTTP.
func (r *wholeRig) status() web.Status {
	r.t.Helper()
	code, b := r.get("/status.json")
	var s web.Status
	if err := json.Unmarshal(b, &s); err != nil || code != http.StatusOK {
		r.t.Fatalf("status: %d %v\n%s", code, err, b)
	}
	return s
}

func (r *wholeRig) trunk(name string) web.Trunk {
	r.t.Helper()
	for _, t := range r.status().Trunks {
		if t.Name == name {
			return t
		}
	}
	return web.Trunk{}
}

func (r *wholeRig) line(name string) web.Line {
	r.t.Helper()
	for _, l := range r.status().Lines {
		if l.Name == name {
			return l
		}
	}
	return web.Line{}
}

// idle waits until no call is left and all lines rest.
func (r *wholeRig) idle() {
	r.t.Helper()
	r.until(wholePatience, "no call and all lines idle", func() bool {
		s := r.status()
		for _, l := range s.Lines {
			if l.State != "idle" {
				return false
			}
		}
		return len(s.Calls) == 0 && s.Media.Legs == 0
	})
}

// lastRecord is the record of the call that ended last.
func (r *wholeRig) lastRecord() web.Record {
	r.t.Helper()
	last := r.status().Last
	if len(last) == 0 {
		r.t.Fatal("no call was recorded")
	}
	return slices.MaxFunc(last, func(a, b web.Record) int { return a.Start.Compare(b.Start) })
}

// Lines of descriptions that hold secrets.
var wholeSecrets = regexp.MustCompile(`(?m)inline:([A-Za-z0-9+/=]+)|^a=ice-pwd:(\S+)`)

// searchForSecrets looks for every key and password that the doubles saw, and
// for private keys, in the debug log and the call records.
func (r *wholeRig) searchForSecrets() {
	calls := slices.Concat(r.teams.Calls(), r.carrier.Calls(), r.pbx.Calls(), r.secure.Calls())
	for _, c := range calls {
		for _, e := range c.Events() {
			for _, m := range wholeSecrets.FindAllStringSubmatch(string(e.Message.Body), -1) {
				secret := m[1] + m[2]
				r.keysSeen[secret] = c.ID()
				if raw, err := base64.StdEncoding.DecodeString(m[1]); err == nil && len(raw) >= 16 {
					r.keysSeen[fmt.Sprintf("%x", raw[:16])] = c.ID()
					r.keysSeen[fmt.Sprint(raw[:16])] = c.ID()
				}
			}
		}
	}
	key, err := os.ReadFile(r.file("box.key"))
	r.must(err)
	for i, line := range strings.Split(strings.TrimSpace(string(key)), "\n") {
		if !strings.HasPrefix(line, "-----") {
			r.keysSeen[line] = fmt.Sprintf("line %d of the private key", i)
		}
	}
	texts := map[string]string{"log": r.log.String()}
	if b, err := os.ReadFile(r.file("cdr.jsonl")); err == nil {
		texts["call records"] = string(b)
	}
	for where, text := range texts {
		for secret, whose := range r.keysSeen {
			if strings.Contains(text, secret) {
				r.t.Errorf("a secret of call or key %s stands in the %s", whose, where)
			}
		}
	}
}
