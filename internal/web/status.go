package web

import "time"

// Status is what the box shows of itself at one moment: on the page, as JSON,
// and to `edged status`. It holds no secret.
type Status struct {
	Box     string        `json:"box"`
	Version string        `json:"version"`
	Since   time.Time     `json:"since"`
	Now     time.Time     `json:"now"`
	Config  ConfigState   `json:"config"`
	Trunks  []Trunk       `json:"trunks"`
	Lines   []Line        `json:"lines"`
	Cards   []Card        `json:"cards"`
	Calls   []Call        `json:"calls"`
	Last    []Record      `json:"lastCalls"`
	Marks   Marks         `json:"marks"`
	Media   Media         `json:"media"`
	Links   []Link        `json:"links"`
	Checks  []HealthCheck `json:"checks"`
}

// ConfigState says which configuration is in use and whether a newer one was refused.
type ConfigState struct {
	File    string    `json:"file"`
	Loaded  time.Time `json:"loaded"`
	Refused string    `json:"refused,omitempty"` // why the last reload was refused; empty if it was not
}

// Trunk is the state of one trunk.
type Trunk struct {
	Name        string    `json:"name"`
	Kind        string    `json:"kind"` // teams or sip
	Up          bool      `json:"up"`
	Why         string    `json:"why,omitempty"`
	Refusing    string    `json:"refusing,omitempty"` // why new calls get 503 at present
	Peers       []Peer    `json:"peers"`
	Certificate time.Time `json:"certificateExpires,omitzero"`
	// Dropped counts what was not taken from the network, by reason: malformed
	// (messages), untrusted (connections and datagrams from elsewhere), handshake
	// (TLS), stray (responses that nobody waited for), panic.
	Dropped map[string]uint64 `json:"dropped,omitempty"`
}

// Peer is one proxy or host of a trunk.
type Peer struct {
	Name   string    `json:"name"`
	Up     bool      `json:"up"`
	Last   time.Time `json:"lastAnswer,omitzero"`
	Region string    `json:"region,omitempty"`
	Why    string    `json:"why,omitempty"`
}

// Line is the state of one analog line.
type Line struct {
	Name   string `json:"name"`
	Card   string `json:"card"`
	Kind   string `json:"kind"`
	Number string `json:"number"`
	State  string `json:"state"`
	Hook   string `json:"hook"`
	Link   bool   `json:"link"` // the card answers
	Fault  string `json:"fault,omitempty"`
}

// Card is the link to one line card.
type Card struct {
	Name     string `json:"name"`
	Up       bool   `json:"up"`
	Fault    string `json:"fault,omitempty"`
	Firmware string `json:"firmware,omitempty"`
	Sessions uint64 `json:"sessions"` // begun
	// Dropped counts frames that were not used, by reason: bad (check sequence,
	// length, framing; since the port was opened), room, malformed.
	Dropped map[string]uint64 `json:"dropped"`
}

// Call is one live call.
type Call struct {
	ID        string    `json:"id"`
	Source    string    `json:"source"`
	Target    string    `json:"target"`
	Calling   string    `json:"calling"`
	Called    string    `json:"called"`
	Emergency bool      `json:"emergency"`
	State     string    `json:"state"`
	Start     time.Time `json:"start"`
	Answer    time.Time `json:"answer,omitzero"`
}

// Record is one call that has ended, in short.
type Record struct {
	ID        string    `json:"id"`
	Start     time.Time `json:"start"`
	Seconds   float64   `json:"seconds"`
	Source    string    `json:"source"`
	Target    string    `json:"target"`
	Calling   string    `json:"calling"`
	Called    string    `json:"called"`
	Cause     string    `json:"cause"`
	Reason    string    `json:"reason,omitempty"`
	MediaPath string    `json:"mediaPath,omitempty"` // lan or cloud, of the leg that is not a line
	MOS       *float64  `json:"mos"`                 // worst leg; null if it could not be estimated
	Moves     int       `json:"moves"`
}

// Marks is the state of the DSCP marks. Applied is false with a reason when the
// kernel was not told to classify and count, for want of privilege for example;
// marks set on sockets do not need it.
type Marks struct {
	Voice      string          `json:"voice"`
	Signalling string          `json:"signalling"`
	Interfaces []InterfaceMark `json:"interfaces"`
}

// InterfaceMark is what one interface really sent.
type InterfaceMark struct {
	Interface string   `json:"interface"`
	Applied   bool     `json:"applied"`
	Why       string   `json:"why,omitempty"`
	Marked    uint64   `json:"voiceMarked"`
	Unmarked  uint64   `json:"voiceUnmarked"`
	Share     *float64 `json:"voiceShare"` // 0–1; null before the first voice packet
	Signal    uint64   `json:"signallingMarked"`
}

// Media is the voice engine as a whole.
type Media struct {
	Legs    int               `json:"legs"`
	Realms  []MediaRealm      `json:"realms"`
	Dropped map[string]uint64 `json:"dropped"` // received packets that were not used, by reason
}

// MediaRealm counts the media packets (RTP, RTCP, STUN) of one realm.
type MediaRealm struct {
	Name      string `json:"name"`
	Sent      uint64 `json:"sent"`
	Received  uint64 `json:"received"`
	PortsFree int    `json:"portsFree"` // pairs
}

// Link is one network interface.
type Link struct {
	Name string `json:"name"`
	Up   bool   `json:"up"`
}

// HealthCheck is one row of /healthz.
type HealthCheck struct {
	Name string `json:"name"`
	OK   bool   `json:"ok"`
	Why  string `json:"why,omitempty"`
}
