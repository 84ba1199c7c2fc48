# SPDX-License-Identifier: Apache-2.0
"""Ejecting a mounted drive: everything is on it then, and what is in use stays mounted."""

import errno
import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from seedship import clock, drives
from seedship.beneath import Held
from seedship.drives import unplug
from seedship.errors import DriveFailed, DriveInUse, NotADrive
from shipments import PRIVATE, SITE

pytestmark = pytest.mark.loop


def test_an_ejected_drive_is_unmounted_with_all_that_was_written(make_drive, tmp_path: Path) -> None:
    drive = make_drive()
    at = drive.mount(tmp_path / "a drive")
    drives.init(drives.Folder(at), SITE, PRIVATE)
    (at / "late").write_text("not flushed by anybody")
    gone = drives.eject(at)
    assert not os.path.ismount(at)
    assert not gone.powered_off
    assert gone.why_on.endswith("is not a USB device")
    drive.mount(at)
    assert (at / "late").read_text() == "not flushed by anybody"
    assert drives.unverified_label(drives.Folder(at)).site == SITE


def test_a_drive_with_open_files_stays_mounted(make_drive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unplug, "_PATIENCE_S", 0.1)
    at = make_drive().mount(tmp_path / "a")
    with (at / "open").open("w"), pytest.raises(DriveInUse) as caught:
        drives.eject(at)
    assert os.path.ismount(at)
    assert "fuser -vm" in caught.value.advice()


@pytest.mark.parametrize("what", ["no mount", "below a mount", "nothing"])
def test_what_is_not_mounted_is_not_ejected(make_drive, tmp_path: Path, what: str) -> None:
    at = tmp_path / "a"
    if what == "no mount":
        at.mkdir()
    elif what == "below a mount":
        make_drive().mount(at)
        at = at / "folder"
        at.mkdir()
    with pytest.raises(NotADrive):
        drives.eject(at)


def remedy(error: DriveInUse) -> list[str]:
    """The command that the error names."""
    (command,) = re.findall("`([^`]+)`", error.advice())
    return shlex.split(command)


def mounted_again(at: Path, point: Path, how: str) -> None:
    point.mkdir(exist_ok=True)
    if how == "bind":
        subprocess.run(["mount", "--bind", at, point], check=True)
    else:
        source = subprocess.check_output(["findmnt", "--noheadings", "--output", "SOURCE", at], text=True).strip()
        subprocess.run(["mount", source, point], check=True)


@pytest.mark.parametrize(("how", "where"), [("bind", "me dia"), ("device", "me dia"), ("bind", "a")])
@pytest.mark.remedy("drives.unplug._insist_single: umount …")
def test_a_drive_that_is_mounted_twice_stays(make_drive, tmp_path: Path, how: str, where: str) -> None:
    """An automounter has it too: what is written there is not flushed."""
    drive = make_drive()
    at = drive.mount(tmp_path / "a")
    mounted_again(at, tmp_path / where, how)
    with pytest.raises(DriveInUse) as caught:
        drives.eject(at)
    assert os.path.ismount(at)
    subprocess.run(remedy(caught.value), check=True)
    assert os.path.ismount(at)
    drives.eject(at)
    drive.at = None
    assert str(tmp_path) not in Path("/proc/self/mounts").read_text()


