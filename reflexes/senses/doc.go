// Package senses turns what happens on a host into facts: whether a copy
// answers its checks. It looks and reports; what follows is decided elsewhere.
package senses
