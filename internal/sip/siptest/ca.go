package siptest

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"time"
)

// CA is a certificate authority made in memory. RSA keys, as Teams wants them
// for TLS 1.2.
type CA struct {
	cert   *x509.Certificate
	key    *rsa.PrivateKey
	parent *CA
}

// Certificate is a leaf with its key.
type Certificate struct {
	TLS tls.Certificate
	// CertPEM is the leaf and its intermediates, KeyPEM the private key (PKCS#8).
	CertPEM, KeyPEM []byte
}

// Leaf says what is to be issued.
type Leaf struct {
	Names []string // DNS names; the first is the common name too
	// Usage of the key; default server and client authentication. Microsoft's
	// own proxies have server authentication only since 2026.
	Usage []x509.ExtKeyUsage
	// From and To default to an hour ago and a year ahead.
	From, To time.Time
}

// NewCA makes a root.
func NewCA(name string) (*CA, error) { return newCA(name, nil) }

// Intermediate makes an authority under this one; leaves of it carry it in
// their chain.
func (ca *CA) Intermediate(name string) (*CA, error) { return newCA(name, ca) }

func newCA(name string, parent *CA) (*CA, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, fmt.Errorf("CA key: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: name, Organization: []string{"Localloop test"}},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(10, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	ca := &CA{key: key, parent: parent}
	signer, signerKey := template, key
	if parent != nil {
		signer, signerKey = parent.cert, parent.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, signer, key.Public(), signerKey)
	if err != nil {
		return nil, fmt.Errorf("CA certificate: %w", err)
	}
	if ca.cert, err = x509.ParseCertificate(der); err != nil {
		return nil, fmt.Errorf("CA certificate: %w", err)
	}
	return ca, nil
}

func serial() *big.Int {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		panic(err) // crypto/rand does not fail
	}
	return n
}

// PEM returns the authority's own certificate.
func (ca *CA) PEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.cert.Raw})
}

// Pool returns a pool with this authority alone.
func (ca *CA) Pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(ca.cert)
	return p
}

// Issue makes a key and a certificate for it.
func (ca *CA) Issue(l Leaf) (*Certificate, error) {
	if len(l.Names) == 0 {
		return nil, fmt.Errorf("issue certificate: no name")
	}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, fmt.Errorf("issue certificate: %w", err)
	}
	if l.Usage == nil {
		l.Usage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	}
	if l.From.IsZero() {
		l.From = time.Now().Add(-time.Hour)
	}
	if l.To.IsZero() {
		l.To = time.Now().AddDate(1, 0, 0)
	}
	template := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: l.Names[0]}, DNSNames: l.Names,
		NotBefore: l.From, NotAfter: l.To, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment, ExtKeyUsage: l.Usage,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.cert, key.Public(), ca.key)
	if err != nil {
		return nil, fmt.Errorf("issue certificate: %w", err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("issue certificate: %w", err)
	}
	c := &Certificate{
		TLS:     tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key},
		CertPEM: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		KeyPEM:  pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}),
	}
	for a := ca; a.parent != nil; a = a.parent {
		c.TLS.Certificate = append(c.TLS.Certificate, a.cert.Raw)
		c.CertPEM = append(c.CertPEM, a.PEM()...)
	}
	return c, nil
}

// LoadCertificate reads back what Issue returned.
func LoadCertificate(certPEM, keyPEM []byte) (*Certificate, error) {
	t, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return nil, fmt.Errorf("load certificate: %w", err)
	}
	return &Certificate{TLS: t, CertPEM: certPEM, KeyPEM: keyPEM}, nil
}
