# SPDX-License-Identifier: Apache-2.0
"""``seedship replication switchover``, ``approve`` and ``decline``: the planned move to the other site."""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from seedship import clock
from seedship.cli import inputs, output, waiting
from seedship.cli import watch as watching
from seedship.cli.grammar import BOTH, SOURCE, Noun
from seedship.cli.options import Replication, Wait, show_replication
from seedship.errors import InvalidRequest
from seedship.units import format_size, parse_duration


class Mode(StrEnum):
    """How the VM moves."""

    LIVE = "live"
    SUSPEND = "suspend"
    COLD = "cold"


class Off(StrEnum):
    """What to do with a guest that does not shut down."""

    CLEAN = "clean"
    FORCE = "force"
    CRASH = "crash"


At = Annotated[
    str,
    typer.Option(metavar="TIME", help="Earliest start, for example 2030-05-01T22:00, or 22:00 today."),
]
Hold = Annotated[
    bool,
    typer.Option("--hold", help="Wait for `approve` before the switchover starts. Rounds continue."),
]
HoldLimit = Annotated[
    str,
    typer.Option(metavar="DURATION", help="Cancel the switchover if it is not approved within this time."),
]
Force = Annotated[bool, typer.Option("--force", help="Switch over even if the sites are not in sync yet.")]
Throttle = Annotated[
    bool | None,
    typer.Option(
        "--throttle/--no-throttle",
        help="live: slow the guest's writes to the speed of the link. Default: only if required.",
    ),
]
NoAutoConverge = Annotated[
    bool,
    typer.Option(
        "--no-auto-converge",
        help="live: do not slow the CPUs if memory changes faster than it is sent.",
    ),
]
OldAutoConverge = Annotated[bool, typer.Option("--auto-converge", hidden=True, help="The default.")]
Xbzrle = Annotated[bool, typer.Option("--xbzrle", help="live: compress repeated memory pages (QEMU's XBZRLE).")]
MaxDowntime = Annotated[
    str,
    typer.Option(metavar="DURATION", help="live: target for the longest pause. Default: as configured."),
]
MaxPause = Annotated[
    str,
    typer.Option(
        metavar="DURATION",
        help="suspend, cold: maximum pause. If exceeded, the VM resumes at the source.",
    ),
]
ShutOff = Annotated[
    Off,
    typer.Option(
        help="cold: what to do if the guest does not shut down: clean cancels the switchover,"
        " force powers it off; crash powers it off at once."
    ),
]
ShutdownLimit = Annotated[str, typer.Option(metavar="DURATION", help="cold: maximum time for the guest to shut down.")]
Verify = Annotated[bool, typer.Option(help="Compare both sites first, unless that was done already.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show the planned steps and any blockers. Change nothing.")]
HowToMove = Annotated[
    Mode,
    typer.Option(
        help="live: the VM keeps running. suspend: it pauses while its memory is sent."
        " cold: it shuts down and boots at the destination."
    ),
]
LIMIT_S = 3600.0


def add(app: Noun) -> None:
    """Add the commands to ``seedship replication``."""
    app.verb(
        "switchover",
        "seedship replication switchover web1 --dry-run",
        "seedship replication switchover web1",
        "seedship replication switchover web1 --hold --at 22:00",
        panel=SOURCE,
    )(switchover)
    app.verb("approve", "seedship replication approve web1", panel=BOTH)(approve)
    app.verb("decline", "seedship replication decline web1", panel=SOURCE)(decline)


