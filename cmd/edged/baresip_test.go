package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"localloop/internal/analog/analogtest"
)

// baresip is a real SIP client in the part of Teams: TLS on Microsoft's port
// under Microsoft's names (of the test root), SDES, full ICE, G.711.
type baresip struct {
	process *realProcess
	control net.Conn
	speaker *soundCard
	done    chan struct{}

	mu     sync.Mutex
	events []bareEvent
}

// bareEvent is a message of ctrl_tcp: an event or the response to a command.
type bareEvent struct {
	Event    bool
	Type     string
	Param    string
	Response bool
	OK       bool
	Data     string
	Token    string
}

// bareConfig: modules by Debian's path. The TLS listener of sip_listen is one
// port above the named one. Voice comes from a file and goes to the ALSA device
// below; the player has no other module that could record.
const bareConfig = `
sip_listen		%[1]s:5060
sip_certificate		%[2]s/proxies.pem
sip_cafile		%[2]s/root.pem
dns_server		%[3]s:53
net_interface		internet0
call_local_timeout	60
audio_player		alsa,speaker
audio_source		aufile,%[2]s/said.wav
audio_alert		alsa,speaker
rtp_tos			184
rtcp_mux		yes
jitter_buffer_delay	2-10
audio_buffer		400-1600
module_path		/usr/lib/baresip/modules
module			g711.so
module			aufile.so
module			alsa.so
module			srtp.so
module			ice.so
module_tmp		account.so
module_app		menu.so
module_app		b2bua.so
module_app		ctrl_tcp.so
ctrl_tcp_listen		%[1]s:4444
`

// bareAccounts: the user, and two for module b2bua. OPTIONS to a proxy have no
// user part, and baresip answers 404 to what is for no account of its own
// unless one takes everything; that module is what makes one do so. Calls to
// the user never reach it.
const bareAccounts = "<sip:" + realUser + "@sip.pstnhub.microsoft.com;transport=tls>" + bareParameters + "\n" +
	"<sip:proxy@sip.pstnhub.microsoft.com;transport=tls>" + bareParameters + ";b2bua=inbound\n" +
	"<sip:unused@sip.pstnhub.microsoft.com;transport=tls>" + bareParameters + ";b2bua=outbound\n"

const bareParameters = ";regint=0;mediaenc=srtp-mand;medianat=ice;audio_codecs=PCMA;answermode=auto"

// bareALSA is ALSA without hardware: samples go into a pipe that the test's sound
// card empties at the rate of a real one.
const bareALSA = `
pcm.speaker {
	type file
	slave.pcm { type null }
	file "%s"
	format "raw"
}
`

