# SPDX-License-Identifier: Apache-2.0
"""Debian's ``qemu-guest-agent`` in a guest with ext4, and the lab's own agent, which plays it in the other journeys.

The first tests are a contract: what seedship takes for granted of an agent holds with both.
"""

import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import agent_guest
from agent_guest import AgentGuest, agent_plan
from seedship import clock
from seedship.client import SiteClient
from seedship.errors import HypervisorFailed
from seedship.hypervisor import FreezeGuard, Host, agent, domains, freeze_guard, freeze_process, guestclock
from seedship.lab import Guest, Journey, Lab, Watch
from seedship.lab.place import CACHE
from support import events, held, plan, same, sweep, travelled

pytestmark = [pytest.mark.libvirt, pytest.mark.timeout(900)]
LIMIT_S = 2.0
HOUR_S = 3600
NEWEST = 5
"""Recovery points that are examined."""


@dataclass(frozen=True)
class Agent:
    """A running guest with an agent."""

    guest: Guest
    watch: Watch
    host: Host

    @property
    def vm(self) -> str:
        return self.guest.plan.uuid

    @property
    def real(self) -> bool:
        return isinstance(self.guest, AgentGuest)

    def ask(self, name: str, **arguments: object) -> Any:
        with self.host.calling(self.vm) as domain:
            return agent.command(domain, name, 5, **arguments)

    def insist_refused(self, name: str, **arguments: object) -> None:
        """The agent itself refuses, and the text is one of those that mean so (``freeze_process``)."""
        with pytest.raises(HypervisorFailed) as caught:
            self.ask(name, **arguments)
        assert freeze_process._REFUSED in str(caught.value)

    def gap(self, begun: float) -> float:
        """The longest time without a number since a moment."""
        times = [at for at, _ in self.watch.ticks()]
        return max(b - a for a, b in itertools.pairwise(times) if b > begun)

    def said(self, word: str) -> int:
        return sum(word in line for _, line in list(self.watch.lines))

    def clock_is(self, expected: float) -> bool:
        """Whether the guest's clock was set to about this; the lab's own says only by how much it was behind."""
        if not isinstance(self.guest, AgentGuest):
            return self.said("clock behind=") > (abs(expected - time.time()) < HOUR_S / 4)
        self.guest.command("clock")
        shown = [int(line.split()[1]) for _, line in list(self.watch.lines) if line.startswith("clock ")]
        return bool(shown) and abs(shown[-1] - expected) < HOUR_S / 4


@pytest.fixture(scope="module", params=[pytest.param("lab", marks=pytest.mark.slow), "debian"])
def running(whole_lab: Lab, request: pytest.FixtureRequest) -> Iterator[Agent]:
    a = whole_lab.a
    guest = AgentGuest(a, agent_plan(), CACHE) if request.param == "debian" else Guest(a, plan(agent=True), CACHE)
    made = Journey(whole_lab, guest.plan)
    made.guest = guest
    try:
        made.start()
        yield Agent(guest, made.here, Host(a.uri))
    finally:
        sweep(made)


@pytest.fixture
def guard(running: Agent, tmp_path: Path) -> FreezeGuard:
    return FreezeGuard(running.host, tmp_path)


def until(guard: FreezeGuard, note: Path) -> float:
    """Let the daemon's controller come again and again until the thaw is confirmed; returns the seconds it took."""
    begun = clock.monotonic()

    def confirmed() -> bool:
        guard.recover()
        return not note.exists()

    clock.wait_until(confirmed, 60, "a confirmed thaw")
    return clock.monotonic() - begun


