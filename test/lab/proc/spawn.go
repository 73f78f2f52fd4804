// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package proc

import (
	"os/exec"
	"runtime"
	"sync"
	"syscall"
)

// spawner starts every child from one OS thread that lives as long as this process: the kernel sends the parent-death
// signal when the forking *thread* ends, and the Go runtime ends threads at will.
type spawner struct {
	requests chan spawnRequest
}

type spawnRequest struct {
	cmd  *exec.Cmd
	done chan error
}

var theSpawner = sync.OnceValue(func() *spawner {
	s := &spawner{requests: make(chan spawnRequest)}
	go s.run()
	return s
})

// run never returns: returning would end the locked thread, and with it every child.
func (s *spawner) run() {
	runtime.LockOSThread()
	for request := range s.requests {
		request.done <- request.cmd.Start()
	}
}

// spawn starts cmd in a process group of its own, so that a terminal's Ctrl-C reaches only us and children are stopped in
// order, and so that the kernel kills it should this process die without stopping it.
func spawn(cmd *exec.Cmd) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	request := spawnRequest{cmd: cmd, done: make(chan error, 1)}
	theSpawner().requests <- request
	return <-request.done
}
