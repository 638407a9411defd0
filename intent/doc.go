// Package intent is the vocabulary in which users declare what a mesh should
// run: apps and reflexes, as plain Go structs.
//
// The same structs are the Go form (see Main), the target of the HCL form
// (package intent/hcl), the JSON that `apply` sends, and the specification that
// the replicated topology stores. There is no second set of types.
//
// A declaration lives through three steps. Written: fields left out are zero.
// Normalized: App.WithDefaults fills every default that the reference
// documents. Validated: Intents.Validate reports everything that is wrong, each
// error with the path of its field. Only normalized, validated intents are
// stored.
//
// The package depends on the standard library alone and holds no clock, no
// randomness and no input or output besides Main.
package intent
