# SPDX-License-Identifier: Apache-2.0
"""What is said about peers, invitations and rates: the remedy is run as it is printed, and clears it."""

import io
import json
import shlex
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from paired import Pair
from person import Person, printed
from seedship import clock


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """A pair of its own: the sites part here."""
    with ExitStack() as stack:
        yield Pair(tmp_path_factory.mktemp("other"), stack, 4)


def pasted(site: Person, command: str, text: str, monkeypatch: pytest.MonkeyPatch) -> tuple[int, str, str]:
    """Run a command that reads what somebody pastes."""
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    return site.run(command)


@pytest.mark.remedy(
    "cli.pairing.join: seedship peer join",
    "cli.pairing.join: seedship depot join",
    "link.client.join: seedship peer join",
    "link.client.join: seedship depot join",
)
def test_an_invitation_is_pasted_where_it_belongs(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not on the command line, which others see, and not at the command for the other kind of invitation."""
    code = {
        "peer": pair.b.json("seedship peer invite")["invitation"],
        "depot": pair.b.json(f"seedship depot invite --folder {shlex.quote(str(pair.folder))}")["invitation"],
    }
    for noun, unlike in (("depot", "peer"), ("peer", "depot")):
        refusal = pair.a.refused(f"seedship {noun} join {code[noun]}")
        join, *_ = printed(refusal["remedy"]) or printed(refusal["message"])
        assert join == f"seedship {noun} join"
        status, _, said = pasted(pair.a, f"{join} -o json", code[unlike], monkeypatch)
        assert status != 0
        (right,) = [command for command in printed(json.loads(said.splitlines()[-1])["message"]) if "join" in command]
        status, _, said = pasted(pair.a, right, code[unlike], monkeypatch)
        assert status == 0 or "paired already" in said, said


@pytest.mark.remedy("errors.peer.LinkPaused: seedship peer set NAME --schedule SCHEDULE")
def test_a_schedule_that_pauses_is_changed(other: Pair) -> None:
    vm = other.adopted()
    other.a.works("seedship peer set b --schedule 'mon-sun 00:00-24:00 pause'")
    remedy = other.a.problem(vm, "peer.paused")["remedy"]
    _, change = printed(remedy)
    other.a.works(change.replace("NAME", "b").replace("SCHEDULE", "''"))
    clock.wait_until(lambda: other.a.show(vm)["problem"] is None, 60, "the next round", 0.05)


@pytest.mark.remedy("service.peers.Peers.remove: seedship replication abort VM")
def test_a_peer_is_deleted_when_its_replications_have_ended(other: Pair) -> None:
    vms = [other.adopted(), other.checked()]
    delete = "seedship peer delete b"
    refusal = other.a.refused(delete)
    (abort,) = printed(refusal["remedy"])
    live = refusal["message"].rpartition(": ")[2].split(", ")
    assert set(vms) <= set(live)
    for vm in live:
        other.a.works(abort.replace("VM", vm))
    clock.wait_until(lambda: other.a.run(delete)[0] == 0, 60, "the end of all", 0.1)


@pytest.mark.remedy("errors.peer.PeerUntrusted: seedship peer invite", "errors.peer.PeerUntrusted: seedship peer join")
def test_a_site_that_was_deleted_there_is_paired_again(other: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the error says: the other site deleted this one, whose administrator finds out by a request."""
    if not other.a.json("seedship peer list"):
        invitation = other.b.json("seedship peer invite")["invitation"]
        assert pasted(other.a, "seedship peer join", invitation, monkeypatch)[0] == 0
    check = f"seedship vm check {other.vm()} --to b"
    other.a.works(check)
    other.b.works("seedship peer delete a")
    refusal = other.a.refused(check)
    assert (refusal["code"], refusal["fields"]["peer"]) == ("peer.untrusted", "b")
    invite, join = printed(refusal["remedy"])
    assert pasted(other.a, join, other.b.json(invite)["invitation"], monkeypatch)[0] == 0
    other.a.works(check)
