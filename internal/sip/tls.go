package sip

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"localloop/internal/config"
)

// identity is the key material of one trunk: what we show and whom we believe.
// It may be replaced while connections are up (C-8, C-9): handshakes take what
// is current.
type identity struct {
	files config.TLS
	names []string // one of them must stand in the peer's certificate; none: any
	teams bool
	now   func() time.Time
	state atomic.Pointer[material]
}

type material struct {
	cert  *tls.Certificate
	roots *x509.CertPool // nil: the system's
}

// load reads the files and, if they are good, makes them current.
func (id *identity) load() error {
	m := &material{}
	if id.files.Certificate != "" {
		cert, err := tls.LoadX509KeyPair(id.files.Certificate, id.files.Key)
		if err != nil {
			return fmt.Errorf("read certificate %s: %w", id.files.Certificate, err)
		}
		if cert.Leaf, err = x509.ParseCertificate(cert.Certificate[0]); err != nil {
			return fmt.Errorf("read certificate %s: %w", id.files.Certificate, err)
		}
		m.cert = &cert
	} else if id.teams {
		return errors.New("no certificate configured")
	}
	if id.files.Roots != "" {
		pem, err := os.ReadFile(id.files.Roots)
		if err != nil {
			return fmt.Errorf("read roots: %w", err)
		}
		m.roots = x509.NewCertPool()
		if !m.roots.AppendCertsFromPEM(pem) {
			return fmt.Errorf("read roots %s: no certificate in it", id.files.Roots)
		}
	}
	id.state.Store(m)
	return nil
}

// alarms are things about our certificate that will not work, or soon will not,
// but leave the trunk usable in a laboratory (C-10, C-11, C-12). They depend on
// the time of day.
func (id *identity) alarms(fqdn string) []string {
	if m := id.state.Load(); m != nil && m.cert != nil {
		return id.audit(m.cert, fqdn)
	}
	return nil
}

func (id *identity) audit(cert *tls.Certificate, fqdn string) (alarms []string) {
	leaf := cert.Leaf
	switch left := leaf.NotAfter.Sub(id.now()); {
	case left <= 0:
		alarms = append(alarms, "certificate has ended on "+leaf.NotAfter.UTC().Format(time.DateTime))
	case id.now().Before(leaf.NotBefore):
		alarms = append(alarms, "certificate is not valid before "+leaf.NotBefore.UTC().Format(time.DateTime)+": is the clock right?")
	case left < 30*24*time.Hour:
		alarms = append(alarms, fmt.Sprintf("certificate ends in %d days", int(left.Hours()/24)))
	}
	if !id.teams {
		return alarms
	}
	switch leaf.PublicKey.(type) {
	case *rsa.PublicKey:
	case *ecdsa.PublicKey:
		alarms = append(alarms, "certificate has an ECDSA key: Microsoft's cipher suites for TLS 1.2 need RSA")
	default:
		alarms = append(alarms, "certificate has no RSA key")
	}
	// CheckSignatureFrom would ask whether it may sign others, too.
	if bytes.Equal(leaf.RawIssuer, leaf.RawSubject) && leaf.CheckSignature(leaf.SignatureAlgorithm, leaf.RawTBSCertificate, leaf.Signature) == nil {
		alarms = append(alarms, "certificate is self-signed: Microsoft never accepts that")
	} else if len(cert.Certificate) < 2 {
		alarms = append(alarms, "certificate file holds no intermediate: Microsoft closes silently when the chain is incomplete")
	}
	if err := leaf.VerifyHostname(fqdn); err != nil {
		alarms = append(alarms, fmt.Sprintf("certificate does not cover %s", fqdn))
	}
	return alarms
}

// expiry is when our certificate ends; zero without one.
func (id *identity) expiry() time.Time {
	if m := id.state.Load(); m != nil && m.cert != nil {
		return m.cert.Leaf.NotAfter
	}
	return time.Time{}
}

// suites of TLS 1.2: what Microsoft lists and Go has in GCM, and the same with
// ECDSA, for its own leaf may get such a key (two of its roots have).
var suites = []uint16{
	tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
	tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
}

// server is the configuration of a listener. Peers must show a certificate when
// we know whom to believe. RequireAnyClientCert with our own check, because Go's
// own demands a usage "client" that Microsoft's certificates no longer have
// since 2026 (C-4, C-6). Tickets are off: they would keep an old identity alive.
func (id *identity) server() *tls.Config {
	c := &tls.Config{
		MinVersion:             tls.VersionTLS12,
		CipherSuites:           suites,
		SessionTicketsDisabled: true,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return id.certificate()
		},
	}
	if id.teams || id.files.Roots != "" {
		c.ClientAuth = tls.RequireAnyClientCert
		c.VerifyConnection = func(s tls.ConnectionState) error { return id.verify(s, id.names) }
	}
	return c
}

// client is the configuration of a connection of ours to host. Our certificate
// is always sent, even if the peer's list of issuers lacks ours: Go would send
// an empty one (C-3).
func (id *identity) client(host string) *tls.Config {
	names := id.names
	if len(names) == 0 {
		names = []string{host}
	}
	return &tls.Config{
		MinVersion:   tls.VersionTLS12,
		CipherSuites: suites,
		ServerName:   host,
		// Not less but other verification: see verify.
		InsecureSkipVerify: true,
		VerifyConnection:   func(s tls.ConnectionState) error { return id.verify(s, names) },
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			if m := id.state.Load(); m.cert != nil {
				return m.cert, nil
			}
			return &tls.Certificate{}, nil
		},
	}
}

func (id *identity) certificate() (*tls.Certificate, error) {
	if m := id.state.Load(); m != nil && m.cert != nil {
		return m.cert, nil
	}
	return nil, errors.New("no certificate")
}

// verify checks a peer's chain against our roots, whatever usage the certificate
// is meant for, and that it holds one of the names (C-4, C-5).
func (id *identity) verify(s tls.ConnectionState, names []string) error {
	if len(s.PeerCertificates) == 0 {
		return errors.New("peer shows no certificate")
	}
	leaf := s.PeerCertificates[0]
	between := x509.NewCertPool()
	for _, c := range s.PeerCertificates[1:] {
		between.AddCert(c)
	}
	_, err := leaf.Verify(x509.VerifyOptions{
		Roots:         id.state.Load().roots,
		Intermediates: between,
		CurrentTime:   id.now(),
		KeyUsages:     []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	if err != nil {
		return fmt.Errorf("verify peer %q: %w", leaf.Subject.CommonName, err)
	}
	if len(names) == 0 {
		return nil
	}
	for _, name := range names {
		if leaf.VerifyHostname(name) == nil {
			return nil
		}
	}
	return fmt.Errorf("verify peer %q: holds none of the names %q", leaf.Subject.CommonName, names)
}
