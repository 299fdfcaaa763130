package sip

import (
	"strconv"
	"strings"

	"localloop/internal/call"
)

// phrases are reason phrases of RFC 3261 §21 for the codes that we send.
var phrases = map[int]string{
	100: "Trying", 180: "Ringing", 183: "Session Progress", 200: "OK",
	400: "Bad Request", 403: "Forbidden", 404: "Not Found", 405: "Method Not Allowed", 406: "Not Acceptable",
	408: "Request Timeout", 413: "Request Entity Too Large", 415: "Unsupported Media Type",
	416: "Unsupported URI Scheme", 420: "Bad Extension", 480: "Temporarily Unavailable",
	481: "Call/Transaction Does Not Exist", 482: "Loop Detected", 483: "Too Many Hops", 484: "Address Incomplete",
	486: "Busy Here", 487: "Request Terminated", 488: "Not Acceptable Here", 491: "Request Pending",
	500: "Server Internal Error", 501: "Not Implemented", 502: "Bad Gateway", 503: "Service Unavailable",
	504: "Server Time-out", 505: "Version Not Supported", 603: "Decline", 606: "Not Acceptable",
}

func phrase(status int) string {
	if p, ok := phrases[status]; ok {
		return p
	}
	return "Status " + strconv.Itoa(status)
}

// q850 is the cause of a final response that gives none, RFC 3398 §8.2.6.1.
var q850 = map[int]int{
	400: 41, 401: 21, 402: 21, 403: 21, 404: 1, 405: 63, 406: 79, 407: 21, 408: 102, 410: 22, 413: 127, 414: 127,
	415: 79, 416: 127, 420: 127, 421: 127, 423: 127, 480: 18, 481: 41, 482: 25, 483: 25, 484: 28, 485: 1, 486: 17,
	487: 31, 488: 88, 491: 41, 493: 41, 500: 41, 501: 79, 502: 38, 503: 41, 504: 102, 505: 127, 513: 127, 600: 17,
	603: 21, 604: 1, 606: 88,
}

// causeOf makes a Cause of a final response. A Q.850 cause in Reason (RFC 3326)
// is better than the table, with one exception: Microsoft and some PBXs send
// busy with 34 or 63, which carriers take for congestion and retry (C-60).
func causeOf(status int, m *message) call.Cause {
	c := call.Cause{Q850: q850[status], Status: status}
	if m != nil {
		q, text := reasonQ850(m)
		if q != 0 {
			c.Q850 = q
		}
		c.Text = text
		if c.Text == "" {
			c.Text = clip(m.reason)
		}
	}
	switch {
	case status < 400:
		// We follow no redirection: it would let a peer choose whom we call.
		c.Q850, c.Status = 23, 480
	case status == 486 || status == 600:
		c.Q850, c.Status = 17, 486
	case status == 603:
		// Decline is final wherever it came from (C-59).
		c.Q850, c.Status = 21, 603
	case status == 401 || status == 407:
		// The trunk wants credentials that we do not have: nothing the caller
		// could answer to.
		c.Status = 403
	}
	if c.Q850 == 0 {
		switch {
		case status >= 600:
			c.Q850 = 21
		case status >= 500:
			c.Q850 = 41
		default:
			c.Q850 = 31
		}
	}
	return c
}

// reasonQ850 reads Reason: Q.850;cause=N;text="…", RFC 3326 §2.
func reasonQ850(m *message) (cause int, text string) {
	for _, v := range m.list("reason") {
		protocol, rest, _ := strings.Cut(v, ";")
		p, err := parseParams(";" + rest)
		if err != nil || !strings.EqualFold(strings.TrimSpace(protocol), "Q.850") {
			continue
		}
		s, _ := p.get("cause")
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 || n > 127 {
			continue
		}
		t, _ := p.get("text")
		return n, clip(unquote(t))
	}
	return 0, ""
}

// answeredElsewhere reports whether a CANCEL says that another party answered
// (RFC 3326 §2, C-62).
func answeredElsewhere(m *message) bool {
	for _, v := range m.list("reason") {
		protocol, rest, _ := strings.Cut(v, ";")
		p, err := parseParams(";" + rest)
		if err != nil || !strings.EqualFold(strings.TrimSpace(protocol), "SIP") {
			continue
		}
		if c, _ := p.get("cause"); c == "200" {
			return true
		}
	}
	return false
}

// reasonField says why in a request or final response, RFC 3326. A CANCEL of a
// call that was answered elsewhere keeps it out of the list of missed calls
// (C-62).
func reasonField(c call.Cause, cancel bool) field {
	if cancel && c.Q850 == call.AnsweredElsewhere.Q850 {
		return field{"Reason", `SIP;cause=200;text="Call completed elsewhere"`}
	}
	v := "Q.850;cause=" + strconv.Itoa(max(1, min(c.Q850, 127)))
	if c.Text != "" {
		v += ";text=" + quote(clip(c.Text))
	}
	return field{"Reason", v}
}

// finalStatus is the response that refuses a call for this cause. Causes that
// ended a call rather than refused it have no status of their own.
func finalStatus(c call.Cause) int {
	if c.Status >= 400 && c.Status < 700 {
		return c.Status
	}
	return 480
}
