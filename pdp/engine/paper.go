package engine

import (
	"encoding/binary"
	"math/rand/v2"
	"time"
	"unsafe"

	"github.com/gatehouse-auth/gatehouse/pdp/authzen"
)

// paper is what an answer is written on, its id with it: one piece of memory for both.
type paper struct {
	about authzen.ResponseContext
	id    idText
}

// datedPaper has room for how long the answer holds, where that is not the same for all.
type datedPaper struct {
	paper
	cache authzen.Cache
}

// paper answers a new one; cache is nil where looksAt.cache needs none.
func (e *Engine) paper(s *snapshot) (about *authzen.ResponseContext, id *idText, cache *authzen.Cache) {
	if s == nil || !s.looksAt.time && e.opts.Directory == nil {
		p := &paper{}
		return &p.about, &p.id, nil
	}
	p := &datedPaper{}
	return &p.about, &p.id, &p.cache
}

// idText is the memory of a decision's id.
type idText [36]byte

// newID makes an id, of which the text may be in dst: it must not be written to again. It is a UUIDv7, which need not be secret, and
// asking the kernel for each would cost more than some decisions do.
func (e *Engine) newID(dst *idText, now time.Time) string {
	if e.opts.NewID != nil {
		return e.opts.NewID()
	}
	dst.write(now.UnixMilli(), rand.Uint64(), rand.Uint64()) //nolint:gosec // see above
	return unsafe.String(&dst[0], len(dst))                  //nolint:gosec // nobody writes to it any more
}

// write writes the UUIDv7 (RFC 9562 section 5.7) of a time in milliseconds since 1970, with 74 random bits of a and b.
func (text *idText) write(ms int64, a, b uint64) {
	high := uint64(ms)<<16 | 0x7<<12 | a&0xfff
	low := 0x2<<62 | b>>2
	second, third := digitsOf(uint32(high)), digitsOf(uint32(low>>32))
	binary.BigEndian.PutUint64(text[:], digitsOf(uint32(high>>32)))
	text[8] = '-'
	binary.BigEndian.PutUint32(text[9:], uint32(second>>32))
	text[13] = '-'
	binary.BigEndian.PutUint32(text[14:], uint32(second))
	text[18] = '-'
	binary.BigEndian.PutUint32(text[19:], uint32(third>>32))
	text[23] = '-'
	binary.BigEndian.PutUint32(text[24:], uint32(third))
	binary.BigEndian.PutUint64(text[28:], digitsOf(uint32(low)))
}

// digitsOf are the eight hexadecimal digits of a number, the first in the highest byte.
func digitsOf(n uint32) uint64 {
	v := uint64(n)
	v = (v | v<<16) & 0x0000ffff0000ffff
	v = (v | v<<8) & 0x00ff00ff00ff00ff
	v = (v | v<<4) & 0x0f0f0f0f0f0f0f0f
	letters := (v + 0x0606060606060606) >> 4 & 0x0101010101010101 // 1 in each byte above 9
	return v + 0x3030303030303030 + letters*('a'-'0'-10)
}
