package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"localloop/internal/media/mediatest"
)

// edgedStatus is the part of edged's /status.json that is of use here: what edged
// itself says, beside what is measured.
type edgedStatus struct {
	Trunks []struct {
		Name string
		Up   bool
		Why  string
	} `json:"trunks"`
	Lines []struct {
		Name, State, Fault string
		Link               bool
	} `json:"lines"`
	Calls []struct {
		Source, Target, Calling, Called, State string
	} `json:"calls"`
	Last []struct {
		Calling, Called, Cause, MediaPath string
		MOS                               *float64 `json:"mos"`
		Moves                             int
	} `json:"lastCalls"`
	Marks struct {
		Voice      string
		Interfaces []struct {
			Interface, Why string
			Applied        bool
			Marked         uint64   `json:"voiceMarked"`
			Unmarked       uint64   `json:"voiceUnmarked"`
			Share          *float64 `json:"voiceShare"`
		}
	} `json:"marks"`
}

// askStatus reads edged's status once, in the namespace it listens in.
func (o *options) askStatus(ctx context.Context) (s edgedStatus, err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	transport := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, network, address string) (conn net.Conn, err error) {
		err = mediatest.InNetns(o.StatusNetns, func() (err error) {
			conn, err = (&net.Dialer{}).DialContext(ctx, network, address)
			return err
		})
		return conn, err
	}}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, o.Status, nil)
	if err != nil {
		return s, err
	}
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return s, err
	}
	defer func() { _ = resp.Body.Close() }()
	if err := json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(&s); err != nil {
		return s, fmt.Errorf("status: %w", err)
	}
	return s, nil
}

// canCall says what stands in the way of a call: empty when the trunk is up and
// every line is idle.
func (s edgedStatus) canCall() string {
	for _, t := range s.Trunks {
		if !t.Up {
			return fmt.Sprintf("trunk %s is down: %s", t.Name, t.Why)
		}
	}
	for _, l := range s.Lines {
		if !l.Link || l.State != "idle" {
			return fmt.Sprintf("line %s is %s: %s", l.Name, l.State, l.Fault)
		}
	}
	if len(s.Trunks) == 0 || len(s.Lines) == 0 {
		return "no trunk or no line is configured"
	}
	return ""
}

// waitStatus looks at the status until edged says that it can take calls.
func (o *options) waitStatus(ctx context.Context) error {
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for {
		s, err := o.askStatus(ctx)
		why := ""
		if err != nil {
			why = err.Error()
		} else if why = s.canCall(); why == "" {
			return nil
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return fmt.Errorf("%w: %s", ctx.Err(), why)
		}
	}
}

// status repeats in the live view what edged says of itself.
func (v *live) status(ctx context.Context, line func(string, ...any)) {
	if v.o.Status == "" {
		return
	}
	s, err := v.o.askStatus(ctx)
	if err != nil {
		line("edged  %v", err)
		return
	}
	for _, t := range s.Trunks {
		line("edged  trunk %s %s %s", t.Name, map[bool]string{true: "up", false: "DOWN"}[t.Up], t.Why)
	}
	for _, m := range s.Marks.Interfaces {
		switch {
		case !m.Applied:
			line("edged  %s: marks are not enforced: %s", m.Interface, m.Why)
		case m.Share == nil:
			line("edged  %s: no voice yet", m.Interface)
		default:
			line("edged  %s: %.2f %% of %d voice packets left with %s", m.Interface, *m.Share*100, m.Marked+m.Unmarked, s.Marks.Voice)
		}
	}
	for _, c := range s.Calls {
		line("edged  %s → %s (%s → %s) %s", c.Calling, c.Called, c.Source, c.Target, c.State)
	}
	for _, r := range last(s.Last, 3) {
		mos := "-"
		if r.MOS != nil {
			mos = fmt.Sprintf("%.2f", *r.MOS)
		}
		line("edged  ended: %s → %s %s path %s MOS %s moves %d", r.Calling, r.Called, r.Cause, r.MediaPath, mos, r.Moves)
	}
}
