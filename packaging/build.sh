#!/bin/sh
# Builds the static binary and, from it, packages. Called by make packages.
#
#   ARCHS    amd64 arm64    FORMATS  deb rpm    DIST  dist
#   VERSION  as git describes it: v1.2.0, v1.2.0-rc1, v1.2.0-3-gabcdef, or a commit
set -eu
cd "$(dirname "$0")/.."
VERSION=${VERSION:-dev}
DIST=${DIST:-dist}
: "${NFPM:?the nfpm command, as go run takes it}"

# pkg_version writes a version in the one form that deb and rpm order alike:
# 1.2.0~rc1 < 1.2.0 < 1.2.0+3.gabcdef. Without a tag it counts by time.
pkg_version() {
	v=${1#v}
	case "$v" in
	[0-9]*.*-[0-9]*-g*) printf %s "${v%-*-g*}" | sed 's/-/~/; s/-/./g' && printf '+%s' "${v#"${v%-*-g*}"-}" | sed 's/-/./g' ;;
	[0-9]*.*-dirty) printf %s "${v%-dirty}" | sed 's/-/~/; s/-/./g' && printf '+dirty' ;;
	[0-9]*.*) printf %s "$v" | sed 's/-/~/; s/-/./g' ;;
	*) printf '0.0.0~%s.%s' "$(date -u -d "@$(git log -1 --format=%ct 2>/dev/null || echo 0)" +%Y%m%d%H%M%S)" "$(printf %s "$v" | sed 's/-/./g')" ;;
	esac
}

mkdir -p "$DIST"
PKG_VERSION=$(pkg_version "$VERSION")
export PKG_VERSION
for arch in ${ARCHS:-amd64 arm64}; do
	bin=$DIST/ganglion-linux-$arch
	CGO_ENABLED=0 GOOS=linux GOARCH=$arch go build -trimpath \
		-ldflags "-s -w -X main.version=$VERSION" -o "$bin" ./cmd/ganglion
	for format in ${FORMATS:-deb rpm}; do
		ARCH=$arch BIN=$bin go run "$NFPM" package \
			--config packaging/nfpm.yaml --packager "$format" --target "$DIST/"
	done
done
ls -l "$DIST"
