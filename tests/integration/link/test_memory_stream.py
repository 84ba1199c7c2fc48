# SPDX-License-Identifier: Apache-2.0
"""Whole pages are found in what this machine's QEMU really sends."""

import json
import socket
import subprocess
import time
from pathlib import Path

import pytest

from memory_streams import noise
from seedship.link.memory_stream import PAGE, MemoryStream

PAGES = 300
AT = 4 << 20
CAPABILITIES = {"plain": (), "as-libvirt-sets": ("events", "auto-converge", "xbzrle")}


def ask(talk: socket.socket, command: str, **arguments: object) -> dict[str, object]:
    """Answer of QEMU's monitor."""
    talk.sendall(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")
    said = b""
    while True:
        said += talk.recv(65536)
        for line in said.split(b"\n")[:-1]:
            reply = json.loads(line)
            assert "error" not in reply, reply
            if "return" in reply:
                return dict(reply["return"])


@pytest.mark.parametrize("capabilities", CAPABILITIES.values(), ids=CAPABILITIES)
def test_pages_of_a_real_stream(tmp_path: Path, capabilities: tuple[str, ...]) -> None:
    content = noise(PAGES)
    (tmp_path / "content").write_bytes(b"".join(content))
    words = ["qemu-system-x86_64", "-S", "-display", "none", "-m", "32M", "-accel", "tcg", "-nodefaults"]
    words += ["-device", f"loader,file={tmp_path}/content,addr={AT},force-raw=on"]
    process = subprocess.Popen([*words, "-qmp", f"unix:{tmp_path}/qmp,server=on,wait=off"])
    try:
        with socket.socket(socket.AF_UNIX) as talk:
            deadline = time.monotonic() + 30
            while talk.connect_ex(str(tmp_path / "qmp")):
                assert time.monotonic() < deadline
                time.sleep(0.05)
            talk.recv(65536)
            ask(talk, "qmp_capabilities")
            wanted = [{"capability": name, "state": True} for name in capabilities]
            ask(talk, "migrate-set-capabilities", capabilities=wanted)
            ask(talk, "migrate", uri=f"exec:cat >{tmp_path}/stream.part && mv {tmp_path}/stream.part {tmp_path}/stream")
            while ask(talk, "query-migrate").get("status") != "completed" or not (tmp_path / "stream").exists():
                assert time.monotonic() < deadline
                time.sleep(0.05)
    finally:
        process.kill()
        process.wait()
    data = (tmp_path / "stream").read_bytes()
    parser, out = MemoryStream(), b""
    found: list[bytes] = []
    for at in range(0, len(data), 10_007):
        part, positions = parser.take(data[at : at + 10_007])
        out += part
        found += [part[position : position + PAGE] for position in positions]
    assert out + parser.rest() == data
    assert [page for page in found if page in content] == content
    assert parser.ending