// startBaresip starts it outside, with what it says from the moment on that a
// call has voice.
func startBaresip(t *testing.T, o *outside, dir string, says []int16) *baresip {
	t.Helper()
	home := t.TempDir()
	cloud := realCloud.Addr()
	for name, text := range map[string]string{
		"config":   fmt.Sprintf(bareConfig, cloud, dir, realWAN.Addr()),
		"accounts": bareAccounts,
		"contacts": "",
		"alsa":     fmt.Sprintf(bareALSA, filepath.Join(home, "speaker")),
	} {
		if err := os.WriteFile(filepath.Join(home, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// It says it again and again, a second apart. At the end of its file it ends the
	// call: silence outlasts it.
	var file []int16
	for range maxRounds + 1 {
		file = append(append(file, make([]int16, realRate)...), says...)
	}
	wav := exec.Command("sox", "-t", "raw", "-r", "8000", "-c", "1", "-e", "signed", "-b", "16", "-L", "-",
		filepath.Join(dir, "said.wav"), "pad", "0", "90")
	wav.Stdin = bytes.NewReader(realOctets(file))
	if out, err := wav.CombinedOutput(); err != nil {
		t.Fatalf("sox: %v\n%s", err, out)
	}
	b := &baresip{speaker: startSoundCard(t, filepath.Join(home, "speaker")), done: make(chan struct{})}
	cmd := exec.Command("baresip", "-4", "-v", "-f", home)
	cmd.Env = append(os.Environ(), "ALSA_CONFIG_PATH="+filepath.Join(home, "alsa"), "HOME="+home)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	b.process = o.start(t, cmd)
	ctx := realDeadline(t)
	realUntil(t, ctx, "baresip's control port", func() bool {
		select {
		case <-b.process.done:
			t.Fatalf("baresip ended: %v", b.process.err)
		default:
		}
		var err error
		b.control, err = net.DialTimeout("tcp", netip.AddrPortFrom(cloud, 4444).String(), time.Second)
		return err == nil
	})
	go func() {
		defer close(b.done)
		b.read()
	}()
	t.Cleanup(func() {
		_ = b.control.Close()
		<-b.done
		if t.Failed() {
			for _, e := range b.all() {
				t.Logf("baresip: %+v", e)
			}
		}
	})
	return b
}

// read takes netstrings (length ':' text ',') until the connection ends.
func (b *baresip) read() {
	r := bufio.NewReader(b.control)
	for {
		length, err := r.ReadString(':')
		if err != nil {
			return
		}
		n, err := strconv.Atoi(strings.TrimSuffix(length, ":"))
		if err != nil || n > 1<<20 {
			return
		}
		text := make([]byte, n+1)
		if _, err := io.ReadFull(r, text); err != nil {
			return
		}
		var e bareEvent
		if json.Unmarshal(text[:n], &e) != nil {
			continue
		}
		b.mu.Lock()
		b.events = append(b.events, e)
		b.mu.Unlock()
	}
}

func (b *baresip) all() []bareEvent {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]bareEvent(nil), b.events...)
}

// command runs one of baresip's commands and waits for its response.
func (b *baresip) command(t *testing.T, ctx context.Context, command, params string) {
	t.Helper()
	from := len(b.all())
	text, err := json.Marshal(map[string]string{"command": command, "params": params, "token": command})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Fprintf(b.control, "%d:%s,", len(text), text); err != nil {
		t.Fatal(err)
	}
	if e := b.await(t, ctx, from, "the response to "+command, func(e bareEvent) bool { return e.Response }); !e.OK {
		t.Fatalf("baresip: %s %s: %s", command, params, e.Data)
	}
}

// await waits for a message from position from on.
func (b *baresip) await(t *testing.T, ctx context.Context, from int, what string, match func(bareEvent) bool) (found bareEvent) {
	t.Helper()
	realUntil(t, ctx, "baresip: "+what, func() bool {
		for _, e := range b.all()[from:] {
			if match(e) {
				found = e
				return true
			}
		}
		return false
	})
	return found
}

func (b *baresip) event(t *testing.T, ctx context.Context, from int, kind string) bareEvent {
	t.Helper()
	return b.await(t, ctx, from, kind, func(e bareEvent) bool { return e.Event && e.Type == kind })
}

// secure waits until baresip has keyed SRTP, and checks with what.
func (b *baresip) secure(t *testing.T, ctx context.Context, from int) {
	t.Helper()
	if e := b.event(t, ctx, from, "CALL_MENC"); !strings.Contains(e.Param, "AES_CM_128_HMAC_SHA1_80") {
		t.Errorf("baresip's voice is keyed as %q", e.Param)
	}
}

// soundCard takes samples from a pipe at the rate of a sound card and keeps them.
type soundCard struct {
	mu  sync.Mutex
	pcm []int16
}

// startSoundCard runs until the test ends. The pipe is held small: what waits in
// it is delay.
func startSoundCard(t *testing.T, path string) *soundCard {
	t.Helper()
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	// Read and write: neither side waits for the other to open.
	pipe, err := os.OpenFile(path, os.O_RDWR|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := unix.FcntlInt(pipe.Fd(), unix.F_SETPIPE_SZ, 4096); err != nil {
		t.Logf("pipe keeps its size: %v", err)
	}
	if err := unix.SetNonblock(int(pipe.Fd()), true); err != nil { // Fd made it blocking
		t.Fatal(err)
	}
	s := &soundCard{}
	done := make(chan struct{})
	stop := make(chan struct{})
	go func() {
		defer close(done)
		const frame = realRate / 50
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		began, taken := time.Now(), 0
		raw := make([]byte, 2*frame)
		for {
			select {
			case <-tick.C:
			case <-stop:
				return
			}
			// Ticks that were missed are made up for: a card's clock does not wait.
			for due := int(time.Since(began) / (20 * time.Millisecond)); taken < due; taken++ {
				n, err := pipe.Read(raw)
				if n <= 0 || err != nil {
					taken = due // nothing plays
					break
				}
				s.mu.Lock()
				s.pcm = append(s.pcm, realSamples(raw[:n&^1])...)
				s.mu.Unlock()
			}
		}
	}()
	t.Cleanup(func() {
		close(stop)
		_ = pipe.Close()
		<-done
	})
	return s
}

func (s *soundCard) recording(from int) []int16 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]int16(nil), s.pcm[from:]...)
}

