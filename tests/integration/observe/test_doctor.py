# SPDX-License-Identifier: Apache-2.0
"""What the doctor says of each thing, without a host; what it may remove on one is told by ``tests/journey/test_observe.py``."""

import dataclasses
import os
import re
import shutil
import subprocess
import threading
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

from contexts import changed
from observing import DISKS, SECRET, add_destination, add_source, make_site
from seedship import clock, config, hypervisor, link, nbd, store
from seedship.errors import HypervisorBusy, HypervisorUnreachable, InsecureFile, PeerUnreachable
from seedship.hypervisor import Confinement, Vm
from seedship.observe import Doctor, Health, Parts, Sampler
from seedship.observe import doctor as doctor_module
from seedship.observe.controllers import findings as findings_of
from seedship.observe.findings import HealthFinding, mended
from seedship.observe.remnants import Remnants
from seedship.observe.webhooks import WebhookDispatcher, secret_of
from seedship.runtime import Backoff, Controller
from seedship.workflows.documents import BitmapTracking, Coming, Part


class Session:
    """A link of which the test says how the peer answers."""

    skew: float | None = 0.1
    silent = False

    def probe(self, peer: str, limit_s: float) -> tuple[int, float | None]:
        if self.silent:
            raise PeerUnreachable("hamburg", "silence")
        return 1, self.skew


@pytest.fixture
def site(tmp_path: Path, monkeypatch):
    secret = tmp_path / "secret"
    secret.write_text(SECRET)
    secret.chmod(0o600)
    hook = config.WebhookSection("pager", "http://127.0.0.1:1/", str(secret))
    made = changed(make_site(tmp_path, webhook=[hook]), session=Session())
    monkeypatch.setattr(hypervisor, "inventory", lambda host: [])
    monkeypatch.setattr(made.host, "version", lambda: (9_000_000, 7_002_000))
    monkeypatch.setattr(hypervisor, "confinement", lambda host: Confinement(0, 0, ()))
    monkeypatch.setattr(hypervisor, "installed", lambda: True)
    monkeypatch.setattr(doctor_module.hypervisor, "OWNERS", tmp_path / "owners")
    yield made
    made.stop.set()
    made.catalog.close()


def examine(site, **options) -> dict[str, list[HealthFinding]]:
    sampler = Sampler(site)
    sampler.seen.libvirt_at, sampler.seen.libvirt = clock.monotonic(), (9_000_000, 7_002_000)
    health = Health(site, sampler, Parts(lambda: True, lambda: True))
    found: dict[str, list[HealthFinding]] = {}
    for one in Doctor(site, health, WebhookDispatcher(site)).examine(**options):
        assert one.state in ("ok", "mended") or (one.why and one.what)
        found.setdefault(one.check, []).append(one)
    return found


def states(found: dict[str, list[HealthFinding]], check: str) -> list[str]:
    return [one.state for one in found[check]]


def test_a_site_that_is_well(site) -> None:
    found = examine(site)
    assert {one.state for many in found.values() for one in many} == {"ok"}
    assert set(found) == {
        "daemon",
        "libvirt",
        "access",
        "hook",
        "space",
        "peer",
        "clock",
        "certificate",
        "webhook",
        "remnants",
    }


def test_controllers(site) -> None:
    go_on = threading.Event()

    def fails() -> None:
        raise HypervisorBusy("vm", "it moves")

    controllers = {
        "fine": Controller("fine", lambda: None, 3600.0),
        "fails": Controller("fails", fails, 0.01, backoff=Backoff(0.01, 0.01)),
        "hangs": Controller("hangs", lambda: go_on.wait(60) and None, 1.0),
    }
    site.controllers.start(*controllers.values())
    clock.wait_until(lambda: controllers["fine"].status.runs > 0, 10, "a run")
    clock.wait_until(lambda: controllers["fails"].status.failing > 2, 10, "failures in a row")
    clock.wait_until(lambda: controllers["hangs"].status.running_for > 0, 10, "the one that hangs")
    shown = {one.what.split()[0].rstrip(":"): one for one in examine(site)["controller"]}
    assert {name: one.state for name, one in shown.items()} == {"fine": "ok", "fails": "warn", "hangs": "ok"}
    assert "it moves" in shown["fails"].why
    assert "next run in 3" in shown["fine"].what
    late = dataclasses.replace(controllers["hangs"].status, running_for=121.0)
    assert next(findings_of([late])).state == "warn"
    go_on.set()
    site.controllers.stop()


@pytest.mark.parametrize(("skew", "state"), [(4.0, "ok"), (-6.0, "warn"), (400.0, "fail")])
def test_clocks(site, skew: float, state: str) -> None:
    site.session.skew = skew
    assert states(examine(site), "clock") == [state]


