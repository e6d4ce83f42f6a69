package password

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/crypto/argon2"
)

// Caps on what a stored hash may ask for, so that a row written by somebody else cannot take the memory.
const (
	maxMemory = 256 << 10 // KiB
	maxPasses = 16
	maxLanes  = 4
	maxPHC    = 512 // bytes
)

// hash is the parsed PHC string
//
//	$argon2id$v=19$m=19456,t=2,p=1,keyid=…$salt$sum
//
// with unpadded base64; keyid names the pepper.
type hash struct {
	memory uint32 // KiB
	passes uint32
	lanes  uint8
	pepper string
	salt   []byte
	sum    []byte
}

func (h hash) length() uint32 {
	if h.sum == nil {
		return sumLen
	}
	return uint32(len(h.sum))
}

func (h hash) String() string {
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d,keyid=%s$%s$%s", argon2.Version, h.memory, h.passes, h.lanes, h.pepper,
		base64.RawStdEncoding.EncodeToString(h.salt), base64.RawStdEncoding.EncodeToString(h.sum))
}

var errStored = errors.New("password: the stored hash is not one that this version reads")

func parse(stored string) (hash, error) {
	var h hash
	part := strings.Split(stored, "$")
	if len(stored) > maxPHC || len(part) != 6 || part[0] != "" || part[1] != "argon2id" || part[2] != "v="+strconv.Itoa(argon2.Version) {
		return h, errStored
	}
	values := map[string]string{}
	for _, p := range strings.Split(part[3], ",") {
		name, value, _ := strings.Cut(p, "=")
		values[name] = value
	}
	memory, err1 := strconv.ParseUint(values["m"], 10, 32)
	passes, err2 := strconv.ParseUint(values["t"], 10, 32)
	lanes, err3 := strconv.ParseUint(values["p"], 10, 8)
	salt, err4 := base64.RawStdEncoding.Strict().DecodeString(part[4])
	sum, err5 := base64.RawStdEncoding.Strict().DecodeString(part[5])
	switch {
	case errors.Join(err1, err2, err3, err4, err5) != nil:
		return h, errStored
	case passes < 1 || passes > maxPasses, lanes < 1 || lanes > maxLanes, memory < 8*lanes || memory > maxMemory:
		return h, errStored
	case len(salt) < 8 || len(salt) > 64, len(sum) < 16 || len(sum) > 64:
		return h, errStored
	}
	h = hash{memory: uint32(memory), passes: uint32(passes), lanes: uint8(lanes), pepper: values["keyid"], salt: salt, sum: sum}
	if h.String() != stored { // in another order, twice, with zeros in front or a line feed in the base64: not written here
		return hash{}, errStored
	}
	return h, nil
}

// pepperID names a pepper without telling anything of it.
func pepperID(pepper []byte) string {
	sum := sha256.Sum256(append([]byte("gatehouse pepper id "), pepper...))
	return base64.RawStdEncoding.EncodeToString(sum[:6])
}
