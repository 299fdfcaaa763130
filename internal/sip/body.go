package sip

import (
	"bytes"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"net/textproto"
	"strings"

	"localloop/internal/sdp"
)

var errBody = errors.New("body holds no session description")

// sdpBody finds the session description in a body: alone, or as a part of a
// multipart body beside a location (C-45, RFC 5621 §3). nil without an error
// means that the message has no body.
func sdpBody(contentType string, body []byte) ([]byte, error) {
	return sdpPart(contentType, body, 2)
}

func sdpPart(contentType string, body []byte, depth int) ([]byte, error) {
	if len(body) == 0 {
		return nil, nil
	}
	kind := mediaType(contentType)
	if kind == "application/sdp" {
		return body, nil
	}
	if !strings.HasPrefix(kind, "multipart/") || depth == 0 {
		return nil, errBody
	}
	_, p, err := mime.ParseMediaType(contentType)
	if err != nil || p["boundary"] == "" {
		return nil, errBody
	}
	r := multipart.NewReader(bytes.NewReader(body), p["boundary"])
	for range maxParts {
		part, err := r.NextRawPart()
		if err != nil {
			return nil, errBody
		}
		content := textproto.MIMEHeader(part.Header).Get("Content-Type")
		// The body as a whole is bounded by maxBody, so each part is.
		text, err := io.ReadAll(part)
		if err != nil {
			return nil, errBody
		}
		if found, err := sdpPart(content, text, depth-1); err == nil && found != nil {
			return found, nil
		}
	}
	return nil, errBody
}

const maxParts = 16

// description reads the description that a message carries; nil if none.
func (m *message) description() (*sdp.Description, error) {
	text, err := sdpBody(m.get("content-type"), m.body)
	if err != nil || text == nil {
		return nil, err
	}
	return sdp.Parse(text)
}