def test_file_systems_are_frozen_and_for_no_longer_than_the_limit(
    running: Agent, guard: FreezeGuard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody asks for the thaw: the process that froze does it at the limit, and says that it did."""
    with guard.frozen(running.vm) as freeze:
        pass
    assert freeze.why_not == ""
    running.watch.more(3)
    monkeypatch.setattr(freeze_guard, "_LIMIT_S", LIMIT_S)
    begun = running.watch.ticks()[-1][0]
    with guard.frozen(running.vm) as freeze:
        running.watch.more(3)
    assert freeze.why_not == "it took too long"
    assert running.gap(begun) > LIMIT_S * 0.9


def test_an_agent_in_frozen_state_refuses_what_would_be_no_cut_of_ours(running: Agent, guard: FreezeGuard) -> None:
    """Another tool has frozen the file systems: they are its own to thaw, and no cut passes for one of frozen ones."""
    assert running.ask("guest-fsfreeze-freeze") > 0
    running.insist_refused("guest-fsfreeze-freeze")
    running.insist_refused("guest-set-time", time=int(time.time() * 1e9))
    last = running.watch.last
    with guard.frozen(running.vm) as freeze:
        pass
    # Words of the agent of QEMU 7 and of QEMU 10.
    assert "frozen state" in freeze.why_not or "command is not allowed" in freeze.why_not
    assert running.watch.last == last
    assert running.ask("guest-fsfreeze-thaw") > 0
    assert running.ask("guest-fsfreeze-thaw") == 0
    running.watch.more(3)


def test_the_clock_is_set(running: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    for ahead in (HOUR_S, 0):
        wanted = datetime.now(UTC) + timedelta(seconds=ahead)
        monkeypatch.setattr(clock, "now", lambda wanted=wanted: wanted)
        assert guestclock.set_clock(running.host, running.vm, 20)
        clock.wait_until(lambda wanted=wanted: running.clock_is(wanted.timestamp()), 20, "the guest to say so")  # type: ignore[misc]


def test_an_agent_that_is_killed_thaws_when_it_runs_again(running: Agent, guard: FreezeGuard, tmp_path: Path) -> None:
    """It begins in the state in which it ended (its file below /var/run), and nothing but the thaw is allowed."""
    real(running)
    assert running.ask("guest-fsfreeze-freeze") > 0
    guest(running).command("kill")
    clock.wait_until(lambda: running.said("exited with frozen filesystems") > 0, 60, "the agent to run again")
    last = running.watch.last
    (tmp_path / running.vm).touch()  # as a daemon that was killed meanwhile
    until(guard, tmp_path / running.vm)
    assert running.watch.more(3) > last


@pytest.mark.slow
@pytest.mark.parametrize("how", ["stopped", "slow-hook"])
def test_an_agent_that_freezes_late_is_thawed(running: Agent, guard: FreezeGuard, tmp_path: Path, how: str) -> None:
    """It was asked, and had no time: it freezes when nobody waits for it. It costs one time limit."""
    real(running)
    froze, thawed = running.said("hook freeze"), running.said("hook thaw")
    guest(running).command(*(["stop"] if how == "stopped" else ["slow", 14]))
    begun = clock.monotonic()
    with guard.frozen(running.vm) as freeze:
        pass
    assert "not responding" in freeze.why_not
    assert clock.monotonic() - begun < 20
    begun = clock.monotonic()
    with guard.frozen(running.vm) as freeze:
        pass
    assert freeze.why_not == "its agent has not confirmed the last thaw"
    assert clock.monotonic() - begun < 1
    if how == "stopped":
        guest(running).command("continue")
    until(guard, tmp_path / running.vm)
    assert running.said("hook freeze") == froze + 1
    assert running.said("hook thaw") > thawed
    running.watch.more(3)


def test_the_guest_shuts_down(running: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the agent, where it can; by the power button where it reports no error and does nothing, as the lab's."""
    monkeypatch.setattr(domains, "_AGENT_S", 20 if running.real else 2)
    assert domains.shut_down(running.host, running.vm, 60)
    if running.real:
        clock.wait_until(lambda: running.said("agent shuts down") > 0, 20, "the console")
        assert running.said("power button") == 0


def real(running: Agent) -> None:
    if not running.real:
        pytest.skip("the lab's own agent cannot be stopped or killed: it is the writer")


def guest(running: Agent) -> AgentGuest:
    assert isinstance(running.guest, AgentGuest)
    return running.guest


@pytest.mark.slow
def test_cuts_of_a_debian_guest_are_clean(lab: Lab, tmp_path: Path) -> None:
    """Each recovery point has ext4 without anything to recover, and files that the hook made to agree.

    A journal is empty, and its file system marked so, by a freeze (ext4_freeze): after a power cut it is not.
    """
    a = lab.a
    made = Journey(lab, agent_plan())
    made.guest = AgentGuest(a, made.plan, CACHE)
    try:
        with agent_guest.allowed(lab, CACHE):
            travelled(made, "--retention", "30")
            several_rounds(made)
            assert said(made, "hook freeze") == 0
            assert any(not clean for point in points(made, NEWEST) for _, clean in point)
            a.seedship("replication", "set", made.id, "--quiesce")
            several_rounds(made)
            assert said(made, "hook freeze") >= NEWEST
            for first, second in points(made, NEWEST):
                assert first == second, "the hook made the files agree"
                assert first[1], "the file system is clean"
                assert first[0] > 0
            killed_while_frozen(made, tmp_path)
            assert same(made)
    finally:
        sweep(made)


def several_rounds(made: Journey) -> None:
    """Rounds of which the newest were all begun after this was called, and are what was asked for."""
    made.until(made.lab.a, rounds=made.show(made.lab.a)["rounds"] + NEWEST + 2)
    assert events(made, made.lab.a, "not-quiesced") == []


def points(made: Journey, count: int) -> list[list[tuple[int, bool]]]:
    """What the newest recovery points hold: the number on each disk, and whether its file system is clean."""
    newest, found = made.show(made.lab.b)["epoch"], []
    with SiteClient(made.lab.b.data) as client:
        for epoch in range(newest - count, newest):
            opened = client.post("replications", made.id, "points", "open", epoch=epoch)
            try:
                found.append(agent_guest.numbers(opened["sockets"]))
            finally:
                client.post("replications", made.id, "points", "close", epoch=epoch)
    return found


def killed_while_frozen(made: Journey, folder: Path) -> None:
    """The daemon is killed while the guest's file systems are frozen: they are thawed within the limit."""
    a = made.lab.a
    a.kill_daemon()
    a.start_daemon({"SEEDSHIP_FAILPOINTS": "quiesce.frozen=once-hold", "SEEDSHIP_FAILPOINTS_ONCE": str(folder)})
    held(folder, "quiesce.frozen")
    thawed = said(made, "hook thaw")
    begun = clock.monotonic()
    a.kill_daemon()
    clock.wait_until(lambda: said(made, "hook thaw") > thawed, 30, "the thaw")
    assert clock.monotonic() - begun < freeze_guard._LIMIT_S + 5
    made.here.more(5)
    a.start_daemon()
    made.until(a, rounds=made.show(a)["rounds"] + 2, patient=True)


def said(made: Journey, word: str) -> int:
    return sum(word in line for _, line in list(made.here.lines))
