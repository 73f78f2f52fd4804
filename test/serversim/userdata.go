// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package serversim

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"
)

// maxFile keeps a compressed bomb in user data from taking the lab's memory.
const maxFile = 4 << 20

// cloudConfig is the part of a cloud-config that the simulated server carries out.
type cloudConfig struct {
	files    map[string]string
	commands []string
	// ignored names what else it asks for.
	ignored []string
}

// understood are the cloud-init modules carried out; the others are recorded.
var understood = []string{"write_files", "runcmd"}

type writeFile struct {
	Path     string `json:"path"`
	Content  string `json:"content"`
	Encoding string `json:"encoding"`
	Append   bool   `json:"append"`
}

// parseUserData does what cloud-init does: renders jinja if the first line asks for it, then reads the cloud-config.
// variables are instance data by their jinja names.
func parseUserData(userData []byte, variables map[string]string) (*cloudConfig, error) {
	text := string(userData)
	first, rest, _ := strings.Cut(text, "\n")
	if strings.TrimSpace(strings.TrimLeft(first, "#")) == "template: jinja" && strings.HasPrefix(first, "##") {
		var err error
		if text, err = renderJinja(rest, variables); err != nil {
			return nil, err
		}
	}
	if !strings.HasPrefix(strings.TrimLeft(text, "\n"), "#cloud-config") {
		return nil, errors.New("user data is no cloud-config: cloud-init would not read it")
	}
	// The error of the YAML parser is withheld: it quotes lines, and user data holds keys and tokens.
	var parsed struct {
		WriteFiles []writeFile `json:"write_files"`
		Runcmd     []any       `json:"runcmd"`
	}
	var modules map[string]any
	if yaml.Unmarshal([]byte(text), &parsed) != nil || yaml.Unmarshal([]byte(text), &modules) != nil {
		return nil, errors.New("user data is a cloud-config header over malformed YAML")
	}
	config := &cloudConfig{files: map[string]string{}}
	for module := range modules {
		if !slices.Contains(understood, module) {
			config.ignored = append(config.ignored, "module "+module)
		}
	}
	slices.Sort(config.ignored)
	for _, file := range parsed.WriteFiles {
		content, err := file.decode()
		if err != nil {
			return nil, fmt.Errorf("write_files %s: %w", file.Path, err)
		}
		if file.Append {
			content = config.files[file.Path] + content
		}
		config.files[file.Path] = content
	}
	for i, command := range parsed.Runcmd {
		switch command := command.(type) {
		case string:
			config.commands = append(config.commands, command)
		case []any:
			config.commands = append(config.commands, strings.TrimSuffix(fmt.Sprintln(command...), "\n"))
		default:
			return nil, fmt.Errorf("runcmd item %d is neither a string nor a list", i)
		}
	}
	return config, nil
}

var (
	jinjaExpression = regexp.MustCompile(`\{\{-?\s*(.*?)\s*-?\}\}`)
	jinjaStatement  = regexp.MustCompile(`\{[%#]`)
)

// renderJinja substitutes instance data. cloud-init would render an unknown variable as a marker text, which no server
// could use: it is an error here. Statements are refused, as nobody needs them in a bootstrap template.
func renderJinja(text string, variables map[string]string) (string, error) {
	if jinjaStatement.MatchString(text) {
		return "", errors.New("user data has jinja statements or comments: only variables are understood")
	}
	var unknown []string
	rendered := jinjaExpression.ReplaceAllStringFunc(text, func(match string) string {
		name := jinjaExpression.FindStringSubmatch(match)[1]
		value, ok := variables[name]
		if !ok {
			unknown = append(unknown, name)
		}
		return value
	})
	if len(unknown) > 0 {
		return "", fmt.Errorf("user data uses jinja variables that this server does not have: %s", strings.Join(unknown, ", "))
	}
	return rendered, nil
}

// decode undoes the encodings of cloud-init's write_files under all of their names.
func (f writeFile) decode() (string, error) {
	if f.Path == "" {
		return "", errors.New("has no path")
	}
	content := []byte(f.Content)
	var compressed bool
	switch f.Encoding {
	case "", "text/plain":
		return f.Content, nil
	case "b64", "base64":
	case "gz", "gzip":
		return decompress(content)
	case "gz+b64", "gz+base64", "gzip+b64", "gzip+base64":
		compressed = true
	default:
		return "", fmt.Errorf("unknown encoding %q", f.Encoding)
	}
	decoded, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(f.Content), ""))
	if err != nil {
		return "", errors.New("content is not base64")
	}
	if compressed {
		return decompress(decoded)
	}
	return string(decoded), nil
}

func decompress(content []byte) (string, error) {
	reader, err := gzip.NewReader(bytes.NewReader(content))
	if err != nil {
		return "", errors.New("content is not gzip")
	}
	plain, err := io.ReadAll(io.LimitReader(reader, maxFile+1))
	if err != nil {
		return "", errors.New("content is damaged gzip")
	}
	if len(plain) > maxFile {
		return "", fmt.Errorf("content is larger than %d bytes", maxFile)
	}
	return string(plain), nil
}
