# SPDX-License-Identifier: Apache-2.0
"""Nothing below a held directory leads out of it, whoever exchanges what meanwhile."""

import ctypes
import os
import socket
import stat
import subprocess
import threading
from pathlib import Path

import pytest

from seedship import beneath
from seedship.beneath import DEEPEST, Held

_RENAME_EXCHANGE = 2


@pytest.fixture
def at(tmp_path: Path) -> Path:
    (tmp_path / "at").mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/secret").write_bytes(b"secret")
    return tmp_path / "at"


@pytest.fixture
def held(at: Path):
    made = Held(at)
    yield made
    made.close()


def test_files_and_folders(held: Held, at: Path) -> None:
    held.replace("a/b/c", b"first")
    held.replace("a/b/c", b"second")
    assert (at / "a/b/c").read_bytes() == b"second"
    assert held.names("a/b") == ["c"]
    descriptor = held.open("a/d/e", os.O_RDWR | os.O_CREAT)
    os.write(descriptor, b"x")
    os.close(descriptor)
    descriptor = held.open("a/d/e", os.O_RDWR | os.O_CREAT)
    assert os.read(descriptor, 9) == b"x"
    assert not os.get_inheritable(descriptor)
    os.close(descriptor)
    status = held.stat("a/d/e")
    assert status is not None
    assert status.st_size == 1
    assert held.stat("a/none/e") is None
    held.remove("a")
    held.remove("a")
    assert held.names() == []
    with pytest.raises(FileNotFoundError):
        held.names("a")
    with pytest.raises(FileNotFoundError):
        held.open("none")


@pytest.mark.parametrize("name", ["../outside/secret", "a/../../outside/secret", "/etc/hostname", "", "a\0b"])
def test_names_that_lead_away(held: Held, at: Path, name: str) -> None:
    for act in (
        lambda: held.open(name),
        lambda: held.open(name, os.O_RDWR | os.O_CREAT),
        lambda: held.replace(name, b"bad"),
        lambda: held.remove(name),
        lambda: held.stat(name),
    ):
        with pytest.raises(OSError):
            act()
    assert (at.parent / "outside/secret").read_bytes() == b"secret"


def test_links_are_refused_and_deleted_as_links(held: Held, at: Path) -> None:
    (at / "folder").symlink_to(at.parent / "outside")
    (at / "inner").mkdir()
    (at / "inner/file").symlink_to(at.parent / "outside/secret")
    for name in ("folder/secret", "inner/file"):
        with pytest.raises(OSError):
            held.open(name)
        with pytest.raises(OSError):
            held.open(name, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    with pytest.raises(OSError):
        held.names("folder")
    with pytest.raises(OSError):
        held.replace("folder/new", b"bad")
    held.replace("inner/file", b"mine")
    (at / "inner/again").symlink_to(at.parent / "outside")
    held.remove("inner")
    held.remove("folder")
    assert held.names() == []
    assert os.listdir(at.parent / "outside") == ["secret"]
    assert (at.parent / "outside/secret").read_bytes() == b"secret"


def test_only_regular_files_are_opened(held: Held, at: Path) -> None:
    os.mkfifo(at / "pipe")
    os.mkdir(at / "folder")
    os.mkfifo(at / "label.new")
    for name in ("pipe", "folder"):
        for flags in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR | os.O_CREAT):
            with pytest.raises(OSError, match="no regular file"):
                held.open(name, flags)
    held.replace("label", b"x")
    held.replace("pipe", b"x")
    assert stat.S_ISREG((at / "pipe").lstat().st_mode)


