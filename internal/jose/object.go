package jose

import (
	"encoding/json"

	"github.com/gatehouse-auth/gatehouse/internal/onejson"
)

// readObject decodes a JSON object of which there is only one reading. Numbers are float64.
func readObject(data []byte) (map[string]any, error) {
	if err := onejson.Check(data); err != nil {
		return nil, refused(err.Error())
	}
	var m map[string]any
	if err := json.Unmarshal(data, &m); err != nil || m == nil {
		return nil, refused("not a JSON object")
	}
	return m, nil
}
