// Package api is what travels between agents and between a client and its
// agent: the requests and answers of the HTTP API as Go structs, the errors,
// and a client. It holds no machinery of the agent.
//
// All paths begin with /v1. Bodies are JSON; streams are NDJSON, one value a
// line. Every agent serves every public path: what only the leader can answer
// is handed on to it by the server side.
package api

import (
	"time"

	"github.com/ganglion-mesh/ganglion/consensus/topology"
	"github.com/ganglion-mesh/ganglion/intent"
	"github.com/ganglion-mesh/ganglion/reflexes"
)

// Limits on what the API reads.
const (
	MaxBody   = 1 << 20 // bytes of a request body
	MaxReport = 4 << 20 // bytes of a host's report
)

// Headers of the API.
const (
	HeaderHops    = "Ganglion-Hops"    // how often a request was handed on
	HeaderCaller  = "Ganglion-Caller"  // for whom an agent hands a request on
	HeaderHost    = "Ganglion-Host"    // the host that answered
	HeaderRequest = "Ganglion-Request" // idempotency key of a write
	HeaderMissing = "Ganglion-Missing" // a host whose part of the answer is missing; may repeat
	HeaderSeq     = "Ganglion-Seq"     // the event behind which a stream of one host's events begins
	HeaderCursor  = "Ganglion-Cursor"  // moment of a status answer, for ?after= of the next
)

// Mesh is the answer of GET /v1/mesh.
type Mesh struct {
	ID       string   `json:"id"`
	Name     string   `json:"name"`
	Revision uint64   `json:"revision"`
	Leader   string   `json:"leader"`
	Voters   []string `json:"voters"`
	Frozen   *Frozen  `json:"frozen"`
	Held     string   `json:"held,omitempty"` // why the copies of lost hosts stay where they are

	Signing   *MeshSigning `json:"signing,omitempty"`
	Rebalance string       `json:"rebalance"`         // the setting: "off", or "10/10m"
	Balance   string       `json:"balance,omitempty"` // what is done by it, or waited for

	ReflexStage string `json:"reflex_stage"` // the setting: "off", or "2m"
}

// MeshSettings is the body of POST /v1/mesh. What is empty stays as it is.
type MeshSettings struct {
	Rebalance string `json:"rebalance,omitempty"` // "off", "on", or how many copies within how long: "10/10m"

	ReflexStage string `json:"reflex_stage,omitempty"` // "off", "on", or how long each stage has to be calm: "2m"
}

// MeshSet is the answer of POST /v1/mesh.
type MeshSet struct {
	Revision uint64 `json:"revision"`
	MeshSettings
}

// Frozen says that automatic action is stopped, since which epoch and for what.
type Frozen struct {
	Epoch uint64   `json:"epoch"`
	Hard  bool     `json:"hard"`
	Apps  []string `json:"apps"`
}

// FreezeRequest is the body of POST /v1/freeze: of apps, or with none of
// everything. Hard holds restarts in place too.
type FreezeRequest struct {
	Apps []string `json:"apps,omitempty"`
	Hard bool     `json:"hard,omitempty"`
}

// ThawRequest is the body of POST /v1/thaw: what the asking host knows of
// freezes, so that those end too of which the leader has not heard.
type ThawRequest struct {
	Records [][]byte `json:"records,omitempty"`
}

// FreezeState is the answer of GET /v1/local/freeze, POST /v1/freeze and POST
// /v1/thaw: what the host that answers knows.
type FreezeState struct {
	Host    string   `json:"host"`
	Frozen  *Frozen  `json:"frozen"`
	By      string   `json:"by,omitempty"`      // who froze, or thawed, last
	Thawed  uint64   `json:"thawed,omitempty"`  // epoch of the last thaw
	Records [][]byte `json:"records,omitempty"` // signed, for a ThawRequest
}

// Host is one line of GET /v1/hosts.
type Host struct {
	Name   string            `json:"name"`
	Addr   string            `json:"addr"`
	Status string            `json:"status"` // alive, suspect, failed or left
	Drain  topology.Drain    `json:"drain"`
	Role   string            `json:"role"` // leader, voter or agent
	Labels map[string]string `json:"labels"`
	Vitals Vitals            `json:"vitals"`
	Copies int               `json:"copies"`
	// Addresses are those that the host has taken over, by address.
	Addresses []HostAddress `json:"addresses,omitempty"`
	Note      string        `json:"note,omitempty"` // why the host cannot work as it should
}

