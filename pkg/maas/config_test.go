// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maas

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

func TestNewSaysWhatToWrite(t *testing.T) {
	good := Config{Endpoint: "https://maas.example:5443/MAAS", APIKey: NewAPIKey(testKey)}
	tests := []struct {
		name   string
		change func(*Config)
		field  string
		hint   string
	}{
		{"no endpoint", func(c *Config) { c.Endpoint = "" }, "Endpoint", "https://maas.example:5443/MAAS"},
		{"no scheme", func(c *Config) { c.Endpoint = "maas.example/MAAS" }, "Endpoint", "https://"},
		{"other scheme", func(c *Config) { c.Endpoint = "ftp://maas.example/MAAS" }, "Endpoint", "https://"},
		{"no host", func(c *Config) { c.Endpoint = "https:///MAAS" }, "Endpoint", "no host"},
		{"password", func(c *Config) { c.Endpoint = "https://u:sesame@maas.example/MAAS" }, "Endpoint", "credentials"},
		{"password and broken", func(c *Config) { c.Endpoint = "https://u:sesame@maas.example:port/MAAS" }, "Endpoint", "not a URL"},
		{"query", func(c *Config) { c.Endpoint = "https://maas.example/MAAS?a=sesame" }, "Endpoint", "query"},
		{"API path", func(c *Config) { c.Endpoint = "https://maas.example/MAAS/api/2.0/" }, "Endpoint", "API path"},
		{"no key", func(c *Config) { c.APIKey = APIKey{} }, "APIKey", "consumer:token:secret"},
		{"blank key", func(c *Config) { c.APIKey = NewAPIKey(" \n") }, "APIKey", "consumer:token:secret"},
		{"two parts", func(c *Config) { c.APIKey = NewAPIKey("sesame:sesame") }, "APIKey", "consumer:token:secret"},
		{"empty part", func(c *Config) { c.APIKey = NewAPIKey("sesame::sesame") }, "APIKey", "consumer:token:secret"},
		{"line break", func(c *Config) { c.APIKey = NewAPIKey("a:b:sesame\nsesame") }, "APIKey", "consumer:token:secret"},
		{"no PEM", func(c *Config) { c.CABundle = []byte("sesame") }, "CABundle", "PEM"},
		{"negative", func(c *Config) { c.Timeout = -1 }, "Timeout", "negative"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			config := good
			tt.change(&config)
			_, err := New(config)
			var typed *ConfigError
			if !errors.As(err, &typed) || !strings.Contains(typed.Field, tt.field) || !strings.Contains(err.Error(), tt.hint) {
				t.Fatalf("error is %v, want one about %s with %q", err, tt.field, tt.hint)
			}
			if strings.Contains(err.Error(), "sesame") {
				t.Errorf("the error quotes its input: %v", err)
			}
			if _, err := NewVerifier(config); err == nil {
				t.Error("NewVerifier accepts it")
			}
		})
	}
	for _, endpoint := range []string{"http://10.0.0.1:5240/MAAS", "https://maas.example/MAAS/", " https://maas.example/MAAS\n"} {
		config := good
		config.Endpoint = endpoint
		config.APIKey = NewAPIKey(testKey + "\n")
		if _, err := New(config); err != nil {
			t.Errorf("%q: %v", endpoint, err)
		}
	}
}

func TestKeyIsNeverPrinted(t *testing.T) {
	config := Config{Endpoint: "https://maas.example/MAAS", APIKey: NewAPIKey(testKey)}
	c, err := New(config)
	if err != nil {
		t.Fatal(err)
	}
	v, err := NewVerifier(config)
	if err != nil {
		t.Fatal(err)
	}
	hidden := struct {
		key    APIKey
		config Config
		c      *Client
	}{config.APIKey, config, c}
	var out bytes.Buffer
	for _, value := range []any{config.APIKey, &config.APIKey, config, &config, hidden, &hidden, c, *c, v, []APIKey{config.APIKey}, map[string]Config{"a": config}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
			fmt.Fprintf(&out, verb+"\n", value)
		}
		encoded, err := json.Marshal(value)
		if err != nil {
			t.Errorf("%T: %v", value, err)
		}
		out.Write(encoded)
		slog.New(slog.NewJSONHandler(&out, nil)).Info("json", "value", value)
		slog.New(slog.NewTextHandler(&out, nil)).Info("text", "value", value)
	}
	for _, part := range strings.Split(testKey, ":") {
		for _, form := range []string{part, fmt.Sprintf("%x", part), fmt.Sprintf("%X", part)} {
			if strings.Contains(out.String(), form) {
				t.Errorf("%q was printed", form)
			}
		}
	}
	if !strings.Contains(out.String(), redacted) {
		t.Error("nothing was printed at all")
	}
}

func TestAPIKeyEqual(t *testing.T) {
	if !NewAPIKey(testKey).Equal(NewAPIKey(testKey+"\n")) || NewAPIKey(testKey).Equal(NewAPIKey("a:b:c")) || NewAPIKey(testKey).Equal(APIKey{}) {
		t.Error("Equal does not compare keys")
	}
	if !(APIKey{}).IsZero() || NewAPIKey("a").IsZero() {
		t.Error("IsZero is wrong")
	}
}
