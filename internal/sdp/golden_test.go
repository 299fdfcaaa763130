package sdp

import (
	"bytes"
	"encoding/base64"
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

var update = flag.Bool("update", false, "rewrite the golden files")

var compare = cmp.Options{
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b }),
	cmpopts.EquateEmpty(),
}

func read(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func crlf(b []byte) []byte { return bytes.ReplaceAll(b, []byte("\n"), []byte("\r\n")) }

func mustParse(t testing.TB, text string) *Description {
	t.Helper()
	d, err := Parse([]byte(text))
	if err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	return d
}

// TestGoldenRewritten reads each foreign text, with either line end, and writes
// it as this box would: the .out file shows all that was understood.
func TestGoldenRewritten(t *testing.T) {
	files, _ := filepath.Glob("testdata/*.sdp")
	if len(files) < 6 {
		t.Fatalf("only %d texts found", len(files))
	}
	for _, f := range files {
		t.Run(filepath.Base(f), func(t *testing.T) {
			text := read(t, filepath.Base(f))
			d := mustParse(t, string(text))
			d2 := mustParse(t, string(crlf(text)))
			if diff := cmp.Diff(d, d2, compare); diff != "" {
				t.Errorf("LF and CRLF read differently:\n%s", diff)
			}
			got := strings.ReplaceAll(string(d.Marshal()), "\r\n", "\n")
			out := strings.TrimSuffix(f, ".sdp") + ".out"
			if *update {
				if err := os.WriteFile(out, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if want := string(read(t, filepath.Base(out))); got != want {
				t.Errorf("differs from %s:\n%s", out, cmp.Diff(want, got))
			}
			if again := mustParse(t, got); cmp.Diff(d, again, compare) != "" {
				t.Errorf("not stable:\n%s", cmp.Diff(d, again, compare))
			}
		})
	}
}

// TestC107OurTextsKeepTeamsShape: what this box itself sends to Teams comes back
// byte for byte, so order and spelling are those that docs/teams.md names.
func TestC107OurTextsKeepTeamsShape(t *testing.T) {
	for _, name := range []string{"our-offer.sdp", "our-answer-bypass.sdp"} {
		text := crlf(read(t, name))
		if got := mustParse(t, string(text)).Marshal(); !bytes.Equal(got, text) {
			t.Errorf("%s:\n%s", name, cmp.Diff(string(text), string(got)))
		}
	}
	text := string(crlf(read(t, "our-answer-bypass.sdp")))
	session, media, _ := strings.Cut(text, "m=audio")
	if !strings.Contains(session, "a=ice-lite\r\n") {
		t.Error("ice-lite does not stand at the session level")
	}
	for attr, n := range map[string]int{"a=ice-ufrag:": 1, "a=ice-pwd:": 1, "a=candidate:": 1, " typ host": 1, " UDP ": 1} {
		if got := strings.Count(media, attr); got != n {
			t.Errorf("%d of %q, want %d", got, attr, n)
		}
	}
}

// TestGoldenAnswer answers each foreign offer as a trunk of ours would, with
// fixed addresses and keys. The Teams offer of a bypass call gets the answer that
// stands in its golden file, byte for byte.
func TestGoldenAnswer(t *testing.T) {
	key, err := base64.StdEncoding.DecodeString(keyA)
	if err != nil {
		t.Fatal(err)
	}
	local := netip.MustParseAddrPort("198.51.100.60:20240")
	bypass := teamsProfile
	bypass.Codecs = []string{"G722", "PCMA", "PCMU"}
	baresip := teamsProfile
	tests := []struct {
		offer, golden string
		p             Profile
	}{
		{"teams-offer-bypass.sdp", "our-answer-bypass.sdp", bypass},
		{"baresip-offer.sdp", "baresip-answer.golden", baresip},
		{"asterisk-offer.sdp", "asterisk-answer.golden", plainProfile},
	}
	for _, tt := range tests {
		t.Run(tt.offer, func(t *testing.T) {
			a, _, err := Accept(mustParse(t, string(read(t, tt.offer))), tt.p)
			if err != nil {
				t.Fatal(err)
			}
			a.SessionID, a.Version, a.RTP = 7701, 1, local
			if a.RTCPMux {
				a.RTCP = local
			}
			for i := range a.Crypto {
				a.Crypto[i].Key = key
			}
			if a.ICE != nil {
				a.ICE.Ufrag, a.ICE.Pwd = "kWnG", "pNc7U8N0MXN1r3ZPgypiQZz3"
				a.ICE.Candidates = []Candidate{{Foundation: "1", Component: 1, Priority: 2130706431, Addr: local, Type: "host"}}
			}
			got := strings.ReplaceAll(string(a.Marshal()), "\r\n", "\n")
			path := filepath.Join("testdata", tt.golden)
			if *update && strings.HasSuffix(path, ".golden") {
				if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if want := string(read(t, tt.golden)); got != want {
				t.Error(cmp.Diff(want, got))
			}
		})
	}
}