// HostAddress is an address that reflexes of a host have taken over, and the token of
// the lease under which it has it.
type HostAddress struct {
	Address string `json:"address"`
	Token   uint64 `json:"token"`
}

// Vitals are a host's gauges as ratios, and their age. AgeMS is -1 where
// nothing is known.
type Vitals struct {
	CPU      float64 `json:"cpu"`
	Memory   float64 `json:"memory"`
	Disk     float64 `json:"disk"`
	Pressure float64 `json:"pressure"`
	AgeMS    int64   `json:"age_ms"`
}

// Peer is one line of GET /v1/peers: the Raft side of a host.
type Peer struct {
	Name    string `json:"name"`
	Addr    string `json:"addr"`
	Voter   bool   `json:"voter"`
	Leader  bool   `json:"leader"`
	Healthy bool   `json:"healthy"`
}

// ApplyRequest is the body of POST /v1/apply and POST /v1/plan.
type ApplyRequest struct {
	Intents intent.Intents `json:"intents"`
	Set     string         `json:"set,omitempty"`
	Prune   bool           `json:"prune,omitempty"`
	Lose    []string       `json:"lose,omitempty"`  // plan only
	Drain   []string       `json:"drain,omitempty"` // plan only
}

// ApplyResponse tells what was committed.
type ApplyResponse struct {
	Revision uint64            `json:"revision"`
	Changes  []intent.Change   `json:"changes"`
	Versions map[string]string `json:"versions"` // version each named app now rolls to
	// Warnings is what is to be said against reflexes that were declared.
	Warnings []reflexes.Finding `json:"warnings,omitempty"`
	// Staged are the reflexes, as RuleName names them, that are in force on one host
	// first, and Stage for how long each stage has to be calm.
	Staged []string `json:"staged,omitempty"`
	Stage  string   `json:"stage,omitempty"`
}

// AppVersion is one line of GET /v1/apps/{app}/history.
type AppVersion struct {
	Version string     `json:"version"`
	Applied *time.Time `json:"applied"` // by the clock of the host that took it; null: not known
	Outcome string     `json:"outcome"` // under way, done, held, rolledback or superseded
	Why     string     `json:"why,omitempty"`
	Current bool       `json:"current,omitempty"` // the version that the app is to have
	Back    bool       `json:"back,omitempty"`    // asked for by a rollback
	Index   uint64     `json:"index"`             // of the change
}

// RollbackRequest is the body of POST /v1/apps/{app}/rollback.
type RollbackRequest struct {
	To string `json:"to,omitempty"` // a version of the history; empty: the last one that was proved
}

// Endpoint is one line of GET /v1/endpoints.
type Endpoint struct {
	Copy  string         `json:"copy"`
	Host  string         `json:"host"`
	Addr  string         `json:"addr"`
	Ports map[string]int `json:"ports"`
}

// InitRequest is the body of POST /v1/init.
type InitRequest struct {
	Name string `json:"name"`
}

// InitResponse carries what another host needs to join.
type InitResponse struct {
	MeshID string `json:"mesh_id"`
	Name   string `json:"name"`
	Seed   string `json:"seed"`
	Token  string `json:"token"`
}

// JoinRequest is the body of POST /v1/join.
type JoinRequest struct {
	Seeds []string `json:"seeds"`
	Token string   `json:"token"`
}

// JoinResponse tells which mesh the host is now in.
type JoinResponse struct {
	MeshID string `json:"mesh_id"`
	Name   string `json:"name"`
	Host   string `json:"host"`
}

// RemoveRequest is the body of POST /v1/hosts/{host}/remove. Force removes a host
// also without proof of what cannot be looked at.
type RemoveRequest struct {
	Force bool `json:"force,omitempty"`
}

