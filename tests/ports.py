"""Ports for servers that tests start."""

import random
import socket
from pathlib import Path


def free_port() -> int:
    """One on 127.0.0.1 that nobody listens on, and that no outgoing connection is given either.

    What `bind` to port 0 gives is of the range that outgoing connections take theirs from: until a server
    that needs a minute to start has taken it, any client beside it may get it.
    """
    given = Path("/proc/sys/net/ipv4/ip_local_port_range")
    below = int(given.read_text().split()[0]) if given.is_file() else 32768
    while True:
        port = random.SystemRandom().randrange(min(20000, below - 2000), below)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
