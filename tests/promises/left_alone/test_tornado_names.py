"""What the watches put on tornado's connections leaves these as cheap as they are."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from typing import Final

_LOOK: Final = """
import asyncio
import socket
import sys

import cleanclose.tornado
from cleanclose.tornado._delegate import UploadWatch, WebSocketWatch
from tornado.http1connection import HTTP1Connection
from tornado.iostream import IOStream


async def main():
    here, there = socket.socketpair()
    with there:
        stream = IOStream(here)
        for kind in (UploadWatch, WebSocketWatch) * 5:
            connection = HTTP1Connection(stream, False)
            kind.stand_before(object.__new__(kind), connection)
            names = vars(connection)
            # Keys that all objects share are not counted.
            print(sys.getsizeof(names) < sys.getsizeof(dict(names)))
        stream.close()


asyncio.run(main())
"""


def test_a_watched_connection_shares_its_names_with_all_others() -> None:
    # In a process of its own: which names are shared, its first objects decide.
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(_LOOK)], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["True"] * 10
