package bypass

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"

	"github.com/pion/logging"
	"github.com/pion/transport/v2"
)

var errNoNetwork = errors.New("ICE agent has no network of its own")

// noNet is the network that pion sees: none. It also spares the reading of all
// interfaces that pion does for each agent otherwise.
type noNet struct{}

func (noNet) ListenPacket(string, string) (net.PacketConn, error) { return nil, errNoNetwork }
func (noNet) ListenUDP(string, *net.UDPAddr) (transport.UDPConn, error) {
	return nil, errNoNetwork
}
func (noNet) ListenTCP(string, *net.TCPAddr) (transport.TCPListener, error) {
	return nil, errNoNetwork
}
func (noNet) Dial(string, string) (net.Conn, error) { return nil, errNoNetwork }
func (noNet) DialUDP(string, *net.UDPAddr, *net.UDPAddr) (transport.UDPConn, error) {
	return nil, errNoNetwork
}
func (noNet) DialTCP(string, *net.TCPAddr, *net.TCPAddr) (transport.TCPConn, error) {
	return nil, errNoNetwork
}
func (noNet) ResolveIPAddr(string, string) (*net.IPAddr, error)    { return nil, errNoNetwork }
func (noNet) ResolveUDPAddr(string, string) (*net.UDPAddr, error)  { return nil, errNoNetwork }
func (noNet) ResolveTCPAddr(string, string) (*net.TCPAddr, error)  { return nil, errNoNetwork }
func (noNet) Interfaces() ([]*transport.Interface, error)          { return nil, nil }
func (noNet) InterfaceByIndex(int) (*transport.Interface, error)   { return nil, errNoNetwork }
func (noNet) InterfaceByName(string) (*transport.Interface, error) { return nil, errNoNetwork }
func (noNet) CreateDialer(*net.Dialer) transport.Dialer            { return noDialer{} }

type noDialer struct{}

func (noDialer) Dial(string, string) (net.Conn, error) { return nil, errNoNetwork }

// pionLog brings pion's log to slog. What pion warns of is routine here (its own
// requests go nowhere), so it is debug; trace is dropped.
type pionLog struct{ log *slog.Logger }

// NewLogger is logging.LoggerFactory.
func (p pionLog) NewLogger(scope string) logging.LeveledLogger {
	return pionLog{p.log.With("scope", scope)}
}

func (p pionLog) printf(level slog.Level, format string, args []any) {
	if p.log.Enabled(context.Background(), level) {
		p.log.Log(context.Background(), level, fmt.Sprintf(format, args...))
	}
}

func (p pionLog) print(level slog.Level, msg string) { p.log.Log(context.Background(), level, msg) }

func (p pionLog) Trace(string)              {}
func (p pionLog) Tracef(string, ...any)     {}
func (p pionLog) Debug(msg string)          { p.print(slog.LevelDebug, msg) }
func (p pionLog) Debugf(f string, v ...any) { p.printf(slog.LevelDebug, f, v) }
func (p pionLog) Info(msg string)           { p.print(slog.LevelDebug, msg) }
func (p pionLog) Infof(f string, v ...any)  { p.printf(slog.LevelDebug, f, v) }
func (p pionLog) Warn(msg string)           { p.print(slog.LevelDebug, msg) }
func (p pionLog) Warnf(f string, v ...any)  { p.printf(slog.LevelDebug, f, v) }
func (p pionLog) Error(msg string)          { p.print(slog.LevelWarn, msg) }
func (p pionLog) Errorf(f string, v ...any) { p.printf(slog.LevelWarn, f, v) }
