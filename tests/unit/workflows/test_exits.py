# SPDX-License-Identifier: Apache-2.0
"""No state without an exit: from wherever failures lead, ``retry``, ``decline`` and ``abort`` reach a clean end.

The life cycle is walked on a real catalog, through the real ``steps.run``, ``next_step``, ``problems`` and the operations
that an operator has; only what a step does to libvirt, drives and the link is played: it succeeds, or fails by an error of
the tree. What the switchover's own code does with a decline and with an undone attempt is the real code's.
"""

import dataclasses
import functools
import re
from collections.abc import Iterator
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import contexts
import person
from seedship import errors, store
from seedship.access import Actor, Role
from seedship.errors import Conflict, SeedshipError
from seedship.model import AttemptId, DiskIndex, DiskSpec, Epoch, Generation, Lineage, lifecycle, new_id
from seedship.model.books import DestinationBook, SourceBook
from seedship.model.books.ownership import SourceHandover
from seedship.model.spec import ReplicationSpec
from seedship.reference import commands
from seedship.service import Acting, Service
from seedship.workflows import Context
from seedship.workflows.control import exits, problems, steps
from seedship.workflows.control.transitions import Step, next_step
from seedship.workflows.documents import (
    REPEAT_COMMANDS,
    Cause,
    DestinationDocument,
    DriveAssignment,
    FencingRecord,
    Order,
    Problem,
    SourceDocument,
    encode,
)
from seedship.workflows.switchover import orders, switchover
from states import where

STATES: tuple[lifecycle.State, ...] = get_args(lifecycle.State)
DISKS = (DiskSpec(DiskIndex(0), "vda", 1 << 20, "qcow2"),)


class Told:
    """A reconciler that only notes whom it shall hurry for."""

    def __init__(self) -> None:
        self.hurried: list[str] = []

    def hurry(self, replication: str) -> None:
        self.hurried.append(replication)

    again = hurry


def operator(site: Context) -> tuple[Told, Acting]:
    """An operator's operations, without a daemon around them; and whom the reconciler shall hurry for."""
    told = Told()
    service = Service(site, told, None)  # type: ignore[arg-type]
    return told, service.acting(Actor("ann", Role.OPERATOR, "socket"))


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Context]:
    folder = tmp_path_factory.mktemp("site")
    made = contexts.alone(folder)
    yield made
    made.end()
    made.catalog.close()


def here(**changes: Any) -> SourceDocument:
    return where(SourceDocument(DISKS, SourceBook(Lineage("a" * 32), Epoch(5), "c" * 32), "s" * 32), **changes)


def there(**changes: Any) -> DestinationDocument:
    return DestinationDocument(
        DISKS, DestinationBook(Lineage("a" * 32)), "s" * 32, "<domain/>", "/x", ("vda.qcow2",), **changes
    )


def add(site: Context, state: str, document: SourceDocument | DestinationDocument) -> str:
    role = "source" if isinstance(document, SourceDocument) else "destination"
    row = store.Replication(
        new_id(), role, "p" * 32, new_id(), f"vm-{new_id()[:8]}", state, new_id(), 1, 5, encode(document)
    )
    site.catalog.replications.add(row)
    return row.id


# The table --------------------------------------------------------------------------------------------


def test_every_state_has_a_way_out() -> None:
    assert set(exits.SOURCE_EXITS) == set(exits.DESTINATION_EXITS) == set(STATES)
    known = {f"{noun.title} {verb.title}".split()[0] for noun in commands.tree().below for verb in noun.below}
    assert known
    for way in (*exits.SOURCE_EXITS.values(), *exits.DESTINATION_EXITS.values()):
        assert way.by_itself
        assert typed(way.by_hand)


@functools.cache
def known() -> set[tuple[str, str]]:
    return {(noun.title.split()[-1], verb.title.split()[-1]) for noun in commands.tree().below for verb in noun.below}


def typed(text: str) -> list[tuple[str, str]]:
    """(noun, verb) of each command that a text names; each exists."""
    found = re.findall(r"seedship (?:--data \S+ )?([a-z]+) ([a-z-]+)", text)
    assert set(found) <= known(), set(found) - known()
    return found


