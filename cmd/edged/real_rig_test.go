package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"text/template"
	"time"

	"localloop/internal/analog/analogtest"
	"localloop/internal/cdr"
	"localloop/internal/config"
	"localloop/internal/sip/siptest"
)

// The tests in files named real_* and baresip_test.go join the whole daemon to
// programs that nobody here wrote: a SIP client, a SIP load tester, a DTMF
// decoder and a packet dissector. A program that is not installed skips its
// tests (Debian names in test/packages.txt).

const (
	realFQDN   = "edge.branch.example"
	realNumber = "+493055510" // of the phone behind the box
	realUser   = "+493055520" // of the far end
	realDialed = "03055520"   // the same as people here dial it
)

// realTool skips the test if a program is not there.
func realTool(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		if _, err := exec.LookPath(name); err != nil {
			t.Skipf("%s is not installed", name)
		}
	}
}

// realDeadline is a limit that only a hang exceeds.
func realDeadline(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// realAddr is a loopback address that this process alone uses: n tells apart
// what runs in one test binary, the process number what runs beside it.
func realAddr(n byte) netip.Addr {
	pid := os.Getpid()
	return netip.AddrFrom4([4]byte{127, byte(1 + pid>>8&0x7f), byte(pid), n})
}

// realUntil waits until ok holds. It looks for what has no event of its own.
func realUntil(t *testing.T, ctx context.Context, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("waited for %s: %v", what, ctx.Err())
		}
	}
}

// realKeys writes a test root, the box's certificate and one for Microsoft's
// names into dir, and returns the latter with the root's pool.
func realKeys(t *testing.T, dir string) (*siptest.Certificate, *x509.CertPool) {
	t.Helper()
	root, err := siptest.NewCA("Localloop test root")
	if err != nil {
		t.Fatal(err)
	}
	issuing, err := root.Intermediate("Localloop test issuing")
	if err != nil {
		t.Fatal(err)
	}
	box, err := issuing.Issue(siptest.Leaf{Names: []string{realFQDN}})
	if err != nil {
		t.Fatal(err)
	}
	proxies, err := issuing.Issue(siptest.Leaf{Names: siptest.ProxyNames[:]})
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string][]byte{
		"root.pem": root.PEM(), "box.pem": box.CertPEM, "box.key": box.KeyPEM,
		"proxies.pem": append(append([]byte(nil), proxies.CertPEM...), proxies.KeyPEM...),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return proxies, root.Pool()
}

// realBox is the daemon as cmd/edged builds it, with a line card on a
// pseudo-terminal.
type realBox struct {
	*daemon
	card *analogtest.Card
	dir  string
}

// realConfig is what all configurations here begin with.
const realConfig = `
[box]
name = "branch"
country = "de"
area_code = "30"
http = "{{.HTTP}}"
state = "{{.Dir}}/state"
drain_timeout = "2s"

[[card]]
name = "card"
device = "{{.Dir}}/card"
`

// startRealBox runs the daemon until the test ends. The text completes
// realConfig; {{.Dir}} and the given values may stand in it.
func startRealBox(t *testing.T, dir, text string, values map[string]any, channels ...analogtest.Channel) *realBox {
	t.Helper()
	values["Dir"] = dir
	var b bytes.Buffer
	if err := template.Must(template.New("edged.toml").Option("missingkey=error").Parse(realConfig+text)).Execute(&b, values); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "edged.toml")
	if err := os.WriteFile(file, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := config.Load(file)
	if err != nil {
		t.Fatalf("configuration: %v", err)
	}
	if err := checkFiles(cfg); err != nil {
		t.Fatal(err)
	}
	box := &realBox{dir: dir}
	if box.card, err = analogtest.New(analogtest.CardOptions{Link: filepath.Join(dir, "card"), Channels: channels}); err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(realLog{t}, &slog.HandlerOptions{Level: slog.LevelInfo}))
	if box.daemon, err = build(cfg, log); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := box.card.Run(ctx); err != nil {
			t.Errorf("card: %v", err)
		}
	})
	boxCtx, stopBox := context.WithCancel(ctx)
	boxDone := make(chan struct{})
	wg.Go(func() {
		defer close(boxDone)
		if err := box.run(boxCtx, nil, nil); err != nil {
			t.Errorf("edged: %v", err)
		}
	})
	t.Cleanup(func() {
		stopBox() // the card lives until edged has hung up its lines
		<-boxDone
		cancel()
		wg.Wait()
	})
	start := realDeadline(t)
	select {
	case <-box.sip.Ready():
	case <-start.Done():
		t.Fatal("edged is not ready")
	}
	if err := box.card.WaitLink(start, true); err != nil {
		t.Fatal(err)
	}
	box.idle(t, start)
	return box
}

