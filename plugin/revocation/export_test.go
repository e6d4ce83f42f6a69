package revocation

import "github.com/gatehouse-auth/gatehouse/internal/redisx"

// Add puts an entry into the set without a stream.
func (s *Set) Add(r redisx.Revocation) { s.add(r) }

// Sweep drops what has expired.
func (s *Set) Sweep() { s.table.sweep(s.now().Unix()) }
