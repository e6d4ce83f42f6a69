package caller

import "time"

// Every makes a file be looked at this often.
func (t *Tokens) Every(d time.Duration) { t.file.every = d }

// Every makes the files be looked at this often.
func (t *TLS) Every(d time.Duration) { t.config.every = d }

// Names are those of a file's tokens, in its order.
func Names(text []byte) ([]string, error) {
	tokens, err := readTokens(text)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, t := range tokens {
		names = append(names, t.name)
	}
	return names, nil
}
