# The manager of both wings: a static binary, no shell, no root.
ARG GO_VERSION=1.26
ARG BASE_IMAGE=gcr.io/distroless/static:nonroot

FROM --platform=${BUILDPLATFORM} golang:${GO_VERSION} AS builder
WORKDIR /src
COPY go.mod go.sum ./
RUN --mount=type=cache,target=/go/pkg/mod go mod download
COPY main.go ./
COPY api api
COPY controllers controllers
COPY internal internal
COPY pkg pkg
ARG TARGETOS TARGETARCH
ARG LDFLAGS
RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/cache/go-build \
    GOCACHE=/cache/go-build CGO_ENABLED=0 GOOS=${TARGETOS} GOARCH=${TARGETARCH} \
    go build -trimpath -buildvcs=false -ldflags "-s -w ${LDFLAGS}" -o /out/manager .

FROM ${BASE_IMAGE}
COPY --from=builder /out/manager /manager
USER 65532:65532
ENTRYPOINT ["/manager"]
