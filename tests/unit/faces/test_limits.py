# SPDX-License-Identifier: Apache-2.0
"""Every limit in seconds is classified: none can be exceeded because a disk, an epoch or a site is large.

A limit on work that grows with data has to be one on progress (``runtime.Patience``). A new limit fails here until it
is in the table below with the reason.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import seedship

ROOT = Path(seedship.__file__).parent
INTERVAL = re.compile(
    r":_?(POLL|AGAIN|LOOK|EVERY|TICK|WATCH|REFRESH|RENEW|CHECK|WINDOW|BURST|PROBE|REST|RETRY|HORIZON|ALIVE|KEEPALIVE"
    r"|EXPIRY|MEASURED|QUEUE|EMPTY|DOUBLE|VISIT|IDLE|GATE)(_[A-Z]+)?_S$"
)
"""Names of periods: they decide when something is looked at again, not when it ends."""

PROGRESS = {
    "drives/patient.py:PATIENCE_S": "one call on a drive, of at most a few MiB; the drive is given up, the set goes on",
    "drives/writer.py:_PATIENCE_S": "one buffer of a drive becomes free",
    "hypervisor/migration.py:_STILL_S": "a migration's counters change",
    "hypervisor/migration.py:_CONVERGE_S": "what is left of the disks gets less",
    "hypervisor/overlays.py:_STILL_S": "a block job's position changes",
    "hypervisor/saved.py:_STILL_S": "the bytes of a save grow",
    "link/pages.py:_FREE_S": "pages are read at a rate, from the first second on; otherwise they are sent",
    "link/push.py:QUIET_S": "an acknowledgment arrives; only reported",
    "link/push.py:__init__(patience_s=300.0)": "an acknowledgment of one segment arrives",
    "link/pages.py:_SLOW_S": "the pages of one message; after it they are sent instead of referred to",
    "model/bounds.py:RESPONSE_STALL_S": "a receiver takes something",
    "model/remote.py:_TIMEOUT_S": "one request to an iSCSI target, of at most a few MiB",
    "nbd/qemu_img.py:_STILL_S": "qemu-img's counts of bytes or its processor time change",
    "native/worker.py:PATIENCE_S": "one piece of at most a segment",
    "observe/controllers.py:_STUCK_S": "only reported",
    "observe/health.py:_STALLED_S": "only reported",
    "tap/plugin.py:STUCK_S": "one write; only reported",
    "tap/supervisor.py:_STARTS_S": "a process of a few MiB starts; the daemon tries again",
    "tap/supervisor.py:_ASKER_S": "a local process that has connected sends its one packet",
    "tap/supervisor.py:PATIENCE_S": "the tap's heartbeat, from a thread without I/O",
    "workflows/control/problems.py:STANDSTILL_S": "only reported",
    "workflows/source/epochs/verify.py:_APPLY_S": "the destination's numbers change",
    "workflows/provisioning/holdings.py:_PATIENCE_S": "what was measured before counts; the measurement goes on",
    "workflows/source/mirroring/tapping.py:_LEARN_S": "a segment is applied",
    "workflows/switchover/memory_pages.py:_PATIENCE_S": "one read of a disk, of at most 256 KiB; its pages are then sent",
    "workflows/switchover/memory_pages.py:_LEAST_S": "the index has what was read in this time; the rest is sent",
    "workflows/switchover/memory_pages.py:_MOST_S": "as _LEAST_S",
}
"""What has to happen within the time."""

CONSTANT = {
    "api/streams.py:_ASK_S": "the live view of one page",
    "cli/waiting.py:SILENT_S": "the daemon answers at all",
    "client.py:_LIMIT_S": "requests answer with an operation; what takes long is watched",
    "drives/unplug.py:_PATIENCE_S": "who lists drives closes them; only reported",
    "drives/unplug.py:_PROBED_S": "udev closes the device; then it stays on",
    "hypervisor/backup.py:_END_S": "a job that was aborted ends: QEMU drops what is under way",
    "hypervisor/backup.py:_PHANTOM_S": "a job without a process is noticed",
    "hypervisor/domains.py:_STOP_S": "a guest's process ends after it was killed",
    "hypervisor/forgotten.py:_END_S": "a job that was aborted ends",
    "hypervisor/forgotten.py:_SETTLE_S": "libvirt updates a definition",
    "hypervisor/freeze_guard.py:_LIMIT_S": "the guest's agent freezes: the share that the guest may be disturbed",
    "hypervisor/freeze_guard.py:_PATIENCE_S": "the same and the thaw",
    "hypervisor/freeze_guard.py:_THAW_S": "the guest's agent thaws",
    "hypervisor/freeze_process.py:_FREEZE_S": "as in freeze_guard",
    "hypervisor/freeze_process.py:_THAW_LIMIT_S": "as in freeze_guard",
    "hypervisor/freeze_process.py:_THAW_S": "as in freeze_guard",
    "hypervisor/gate.py:_FRAME_S": "one frame of libvirt's protocol, whose size it bounds",
    "hypervisor/guestclock.py:_CALL_S": "one command of the guest's agent",
    "hypervisor/holding.py:_ASK_S": "one answer of libvirt",
    "hypervisor/migration.py:_ASIDE_S": "one answer of libvirt",
    "hypervisor/migration.py:_END_S": "a migration that was aborted, or has all, ends",
    "hypervisor/mirror.py:_END_S": "a mirror that was aborted ends",
    "hypervisor/overlays.py:_ABORT_S": "a job that was aborted ends",
    "hypervisor/overlays.py:_SETTLE_S": "libvirt updates a definition",
    "hypervisor/pause_guard.py:_PATIENCE_S": "how long guests may stand still at most",
    "hypervisor/status_repair.py:_LIMIT_S": "one answer of libvirt",
    "hypervisor/domains.py:_AGENT_S": "the guest's agent may shut it down; the power button follows",
    "hypervisor/trial.py:_AGENT_S": "one command of the guest's agent",
    "link/client.py:_PAIR_S": "one small call",
    "link/client.py:_READY_S": "a port is opened anew",
    "link/client.py:_RECONNECT_S": "a connection is made",
    "link/client.py:call(limit_s=30.0)": "calls without their own limit answer from the catalog",
    "link/client.py:timeout=10": "a certificate is read",
    "link/listener.py:_CLOSED_S": "a port is closed",
    "link/listener.py:_FREE_S": "a port is free",
    "link/listener.py:_IN_FORCE_S": "a port is opened anew",
    "link/listener.py:_STREAMS_S": "streams of a replaced port: they connect again and continue",
    "link/session.py:call(limit_s=30.0)": "as link/client.py",
    "model/bounds.py:LINK_HANDSHAKE_S": "one handshake",
    "model/bounds.py:MEMORY_PAUSE_S": "how long a guest may be paused at most",
    "model/bounds.py:REQUEST_BODY_S": "1 MiB",
    "model/bounds.py:REQUEST_HEADERS_S": "32 KiB",
    "model/bounds.py:TLS_HANDSHAKE_S": "one handshake",
    "model/bounds.py:TLS_SHUTDOWN_S": "one handshake",
    "nbd/image.py:_FOREIGN_S": "the header and tables of a foreign image; a hostile one may not take longer",
    "nbd/image.py:_REMOTE_S": "a login, and the size of an image",
    "nbd/server.py:_GREETING_S": "one greeting",
    "observe/doctor.py:_CALL_S": "one small call",
    "observe/forgotten.py:_WAIT_S": "what is seen later is shown later",
    "hypervisor/migration.py:_HOLD_POLL_S": "a period",
    "link/listener.py:_FREE_POLL_S": "a period",
    "observe/health.py:_STALE_S": "only reported",
    "observe/webhooks.py:_OLDEST_S": "the age of an event: older ones are not sent",
    "observe/remnants.py:_WAIT_S": "what is seen later is shown later",
    "observe/sampler.py:_CALL_S": "one small call",
    "observe/webhooks.py:_LIMIT_S": "one request of at most a few KiB",
    "planner/width.py:SETTLE_S": "a period of measuring",
    "runtime/answering.py:ANSWER_S": "a name, a status, a header or the names in one folder; no content of an image",
    "runtime/controller.py:_LONGEST_S": "a period",
    "runtime/registry.py:_STOP_S": "threads end; what they do is repeatable",
    "service/live_view.py:_LINK_S": "a period",
    "tap/process.py:_MARK_S": "one answer of a process of this host",
    "tap/process.py:_START_S": "a process starts",
    "workflows/context/depot.py:LEASE_S": "a lease is renewed in the background while work goes on",
    "workflows/context/depot.py:_ask(limit_s=30.0)": "one call of at most a few MiB",
    "workflows/context/depot.py:_call(limit_s=60.0)": "one call of at most a few MiB",
    "workflows/context/lanes.py:_AWAITED_S": "the source asks again in less than a second",
    "workflows/context/listing.py:HELD_S": "a cache",
    "workflows/control/deliver.py:_LIMIT_S": "one message of at most 16 MiB; it is repeated",
    "workflows/control/reconciler.py:_LATE_S": "only reported",
    "workflows/control/reconciler.py:_MORE_ROOM_S": "a period",
    "workflows/control/reconciler.py:_ROOM_S": "a period",
    "workflows/groups/common_cut.py:_LOCKS_S": "a group's common cut is given up, not the rounds",
    "workflows/protocol/rpo.py:_BOOT_S": "a period",
    "workflows/protocol/rpo.py:_CALL_S": "one small call",
    "workflows/protocol/start_control.py:_CALL_S": "one small call",
    "workflows/source/epochs/adopted_seed.py:_CALL_S": "hashes of 2 GiB, read from a file",
    "workflows/source/epochs/closes.py:_CALL_S": "an answer comes after 5 s and one segment",
    "workflows/source/epochs/comparing.py:_PART_S": "an answer comes after 10 s and 2 GiB",
    "workflows/source/epochs/verify.py:_AHEAD_S": "256 MiB are read; otherwise the slice is left to a later round",
    "workflows/source/memory_points.py:LIMIT_S": "how long a guest may be paused at most",
    "workflows/source/mirroring/tapping.py:_DRAIN_S": "how long a guest waits for the log; what is left is in the next round",
    "workflows/source/mirroring/tapping.py:_HASHES_S": "hashes of 1 GiB",
    "workflows/source/request.py:_RECONNECT_S": "a connection is made",
    "workflows/source/snapshots/rolling_scan.py:_PATIENCE_S": "a slice of a scan: it goes on with the next round",
    "workflows/switchover/failover.py:_COMMAND_S": "the operator's fencing command",
    "workflows/switchover/takeover.py:_AGENT_S": "one command of the guest's agent",
    "workflows/switchover/trial.py:_LEFT_S": "libvirt updates a definition",
    "workflows/switchover/tunnels.py:_LIMIT_S": "one answer",
    "workflows/target/closing.py:_STEP_S": "a period: the answer says how far it is",
    "workflows/target/receiving.py:_PART_S": "a period: the answer has what was read until then",
    "workflows/target/replica_files.py:_CLOSED_S": "a process closes its files",
}
"""What ends within the time, whatever the amount of data."""

GROWS = {
    "cli/clone.py:_LIMIT_S": "the command stops waiting after a day; the clone goes on",
    "cli/drive.py:_LIMIT_S": "the command stops waiting after a week; the operation goes on",
    "cli/switchover.py:LIMIT_S": "the command stops waiting after an hour (--timeout); the switchover goes on",
    "workflows/context/depot.py:_SLOW_S": "a drive makes its cache of written data durable: the cache has a fixed size",
    "workflows/source/epochs/closes.py:_SINGLE_S": "a destination of the previous version verifies all in one call",
    "workflows/source/epochs/comparing.py:_WHOLE_S": "a destination of the previous version reads all in one call",
    "workflows/source/mirroring/tapping.py:_READY_S": "what the guest wrote since its overlays were laid, some seconds",
    "workflows/switchover/while_stopped.py:_HOLD_S": "the destination reads the VM's memory: 1 TiB at 1.2 GB/s",
    "workflows/target/cloning/customizing.py:_LIMIT_S": "the operator's hook: an hour is documented",
}
"""Limits that a very large VM might reach, and what happens then. Nothing is added here."""


def limits() -> Iterator[str]:
    """Yield each limit in the source: constants in seconds, and literal limits of calls and parameters."""
    for path in sorted(ROOT.rglob("*.py")):
        name = path.relative_to(ROOT).as_posix()
        if name.startswith(("lab/", "console/")):  # Nothing waits for data there.
            continue
        tree = ast.parse(path.read_text())
        for statement in tree.body:
            targets = [statement.target] if isinstance(statement, ast.AnnAssign) else getattr(statement, "targets", [])
            for target in targets:
                if isinstance(target, ast.Name) and target.id.endswith("_S"):
                    yield f"{name}:{target.id}"
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                for word in node.keywords:
                    if word.arg in ("timeout", "limit_s", "deadline") and _is_number(word.value):
                        yield f"{name}:{word.arg}={ast.unparse(word.value)}"
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                given = node.args
                pairs = [
                    *zip(given.args[len(given.args) - len(given.defaults) :], given.defaults, strict=True),
                    *zip(given.kwonlyargs, given.kw_defaults, strict=True),
                ]
                for parameter, default in pairs:
                    if (
                        default is not None
                        and re.search(r"(limit_s|timeout|patience_s)$|^limit$", parameter.arg)
                        and _is_number(default)
                    ):
                        yield f"{name}:{node.name}({parameter.arg}={ast.unparse(default)})"


def _is_number(node: ast.expr | None) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, int | float) and bool(node.value)


def test_every_limit_is_classified() -> None:
    seen = {limit for limit in limits() if not INTERVAL.search(limit) and "(limit=" not in limit}

    assert seen == PROGRESS.keys() | CONSTANT.keys() | GROWS.keys()
    assert len(PROGRESS) + len(CONSTANT) + len(GROWS) == len(seen)


def test_no_program_has_a_limit_on_its_whole_time() -> None:
    """``subprocess.run(timeout=...)`` is one; programs that read or write images are watched instead."""
    found = [limit for limit in limits() if ":timeout=" in limit]

    assert found == ["link/client.py:timeout=10"]
