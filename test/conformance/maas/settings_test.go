// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maas_test

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"
)

// What a run is told comes as flags; all but the URL default to an environment variable. The URL has none on purpose, so
// that "make test" never turns to a real MAAS. API keys come from the environment only: arguments are public.
var (
	urlFlag      = flag.String("url", "", "MAAS under test, such as http://maas.example:5240/MAAS; empty for the simulator")
	driverFlag   = flag.String("driver", os.Getenv("MAAS_DRIVER"), "base URL of an endpoint that moves machines without hardware")
	poolFlag     = flag.String("pool", os.Getenv("MAAS_POOL"), "use the Ready machines of this resource pool")
	tagFlag      = flag.String("tag", os.Getenv("MAAS_TAG"), "use the Ready machines with this tag")
	machinesFlag = flag.String("machines", os.Getenv("MAAS_MACHINES"), "use these of the Ready machines: system IDs, comma-separated")
	imageFlag    = flag.String("image", os.Getenv("MAAS_IMAGE"), "image to deploy, as os/series; empty for MAAS' default")
	caFlag       = flag.String("ca", os.Getenv("MAAS_CA"), "file with the CA certificates of an https URL; empty for the system's")
	callFlag     = flag.Duration("call-timeout", 2*time.Minute, "longest time of one call")
	waitFlag     = flag.Duration("wait", 10*time.Minute, "longest time for a machine to reach a state")
	maxFlag      = flag.Int("max-machines", 20, "use no more machines than these")
)

// settings is what one run is told.
type settings struct {
	// url ends in /MAAS.
	url                         string
	userKey, otherKey, adminKey string
	driver                      string
	pool, tag                   string
	machines                    []string
	image                       string
	roots                       *x509.CertPool
	callTimeout, wait, poll     time.Duration
	maxMachines                 int
	// strict makes a skipped case and a difference in wording a failure: the simulator has no excuse.
	strict bool
}

// fromFlags reads the settings of a run against a real MAAS, or says in a sentence what is missing.
func fromFlags() (settings, error) {
	s := settings{
		url: strings.TrimRight(*urlFlag, "/"), driver: strings.TrimRight(*driverFlag, "/"),
		userKey: os.Getenv("MAAS_USER_KEY"), otherKey: os.Getenv("MAAS_OTHER_KEY"), adminKey: os.Getenv("MAAS_ADMIN_KEY"),
		pool: *poolFlag, tag: *tagFlag, image: *imageFlag,
		callTimeout: *callFlag, wait: *waitFlag, poll: time.Second, maxMachines: *maxFlag,
	}
	s.machines = strings.FieldsFunc(*machinesFlag, func(r rune) bool { return r == ',' || r == ' ' })
	if s.userKey == "" {
		return s, errors.New("give the API key of an ordinary account in MAAS_USER_KEY")
	}
	if *caFlag != "" {
		pem, err := os.ReadFile(*caFlag)
		if err != nil {
			return s, fmt.Errorf("read the CA certificates: %w", err)
		}
		s.roots = x509.NewCertPool()
		if !s.roots.AppendCertsFromPEM(pem) {
			return s, fmt.Errorf("%s has no PEM certificate", *caFlag)
		}
	}
	return s, s.check()
}

func (s settings) check() error {
	if !strings.HasSuffix(s.url, "/MAAS") {
		return fmt.Errorf("the URL %q does not end in /MAAS", s.url)
	}
	for name, key := range map[string]string{"MAAS_USER_KEY": s.userKey, "MAAS_OTHER_KEY": s.otherKey, "MAAS_ADMIN_KEY": s.adminKey} {
		if key != "" && strings.Count(key, ":") != 2 {
			return fmt.Errorf("%s is not of the form consumer:token:secret", name)
		}
	}
	return nil
}

// httpClient is for MAAS and the driver alike. Each call brings its own deadline.
func (s settings) httpClient() *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			Proxy: http.ProxyFromEnvironment, TLSClientConfig: &tls.Config{RootCAs: s.roots, MinVersion: tls.VersionTLS12},
			MaxIdleConnsPerHost: 16,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// where names the machines asked for, for messages.
func (s settings) where() string {
	parts := []string{}
	if s.pool != "" {
		parts = append(parts, "in pool "+s.pool)
	}
	if s.tag != "" {
		parts = append(parts, "with tag "+s.tag)
	}
	if len(s.machines) > 0 {
		parts = append(parts, "among "+strings.Join(s.machines, ", "))
	}
	return cmp.Or(strings.Join(parts, " and "), "anywhere, as neither pool, tag nor machines were given")
}
