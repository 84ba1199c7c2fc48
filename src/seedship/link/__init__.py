# SPDX-License-Identifier: Apache-2.0
"""Site to site: pairing, calls, pushed segments and tunnels over mutual TLS on one TCP port.

Door: ``Server``, ``LinkSession`` (for code that blocks), ``Client``, ``load_or_create``, ``PeerBook``,
``Method``. The only door to grpc. It knows nothing about replications: methods and their handlers
are passed to it. ``tests/integration/link`` cuts and stalls connections and forges messages.
"""

import os

# gRPC's handlers of fork() crash a part of the programs that are started as another user: those are forked, and
# the handlers run in the child before it becomes the program. No child uses gRPC, so they are not needed. gRPC
# reads this when it is imported.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"

from seedship.link import rotation
from seedship.link.client import Client, join
from seedship.link.identity import Identity, create, load_or_create
from seedship.link.limit import WanLimit
from seedship.link.memory_stream import PAGE
from seedship.link.page_index import PageIndex
from seedship.link.peers import BORROWER, DEPOT, SITE, Peer, PeerBook, PeerLimit, prove_same
from seedship.link.push import PushSink
from seedship.link.server import Server
from seedship.link.session import LinkSession
from seedship.link.tunnel import Streams
from seedship.link.wire import Method, unknown_at

__all__ = [
    "BORROWER",
    "DEPOT",
    "PAGE",
    "SITE",
    "Client",
    "Identity",
    "LinkSession",
    "Method",
    "PageIndex",
    "Peer",
    "PeerBook",
    "PeerLimit",
    "PushSink",
    "Server",
    "Streams",
    "WanLimit",
    "create",
    "join",
    "load_or_create",
    "prove_same",
    "rotation",
    "unknown_at",
]