def switchover(
    replication: Replication,
    mode: HowToMove = Mode.LIVE,
    at: At = "",
    hold: Hold = False,
    precopy: Annotated[
        bool,
        typer.Option(
            "--precopy",
            help="With --hold: copy the memory before the approval. No rounds are made meanwhile.",
        ),
    ] = False,
    hold_limit: HoldLimit = "10m",
    force: Force = False,
    throttle: Throttle = None,
    no_auto_converge: NoAutoConverge = False,
    auto_converge: OldAutoConverge = True,
    xbzrle: Xbzrle = False,
    verify: Verify = True,
    max_downtime: MaxDowntime = "",
    max_pause: MaxPause = "30m",
    off: ShutOff = Off.CLEAN,
    shutdown_limit: ShutdownLimit = "2m",
    dry_run: DryRun = False,
    wait: Wait = True,
) -> None:
    """Move the VM to the destination.

    A switchover that fails before the point of no return is undone: the VM keeps running at the source.
    """
    words: dict[str, Any] = {
        "mode": mode.value,
        "at": when(at),
        "hold": hold,
        "precopy": precopy,
        "force": force,
        "throttle": throttle,
        "auto_converge": not no_auto_converge,
        "xbzrle": xbzrle,
        "downtime_ms": milliseconds(max_downtime),
        "hold_limit": inputs.parsed(parse_duration, "--hold-limit", hold_limit),
        "verify": verify,
        "max_pause": inputs.parsed(parse_duration, "--max-pause", max_pause),
        "shutdown_limit": inputs.parsed(parse_duration, "--shutdown-limit", shutdown_limit),
        "off": off.value,
        "dry_run": dry_run,
    }
    with output.site() as client:
        answer = client.post("replications", replication, "switchover", **words)
        if dry_run:
            output.custom(answer, _foreseen(answer))
            raise typer.Exit(3 if answer["blockers"] else 0)
        if wait and answer["state"] == "switching-over":
            vm = answer["vm"]
            goal = watching.begun(answer, f"The switchover of {vm}", LIMIT_S, "replication", "decline", vm)
            watching.operation(client, answer["operation"], goal)
            answer = client.get("replications", answer["id"])
    show_replication(answer)


def approve(replication: Replication) -> None:
    """Release a switchover that waits for approval.

    At the destination: admit the next switchover, where accept.switchover of site.toml is "ask".
    """
    with output.site() as client:
        answer = client.post("replications", replication, "approve")
    show_replication(answer)


def decline(replication: Replication, wait: Wait = True) -> None:
    """Cancel a switchover that waits or is running. The VM stays at the source.

    Not possible after the point of no return.
    """
    with output.site() as client:
        answer = client.post("replications", replication, "decline")
        if wait and answer["state"] == "switching-over":
            what = f"The end of the switchover of {answer['vm']}"
            goal = waiting.Goal(what, LIMIT_S, ("replication", "watch", str(answer["vm"])))
            answer = waiting.until(goal, lambda: client.poll("replications", answer["id"]), waiting.of_declined)
    show_replication(answer)


def milliseconds(text: str) -> int:
    """``--max-downtime`` in milliseconds; 0 where it is not given."""
    return int(inputs.parsed(parse_duration, "--max-downtime", text) * 1000) if text else 0


def when(text: str) -> float:
    """Seconds since 1970 at ``2030-05-01T22:00``, or at the next ``22:00``; local time without a UTC offset.

    Raises:
        InvalidRequest: it is no time.
    """
    if not text:
        return 0.0
    now = clock.now().astimezone()
    try:
        if len(text) == 5 and text[2] == ":":
            meant = now.replace(hour=int(text[:2]), minute=int(text[3:]), second=0, microsecond=0)
            return (meant if meant > now else meant + timedelta(days=1)).timestamp()
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise InvalidRequest("--at", f"{text!r} is not a time") from error
    return (moment if moment.tzinfo else moment.astimezone()).timestamp()


def _foreseen(answer: dict[str, Any]) -> Table:
    table = Table(show_header=False, box=None)
    rate = answer["link_rate"]
    table.add_row("to send: changed blocks", format_size(answer["epoch_bytes"]))
    table.add_row("to send: memory, at most", format_size(answer["memory_bytes"]))
    table.add_row("link rate", f"{format_size(rate)}/s" if rate else "not measured yet")
    for mode, seconds in answer["pause_seconds"].items():
        pause = "not known yet" if seconds is None else f"{seconds:.1f} s"
        table.add_row(f"pause, {mode}", Text(pause, style="bold" if mode == answer["mode"] else ""))
    for number, step in enumerate(answer["steps"], 1):
        table.add_row(f"step {number}", step)
    for blocker in answer["blockers"]:
        table.add_row(Text("blocker", style="red"), blocker)
    return table
