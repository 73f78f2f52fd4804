// Copyright The cluster-api-provider-maas-dpu Authors.
// SPDX-License-Identifier: Apache-2.0

package troubles

const (
	nsAllocateDropped  = "allocate-dropped"
	nsAllocateLate     = "allocate-late"
	nsAllocateConflict = "allocate-conflict"
	nsReleaseDropped   = "release-dropped"
	nsHang             = "hang"
	nsBeside           = "beside-hang"
	nsEraseFails       = "erase-fails"
	nsAgentDown        = "agent-down"
	nsVPCClaim         = "vpc-claim"
	nsUnplugged        = "unplugged"
	nsVictim           = "victim"
	nsForger           = "forger"
	nsBadServers       = "bad-servers"
	nsPlain            = "plain"
	nsMAASAway         = "maas-away"
	nsFabricAway       = "fabric-away"
	nsKilled           = "killed"
)
