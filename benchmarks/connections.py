"""What one connection per request costs, over TLS and a distance: one request of 100 full tasks, as in `submit.py`.

    python benchmarks/connections.py [--rtt 0 20 50] [--rounds 20] [--quick]

This package opens a connection for each request; a `requests.Session` by hand keeps one. The gateway (`sink.py`, with
TLS) answers at once, and a relay holds every byte back for half a round trip in each direction. The kernel's own
handshake is not slowed by a relay, so a round trip is waited for in `create_connection`, on both sides alike.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import ipaddress
import os
import ssl
import statistics
import sys
import threading
import time
from pathlib import Path
from typing import Any

import common
import urllib3.util.connection
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from sink import Sink, Span
from submit import session_by_hand, this_package, timed


def certificate(path: Path) -> None:
    """Write a self-signed certificate for 127.0.0.1, with its key."""
    key = rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = dt.datetime.now(dt.UTC)
    built = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False
        )
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(private + built.public_bytes(serialization.Encoding.PEM))


async def relay(port: int, rtt: float) -> int:
    """Listen, and pass on what comes to a port, each byte half a round trip later."""
    loop = asyncio.get_running_loop()

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 20):
            loop.call_later(rtt / 2, writer.write, data)
        loop.call_later(rtt / 2, writer.close)

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(copy(reader, there[1]), copy(there[0], writer), return_exceptions=True)

    server = await asyncio.start_server(connected, "127.0.0.1", 0, limit=1 << 20)
    return int(server.sockets[0].getsockname()[1])


def gateway(pem: Path, rtts: list[float]) -> dict[float, str]:
    """Run the sink and its relays in a thread; return the URL for each round trip."""
    urls: dict[float, str] = {}
    ready = threading.Event()

    async def serve() -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pem)
        cook: Any = None
        server = await asyncio.get_running_loop().create_server(
            lambda: Sink(0.0, Span(), cook), "127.0.0.1", 0, ssl=context
        )
        port = int(server.sockets[0].getsockname()[1])
        for rtt in rtts:
            urls[rtt] = f"https://127.0.0.1:{await relay(port, rtt)}/router/rest"
        ready.set()
        await asyncio.Event().wait()

    threading.Thread(target=lambda: asyncio.run(serve()), daemon=True).start()
    ready.wait()
    return urls


def main() -> int:
    parser = common.options(__doc__)
    parser.add_argument("--rtt", type=float, nargs="+", default=[0, 20, 50], help="round trips in ms")
    options = parser.parse_args()
    rounds = options.rounds or (5 if options.quick else 20)
    pem = Path(common.HOME, "gateway.pem")
    certificate(pem)
    os.environ["REQUESTS_CA_BUNDLE"] = str(pem)
    urls = gateway(pem, [rtt / 1000 for rtt in options.rtt])
    create_connection = urllib3.util.connection.create_connection
    print(f"{common.machine()}: one request of 100 tasks over TLS, {rounds} rounds")
    for rtt, url in urls.items():

        def distant(*args: Any, rtt: float = rtt, **kwargs: Any) -> Any:
            time.sleep(rtt)
            return create_connection(*args, **kwargs)

        urllib3.util.connection.create_connection = distant
        os.environ["AIRFLOW_CONN_LINGYANG_DEFAULT"] = common.connection(url)
        with this_package(url) as ours, session_by_hand(url) as kept:
            sides = {"this package": timed(ours), "requests.Session, kept": timed(kept)}
            common.in_turn(sides, 10)
            cpu = {}
            for name, side in sides.items():
                begun = time.thread_time()
                wall = statistics.median(side() for _ in range(rounds))
                cpu[name] = (wall, (time.thread_time() - begun) / rounds)
        figures = "   ".join(
            f"{name} {wall * 1e3:6.1f} ms (CPU {used * 1e3:.1f})" for name, (wall, used) in cpu.items()
        )
        print(f"  round trip {rtt * 1e3:3.0f} ms:  {figures}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
