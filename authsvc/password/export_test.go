package password

// ParsePHC reads a stored hash and answers it as it would be written.
func ParsePHC(stored string) (string, error) {
	h, err := parse(stored)
	return h.String(), err
}

// Occupy takes one of the turns, as a hash under way does, until the answered function is called.
func (h *Hasher) Occupy() (free func()) {
	h.turns <- struct{}{}
	return func() { <-h.turns }
}

// Nobody is the hash that VerifyNobody computes.
func (h *Hasher) Nobody() string { return h.nobody.String() }
