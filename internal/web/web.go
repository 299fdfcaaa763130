// Package web shows the box on a small HTTP listener: a status page for people,
// the same as JSON, /healthz for supervisors and /metrics for Prometheus.
//
// The main type is Server. It only shows; it changes nothing. In this step it
// listens on loopback alone and has no users; requests that name another host
// are refused, so that a web site in somebody's browser cannot read it (DNS
// rebinding).
//
// What is shown comes from a Source; the package knows no other part of the box.
package web

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Source gives the state of the box. Status is called once for each request and
// must not block.
type Source interface {
	Status() Status
}

// Options are what a Server is made of.
type Options struct {
	Source Source
	Log    *slog.Logger
}

// Server answers HTTP on one listener.
type Server struct {
	handler http.Handler
	log     *slog.Logger
}

//go:embed status.html
var statusPage string

// New makes a Server. It panics if the embedded page is broken, which a test
// notices.
func New(o Options) *Server {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{log: o.Log}
	page := template.Must(template.New("status").Funcs(template.FuncMap{
		"ago":     func(now, t time.Time) string { return now.Sub(t).Round(time.Second).String() },
		"percent": func(p *float64) string { return fmt.Sprintf("%.1f %%", *p*100) },
	}).Parse(statusPage))

	registry := prometheus.NewRegistry()
	registry.MustRegister(collector{o.Source})

	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		var b bytes.Buffer // a fault in the page must not leave half a page
		if err := page.Execute(&b, o.Source.Status()); err != nil {
			s.log.Error("status page", "err", err)
			http.Error(w, "the status page cannot be shown; see the log", http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = b.WriteTo(w)
	})
	mux.HandleFunc("GET /status.json", func(w http.ResponseWriter, r *http.Request) {
		writeJSON(w, http.StatusOK, o.Source.Status())
	})
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, r *http.Request) {
		checks := o.Source.Status().Checks
		code := http.StatusOK
		for _, c := range checks {
			if !c.OK {
				code = http.StatusServiceUnavailable
			}
		}
		writeJSON(w, code, checks)
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4, Timeout: 5 * time.Second}))
	s.handler = guard(mux)
	return s
}

// guard refuses requests for other hosts and sets the headers that every answer
// carries.
func guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host := strings.TrimSuffix(strings.TrimPrefix(r.Host, "["), "]")
		if h, _, err := net.SplitHostPort(r.Host); err == nil {
			host = h
		}
		if a, err := netip.ParseAddr(host); host != "localhost" && (err != nil || !a.IsLoopback()) {
			http.Error(w, "open this page by its loopback address", http.StatusMisdirectedRequest)
			return
		}
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cache-Control", "no-store")
		next.ServeHTTP(w, r)
	})
}

func writeJSON(w http.ResponseWriter, code int, v any) {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, _ = w.Write(append(b, '\n'))
}

// Handler is what Run serves.
func (s *Server) Handler() http.Handler { return s.handler }

// Run serves on l until ctx is done. It closes l.
func (s *Server) Run(ctx context.Context, l net.Listener) error {
	srv := &http.Server{
		Handler:           s.handler,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      20 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelWarn),
	}
	stopped := make(chan error, 1)
	go func() { stopped <- srv.Serve(l) }()
	select {
	case err := <-stopped:
		return fmt.Errorf("status page on %s: %w", l.Addr(), err)
	case <-ctx.Done():
	}
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	_ = srv.Shutdown(end)
	_ = srv.Close()
	if err := <-stopped; !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
