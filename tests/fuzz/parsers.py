# SPDX-License-Identifier: Apache-2.0
"""Every parser of bytes from outside, as one function of bytes, with seeds for its corpus.

A parser may raise a ``SeedshipError`` (and what else its entry names, which its callers handle) and nothing else; and it
may not take more memory than its ceiling. Sealed formats are sealed here around the input: an attacker may have the key.
"""

from __future__ import annotations

import hashlib
import tempfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
from blake3 import blake3
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from seedship import config, link, segment, specfile
from seedship.drives import label
from seedship.errors import NbdFailed, SeedshipError
from seedship.hypervisor import definition, passage, place, rpc, saved
from seedship.hypervisor import platform as platform_state
from seedship.link import invitation, memory_stream, tunnel, wire
from seedship.link.pages import PageReceiver, PageSender
from seedship.model import KeyId
from seedship.model.decoding import unpack
from seedship.native.ask import WorkerEnded
from seedship.segment import keys, layout, pieces, references
from seedship.segment.writer import NONCE
from seedship.stripe import shard
from seedship.units import MiB
from seedship.workflows import messages
from seedship.workflows.maintenance import backup
from seedship.workflows.protocol import escrow

Parse = Callable[[bytes], object]


@dataclass(frozen=True)
class Parser:
    """One of them."""

    parse: Parse
    seeds: Callable[[], Iterator[bytes]]
    refuses: tuple[type[Exception], ...] = ()
    """Raised for bad input, besides SeedshipError."""
    ceiling: int = 64 * MiB
    """Bytes by which the process may grow."""
    longest: int = 65536
    """Bytes of an input."""


KEY = keys.SegmentKey(KeyId("2" * 32), b"k" * 32)
HASH_KEY = b"h" * 32
UUID = "6fd91e1f-7fb2-4ff8-b7a4-0ed17a6ab3cb"
DOMAIN = (
    f"<domain type='kvm'><name>vm</name><uuid>{UUID}</uuid><memory unit='KiB'>1024</memory><vcpu>1</vcpu>"
    "<os><type arch='x86_64' machine='pc'>hvm</type></os><clock offset='utc'><timer name='hpet' present='no'/></clock>"
    "<devices><disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='/x'/>"
    "<target dev='vda' bus='virtio'/></disk><interface type='bridge'><source bridge='br0'/><model type='virtio'/>"
    "</interface><serial type='pty'/><console type='pty'/><tpm model='tpm-crb'><backend type='emulator' version='2.0'/>"
    "</tpm><watchdog model='i6300esb' action='reset'/><video><model type='virtio'/></video></devices></domain>"
)
COOKIE = (
    f"<qemu-migration><name>vm</name><uuid>{UUID}</uuid><hostname>h</hostname><hostuuid>{UUID}</hostuuid>"
    "<feature name='memory-hotplug'/><nbd><disk target='vda' capacity='1024'/></nbd></qemu-migration>"
)


def sealed_segment(frames: int, index_at: int, plain: bytes) -> bytes:
    """A segment with any content, as somebody makes it who has the key."""
    header = layout.HEADER_STRUCT.pack(
        b"\1" * 16, 1, b"\3" * 16, 0, 0, 0, 0, frames, index_at, bytes.fromhex(KEY.key_id), b"s" * 32
    )
    body = len(plain) + 16
    total = layout.PREFIX + len(header) + body + layout.TRAILER_STRUCT.size
    prefix = layout.PREFIX_STRUCT.pack(layout.MAGIC, layout.VERSION, 0, len(header), body, total)
    cipher = AESGCM(keys.sealing_key(KEY, b"s" * 32, header))
    data = prefix + header + cipher.encrypt(NONCE, plain, prefix + header)
    return data + layout.TRAILER_STRUCT.pack(layout.TRAILER_MAGIC, blake3(data).digest())


def _frame(kind: int, codec: int, stored: bytes, length: int, raw: bytes | None = None) -> bytes:
    proof = keys.BlockHasher(HASH_KEY).run(raw if raw is not None else stored)
    return layout.FRAME_STRUCT.pack(0, kind, codec, len(stored), 0, length, proof) + stored


def _inside(data: bytes) -> object:
    """The first bytes say how many frames and where the index is; hashes of the frames are put right."""
    frames, index_at = data[0] % 8 if data else 0, int.from_bytes(data[1:3], "little")
    plain = bytearray(data[3:])
    hasher, position = keys.BlockHasher(HASH_KEY), 0
    for _ in range(frames):
        if position + layout.FRAME_STRUCT.size > len(plain):
            break
        head = layout.FRAME_STRUCT.unpack_from(plain, position)
        stored = bytes(plain[position + layout.FRAME_STRUCT.size :][: head[3]])
        fixed = (*head[:6], hasher.run(stored))
        layout.FRAME_STRUCT.pack_into(plain, position, *fixed)
        position += layout.FRAME_STRUCT.size + head[3]
    opened = _READER.open(sealed_segment(frames, index_at, bytes(plain)), KEY)
    opened.index()
    return list(opened.records())


