# SPDX-License-Identifier: Apache-2.0
"""Remedies of a site's errors: in each situation the command fails, its remedy is run as it is printed, and it works."""

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from alone import PASSWORD, Alone
from person import Person
from seedship import cli, clock, drives, link


class Shell:
    """A person who types what the site says."""

    def __init__(self, alone: Alone, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.site, self._monkeypatch, self._capsys = alone, monkeypatch, capsys

    def run(self, command: str) -> tuple[int, str, str]:
        """Exit code, standard output and standard error. Commands of seedship run in this process, which is faster."""
        words = shlex.split(command)
        if words[0] != "seedship":
            done = subprocess.run(["sh", "-c", command], capture_output=True, text=True)
            return done.returncode, done.stdout, done.stderr
        self._monkeypatch.setattr(sys, "argv", ["seedship", "--data", str(self.site.data), *words[1:]])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, errors = self._capsys.readouterr()
        return int(ended.value.code or 0), out, errors

    def refused(self, command: str) -> dict[str, Any]:
        code, out, errors = self.run(f"{command} -o json")
        assert code != 0, out
        return dict(json.loads(errors.strip().splitlines()[-1]))

    def works(self, command: str) -> str:
        code, out, errors = self.run(command)
        assert code == 0, (command, errors)
        return out


@pytest.fixture
def shell(alone: Alone, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(alone, monkeypatch, capsys)


@pytest.fixture
def drive(make_drive: Callable[[], Any], tmp_path: Path) -> Iterator[Path]:
    made = make_drive()
    yield made.mount(tmp_path / "it's a drive")
    made.unmount("--lazy")


def commands(remedy: str) -> list[str]:
    return re.findall(r"`([^`]+)`", remedy)


@pytest.mark.loop
@pytest.mark.remedy(
    "drives.folder.Folder._named: mount -o remount,rw …",
    "drives.volume._label: seedship drive init …",
)
def test_drives(shell: Shell, drive: Path) -> None:
    """One that was never prepared, one that is mounted read-only, and a folder where none is mounted."""
    quoted = shlex.quote(str(drive))
    subprocess.run(["mount", "-o", "remount,ro", drive], check=True)
    refusal = shell.refused(f"seedship drive init {quoted}")
    assert (refusal["code"], "Read-only" in refusal["message"]) == ("media.not-a-drive", True)
    (remount,) = commands(refusal["remedy"])
    shell.works(remount)

    refusal = shell.refused(f"seedship vm estimate test --drive {quoted}")
    assert "no label" in refusal["message"]
    init, _ = commands(refusal["remedy"])
    shell.works(init)
    shell.works(f"seedship vm estimate test --drive {quoted}")
    assert str(drive) in shell.works("seedship drive list --quiet").splitlines()

    bare = drive.parent / "bare"
    bare.mkdir()
    refusal = shell.refused(f"seedship drive init {bare}")
    assert "no file system is mounted there" in refusal["message"]
    (look,) = commands(refusal["remedy"])
    assert drive.name.split()[0] in shell.works(look)


def test_what_is_not_there_is_listed(shell: Shell) -> None:
    for noun in ("replication", "peer", "shipment", "clone", "group", "storage", "user", "token", "operation"):
        verb = "delete" if noun in ("peer", "clone", "storage", "user", "token") else "show"
        confirm = " --confirm nothing" if noun == "storage" else ""
        refusal = shell.refused(f"seedship {noun} {verb} nothing{confirm}")
        assert refusal["code"] == "request.not-found", refusal
        (listing,) = commands(refusal["remedy"])
        assert listing == f"seedship {noun} list"
        shell.works(listing)
    refusal = shell.refused("seedship vm check nothing --to nowhere")
    (listing,) = commands(refusal["remedy"])
    assert "test" in shell.works(listing)


@pytest.mark.remedy("errors.site.SiteMissing: seedship --data … site init --name NAME")
def test_a_site_that_is_not_there(shell: Shell, tmp_path: Path) -> None:
    elsewhere = tmp_path / "another site's data"
    refusal = shell.refused(f"seedship --data {shlex.quote(str(elsewhere))} site serve")
    assert refusal["code"] == "site.missing"
    (init,) = commands(refusal["remedy"])
    shell.works(init.replace("NAME", "another"))
    assert (elsewhere / "site.toml").exists()


def test_names_of_sites_and_groups(shell: Shell, tmp_path: Path) -> None:
    """A site's name is part of paths such as NAME:/mnt/d1; a group's is any line that a URL can carry."""
    elsewhere = shlex.quote(str(tmp_path / "new"))
    for name in ("R&D", " a", "", "x" * 65, ".a"):
        code, _, said = shell.run(f"seedship --data {elsewhere} site init --name {shlex.quote(name)}")
        assert (code, "--name: " in said, "A-Z, a-z, 0-9" in said) == (3, True, True), said
        assert not (tmp_path / "new").exists()
    for name in ("R&D's shop", " ä 東京", "0" * 32, "50% <b>?#"):
        refusal = shell.refused(f"seedship group create {shlex.quote(name)} vm1 vm2")
        assert (refusal["code"], refusal["fields"]["kind"]) == ("request.not-found", "replication")
        refusal = shell.refused(f"seedship group show {shlex.quote(name)}")
        assert (refusal["code"], refusal["fields"]["name"]) == ("request.not-found", name)
    for name in ("a/b", "two\nlines", "..", " ", "x" * 65):
        assert shell.refused(f"seedship group create {shlex.quote(name)} vm1 vm2")["code"] == "request.invalid"


def test_a_command_line_that_cannot_be_parsed(shell: Shell) -> None:
    refusal = shell.refused("seedship drive init")
    assert refusal["code"] == "request.usage"
    (help_,) = commands(refusal["remedy"])
    assert "drive init" in shell.works(help_.replace("NOUN VERB", "drive init"))


@pytest.mark.loop
@pytest.mark.remedy("drives.volume._in_use: seedship drive erase …")
def test_a_drive_that_carries_a_shipment(shell: Shell, drive: Path) -> None:
    """It is shown, and used again once it was erased; `init` alone never takes it."""
    quoted = shlex.quote(str(drive))
    shell.works(f"seedship drive init {quoted}")
    identity = link.load_or_create(shell.site.data / "identity", "alone")
    volume = drives.Folder(drive)
    drives.assign(volume, "5b" * 16, 1, identity.site, identity.signing_private)
    volume.close()
    refusal = shell.refused(f"seedship drive init {quoted}")
    assert (refusal["code"], "5b5b5b5b" in refusal["message"]) == ("media.not-a-drive", True)
    show, erase = commands(refusal["remedy"])
    assert "5b5b5b5b" in shell.works(show)
    shell.works(erase)
    shell.works(f"seedship drive init {quoted}")


@pytest.mark.remedy(
    "errors.peer.InvitationInvalid: seedship peer invite",
    "errors.peer.InvitationInvalid: seedship depot invite --folder PATH",
)
def test_an_invitation_that_is_none(shell: Shell, tmp_path: Path) -> None:
    file = tmp_path / "invitation"
    file.write_text("nonsense")
    refusal = shell.refused(f"seedship peer join --code-file {file}")
    assert refusal["code"] == "peer.invitation-invalid"
    peer, depot = commands(refusal["remedy"])
    for command in (peer, depot.replace("PATH", str(tmp_path))):
        assert shell.works(f"{command} -o json")


@pytest.mark.remedy("errors.access.NotAuthenticated: seedship token create NAME --role operator")
def test_a_request_without_a_token(shell: Shell) -> None:
    with shell.site.tls() as client:
        refusal = client.get("/api/v1/drives").json()
        assert refusal["code"] == "access.unauthenticated"
        (create,) = commands(refusal["remedy"])
        token = json.loads(shell.works(f"{create.replace('NAME', 'of-a-remedy')} -o json"))["token"]
        client.headers["Authorization"] = f"Bearer {token}"
        assert client.get("/api/v1/drives").is_success


@pytest.mark.remedy("errors.access.Forbidden: seedship user set NAME --role operator")
def test_a_user_who_may_only_look(shell: Shell) -> None:
    shell.site.user("looker", "viewer")
    with shell.site.tls() as client:
        logged_in = client.post("/api/v1/session", json={"name": "looker", "password": PASSWORD})
        assert logged_in.is_success, logged_in.text
        headers = {"Origin": str(client.base_url).rstrip("/")}

        def release() -> dict[str, Any]:
            return dict(client.post("/api/v1/drives/release", json={"path": "/nowhere"}, headers=headers).json())

        refusal = release()
        assert refusal["code"] == "access.forbidden", refusal
        (set_,) = commands(refusal["remedy"])
        shell.works(set_.replace("NAME", "looker"))
        client.post("/api/v1/session", json={"name": "looker", "password": PASSWORD}).raise_for_status()
        assert release()["code"] != "access.forbidden"


@pytest.mark.remedy("errors.site.SiteUnreachable: seedship site serve")
def test_a_daemon_that_does_not_run(tmp_path: Path) -> None:
    site = Alone(tmp_path)
    person = Person(site.data)
    (_, serve) = commands(person.refused("seedship site show")["remedy"])
    assert serve.split()[0] == "seedship"
    daemon = subprocess.Popen([sys.executable, "-m", "seedship", "--data", str(site.data), *serve.split()[1:]])
    try:
        clock.wait_until(lambda: person.run("seedship site show")[0] == 0, 60, "the daemon", 0.2)
    finally:
        daemon.terminate()
        daemon.wait(60)
