"""Passes TCP connections on, later: a network with a long way, for the CA only.

A connection costs a round trip before its first byte, as TCP's handshake does; each
byte then takes half of one in either direction.
"""

from __future__ import annotations

import asyncio
import sys
from asyncio import StreamReader, StreamWriter

HOST = "127.0.0.1"


async def serve(port: int, target: int, round_trip: float) -> None:
    """Listen for ever.

    Args:
        target: The port that is passed on to.
        round_trip: Seconds.
    """

    async def accept(reader: StreamReader, writer: StreamWriter) -> None:
        await asyncio.sleep(round_trip)
        far_reader, far_writer = await asyncio.open_connection(HOST, target)
        await asyncio.gather(
            pass_on(reader, far_writer, round_trip / 2),
            pass_on(far_reader, writer, round_trip / 2),
        )

    async with await asyncio.start_server(accept, HOST, port) as server:
        await server.serve_forever()


async def pass_on(reader: StreamReader, writer: StreamWriter, delay: float) -> None:
    """Pass on what comes, in its order, each part after the delay."""
    loop = asyncio.get_running_loop()
    try:
        while data := await reader.read(65536):
            loop.call_later(delay, writer.write, data)
    except ConnectionError:
        pass  # ended without a farewell: the other side is closed just so
    loop.call_later(delay, writer.close)


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))
