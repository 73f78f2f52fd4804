// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package ovnlab

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// The file format of libpcap, as Open vSwitch writes it in the machine's byte order.
const (
	pcapFileHeader   = 24
	pcapRecordHeader = 16
	// pcapLongest is more than any frame: what claims to be longer is not a record.
	pcapLongest = 1 << 17
)

// dummySide is a host's end of a dummy port: frames enter through the switch's control socket and leave into a file.
type dummySide struct {
	dpu  *dpu
	port string

	mu    sync.Mutex
	file  string // of this plugging
	files int    // how many there were
	read  int64  // how much of file was read
	// earlier are frames of earlier files that nobody has asked for.
	earlier []Frame
}

// nextFile names the file of the next plugging or boot; what the last one holds is kept. The switch makes a file anew
// whenever the port appears on it.
func (s *dummySide) nextFile() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if frames, err := s.drain(); err == nil {
		s.earlier = append(s.earlier, frames...)
	}
	s.files++
	s.file, s.read = filepath.Join(s.dpu.run, fmt.Sprintf("%s.%d.pcap", s.port, s.files)), 0
	return s.file
}

// absent is in the switch's answer for a port that is plugged into nothing.
const absent = "no such dummy netdev"

// send loses the frame where no switch listens or the port is unplugged, as a wire does.
func (s *dummySide) send(ctx context.Context, frame []byte) error {
	_, err := s.dpu.switchControl().command(ctx, "netdev-dummy/receive", s.port, hex.EncodeToString(frame))
	var refused *refusedError
	if errors.As(err, &refused) && !strings.Contains(refused.reason, absent) {
		return err
	}
	return ctx.Err()
}

func (s *dummySide) received() ([]Frame, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	frames, err := s.drain()
	if err != nil {
		return nil, err
	}
	frames = append(s.earlier, frames...)
	s.earlier = nil
	return frames, nil
}

func (s *dummySide) close() error { return nil }

// drain reads the records that are complete.
func (s *dummySide) drain() ([]Frame, error) {
	file, err := os.Open(s.file)
	if errors.Is(err, os.ErrNotExist) || s.file == "" {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	offset := max(s.read, pcapFileHeader)
	content, err := io.ReadAll(io.NewSectionReader(file, offset, 1<<62-offset))
	if err != nil {
		return nil, err
	}
	frames, used, err := pcapRecords(content)
	s.read = offset + int64(used)
	return frames, err
}

// pcapRecords returns the complete records and how many bytes they took.
func pcapRecords(content []byte) (frames []Frame, used int, err error) {
	for len(content)-used >= pcapRecordHeader {
		header := content[used:]
		length := int(binary.NativeEndian.Uint32(header[8:]))
		if length > pcapLongest {
			return frames, used, fmt.Errorf("a captured frame of %d bytes", length)
		}
		if len(header) < pcapRecordHeader+length {
			break
		}
		at := time.Unix(int64(binary.NativeEndian.Uint32(header)), int64(binary.NativeEndian.Uint32(header[4:]))*int64(time.Microsecond))
		frames = append(frames, Frame{At: at, Data: append([]byte(nil), header[pcapRecordHeader:pcapRecordHeader+length]...)})
		used += pcapRecordHeader + length
	}
	return frames, used, nil
}
