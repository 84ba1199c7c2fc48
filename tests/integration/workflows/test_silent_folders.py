# SPDX-License-Identifier: Apache-2.0
"""A file server that does not answer holds up neither a peer's request nor what has nothing to do with it."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostile_peer import ring
from seedship import clock
from seedship.errors import FolderSilent
from seedship.runtime import answered
from silent import SilentFolder, silent_folder


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SilentFolder]:
    monkeypatch.setattr("seedship.runtime.answering.ANSWER_S", 1.0)
    with silent_folder(tmp_path / "server") as made:
        yield made


def test_calls_are_given_up_and_begin_again_when_the_server_answers(server: SilentFolder, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(server.path)
    assert answered(link, lambda: os.listdir(link)) == ["nbd"]
    with pytest.raises(FileNotFoundError):
        answered(server.path, lambda: os.listdir(server.path / "none"))
    server.stop()
    with pytest.raises(FolderSilent, match=str(server.path)):
        answered(link, lambda: os.listdir(link))
    began = clock.monotonic()
    for path in (link, link / "nbd", server.path / "nbd", tmp_path / "server/../server/nbd"):
        with pytest.raises(FolderSilent, match=str(server.path)):
            answered(path, path.stat)
        assert answered(tmp_path, lambda: sorted(os.listdir(tmp_path))) == ["link", "server"]
    assert clock.monotonic() - began < 1.0
    server.go_on()

    def again() -> bool:
        try:
            return answered(link, lambda: os.listdir(link)) == ["nbd"]
        except FolderSilent:
            return False

    clock.wait_until(again, 30, "the calls that were given up")


@pytest.mark.failure_mode(
    "The file server of the folder of replicas does not answer",
    "Requests of peers are refused after 10 s, with the folder's name; nothing else waits for it",
    "nothing",
)
@pytest.mark.parametrize("place", ["a further folder", "a pool"])
def test_a_request_is_refused_while_the_folder_of_images_does_not_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.setattr("seedship.runtime.answering.ANSWER_S", 1.0)
    storage = {"places": [str(tmp_path / "server")]} if place == "a further folder" else {"pool": "far"}
    with silent_folder(tmp_path / "server") as server, ring(tmp_path, storage=storage) as here:
        with here.site.host.calling() as host:
            pool = host.storagePoolDefineXML(
                f"<pool type='dir'><name>far</name><target><path>{server.path}</path></target></pool>", 0
            )
            pool.create(0)
        try:
            server.stop()
            asked = here.request()
            answer = here.call(here.evil, "Request", **asked)
            [silent] = [one for one in answer["findings"] if one["code"] == "there.storage-silent"]
            assert str(server.path) in silent["what"]
            assert "dmesg" in silent["clear"]
            assert here.site.catalog.replications.all() == []
            server.go_on()
            answer = here.call(here.evil, "Request", **asked)
            assert "there.storage-silent" not in [one["code"] for one in answer["findings"]]
        finally:
            pool.destroy()
            pool.undefine()
