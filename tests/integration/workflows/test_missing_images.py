# SPDX-License-Identifier: Apache-2.0
"""Preflight of a VM that is off finds an image below the first one that is gone: each round would fail."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from seedship.hypervisor import Disk, ImageLayer, Vm
from seedship.nbd import image
from seedship.units import MiB
from seedship.workflows.host import with_chains
from seedship.workflows.provisioning.preflight import image_findings

pytestmark = pytest.mark.qemu


def vm_on(top: Path) -> Vm:
    disk = Disk("vda", "disk", "file", "virtio", (ImageLayer(str(top), "qcow2"),), MiB)
    return with_chains(Vm("u", "web1", (disk,), "kvm", "q35", "", 0, state="shut-off"))


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("kind", ["raw", "qcow2", "data file"])
@pytest.mark.parametrize("how", ["gone", "a folder"])
def test_an_image_below_that_is_gone_is_found_while_the_vm_is_off(
    tmp_path: Path, kind: str, depth: int, how: str
) -> None:
    base = missing = tmp_path / "base"
    if kind == "data file":
        missing = tmp_path / "data"
        options = f"data_file={missing},data_file_raw=on"
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-o", options, str(base), "1M"], check=True)
    else:
        image.create(base, kind, MiB)
    below, below_format = base, "raw" if kind == "raw" else "qcow2"
    for number in range(depth):
        top = tmp_path / f"top {number}"
        image.create(top, "qcow2", MiB, backing=below, backing_format=below_format)
        below, below_format = top, "qcow2"
    assert [finding for finding in image_findings(vm_on(below)) if finding.blocks] == []
    os.unlink(missing)
    if how == "a folder":
        missing.mkdir()
    [finding] = [finding for finding in image_findings(vm_on(below)) if finding.blocks]
    assert finding.code == "disk.chain-unreadable"
    assert str(missing) in finding.what
    [see] = re.findall("`(.+?)`", finding.clear)
    shown = subprocess.run(["sh", "-c", see], capture_output=True, text=True)
    assert str(missing) in shown.stdout + shown.stderr
