// Command probe asks whether programs are well, for the health checks of images that hold neither a shell nor curl. It fails
// unless each address that it is given answers 2xx within two seconds.
package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"time"
)

func main() {
	if err := run(context.Background(), os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "probe:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, addresses []string) error {
	if len(addresses) == 0 {
		return errors.New("usage: probe URL…")
	}
	client := &http.Client{Timeout: 2 * time.Second}
	for _, address := range addresses {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil) //nolint:gosec // whoever writes the health check says what to ask
		if err != nil {
			return err
		}
		res, err := client.Do(req) //nolint:gosec // as above
		if err != nil {
			return err
		}
		_ = res.Body.Close() // only the status was asked for
		if res.StatusCode/100 != 2 {
			return fmt.Errorf("%s: %s", address, res.Status)
		}
	}
	return nil
}
