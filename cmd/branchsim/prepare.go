package main

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"text/template"

	"localloop/internal/sip/siptest"
)

type prepareCommand struct{}

// Run writes the directory anew: keys of an earlier run are replaced.
func (prepareCommand) Run(o *options, t terminal) error {
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return fmt.Errorf("prepare: %w", err)
	}
	if err := writeKeys(o); err != nil {
		return fmt.Errorf("prepare: %w", err)
	}
	text, err := configuration(o)
	if err != nil {
		return fmt.Errorf("prepare: %w", err)
	}
	if err := os.WriteFile(o.file("edged.toml"), text, 0o600); err != nil {
		return fmt.Errorf("prepare: %w", err)
	}
	_, err = fmt.Fprintln(t.out, o.file("edged.toml"))
	return err
}

// writeKeys makes the laboratory's own PKI: a root, an intermediate, the
// proxies' certificate for server authentication only as Microsoft's are since
// 2026, and the box's.
func writeKeys(o *options) error {
	root, err := siptest.NewCA("Localloop laboratory root")
	if err != nil {
		return err
	}
	issuing, err := root.Intermediate("Localloop laboratory issuing")
	if err != nil {
		return err
	}
	proxies, err := issuing.Issue(siptest.Leaf{Names: siptest.ProxyNames[:], Usage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	if err != nil {
		return err
	}
	box, err := issuing.Issue(siptest.Leaf{Names: []string{boxFQDN}})
	if err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(o.file("root.pem"), root.PEM(), 0o600),
		os.WriteFile(o.file("proxies.pem"), proxies.CertPEM, 0o600),
		os.WriteFile(o.file("proxies.key"), proxies.KeyPEM, 0o600),
		os.WriteFile(o.file("box.pem"), box.CertPEM, 0o600),
		os.WriteFile(o.file("box.key"), box.KeyPEM, 0o600),
	)
}

// readKeys returns the proxies' certificate and the root that the box must chain to.
func readKeys(o *options) (*siptest.Certificate, *x509.CertPool, error) {
	read := func(name string) []byte {
		b, err := os.ReadFile(o.file(name))
		if err != nil {
			return nil
		}
		return b
	}
	certificate, err := siptest.LoadCertificate(read("proxies.pem"), read("proxies.key"))
	if err != nil {
		return nil, nil, fmt.Errorf("keys in %s (made by branchsim prepare): %w", o.Dir, err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(read("root.pem")) {
		return nil, nil, fmt.Errorf("%s: no certificate", o.file("root.pem"))
	}
	return certificate, roots, nil
}

// proxies are the three names, all at the cloud's address on ports of their own.
func (o *options) proxies() []siptest.Proxy {
	var list []siptest.Proxy
	for i, name := range siptest.ProxyNames {
		list = append(list, siptest.Proxy{Name: name, Listen: netip.AddrPortFrom(o.Cloud, o.SIP+uint16(i))})
	}
	return list
}

var configTemplate = template.Must(template.New("edged.toml").Parse(`# A branch on this workstation, written by branchsim prepare.
[box]
name = "branch"
country = "de"
area_code = "30"
http = "{{.HTTP}}"
state = {{printf "%q" .State}}
drain_timeout = "5s"

[[realm]]
name = "lan"
address = "{{.LAN}}"
ports = "{{.Ports}}"
{{- if .BoxLAN}}
interface = "{{.BoxLAN}}"
{{- end}}

[[realm]]
name = "wan"
address = "{{.WAN}}"
ports = "{{.Ports}}"
cloud = true
{{- if .BoxWAN}}
interface = "{{.BoxWAN}}"
{{- end}}

[[teams]]
name = "teams"
fqdn = "{{.FQDN}}"
listen = "{{.WAN}}:{{.SIP}}"
source = "{{.WAN}}"
tls.certificate = {{printf "%q" .Certificate}}
tls.key = {{printf "%q" .Key}}
tls.roots = {{printf "%q" .Roots}}
proxies = [{{range $i, $p := .Proxies}}{{if $i}}, {{end}}"{{$p.Name}}:{{$p.Listen.Port}}"{{end}}]
allow = ["{{.Cloud}}/32"]
bypass = true
internal_realm = "lan"
external_realm = "wan"
# After a move the trunk refuses new calls for a while; here the next call follows soon.
failover.refuse_for = "{{.RefuseFor}}"

[teams.resolve]
{{- range .Proxies}}
"{{.Name}}" = "{{.Listen.Addr}}"
{{- end}}

[[card]]
name = "card"
device = {{printf "%q" .TTY}}

[[line]]
name = "reception"
card = "card"
channel = 0
kind = "fxs"
number = "{{.Reception}}"
display = "Reception"

[[line]]
name = "workshop"
card = "card"
channel = 1
kind = "fxs"
number = "{{.Workshop}}"
display = "Workshop"

[[line]]
name = "exchange"
card = "card"
channel = 2
kind = "fxo"

[[route]]
name = "reception"
match = "{{.Reception}}"
to = ["line:reception"]

[[route]]
name = "workshop"
match = "{{.Workshop}}"
to = ["line:workshop"]

[[route]]
name = "teams-users"
match = "+4930555*"
to = ["teams:teams"]

[[route]]
name = "out"
match = "+*"
from = ["reception", "workshop", "teams"]
to = ["line:exchange"]

[emergency]
numbers = ["110", "112"]
to = ["line:exchange"]
{{if or .BoxLAN .BoxWAN}}
[qos]
interfaces = [{{if .BoxLAN}}"{{.BoxLAN}}"{{end}}{{if and .BoxLAN .BoxWAN}}, {{end}}{{if .BoxWAN}}"{{.BoxWAN}}"{{end}}]
{{end}}
[cdr]
file = {{printf "%q" .CDR}}
`))

func configuration(o *options) ([]byte, error) {
	var b bytes.Buffer
	err := configTemplate.Execute(&b, map[string]any{
		"HTTP": o.HTTP, "State": o.file("state"), "LAN": o.LAN, "WAN": o.WAN, "Ports": o.Ports, "BoxLAN": o.BoxLAN, "BoxWAN": o.BoxWAN,
		"FQDN": boxFQDN, "SIP": o.SIP, "Certificate": o.file("box.pem"), "Key": o.file("box.key"), "Roots": o.file("root.pem"),
		"Proxies": o.proxies(), "Cloud": o.Cloud, "TTY": o.tty(), "Reception": receptionNumber, "Workshop": workshopNumber, "CDR": o.file("cdr.jsonl"),
		"RefuseFor": o.RefuseFor,
	})
	return b.Bytes(), err
}