_READER = segment.SegmentReader(HASH_KEY)


def _inside_seeds() -> Iterator[bytes]:
    raw = bytes(range(256)) * 16
    frame = _frame(layout.KIND_DATA, layout.CODEC_NONE, raw, len(raw))
    index = layout.INDEX_STRUCT.pack(0, layout.KIND_DATA, 0, 0, 0, len(raw))
    yield b"\1" + len(frame).to_bytes(2, "little") + frame + index
    yield b"\0\0\0"


def _outside_seeds() -> Iterator[bytes]:
    yield sealed_segment(0, 0, b"")
    yield sealed_segment(1, 4, b"1234" + bytes(layout.INDEX_STRUCT.size))


def _shard_seeds() -> Iterator[bytes]:
    member = shard.StripeMember(0, 100, b"d" * 32)
    made = shard.Parity("3" * 32, 0, 0, 1, (member, shard.StripeMember(1, 60, b"e" * 32)), 100)
    yield b"".join(map(bytes, shard.pack(made, memoryview(b"p" * 100))))


def _shard(data: bytes) -> object:
    """The trailer is put right, as an attacker would."""
    shard.measure(data, "x")
    shard.peek_head(data, "x")
    end = len(data) - shard.TRAILER_STRUCT.size
    if end > 0:
        data = data[:end] + shard.TRAILER_STRUCT.pack(shard.TRAILER_MAGIC, blake3(data[:end]).digest())
    return shard.peek(data, "x")


def _label_seeds() -> Iterator[bytes]:
    private, _ = segment.new_signing_keys()
    yield label.encode_label(label.Label(1, "a" * 32, "b" * 32, "c" * 32, 2), bytes(private))


def _manifest_seeds() -> Iterator[bytes]:
    private, _ = segment.new_signing_keys()
    files = [label.DataFile("data-00000.seg", 10, "f" * 64), label.DataFile("parity-00000.par", 4, "e" * 64)]
    made = label.Manifest(
        1,
        "a" * 32,
        "b" * 32,
        "c" * 32,
        "d" * 32,
        0,
        "e" * 32,
        ["b" * 32, "f" * 32],
        1,
        3,
        files,
        "0" * 64,
    )
    yield label.encode_manifest(made, private)


METHODS = sorted(
    {
        method.name: method
        for method in [*vars(messages).values(), wire.HELLO, wire.PAIR, link.rotation.NOTICE]
        if isinstance(method, wire.Method)
    }.values(),
    key=lambda method: method.name,
)
KINDS = [kind for method in METHODS for kind in (method.request, method.response)] + [
    link.Peer,
    escrow.Envelope,
]


def _message(data: bytes) -> object:
    kind = KINDS[data[0] % len(KINDS)] if data else KINDS[0]
    return unpack(data[1:], kind)


def _example(kind: type[msgspec.Struct]) -> dict[str, object]:
    """Some value of a type, for seeds."""
    made: dict[str, object] = {}
    for entry in msgspec.structs.fields(kind):
        made[entry.encode_name] = _value(entry.type)
    return made


def _value(kind: object) -> object:
    found = msgspec.inspect.type_info(kind)
    match found:
        case msgspec.inspect.StructType():
            return _example(found.cls)
        case msgspec.inspect.BoolType():
            return True
        case msgspec.inspect.IntType():
            return 1
        case msgspec.inspect.FloatType():
            return 0.5
        case msgspec.inspect.BytesType():
            return b"x" * 16
        case msgspec.inspect.StrType():
            return "a" * 32
        case msgspec.inspect.LiteralType():
            return found.values[0]
        case msgspec.inspect.NoneType():
            return None
    return []


def _message_seeds() -> Iterator[bytes]:
    for number, kind in enumerate(KINDS):
        yield bytes([number]) + msgspec.msgpack.encode(_example(kind))


def _definition(data: bytes) -> object:
    text = data.decode("utf-8", "surrogateescape")
    platform_state.remembers(text)
    ours = place.Place(
        {"vda": place.DiskAt("/ours/vda.qcow2", "qcow2")},
        {"bridge:br0": place.NetworkPlug("network", "inner")},
        tpm=True,
    )
    return definition.rebuild(text, ours, expected_uuid=UUID)


def _cookie(data: bytes) -> object:
    passed = passage.Passage("vm", UUID, DOMAIN, ("vda",), "/run/m", "/run/d")
    return passage.FrameChecks(passed)._cookie(data)