@pytest.mark.parametrize("step", get_args(Step))
def test_what_is_not_retried_names_the_command_that_does(step: Step) -> None:
    """Whatever fails with whatever error: it is retried truly, or a command is named that exists."""
    states = {"seed": "seeding", "switchover": "switching-over", "import": "importing"}
    wishes: dict[str, dict[str, Any]] = {
        "ship": {"on_drives": DriveAssignment("s" * 32, ("/d",))},
        "verify": {"verify": True},
        "seed": {"drives": ("/d",)},
    }
    row = store.Replication("r" * 32, "source", "p" * 32, "u", "vm", states.get(step, "in-sync"), "a" * 32, 1, 5, "{}")
    for code, kind in errors.by_code().items():
        if "." not in code:
            continue
        error = kind(**{name: 1 if name in _NUMBERS else "vm" for name in _fields(kind)})
        document: Any = there(arrived=("/d",)) if step in _THERE else here(**wishes.get(step, {}))
        after = problems.after(row, document, step, error, 100.0)
        assert after.problem.since == 100.0
        if after.problem.retry:
            assert error.retry or step not in REPEAT_COMMANDS or next_step(row, after) == step
        else:
            assert next_step(row, after) != step
            assert typed(after.problem.remedy)
        again = problems.after(row, after, step, error, 200.0)
        assert again.problem.since == 100.0  # it is still the same problem


_NUMBERS = (
    "held",
    "offered",
    "count",
    "now",
    "before",
    "needed",
    "free",
    "seconds",
    "limit",
    "epoch",
)
_THERE = ("import", "close", "apply", "settle", "clean", "adopt")


def _fields(kind: type[SeedshipError]) -> list[str]:
    return [field.name for field in dataclasses.fields(kind)]


def test_the_alarm_of_two_copies_stays() -> None:
    alarm = Problem("fence", "order.fenced", "two copies ran", "Look", True)
    row = store.Replication("r" * 32, "source", "p" * 32, "u", "vm", "done", "a" * 32, 1, 5, "{}")
    document = here(fenced=FencingRecord(2), problem=alarm)
    after = problems.after(row, document, "fence", errors.HypervisorUnreachable("x", "y"), 1.0)
    assert after.problem == alarm


@pytest.mark.parametrize(("state", "since", "still"), [
    ("in-sync", 100.0, True), ("in-sync", 960.0, False), ("catching-up", 100.0, False), ("in-sync", 0.0, False),
])  # fmt: skip
def test_in_sync_is_not_said_while_rounds_fail(state: str, since: float, still: bool) -> None:
    problem = Problem("epoch", "hypervisor.failed", "no", "", True, since)
    row = store.Replication("r" * 32, "source", "p" * 32, "u", "vm", state, "a" * 32, 1, 5, "{}")
    assert problems.stands_still(row, here(spec=ReplicationSpec(interval=15.0), problem=problem), 1000.0) is still
    other = msgspec.structs.replace(problem, step="switchover", retry=False)
    assert not problems.stands_still(row, here(problem=other), 1000.0)


# What an operator may do ------------------------------------------------------------------------------


def test_to_decline_twice_is_an_error(alone: Context) -> None:
    document = here(handover=SourceHandover(AttemptId("f" * 32), Generation(1)), order=Order(), begun=True)
    name = add(alone, "switching-over", document)
    orders.decline_order(alone.replications, alone.interrupts, name)
    with pytest.raises(Conflict, match="is being undone already") as caught:
        orders.decline_order(alone.replications, alone.interrupts, name)
    (watch,) = person.printed(caught.value.advice())
    assert watch.startswith("seedship replication watch ")  # Nothing failed: there is nothing to retry.


@pytest.mark.remedy("workflows.switchover.orders.decline_order: seedship replication retry …")
def test_to_decline_what_cannot_be_undone_yet_says_what_is_in_its_way(alone: Context) -> None:
    """As with an overlay that cannot be merged back: it said 0, and nothing changed."""
    why = Problem("switchover", "hypervisor.failed", "block-commit: Need a root block node", "Free it", True)
    document = here(
        handover=SourceHandover(AttemptId("f" * 32), Generation(1), "abandoned"),
        begun=True,
        problem=why,
        cause=Cause("hypervisor.migration-failed", {"name": "vm", "why": "the WAN is gone"}),
    )
    name = add(alone, "switching-over", document)
    with pytest.raises(Conflict, match="Need a root block node") as caught:
        orders.decline_order(alone.replications, alone.interrupts, name)
    (retry,) = person.printed(caught.value.advice())
    person.at(alone).works(retry)


