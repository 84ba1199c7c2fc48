# SPDX-License-Identifier: Apache-2.0
"""``python paired_site.py DATA DISKS SIZE``: the real daemon of a site of ``paired.Pair``."""

import sys
from pathlib import Path

import fake_hypervisor
from seedship import daemon, hypervisor

if __name__ == "__main__":
    data, folder, size = sys.argv[1:]
    cuts = fake_hypervisor.Cuts(fake_hypervisor.Disks(Path(folder), int(size)))
    cuts.install()
    hypervisor.fixed_cpu = cuts.live_xml
    daemon.serve(Path(data))