// realLog writes to the test's log.
type realLog struct{ t *testing.T }

func (l realLog) Write(b []byte) (int, error) {
	l.t.Logf("edged: %s", bytes.TrimRight(b, "\n"))
	return len(b), nil
}

// record waits until the n-th call (from 1) has ended and returns its record.
func (b *realBox) record(t *testing.T, ctx context.Context, n int) cdr.Record {
	t.Helper()
	realUntil(t, ctx, fmt.Sprintf("the record of call %d", n), func() bool { return len(b.cdr.Last(n)) == n && len(b.calls.Calls()) == 0 })
	r := b.cdr.Last(1)[0]
	for _, v := range r.Voice {
		t.Logf("record: leg %s: %s %s, pair %q, %s, sent %d, received %d, lost %d, late %d, rejected %d, MOS %.2f",
			v.Leg, v.Realm, v.MediaPath, v.Pair, v.Codec, v.Sent, v.Received, v.Lost, v.Late, v.Rejected, v.MOS)
	}
	return r
}

// idle waits until edged has seen all lines on-hook, which takes longer than for
// the phone: an interruption of the loop may be a flash.
func (b *realBox) idle(t *testing.T, ctx context.Context) {
	t.Helper()
	realUntil(t, ctx, "idle lines", func() bool {
		for _, l := range b.analog.Status() {
			if l.OffHook || l.State != "idle" {
				return false
			}
		}
		return true
	})
}

// maxRounds is how often something is said at most until it is found at the far
// end. Another round is due only if the simulated card starved in the last one.
const maxRounds = 4

// starved counts frames that the simulated card lacked or had no room for: on a
// machine under load it runs dry, which nobody beyond it could mend.
func (b *realBox) starved() uint64 {
	c := b.card.Snapshot().Counters
	return c.Underruns + c.Overruns + c.OutDropped
}

// realProcess is a program that was started, with what it has printed.
type realProcess struct {
	cmd  *exec.Cmd
	out  realOutput
	done chan struct{}
	err  error // once done is closed
}

type realOutput struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *realOutput) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(b)
}

func (o *realOutput) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// startReal starts a program that ends with the test at the latest.
func startReal(t *testing.T, cmd *exec.Cmd) *realProcess {
	t.Helper()
	p := &realProcess{cmd: cmd, done: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = &p.out, &p.out
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", cmd.Path, err)
	}
	go func() {
		defer close(p.done)
		p.err = cmd.Wait()
	}()
	t.Cleanup(func() {
		p.stop(syscall.SIGTERM)
		if t.Failed() {
			t.Logf("%s ended with %v and printed:\n%s", filepath.Base(cmd.Path), p.err, p.out.String())
		}
	})
	return p
}

// stop asks the program to end, and ends it.
func (p *realProcess) stop(s syscall.Signal) {
	_ = p.cmd.Process.Signal(s)
	select {
	case <-p.done:
	case <-time.After(5 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.done
	}
}

// wait waits for the program's own end.
func (p *realProcess) wait(ctx context.Context) error {
	select {
	case <-p.done:
		return p.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// realRun runs a program to its end.
func realRun(t *testing.T, name string, args ...string) []byte {
	t.Helper()
	var errOut bytes.Buffer
	cmd := exec.CommandContext(realDeadline(t), name, args...)
	cmd.Stderr = &errOut
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, errOut.String())
	}
	return out
}
