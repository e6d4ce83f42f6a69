package challenge

// ReadVerdict is for the fuzz target.
func ReadVerdict(status int, body []byte) error {
	_, err := readVerdict(status, body)
	return err
}

// Networks is how many networks this window holds.
func (f *Failures) Networks() int { return len(f.this) }
