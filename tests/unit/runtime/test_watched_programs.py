# SPDX-License-Identifier: Apache-2.0
"""qemu-img works as long as it needs, and is ended when it hangs."""

from pathlib import Path

import pytest

from seedship import clock
from seedship.errors import NbdFailed
from seedship.nbd import image, qemu_img


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qemu_img, "_STILL_S", 1.0)
    monkeypatch.setattr(qemu_img, "_CHECK_S", 0.1)


def program(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    (folder / "qemu-img").write_text(f"#!/usr/bin/env python3\n{script}\n")
    (folder / "qemu-img").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")


@pytest.mark.parametrize("work", ["open('/dev/null', 'w').write('x' * 65536)", "sum(range(100_000))"])
def test_work_may_take_longer_than_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, work: str) -> None:
    loop = f"import time\nend = time.monotonic() + 3\nwhile time.monotonic() < end:\n    {work}\n    time.sleep(0.01)"
    program(tmp_path, monkeypatch, loop)
    began = clock.monotonic()
    image.repair_leaks(tmp_path / "any")
    assert clock.monotonic() - began >= 3


def test_a_program_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path, monkeypatch, "import time\ntime.sleep(600)")
    with pytest.raises(NbdFailed, match="has not read or written"):
        image.repair_leaks(tmp_path / "any")


def test_its_error_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path, monkeypatch, "import sys\nsys.exit('it is broken')")
    with pytest.raises(NbdFailed, match="it is broken"):
        image.repair_leaks(tmp_path / "any")
