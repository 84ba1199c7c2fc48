# SPDX-License-Identifier: Apache-2.0
"""A disk that QEMU decrypts: the command of its finding writes an image without encryption."""

import re
import subprocess
from pathlib import Path

import pytest

from luks import make_image
from seedship.hypervisor import Disk, ImageLayer, Vm, preflight
from seedship.units import MiB
from seedship.workflows.host import with_chains
from seedship.workflows.provisioning.preflight import image_findings

pytestmark = pytest.mark.qemu
OPTIONS = {
    "qcow2": ("qcow2", "encrypt.format=luks,encrypt.key-secret=key,encrypt.iter-time=10"),
    "raw": ("luks", "key-secret=key,iter-time=10"),
}


@pytest.mark.parametrize("kind", ["luks", "qcow2"])
def test_an_encrypted_image_below_the_first_one_is_said_while_the_vm_is_off(kind: str, tmp_path: Path) -> None:
    """libvirt names only the first image then, and each round would fail."""
    secret, base, top = tmp_path / "passphrase", tmp_path / "base", tmp_path / "top"
    secret.write_text("a passphrase")
    _, options = OPTIONS["raw" if kind == "luks" else kind]
    key = ["--object", f"secret,id=key,file={secret}"]
    make_image(["qemu-img", "create", "-q", *key, "-f", kind, "-o", options, str(base), "4M"])
    words = ["qemu-img", "create", "-q", "-u", "-f", "qcow2", "-b", str(base), "-F", kind, str(top), "4M"]
    subprocess.run(words, check=True)
    disk = Disk("vda", "disk", "file", "virtio", (ImageLayer(str(top), "qcow2"),), 4 * MiB)
    (finding,) = image_findings(with_chains(Vm("u", "web1", (disk,), "kvm", "q35", "", 0, state="shut-off")))
    assert (finding.code, finding.blocks) == ("disk.encrypted", True)
    assert str(base) in finding.what


@pytest.mark.parametrize("image_format", OPTIONS)
@pytest.mark.remedy(
    "hypervisor.disk_preflight._encrypted: qemu-img convert --object secret,id=key,file=PASSPHRASE-FILE --image-opts … -O qcow2 …"
)
def test_an_encrypted_disk_is_converted_by_the_command_of_its_finding(image_format: str, tmp_path: Path) -> None:
    secret, image = tmp_path / "passphrase", tmp_path / "it's, a disk"
    secret.write_text("a passphrase")
    key = ["--object", f"secret,id=key,file={secret}"]
    kind, options = OPTIONS[image_format]
    content = tmp_path / "content"
    content.write_bytes(b"seedship" * (MiB // 8))
    words = ["qemu-img", "convert", *key, "-f", "raw", "-O", kind, "-o", options, str(content), str(image)]
    make_image(words)
    disk = Disk("vda", "disk", "file", "virtio", (ImageLayer(str(image), image_format),), MiB, encrypted=True)
    vm = Vm("u", "web 1", (disk,), "kvm", "q35", "", 0, state="shut-off")
    (finding,) = [finding for finding in preflight(vm) if finding.code == "disk.encrypted"]
    convert, edit = re.findall(r"`([^`]+)`", finding.clear)
    assert finding.blocks
    assert edit == "virsh edit 'web 1'"
    subprocess.run(["sh", "-ec", convert.replace("PASSPHRASE-FILE", str(secret))], check=True)
    compare = ["qemu-img", "compare", "-f", "raw", "-F", "qcow2", str(content), f"{image}.plain.qcow2"]
    subprocess.run(compare, check=True)