// Removal is how far the removal of a host has come. It is done, or waits for
// something: then it is asked for again.
type Removal struct {
	Host     string   `json:"host"`
	ID       string   `json:"id"` // of the identity that is revoked
	Done     bool     `json:"done"`
	Waiting  string   `json:"waiting,omitempty"`
	Revision uint64   `json:"revision,omitempty"` // at which the host was taken off the roster
	Proved   []string `json:"proved"`             // of copies, files, peer, identity: what is gone for certain
	Unproved []string `json:"unproved"`           // what nobody could look at
}

// TokenRequest is the body of POST /v1/tokens.
type TokenRequest struct {
	Role string `json:"role"`
}

// Token is a new join token. Expires is null: tokens do not expire yet.
type Token struct {
	Token   string     `json:"token"`
	Role    string     `json:"role"`
	Expires *time.Time `json:"expires"`
}

// NATS tells any NATS client how to connect.
type NATS struct {
	URLs     []string `json:"urls"`
	Subjects string   `json:"subjects"` // what to subscribe to
	Embedded bool     `json:"embedded"`
	CA       string   `json:"ca,omitempty"` // PEM file on this host, for TLS clients
	Note     string   `json:"note,omitempty"`
}

// Version is the answer of GET /v1/version.
type Version struct {
	Version string `json:"version"`
	Host    string `json:"host"`
	Mesh    string `json:"mesh,omitempty"` // empty: the agent has no mesh yet
	Driver  string `json:"driver"`
	Pid     int    `json:"pid"`
}

// Report is what a host tells the leader: POST /v1/report. Ages are by the
// host's own monotonic clock at the time of sending.
type Report struct {
	Host       string              `json:"host"`
	HostID     string              `json:"host_id"`
	Seq        uint64              `json:"seq"`         // rises with each report of one agent life
	Boot       string              `json:"boot"`        // made at each agent start
	SliceIndex uint64              `json:"slice_index"` // of the slice that Copies is about; 0: it is not known yet what runs
	Addr       string              `json:"addr"`        // where others reach the copies
	Labels     map[string]string   `json:"labels,omitempty"`
	CPU        float64             `json:"cpu"`    // cores
	Memory     int64               `json:"memory"` // bytes
	PortMin    int                 `json:"port_min"`
	PortMax    int                 `json:"port_max"`
	PortsTaken []int               `json:"ports_taken,omitempty"`
	CanUser    bool                `json:"can_user"`
	Cleared    bool                `json:"cleared,omitempty"` // nothing is left here of any copy, as that slice asked for
	Left       string              `json:"left,omitempty"`    // why something is
	Voter      string              `json:"voter"`             // auto or never
	Kernel     string              `json:"kernel,omitempty"`  // boot id of the host's kernel; leases belong to it
	Ended      []topology.LeaseRef `json:"ended,omitempty"`   // leases of the host under which nothing runs nor ever will
	Wants      []string            `json:"wants,omitempty"`   // addresses that the host would take over, or has
	Copies     []CopyReport        `json:"copies,omitempty"`
	Freeze     string              `json:"freeze,omitempty"`  // digest of what the host knows of the brake
	Freezes    [][]byte            `json:"freezes,omitempty"` // that, if the leader knows something else
	Stages     []topology.StageObs `json:"stages,omitempty"`  // of staged reflexes that the host has
}

// CopyReport is one copy of a Report.
type CopyReport struct {
	ID         string             `json:"id"`
	Version    string             `json:"version"`
	Generation uint64             `json:"generation"`
	State      topology.CopyState `json:"state"`
	Ready      bool               `json:"ready"`
	ReadyMS    int64              `json:"ready_ms"`
	UnreadyMS  int64              `json:"unready_ms,omitempty"` // since it was last ready
	BestMS     int64              `json:"best_ms,omitempty"`    // the longest it was ready on end
	AgeMS      int64              `json:"age_ms"`
	Failed     bool               `json:"failed,omitempty"`
	Done       uint64             `json:"done,omitempty"` // the last generation that ran to completion
	Why        string             `json:"why,omitempty"`
	Pid        int                `json:"pid,omitempty"`
	Restarts   int                `json:"restarts,omitempty"`
	Since      *time.Time         `json:"since,omitempty"`

	LapsedMS  int64  `json:"lapsed_ms,omitempty"` // how long it had been ready when it ended by itself or its checks failed; the longest
	LapsedWhy string `json:"lapsed_why,omitempty"`

	Smoke    uint64              `json:"smoke,omitempty"`     // the run of smoke checks that was asked for last
	SmokeEnd topology.SmokeState `json:"smoke_end,omitempty"` // empty: it goes on
	SmokeWhy string              `json:"smoke_why,omitempty"`
}