def _frames(data: bytes) -> object:
    passed = passage.Passage("vm", UUID, DOMAIN, ("vda",), "/run/m", "/run/d")
    checks = passage.FrameChecks(passed)
    checks._opened = True
    return [checks.call(frame) for frame in rpc.Frames().feed(data)]


def _frame_seeds() -> Iterator[bytes]:
    def parameter(name: str, value: str) -> rpc.TypedParameter:
        return rpc.TypedParameter(name, rpc.STRING, value)

    given = tuple(parameter(name, "x") for name in sorted(passage._NEEDED))
    wanted = rpc.PrepareArguments(given, COOKIE.encode() + b"\0", passage.REQUIRED)
    for procedure, payload in (
        (rpc.PREPARE, rpc.encode_prepare(wanted)),
        (rpc.FINISH, rpc.encode_finish(rpc.Finish(given, b"", passage.REQUIRED, 0))),
        (rpc.SUPPORTS_FEATURE, b"\0\0\0\1"),
        (rpc.AUTH_LIST, b""),
    ):
        yield rpc.encode_frame(rpc.Frame(rpc.REMOTE, 1, procedure, rpc.CALL, 1, rpc.OK, payload))


def _inflated(packed: bytes, most: int) -> bytes:
    """As the worker does it, without its process."""
    stream = zlib.decompressobj()
    try:
        content = stream.decompress(packed, most + 1)
    except zlib.error as error:
        raise WorkerEnded("it is damaged") from error
    if not stream.eof or stream.unused_data or len(content) > most:
        raise WorkerEnded("it is not whole, or too long")
    return content


def _platform(data: bytes) -> object:
    kinds = sorted(platform_state.KINDS)
    kind = kinds[data[0] % len(kinds)] if data else "nvram"
    return platform_state.unpack_platform("vm", kind, data[1:], _inflated)


def _platform_seeds() -> Iterator[bytes]:
    import zlib

    yield b"\0" + zlib.compress(bytes(65536))
    yield b"\1" + zlib.compress(b"\0" * 64)


_SCRATCH = Path(tempfile.mkdtemp(prefix="fuzz-"))


def _saved(data: bytes) -> object:
    path = _SCRATCH / "saved"
    path.write_bytes(data)
    return saved.image_at(path, "vm")


def _saved_seeds() -> Iterator[bytes]:
    yield saved._HEADER.pack(saved._MAGIC, saved._VERSION, 100, 1, 0, 0) + b"x" * 200


_PRIVATE, _PUBLIC = segment.new_recipient_keys()


def _escrow(data: bytes) -> object:
    sealed = segment.seal_for(_PUBLIC, data, escrow._INFO)
    return escrow._opened(sealed, _PRIVATE, b"", unsigned=True)


def _phrase(data: bytes) -> object:
    """The head that says how much work the passphrase takes; what would take long is not done."""
    end = 2 + int.from_bytes(data[:2], "little")
    try:
        said = msgspec.msgpack.decode(data[2:end], type=keys._Phrase)
    except msgspec.DecodeError:
        pass
    else:
        if said.n * said.r * said.p > 1 << 12 and said.n <= keys._MOST_SCRYPT.n:
            return None
    return backup.read_backup(backup._MAGIC + data, "phrase of twelve", "x")


def _phrase_seeds() -> Iterator[bytes]:
    for said in (keys._Phrase(b"s" * 32, 16, 1, 1), keys._Phrase(b"", 0, 0, 0)):
        head = msgspec.msgpack.encode(said)
        yield len(head).to_bytes(2, "little") + head + b"x" * 40


def _backup(data: bytes) -> object:
    return backup.unpack(data, "x")


def _backup_seeds() -> Iterator[bytes]:
    import zstandard

    said = {
        "site": "a",
        "version": "1",
        "created": "2026-01-01T00:00:00Z",
        "config": "",
        "files": {"peers.json": b"{}"},
    }
    yield zstandard.compress(msgspec.msgpack.encode(said))


def _invitation(data: bytes) -> object:
    """The checksum is put right."""
    import base64
    import hmac

    proof = hmac.digest(b"seedship", data, "sha256")[:4]
    try:
        invitation.parse(data.decode("latin-1"))
    except SeedshipError:
        pass
    return invitation.parse(base64.b32encode(data + proof).decode())


def _tunnel_seeds() -> Iterator[bytes]:
    yield tunnel.pack(b"x" * 100)
    yield tunnel.pack(b"x" * 10000)


def _pages(data: bytes) -> object:
    """The hash is put right: a sender has it."""
    message = data[:1] + hashlib.blake2b(data[40:], digest_size=32).digest() + data[33:]
    receiver = PageReceiver(_Disk())
    receiver.put(message)
    return receiver.next()


