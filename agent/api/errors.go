package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
)

// Code sorts errors by what the caller can do about them.
type Code string

// The codes of errors.
const (
	CodeInvalid  Code = "invalid"   // what was sent is wrong; sending it again fails again
	CodeNotYet   Code = "not_yet"   // understood, but this version does not execute it
	CodeRejected Code = "rejected"  // well-formed, but the state does not allow it
	CodeNotFound Code = "not_found" // no such app, copy or host
	CodeNoLeader Code = "no_leader" // nothing was changed; try again later
	CodeUnknown  Code = "unknown"   // it may or may not have happened: read before retrying
	CodeNoMesh   Code = "no_mesh"   // this agent has no mesh yet
	CodeRemoved  Code = "removed"   // the caller's host is no longer of the mesh
	CodeDenied   Code = "denied"    // the credential does not allow it
	CodeInternal Code = "internal"
)

var statusOf = map[Code]int{
	CodeInvalid: http.StatusBadRequest, CodeNotYet: http.StatusNotImplemented,
	CodeRejected: http.StatusConflict, CodeNotFound: http.StatusNotFound,
	CodeNoLeader: http.StatusServiceUnavailable, CodeUnknown: http.StatusGatewayTimeout,
	CodeNoMesh: http.StatusPreconditionFailed, CodeDenied: http.StatusForbidden,
	CodeRemoved:  http.StatusForbidden,
	CodeInternal: http.StatusInternalServerError,
}

// Error is an error that crosses the API.
type Error struct {
	Code    Code   `json:"code"`
	Message string `json:"message"`
}

func (e *Error) Error() string { return e.Message }

// Errorf makes an Error.
func Errorf(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// CodeOf returns the code of err, CodeInternal if it carries none.
func CodeOf(err error) Code {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return CodeInternal
}

// WriteError answers a request with err.
func WriteError(w http.ResponseWriter, err error) {
	code := CodeOf(err)
	WriteJSON(w, statusOf[code], &Error{Code: code, Message: err.Error()})
}

// WriteJSON answers a request with v.
func WriteJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(v) //nolint:errcheck // the client has gone
}

// readError makes the error that an answer carries.
func readError(resp *http.Response) error {
	body, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	e := &Error{}
	if json.Unmarshal(body, e) != nil || e.Message == "" {
		return Errorf(CodeInternal, "agent answered %s", resp.Status)
	}
	return e
}
