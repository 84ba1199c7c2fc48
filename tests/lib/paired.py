# SPDX-License-Identifier: Apache-2.0
"""Two paired sites, without guests: their real daemons, catalogs and link, the VMs of ``fake_hypervisor`` at the first.

Persons type at both: commands of seedship run in the process of the test, which is faster.
"""

import itertools
import json
import os
import random
import shlex
import shutil
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import fake_hypervisor
from person import Person
from ports import free_ports
from seedship import clock, config
from seedship.client import SiteClient

MIB = 1 << 20
SIZE = 4 * MIB
HELD = {"SEEDSHIP_FAILPOINTS": "switchover.stopping=hold"}
"""Nothing here can be switched over: an attempt is held before the VM would stop."""
VMS = 40
"""Each test takes VMs of its own."""


class Site(Person):
    """One site, and somebody who types there what it says."""

    def __init__(self, folder: Path, name: str, disks: fake_hypervisor.Disks, vms: int) -> None:
        super().__init__(folder / name)
        self.name = name
        self.replicas, self.port = folder / f"{name}-replicas", free_ports(1)
        self.replicas.mkdir()
        host = folder / f"{name}.xml"
        domains = (
            fake_hypervisor.DOMAIN.format(name=f"vm{n}", uuid=fake_hypervisor.uuid_of(n), memory=64, disk=disks.path(n))
            for n in range(1, vms + 1)
        )
        host.write_text(f"<node><cpu><nodes>1</nodes><cores>4</cores></cpu>{''.join(domains)}</node>")
        (folder / f"{name}-work").mkdir()
        made = config.Config(
            name,
            config.LinkSection(f"127.0.0.1:{self.port}"),
            config.HypervisorSection(f"test://{host}", socket=str(folder / "none"), work=str(folder / f"{name}-work")),
            config.StorageSection(str(self.replicas), reserve="16M"),
            api=config.ApiSection(""),
            accept=config.AcceptSection(switchover="ask"),
        )
        config.create(self.data, made)
        self._words = [sys.executable, str(Path(__file__).parent / "paired_site.py"), str(self.data)]
        self._words += [str(disks.folder), str(disks.size)]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with (self.data / "log").open("ab") as output:
            self._process = subprocess.Popen(
                self._words,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, **HELD, "SEEDSHIP_FAILPOINTS_ONCE": str(self.data)},
            )

    def started(self) -> None:
        clock.wait_until(self._answers, 60, f"the daemon; {self.data / 'log'}", 0.05)

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self.data / "log").read_text()[-3000:]
        try:
            with SiteClient(self.data) as client:
                client.get("site")
        except Exception:  # noqa: BLE001 - it is not there yet, whatever it says
            return False
        return True

    def terminate(self) -> None:
        if self._process is not None:
            self._process.terminate()

    def stop(self) -> None:
        self.terminate()
        if self._process is not None:
            self._process.wait(60)
            self._process = None

    def show(self, vm: str) -> dict[str, Any]:
        """As ``replication show -o json`` does."""
        with SiteClient(self.data) as client:
            return dict(client.get("replications", vm))

    def until(self, vm: str, *states: str, limit: float = 60) -> dict[str, Any]:
        """Wait until a replication is in one of these states."""
        shown: dict[str, Any] = {}

        def reached() -> bool:
            shown.clear()
            shown.update(self.show(vm))
            return shown["state"] in states and not shown["running"]

        clock.wait_until(reached, limit, f"{vm} {states}: {shown}", 0.05)
        return shown

    def problem(self, vm: str, code: str, limit: float = 60) -> dict[str, Any]:
        """Wait for a problem of a replication."""
        found: dict[str, Any] = {}

        def there() -> bool:
            found.clear()
            found.update(self.show(vm)["problem"] or {})
            return found.get("code") == code

        clock.wait_until(there, limit, code, 0.05)
        return found

    def gate(self, limit: float = 60) -> Path:
        """Wait until an attempt to switch over is held; it continues when this file is gone."""
        path = self.data / "held-switchover.stopping"
        clock.wait_until(path.exists, limit, "the attempt", 0.02)
        return path

    def events(self, vm: str, kind: str) -> list[dict[str, Any]]:
        """What happened to a replication; several threads may ask."""
        with SiteClient(self.data) as client:
            return list(client.get("replications", vm, "events", kind=kind))


