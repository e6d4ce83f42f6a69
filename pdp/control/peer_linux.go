package control

import (
	"fmt"
	"net"
	"os/user"
	"strconv"
	"syscall"
)

// whoIs asks the kernel (SO_PEERCRED): "uid 0 (root), pid 17".
func whoIs(c *net.UnixConn) string {
	raw, err := c.SyscallConn()
	if err != nil {
		return "unknown"
	}
	who := "unknown"
	err = raw.Control(func(fd uintptr) {
		cred, err := syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
		if err != nil {
			return
		}
		who = fmt.Sprintf("uid %d, pid %d", cred.Uid, cred.Pid)
		if u, err := user.LookupId(strconv.FormatUint(uint64(cred.Uid), 10)); err == nil {
			who = fmt.Sprintf("uid %d (%s), pid %d", cred.Uid, u.Username, cred.Pid)
		}
	})
	if err != nil {
		return "unknown"
	}
	return who
}
