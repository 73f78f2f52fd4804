// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package ovnlab

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"golang.org/x/sys/unix"
)

// TestPcap: a capture is read while it is written: a record that is not complete yet is left for the next reading.
func TestPcap(t *testing.T) {
	g := NewWithT(t)
	file := filepath.Join(t.TempDir(), "port.pcap")
	side := &dummySide{file: file}
	g.Expect(side.received()).To(BeEmpty())
	content := make([]byte, pcapFileHeader)
	record := func(data string) {
		for _, v := range []uint32{1700000000, 250000, uint32(len(data)), uint32(len(data))} {
			content = binary.NativeEndian.AppendUint32(content, v)
		}
		content = append(content, data...)
	}
	record("first frame")
	record("second")
	want := time.Unix(1700000000, 250_000_000)
	for cut := range content {
		g.Expect(os.WriteFile(file, content[:cut], 0o600)).To(Succeed())
		side.read = 0
		early, err := side.received()
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(os.WriteFile(file, content, 0o600)).To(Succeed())
		late, err := side.received()
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(append(early, late...)).To(Equal([]Frame{{At: want, Data: []byte("first frame")}, {At: want, Data: []byte("second")}}), "cut at %d", cut)
	}
	g.Expect(os.WriteFile(file, append(content, bytes.Repeat([]byte{0xff}, 16)...), 0o600)).To(Succeed())
	_, err := side.received()
	g.Expect(err).To(HaveOccurred())
}

// TestVLANTag: the kernel takes a tag out of a frame, the lab puts it back.
func TestVLANTag(t *testing.T) {
	g := NewWithT(t)
	untagged := []byte("\x02\x00\x00\x00\x00\x02\x02\x00\x00\x00\x00\x01\x08\x06payload")
	aux := make([]byte, 20)
	control := func() []byte {
		header := unix.Cmsghdr{Level: unix.SOL_PACKET, Type: unix.PACKET_AUXDATA}
		header.SetLen(unix.CmsgLen(len(aux)))
		var buffer bytes.Buffer
		g.Expect(binary.Write(&buffer, binary.NativeEndian, header)).To(Succeed())
		return append(append(buffer.Bytes(), aux...), make([]byte, unix.CmsgSpace(len(aux))-unix.CmsgLen(len(aux)))...)
	}
	frame, err := frameOf(untagged, control())
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(frame.Data).To(Equal(untagged))

	binary.NativeEndian.PutUint32(aux, unix.TP_STATUS_VLAN_VALID|unix.TP_STATUS_VLAN_TPID_VALID)
	binary.NativeEndian.PutUint16(aux[16:], 100)
	binary.NativeEndian.PutUint16(aux[18:], unix.ETH_P_8021AD)
	frame, err = frameOf(untagged, control())
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(string(frame.Data)).To(Equal("\x02\x00\x00\x00\x00\x02\x02\x00\x00\x00\x00\x01\x88\xa8\x00\x64\x08\x06payload"))
	g.Expect(frame.At).To(BeTemporally("~", time.Now(), time.Minute))
}
