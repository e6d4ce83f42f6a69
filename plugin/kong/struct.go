package kong

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/gatehouse-auth/gatehouse/plugin/guard"
)

// Headers travel as google.protobuf.Struct both ways and are most of what an event reads and writes. They are read and written
// here without the messages between, which cost several allocations for each header. Nothing is taken but what Kong makes: a
// field of another number or type, or twice, is an error. The field numbers are struct.proto's.
const (
	structFields = 1
	entryKey     = 1
	entryValue   = 2
	valueString  = 3
	valueBool    = 4
	valueList    = 6
	listValues   = 1
)

var (
	errHeaders    = errors.New("the headers cannot be read")
	errHeaderUTF8 = errors.New("the headers are not UTF-8")
	errHeaderText = errors.New("a header has no text")
)

// headers reads the answer of kong.request.get_headers.
func headers(r *guard.Request, answer []byte) error {
	all := message(answer) // copied once; names and values are parts of it
	r.Header = make(map[string][]string, 16)
	n := 0
	for all != "" {
		entry, err := all.only(structFields)
		if err != nil {
			return err
		}
		name, value := message(""), message("")
		if entry.at(entryKey) {
			if name, err = entry.only(entryKey); err != nil {
				return err
			}
		}
		if entry.at(entryValue) {
			if value, err = entry.only(entryValue); err != nil {
				return err
			}
		}
		switch {
		case entry != "":
			return errHeaders
		case !utf8.ValidString(string(name)):
			return errHeaderUTF8
		}
		lower := strings.ToLower(string(name))
		values, err := value.texts(r.Header[lower])
		if err != nil {
			return err
		}
		if n += len(values) - len(r.Header[lower]); len(values) > 0 {
			r.Header[lower] = values
		}
	}
	r.HeadersTruncated = n >= maxHeaders
	r.Host = strings.Join(r.Header["host"], ",")
	return nil
}

// message is what is left to read of one.
type message string

// at reports whether a field of bytes of that number is next.
func (m *message) at(number byte) bool {
	return len(*m) > 0 && (*m)[0] == number<<3|byte(protowire.BytesType)
}

// only takes the field of bytes of that number, which must be next.
func (m *message) only(number byte) (message, error) {
	if !m.at(number) {
		return "", errHeaders
	}
	rest := (*m)[1:]
	var length uint64
	for i := 0; ; i++ {
		if i == len(rest) || i == 4 { // a frame is no longer than 4 bytes can tell
			return "", errHeaders
		}
		length |= uint64(rest[i]&0x7f) << (7 * i)
		if rest[i] < 0x80 {
			rest = rest[i+1:]
			break
		}
	}
	if length > uint64(len(rest)) {
		return "", errHeaders
	}
	*m = rest[length:]
	return rest[:length], nil
}

// texts appends the texts of a Value. Lua's protobuf may leave an empty text out altogether, and a header without any value is true.
func (m *message) texts(to []string) ([]string, error) {
	if !m.at(valueList) {
		text, err := m.text()
		return append(to, text), err
	}
	list, err := m.only(valueList)
	if err != nil || *m != "" {
		return to, errHeaders
	}
	for list != "" {
		value, err := list.only(listValues)
		if err != nil {
			return to, err
		}
		text, err := value.text()
		if err != nil {
			return to, err
		}
		to = append(to, text)
	}
	return to, nil
}

func (m *message) text() (string, error) {
	switch {
	case *m == "", len(*m) == 2 && (*m)[0] == valueBool<<3|byte(protowire.VarintType) && (*m)[1] <= 1:
		return "", nil
	case !m.at(valueString):
		return "", errHeaderText
	}
	text, err := m.only(valueString)
	switch {
	case err != nil || *m != "":
		return "", errHeaders
	case !utf8.ValidString(string(text)):
		return "", errHeaderUTF8
	}
	return string(text), nil
}

// appendHeaders appends one call that sets headers.
func appendHeaders(out []byte, method string, header map[string]string) ([]byte, error) {
	out = appendFrame(out, []byte(method))
	start := len(out)
	out = append(out, 0, 0, 0, 0)
	for name, v := range header {
		if !utf8.ValidString(name) || !utf8.ValidString(v) {
			return nil, fmt.Errorf("%s: a header is not UTF-8", method)
		}
		value := 1 + protowire.SizeBytes(len(v))
		out = protowire.AppendTag(out, structFields, protowire.BytesType)
		out = protowire.AppendVarint(out, uint64(1+protowire.SizeBytes(len(name))+1+protowire.SizeBytes(value)))
		out = protowire.AppendString(protowire.AppendTag(out, entryKey, protowire.BytesType), name)
		out = protowire.AppendVarint(protowire.AppendTag(out, entryValue, protowire.BytesType), uint64(value))
		out = protowire.AppendString(protowire.AppendTag(out, valueString, protowire.BytesType), v)
	}
	binary.LittleEndian.PutUint32(out[start:], uint32(len(out)-start-4))
	return out, nil
}
