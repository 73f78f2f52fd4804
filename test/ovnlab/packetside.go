// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package ovnlab

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	headerLength = 14
	vlanLength   = 4
	macsLength   = 12

	receiveBuffer = 8 << 20
	longestFrame  = 1 << 16
)

// packetSide is a host's end of a veth: a packet socket that sees every frame. A goroutine reads it until close.
type packetSide struct {
	file *os.File
	conn interface {
		Read(func(fd uintptr) bool) error
		Write(func(fd uintptr) bool) error
	}
	done chan struct{}

	mu     sync.Mutex
	frames []Frame
	err    error
}

// openPacketSide opens the socket in the thread's network namespace.
func openPacketSide(name string) (*packetSide, error) {
	device, err := net.InterfaceByName(name)
	if err != nil {
		return nil, fmt.Errorf("interface %s: %w", name, err)
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("opening a packet socket: %w", err)
	}
	// A buffer beyond the system's limit needs rights; without them the limit has to do.
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer)
	}
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1),
		unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_AUXDATA, 1),
		unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1),
		// Only now does it receive: nothing arrives without a time.
		unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: networkOrder(unix.ETH_P_ALL), Ifindex: device.Index}),
	)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("setting up a packet socket at %s: %w", name, err), unix.Close(fd))
	}
	side := &packetSide{file: os.NewFile(uintptr(fd), "packets of "+name), done: make(chan struct{})}
	if side.conn, err = side.file.SyscallConn(); err != nil {
		return nil, errors.Join(err, side.file.Close())
	}
	go side.read()
	return side, nil
}

func networkOrder(value uint16) uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, value))
}

func (s *packetSide) send(_ context.Context, frame []byte) error {
	var sendErr error
	err := s.conn.Write(func(fd uintptr) bool {
		_, sendErr = unix.Write(int(fd), frame)
		return !errors.Is(sendErr, unix.EAGAIN)
	})
	if errors.Is(sendErr, unix.ENETDOWN) || errors.Is(sendErr, unix.ENOBUFS) {
		sendErr = nil // lost, as on a wire
	}
	return errors.Join(err, sendErr)
}

func (s *packetSide) received() ([]Frame, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	frames := s.frames
	s.frames = nil
	return frames, s.err
}

func (s *packetSide) close() error {
	err := s.file.Close()
	<-s.done
	if errors.Is(err, os.ErrClosed) {
		return nil
	}
	return err
}

// read collects frames until the socket is closed.
func (s *packetSide) read() {
	defer close(s.done)
	data, control := make([]byte, longestFrame), make([]byte, 512)
	for {
		var n, controlLength int
		var readErr error
		err := s.conn.Read(func(fd uintptr) bool {
			n, controlLength, _, _, readErr = unix.Recvmsg(int(fd), data, control, 0)
			return !errors.Is(readErr, unix.EAGAIN)
		})
		if err != nil { // closed
			return
		}
		if errors.Is(readErr, unix.ENETDOWN) || errors.Is(readErr, unix.EINTR) {
			continue // the interface went down; it may come up again
		}
		var frame Frame
		if readErr == nil {
			frame, readErr = frameOf(data[:n], control[:controlLength])
		}
		s.mu.Lock()
		if readErr != nil {
			s.err = readErr
		} else {
			s.frames = append(s.frames, frame)
		}
		s.mu.Unlock()
		if readErr != nil {
			return
		}
	}
}

// frameOf puts back what the kernel took out of a frame: a VLAN tag travels beside it.
func frameOf(data, control []byte) (Frame, error) {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return Frame{}, err
	}
	frame := Frame{At: time.Now()}
	var tag []byte
	for _, message := range messages {
		switch {
		case message.Header.Level == unix.SOL_SOCKET && message.Header.Type == unix.SO_TIMESTAMPNS:
			var at unix.Timespec
			if len(message.Data) >= int(unsafe.Sizeof(at)) {
				at = *(*unix.Timespec)(unsafe.Pointer(&message.Data[0])) //nolint:gosec // the kernel's own layout
				frame.At = time.Unix(at.Unix())
			}
		case message.Header.Level == unix.SOL_PACKET && message.Header.Type == unix.PACKET_AUXDATA:
			tag = tagOf(message.Data)
		}
	}
	if len(data) < macsLength || tag == nil {
		frame.Data = append([]byte(nil), data...)
		return frame, nil
	}
	frame.Data = append(append(append([]byte(nil), data[:macsLength]...), tag...), data[macsLength:]...)
	return frame, nil
}

// tagOf reads the VLAN tag of the kernel's struct tpacket_auxdata, nil if there is none.
func tagOf(data []byte) []byte {
	const tagAt, protocolAt = 16, 18
	if len(data) < protocolAt+2 {
		return nil
	}
	status := binary.NativeEndian.Uint32(data)
	if status&unix.TP_STATUS_VLAN_VALID == 0 {
		return nil
	}
	protocol := uint16(unix.ETH_P_8021Q)
	if status&unix.TP_STATUS_VLAN_TPID_VALID != 0 {
		protocol = binary.NativeEndian.Uint16(data[protocolAt:])
	}
	return binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, protocol), binary.NativeEndian.Uint16(data[tagAt:]))
}
