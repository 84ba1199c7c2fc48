# SPDX-License-Identifier: Apache-2.0
"""``seedship clone`` and ``seedship replication test``: VMs that are based on a replica."""

from __future__ import annotations

from typing import Annotated, Any, Final

import typer

from seedship.cli import inputs, output, waiting
from seedship.cli import watch as watching
from seedship.cli.grammar import DESTINATION, Noun
from seedship.cli.options import DryRun, Point, Replication, Wait, epoch_of
from seedship.client import SiteClient
from seedship.errors import Conflict
from seedship.units import parse_duration

app = Noun("VMs started from a replica, each with its own name, UUID and MAC addresses.")
_LIMIT_S: Final = 24 * 3600.0
_COLUMNS: Final = ("name", "vm", "epoch", "phase", "kind", "network", "uuid")
_WIDE: Final = ("id", "folder")
Network = Annotated[
    str,
    typer.Option(
        metavar="PLAN",
        help="Network of the clone: isolated (not connected), keep (as after a switchover), or a list of"
        " network:SOURCE=network:HERE or bridge:SOURCE=bridge:HERE.",
    ),
]


def add(replications: Noun) -> None:
    """Add ``test`` to the commands of replications."""
    replications.verb("test", "seedship replication test web1 --for 10m", panel=DESTINATION)(boot)


@app.verb(
    "create",
    "seedship clone create web1 --name web1-copy",
    "seedship clone create web1 --name web1-old --point 41",
    panel=DESTINATION,
)
def create(
    replication: Replication,
    name: Annotated[str, typer.Option(metavar="NAME", help="Name of the clone.")],
    point: Point = None,
    network: Network = "isolated",
    full: Annotated[bool, typer.Option(help="Copy the disks instead of using overlays on the replica.")] = False,
    hook: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Program of site.toml, section clone.hooks, that may change the disks before the start.",
        ),
    ] = "",
    memory: Annotated[
        bool,
        typer.Option(
            "--with-memory",
            help="Resume the VM from its present memory instead of "
            "booting. The source pauses while its memory is saved.",
        ),
    ] = False,
    max_pause: Annotated[
        str, typer.Option(metavar="DURATION", help="Maximum pause of the source for --with-memory.")
    ] = "60s",
    start: Annotated[bool, typer.Option(help="Start the clone.")] = True,
    wait: Wait = True,
) -> None:
    """Create a VM from the replica."""
    with output.site() as client:
        clone = client.post(
            "replications",
            replication,
            "clones",
            name=name,
            epoch=epoch_of(client, replication, point),
            full=full,
            start=start,
            network=network,
            hook=hook,
            memory=memory,
            max_pause=inputs.parsed(parse_duration, "--max-pause", max_pause),
        )
        if wait:
            _made(client, clone, "clone", _LIMIT_S)
            clone = next(entry for entry in client.get("clones") if entry["id"] == clone["id"])
    output.row(clone, *_COLUMNS, wide=_WIDE)


def boot(
    replication: Replication,
    point: Point = None,
    duration: Annotated[str, typer.Option("--for", metavar="DURATION", help="How long the test VM runs.")] = "5m",
    network: Network = "isolated",
) -> None:
    """Boot a temporary clone of the replica, report the result, and delete the clone."""
    seconds = inputs.parsed(parse_duration, "--for", duration)
    with output.site() as client:
        clone = client.post(
            "replications",
            replication,
            "tests",
            epoch=epoch_of(client, replication, point),
            seconds=seconds,
            network=network,
        )
        report = _made(client, clone, "test boot", seconds + 600.0)
        report = {name: value for name, value in report.items() if name != "event"}
        _gone(client, clone)
    output.record(report)
    if report["result"] == "failed":
        raise Conflict(
            f"The test VM of {replication}",
            f"did not keep running: it is {report['state']}",
            "Read the last lines of its console above, and repeat with another --point",
        )


@app.verb("list", "seedship clone list", panel=DESTINATION)
def list_() -> None:
    """Show the clones and test VMs of this site."""
    with output.site() as client:
        output.rows(client.get("clones"), *_COLUMNS, wide=_WIDE, key="name")


@app.verb("delete", "seedship clone delete web1-copy", panel=DESTINATION)
def delete(
    name: Annotated[
        str,
        typer.Argument(metavar="CLONE", help="Name of the clone, or the first characters of its ID."),
    ],
    wait: Wait = True,
    dry_run: DryRun = False,
) -> None:
    """Stop a clone and delete its disks."""
    with output.site() as client:
        if dry_run:
            clones = client.get("clones")
            affected = [c for c in clones if c["name"] == name or c["id"].startswith(name)]
            output.rows(affected, *_COLUMNS, "folder")
            return
        clone = client.delete("clones", name)
        if wait:
            _made(client, clone, "removal", 600.0)
    output.row(clone, *_COLUMNS, wide=_WIDE)


def _made(client: SiteClient, clone: dict[str, Any], what: str, limit_s: float) -> Any:
    """Wait for the operation on a clone; returns its result. Raises as ``waiting.until``."""
    undo = () if what == "removal" else ("clone", "delete", str(clone["name"]))
    goal = watching.begun(clone, f"The {what} of {clone['name']}", limit_s, *undo)
    return watching.operation(client, clone["operation"], goal)["result"]


def _gone(client: SiteClient, clone: dict[str, Any]) -> None:
    """Wait until the daemon removed a test VM. Raises as ``waiting.until``."""
    goal = waiting.Goal(
        f"The removal of {clone['name']}", 600.0, ("clone", "list"), ("clone", "delete", str(clone["name"]))
    )

    def judge(clones: list[dict[str, Any]]) -> waiting.Verdict:
        there = any(entry["id"] == clone["id"] for entry in clones)
        return waiting.Verdict("wait", "it is being removed") if there else waiting.Verdict("reached")

    waiting.until(goal, lambda: list(client.get("clones")), judge)
