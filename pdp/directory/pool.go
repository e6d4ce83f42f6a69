package directory

import (
	"errors"
	"hash/maphash"
	"math"
)

// pool holds distinct texts, each under a number that counts from 0, in two blocks without pointers.
type pool struct {
	text string
	ends []uint32 // of each text
}

func (p *pool) len() int { return len(p.ends) }

// at answers a text without copying it.
func (p *pool) at(n uint32) string {
	from := uint32(0)
	if n > 0 {
		from = p.ends[n-1]
	}
	return p.text[from:p.ends[n]]
}

func (p *pool) bytes() int { return len(p.text) + 4*cap(p.ends) }

// place spreads the upper halves of hashes over a table of any size.
func place(half uint64, size int) int {
	return int(half * uint64(size) >> 32) //nolint:gosec // less than size
}

// poolBuilder makes a pool.
type poolBuilder struct {
	seed  maphash.Seed
	text  []byte
	ends  []uint32
	table []uint64 // half of a hash, and number+1, at the place that the half names, or at the next free one; 0 is free
}

func newPool(hint int) *poolBuilder {
	return &poolBuilder{seed: maphash.MakeSeed(), ends: make([]uint32, 0, hint), table: make([]uint64, hint+hint/3+8)}
}

// errFull is a pool whose texts are longer together than its numbers can tell.
var errFull = errors.New("larger than 4 GiB")

// put answers the number of a text, and whether it is new.
func (b *poolBuilder) put(s []byte) (n uint32, isNew bool, err error) {
	half := maphash.Bytes(b.seed, s) >> 32
	i, n, found := b.look(s, half)
	if found {
		return n, false, nil
	}
	if len(b.text)+len(s) > math.MaxUint32 || len(b.ends) >= math.MaxUint32-1 {
		return 0, false, errFull
	}
	if (len(b.ends)+1)*4 > len(b.table)*3 {
		b.table = replaced(b.table, 2*len(b.table)+8)
		i, _, _ = b.look(s, half)
	}
	b.text = append(b.text, s...)
	b.ends = append(b.ends, uint32(len(b.text)))
	b.table[i] = half<<32 | uint64(len(b.ends))
	return uint32(len(b.ends) - 1), true, nil
}

// look answers where s is, or where it would go.
func (b *poolBuilder) look(s []byte, half uint64) (i int, n uint32, found bool) {
	for i = place(half, len(b.table)); ; {
		at := b.table[i]
		if at == 0 {
			return i, 0, false
		}
		if at>>32 == half && string(b.at(uint32(at)-1)) == string(s) { //nolint:gosec // the other half
			return i, uint32(at) - 1, true //nolint:gosec // as above
		}
		if i++; i == len(b.table) {
			i = 0
		}
	}
}

func (b *poolBuilder) at(n uint32) []byte {
	from := uint32(0)
	if n > 0 {
		from = b.ends[n-1]
	}
	return b.text[from:b.ends[n]]
}

// seal answers the pool, in blocks that are as large as they need be.
func (b *poolBuilder) seal() pool {
	return pool{text: string(b.text), ends: fitted(b.ends)}
}

func fitted[T any](s []T) []T {
	if cap(s)-len(s) < len(s)/16 {
		return s
	}
	out := make([]T, len(s))
	copy(out, s)
	return out
}
