package command

import "github.com/gatehouse-auth/gatehouse/pdp/author"

// directory is the --directory flag of commands that decide.
func (in *invocation) directory() *string {
	return in.flags.String("directory", "", "file of subjects and roles, as PDP_DIRECTORY_URL takes it (.ndjson, or a data.json), that rules read as data.directory; without it, what the policy's own data says there")
}

// open reads a policy folder, with the directory in a file if one is named.
func (in *invocation) open(dir, known string) (*author.Policy, error) {
	p, err := author.Open(dir)
	if err != nil || known == "" {
		return p, err
	}
	v, err := author.ReadDirectory(known)
	if err != nil {
		return nil, err
	}
	return p, p.Know(v)
}