// LeaseRequest is the body of POST /v1/lease: a host renews leases of singletons.
type LeaseRequest struct {
	Host   string              `json:"host"`
	Boot   string              `json:"boot"` // of its kernel
	Leases []topology.LeaseRef `json:"leases"`
}

// LeaseResponse names those of them that are good. The host may use them for as
// long as a lease holds, counted from when it sent the request.
type LeaseResponse struct {
	Leases []topology.LeaseRef `json:"leases"`
}

// MaxSettled bounds the loans that one LoanRequest settles, MaxLoanKey its key, and
// MaxLoanRules the reflexes that it is for.
const (
	MaxSettled   = 64
	MaxLoanRules = 64
	MaxLoanKey   = 48
)

// LoanRequest is the body of POST /v1/loan: a host asks for tokens of the budget of
// automatic actions, or with Tokens 0 only for the leader's permit, and says what
// became of earlier loans.
type LoanRequest struct {
	Host   string `json:"host"`
	Boot   string `json:"boot"` // of its kernel
	Tokens int    `json:"tokens"`
	Key    string `json:"key,omitempty"` // under one key at most one loan is made
	// For are the reflexes that want to act: nothing is lent if none is in force on
	// the host.
	For     []topology.RuleRef `json:"for,omitempty"`
	Settled []SettledLoan      `json:"settled,omitempty"`
}

// SettledLoan is a loan that is over, and how much of it was spent.
type SettledLoan struct {
	ID    uint64 `json:"id"`
	Spent int    `json:"spent"`
}

// LoanResponse lends tokens for so long, counted from when the request was sent; or
// none, and says why.
type LoanResponse struct {
	ID     uint64 `json:"id,omitempty"`
	Tokens int    `json:"tokens,omitempty"`
	TimeMS int64  `json:"time_ms,omitempty"`
	Why    string `json:"why,omitempty"`
	Hosts  int    `json:"hosts"` // of the roster
}

// ActNote is the Op of an act that the host does itself, and the log is to know of
// before.
const ActNote = "note"

// ActRequest is the body of POST /v1/act: a reflex of a host asks the leader to do
// what reaches beyond its own copies, and pays with a token of a loan.
type ActRequest struct {
	Host string `json:"host"`
	Loan uint64 `json:"loan"`
	Op   string `json:"op"` // drain_self, evict or note
	App  string `json:"app,omitempty"`
	N    *int   `json:"n,omitempty"` // of evict: this copy alone
	Rule string `json:"rule"`
	// Stage tells the version of a staged reflex, as of topology.RuleRef.
	Stage uint64 `json:"stage,omitempty"`
	Why   string `json:"why"`
	// Chain are the rules whose acts led to it, that of this one last.
	Chain string `json:"chain,omitempty"`
}

// ReportAck answers a Report. The host's watch of its own slice is what moves
// it; the index only tells it that there is news.
type ReportAck struct {
	SliceIndex uint64 `json:"slice_index"`
	Relayed    bool   `json:"relayed,omitempty"` // who answered handed it on to the leader

	Freeze  string   `json:"freeze,omitempty"`  // digest of what the leader knows of the brake
	Freezes [][]byte `json:"freezes,omitempty"` // that, if the host knows something else
}

// VoterRequest is the body of POST /v1/voter: the leader asks a host to start
// its Raft server, so that it can be added to the quorum, or to end one that is
// in no quorum.
type VoterRequest struct {
	Run  bool   `json:"run"`
	Term uint64 `json:"term"` // in which the leader leads
}

// LogChunk is one line of GET /v1/logs: a piece of a copy's output, or why it
// cannot be had.
type LogChunk struct {
	Copy   string `json:"copy"`
	Host   string `json:"host"`
	Stream string `json:"stream,omitempty"` // stdout or stderr
	Data   string `json:"data,omitempty"`
	Error  string `json:"error,omitempty"`
}
