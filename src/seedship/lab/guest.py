# SPDX-License-Identifier: Apache-2.0
"""The lab's guest: Debian's cloud kernel, busybox, and a writer that checks itself (see ``guest/``).

Runs under emulation everywhere: a ``/dev/kvm`` that exists and hangs is known. QEMU 7.2 loses dirty bits of
emulated guests in a migration unless their memory is no multiple of 256 KiB; the extra arguments see to that.
"""

from __future__ import annotations

import lzma
import os
import re
import shutil
import subprocess
import tempfile
import uuid
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Final
from xml.sax.saxutils import escape

from seedship import nbd
from seedship.errors import LabFailed
from seedship.lab.shell import alone, run
from seedship.lab.site import LabSite
from seedship.lab.watch import Watch
from seedship.units import KiB, MiB

_MODULES: Final = (
    "virtio_ring", "virtio", "virtio_blk", "virtio_pci_modern_dev", "virtio_pci_legacy_dev",
    "virtio_pci", "virtio_console", "button", "evdev", "efivarfs",
)  # fmt: skip
_AGENT: Final = "<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>"
_UEFI: Final = (
    "<firmware><feature enabled='no' name='enrolled-keys'/><feature enabled='no' name='secure-boot'/></firmware>"
)
_TPM: Final = "<tpm model='tpm-crb'><backend type='emulator' version='2.0'/></tpm>"
_ABOUT: Final = (
    "<metadata><o:libosinfo xmlns:o='http://libosinfo.org/xmlns/libvirt/domain/1.0'>"
    "<o:os id='http://debian.org/debian/12'/></o:libosinfo></metadata><title>A desktop</title>"
    "<iothreads>1</iothreads><iothreadids><iothread id='4'/></iothreadids>"
)
_DESKTOP: Final = (
    "<graphics type='spice' autoport='yes'><listen type='address' address='0.0.0.0'/><image compression='off'/>"
    "</graphics><graphics type='vnc' port='-1' autoport='yes' listen='0.0.0.0'/><video><model type='virtio'/></video>"
    "<sound model='ich9'/><redirdev bus='usb' type='spicevmc'/><redirdev bus='usb' type='spicevmc'/>"
    "<channel type='spicevmc'><target type='virtio' name='com.redhat.spice.0'/></channel>"
    "<input type='tablet' bus='usb'/><hub type='usb'/><smartcard mode='passthrough' type='spicevmc'/>"
)
CLOUD_KERNEL: Final = "linux-image-cloud-amd64"
_PROGRAMS: Final = ("writer", "tpm")
_USED: Final = 2
"""Ports that other devices of a guest take."""
_BOOT_S: Final = 240
"""UEFI takes a minute of a busy processor under emulation."""
_RECORDS_END: Final = 64 * MiB
"""The writer stays below; the filling begins here."""


MEMORY_MIB: Final = (96, 128, 256)
"""Sizes of memory that the sites' configurations expect."""


@dataclass(frozen=True, slots=True)
class GuestPlan:
    """What a guest is made of."""

    name: str = "demo"
    memory_mib: int = 128
    dirty_mib: int = 8
    """Memory that the writer keeps changing."""
    cached_mib: int = 0
    """Content of its first disk that it has read through its page cache."""
    delay_ms: int = 50
    agent: bool = False
    """It has a channel to an agent that sets its clock and freezes its writer."""
    agent_hangs: bool = False
    """Its agent does not answer when it is to freeze."""
    uefi: str = ""
    """It boots with UEFI, and writes this word into a variable, unless there is one; empty: it boots with BIOS."""
    tpm: bool = False
    """It has a TPM, which it keeps changing."""
    furnished: bool = False
    """It has what virt-install gives a VM with a desktop, and what an administrator adds."""
    ports: int = 0
    """Free ports for disks that are attached while it runs."""
    talks: bool = False
    """It has a second serial port, on which it writes down what it receives (see ``talk``)."""
    disks: tuple[tuple[str, str, int, int], ...] = (
        ("vda", "qcow2", 1024 * MiB, 192 * MiB),
        ("vdb", "raw", 512 * MiB, 96 * MiB),
    )
    """(target, format, size, bytes filled) of each disk."""
    uuid: str = field(default_factory=lambda: str(uuid.uuid4()))

    @property
    def folder(self) -> str:
        """The name as it is in names of files."""
        return re.sub(r"[^A-Za-z0-9_.-]", "_", self.name)

    @property
    def qemu_arguments(self) -> tuple[str, ...]:
        """The extra arguments for QEMU."""
        return (
            "-object",
            f"memory-backend-ram,id=odd.ram,size={self.memory_mib * MiB + 8 * KiB}",
            "-machine",
            "memory-backend=odd.ram",
            "-m",
            f"size={self.memory_mib * KiB + 8}k",
        )


