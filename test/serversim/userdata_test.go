// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package serversim

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"testing"

	. "github.com/onsi/gomega"
)

func zipped(t *testing.T, text string) []byte {
	t.Helper()
	var buffer bytes.Buffer
	writer := gzip.NewWriter(&buffer)
	if _, err := writer.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := writer.Close(); err != nil {
		t.Fatal(err)
	}
	return buffer.Bytes()
}

func TestParseUserData(t *testing.T) {
	encoded := base64.StdEncoding.EncodeToString
	variables := map[string]string{"v1.instance_id": "abc123", "v1.local_hostname": "node-1"}
	for name, test := range map[string]struct {
		userData string
		files    map[string]string
		commands []string
		ignored  []string
		failure  string
	}{
		"files in every encoding": {
			userData: "#cloud-config\nwrite_files:\n" +
				"- {path: /plain, content: a}\n" +
				"- {path: /b64, encoding: base64, content: " + encoded([]byte("b")) + "}\n" +
				"- {path: /gz, encoding: gzip+base64, content: " + encoded(zipped(t, "c")) + "}\n" +
				"- {path: /plain, content: d, append: true}\n",
			files: map[string]string{"/plain": "ad", "/b64": "b", "/gz": "c"},
		},
		"variables are rendered where jinja is asked for": {
			userData: "## template: jinja\n#cloud-config\nruncmd:\n- 'a {{ v1.instance_id }}'\n- 'b {{v1.local_hostname}}'\n- [c, d]\n",
			commands: []string{"a abc123", "b node-1", "c d"},
		},
		"and left alone where not": {
			userData: "#cloud-config\nruncmd:\n- 'a {{ v1.instance_id }}'\n",
			commands: []string{"a {{ v1.instance_id }}"},
		},
		"other modules are named": {
			userData: "#cloud-config\nntp: {enabled: true}\nbootcmd: [x]\n",
			ignored:  []string{"module bootcmd", "module ntp"},
		},
		"unknown variable":  {userData: "## template: jinja\n#cloud-config\nruncmd: ['{{ v1.region }}']\n", failure: "v1.region"},
		"jinja statement":   {userData: "## template: jinja\n#cloud-config\n{% if true %}\n", failure: "statements"},
		"no header":         {userData: "runcmd: []\n", failure: "no cloud-config"},
		"a shell script":    {userData: "#!/bin/sh\ntrue\n", failure: "no cloud-config"},
		"malformed":         {userData: "#cloud-config\nruncmd: [secret\n", failure: "malformed"},
		"damaged base64":    {userData: "#cloud-config\nwrite_files: [{path: /x, encoding: b64, content: '*'}]\n", failure: "/x: content is not base64"},
		"unknown encoding":  {userData: "#cloud-config\nwrite_files: [{path: /x, encoding: rot13, content: a}]\n", failure: "rot13"},
		"file without path": {userData: "#cloud-config\nwrite_files: [{content: a}]\n", failure: "no path"},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			config, err := parseUserData([]byte(test.userData), variables)
			if test.failure != "" {
				g.Expect(err).To(MatchError(ContainSubstring(test.failure)))
				g.Expect(err).NotTo(MatchError(ContainSubstring("secret")), "errors must not quote user data")
				return
			}
			g.Expect(err).NotTo(HaveOccurred())
			if test.files != nil {
				g.Expect(config.files).To(Equal(test.files))
			}
			g.Expect(config.commands).To(Equal(test.commands))
			g.Expect(config.ignored).To(Equal(test.ignored))
		})
	}
}
