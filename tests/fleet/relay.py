"""Passes TCP connections on between a host's loopback and its network."""

from __future__ import annotations

import asyncio
import contextlib
from asyncio import StreamReader, StreamWriter

Address = tuple[str, int]


async def relay(at: Address, to: Address) -> asyncio.Server:
    """Listen at one address, and pass everything on to another."""

    async def accept(reader: StreamReader, writer: StreamWriter) -> None:
        with contextlib.suppress(OSError):
            far_reader, far_writer = await asyncio.open_connection(*to)
            await asyncio.gather(_pass(reader, far_writer), _pass(far_reader, writer))
        writer.close()

    return await asyncio.start_server(accept, *at)


async def _pass(reader: StreamReader, writer: StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    writer.close()
