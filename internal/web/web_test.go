package web

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

type fixed struct{ s Status }

func (f fixed) Status() Status { return f.s }

func sample() Status {
	share, mos := 0.9987, 4.3
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	return Status{
		Box: "edge7", Version: "1.0", Since: now.Add(-time.Hour), Now: now,
		Config: ConfigState{File: "edged.toml", Loaded: now.Add(-time.Minute), Refused: `line 3 <b>"bad"</b>`},
		Trunks: []Trunk{{Name: "teams", Kind: "teams", Up: true, Refusing: "voice path lost", Certificate: now,
			Peers: []Peer{{Name: "sip.example:5061", Up: true, Last: now}, {Name: "sip2.example:5061", Why: "no answer in 10s"}}},
			{Name: "carrier", Kind: "sip", Dropped: map[string]uint64{"malformed": 3}}},
		Cards:  []Card{{Name: "card1", Up: true, Dropped: map[string]uint64{"bad": 4}}},
		Lines:  []Line{{Name: "lobby", Card: "card1", Kind: "fxs", Number: "+4930", State: "idle", Hook: "on-hook", Link: true}},
		Calls:  []Call{{ID: "c1", Calling: "<script>alert(1)</script>", Called: "112", Emergency: true, State: "up", Start: now}},
		Last:   []Record{{ID: "c0", Start: now, MOS: &mos, MediaPath: "lan", Moves: 1}},
		Marks:  Marks{Voice: "EF", Signalling: "AF41", Interfaces: []InterfaceMark{{Interface: "lan0", Applied: true, Marked: 9987, Unmarked: 13, Share: &share}, {Interface: "wan0", Why: "not permitted"}}},
		Media:  Media{Legs: 2, Realms: []MediaRealm{{Name: "lan", Sent: 1, Received: 2}}, Dropped: map[string]uint64{"auth": 3}},
		Links:  []Link{{Name: "lan0", Up: true}},
		Checks: []HealthCheck{{Name: "media", OK: true}},
	}
}

func get(t *testing.T, s Status, path, host string) (int, string) {
	t.Helper()
	r := httptest.NewRequest("GET", path, nil)
	r.Host = host
	w := httptest.NewRecorder()
	New(Options{Source: fixed{s}}).Handler().ServeHTTP(w, r)
	return w.Code, w.Body.String()
}

func TestPageShowsTheBoxAndEscapesWhatPeersSaid(t *testing.T) {
	code, page := get(t, sample(), "/", "127.0.0.1:8080")
	if code != 200 {
		t.Fatalf("status %d: %s", code, page)
	}
	for _, want := range []string{"edge7", "99.9 %", "not permitted", "no answer in 10s", "emergency", "moved 1×", "Not certified by Microsoft", "new calls are refused"} {
		if !strings.Contains(page, want) {
			t.Errorf("page lacks %q", want)
		}
	}
	if strings.Contains(page, "<script>") || strings.Contains(page, "<b>") {
		t.Error("foreign text reached the page unescaped")
	}
	if code, page := get(t, Status{Box: "new"}, "/", "localhost"); code != 200 || !strings.Contains(page, "No trunk is configured") {
		t.Errorf("an empty box gives %d", code)
	}
}

func TestOtherHostsAreRefused(t *testing.T) {
	for host, want := range map[string]int{
		"localhost:8080": 200, "127.0.0.1": 200, "127.8.8.8:1": 200, "[::1]:8080": 200, "[::1]": 200,
		"evil.example": 421, "192.0.2.1:8080": 421, "localhost.evil.example": 421, "": 421,
	} {
		if code, _ := get(t, sample(), "/status.json", host); code != want {
			t.Errorf("host %q: %d, want %d", host, code, want)
		}
	}
}

func TestHealthSaysWhatIsWrong(t *testing.T) {
	s := sample()
	if code, _ := get(t, s, "/healthz", "localhost"); code != 200 {
		t.Errorf("healthy box: %d", code)
	}
	s.Checks = append(s.Checks, HealthCheck{Name: "sip", Why: "listener closed"})
	code, body := get(t, s, "/healthz", "localhost")
	var checks []HealthCheck
	if err := json.Unmarshal([]byte(body), &checks); err != nil || code != 503 || len(checks) != 2 || checks[1].Why != "listener closed" {
		t.Errorf("%d %s (%v)", code, body, err)
	}
}

func TestStatusJSONRoundTrips(t *testing.T) {
	_, body := get(t, sample(), "/status.json", "localhost")
	var s Status
	dec := json.NewDecoder(strings.NewReader(body))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&s); err != nil {
		t.Fatal(err)
	}
	if *s.Marks.Interfaces[0].Share != 0.9987 || s.Marks.Interfaces[1].Share != nil {
		t.Error("share of voice packets is lost on the way")
	}
}

func TestMetricsAreWellFormedAndCountWhatTheStatusSays(t *testing.T) {
	c := collector{fixed{sample()}}
	problems, err := testutil.CollectAndLint(c)
	if err != nil || len(problems) > 0 {
		t.Fatal(err, problems)
	}
	err = testutil.CollectAndCompare(c, strings.NewReader(`
# HELP edged_qos_voice_packets_total Voice packets that left an interface, by whether they carried the voice mark.
# TYPE edged_qos_voice_packets_total counter
edged_qos_voice_packets_total{interface="lan0",marked="no"} 13
edged_qos_voice_packets_total{interface="lan0",marked="yes"} 9987
`), "edged_qos_voice_packets_total")
	if err != nil {
		t.Error(err)
	}
	if _, body := get(t, sample(), "/metrics", "localhost"); !strings.Contains(body, `edged_calls{state="up"} 1`) {
		t.Error("scrape lacks the live call")
	}
}

func TestRunServesUntilItIsToldToStop(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- New(Options{Source: fixed{sample()}}).Run(ctx, l) }()
	resp, err := http.Get("http://" + l.Addr().String() + "/healthz")
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	_ = resp.Body.Close()
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestMetricsPageListsEveryMetric(t *testing.T) {
	page, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	descs := make(chan *prometheus.Desc, 64)
	collector{fixed{}}.Describe(descs)
	close(descs)
	for d := range descs {
		name := regexp.MustCompile(`fqName: "([^"]+)"`).FindStringSubmatch(d.String())[1]
		if !strings.Contains(string(page), "| `"+name+"` |") {
			t.Errorf("docs/metrics.md lacks %s", name)
		}
	}
}
