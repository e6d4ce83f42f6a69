package gateway

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// PluginServer has the settings of kong.conf's pluginserver_<name>_*.
type PluginServer struct {
	Socket       string // path; empty: what the plugin says of itself
	StartCommand string // empty: somebody else runs the plugin on Socket
	QueryCommand string // prints the plugin's description as one JSON object
	Environment  []string

	// Describe stands for QueryCommand where the plugin runs in this process.
	Describe func(w io.Writer) error
}

// respawn is the shortest time from one start of the plugin to the next, as in Kong.
const respawn = time.Second

// stopGrace is how long the plugin's process may take to end after SIGTERM.
const stopGrace = time.Second

type host struct {
	settings PluginServer
	log      *slog.Logger
	lost     func() // the process ended: its instances are gone
}

// pluginInfo is what a plugin says of itself.
type pluginInfo struct {
	Name       string
	Priority   int
	Version    string
	Phases     []string
	SocketPath string
	schema     fieldSchema // of the member "config"
}

// query asks the plugin for its description.
func (h *host) query(ctx context.Context) (pluginInfo, error) {
	var out strings.Builder
	switch {
	case h.settings.Describe != nil:
		if err := h.settings.Describe(&out); err != nil {
			return pluginInfo{}, fmt.Errorf("describe: %w", err)
		}
	case h.settings.QueryCommand != "":
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		cmd := exec.CommandContext(ctx, "/bin/sh", "-c", h.settings.QueryCommand)
		cmd.Env = append(os.Environ(), h.settings.Environment...)
		cmd.Stdout = &out
		if err := cmd.Run(); err != nil {
			return pluginInfo{}, fmt.Errorf("query command: %w", err)
		}
	default:
		return pluginInfo{}, errors.New("no query command")
	}
	return parseInfo([]byte(out.String()))
}

func parseInfo(text []byte) (pluginInfo, error) {
	var dump struct {
		Protocol   string
		SocketPath string
		Plugins    []struct {
			Name     string
			Version  string
			Priority int
			Phases   []string
			Schema   fieldSchema
		}
	}
	if err := json.Unmarshal(text, &dump); err != nil {
		return pluginInfo{}, fmt.Errorf("failed decoding plugin info: %w", err)
	}
	if dump.Protocol != "ProtoBuf:1" {
		return pluginInfo{}, fmt.Errorf("protocol %q, not ProtoBuf:1", dump.Protocol)
	}
	if len(dump.Plugins) != 1 || dump.Plugins[0].Name == "" {
		return pluginInfo{}, errors.New("not a plugin info table with one plugin")
	}
	p := dump.Plugins[0]
	info := pluginInfo{Name: p.Name, Priority: p.Priority, Version: p.Version, Phases: p.Phases, SocketPath: dump.SocketPath}
	for _, phase := range p.Phases {
		if phase != "access" && phase != "log" {
			return pluginInfo{}, fmt.Errorf("phase %q: this gateway runs access and log only", phase)
		}
	}
	for _, f := range p.Schema.Fields {
		if f.name == "config" {
			info.schema = *f.schema
			return info, nil
		}
	}
	return pluginInfo{}, errors.New("schema without a field config")
}

// run keeps the plugin's process alive until ctx ends: started at most once a second, its output logged.
func (h *host) run(ctx context.Context) error {
	if h.settings.StartCommand == "" {
		<-ctx.Done()
		return nil
	}
	for {
		next := time.Now().Add(respawn)
		err := h.once(ctx)
		h.lost()
		if ctx.Err() != nil {
			return nil //nolint:nilerr // being told to stop is no failure
		}
		h.log.WarnContext(ctx, "plugin server ended", "error", err)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Until(next)):
		}
	}
}

func (h *host) once(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", "exec "+h.settings.StartCommand)
	cmd.Env = append(os.Environ(), h.settings.Environment...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = stopGrace
	r, w := io.Pipe()
	cmd.Stdout, cmd.Stderr = w, w
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start command: %w", err)
	}
	h.log.InfoContext(ctx, "plugin server started", "pid", cmd.Process.Pid)
	done := make(chan struct{})
	go func() {
		defer close(done)
		h.relay(r, cmd.Process.Pid)
	}()
	err := cmd.Wait()
	_ = w.Close() // a pipe in memory; it cannot fail
	<-done
	return err
}

// relay logs the plugin's own lines; one that is too long is cut into several.
func (h *host) relay(r io.Reader, pid int) {
	lines := bufio.NewReaderSize(r, 64<<10)
	for {
		line, _, err := lines.ReadLine()
		if err != nil {
			return
		}
		h.log.Info("plugin server says", "pid", pid, "line", string(line))
	}
}
