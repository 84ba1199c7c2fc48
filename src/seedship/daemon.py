# SPDX-License-Identifier: Apache-2.0
"""The site's daemon: link, workflows and API in one process, from start to an orderly end."""

from __future__ import annotations

import asyncio
import fcntl
import functools
import logging
import os
import resource
import signal
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec

from seedship import api, config, failpoints, link, logs, paths
from seedship.access import Actor, Role
from seedship.errors import AlreadyUnderWay, Conflict, InsecureFile
from seedship.model import bounds
from seedship.observe import Doctor, Observatory, Parts, WebhookDispatcher
from seedship.observe.findings import summary
from seedship.service import PolicyController, Service
from seedship.store import Catalog
from seedship.workflows import Context, Engine, Reconciler, compose, messages
from seedship.workflows.control import receive_delivery
from seedship.workflows.maintenance import RESTORE_MARKER, report_to_restored_source, retention_controller
from seedship.workflows.protocol import (
    Leases,
    RpoMonitor,
    answer_repair_request,
    lent_drives,
    of_closing,
    of_source,
    record_ages,
)
from seedship.workflows.source import MemoryPointController, MirrorController, thaw_controller
from seedship.workflows.switchover import (
    ReplicaPages,
    answer_handover,
    connect_tunnel,
    prepare_incoming,
    trials_controller,
)
from seedship.workflows.target import (
    CloneController,
    PoolLists,
    accept_replication,
    adopted_hashes,
    answer_disks,
    answer_memory_point,
    answer_tap,
    close_epoch,
    close_in_steps,
    destination_status,
    keep_escrow,
    keep_page,
    replay_controller,
    replica_digests,
    replica_digests_part,
    replica_hashes,
    resolve_attempt,
    store_segment,
)

_THREADS = 64
log = logging.getLogger(__name__)


def make_types_ready() -> None:
    """Have msgspec work out all our types now, in one thread: it crashes where two are the first to use one (0.22)."""
    waiting = list(msgspec.Struct.__subclasses__())
    while waiting:
        kind = waiting.pop()
        waiting += kind.__subclasses__()
        if kind.__module__.startswith("seedship."):
            msgspec.msgpack.Decoder(kind)


