// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

// Package frames builds the Ethernet frames that probe a network, and knows them again wherever they come out. Each carries a
// Marker, which OVN passes on as it found it, whatever it does to the headers.
package frames

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"time"
)

// Marker tells one probe from all others.
type Marker struct {
	Kind Kind
	// Sender is the number of the port the frame was really sent from, whatever its addresses claim.
	Sender uint16
	// Sequence counts a sender's probes.
	Sequence uint32
	// Sent is the instant the frame was built, to the nanosecond, on the sender's clock.
	Sent time.Time
}

// magic begins a marker. Its first bytes are no text, so that it is met in no log or name by chance.
var magic = []byte{0xd7, 0x0b, 'M', 'd', 'p', 'u'}

// markerSize is the length of an encoded marker: magic, kind, reserved byte, sender, sequence, instant, checksum, and zeroes up
// to a multiple of eight, which is how options of neighbour discovery are measured.
const markerSize = 32

func (m Marker) bytes() []byte {
	out := bytes.Clone(magic)
	out = append(out, byte(m.Kind), 0)
	out = binary.BigEndian.AppendUint16(out, m.Sender)
	out = binary.BigEndian.AppendUint32(out, m.Sequence)
	out = binary.BigEndian.AppendUint64(out, uint64(m.Sent.UnixNano()))
	out = binary.BigEndian.AppendUint32(out, crc32.ChecksumIEEE(out))
	return append(out, make([]byte, markerSize-len(out))...)
}

// Read finds the marker in a captured frame, in whatever it is wrapped; ok is false if there is none.
func Read(frame []byte) (marker Marker, ok bool) {
	const fields = 26
	for rest := frame; ; rest = rest[1:] {
		at := bytes.Index(rest, magic)
		if at < 0 || len(rest)-at < fields {
			return Marker{}, false
		}
		rest = rest[at:]
		if crc32.ChecksumIEEE(rest[:fields-4]) != binary.BigEndian.Uint32(rest[fields-4:fields]) {
			continue
		}
		return Marker{
			Kind: Kind(rest[6]), Sender: binary.BigEndian.Uint16(rest[8:]), Sequence: binary.BigEndian.Uint32(rest[10:]),
			Sent: time.Unix(0, int64(binary.BigEndian.Uint64(rest[14:]))),
		}, true
	}
}
