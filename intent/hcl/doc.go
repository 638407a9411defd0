// Package hcl reads the file form of declarations: *.hcl files, parsed by
// hashicorp/hcl into the structs of package intent.
//
// The files hold plain values. Variables, loops, conditions and arithmetic are
// refused: who wants those writes the Go form. The placeholders ${port.NAME},
// ${copy.n}, ${host.name} and ${host.addr} look like interpolation but are kept
// as literal text, because only the host that runs a copy can fill them.
//
// Everything that is wrong is reported with file, line, column and the line
// itself, whether it is the syntax, an unknown attribute, what package intent
// finds invalid or an expression that does not compile.
package hcl
