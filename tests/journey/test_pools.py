# SPDX-License-Identifier: Apache-2.0
"""Replicas in a libvirt storage pool: their images are its volumes, from the first import to the VM that runs there."""

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest

from seedship import clock, config
from seedship.errors import LabFailed
from seedship.lab import Journey, Lab, LabSite
from seedship.lab.shell import run
from seedship.units import MiB
from support import Refusal, assert_whole, finish, hits, plan, refused, same, supervised, sweep

pytestmark = [pytest.mark.libvirt, pytest.mark.timeout(600)]
POOL = "VMs of 'b'"
MOUNTED = "mounted"


def configure(site: LabSite, **storage: object) -> None:
    """Have the site's daemon run with these settings of [storage]."""
    settings = config.load(site.data)
    site.kill_daemon()
    config.save(
        site.data, msgspec.structs.replace(settings, storage=msgspec.structs.replace(settings.storage, **storage))
    )
    site.start_daemon()


def volumes(site: LabSite, pool: str = POOL) -> set[str]:
    """The names of the volumes that libvirt lists; our folders, which it lists as well, are left out."""
    listed = run("virsh", "-q", "-c", site.uri, "vol-list", pool, "--details")
    return {line.split()[0] for line in listed.splitlines() if " file " in line}


@pytest.fixture
def pool(lab: Lab) -> Iterator[Path]:
    """A pool of site b that its replicas are made in; another VM's image is in it."""
    site = lab.b
    folder = site.root / "pool of b"
    folder.mkdir(exist_ok=True)
    (folder / "theirs.qcow2").write_bytes(b"not ours")
    before = config.load(site.data).storage
    virsh_ = ("virsh", "-q", "-c", site.uri)
    run(*virsh_, "pool-define-as", POOL, "dir", "--target", folder)
    run(*virsh_, "pool-start", POOL)
    configure(site, pool=POOL)
    yield folder
    configure(site, **msgspec.structs.asdict(before))
    with suppress(LabFailed):
        run(*virsh_, "pool-destroy", POOL)
    run(*virsh_, "pool-undefine", POOL)
    run("rm", "-rf", folder)


@pytest.fixture
def mounted(lab: Lab) -> Iterator[Path]:
    """A pool of site b with a file system of its own, which is not started yet."""
    site = lab.b
    target, image = site.root / MOUNTED, site.root / f"{MOUNTED}.img"
    target.mkdir()
    with image.open("wb") as file:
        file.truncate(640 * MiB)
    run("mkfs.ext4", "-q", image)
    device = site.run("losetup", "--find", "--show", image).strip()
    virsh = ("virsh", "-q", "-c", site.uri)
    run(*virsh, "pool-define-as", MOUNTED, "fs", "--source-dev", device, "--target", target)
    yield target
    with suppress(LabFailed):
        run(*virsh, "pool-destroy", MOUNTED)
    with suppress(LabFailed):
        site.run("umount", "--lazy", target)
    site.run("losetup", "--detach", device)
    run(*virsh, "pool-undefine", MOUNTED)
    target.rmdir()
    image.unlink()


@pytest.fixture
def pooled(lab: Lab, pool: Path) -> Iterator[Journey]:
    made = Journey(lab, plan())
    yield made
    sweep(made)


def ours(journey: Journey) -> list[str]:
    """The volumes that the replication's images should be."""
    stem = Path(journey.show(journey.lab.b)["folder"]).name
    return [f"{stem}-{target}.{kind}" for target, kind, _, _ in journey.plan.disks]


