// Package expr compiles the expressions that stand in declarations. They are in
// CEL, the Common Expression Language, wrapped so that nothing outside this
// package depends on its library.
//
// An expression is refused when it is declared, with the line and column of
// what is wrong in it, and not when it is used: syntax, types, size and the
// greatest cost that its evaluation can have are known by then. Evaluation is
// bounded once more as it runs.
//
// The package is pure: equal expressions over equal labels give equal results
// on every host. Compiled expressions are immutable and may be used by several
// goroutines at once.
package expr
