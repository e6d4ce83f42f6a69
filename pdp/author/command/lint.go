package command

import (
	"context"

	"github.com/gatehouse-auth/gatehouse/pdp/author"
)

func lint(ctx context.Context, in *invocation) (int, error) {
	regal := in.flags.Bool("regal", false, "run regal, which must be in PATH, too")
	dir, err := in.dir()
	if err != nil {
		return Failure, err
	}
	found, err := author.Lint(dir)
	if err != nil {
		return Failure, err
	}
	if *regal {
		more, err := author.Regal(ctx, dir)
		if err != nil {
			return Failure, err
		}
		found = append(found, more...)
	}
	code := OK
	if len(found) > 0 {
		code = Findings
	}
	if in.json {
		if found == nil {
			found = []author.Finding{}
		}
		return code, in.document(found)
	}
	for _, f := range found {
		if f.Line > 0 {
			in.printf("%s:%d: %s: %s\n", f.File, f.Line, f.Rule, f.Message)
		} else {
			in.printf("%s: %s: %s\n", f.File, f.Rule, f.Message)
		}
	}
	if code == OK {
		in.printf("nothing found (%s)\n", author.Describe())
	}
	return code, nil
}

func formatting(_ context.Context, in *invocation) (int, error) {
	check := in.flags.Bool("check", false, "change nothing; exit with 1 where something would be changed")
	dir, err := in.dir()
	if err != nil {
		return Failure, err
	}
	all, err := author.Format(dir)
	if err != nil {
		return Failure, err
	}
	code := OK
	for _, u := range all {
		if *check {
			code = Findings
		} else if err := u.Write(); err != nil {
			return Failure, err
		}
	}
	if in.json {
		return code, in.document(all)
	}
	for _, u := range all {
		if *check {
			in.printf("%s:%d: is not formatted\n", u.File, u.Line)
		} else {
			in.printf("%s\n", u.File)
		}
	}
	return code, nil
}
