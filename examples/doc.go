// Package examples holds declarations to start from. Each directory has the
// same intents twice: NAME.hcl, the file form, and main.go, the Go form.
//
//	ganglion apply examples/hello/hello.hcl
//	ganglion apply ./examples/hello
//
// The tests of the package hold the two forms to be equal and valid.
package examples
