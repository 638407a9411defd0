package api

// Signing answers GET /v1/signing: whose signatures of packages count, and
// whether a package must have one.
type Signing struct {
	Required bool         `json:"required"`
	Keys     []SigningKey `json:"keys"` // by name
}

// SigningKey is a public key that the mesh trusts.
type SigningKey struct {
	Name string `json:"name"`
	Kind string `json:"kind"` // minisign or ssh-ed25519
	ID   string `json:"id"`   // as the tool that made it calls it
	Key  string `json:"key"`  // one line
}

// SigningRequest changes whether packages must be signed.
type SigningRequest struct {
	Required bool `json:"required"`
}

// TrustRequest adds a key: what is in minisign.pub, or a line ssh-ed25519 AAAA….
type TrustRequest struct {
	Name string `json:"name"`
	Key  string `json:"key"`
}

// DistrustResponse answers DELETE /v1/signing/keys/{name}: the apps of which a
// kept version was let in by that key. They run on.
type DistrustResponse struct {
	Apps []string `json:"apps"`
}

// SignatureRequest brings a signature of a package.
type SignatureRequest struct {
	Signature string `json:"signature"`     // the file that minisign -S or ssh-keygen -Y sign wrote
	URL       string `json:"url,omitempty"` // where the package is had if no host has it
}

// SignatureResponse answers POST /v1/artifacts/{digest}/signatures. While Waiting
// says what for, nothing is decided: ask again. Stuck says that it gets nowhere.
type SignatureResponse struct {
	Digest   string   `json:"digest"`
	SignedBy []string `json:"signed_by"`
	Waiting  string   `json:"waiting,omitempty"`
	Stuck    bool     `json:"stuck,omitempty"`
}

// MeshSigning is what GET /v1/mesh says of signatures; nil where no key is
// trusted.
type MeshSigning struct {
	Required bool     `json:"required"`
	Keys     []string `json:"keys"` // names
}
