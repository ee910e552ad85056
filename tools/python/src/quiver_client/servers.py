"""The servers of a client: their channels, and which one is next."""
from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import grpc

from ._pb import embed_pb2_grpc
from .errors import Failure
from .retry import Retry

Tls = bool | str | os.PathLike | grpc.ChannelCredentials


class Server:
    """One address. `stub` has the contract's methods."""

    def __init__(self, address: str, channel):
        self.address = address
        self.channel = channel
        self.stub = embed_pb2_grpc.EmbedServiceStub(channel)
        self.load = 0
        self.failed_tries = 0
        self.resting_until = 0.0
        self.last_taken = 0


class Servers:
    """Thread-safe, and never waits."""

    def __init__(self, addresses: str | Sequence[str], connect: Callable[[str], object], retry: Retry):
        addresses = [addresses] if isinstance(addresses, str) else list(addresses)
        if not addresses or not all(isinstance(address, str) and address for address in addresses):
            raise ValueError(f"addresses must be HOST:PORT or a list of such, not {addresses!r}")
        self.all = [Server(address, connect(address)) for address in addresses]
        self.closed = False
        self._retry = retry
        self._taken = 0
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def take(self, inputs: int) -> Iterator[tuple[Server, float]]:
        """The server that has least to do of those that need no rest, for a call of so many inputs, and the time
        (monotonic) from which it may be asked."""
        now = time.monotonic()
        with self._lock:
            server = min(self.all, key=lambda s: (max(s.resting_until, now), s.load, s.last_taken))
            self._taken += 1
            server.last_taken = self._taken
            server.load += inputs
            ready = server.resting_until
        try:
            yield server, ready
        finally:
            with self._lock:
                server.load -= inputs

    def succeeded(self, server: Server) -> None:
        with self._lock:
            server.failed_tries = 0

    def failed(self, server: Server, failure: Failure) -> float:
        """Lets it rest after a failure that passes; returns how many seconds."""
        with self._lock:
            server.failed_tries += 1
            delay = self._retry.delay_s(failure, server.failed_tries)
            server.resting_until = max(server.resting_until, time.monotonic() + delay)
            return delay


def credentials_of(tls: Tls) -> grpc.ChannelCredentials | None:
    """None for no encryption; of True, with the system's authorities; of a path, with those in the file (PEM)."""
    if isinstance(tls, grpc.ChannelCredentials):
        return tls
    if tls is False or tls is None:
        return None
    if tls is True:
        return grpc.ssl_channel_credentials()
    return grpc.ssl_channel_credentials(root_certificates=Path(tls).read_bytes())


def channel_arguments(tls_server_name: str | None) -> list[tuple[str, object]]:
    arguments = [
        # The server's own limits hold, which it tells.
        ("grpc.max_receive_message_length", -1),
        ("grpc.max_send_message_length", -1),
        # A name may stand for many machines.
        ("grpc.service_config", json.dumps({"loadBalancingConfig": [{"round_robin": {}}]})),
        # One that comes back should be found soon.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 1000),
        # One that vanished without a word is noticed. Quiver allows a ping every ten seconds.
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 20_000),
    ]
    if tls_server_name:
        arguments.append(("grpc.ssl_target_name_override", tls_server_name))
    return arguments


def metadata_of(api_key: str | None, tenant: str | None) -> tuple[tuple[str, str], ...]:
    pairs = []
    if api_key:
        if not (api_key.isascii() and api_key.isprintable()):
            raise ValueError("api_key must be of printable ASCII")
        pairs.append(("authorization", f"Bearer {api_key}"))
    if tenant:
        pairs.append(("quiver-tenant", tenant))
    return tuple(pairs)
