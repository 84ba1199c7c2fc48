# SPDX-License-Identifier: Apache-2.0
"""Threads of the daemon are made in ``seedship.runtime``, so that each is named, supervised and seen."""

import ast
from collections import Counter
from pathlib import Path

import seedship

ROOT = Path(seedship.__file__).parent
EXCEPTIONS = {
    "runtime/task.py": "the one place",
    "daemon.py": "the event loop of the link, of a process that is no daemon (site doctor)",
    "hypervisor/connection.py": "libvirt's event loop, and a call to libvirt that may hang and is left then",
    "hypervisor/migration.py": "one call that libvirt blocks in while a VM migrates; its caller watches it",
    "drives/patient.py": "data path: a drive's calls, which may hang in the kernel",
    "drives/writer.py": "data path: what writes to one drive",
    "tap/supervisor.py": "another process: what watches the taps",
    "tap/plugin.py": "another process: the plugin of nbdkit",
    "lab/talk.py": "the lab is no daemon",
    "lab/watch.py": "the lab is no daemon",
}


def _bare_threads(path: Path) -> int:
    count = 0
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("threading.Thread", "Thread"):
            count += 1
    return count


def test_threads_are_made_by_the_runtime_alone() -> None:
    found = Counter[str]()
    for path in ROOT.rglob("*.py"):
        if count := _bare_threads(path):
            found[str(path.relative_to(ROOT))] = count
    assert sorted(found) == sorted(EXCEPTIONS)
    assert sum(found.values()) <= len(EXCEPTIONS) + 1  # two of libvirt's connection
