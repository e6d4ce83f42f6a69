package lookup

import "time"

// MaxEntries is shown to the tests.
const MaxEntries = maxEntries

// Remember stores an answer as Find does.
func (s *Set) Remember(kind, id string) {
	s.remember(key{kind, id}, entry{map[string]any{}, s.now(), s.now().Add(time.Minute)})
}

// Remembered is how many answers are stored.
func (s *Set) Remembered() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.cache)
}
