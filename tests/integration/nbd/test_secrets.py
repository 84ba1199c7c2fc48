# SPDX-License-Identifier: Apache-2.0
"""A passphrase of an encrypted image is in no file and on no command line, also when the daemon is killed meanwhile."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from luks import make_image
from seedship import clock, nbd
from seedship.units import MiB

pytestmark = pytest.mark.qemu

PHRASE = b"correct horse battery staple"
SERVE = """
with nbd.serve(Path({path!r}), "qcow2", read_only=False, passphrase={phrase!r}):
    print("begun", flush=True)
    sys.stdin.read()
"""
CREATE = """
nbd.image.create(Path({path!r} + ".new"), "qcow2", 1 << 20, passphrase={phrase!r})
"""
PROGRAM = """#!/bin/sh
touch "$BEGUN"
sleep 60
"""


def encrypted(folder: Path) -> Path:
    """An image that costs little to open."""
    key, path = folder / "key", folder / "disk.qcow2"
    key.write_bytes(PHRASE)
    options = "encrypt.format=luks,encrypt.key-secret=key,encrypt.iter-time=10"
    make_image(
        [
            "qemu-img",
            "create",
            "-q",
            "-f",
            "qcow2",
            "--object",
            f"secret,id=key,file={key}",
            "-o",
            options,
            str(path),
            "1M",
        ]
    )
    return path


@pytest.mark.parametrize(("code", "program"), [(SERVE, ""), (CREATE, "qemu-img")], ids=["served", "being created"])
def test_a_passphrase_is_nowhere_when_the_daemon_is_killed(tmp_path: Path, code: str, program: str) -> None:
    temporary, path, begun = tmp_path / "tmp", encrypted(tmp_path), tmp_path / "begun"
    temporary.mkdir()
    environment = {**os.environ, "TMPDIR": str(temporary), "BEGUN": str(begun)}
    if program:  # One that does not end.
        (tmp_path / program).write_text(PROGRAM)
        (tmp_path / program).chmod(0o755)
        environment["PATH"] = f"{tmp_path}:{environment['PATH']}"
    words = ["import sys", "from pathlib import Path", "from seedship import nbd"]
    text = "\n".join(words) + code.format(path=str(path), phrase=PHRASE)
    with subprocess.Popen(
        [sys.executable, "-c", text], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    ) as own:
        if program:
            clock.wait_until(begun.exists, 30, "the program")
        else:
            assert own.stdout is not None
            assert own.stdout.readline() == b"begun\n"
        lines = [line for at in Path("/proc").glob("[0-9]*/cmdline") if (line := _content(at)) and b"-c" not in line]
        running = [line for line in lines if str(path).encode() in line]
        assert running
        assert not [line for line in running if PHRASE in line]
        own.kill()
    left = [at for at in temporary.rglob("*") if at.is_file()]
    assert not [at for at in left if PHRASE in at.read_bytes()]


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # The process has ended.
        return b""


def test_an_encrypted_image_is_written_and_read(tmp_path: Path) -> None:
    path = tmp_path / "disk.qcow2"
    nbd.image.create(path, "qcow2", MiB, passphrase=PHRASE)
    with (
        nbd.serve(path, "qcow2", read_only=False, passphrase=PHRASE) as socket,
        nbd.Writer(socket, nbd.EXPORT) as writer,
    ):
        writer.write(b"1" * 512, 512)
        writer.flush()
    with nbd.serve(path, "qcow2", read_only=True, passphrase=PHRASE) as socket:
        content = subprocess.run(["nbdcopy", nbd.uri(socket), "-"], check=True, capture_output=True).stdout
    assert content[:1024] == bytes(512) + b"1" * 512


def test_a_machine_that_is_too_busy_to_measure_is_measured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """QEMU gives up when the clock of its thread stood still; the program does so twice here."""
    real = subprocess.run(["which", "qemu-img"], check=True, capture_output=True, text=True).stdout.strip()
    program = tmp_path / "qemu-img"
    program.write_text(
        f"""#!/bin/sh
[ "$(wc -l < {tmp_path}/tries)" -ge 2 ] && exec {real} "$@"
echo >> {tmp_path}/tries
echo "qemu-img: Unable to get accurate CPU usage" >&2
exit 1
"""
    )
    program.chmod(0o755)
    (tmp_path / "tries").touch()
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    nbd.image.create(tmp_path / "disk.qcow2", "qcow2", MiB, passphrase=PHRASE)
    assert (tmp_path / "tries").read_text() == "\n\n"
    assert nbd.image.info(tmp_path / "disk.qcow2").encrypted
