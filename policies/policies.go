// Package policies embeds the Rego modules, the data beside them and the cases that show what they decide. OPA reads the same
// folder as it stands: `opa test policies/`.
package policies

import "embed"

// FS holds this folder: gatehouse/ (rules, data, tests) and cases/ (decisions that a security engineer can read).
//
//go:embed gatehouse cases
var FS embed.FS
