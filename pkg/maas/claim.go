// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package maas

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"regexp"
	"strings"

	"github.com/dpucloud/cluster-api-provider-maas-dpu/pkg/answer"
)

// Workload annotations that the provider writes. Dots only: MAAS refuses a slash.
const (
	annotationPrefix = "maas-dpu."
	// AnnotationToken holds TokenHash of the claim; it is what makes a machine ours.
	AnnotationToken = annotationPrefix + "claim"
	// AnnotationNamespace and AnnotationName name the MaasMachine, for people.
	AnnotationNamespace = annotationPrefix + "namespace"
	AnnotationName      = annotationPrefix + "name"
	// AnnotationCluster names the Cluster, for people.
	AnnotationCluster = annotationPrefix + "cluster"
	// AnnotationHold says why a machine is powered off and kept from being released.
	AnnotationHold = annotationPrefix + "hold"
	// AnnotationDeployed records that a deploy was sent under this claim, so that a
	// release knows that there is something to erase.
	AnnotationDeployed = annotationPrefix + "deployed"
)

const (
	tokenVersion     = "v1"
	tokenRandomBytes = 16
	tokenHashLength  = 24
)

var tokenPattern = regexp.MustCompile(`^v1\.[0-9a-f]{32}\.[0-9a-f]{32}$`)

// Token is a claim token: "v1.<128 random bits>.<hash of namespace/name>", the two in
// hex. Whoever knows it can claim a machine for the object that it fits.
type Token string

// NewToken makes a token for the object namespace/name from 128 bits of random.
func NewToken(random io.Reader, namespace, name string) (string, error) {
	var bits [tokenRandomBytes]byte
	if _, err := io.ReadFull(random, bits[:]); err != nil {
		return "", fmt.Errorf("maas: make a claim token: %w", err)
	}
	return strings.Join([]string{tokenVersion, hex.EncodeToString(bits[:]), objectHash(namespace, name)}, "."), nil
}

// Valid reports whether the token is well formed.
func (t Token) Valid() bool { return tokenPattern.MatchString(string(t)) }

// Fits reports whether the token was made for this object. A copy in another object is
// inert.
func (t Token) Fits(namespace, name string) bool {
	return t.Valid() && strings.HasSuffix(string(t), "."+objectHash(namespace, name))
}

// objectHash is unambiguous because neither part can contain a slash.
func objectHash(namespace, name string) string {
	sum := sha256.Sum256([]byte(namespace + "/" + name))
	return hex.EncodeToString(sum[:16])
}

// TokenHash stands for a token in statuses, annotations and logs: 24 hex digits from
// which the token cannot be found.
func TokenHash(token string) string {
	sum := sha256.Sum256([]byte("maas-dpu claim token\n" + token))
	return hex.EncodeToString(sum[:])[:tokenHashLength]
}

// Answer to a question about ownership. The zero value is Unknown, which permits nothing.
type Answer = answer.Answer

// The answers.
const (
	Unknown = answer.Unknown
	No      = answer.No
	Yes     = answer.Yes
)

// Ownership says whether a machine is held under a claim, and why we think so.
type Ownership struct {
	Answer Answer
	// Reason in words, for conditions; no secrets.
	Reason string
	// Unannotated is set if the only thing missing for Yes is any annotation of ours, as
	// between allocate and annotate. Then, and only then, MachinesByToken decides.
	Unannotated bool
}

// Yes reports that the machine is held under the claim.
func (o Ownership) Yes() bool { return o.Answer == Yes }

// No reports that the machine is positively not held under the claim.
func (o Ownership) No() bool { return o.Answer == No }

// ClaimedBy compares what MAAS says of the machine with a claim: it belongs to the
// account, and carries the token's hash.
func (m Machine) ClaimedBy(account, token string) Ownership {
	if account == "" || token == "" {
		return Ownership{Reason: "the account or the token of the claim is not known"}
	}
	switch m.Owner {
	case account:
	case "":
		return Ownership{Answer: No, Reason: "nobody owns the machine in MAAS"}
	default:
		return Ownership{Answer: No, Reason: "the machine belongs to another MAAS account"}
	}
	switch claim := m.Annotations[AnnotationToken]; claim {
	case TokenHash(token):
		return Ownership{Answer: Yes, Reason: "owner and annotation agree with the claim"}
	case "":
	default:
		return Ownership{Answer: No, Reason: "the machine is annotated with another claim"}
	}
	for key := range m.Annotations {
		if strings.HasPrefix(key, annotationPrefix) {
			return Ownership{Reason: "the machine has annotations of this provider but none that names the claim"}
		}
	}
	return Ownership{Reason: "the machine is not annotated yet", Unannotated: true}
}

// ConfirmClaim reads the machine and says whether it is held under the claim. The token
// itself is asked for only while the machine carries no annotation of ours.
func (c *Client) ConfirmClaim(ctx context.Context, account, token, systemID string) (Machine, Ownership, error) {
	machine, err := c.Machine(ctx, systemID)
	if err != nil {
		return Machine{}, Ownership{Reason: "the machine could not be read"}, err
	}
	ownership := machine.ClaimedBy(account, token)
	if !ownership.Unannotated {
		return machine, ownership, nil
	}
	found, err := c.MachinesByToken(ctx, token)
	if err != nil {
		return machine, Ownership{Reason: "the machines of the token could not be read"}, err
	}
	for i := range found {
		// Judge the newer reading: owner or annotations may have changed in between.
		if found[i].SystemID == systemID {
			return found[i], found[i].claimedByToken(account, token), nil
		}
	}
	return machine, Ownership{Answer: No, Reason: "the machine was not allocated under the token"}, nil
}

// claimedByToken is ClaimedBy for a machine that MAAS returned for the token.
func (m Machine) claimedByToken(account, token string) Ownership {
	ownership := m.ClaimedBy(account, token)
	if ownership.Unannotated {
		return Ownership{Answer: Yes, Reason: "owner and token agree with the claim; not annotated yet"}
	}
	return ownership
}
