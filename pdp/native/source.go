package native

// Source stands in the data for an object that is another one for each question. Of answers the object, a map or a Relation that
// does not change while the question is being answered; anything else makes it topdown's.
type Source interface {
	Of(in Input) any
}

// source compiles what a reference to a Source begins with. The object is asked for once in each evaluation, if at all.
func (b *builder) source(of Source) value {
	at := b.program.docs
	b.program.docs++
	return func(f *frame) any {
		v := f.docs[at]
		if v == unasked {
			v = of.Of(f.in)
			f.docs[at] = v
		}
		return v
	}
}
