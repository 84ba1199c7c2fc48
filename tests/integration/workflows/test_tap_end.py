# SPDX-License-Identifier: Apache-2.0
"""What the end of a tap says of it: the tap is the real process and the catalog a real one, libvirt's answers are played."""

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nbd as libnbd
import pytest

from contexts import alone
from seedship import clock, config, store, tap
from seedship.errors import DisksChanged, NbdFailed, PeerUnreachable
from seedship.model import DiskIndex, DiskSpec, Epoch, Lineage, new_id
from seedship.model.books import SourceBook
from seedship.model.spec import ReplicationSpec
from seedship.workflows import Context
from seedship.workflows.documents import MirrorTracking, SourceDocument, Tap, encode
from seedship.workflows.source.mirroring import mirroring, tap_overlays, tapping

pytestmark = pytest.mark.qemu
DISKS = (DiskSpec(DiskIndex(0), "vda", 1 << 20, "qcow2"),)


@dataclass
class Vm:
    """The VM's disks by target."""

    disks: dict[str, Any]

    def disk(self, target: str) -> Any:
        return self.disks.get(target)


class Played:
    """What libvirt says of the VM."""

    def __init__(self) -> None:
        self.state, self.mirrors = "running", {"vda": "ready"}


@pytest.fixture
def libvirt(monkeypatch: pytest.MonkeyPatch) -> Played:
    made = Played()
    monkeypatch.setattr(tapping.hypervisor, "state", lambda *_: made.state)
    monkeypatch.setattr(tapping.hypervisor, "running_mirrors", lambda *_: made.mirrors)
    gone = lambda _host, _vm, targets: sorted({*targets} - made.mirrors.keys())  # noqa: E731
    monkeypatch.setattr(tapping.hypervisor, "unmirrored", gone)
    monkeypatch.setattr(tapping.hypervisor, "end_mirrors", lambda *_: None)
    monkeypatch.setattr(tap_overlays, "merge", lambda *_: None)
    monkeypatch.setattr(tapping.hypervisor, "inspect", lambda *_: Vm({}))
    return made


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Context]:
    settings = config.Config("here", hypervisor=config.HypervisorSection(work=str(tmp_path / "w")))
    made = alone(tmp_path, settings)
    yield made
    made.end()
    made.catalog.close()


@pytest.fixture
def mirrored(site: Context) -> str:
    """A replication whose tap is open."""
    document = SourceDocument(
        DISKS,
        SourceBook(Lineage("a" * 32), Epoch(5), "c" * 32),
        "s" * 32,
        spec=ReplicationSpec(mirror="async"),
        tracking=MirrorTracking(Tap("open")),
    )
    row = store.Replication(new_id(), "source", "p" * 32, new_id(), "web", "in-sync", new_id(), 1, 5, encode(document))
    site.catalog.replications.add(row)
    site.paths.replication(row.id).mkdir(parents=True, exist_ok=True)
    sockets = site.paths.work(row.id) / mirroring.SOCKETS
    sockets.parent.mkdir(parents=True)
    tap.start(
        mirroring.tap_folder(site.paths, row.id),
        sockets,
        {"vda": 1 << 20},
        supervisor=site.paths.taps,
        limit=1 << 24,
        timeout=1.0,
    )
    return row.id


def closed(site: Context, replication: str) -> dict:
    tapping.return_to_rounds(site, replication)
    assert site.replications.source(replication)[1].tap is None
    (event,) = [e.data for e in site.catalog.events.oldest(replication) if e.kind == "tap-closed"]
    return dict(event)


def process(site: Context, replication: str) -> tap.TapProcess:
    found = mirroring.process_of(site.paths, replication)
    assert found is not None
    return found


def test_a_tap_that_was_killed_just_now(site: Context, libvirt: Played, mirrored: str) -> None:
    """Mirroring is turned off before anybody has noticed that the tap is dead."""
    found = process(site, mirrored)
    os.kill(found.pid, signal.SIGKILL)
    clock.wait_until(lambda: not found.alive, 20, "its end")
    event = closed(site, mirrored)
    assert (event["why"], event["complete"]) == ("its process ended", False)


def test_a_disk_that_qemu_mirrors_no_more(
    site: Context, libvirt: Played, mirrored: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log is whole, and does not hold what the guest wrote since."""
    libvirt.mirrors = {}
    monkeypatch.setattr(mirroring, "ship", lambda *_: None)
    event = closed(site, mirrored)
    assert (event["why"], event["complete"]) == ("QEMU no longer mirrors vda", False)


def test_a_full_spool(site: Context, libvirt: Played, mirrored: str) -> None:
    found = process(site, mirrored)
    with pytest.raises((NbdFailed, libnbd.Error)):
        _write_beyond(found)
    assert closed(site, mirrored)["why"] == "its spool is full"


def _write_beyond(found: tap.TapProcess) -> None:
    handle = libnbd.NBD()
    handle.set_export_name("vda")
    handle.connect_unix(found.socket)
    for _ in range(64):
        handle.pwrite(os.urandom(1 << 20), 0)


def test_a_vm_that_was_shut_down(site: Context, libvirt: Played, mirrored: str) -> None:
    libvirt.state = "shut-off"
    event = closed(site, mirrored)
    assert (event["why"], event["complete"]) == ("the VM does not run", False)


def test_a_rest_that_cannot_be_sent(
    site: Context, libvirt: Played, mirrored: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> None:
        raise PeerUnreachable("hamburg", "no route")

    monkeypatch.setattr(mirroring, "ship", away)
    event = closed(site, mirrored)
    assert "no route" in event["why"]
    assert not event["complete"]


def test_what_was_noticed_before_stays(site: Context, libvirt: Played, mirrored: str) -> None:
    mirroring.note_broken(site.replications, mirrored, "its spool is full", open_=True)
    os.kill(process(site, mirrored).pid, signal.SIGKILL)
    assert closed(site, mirrored)["why"] == "its spool is full"


def test_a_tap_that_ends_as_it_should(
    site: Context, libvirt: Played, mirrored: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirroring, "ship", lambda *_: None)
    event = closed(site, mirrored)
    assert (event["why"], event["complete"]) == ("", True)
    assert site.replications.source(mirrored)[1].rounds.tap_rest == 5


def test_a_detached_disk_that_cannot_be_merged_does_not_keep_the_tap_open(
    site: Context, libvirt: Played, mirrored: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the overlays of the other disks would grow until the guest's writes fail."""
    site.replications.change_source(
        mirrored,
        lambda d: d.with_tap(
            Tap("open", overlays={"vda": "/w/vda", "vdb": "/w/vdb"}, below={"vda": "/a", "vdb": "/b"})
        ),
    )
    merged = []

    def refuse(_context: Context, _replication: str, _document: SourceDocument, target: str) -> None:
        merged.append(target)
        raise DisksChanged("web", f"{target} may have been written by another VM", "merge it by hand")

    monkeypatch.setattr(mirroring, "ship", lambda *_: None)
    monkeypatch.setattr(tapping.hypervisor, "inspect", lambda *_: Vm({"vda": SimpleNamespace(chain=())}))
    monkeypatch.setattr(tap_overlays, "merge_down", refuse)
    with pytest.raises(DisksChanged, match="vdb may have been written"):
        tapping.return_to_rounds(site, mirrored)
    assert merged == ["vdb"]
    assert site.replications.source(mirrored)[1].tap is None
    tapping.return_to_rounds(site, mirrored)  # A retreat gets on.