SMALL: Final = GuestPlan(
    memory_mib=96,
    dirty_mib=4,
    disks=(("vda", "qcow2", 160 * MiB, 24 * MiB), ("vdb", "raw", 128 * MiB, 12 * MiB)),
)
TINY: Final = GuestPlan(
    memory_mib=96,
    dirty_mib=1,
    delay_ms=200,
    disks=(("vda", "qcow2", 96 * MiB, 8 * MiB), ("vdb", "raw", 80 * MiB, 4 * MiB)),
)
"""One of many guests that share a machine."""


class Guest:
    """One guest at a site."""

    def __init__(self, site: LabSite, plan: GuestPlan, cache: Path) -> None:
        self.site, self.plan, self._cache = site, plan, cache
        self.name = plan.name
        self.devices: dict[str, Path] = {}
        """Block devices that disks lie on instead of files, by target."""
        self.layers: dict[str, tuple[str, ...]] = {}
        """Options for ``qemu-img create`` of each image of a disk's chain, the lowest first, by target."""
        self.folder = site.storage / plan.folder
        self.console = self.folder / "console"
        self.talk = self.folder / "talk.sock"

    def disk(self, target: str) -> Path:
        """The image that a disk has before anything is done to it."""
        if target in self.devices:
            return self.devices[target]
        image_format = next(f for t, f, _, _ in self.plan.disks if t == target)
        return self.folder / f"{target}.{image_format}"

    def start(self) -> Watch:
        """Make the disks, define and start the guest, and wait for its first numbers.

        Raises:
            LabFailed: a part is missing, or the guest does not come up.
        """
        self.folder.mkdir(parents=True)
        self.console.touch()
        for target, image_format, size, filled in self.plan.disks:
            if target not in self.devices:
                self._create(target, image_format, size, filled)
            else:
                _fill(self.disk(target), image_format, filled)
        boot_files(self.site, self._cache)
        for path in (self.folder, *self.folder.iterdir()):
            os.chown(path, *self.site.owner)
        definition = self.folder / "definition.xml"
        definition.write_text(self.xml())
        run("virsh", "-c", self.site.uri, "define", definition)
        run("virsh", "-c", self.site.uri, "start", self.name)
        watch = Watch(self.console)
        watch.more(3, _BOOT_S)
        return watch

    def _create(self, target: str, image_format: str, size: int, filled: int) -> None:
        layers = self.layers.get(target, ("",))
        below: list[object] = []
        for number, options in enumerate(layers, 1):
            top = number == len(layers)
            path = self.disk(target) if top else self.folder / f"{target}-{number}.{image_format}"
            words: list[object] = ["create", "-q", "-f", image_format, *below]
            run("qemu-img", *words, *(["-o", options] if options else []), path, size)
            _fill(path, image_format, filled // number)
            below = ["-b", path, "-F", image_format]

    def xml(self) -> str:
        """libvirt's definition."""
        plan = self.plan
        boot = self.site.root / "boot"
        disks = "".join(
            f"<disk type='{'block' if target in self.devices else 'file'}' device='disk'>"
            f"<driver name='qemu' type='{image_format}' cache='none' discard='unmap'/>"
            f"<source {'dev' if target in self.devices else 'file'}='{self.disk(target)}'/>"
            f"<target dev='{target}' bus='virtio'/></disk>"
            for target, image_format, _, _ in plan.disks
        )
        ports = "<controller type='pci' index='0' model='pcie-root'/>" if plan.ports else ""
        ports += "<controller type='pci' model='pcie-root-port'/>" * (
            plan.ports and plan.ports + len(plan.disks) + _USED
        )
        port = f"<serial type='unix'><source mode='bind' path='{self.talk}'/><target port='1'/></serial>"
        firmware = f" svar={plan.uefi}" if plan.uefi else ""
        cached = f" scache={plan.cached_mib}" if plan.cached_mib else ""
        hangs = " sagent=hangs" if plan.agent_hangs else ""
        about, desktop = (_ABOUT, _DESKTOP) if plan.furnished else ("", "")
        if plan.furnished:
            disks = disks.replace("<target", "<iotune><write_iops_sec>100000</write_iops_sec></iotune><target", 1)
        words = "".join(f"<qemu:arg value='{word}'/>" for word in plan.qemu_arguments)
        return f"""\
<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>{escape(plan.name)}</name><uuid>{plan.uuid}</uuid>{about}
  <memory unit='MiB'>{plan.memory_mib}</memory><vcpu>1</vcpu>
  <os{" firmware='efi'" if plan.uefi else ""}><type arch='x86_64' machine='pc-q35-7.2'>hvm</type>
    {_UEFI if plan.uefi else ""}<kernel>{boot}/vmlinuz</kernel><initrd>{boot}/initrd.gz</initrd>
    <cmdline>console=ttyS0 quiet sdelay={plan.delay_ms} smem={plan.dirty_mib}{cached}{firmware}{hangs}</cmdline></os>
  <cpu mode='custom' match='exact'><model fallback='allow'>qemu64</model></cpu>
  <features><acpi/></features><on_crash>destroy</on_crash><on_reboot>destroy</on_reboot>
  <devices>{disks}
    <controller type='usb' model='{"qemu-xhci" if plan.furnished else "none"}'/><memballoon model='none'/>{ports}
    <serial type='file'><source path='{self.console}' append='on'/><target port='0'/></serial>
    {port if plan.talks else ""}{_AGENT if plan.agent else ""}{_TPM if plan.tpm else ""}{desktop}
  </devices>
  <qemu:commandline>{words}</qemu:commandline>
</domain>
"""


def boot_files(site: LabSite, cache: Path) -> tuple[Path, Path]:
    """The site's own copies of kernel and initial file system: libvirt changes their owner."""
    with alone(cache):  # labs beside each other share it
        kernel, initrd = kernel_file(cache), initrd_file(cache)
        copies = site.root / "boot/vmlinuz", site.root / "boot/initrd.gz"
        for source, copy in zip((kernel, initrd), copies, strict=True):
            if not copy.exists():
                shutil.copy(source, copy)
                os.chown(copy, *site.owner)
    return copies


def kernel_file(cache: Path, image: str = CLOUD_KERNEL) -> Path:
    """Debian's kernel of a package that names the newest one, fetched once; it is only unpacked, never installed."""
    package, kernel = cache / "package", cache / "vmlinuz"
    if kernel.exists():
        return kernel
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        name = _kernel_package(image)
        options = ["-o", "APT::Sandbox::User=root"]
        run("apt-get", "download", *options, name, cwd=Path(folder), limit=600)
        shutil.rmtree(package, ignore_errors=True)
        run("dpkg-deb", "-x", next(Path(folder).glob("*.deb")), package)
    shutil.copy(next((package / "boot").glob("vmlinuz-*")), kernel.with_suffix(".new"))
    kernel.with_suffix(".new").rename(kernel)
    return kernel


def _kernel_package(image: str) -> str:
    """The package that Debian's kernel is in at present; package lists are fetched where there are none."""
    for fetch in (False, True):
        if fetch:
            run("apt-get", "update", limit=600)
        try:
            depends = run("apt-cache", "depends", image)
        except LabFailed:
            continue
        if match := re.search(r"Depends: (linux-image-\S+)", depends):
            return match[1]
    raise LabFailed(image, "apt does not know it; it is in Debian's main archive")


def initrd_file(cache: Path) -> Path:
    """The guest's first file system, with modules of the kernel that is unpacked in the cache."""
    initrd = cache / "initrd.gz"
    here = resources.files("seedship.lab") / "guest"
    init = (here / "init").read_text()
    programs = {name: (here / f"{name}.c").read_text() for name in _PROGRAMS}
    sources, sources_text = cache / "initrd.sources", "".join([init, *programs.values()])
    if initrd.exists() and sources.exists() and sources.read_text() == sources_text:
        return initrd
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        root = Path(folder)
        for name in ("bin", "dev", "proc", "sys", "mod"):
            (root / name).mkdir()
        shutil.copy("/bin/busybox", root / "bin/busybox")
        (root / "init").write_text(init)
        (root / "init").chmod(0o755)
        for name, program in programs.items():
            source = root / f"{name}.c"
            source.write_text(program)
            run("gcc", "-O2", "-static", "-o", root / "bin" / name, source)
            source.unlink()
        for number, module in enumerate(_MODULES):
            if content := kernel_module(cache / "package", module):
                (root / f"mod/{number}-{module}.ko").write_bytes(content)
        pack = "set -o pipefail; find . | cpio -o -H newc --quiet | gzip -1"
        fresh = cache / "initrd.new"
        with fresh.open("wb") as out:
            subprocess.run(["bash", "-c", pack], cwd=root, check=True, stdout=out)
    fresh.rename(initrd)
    sources.write_text(sources_text)
    return initrd


def kernel_module(package: Path, name: str) -> bytes | None:
    """A module of an unpacked kernel package, ready for ``insmod``; None if it is built into the kernel.

    Debian 12 stores modules below ``lib/modules`` and uncompressed, Debian 13 below ``usr/lib/modules`` as ``.ko.xz``
    and with the drivers of virtio built in. Names are written with ``-`` or ``_``.

    Raises:
        LabFailed: the kernel does not have it.
    """
    folders = [folder for base in ("lib", "usr/lib") if (folder := package / base / "modules").is_dir()]
    spellings = {name, name.replace("_", "-"), name.replace("-", "_")}
    for folder in folders:
        for spelling in spellings:
            for path in folder.rglob(f"{spelling}.ko*"):
                content = path.read_bytes()
                return lzma.decompress(content) if path.suffix == ".xz" else content
    built_in = {
        Path(line).stem
        for folder in folders
        for path in folder.rglob("modules.builtin")
        for line in path.read_text().split()
    }
    if spellings & built_in:
        return None
    raise LabFailed(name, "the guest's kernel has no such module")


def _fill(path: Path, image_format: str, size: int) -> None:
    """Write ``size`` bytes of content: a third random, a third text that repeats, a third zeros."""
    if size <= 0:
        return
    with (
        nbd.serve(path, image_format, read_only=False) as socket,
        nbd.Writer(socket, nbd.EXPORT) as writer,
    ):
        for number, offset in enumerate(range(_RECORDS_END, _RECORDS_END + size, MiB)):
            if number % 3 == 0:
                writer.write(os.urandom(MiB), offset)
            elif number % 3 == 1:
                line = f"record {number:08d} of a file that compresses well\n".encode()
                writer.write((line * (MiB // len(line) + 1))[:MiB], offset)
            else:
                writer.write(bytes(MiB), offset)
        writer.flush()
