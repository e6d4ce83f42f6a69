package directory

import (
	"encoding/binary"
	"hash/maphash"
	"iter"
	"math"
)

// numbers is what an index holds of a name. Of a subject: its grants in layer.granted, or gone, and its attributes in layer.known.
type numbers struct{ grants, attrs uint32 }

// index finds numbers by name, in two blocks without pointers. The numbers lie beside their name, so that a look-up waits for
// memory twice, however many names there are.
type index struct {
	seed    maphash.Seed
	records string   // of each: grants and attrs (4 bytes each), length of the name (uvarint), name
	table   []uint64 // half of a hash, and where the record begins plus 1, at the place that the half names, or at the next free one; 0 is free
	count   int
}

func (x *index) bytes() int { return len(x.records) + 8*cap(x.table) }

// at answers the record that begins at a place, and where the next one does.
func (x *index) at(from uint32) (name string, n numbers, next uint32) {
	r := x.records[from:]
	n.grants = uint32(r[0]) | uint32(r[1])<<8 | uint32(r[2])<<16 | uint32(r[3])<<24
	n.attrs = uint32(r[4]) | uint32(r[5])<<8 | uint32(r[6])<<16 | uint32(r[7])<<24
	d := decoder{rest: r[8:]}
	name = d.take(d.number())
	return name, n, from + uint32(len(r)-len(d.rest)) //nolint:gosec // within records
}

func (x *index) find(name string) (numbers, bool) {
	if len(x.table) == 0 {
		return numbers{}, false
	}
	half := maphash.String(x.seed, name) >> 32
	for i := place(half, len(x.table)); ; {
		at := x.table[i]
		if at == 0 {
			return numbers{}, false
		}
		if at>>32 == half { // another record is seldom looked at
			if found, n, _ := x.at(uint32(at) - 1); found == name { //nolint:gosec // the other half
				return n, true
			}
		}
		if i++; i == len(x.table) {
			i = 0
		}
	}
}

// all answers every name and its numbers, in the order in which they were put.
func (x *index) all() iter.Seq2[string, numbers] {
	return func(yield func(string, numbers) bool) {
		for from, i := uint32(0), 0; int(from) < len(x.records); i++ {
			name, n, next := x.at(from)
			if !yield(name, n) {
				return
			}
			from = next
			breathe(i)
		}
	}
}

// indexBuilder makes an index.
type indexBuilder struct {
	seed    maphash.Seed
	records []byte
	table   []uint64
	count   int
}

func newIndex(hint int) *indexBuilder {
	return &indexBuilder{seed: maphash.MakeSeed(), table: make([]uint64, hint+hint/3+8), records: make([]byte, 0, 20*hint)}
}

// put adds a name, and answers whether it is new.
func (b *indexBuilder) put(name string, n numbers) (isNew bool, err error) {
	if (b.count+1)*4 > len(b.table)*3 {
		b.table = replaced(b.table, 2*len(b.table)+8)
	}
	half := maphash.String(b.seed, name) >> 32
	i := place(half, len(b.table))
	for b.table[i] != 0 {
		if at := b.table[i]; at>>32 == half && b.nameAt(uint32(at)-1) == name { //nolint:gosec // the other half
			return false, nil
		}
		if i++; i == len(b.table) {
			i = 0
		}
	}
	from := len(b.records)
	if from+len(name)+32 > math.MaxUint32 {
		return false, errFull
	}
	b.records = binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(b.records, n.grants), n.attrs)
	b.records = append(binary.AppendUvarint(b.records, uint64(len(name))), name...)
	b.table[i] = half<<32 | uint64(from+1) //nolint:gosec // less than 4 GiB
	b.count++
	return true, nil
}

// set changes the numbers of a name that is there.
func (b *indexBuilder) set(name string, n numbers) {
	half := maphash.String(b.seed, name) >> 32
	for i := place(half, len(b.table)); b.table[i] != 0; {
		if at := b.table[i]; at>>32 == half && b.nameAt(uint32(at)-1) == name { //nolint:gosec // the other half
			record := b.records[uint32(at)-1:] //nolint:gosec // as above
			binary.LittleEndian.PutUint32(record, n.grants)
			binary.LittleEndian.PutUint32(record[4:], n.attrs)
			return
		}
		if i++; i == len(b.table) {
			i = 0
		}
	}
}

func (b *indexBuilder) nameAt(from uint32) string {
	size, n := binary.Uvarint(b.records[from+8:])
	start := from + 8 + uint32(n) //nolint:gosec // at most 10
	return string(b.records[start : uint64(start)+size])
}

// replaced is a table of another size with the same entries.
func replaced(old []uint64, size int) []uint64 {
	table := make([]uint64, size)
	for n, at := range old {
		if at != 0 {
			i := place(at>>32, size)
			for table[i] != 0 {
				if i++; i == size {
					i = 0
				}
			}
			table[i] = at
		}
		breathe(n)
	}
	return table
}

// fit is a table that is as large as it need be for so many entries.
func fit(table []uint64, count int) []uint64 {
	if size := count*4/3 + 2; len(table) > size+size/8 {
		return replaced(table, size)
	}
	return table
}

func (b *indexBuilder) seal() index {
	return index{seed: b.seed, records: string(b.records), table: fit(b.table, b.count), count: b.count}
}
