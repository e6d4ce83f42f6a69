package gateway

import (
	"fmt"
	"strings"
)

// luaMatch reports whether a Lua pattern, the language of a Kong schema's "match", is found in text. It knows literals, the
// classes %a %c %d %l %p %s %u %w %x and their complements, ".", sets, the anchors and the repetitions * + - ?. Captures, %b
// and %f are an error.
func luaMatch(pattern, text string) (bool, error) {
	rest, anchored := strings.CutPrefix(pattern, "^")
	items, end, err := luaParse(rest)
	if err != nil {
		return false, err
	}
	for start := 0; start <= len(text); start++ {
		if luaItems(items, end, text[start:]) {
			return true, nil
		}
		if anchored {
			break
		}
	}
	return false, nil
}

// luaItem is one character class and how often it may come.
type luaItem struct {
	in       func(byte) bool
	min, max int // max -1: without end
	lazy     bool
}

func luaItems(items []luaItem, end bool, text string) bool {
	if len(items) == 0 {
		return !end || text == ""
	}
	it := items[0]
	most := 0
	for most < len(text) && (it.max < 0 || most < it.max) && it.in(text[most]) {
		most++
	}
	for i := it.min; i <= most; i++ {
		n := i
		if !it.lazy {
			n = most - (i - it.min)
		}
		if luaItems(items[1:], end, text[n:]) {
			return true
		}
	}
	return false
}

func luaParse(p string) (items []luaItem, end bool, err error) {
	for i := 0; i < len(p); {
		if p[i] == '$' && i == len(p)-1 {
			return items, true, nil
		}
		in, n, err := luaClass(p[i:])
		if err != nil {
			return nil, false, err
		}
		i += n
		it := luaItem{in: in, min: 1, max: 1}
		if i < len(p) {
			switch p[i] {
			case '*':
				it.min, it.max = 0, -1
			case '+':
				it.max = -1
			case '-':
				it.min, it.max, it.lazy = 0, -1, true
			case '?':
				it.min = 0
			default:
				i--
			}
			i++
		}
		items = append(items, it)
	}
	return items, false, nil
}

// luaClass reads one class at the beginning of p and answers its length.
func luaClass(p string) (func(byte) bool, int, error) {
	switch p[0] {
	case '(', ')':
		return nil, 0, fmt.Errorf("pattern %q: captures are not supported", p)
	case '.':
		return func(byte) bool { return true }, 1, nil
	case '%':
		if len(p) < 2 {
			return nil, 0, fmt.Errorf("pattern %q: ends with %%", p)
		}
		in, err := luaEscape(p[1])
		return in, 2, err
	case '[':
		return luaSet(p)
	}
	c := p[0]
	return func(b byte) bool { return b == c }, 1, nil
}

func luaSet(p string) (func(byte) bool, int, error) {
	i, negate := 1, false
	if strings.HasPrefix(p[i:], "^") {
		i, negate = 2, true
	}
	var parts []func(byte) bool
	for first := true; ; first = false {
		if i >= len(p) {
			return nil, 0, fmt.Errorf("pattern %q: set without end", p)
		}
		if p[i] == ']' && !first {
			break
		}
		switch {
		case p[i] == '%' && i+1 < len(p):
			in, err := luaEscape(p[i+1])
			if err != nil {
				return nil, 0, err
			}
			parts = append(parts, in)
			i += 2
		case i+2 < len(p) && p[i+1] == '-' && p[i+2] != ']':
			lo, hi := p[i], p[i+2]
			parts = append(parts, func(b byte) bool { return lo <= b && b <= hi })
			i += 3
		default:
			c := p[i]
			parts = append(parts, func(b byte) bool { return b == c })
			i++
		}
	}
	return func(b byte) bool {
		for _, in := range parts {
			if in(b) {
				return !negate
			}
		}
		return negate
	}, i + 1, nil
}

func luaEscape(c byte) (func(byte) bool, error) {
	digit := func(b byte) bool { return '0' <= b && b <= '9' }
	lower := func(b byte) bool { return 'a' <= b && b <= 'z' }
	upper := func(b byte) bool { return 'A' <= b && b <= 'Z' }
	alnum := func(b byte) bool { return digit(b) || lower(b) || upper(b) }
	classes := map[byte]func(byte) bool{
		'a': func(b byte) bool { return lower(b) || upper(b) },
		'c': func(b byte) bool { return b < 0x20 || b == 0x7f },
		'd': digit, 'l': lower, 'u': upper, 'w': alnum,
		'p': func(b byte) bool { return b > 0x20 && b < 0x7f && !alnum(b) },
		's': func(b byte) bool { return b == ' ' || '\t' <= b && b <= '\r' },
		'x': func(b byte) bool { return digit(b) || 'a' <= b|0x20 && b|0x20 <= 'f' },
	}
	if in, ok := classes[c]; ok {
		return in, nil
	}
	if in, ok := classes[c|0x20]; ok && upper(c) {
		return func(b byte) bool { return !in(b) }, nil
	}
	if alnum(c) {
		return nil, fmt.Errorf("pattern: %%%c is not supported", c)
	}
	return func(b byte) bool { return b == c }, nil
}