class _Disk:
    """A disk of two pages."""

    def read(self, places: Sequence[tuple[int, int]]) -> list[bytes]:
        if any(disk or page > 1 for disk, page in places):
            raise NbdFailed("read", "the disk ends before it")
        return [bytes(memory_stream.PAGE)] * len(places)

    def close(self) -> None:
        pass


def _page_seeds() -> Iterator[bytes]:
    index = link.PageIndex()
    page = b"page" * (memory_stream.PAGE // 4)
    index.add(0, 1, memoryview(page))
    index.seal()
    for stream in _memory_seeds():
        yield PageSender(index).pack(stream)


def _memory_seeds() -> Iterator[bytes]:
    """One block; a whole page, one of zeros, one as its changes; another section; the last pages."""
    number, end = b"\0\0\0\2", (0x10).to_bytes(8) + b"\x7e\0\0\0\2"
    block = b"\1a" + (0x100000).to_bytes(8)
    start = b"\1" + number + b"\3ram" + bytes(7) + b"\4" + (0x100004).to_bytes(8) + block + end
    page = b"page" * (memory_stream.PAGE // 4)
    whole = (0x1008).to_bytes(8) + b"\1a" + page
    others = (0x2022).to_bytes(8) + b"\0" + (0x3060).to_bytes(8) + b"\1\0\4abcd"
    between = b"\2\0\0\0\7other\x7e\0\0\0\7"
    yield b"QEVM\0\0\0\3" + start + b"\2" + number + whole + others + end
    yield start + between + b"\3" + number + whole + end + b"\4\0\0\0\0\5timer"


def _texts(*texts: str) -> Callable[[], Iterator[bytes]]:
    return lambda: (text.encode() for text in texts)


PARSERS: dict[str, Parser] = {
    "label": Parser(lambda d: label.decode_label(d, "x", None), _label_seeds),
    "manifest": Parser(lambda d: label.decode_manifest(d, "x", None), _manifest_seeds),
    "segment": Parser(lambda d: segment.peek(d, "x", proven=True), _outside_seeds),
    "segment-content": Parser(_inside, _inside_seeds),
    "pieces": Parser(lambda d: list(pieces.unpack(memoryview(d), "x")), _texts("x" * 100)),
    "references": Parser(lambda d: list(references.unpack(memoryview(d), "x")), _texts("x" * 100)),
    "shard": Parser(_shard, _shard_seeds),
    "messages": Parser(_message, _message_seeds, (msgspec.DecodeError,)),
    "peer-error": Parser(
        lambda d: wire.unpack_error(d).advice(),
        lambda: iter([msgspec.msgpack.encode({"code": "conflict", "fields": {"what": "x"}})]),
    ),
    "invitation": Parser(_invitation, lambda: iter([msgspec.msgpack.encode(("a:1", b"f" * 32, b"s" * 16, False))])),
    "tunnel": Parser(lambda d: tunnel.unpack(d), _tunnel_seeds),
    "memory-stream": Parser(lambda d: memory_stream.MemoryStream().take(d), _memory_seeds),
    "pages": Parser(_pages, _page_seeds),
    "platform": Parser(_platform, _platform_seeds),
    "domain": Parser(
        _definition,
        _texts(DOMAIN),
    ),
    "cookie": Parser(_cookie, _texts(COOKIE + "\0")),
    "rpc": Parser(_frames, _frame_seeds),
    "save-header": Parser(_saved, _saved_seeds),
    "escrow": Parser(_escrow, lambda: iter([msgspec.msgpack.encode(_example(escrow.Envelope))])),
    "backup-head": Parser(_phrase, _phrase_seeds),
    "backup": Parser(_backup, _backup_seeds, ceiling=256 * MiB),
    "spec-file": Parser(
        lambda d: specfile.parse(d, "x"),
        _texts(
            "replications:\n- vm: web\n  to: paris\n  keep: {count: 3}\n",
            "replications: [&a {vm: x}, *a]\n",
            "a: &a [x, x]\nreplications: [{b: [*a, *a]}]\n",
        ),
    ),
    "settings": Parser(
        lambda d: config.parse(d.decode("utf-8", "surrogateescape")),
        _texts('name = "a"\n[link]\nlisten = "0.0.0.0:7440"\n[accept]\nvms = ["x*"]\n'),
    ),
}
"""By name; docs/security.md lists what each reads."""


def run(parser: Parser, data: bytes) -> bool:
    """Parse; whether the input was taken. Raises what no input may cause."""
    try:
        parser.parse(data)
    except SeedshipError:
        return False
    except parser.refuses:
        return False
    return True
