// Package arch holds no code, only the tests that keep the architecture: who may import whom, and how small the edge binary
// stays. The rules are explained in docs/ARCHITECTURE.md.
package arch
