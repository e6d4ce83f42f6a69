package redisx

import (
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// StreamIDLess reports whether a stream's entry a comes before b. What is no id ("milliseconds-number") counts as 0-0.
func StreamIDLess(a, b string) bool {
	am, an := splitStreamID(a)
	bm, bn := splitStreamID(b)
	return am < bm || am == bm && an < bn
}

// StreamIDTime is when the entry was made, by the clock of Redis.
func StreamIDTime(id string) time.Time {
	ms, _ := splitStreamID(id)
	return time.UnixMilli(int64(min(ms, 1<<62)))
}

func splitStreamID(id string) (milli, number uint64) {
	m, n, ok := strings.Cut(id, "-")
	milli, err := strconv.ParseUint(m, 10, 64)
	if err != nil || !ok {
		return 0, 0
	}
	if number, err = strconv.ParseUint(n, 10, 64); err != nil {
		return 0, 0
	}
	return milli, number
}

// NoSuchKey reports whether Redis said that a key is not there, where a command says so by an error.
func NoSuchKey(err error) bool {
	return err != nil && redis.HasErrorPrefix(err, "no such key")
}