func (s *soundCard) length() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.pcm)
}

const bareBox = `
[[realm]]
name = "lan"
address = "{{.LAN}}"
interface = "lan0"
ports = "20000-20099"

[[realm]]
name = "wan"
address = "{{.WAN}}"
interface = "wan0"
ports = "20000-20099"
cloud = {{.IsCloud}}

[[teams]]
name = "teams"
fqdn = "edge.branch.example"
listen = "{{.WAN}}:5061"
source = "{{.WAN}}"
tls.certificate = "{{.Dir}}/box.pem"
tls.key = "{{.Dir}}/box.key"
tls.roots = "{{.Dir}}/root.pem"
allow = ["{{.Cloud}}/32"]
bypass = true
internal_realm = "{{.Internal}}"
external_realm = "wan"

[teams.resolve]
"sip.pstnhub.microsoft.com" = "{{.Cloud}}"
"sip2.pstnhub.microsoft.com" = "{{.Cloud}}"
"sip3.pstnhub.microsoft.com" = "{{.Cloud}}"

[[line]]
name = "reception"
card = "card"
channel = 0
kind = "fxs"
number = "+493055510"

[[route]]
match = "+493055510"
to = ["line:reception"]

[[route]]
match = "+493055520"
to = ["teams:teams"]

[qos]
interfaces = []
`