class Pair:
    """Both sites, the VMs at the first, and drives in folders."""

    def __init__(self, folder: Path, stack: ExitStack, vms: int = VMS) -> None:
        self.folder, self._vms, self._drives = folder, iter(range(1, vms + 1)), itertools.count()
        self._mounted: list[Path] = []
        self.disks = fake_hypervisor.Disks(folder, SIZE)
        self.template = folder / "template.qcow2"
        fake_hypervisor.template(self.template, SIZE, b"seedship" * 8192)
        process = self.disks.start()
        stack.callback(process.wait, 20)
        stack.callback(process.terminate)
        for number in range(1, vms + 1):
            self.disks.create(number, self.template)
        self.disks.release()
        self.a, self.b = Site(folder, "a", self.disks, vms), Site(folder, "b", self.disks, 0)
        stack.callback(self.end)
        for site in self.sites:
            site.start()
        for site in self.sites:
            site.started()
        code = json.loads(self.b.works("seedship peer invite -o json"))["invitation"]
        file = folder / "invitation"
        file.write_text(code)
        self.a.works(f"seedship peer join --code-file {file}")

    @property
    def sites(self) -> tuple[Site, Site]:
        return self.a, self.b

    def end(self) -> None:
        """Stop both at the same time."""
        for site in self.sites:
            site.terminate()
        for site in self.sites:
            site.stop()
        for path in self._mounted:
            subprocess.run(["umount", "--lazy", path], check=False)

    def in_sync(self, vm: str) -> None:
        """Wait until both sites say so."""
        for site in self.sites:
            site.until(vm, "in-sync")

    def vm(self) -> str:
        """A VM that nothing replicates."""
        return f"vm{next(self._vms)}"

    def image(self, vm: str) -> Path:
        """A copy of a VM's disk, at the destination."""
        made = self.b.replicas.parent / "copies" / f"{vm}.qcow2"
        made.parent.mkdir(exist_ok=True)
        shutil.copyfile(self.template, made)
        return made

    def adopted(self, *words: str) -> str:
        """A VM that is in sync, without drives."""
        vm = self.checked(*words)
        self.b.works(f"seedship replication adopt {vm} --disk vda={self.image(vm)}")
        self.in_sync(vm)
        return vm

    def fill(self, vm: str, size: int = 3 * MIB) -> None:
        """Write what cannot be compressed to a VM's disk, as its guest does."""
        self.disks.write(int(vm[2:]), random.Random(vm).randbytes(size), 0)

    def drive(self, site: Site | None = None, *, size: str = "64m", prepared: bool = True) -> Path:
        """A file system in memory, as a drive of a site."""
        path = self.folder / "drives" / f"it's {next(self._drives)}"
        path.mkdir(parents=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", path], check=True)
        self._mounted.append(path)
        if prepared:
            (site or self.a).works(f"seedship drive init {shlex.quote(str(path))}")
        return path

    def shipped(self, count: int = 1, *words: str) -> tuple[str, list[Path]]:
        """A VM whose seed is on drives, and these."""
        vm, made = self.vm(), [self.drive() for _ in range(count)]
        named = [word for path in made for word in ("--drive", str(path))]
        self.a.works(
            shlex.join(["seedship", "replication", "create", vm, "--to", "b", "--interval", "1s", *named, *words])
        )
        self.a.until(vm, "shipped")
        return vm, made

    def checked(self, *words: str) -> str:
        """A VM whose replication has no seed yet."""
        vm = self.vm()
        self.a.works(shlex.join(["seedship", "replication", "create", vm, "--to", "b", "--interval", "1s", *words]))
        self.a.until(vm, "checked")
        return vm
