package web

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"syscall"
	"time"
)

// Succession is a Unix socket that one process after another serves, so that at no moment nobody does.
type Succession struct {
	*net.UnixListener
	path string
	own  fs.FileInfo // of the socket, whose inode nothing else has while it is open
	lock *os.File    // held by the one whose turn it is
}

// turn is how often who waits looks whether it is its turn: flock itself cannot be waited for until a context ends.
const turn = 20 * time.Millisecond

// SucceedUnix opens a Unix socket of that mode when the one who has it ends or yields. waiting is called if there is one. The
// lock is on a file beside the socket, path.lock, and ends with its process.
func SucceedUnix(ctx context.Context, path string, mode fs.FileMode, waiting func()) (*Succession, error) {
	lock, err := os.OpenFile(path+".lock", os.O_CREATE|os.O_RDWR, 0o600) //nolint:gosec // the operator names it
	if err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	ln, err := succeed(ctx, path, mode, lock, waiting)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("socket: %w", err), lock.Close())
	}
	own, err := os.Stat(path)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("socket: %w", err), ln.Close(), lock.Close())
	}
	return &Succession{ln, path, own, lock}, nil
}

func succeed(ctx context.Context, path string, mode fs.FileMode, lock *os.File, waiting func()) (*net.UnixListener, error) {
	tick := time.NewTicker(turn)
	defer tick.Stop()
	for told := false; ; told = true {
		err := try(lock)
		if err == nil {
			break
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, err
		}
		if !told {
			waiting()
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-tick.C:
		}
	}
	// Made under another name and then given this one: who connects meanwhile still finds the predecessor.
	next := path + "~"
	if err := os.Remove(next); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: next, Net: "unix"})
	if err != nil {
		return nil, err
	}
	ln.SetUnlinkOnClose(false)
	if err := errors.Join(os.Chmod(next, mode), os.Rename(next, path)); err != nil {
		return nil, errors.Join(err, ln.Close())
	}
	return ln, nil
}

// Yield lets a successor take the socket's place, and returns when one has or after patience. Whoever connects meanwhile is still to
// be served here.
func (s *Succession) Yield(patience time.Duration) error {
	if err := syscall.Flock(int(s.lock.Fd()), syscall.LOCK_UN); err != nil {
		return err
	}
	tick := time.NewTicker(turn)
	defer tick.Stop()
	for end := time.Now().Add(patience); time.Now().Before(end); {
		<-tick.C
		if !s.ours() {
			<-tick.C // who has connected just before is to be accepted
			break
		}
	}
	return nil
}

// Close ends listening, and removes the socket unless a successor has it.
func (s *Succession) Close() error {
	var err error
	if try(s.lock) == nil && s.ours() {
		err = os.Remove(s.path)
	}
	return errors.Join(err, s.UnixListener.Close(), s.lock.Close())
}

func (s *Succession) ours() bool {
	now, err := os.Stat(s.path)
	return err == nil && os.SameFile(s.own, now)
}

func try(lock *os.File) error { return syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) }