def serve(data: Path) -> None:
    """Run until SIGTERM or SIGINT.

    Raises:
        SiteMissing: the folder was never set up. InvalidRequest: its configuration is wrong.
        InsecureFile: others could get at its keys and its API.
        Conflict: a daemon runs in it already.
    """
    settings = config.load(data)
    mode = data.stat().st_mode & 0o777
    if mode & 0o077:
        raise InsecureFile(str(data), f"{mode:o}")
    failpoints.load_environment()
    make_types_ready()
    logs.configure(settings.log.format)
    if (data / RESTORE_MARKER).exists():
        raise Conflict(f"The site in {data}", "was restored in part", "Repeat it: `seedship site restore FILE`")
    _allow_files()
    lock = os.open(data / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    _alone(data, lock)
    temporary = data / "tmp"  # ours alone, so that a killed daemon's files go with the next start
    paths.remove(temporary, data)
    temporary.mkdir(mode=0o700)
    tempfile.tempdir = str(temporary)
    asyncio.run(_serve(data, settings))


def examine(data: Path, *, repair: bool) -> dict[str, Any]:
    """What ``site doctor`` finds while no daemon runs, which is kept from starting meanwhile; as ``Service.examine``.

    Raises:
        as ``serve``.
    """
    settings = config.load(data)
    lock = os.open(data / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    try:
        _alone(data, lock)
        me = link.load_or_create(data / "identity", settings.name)
        book = link.PeerBook(data / "peers.json")
        context = compose(data, settings, me, book, _catalog(data), link.LinkSession(me, book, loop))
        thread.start()
        try:
            return summary(Doctor(context, None, WebhookDispatcher(context)).examine(repair=repair))
        finally:
            asyncio.run_coroutine_threadsafe(context.session.close(), loop).result(10)
            context.host.close()
            context.catalog.close()
    finally:
        os.close(lock)
        if thread.is_alive():
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
        loop.close()


def _catalog(data: Path) -> Catalog:
    return Catalog(f"sqlite:///{data / 'catalog.sqlite'}")


def _allow_files() -> None:
    """Raise the soft limit of file descriptors: connections of strangers are not to use them up."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = bounds.OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, bounds.OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _alone(data: Path, lock: int) -> None:
    """Hold the folder's lock; raises Conflict where a daemon has it."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise AlreadyUnderWay(f"The site in {data}", "has a running daemon", "Stop it first") from error


def begin_looking(context: Context, reconciler: Reconciler) -> None:
    """Start every controller that polls the catalog and does what is due."""
    reconciler.begin()
    context.controllers.start(
        replay_controller(context),
        MirrorController(context).controller(),
        CloneController(context).controller(),
        MemoryPointController(context).controller(),
        RpoMonitor(context).controller(),
        PoolLists(context).controller(),
        retention_controller(context),
        trials_controller(context),
        thaw_controller(context),
    )


async def _serve(data: Path, settings: config.Config) -> None:
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    me = link.load_or_create(data / "identity", settings.name)
    book = link.PeerBook(data / "peers.json")
    before, me = me, link.rotation.finish(data / "identity", me, book.everyone())
    # Pushed segments wait here for their journal's lock, several of each VM: calls must find a thread all the same.
    loop.set_default_executor(ThreadPoolExecutor(_THREADS, thread_name_prefix="call"))
    session = link.LinkSession(
        me,
        book,
        loop,
        limit=link.PeerLimit(settings.link.limit, settings.link.schedule),
        streams=settings.link.streams,
    )
    context = compose(data, settings, me, book, _catalog(data), session)
    leases = Leases()
    server = _server(context, leases)
    engine = Engine(data)
    reconciler = Reconciler(context, engine)
    service = Service(context, reconciler, server)
    app = api.build(service)
    if settings.api.listen:
        from seedship import console  # its libraries take a second to load

        console.mount(app, service)
    http = api.Listener(app, data, settings)
    service.backend.api = http.address
    await server.start()
    await asyncio.to_thread(engine.begin, reconciler.perform, reconciler.restore)
    begin_looking(context, reconciler)
    context.controllers.start(leases.controller())
    if me != before:
        context.session.show_certificate()
    observatory = Observatory(context, Parts(lambda: engine.alive, lambda: server.listening))
    service.observe(observatory)
    observatory.begin()
    automation = PolicyController(context, service.acting(Actor("automation", Role.OPERATOR, "system")))
    context.controllers.start(*automation.controllers())
    apart = api.serve_apart(api.watched(service), settings.observe.listen)
    listening = asyncio.create_task(http.serve())
    watched = asyncio.create_task(apart.serve())
    attending = asyncio.create_task(observatory.attend())
    log.info("site %s (%s) serves %s", me.name, me.site, settings.address)
    try:
        await ended.wait()
    finally:
        log.info("site %s ends", me.name)
        attending.cancel()
        http.end()
        apart.end()
        await asyncio.gather(listening, watched)
        await asyncio.to_thread(context.end)
        await asyncio.to_thread(engine.end)
        await server.stop()
        await context.session.close()
        context.host.close()
        context.catalog.close()


def _server(context: Context, leases: Leases) -> link.Server:
    handlers: dict[link.Method[Any, Any], Callable[..., Any]] = {
        messages.REQUEST: accept_replication,
        messages.CLOSE: of_closing(close_epoch),
        messages.CLOSE_PAGE: of_closing(keep_page),
        messages.CLOSE_STEP: of_closing(close_in_steps),
        messages.RESOLVE: of_source(resolve_attempt),
        messages.STATUS: of_source(destination_status),
        messages.STANDS: of_source(report_to_restored_source),
        messages.DIGESTS: of_source(replica_digests),
        messages.DIGESTS_PART: of_source(replica_digests_part),
        messages.HASHES: of_source(replica_hashes),
        messages.DISKS: of_source(answer_disks),
        messages.TAP: of_source(answer_tap),
        messages.AGES: record_ages,
        messages.MEMORY: of_source(answer_memory_point),
        messages.REPAIR: answer_repair_request,
        messages.ADOPTED: of_source(adopted_hashes),
        messages.PREPARE: of_source(prepare_incoming),
        messages.HANDOVER: of_source(answer_handover),
        messages.DELIVER: receive_delivery,
        messages.ESCROW: of_source(keep_escrow),
        messages.DRIVE: leases.answer,
        messages.LENT: lent_drives,
    }
    return link.Server(
        context.identity,
        context.peers,
        context.config.link.listen,
        {method: functools.partial(handler, context) for method, handler in handlers.items()},
        functools.partial(store_segment, context),
        functools.partial(connect_tunnel, context),
        functools.partial(ReplicaPages, context),
        advertised=context.config.address,
        traffic=context.session.traffic,
        reserved=lambda: tuple(context.config.accept.peers),
    )
