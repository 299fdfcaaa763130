package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"text/tabwriter"
	"time"

	"localloop/internal/config"
	"localloop/internal/route"
	"localloop/internal/web"
)

type checkCommand struct {
	File string `arg:"" optional:"" help:"File to check; the configuration file if absent." type:"path"`
}

// Run prints every fault of a configuration, or that there is none.
func (k checkCommand) Run(c *commands, e env) error {
	file := k.File
	if file == "" {
		file = c.Config
	}
	cfg, err := config.Load(file)
	if err != nil {
		return err
	}
	if err := checkFiles(cfg); err != nil {
		return err
	}
	_, err = fmt.Fprintf(e.out, "%s: no fault. %d Teams and %d SIP trunk(s), %d card(s), %d line(s), %d route(s).\n",
		file, len(cfg.Teams), len(cfg.SIP), len(cfg.Cards), len(cfg.Lines), len(cfg.Routes))
	return err
}

type routeCommand struct {
	Number string `arg:"" help:"Number as it would be dialled."`
	From   string `help:"Trunk or line the call comes from; any if absent."`
}

// Run explains where a number would go. It asks nobody: trunks count as healthy.
func (k routeCommand) Run(c *commands, e env) error {
	cfg, err := config.Load(c.Config)
	if err != nil {
		return err
	}
	plan, err := route.New(cfg, nil)
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(e.out, 0, 8, 2, ' ', 0)
	for _, step := range plan.Explain(k.Number, k.From) {
		fmt.Fprintf(w, "%s\t%s\n", step.What, step.Text)
	}
	return w.Flush()
}

type statusCommand struct {
	JSON bool `help:"Print everything as JSON."`
}

// statusLimit bounds what is read from the daemon.
const statusLimit = 8 << 20

// Run asks the running daemon on its loopback listener.
func (k statusCommand) Run(c *commands, e env) error {
	cfg, err := config.Load(c.Config)
	if err != nil {
		return err
	}
	client := http.Client{Timeout: 5 * time.Second}
	resp, err := client.Get("http://" + cfg.Box.HTTP.String() + "/status.json")
	if err != nil {
		return fmt.Errorf("ask edged at %s: is it running with this configuration? %w", cfg.Box.HTTP, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, statusLimit))
	if err != nil {
		return fmt.Errorf("read the status from %s: %w", cfg.Box.HTTP, err)
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("edged at %s answered %s", cfg.Box.HTTP, resp.Status)
	}
	if k.JSON {
		_, err = e.out.Write(body)
		return err
	}
	var s web.Status
	if err := json.Unmarshal(body, &s); err != nil {
		return fmt.Errorf("status from %s: %w", cfg.Box.HTTP, err)
	}
	return printStatus(e.out, s)
}

// printStatus writes the state for a terminal.
func printStatus(out io.Writer, s web.Status) error {
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintf(w, "%s\tedged %s, running for %s\n", s.Box, s.Version, s.Now.Sub(s.Since).Round(time.Second))
	if s.Config.Refused != "" {
		fmt.Fprintf(w, "configuration\tlast reload REFUSED: %s\n", s.Config.Refused)
	}
	for _, c := range s.Checks {
		if !c.OK {
			fmt.Fprintf(w, "%s\tNOT WELL: %s\n", c.Name, c.Why)
		}
	}
	for _, t := range s.Trunks {
		note := t.Why
		if t.Refusing != "" {
			note = "new calls are refused: " + t.Refusing
		}
		fmt.Fprintf(w, "trunk %s\t%s\t%s\t%s\n", t.Name, t.Kind, upDown(t.Up), note)
		for _, p := range t.Peers {
			fmt.Fprintf(w, "  %s\t%s\t%s %s\n", p.Name, upDown(p.Up), p.Region, p.Why)
		}
	}
	for _, l := range s.Lines {
		fmt.Fprintf(w, "line %s\t%s %s\t%s, %s\tcard %s %s %s\n", l.Name, l.Kind, l.Number, l.State, l.Hook, l.Card, upDown(l.Link), l.Fault)
	}
	for _, c := range s.Calls {
		fmt.Fprintf(w, "call %s\t%s to %s\t%s\t%s -> %s\n", c.ID, c.Calling, c.Called, c.State, c.Source, c.Target)
	}
	fmt.Fprintf(w, "marks\tvoice %s, signalling %s\n", s.Marks.Voice, s.Marks.Signalling)
	for _, m := range s.Marks.Interfaces {
		switch {
		case !m.Applied:
			fmt.Fprintf(w, "  %s\tnot applied: %s\n", m.Interface, m.Why)
		case m.Share == nil:
			fmt.Fprintf(w, "  %s\tno voice sent yet\n", m.Interface)
		default:
			fmt.Fprintf(w, "  %s\tvoice that left with %s: %.2f %% of %d packets\n", m.Interface, s.Marks.Voice, *m.Share*100, m.Marked+m.Unmarked)
		}
	}
	return w.Flush()
}

func upDown(b bool) string {
	if b {
		return "up"
	}
	return "DOWN"
}
