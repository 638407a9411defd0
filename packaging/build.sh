#!/bin/sh
# Builds the static binary and, from it, the deb and the rpm into dist/, for the
# architectures in ARCHS (default: amd64 arm64). Called by make packages.
set -eu
cd "$(dirname "$0")/.."
# Package versions cannot have a leading v or dashes.
version=$(printf %s "${VERSION:-dev}" | sed 's/^v//; s/-/+/; s/-/./g')
case "$version" in [0-9]*) ;; *) version="0.0.0~$version" ;; esac
mkdir -p dist
for arch in ${ARCHS:-amd64 arm64}; do
	bin=dist/ganglion-linux-$arch
	CGO_ENABLED=0 GOOS=linux GOARCH=$arch go build -trimpath \
		-ldflags "-s -w -X main.version=${VERSION:-dev}" -o "$bin" ./cmd/ganglion
	for format in deb rpm; do
		ARCH=$arch VERSION=$version BIN=$bin go run "$NFPM" package \
			--config packaging/nfpm.yaml --packager $format --target dist/
	done
done
ls -l dist