def test_a_peer_that_is_silent_and_one_that_tells_no_time(site) -> None:
    site.session.silent = True
    found = examine(site)
    assert states(found, "peer") == ["fail"]
    assert "clock" not in found
    site.session.silent, site.session.skew = False, None
    found = examine(site)
    assert states(found, "peer") == ["ok"]
    assert "clock" not in found


@pytest.mark.parametrize(("days", "state"), [(31, "ok"), (20, "warn"), (2, "fail"), (-1, "fail")])
def test_certificates(site, monkeypatch, days: int, state: str) -> None:
    then = clock.now() + timedelta(days=3650 - days)
    monkeypatch.setattr(clock, "now", lambda: then)
    assert set(states(examine(site), "certificate")) == {state}


def test_old_versions_and_no_libvirt(site, monkeypatch) -> None:
    monkeypatch.setattr(site.host, "version", lambda: (8_000_000, 7_002_001))
    assert states(examine(site), "libvirt") == ["warn", "ok"]

    def gone() -> tuple[int, int]:
        raise HypervisorUnreachable("qemu:///system", "no socket")

    monkeypatch.setattr(site.host, "version", gone)
    found = examine(site)
    assert states(found, "libvirt") == ["fail"]
    assert states(found, "peer") == ["ok"]  # the others were looked at


def test_folders_that_qemu_does_not_get_at(site, monkeypatch) -> None:
    stranger = Confinement(12345, 12345, ("apparmor",))
    monkeypatch.setattr(hypervisor, "confinement", lambda host: stranger)
    found = examine(site)
    assert states(found, "access") == ["fail"] * 3
    assert "AppArmor" in found["access"][-1].what


@pytest.mark.skipif(os.geteuid() != 0, reason="looks at the folders as another user")
@pytest.mark.remedy("observe.doctor.Doctor._access: mkdir -p …")
def test_folders_that_are_not_there_are_made_by_the_command(site, monkeypatch) -> None:
    monkeypatch.setattr(hypervisor, "confinement", lambda host: Confinement(12345, 12345, ()))
    monkeypatch.setattr(hypervisor, "closed_to", lambda folder, *_, **__: None if folder.exists() else folder)
    for folder in (site.config.work, site.config.replicas):
        shutil.rmtree(folder, ignore_errors=True)
    missing = [one for one in examine(site)["access"] if one.state != "ok"]
    assert missing
    for one in missing:
        (command,) = re.findall("`(mkdir [^`]+)`", one.remedy)
        subprocess.run(["sh", "-ec", command], check=True)
    assert set(states(examine(site), "access")) == {"ok"}


@pytest.mark.remedy(
    "observe.webhooks.secret_of: chmod 600 …",
    "errors.request.InsecureFile: chmod go= …",
)
def test_the_remedies_of_files_that_others_may_read(tmp_path: Path) -> None:
    """The secret of a webhook, and the key of the site: each is refused until the printed command was run."""
    secret, identity = tmp_path / "it's a secret", tmp_path / "it's a key"
    secret.write_text(SECRET)
    secret.chmod(0o644)
    with pytest.raises(ValueError, match="others may read") as caught:
        secret_of(config.WebhookSection("pager", "http://127.0.0.1:1/", str(secret)))
    run_in(str(caught.value))
    assert secret_of(config.WebhookSection("pager", "http://127.0.0.1:1/", str(secret)))
    link.load_or_create(identity, "here")
    for path in (identity, *identity.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    for _ in range(9):
        try:
            link.load_or_create(identity, "here")
            break
        except InsecureFile as error:
            run_in(error.advice())
    else:
        pytest.fail("the command does not clear it")


def run_in(remedy: str) -> None:
    (command,) = re.findall("`([^`]+)`", remedy)
    subprocess.run(["sh", "-ec", command], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="gives folders to others")
@pytest.mark.parametrize(
    ("owner", "group", "mode", "write"),
    [
        (0, 0, 0o700, False),
        (0, 12346, 0o705, False),  # of a group member, the bits of others do not count
        (12345, 0, 0o655, False),
        (0, 0, 0o755, True),
        (0, 12346, 0o707, True),
        (12345, 0, 0o577, True),
    ],
)
@pytest.mark.remedy("hypervisor.access.opening: chmod …+… …", "hypervisor.access.opening: chown …:… … && chmod u+rwx …")
def test_the_remedy_of_a_closed_folder_opens_it(tmp_path: Path, owner: int, group: int, mode: int, write: bool) -> None:
    for parent in tmp_path.parents:
        if parent.name.startswith(("pytest-", "popen-")):
            parent.chmod(0o755)
    tmp_path.chmod(0o755)
    closed = tmp_path / "it's a folder"
    closed.mkdir()
    folder = closed if write else closed / "work"
    folder.mkdir(exist_ok=True)
    os.chown(closed, owner, group)
    closed.chmod(mode)
    assert hypervisor.closed_to(folder, 12345, 12346, write=write) == closed
    (command,) = re.findall("`([^`]+)`", hypervisor.opening(closed, 12345, 12346, write=write))
    subprocess.run(["sh", "-ec", command], check=True)
    assert hypervisor.closed_to(folder, 12345, 12346, write=write) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="root's own bits are what it asks for")
