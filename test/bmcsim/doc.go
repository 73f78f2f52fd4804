// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

// Package bmcsim simulates the Redfish services of BlueField-3 BMCs, as far as they say how a card stands to its host.
//
// Each card has a listener of its own, with TLS under the site's CA. It answers as the real one does: unknown resources with 404
// and a Redfish error, anything but the service root without a login with 401, writes to what cannot be written with 405. Every
// request is in a journal.
package bmcsim