// TestBaresipTalksToThePhoneOverATeamsTrunk: a SIP client that nobody here wrote
// takes Teams' place, and speech is found in what the far end recorded, both
// ways, in a call that baresip begins and in one that the phone begins.
//
// It sends no X-MS headers, so the box answers with its public address (C-137).
// To a call from the phone the first offer would hold the LAN address and the
// public one come with an ICE restart once the answer is known (the last row
// in docs/teams.md, Local Media Optimization). libre, baresip's stack, knows no restart: it adds
// the new candidate to its check list's candidates and forms no pair (seen in
// its log). That call therefore goes over a trunk with one realm for all users;
// the restart is proved against pion in package media and by branchsim.
func TestBaresipTalksToThePhoneOverATeamsTrunk(t *testing.T) {
	realTool(t, "baresip", "espeak-ng", "sox")
	if !inNamespace(t) {
		return
	}
	o := newOutside(t)
	dir := t.TempDir()
	realKeys(t, dir)
	teamsSays := speak(t, "Good morning, this is the client in the cloud. Can you hear every single word that I am saying?", "en")
	phoneSays := speak(t, "Hello, you are speaking with the reception of the branch. Yes, the line is perfectly clear today.", "en+f3")
	realNames(t, netip.AddrPortFrom(realWAN.Addr(), 53), realFQDN, realWAN.Addr())

	// start runs box and client until the subtest ends, with OPTIONS answered. Each
	// gets a client of its own: now and then baresip 1.0.0 dies after a call.
	start := func(t *testing.T, internal string) (*realBox, *analogtest.Phone, *baresip) {
		t.Helper()
		client := startBaresip(t, o, dir, teamsSays)
		box := startRealBox(t, dir, bareBox, map[string]any{
			"HTTP": "127.0.0.1:8080", "LAN": realLAN.Addr(), "WAN": realWAN.Addr(), "Cloud": realCloud.Addr(),
			"Internal": internal, "IsCloud": internal != "wan",
		}, analogtest.Channel{Kind: analogtest.FXS, Phone: analogtest.PhoneOptions{Name: "reception", Country: "de"}})
		realUntil(t, realDeadline(t), "OPTIONS answered by baresip", func() bool { return box.sip.Healthy("teams") })
		return box, box.card.Phone(0), client
	}
	// talk has both sides speak in a call that stands, and compares.
	talk := func(t *testing.T, ctx context.Context, box *realBox, phone *analogtest.Phone, client *baresip) {
		t.Helper()
		for round := 1; ; round++ {
			phoneMark, clientMark, before := len(phone.Recording()), client.speaker.length(), box.starved()
			phone.Say(phoneSays)
			// baresip is somewhere in its sentence: the second one is whole.
			longest := 2*(len(teamsSays)+realRate) + realRate
			realUntil(t, ctx, "the speech at the phone", func() bool { return len(phone.Recording()) >= phoneMark+longest })
			realUntil(t, ctx, "the speech at baresip", func() bool { return client.speaker.length() >= clientMark+longest })
			starved := box.starved() - before
			good := true
			for _, end := range []struct {
				name               string
				said, other, heard []int16
			}{
				{"phone", teamsSays, phoneSays, phone.Recording()[phoneMark:]},
				{"client", phoneSays, teamsSays, client.speaker.recording(clientMark)},
			} {
				like := compare(end.said, end.heard)
				t.Logf("at the %s: %v; the card ran dry or over %d times", end.name, like, starved)
				good = good && like.matches()
				if crossed := compare(end.other, end.heard); crossed.found > 0 {
					t.Errorf("the %s hears itself: %v", end.name, crossed)
				}
			}
			if good {
				return
			}
			if starved == 0 || round == maxRounds {
				t.Errorf("after %d rounds: what the far end said is not found", round)
				return
			}
		}
	}
	ended := func(t *testing.T, ctx context.Context, box *realBox, path string) {
		t.Helper()
		r := box.record(t, ctx, 1)
		if !r.Answered() || r.MediaPath() != path {
			t.Errorf("answered %v, media path %s, cause %v", r.Answered(), r.MediaPath(), r.Cause)
		}
		for _, v := range r.Voice {
			if v.MediaPath == "line" {
				continue
			}
			if v.Pair == "" || v.Realm != "wan" || v.Codec != "PCMA" {
				t.Errorf("leg to Teams: pair %q, realm %q, codec %q", v.Pair, v.Realm, v.Codec)
			}
			// baresip's RTCP BYE leaves in the clear, after it has given up the keys:
			// that one is rightly refused.
			if v.Rejected > 1 {
				t.Errorf("%d packets of baresip's were not authentic", v.Rejected)
			}
			if v.RoundTrip <= 0 {
				t.Error("no RTCP report of baresip's gave a round trip time")
			}
		}
	}

	t.Run("baresip calls", func(t *testing.T) {
		box, phone, client := start(t, "lan")
		ctx := realDeadline(t)
		phone.SetScript(analogtest.Script{AnswerRing: 1, Delay: 200 * time.Millisecond})
		client.command(t, ctx, "dial", "sip:"+realNumber+"@"+realFQDN+":5061;transport=tls")
		client.event(t, ctx, 0, "CALL_ESTABLISHED")
		client.secure(t, ctx, 0)
		if err := phone.WaitOffHook(ctx); err != nil {
			t.Fatal(err)
		}
		talk(t, ctx, box, phone, client)
		client.command(t, ctx, "hangup", "")
		ended(t, ctx, box, "cloud")
		phone.HangUp()
	})
	t.Run("phone calls", func(t *testing.T) {
		box, phone, client := start(t, "wan")
		ctx := realDeadline(t)
		phone.Lift()
		if err := phone.WaitDialTone(ctx); err != nil {
			t.Fatal(err)
		}
		if err := phone.Dial(realDialed); err != nil {
			t.Fatal(err)
		}
		client.event(t, ctx, 0, "CALL_ESTABLISHED")
		client.secure(t, ctx, 0)
		if err := phone.WaitSaid(ctx); err != nil {
			t.Fatal(err)
		}
		talk(t, ctx, box, phone, client)
		phone.HangUp()
		client.event(t, ctx, 0, "CALL_CLOSED")
		ended(t, ctx, box, "lan")
	})
}
