package stack

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/gatehouse-auth/gatehouse/authsvc/account"
	"github.com/gatehouse-auth/gatehouse/authsvc/login"
	"github.com/gatehouse-auth/gatehouse/e2e/story"
)

// Person is an account that the developer can log in to.
type Person struct {
	Email    string `json:"email"`
	Password string `json:"password"`
	Role     string `json:"role"`
}

// People answers a customer and an admin. They are made at the first start, with random passwords that are kept in dir.
func People(ctx context.Context, s *Stack, dir string) ([]Person, error) {
	file := filepath.Join(dir, "accounts.json")
	var people []Person
	data, err := os.ReadFile(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		people = []Person{
			{Email: "ann@example.com", Password: rand.Text(), Role: login.DefaultRole},
			{Email: "admin@example.com", Password: rand.Text(), Role: "admin"},
		}
		if data, err = json.MarshalIndent(people, "", "  "); err == nil {
			err = os.WriteFile(file, data, 0o600)
		}
	case err == nil:
		err = json.Unmarshal(data, &people)
	}
	if err != nil || len(people) == 0 {
		return nil, errors.Join(fmt.Errorf("accounts: remove %s to start afresh", file), err)
	}
	for _, p := range people {
		_, err := s.Logins.Add(ctx, login.NewUser{Email: p.Email, Password: p.Password, Roles: []string{p.Role}})
		if err != nil && !errors.Is(err, account.ErrEmailTaken) {
			return nil, fmt.Errorf("accounts: %w", err)
		}
	}
	return people, nil
}

// Site is the stack as a story sees it.
func Site(s *Stack, client *http.Client) story.Site {
	return story.Site{
		Gateway: s.URL(), Mailbox: s.MailboxURL(), HTTP: client, SetPolicyClock: s.SetPolicyClock, Why: s.Why,
		KillOrders: func() error { s.Stop(Orders1); return nil },
		Admin: func(ctx context.Context) (string, string, error) {
			email, password := "admin-"+strings.ToLower(rand.Text()[:8])+"@example.com", rand.Text()
			_, err := s.Logins.Add(ctx, login.NewUser{Email: email, Password: password, Roles: []string{"admin"}})
			return email, password, err
		},
	}
}