def test_a_vm_lives_in_a_pool(pooled: Journey, pool: Path) -> None:
    """Its images are volumes while it is a replica and when it runs; so are those of a clone, which go with it."""
    journey, b = pooled, pooled.lab.b
    journey.travel()
    assert same(journey)
    expected = ours(journey)
    clock.wait_until(lambda: volumes(b) == {*expected, "theirs.qcow2"}, 30, "the volumes of the replica")
    shown = journey.show(b)
    assert Path(shown["folder"]).parent == pool
    assert shown["pool"] == POOL

    name = f"{journey.plan.name}-child"
    b.seedship("clone", "create", journey.id, "--name", name)
    (child,) = [one for one in json.loads(b.seedship("clone", "list", "-o", "json")) if one["name"] == name]
    assert {Path(path).parent for path in paths(journey, name)} == {pool}
    clock.wait_until(
        lambda: {Path(path).name for path in paths(journey, name)} <= volumes(b), 30, "the clone's volumes"
    )
    b.seedship("clone", "delete", name)
    clock.wait_until(lambda: volumes(b) == {*expected, "theirs.qcow2"}, 30, "the end of the clone's volumes")
    assert not Path(child["folder"]).exists()

    finish(journey)
    assert_whole(journey.outcome())
    assert sorted(paths(journey, journey.plan.name)) == sorted(str(pool / name) for name in expected)
    assert volumes(b) == {*expected, "theirs.qcow2"}
    assert (pool / "theirs.qcow2").read_bytes() == b"not ours"


def paths(journey: Journey, vm: str) -> list[str]:
    """The images of a VM at site b."""
    listed = run("virsh", "-q", "-c", journey.lab.b.uri, "domblklist", vm)
    return [line.split(maxsplit=1)[1] for line in listed.splitlines() if line.strip()]


def content(folder: Path) -> dict[str, bytes]:
    """Everything in a folder that is a file, and the names of the folders in it."""
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b"" for path in folder.rglob("*")}


@pytest.mark.slow
@pytest.mark.failure_mode(
    "The destination's daemon is killed between recording an image in a storage pool and making it",
    "The image is made once; an abort leaves the pool as it was",
    "nothing",
)
def test_an_abort_leaves_the_pool_as_it_was(pooled: Journey, pool: Path, tmp_path: Path) -> None:
    journey, b = pooled, pooled.lab.b
    before = content(pool)
    journey.depart()
    with supervised(b, tmp_path, "replica.noted=once-kill"):
        journey.arrive()
        journey.until(b, "catching-up", "in-sync", patient=True)
        assert hits(tmp_path) == {"replica.noted"}
    expected = ours(journey)
    assert {path.name for path in pool.iterdir() if path.is_file()} == {*expected, "theirs.qcow2"}
    clock.wait_until(lambda: volumes(b) == {*expected, "theirs.qcow2"}, 30, "the volumes of the replica")
    journey.lab.a.seedship("replication", "abort", journey.id)
    clock.wait_until(lambda: content(pool) == before, 60, "the pool as it was")
    clock.wait_until(lambda: volumes(b) == {"theirs.qcow2"}, 30, "the pool's list as it was")


def commands(refusal: Refusal) -> list[str]:
    """The commands that a remedy names, as they are printed."""
    return re.findall(r"`([^`]+)`", refusal.remedy) or [refusal.remedy]


def follow(site: LabSite, refusal: Refusal, *said: str) -> None:
    """Run the first commands of a remedy at a site; they begin with these words."""
    for words, command in zip(said, commands(refusal), strict=False):
        assert command.startswith(words), refusal
        site.run("sh", "-c", command)


