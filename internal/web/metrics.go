package web

import (
	"github.com/prometheus/client_golang/prometheus"
)

// collector turns the state of the box into metrics, read afresh at each scrape.
type collector struct{ source Source }

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("edged_"+name, help, labels, nil)
}

// Descriptions of all metrics; docs/metrics.md lists the same.
var (
	upDesc        = desc("info", "Always 1; the version as a label.", "version")
	trunkDesc     = desc("trunk_up", "1 if the trunk takes calls.", "trunk", "kind")
	peerDesc      = desc("trunk_peer_up", "1 if the proxy or host answers OPTIONS.", "trunk", "peer")
	certDesc      = desc("trunk_certificate_expires_seconds", "Expiry of the trunk's certificate, Unix time.", "trunk")
	messagesDesc  = desc("trunk_dropped_total", "Messages, connections and handshakes of a trunk that were not taken, by reason.", "trunk", "reason")
	cardDesc      = desc("card_frames_dropped_total", "Frames of a line card that were not used, by reason.", "card", "reason")
	lineDesc      = desc("line_up", "1 if the line's card answers and the line has no fault.", "line", "kind")
	callsDesc     = desc("calls", "Live calls by state.", "state")
	legsDesc      = desc("media_legs", "Live media legs.")
	sentDesc      = desc("media_packets_sent_total", "Media packets (RTP, RTCP, STUN) sent, by realm.", "realm")
	receivedDesc  = desc("media_packets_received_total", "Media packets (RTP, RTCP, STUN) received, by realm.", "realm")
	portsDesc     = desc("media_ports_free", "Free port pairs for media, by realm.", "realm")
	droppedDesc   = desc("media_packets_dropped_total", "Received packets that were not used, by reason.", "reason")
	markedDesc    = desc("qos_voice_packets_total", "Voice packets that left an interface, by whether they carried the voice mark.", "interface", "marked")
	appliedDesc   = desc("qos_applied", "1 if the kernel classifies and counts on the interface.", "interface")
	linkDesc      = desc("link_up", "1 if the network interface is up.", "interface")
	reloadBadDesc = desc("config_refused", "1 if the last reload was refused and the older configuration is in use.")
)

// Describe implements prometheus.Collector.
func (c collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{upDesc, trunkDesc, peerDesc, certDesc, messagesDesc, cardDesc, lineDesc, callsDesc, legsDesc, sentDesc,
		receivedDesc, portsDesc, droppedDesc, markedDesc, appliedDesc, linkDesc, reloadBadDesc} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c collector) Collect(ch chan<- prometheus.Metric) {
	s := c.source.Status()
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	count := func(d *prometheus.Desc, v uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	gauge(upDesc, 1, s.Version)
	for _, t := range s.Trunks {
		gauge(trunkDesc, truth(t.Up), t.Name, t.Kind)
		for _, p := range t.Peers {
			gauge(peerDesc, truth(p.Up), t.Name, p.Name)
		}
		if !t.Certificate.IsZero() {
			gauge(certDesc, float64(t.Certificate.Unix()), t.Name)
		}
		for why, n := range t.Dropped {
			count(messagesDesc, n, t.Name, why)
		}
	}
	for _, k := range s.Cards {
		for why, n := range k.Dropped {
			count(cardDesc, n, k.Name, why)
		}
	}
	for _, l := range s.Lines {
		gauge(lineDesc, truth(l.Link && l.Fault == ""), l.Name, l.Kind)
	}
	states := map[string]int{"seeking": 0, "ringing": 0, "up": 0, "lost": 0}
	for _, call := range s.Calls {
		states[call.State]++
	}
	for state, n := range states {
		gauge(callsDesc, float64(n), state)
	}
	gauge(legsDesc, float64(s.Media.Legs))
	for _, r := range s.Media.Realms {
		count(sentDesc, r.Sent, r.Name)
		count(receivedDesc, r.Received, r.Name)
		gauge(portsDesc, float64(r.PortsFree), r.Name)
	}
	for why, n := range s.Media.Dropped {
		count(droppedDesc, n, why)
	}
	for _, m := range s.Marks.Interfaces {
		gauge(appliedDesc, truth(m.Applied), m.Interface)
		if m.Applied {
			count(markedDesc, m.Marked, m.Interface, "yes")
			count(markedDesc, m.Unmarked, m.Interface, "no")
		}
	}
	for _, l := range s.Links {
		gauge(linkDesc, truth(l.Up), l.Name)
	}
	gauge(reloadBadDesc, truth(s.Config.Refused != ""))
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
