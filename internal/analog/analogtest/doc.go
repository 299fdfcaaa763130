// Package analogtest is the other side of package analog: a serial line card
// with the telephones and the telephone exchange behind it, for tests and for a
// workstation without hardware.
//
// Its main types are Card, which speaks the line-card link (docs/linecard-link.md)
// on a pseudo-terminal or on any io.ReadWriteCloser; Phone, a telephone on an FXS
// channel of a card; and Exchange, a local exchange on an FXO channel. A Card is
// the clock master: its one clock steps phones, exchanges, ring cadences and hook
// debouncing in milliseconds and sends one PCM frame a frame time.
//
// The package imports nothing of the product, so that a fault of ours cannot
// cancel itself out: it has a codec of its own for frames (written from the
// document), for G.711 (ITU-T G.711), tones (ITU-T E.180), DTMF (ITU-T Q.23,
// Q.24), caller ID (ETSI EN 300 659-1, Bell 202 and V.23 modems). Real programs
// judge the package itself; docs/decisions/doubles.md says how.
//
// All methods are safe for concurrent use unless they say otherwise. Time is
// time.Now and timers throughout: inside testing/synctest everything runs in
// virtual time when the card is served over net.Pipe.
//
// Not modelled: line voltages, REN, echo of a real hybrid beyond one delayed
// reflection, modem lines and UART framing errors (a pseudo-terminal has none).
package analogtest