@pytest.mark.remedy("drives.users.of_unmounted: nsenter --mount --target … umount …")
def test_a_drive_in_another_mount_namespace_is_not_unmounted(
    make_drive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unplug, "_PATIENCE_S", 0.1)
    drive = make_drive()
    at = drive.mount(tmp_path / "a drive")
    (at / "late").write_text("not flushed by anybody")
    there = ["unshare", "--mount", "--propagation", "private", "sh", "-c", "echo ready; exec cat"]
    with subprocess.Popen(there, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        assert other.stdout.readline() == b"ready\n"
        with pytest.raises(DriveInUse) as caught:
            drives.eject(at)
        assert f"process {other.pid}, " in str(caught.value)
        subprocess.run(remedy(caught.value), check=True)
        assert str(at) not in Path(f"/proc/{other.pid}/mounts").read_text()
        other.stdin.close()
    drive.mount(at)
    assert (at / "late").read_text() == "not flushed by anybody"


def test_a_drive_that_was_unmounted_under_open_files_before_is_in_use(
    make_drive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``umount --lazy``, by somebody who was in a hurry: no list of mounts shows it."""
    monkeypatch.setattr(unplug, "_PATIENCE_S", 0.1)
    drive = make_drive()
    at = drive.mount(tmp_path / "a")
    mounted_again(at, tmp_path / "before", "device")
    with (tmp_path / "before/open").open("w"):
        subprocess.run(["umount", "--lazy", tmp_path / "before"], check=True)
        with pytest.raises(DriveInUse) as caught:
            drives.eject(at)
        drive.at = None
    assert f"process {os.getpid()}, " in str(caught.value)


def test_a_drive_that_does_not_take_what_is_cached_is_not_ejected(
    make_drive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = make_drive().mount(tmp_path / "a")

    def fails(_held: Held) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(Held, "flush", fails)  # umount(8) reports success
    with pytest.raises(DriveFailed):
        drives.eject(at)
    assert os.path.ismount(at)


def usb_disk(sysfs: Path, second: str) -> Path:
    """A USB disk of two partitions, as sysfs shows it; ``second`` is the number of the second one. Returns the disk."""
    port = sysfs / "devices/pci0000:00/usb2/2-1"
    unit = port / "2-1:1.0/host6/target6:0:0/6:0:0:0"
    block = unit / "block/sdb"
    for folder, number in ((block, "8:16"), (block / "sdb1", "8:17"), (block / "sdb2", second)):
        (folder / "holders").mkdir(parents=True)
        (folder / "dev").write_text(f"{number}\n")
        (folder / "size").write_text("1")
    for name in ("sdb1", "sdb2"):
        (block / name / "partition").write_text("1")
    (unit / "delete").write_text("")
    (block / "device").symlink_to(unit)
    (port / "idVendor").write_text("0bda")
    (port / "remove").write_text("")
    (sysfs / "dev/block").mkdir(parents=True)
    (sysfs / "dev/block/8:17").symlink_to(block / "sdb1")
    return unit


@pytest.mark.parametrize("user", ["qemu-nbd", "losetup"])
def test_a_device_is_not_switched_off_under_who_has_a_partition_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, user: str
) -> None:
    """QEMU opens raw disks without O_EXCL."""
    if os.geteuid() != 0:
        pytest.skip("loop devices need root")
    monkeypatch.setattr(unplug, "_PROBED_S", 0.1)
    (tmp_path / "image").write_bytes(bytes(1 << 20))
    attach = ["losetup", "--find", "--show"]
    loop = subprocess.check_output([*attach, tmp_path / "image"], text=True).strip()
    number = os.stat(loop).st_rdev
    unit = usb_disk(tmp_path / "sys", f"{os.major(number)}:{os.minor(number)}")
    socket = tmp_path / "s"
    try:
        if user == "losetup":
            above = subprocess.check_output([*attach, loop], text=True).strip()
        else:
            words = ["qemu-nbd", "--persistent", "--socket", str(socket), "--format", "raw", loop]
            guest = subprocess.Popen(words)
            clock.wait_until(socket.exists, 20, "the process to have the partition open")
        why = unplug.power_off(os.makedev(8, 17), tmp_path / "sys", tmp_path)
        assert "sdb2" in why
        assert (Path(above).name if user == "losetup" else f"process {guest.pid}, qemu-nbd") in why
        assert (unit / "delete").read_text() == ""
        if user == "losetup":
            subprocess.run(["losetup", "--detach", above], check=True)
        else:
            guest.terminate()
            guest.wait(20)
        monkeypatch.setattr(unplug, "_PROBED_S", 20)
        assert unplug.power_off(os.makedev(8, 17), tmp_path / "sys", tmp_path) == ""
        assert (unit / "delete").read_text() == "1"
    finally:
        if user == "qemu-nbd":
            guest.kill()
            guest.wait(20)
        subprocess.run(["losetup", "--detach", loop], check=True)