@pytest.mark.loop
def test_a_device_node_is_not_even_opened(make_drive, tmp_path: Path) -> None:
    """The loop device of another drive in a file's place: it could be written as root."""
    at = make_drive().mount(tmp_path / "a")
    other = make_drive()
    target = other.mount(tmp_path / "b")
    device = os.stat(target).st_dev
    for name in ("label", "label.new"):
        os.mknod(at / name, 0o600 | stat.S_IFBLK, device)
    before = other.image.read_bytes()[1024:65536]
    held = Held(at)
    with pytest.raises(OSError, match="no regular file"):
        held.open("label", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    held.replace("label", b"x" * 4096)
    held.close()
    assert stat.S_ISREG((at / "label").lstat().st_mode)
    assert other.image.read_bytes()[1024:65536] == before


def test_a_directory_that_is_exchanged_for_a_link_again_and_again(held: Held, at: Path) -> None:
    outside = at.parent / "outside"
    (at / "seen").mkdir()
    (at / "link").symlink_to(outside)
    stop = threading.Event()
    libc = ctypes.CDLL(None, use_errno=True)

    def exchange() -> None:
        names = [os.fsencode(at / "seen"), os.fsencode(at / "link")]
        while not stop.is_set():
            assert libc.renameat2(-100, names[0], -100, names[1], _RENAME_EXCHANGE) == 0

    thread = threading.Thread(target=exchange)
    thread.start()
    written = refused = 0
    try:
        while written + refused < 3000:
            try:
                held.replace("seen/planted", b"bad")
                held.remove("seen/secret")
                written += 1
            except OSError:
                refused += 1
    finally:
        stop.set()
        thread.join()
    assert written
    assert refused
    assert {name: (outside / name).read_bytes() for name in os.listdir(outside)} == {"secret": b"secret"}


@pytest.mark.loop
def test_other_mounts_are_not_entered(make_drive, tmp_path: Path) -> None:
    at = make_drive().mount(tmp_path / "a")
    (at / "inner").mkdir()
    inner = make_drive()
    inner.mount(at / "inner")
    (at / "inner/kept").write_bytes(b"kept")
    held = Held(at)
    try:
        with pytest.raises(OSError):
            held.open("inner/kept")
        with pytest.raises(OSError):
            held.remove("inner")
        assert (at / "inner/kept").read_bytes() == b"kept"
        mount = held.mount()
        assert mount is not None
        assert (mount.point, mount.kind, held.is_mount_point()) == (str(at), "ext4", True)
    finally:
        held.close()
        inner.unmount()


@pytest.mark.loop
@pytest.mark.parametrize("what", ["unmounted", "covered"])
def test_what_was_unmounted_is_reported_and_never_written_below(make_drive, tmp_path: Path, what: str) -> None:
    drive = make_drive()
    at = drive.mount(tmp_path / "a b")
    held = Held(at)
    held.check()
    assert held.is_mount_point()
    if what == "unmounted":
        drive.unmount("--lazy")
    else:
        make_drive().mount(at)
    with pytest.raises(OSError, match="unmounted"):
        held.check()
    if what == "unmounted":
        assert held.mount() is None
    held.replace("x", b"on the drive, not below the mount point")
    assert "x" not in os.listdir(at)
    held.close()


def test_a_mere_folder_is_no_mount_point(held: Held) -> None:
    assert not held.is_mount_point()


def test_folders_without_end_are_not_followed_down(held: Held, at: Path) -> None:
    subprocess.run(["mkdir", "-p", at / "/".join("d" * (DEEPEST + 5))], check=True)
    with pytest.raises(OSError, match="deep"):
        held.remove("d")


def test_a_way_there_that_is_a_link_is_resolved_once(at: Path) -> None:
    (at / "x").write_bytes(b"x")
    way = at.parent / "way"
    way.symlink_to(at)
    held = Held(way)
    way.unlink()
    way.symlink_to(at.parent / "outside")
    assert held.path == at
    assert held.names() == ["x"]
    held.check()
    held.close()


@pytest.mark.parametrize("made", ["file", "folder", "socket"])
def test_what_is_given_away_is_never_what_a_link_leads_to(tmp_path: Path, made: str) -> None:
    """QEMU's user owns the folder, and puts a link where this process has just made something."""
    (tmp_path / "theirs").touch()
    os.chown(tmp_path / "theirs", 12345, 12345)
    owner = (tmp_path / "theirs").stat()
    victim, path = tmp_path / "victim", tmp_path / "made"
    victim.touch(mode=0o600)
    if made == "file":
        path.touch()
    elif made == "folder":
        path.mkdir()
    else:
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(path))
    beneath.give(path, owner, 0o660)
    assert (path.stat().st_uid, path.stat().st_gid, path.stat().st_mode & 0o777) == (12345, 12345, 0o660)
    path.rename(tmp_path / "aside")
    path.symlink_to(victim)
    with pytest.raises(OSError, match="symbolic link"):
        beneath.give(path, owner, 0o660)
    assert (victim.stat().st_uid, victim.stat().st_mode & 0o777) == (0, 0o600)
