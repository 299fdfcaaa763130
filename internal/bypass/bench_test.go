package bypass

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"
)

// BenchmarkC126Burst is the whole of C-126 at one instant: the first checks of
// 200 calls with 3 forks of 6 candidates, on one goroutine. It reports how long
// the last one waited for its answer (limit 50 ms), and when pion had seen all.
func BenchmarkC126Burst(b *testing.B) {
	const calls, forks, candidates = 200, 3, 6
	var worst, settled []time.Duration
	for b.Loop() {
		b.StopTimer()
		type job struct {
			a    *Agent
			req  []byte
			from netip.AddrPort
		}
		var jobs []job
		var agents []*Agent
		for range calls {
			a, err := New(Options{Candidate: public, Send: func([]byte, netip.AddrPort) {}})
			if err != nil {
				b.Fatal(err)
			}
			agents = append(agents, a)
			for f := range forks {
				for c := range candidates {
					jobs = append(jobs, job{a, request(a, fmt.Sprint("fork", f), uint32(c), controlling), netip.AddrPortFrom(host.Addr(), uint16(1000+f*10+c))})
				}
			}
		}
		b.StartTimer()
		start := time.Now()
		for _, j := range jobs {
			j.a.Handle(j.req, j.from)
		}
		worst = append(worst, time.Since(start))
		for _, a := range agents {
			for a.Stats().AnswersSuppressed < forks*candidates {
				time.Sleep(100 * time.Microsecond)
			}
		}
		settled = append(settled, time.Since(start))
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
	b.ReportMetric(float64(slices.Max(worst).Microseconds())/1000, "ms-to-last-answer")
	b.ReportMetric(float64(slices.Max(settled).Microseconds())/1000, "ms-to-pion-settled")
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