@pytest.mark.slow
@pytest.mark.remedy(
    "workflows.provisioning.pools._obstacle: virsh pool-start …",
    "workflows.provisioning.pools._obstacle: virsh pool-autostart …",
    "workflows.provisioning.pools._obstacle: mkdir --parents …",
    "workflows.provisioning.pools._obstacle: virsh pool-destroy …",
)
def test_a_pool_that_cannot_take_images_is_named_with_what_helps(pooled: Journey, pool: Path, mounted: Path) -> None:
    """Before anything is copied; and the remedy, run there, clears it."""
    journey, (a, b) = pooled, pooled.lab.sites
    journey.start()
    check = ("vm", "check", journey.plan.name, "--to", b.name)
    a.seedship(*check)
    virsh = ("virsh", "-q", "-c", b.uri)

    run(*virsh, "pool-destroy", POOL)
    refusal = refused(a, *check)
    assert "is not active" in refusal.message
    follow(b, refusal, "virsh pool-start", "virsh pool-autostart")
    a.seedship(*check)

    aside = pool.with_name("aside")
    pool.rename(aside)
    refusal = refused(a, *check)
    assert "does not exist" in refusal.message
    follow(b, refusal, "mkdir")
    a.seedship(*check)
    pool.rmdir()
    aside.rename(pool)

    run(*virsh, "pool-define-as", "blocks", "logical", "--source-name", "vg0", "--target", "/dev/vg0")
    try:
        run(*virsh, "pool-start", MOUNTED)
        configure(b, pool=MOUNTED, pools=["blocks"])
        a.seedship(*check)
        b.run("umount", mounted)
        refusal = refused(a, *check)
        assert "libvirt takes the storage pool mounted for active" in refusal.message
        follow(b, refusal, "virsh pool-destroy", "virsh pool-start")
        a.seedship(*check)

        create = ("replication", "create", journey.plan.name, "--to", b.name, "--pool")
        assert "is of type logical" in refused(a, *create, "blocks").message
        assert "offers no storage pool 'none'" in refused(a, *create, "none").message
        assert b.run("ls", mounted).split() == ["lost+found"]
    finally:
        run(*virsh, "pool-undefine", "blocks")


@pytest.mark.slow
@pytest.mark.failure_mode(
    "The pool with a replica is stopped, and its file system unmounted, while rounds run",
    "Epochs wait at the destination, a failover is refused, nothing is written below the mount point; all resume once it is started",
    "nothing",
)
@pytest.mark.remedy("workflows.provisioning.pools.insist_mounted: virsh pool-start …")
def test_rounds_wait_for_a_pool_that_is_stopped(pooled: Journey, pool: Path, mounted: Path) -> None:
    journey, (a, b) = pooled, pooled.lab.sites
    virsh = ("virsh", "-q", "-c", b.uri)
    run(*virsh, "pool-start", MOUNTED)
    configure(b, pools=[MOUNTED])
    journey.depart(0, "--pool", MOUNTED)
    journey.arrive()
    for site in journey.lab.sites:
        journey.until(site, "in-sync")
    assert Path(journey.show(b)["folder"]).parent == mounted
    clock.wait_until(lambda: stopped(*virsh, "pool-destroy", MOUNTED), 60, "the pool's end")
    clock.wait_until(lambda: (journey.show(b)["problem"] or {}).get("code") == "site.pool", 60, "what is missing")
    problem = journey.show(b)["problem"]
    assert b.run("ls", "-A", mounted) == ""
    failover = ("replication", "failover", journey.id, "--confirm-source-down", journey.plan.name)
    assert refused(b, *failover).code == "site.pool"
    assert refused(b, "clone", "create", journey.id, "--name", f"{journey.plan.name}-child").code == "site.pool"
    assert b.run("ls", "-A", mounted) == ""
    b.run("sh", "-c", re.findall(r"`([^`]+)`", problem["remedy"])[0])
    clock.wait_until(lambda: journey.show(b)["problem"] is None, 60, "the next epoch")
    for site in journey.lab.sites:
        journey.until(site, "in-sync", patient=True)
    assert same(journey)
    clock.wait_until(lambda: volumes(b, MOUNTED) == set(ours(journey)), 30, "the volumes")
    a.seedship("replication", "abort", journey.id)
    clock.wait_until(lambda: b.run("ls", mounted).split() == ["lost+found"], 60, "the pool as it was")


def stopped(*words: object) -> bool:
    """Whether a command succeeds; what is busy does not yet."""
    try:
        run(*words)
    except LabFailed:
        return False
    return True
