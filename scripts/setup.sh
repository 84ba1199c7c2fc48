#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Installs what seedship needs on Debian 12 or 13: Debian packages, and Python packages into .venv.
# Idempotent, and quick when nothing is missing. Needs root or sudo for the Debian packages only.
set -euo pipefail
cd "$(dirname "$0")/.."

packages=(
    qemu-system-x86 qemu-utils qemu-block-extra libvirt-daemon-system libvirt-clients
    python3-libvirt python3-libnbd libnbd-bin python3-venv nbdkit nbdkit-plugin-python iproute2 e2fsprogs util-linux
    exfat-fuse exfatprogs ntfs-3g xfsprogs btrfs-progs
    libisal2 gcc libc6-dev libisal-dev zlib1g-dev nbdkit-plugin-dev busybox-static cpio ovmf swtpm swtpm-tools chromium fonts-dejavu-core
)
# QEMU's SPICE and QXL are a package of their own from Debian 13 on.
[ "$(. /etc/os-release && echo "${VERSION_ID:-13}")" -lt 13 ] || packages+=(qemu-system-modules-spice)
bash scripts/apt-install.sh "${packages[@]}"
# Tests start iSCSI targets of their own. The package's service would serve on all addresses of this machine.
if ! dpkg-query -W tgt >/dev/null 2>&1; then
    bash scripts/apt-install.sh tgt
    sudo=""
    [ "$(id -u)" = 0 ] || sudo="sudo"
    [ ! -d /run/systemd/system ] || $sudo systemctl disable --quiet --now tgt
fi

# The system's python3 and its site packages: libvirt's and libnbd's bindings must be those that
# belong to the host's C libraries, and Debian ships them for this interpreter only.
stamp=".venv/.setup-$(sha256sum pyproject.toml hatch_build.py src/seedship/tap/plugin.c scripts/requirements.txt scripts/setup.sh | sha256sum | cut -c1-16)"
if [ ! -e "$stamp" ]; then
    echo "installing Python packages into .venv"
    [ -x .venv/bin/python ] || /usr/bin/python3 -m venv --system-site-packages .venv
    # The system's site packages may want other versions of libraries; nothing here runs with those.
    .venv/bin/pip install --quiet --disable-pip-version-check --no-warn-conflicts \
        --require-hashes --requirement scripts/requirements.txt
    .venv/bin/pip install --quiet --disable-pip-version-check --no-warn-conflicts \
        --no-deps --no-build-isolation --editable .
    rm -f .venv/.setup-*
    touch "$stamp"
fi
