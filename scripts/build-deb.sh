#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Builds dist/seedship_VERSION_amd64.deb on Debian 12 or 13: with its tools (which need root or sudo when they are
# missing), from a copy of the tree, so that nothing is left in it.
set -euo pipefail
cd "$(dirname "$0")/.."

packages=(build-essential debhelper po-debconf fakeroot python3-venv python3-libvirt python3-libnbd
    nbdkit-plugin-dev libisal-dev zlib1g-dev)
bash scripts/apt-install.sh "${packages[@]}"

# The package holds what pip installed for this system's Python, so it is for this release of Debian only: the release is
# part of the version, as in Debian's own updates.
. /etc/os-release
version="$(dpkg-parsechangelog -S Version)+deb${VERSION_ID}"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
mkdir "$scratch/seedship"
cp -a debian src docs pyproject.toml hatch_build.py README.md LICENSE CHANGELOG.md "$scratch/seedship/"
sed -i "1s/(.*) [a-z]*;/($version) $VERSION_CODENAME;/" "$scratch/seedship/debian/changelog"
find "$scratch" -name __pycache__ -prune -exec rm -rf {} +
rm -f "$scratch/seedship/src/seedship/tap/plugin.so"
mkdir -p dist
# The times of files in the package are those of its changelog's last entry, or of the last commit.
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct 2>/dev/null || dpkg-parsechangelog -S Timestamp)
export SOURCE_DATE_EPOCH
(cd "$scratch/seedship" && dpkg-buildpackage --build=binary --no-sign >"$scratch/log" 2>&1) ||
    { tail -n 40 "$scratch/log" >&2; exit 1; }
mv "$scratch/seedship_${version}_amd64.deb" dist/
echo "dist/seedship_${version}_amd64.deb"
