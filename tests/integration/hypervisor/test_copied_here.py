# SPDX-License-Identifier: Apache-2.0
"""Disks that cannot be replicated where they are: the command of their finding copies them while the VM runs.

One is a part of a file, one is qcow2 and served over the network, and one is encrypted by LUKS.
"""

import os
import re
import subprocess
import uuid
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import libvirt
import pytest

from luks import make_image
from seedship import clock, hypervisor
from seedship.hypervisor import Host
from seedship.lab import Lab
from seedship.lab.shell import run as shell
from seedship.units import MiB

pytestmark = [pytest.mark.libvirt, pytest.mark.slow]
SIZE = 4 * MiB
CODES = {"vda": "disk.slice", "vdb": "disk.remote-format", "vdc": "disk.encrypted"}


@pytest.fixture
def name(whole_lab: Lab) -> Iterator[str]:
    """A VM that runs at site a, with one disk of each kind. All hold the same content."""
    site, name, secret = whole_lab.a, f"a copy {uuid.uuid4()}", str(uuid.uuid4())
    folder = site.storage / name
    folder.mkdir()
    content, phrase = os.urandom(SIZE), folder / "phrase"
    phrase.write_text("a passphrase")
    (folder / "content").write_bytes(content)
    (folder / "part").write_bytes(bytes(MiB) + content + bytes(MiB))
    key = ["--object", f"secret,id=key,file={phrase}"]
    options = ["-O", "luks", "-o", "key-secret=key,iter-time=10"]
    make_image(["qemu-img", "convert", *key, "-f", "raw", *options, str(folder / "content"), str(folder / "luks")])
    shell("qemu-img", "convert", "-f", "raw", "-O", "qcow2", folder / "content", folder / "qcow2")
    words = ["qemu-nbd", "--persistent", "--shared=4", "--socket", str(folder / "nbd.sock"), "-x", "vol", "-f", "raw"]
    server = subprocess.Popen([*words, str(folder / "qcow2")])
    clock.wait_until((folder / "nbd.sock").exists, 30, "qemu-nbd")
    for path in (folder, *folder.iterdir()):
        os.chown(path, *site.owner)
    encryption = f'<encryption format="luks"><secret type="passphrase" uuid="{secret}"/></encryption>'
    sources = {
        "vda": f'<source file="{folder}/part"><slices><slice type="storage" offset="{MiB}" size="{SIZE}"/></slices></source>',
        "vdb": f'<source protocol="nbd" name="vol"><host transport="unix" socket="{folder}/nbd.sock"/></source>',
        "vdc": f'<source file="{folder}/luks">{encryption}</source>',
    }
    disks = "".join(
        f'<disk type="{"network" if "protocol" in source else "file"}"><driver name="qemu" type="{"qcow2" if "protocol" in source else "raw"}"/>{source}'
        f'<target dev="{target}" bus="virtio"/></disk>'
        for target, source in sources.items()
    )
    connection = libvirt.open(site.uri)
    held = connection.secretDefineXML(f'<secret ephemeral="no" private="yes"><uuid>{secret}</uuid></secret>')
    held.setValue(phrase.read_bytes(), 0)
    domain = connection.defineXML(
        f'<domain type="qemu"><name>{name}</name><memory unit="MiB">64</memory><vcpu>1</vcpu><os><type arch="x86_64"'
        f' machine="q35">hvm</type></os><devices>{disks}</devices></domain>'
    )
    try:
        domain.create()
        yield name
    finally:
        if domain.isActive():
            domain.destroy()
        domain.undefine()
        held.undefine()
        connection.close()
        server.kill()
        server.wait()
        subprocess.run(["rm", "-r", str(folder)], check=True)


@pytest.mark.remedy(
    "hypervisor.disk_preflight._copy: virsh blockcopy … … … --format qcow2 --transient-job --wait --pivot"
)
def test_disks_become_images_of_this_host_while_the_vm_runs(whole_lab: Lab, name: str, tmp_path: Path) -> None:
    site = whole_lab.a
    content = (site.storage / name / "content").read_bytes()
    with Host(site.uri) as host:
        vm = hypervisor.inspect(host, name)
        findings = {finding.code: finding for finding in hypervisor.preflight(vm) if finding.blocks}
        assert set(findings) == set(CODES.values())
        for target, code in CODES.items():
            copy, look = re.findall(r"`([^`]+)`", findings[code].clear)[:2]
            assert copy.startswith("virsh blockcopy ")
            at = site.storage / name / f"{target}.qcow2"
            copy = re.sub(r"'/var/lib/libvirt/images/[^']*'", f"'{at}'", copy)
            for command in (copy, look):
                there = command.replace("virsh ", f"virsh -c '{site.uri}' ", 1)
                said = subprocess.run(["sh", "-ec", there], check=True, capture_output=True, text=True).stdout
            assert ".qcow2" in next(line for line in said.splitlines() if target in line)
        vm = hypervisor.inspect(host, name)
        assert [finding.code for finding in hypervisor.preflight(vm) if finding.blocks] == []
        with host.calling(name) as domain:
            stored = ET.fromstring(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))
            assert [disk.get("type") for disk in stored.findall("devices/disk")] == ["file"] * 3
            domain.destroy()
    for disk in vm.disks:
        shell("qemu-img", "convert", "-f", "qcow2", "-O", "raw", disk.path, tmp_path / disk.target)
        assert (tmp_path / disk.target).read_bytes() == content