def test_access_goes_by_the_bits_that_count(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    for parent in tmp_path.parents:
        if parent.name.startswith(("pytest-", "popen-")):
            parent.chmod(0o755)
    folder = tmp_path / "work"
    folder.mkdir()
    for mode, write, passes in ((0o755, False, True), (0o755, True, False), (0o757, True, True), (0o700, False, False)):
        folder.chmod(mode)
        closed = hypervisor.closed_to(folder, 12345, 12345, write=write)
        assert (closed is None) == passes
    folder.chmod(0o700)
    assert hypervisor.closed_to(folder, os.stat(folder).st_uid, 12345, write=True) is None
    assert hypervisor.closed_to(folder / "no", 12345, 12345, write=False) == folder
    folder.chmod(0o070)
    assert hypervisor.closed_to(folder, 12345, os.stat(folder).st_gid, write=True) is None


def test_the_hook_is_missed_where_a_vm_is_protected(site, monkeypatch) -> None:
    monkeypatch.setattr(hypervisor, "installed", lambda: False)
    assert states(examine(site), "hook") == ["ok"]
    add_source(site, 1, rpo=30.0)
    assert states(examine(site), "hook") == ["fail"]
    installs = []
    monkeypatch.setattr(hypervisor, "install", lambda: installs.append(1))
    assert states(examine(site, repair=True), "hook") == ["mended"]
    assert installs == [1]


def test_drives_that_the_next_step_needs(site, tmp_path) -> None:
    add_source(site, 1, "seeding", drives=(str(tmp_path), "depot1:/mnt/a"))
    add_source(site, 2, "in-sync", drives=("/nowhere",))
    add_destination(site, 3, "importing", arrived=("/mnt/nothing",))
    found = examine(site)["drive"]
    assert [one.state for one in found] == ["fail", "fail"]
    assert "vm1" in found[0].what
    assert "vm3" in found[1].what


def test_a_webhook_that_was_ended(site) -> None:
    site.catalog.cursors.put(store.Cursor("pager", "t", 0, disabled="it answered 410 (gone)"))
    assert states(examine(site), "webhook") == ["fail"]


def test_what_cannot_be_mended_says_why() -> None:
    def busy() -> None:
        raise HypervisorBusy("vm1", "a job runs")

    found = mended(HealthFinding("x", "warn", "something", "because", "do", busy))
    assert (found.state, "a job runs" in found.why) == ("warn", True)
    assert mended(HealthFinding("x", "fail", "something", "because", "do")).state == "fail"
    assert mended(HealthFinding("x", "ok", "something", repair=busy)).state == "ok"


def vm(*checkpoints: str) -> Vm:
    return Vm("00000000-0000-4000-8000-000000000001", "vm1", (), "kvm", "q35", "", 1, checkpoints=checkpoints)


def test_checkpoints_of_a_replication_that_goes_on_are_stale_only_when_no_round_needs_them(site) -> None:
    add_source(
        site,
        1,
        tracking=BitmapTracking("seedship-00000000-aa", "x"),
        coming=Coming(BitmapTracking("seedship-00000000-bb", "x")),
    )
    names = ("seedship-00000000-aa", "seedship-00000000-bb", "seedship-00000000-cc", "theirs")
    found = list(Remnants(site, [vm(*names)]).checkpoints())
    assert [one.what for one in found] == ["Leftover: checkpoint seedship-00000000-cc of vm1"]
    add_source(site, 2, "checked")  # the same first digits: nobody can tell whose it is
    assert not list(Remnants(site, [vm(*names)]).checkpoints())


def test_whose_something_is(site) -> None:
    def put(number: int, **changes) -> str:
        row = add_source(site, number << 96, **changes)
        return row.id[:8]

    live = put(1)
    ending = put(2, state="aborted")
    over = put(3, state="aborted", clean=True)
    site.catalog.events.note("00000004" + "0" * 24, store.FORGOTTEN)
    found = Remnants(site, [])
    owners = [found.owner(start) for start in (live, ending, over, "00000004", "00000005")]
    assert owners == ["live", "live", "over", "over", "unknown"]


def test_files_below_the_data_folder(site) -> None:
    part = Part(0, "c" * 32, "5" * 32, ("kept",), 1, 10)
    live = add_destination(site, 1, "importing", parts=(part,))
    gone = add_source(site, 2, "aborted", clean=True)
    data = site.paths.data
    for name in (
        f"replications/{live.id}",
        f"replications/{gone.id}",
        f"replications/{'f' * 32}",
        "spool/kept",
        "spool/old",
        f"journal/{live.lineage}",
        f"journal/{'e' * 32}",
    ):
        (data / name).mkdir(parents=True)
    found = list(Remnants(site, []).own_folders())
    told = {one.what.rsplit(": ", 1)[1].removeprefix(f"{data}/"): one.repair is not None for one in found}
    assert told == {
        f"replications/{gone.id}": True,
        f"replications/{'f' * 32}": False,
        "spool/old": True,
        f"journal/{'e' * 32}": False,
    }
    for one in found:
        mended(one)
    assert not (data / "replications" / gone.id).exists()
    assert not (data / "spool/old").exists()
    assert (data / "spool/kept").exists()
    assert (data / f"journal/{'e' * 32}").exists()


def test_overlays_that_may_hold_what_was_written_last_stay(site, tmp_path) -> None:
    gone = add_source(site, 0x77 << 96, "aborted", clean=True)
    work = site.paths.work(gone.id)
    work.mkdir(parents=True)
    base = tmp_path / "base.qcow2"
    nbd.image.create(base, "qcow2", 1 << 20)
    overlay = work / "vda.overlay"
    nbd.image.create(overlay, "qcow2", 1 << 20, backing=base)
    disk = hypervisor.Disk("vda", "disk", "file", "virtio", (hypervisor.ImageLayer(str(base), "qcow2"),))
    nobody = list(Remnants(site, []).work_files())
    assert [(one.check, one.repair) for one in nobody] == [("overlay", None)]
    stands = Vm("u", "vm7", (disk,), "kvm", "q35", "", 1)
    found = list(Remnants(site, [stands]).work_files())
    assert [(one.state, one.repair is not None) for one in found] == [("warn", True)]
    on_top = hypervisor.Disk("vda", "disk", "file", "virtio", (hypervisor.ImageLayer(str(overlay), "qcow2"),))
    used = list(Remnants(site, [Vm("u", "vm7", (on_top,), "kvm", "q35", "", 1)]).work_files())
    assert [(one.state, one.repair) for one in used] == [("fail", None)]
    subprocess.run(["qemu-io", "-c", "write -P 7 0 64k", overlay], check=True, capture_output=True)
    for path in (overlay, overlay.with_name("vda.overlay.kept")):
        if path != overlay:  # As a fence leaves it.
            overlay.rename(path)
        written = list(Remnants(site, [stands]).work_files())
        assert [(one.check, one.state, one.repair) for one in written] == [("overlay", "warn", None)]
        assert str(path) in written[0].what
    path.unlink()
    nbd.image.create(overlay, "qcow2", 1 << 20, backing=base)
    assert mended(found[0]).state == "mended"
    assert not work.exists()


def test_space_that_was_promised_and_is_gone_is_named(site) -> None:
    folder = str(site.config.replicas / "vm1")
    assert "warn" not in states(examine(site), "space")
    size = sum(disk.size for disk in DISKS)  # 1.25 TiB, more than this machine has
    row = add_destination(
        site, 1, "importing", folder=folder, names=("vda.qcow2", "vdb.raw"), content=size, missing=size >> 16
    )
    found = examine(site)["space"]
    assert [one.state for one in found].count("warn") >= 1
    assert any("1.2 TiB reserved" in one.what and "host show" in one.remedy for one in found)
    site.replications.change_destination(row.id, lambda d: d, event="aborted")
    assert "warn" not in states(examine(site), "space")


def test_disks_that_may_outgrow_the_space_are_named_where_that_is_refused(site) -> None:
    """A disk that grows at its source is not refused, so this is where it shows."""
    folder = str(site.config.replicas / "vm1")
    add_destination(site, 1, folder=folder, names=("vda.qcow2", "vdb.raw"), content=0)  # 1.25 TiB, all of it thin
    assert "warn" not in states(examine(site), "space")
    refusing = changed(site, accept=msgspec.structs.replace(site.config.accept, overcommitted="refuse"))
    found = examine(refusing)["space"]
    assert any("can grow to" in one.what and "space_overcommit" in one.remedy for one in found)
