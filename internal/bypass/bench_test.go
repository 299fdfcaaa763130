package bypass

import (
	"fmt"
	"net/netip"
	"testing"
	"time"
)

// BenchmarkC126 sends the first checks of 200 calls with 3 forks of 6 candidates
// from one goroutine and reports how long the slowest check waited for its answer
// (C-126: 50 ms), and when pion had seen all. "paced" has the clients send a check
// each 50 ms, as RFC 8445 §14.2 has them do; "burst" is all 3600 at one instant.
func BenchmarkC126(b *testing.B) {
	b.Run("paced", func(b *testing.B) { benchmarkC126(b, 50*time.Millisecond) })
	b.Run("burst", func(b *testing.B) { benchmarkC126(b, 0) })
}

func benchmarkC126(b *testing.B, pace time.Duration) {
	const calls, forks, candidates = 200, 3, 6
	var worst, settled time.Duration
	for b.Loop() {
		b.StopTimer()
		agents := make([]*Agent, calls)
		reqs := make([][forks][]byte, calls)
		for i := range agents {
			a, err := New(Options{Candidate: public, Send: func([]byte, netip.AddrPort) {}})
			if err != nil {
				b.Fatal(err)
			}
			agents[i] = a
			for f := range forks {
				reqs[i][f] = request(a, fmt.Sprint("fork", f), 1, controlling)
			}
		}
		b.StartTimer()
		start := time.Now()
		for c := range candidates {
			due := start.Add(time.Duration(c) * pace)
			time.Sleep(time.Until(due))
			for i, a := range agents {
				for f := range forks {
					a.Handle(reqs[i][f], netip.AddrPortFrom(host.Addr(), uint16(1000+f*10+c)))
				}
			}
			worst = max(worst, time.Since(due))
		}
		last := time.Now()
		for _, a := range agents {
			for a.Stats().AnswersSuppressed < forks*candidates {
				time.Sleep(100 * time.Microsecond)
			}
		}
		settled = max(settled, time.Since(last))
		b.StopTimer()
		for _, a := range agents {
			if s := a.Stats(); s.Answered != forks*candidates {
				b.Fatalf("unanswered: %+v", s)
			}
			if err := a.Close(); err != nil {
				b.Fatal(err)
			}
		}
		b.StartTimer()
	}
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	b.ReportMetric(ms(worst), "ms-worst-answer")
	b.ReportMetric(ms(settled), "ms-pion-behind")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkCheck is one repeated check of a known source.
func BenchmarkCheck(b *testing.B) {
	a, err := New(Options{Candidate: public, Send: func([]byte, netip.AddrPort) {}})
	if err != nil {
		b.Fatal(err)
	}
	defer a.Close()
	req := request(a, "fork", 1, controlling)
	b.ReportAllocs()
	for b.Loop() {
		a.Handle(req, host)
	}
}

// BenchmarkForgedCheck is a check with a wrong password.
func BenchmarkForgedCheck(b *testing.B) {
	a, err := New(Options{Candidate: public, Send: func([]byte, netip.AddrPort) {}})
	if err != nil {
		b.Fatal(err)
	}
	defer a.Close()
	req := request(&Agent{ufrag: a.ufrag, pwd: "wrong"}, "fork", 1, controlling)
	b.ReportAllocs()
	for b.Loop() {
		a.Handle(req, host)
	}
}

// BenchmarkAdmit is the price of each voice packet, with all sources known.
func BenchmarkAdmit(b *testing.B) {
	a, err := New(Options{Candidate: public, Send: func([]byte, netip.AddrPort) {}})
	if err != nil {
		b.Fatal(err)
	}
	defer a.Close()
	var last netip.AddrPort
	for i := range maxSources {
		last = netip.AddrPortFrom(host.Addr(), uint16(1000+i))
		a.Handle(request(a, "fork", 1, controlling), last)
	}
	b.ReportAllocs()
	for b.Loop() {
		if !a.Admit(last) {
			b.Fatal("not admitted")
		}
	}
}