def test_an_undone_attempt_says_why_it_failed(alone: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cause outlives tries at undoing it that fail, and a restart of the daemon between them."""
    name = add(alone, "switching-over", here(handover=SourceHandover(AttemptId("f" * 32), Generation(1)), begun=True))
    away = errors.HypervisorUnreachable("qemu:///system", "it was killed")
    monkeypatch.setattr(switchover.hypervisor, "abandon_migration", lambda *_: None)
    monkeypatch.setattr(switchover.hypervisor, "await_save", lambda *_: None)

    def state(*_: object) -> str:
        raise away

    monkeypatch.setattr(switchover.hypervisor, "state", state)
    with pytest.raises(errors.HypervisorUnreachable):
        switchover._decide(alone, name, errors.MigrationFailed("vm", "the stream broke off"), begun=True)
    monkeypatch.setattr(switchover.hypervisor, "state", lambda *_: "running")
    for part in ("set_clock", "recover"):
        monkeypatch.setattr(switchover.hypervisor, part, lambda *_: None)
    monkeypatch.setattr(switchover, "commit_back", lambda *_: None)
    monkeypatch.setattr(switchover, "clear_leftovers", lambda *_: None)
    switchover.switch_over(alone, name)
    row, document = alone.replications.source(name)
    assert row.state == "catching-up"
    assert document.problem is not None
    assert "the stream broke off" in document.problem.message
    assert not document.problem.retry
    assert f"seedship replication switchover {row.vm_name}" in document.problem.remedy
    (undone,) = [e.data for e in alone.catalog.events.oldest(name) if e.kind == "switchover-undone"]
    assert "the stream broke off" in undone["why"]


def test_retry(alone: Context) -> None:
    told, desk = operator(alone)
    parked = Problem("seed", "media.drive-failed", "gone", "Name another", False)
    name = add(alone, "seeding", here(drives=("/d",), stopped=True, problem=parked))
    desk.replications.retry(name)
    assert next_step(*alone.replications.source(name)) == "seed"
    with pytest.raises(Conflict, match="nothing of it failed"):
        desk.replications.retry(add(alone, "in-sync", here()))
    lost = Problem("import", "media.drive-failed", "gone", "seedship shipment import PATH...", False)
    with pytest.raises(Conflict) as caught:
        desk.replications.retry(add(alone, "importing", there(problem=lost)))
    assert "seedship shipment import" in caught.value.advice()
    failing = Problem("epoch", "hypervisor.failed", "no", "", True)
    name = add(alone, "in-sync", here(problem=failing))
    desk.replications.retry(name)
    assert told.hurried[-1] == name


@pytest.mark.parametrize("state", lifecycle.LIVE)
def test_a_destination_whose_source_is_lost(alone: Context, state: str) -> None:
    (_, desk), name = operator(alone), add(alone, state, there())
    row = alone.catalog.replications.get(name)
    with pytest.raises(Conflict) as caught:
        desk.replications.abort(name)
    assert f"--confirm-source-lost {row.vm_name}" in caught.value.advice()
    with pytest.raises(errors.InvalidRequest):
        desk.replications.abort(name, "another")
    assert alone.catalog.replications.get(name).state == state
    desk.replications.abort(name, row.vm_name)
    assert alone.catalog.replications.get(name).state == "aborted"
    assert next_step(*alone.replications.destination(name)) == "clean"


# Walks ------------------------------------------------------------------------------------------------

FAILURES = (
    errors.PeerUnreachable("there", "no route"), errors.HypervisorFailed("vm", "no"), errors.DriveFailed("/d", "gone"),
    errors.HypervisorUnreachable("uri", "gone"), errors.LinkPaused("there"), errors.OutcomeUnknown("it", "?"),
    errors.PreflightFailed("vm", "a lock"), errors.Conflict("it", "differs"), errors.MigrationFailed("vm", "no"),
)  # fmt: skip
ACTS = (
    "go",
    "fail",
    "hold",
    "resume",
    "verify",
    "order",
    "order-held",
    "approve",
    "decline",
    "abort",
    "retry",
    "import",
    "lose",
)


class Walk:
    """One replication's source side."""

    def __init__(self, site: Context, monkeypatch: pytest.MonkeyPatch) -> None:
        self.site, (_, self.desk) = site, operator(site)
        self.name = add(site, "requested", here(drives=("/d",)))
        self.failing: SeedshipError | None = None
        for step in get_args(Step):
            monkeypatch.setitem(steps._STEPS, step, self._played(step))

    def _played(self, step: str) -> Any:
        def play(site: Context, replication: str) -> None:
            if self.failing is not None and step != "switchover":
                raise self.failing
            getattr(self, "_" + step.replace("-", "_"))(step)

        return play

    @property
    def state(self) -> str:
        return self.site.catalog.replications.get(self.name).state

    def change(self, event: Any = None, **changes: Any) -> None:
        self.site.replications.change_source(self.name, lambda d: msgspec.structs.replace(d, **changes), event=event)

    def _check(self, _: str) -> None:
        self.change("checked", problem=None)

    def _seed(self, _: str) -> None:
        self.change("seed-started")
        self.change("seed-finished", problem=None)

    def _epoch(self, _: str) -> None:
        self.change({"catching-up": "within-threshold"}.get(self.state), problem=None)

    def _ship(self, _: str) -> None:
        self.change(on_drives=None, problem=None)

    def _verify(self, _: str) -> None:
        self.change(verify=False, verified=True)

    def _abort(self, _: str) -> None:
        self.change("aborted", clean=True, problem=None)

    def _switchover(self, _: str) -> None:
        """As the real one: whatever fails before the record leads to an end of the attempt, or to another try at that."""
        document = self.site.replications.source(self.name)[1]
        if document.is_declined:
            error: SeedshipError = errors.SwitchoverDeclined("vm")
        elif self.failing is not None:
            error = self.failing
        else:
            self.change("switched-over", clean=True, problem=None)
            return
        if self.failing is not None and document.switching is not None and document.switching.cause is None:
            cause = Cause.of(error)
            self.site.replications.change_source(self.name, lambda d: d.with_attempt(begun=True, cause=cause))
            raise self.failing  # what has to be undone cannot be, yet
        switchover._end_attempt(self.site.replications, self.name, error, lambda d: d)

    def due(self) -> Step | None:
        return next_step(*self.site.replications.source(self.name))

    def go(self) -> None:
        step = self.due()
        if step is not None:
            try:
                steps.run(self.site, self.name, step)
            except SeedshipError:
                assert self.failing is not None
        row, document = self.site.replications.source(self.name)
        orders.tend_order(self.site.replications, row, document)

    def act(self, what: str, error: SeedshipError) -> None:
        self.failing = error if what == "fail" else None
        try:
            match what:
                case "go" | "fail":
                    self.go()
                case "hold" | "resume":
                    self.desk.replications.hold(self.name, what == "hold")
                case "verify":
                    self.desk.replications.verify(self.name)
                case "order" | "order-held":
                    self.desk.switchovers.order(self.name, Order(hold=what == "order-held", force=True))
                case "approve" | "decline":
                    getattr(self.desk.switchovers, what)(self.name)
                case "abort" | "retry":
                    getattr(self.desk.replications, what)(self.name)
                case "import" if self.state == "shipped":
                    self.change("seed-closed")
                case "lose":
                    self.change(
                        on_drives=DriveAssignment("s" * 32, ("/d",)) if self.state in lifecycle.ROUNDS else None
                    )
        except Conflict:
            pass  # an operator may not do that now
        self.failing = None

    def honest(self) -> None:
        """What the problem says is so."""
        row, document = self.site.replications.source(self.name)
        problem, due = document.problem, next_step(row, document)
        if problem is not None and not problem.retry:
            assert due != problem.step
            assert typed(problem.remedy)
        if problem is not None and problem.retry and row.state not in lifecycle.ENDED:
            assert due is not None or document.spec.hold, (row.state, problem)
        if due is None and row.state not in lifecycle.ENDED:
            assert document.spec.hold or document.seed.stopped or not document.seed.drives, row.state

    def end(self) -> None:
        """The faults are over, and the operator wants an end."""
        if self.state == "switching-over":
            self.act("decline", FAILURES[0])  # or it is being undone already
            for _ in range(3):
                self.go()
        if self.state not in lifecycle.ENDED:
            self.desk.replications.abort(self.name)
            for _ in range(3):
                self.go()
        row, document = self.site.replications.source(self.name)
        assert row.state in lifecycle.ENDED
        assert document.clean
        self.desk.replications.forget(self.name)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from(ACTS), st.sampled_from(FAILURES)), max_size=25))
def test_from_everywhere_there_is_a_clean_end(alone: Context, acts: list[tuple[str, SeedshipError]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        walk = Walk(alone, patch)
        for what, error in acts:
            walk.act(what, error)
            walk.honest()
        walk.end()


def test_the_walk_comes_everywhere(alone: Context) -> None:
    """A walk that met no state but the first ones would show nothing."""
    with pytest.MonkeyPatch.context() as patch:
        walk = Walk(alone, patch)
        seen = {walk.state}
        for what in (
            "go",
            "go",
            "import",
            "go",
            "order-held",
            "go",
            "approve",
            "go",
            "fail",
            "fail",
            "go",
            "order",
            "go",
        ):
            walk.act(what, FAILURES[1])
            walk.honest()
            seen.add(walk.state)
        assert {
            "requested",
            "checked",
            "shipped",
            "catching-up",
            "in-sync",
            "switching-over",
        } <= seen
        walk.end()
