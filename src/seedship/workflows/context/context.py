# SPDX-License-Identifier: Apache-2.0
"""The parts of a site, composed once at start-up, for steps that need most of them.

Functions and controllers that need few parts take those instead.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path

from seedship import link, nbd, store
from seedship.config import Config
from seedship.hypervisor import FreezeGuard, Host, PauseGuard
from seedship.journal import Journal
from seedship.paths import Paths
from seedship.runtime import Controllers
from seedship.workflows.context.ages import EpochAges
from seedship.workflows.context.barrier import Barriers
from seedship.workflows.context.deliveries import Deliveries
from seedship.workflows.context.interrupts import Interrupts, Locks
from seedship.workflows.context.keyring import Keyring
from seedship.workflows.context.known import Known
from seedship.workflows.context.lanes import Lanes
from seedship.workflows.context.listing import Listing
from seedship.workflows.context.logins import Logins
from seedship.workflows.context.progress import RunningSteps
from seedship.workflows.context.replications import ReplicationStore
from seedship.workflows.context.samples import Samples
from seedship.workflows.context.tally import Tally
from seedship.workflows.context.volumes import Volumes


@dataclass(frozen=True, eq=False, kw_only=True)
class Context:
    """One site's parts; each is safe for many threads."""

    # Given.
    config: Config
    identity: link.Identity
    peers: link.PeerBook
    session: link.LinkSession
    catalog: store.Catalog
    # Durable state.
    paths: Paths
    replications: ReplicationStore
    known: Known
    """All replications, cached, for controllers that scan them again and again."""
    keys: Keyring
    journal: Journal
    volumes: Volumes
    # The hypervisor.
    host: Host
    pause_guard: PauseGuard
    freeze_guard: FreezeGuard
    # State of this process: worth nothing after a restart.
    stop: threading.Event
    """Set when the daemon ends."""
    wake: threading.Event
    """Set when the catalog may hold a step that is due."""
    controllers: Controllers
    interrupts: Interrupts
    locks: Locks
    barriers: Barriers
    lanes: Lanes
    progress: RunningSteps
    ages: EpochAges
    samples: Samples
    listing: Listing
    deliveries: Deliveries
    tally: Tally

    def end(self) -> None:
        """Ask everything to stop, and wait until the controllers have."""
        self.stop.set()
        self.interrupts.interrupt_all()
        self.wake.set()
        self.controllers.stop()
        nbd.remote.withdraw(str(self.paths.data))


def paths_of(data: Path, config: Config) -> Paths:
    """The folders that a configuration names."""
    return Paths(data, config.work, config.replicas, tuple(Path(place) for place in config.storage.places))


def compose(
    data: Path,
    config: Config,
    identity: link.Identity,
    peers: link.PeerBook,
    catalog: store.Catalog,
    session: link.LinkSession,
) -> Context:
    """The parts of the site in the folder ``data``. Nothing runs yet."""
    stop, wake = threading.Event(), threading.Event()
    host, paths, interrupts = Host(config.hypervisor.uri), paths_of(data, config), Interrupts()
    replications = ReplicationStore(catalog.replications, peers, wake)
    nbd.remote.provide(str(data), Logins(host, catalog, replications))
    return Context(
        config=config,
        identity=identity,
        peers=peers,
        session=session,
        catalog=catalog,
        paths=paths,
        replications=replications,
        known=Known(catalog.replications),
        keys=Keyring(catalog.keys, identity, peers),
        journal=Journal(data / "journal"),
        volumes=Volumes(session, peers, lambda: paths.in_use),
        host=host,
        pause_guard=PauseGuard(host, data / "standing"),
        freeze_guard=FreezeGuard(host, data / "frozen"),
        stop=stop,
        wake=wake,
        controllers=Controllers(stop),
        interrupts=interrupts,
        locks=Locks(),
        barriers=Barriers(interrupts.stopping),
        lanes=Lanes(config.limits),
        progress=RunningSteps(),
        ages=EpochAges(),
        samples=Samples(),
        listing=Listing(),
        deliveries=Deliveries(),
        tally=Tally(),
    )
