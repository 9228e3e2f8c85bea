"""The broadcast of the first Sprint Runner, made anew: aiohttp WebSockets in a set, awaited one by one.

``python v1_websocket.py PORT``; ``POST /publish/<count>/<gap_ms>`` sends so many events.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from aiohttp import WSMsgType, web

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from common import messages

clients: set[web.WebSocketResponse] = set()
running: set[asyncio.Task[None]] = set()


async def follow(request: web.Request) -> web.WebSocketResponse:
    """One client until it goes."""
    socket = web.WebSocketResponse(heartbeat=30.0)
    await socket.prepare(request)
    clients.add(socket)
    try:
        async for message in socket:
            if message.type in (WSMsgType.ERROR, WSMsgType.CLOSE):
                break
    finally:
        clients.discard(socket)
    return socket


async def broadcast(text: str) -> None:
    """To everyone, one after the other; who has gone is taken out."""
    for socket in list(clients):
        try:
            await socket.send_str(text)
        except (ConnectionError, RuntimeError):
            clients.discard(socket)


async def publish(count: int, gap: float) -> None:
    """So many events, one each ``gap`` seconds."""
    loop = asyncio.get_running_loop()
    due = loop.time()
    for number in range(count):
        await broadcast(messages.event(number))
        due += gap
        await asyncio.sleep(max(0.0, due - loop.time()) if gap else 0.0)


async def publishing(request: web.Request) -> web.Response:
    """Begin to publish."""
    count, gap = int(request.match_info["count"]), int(request.match_info["gap"]) / 1000
    task = asyncio.create_task(publish(count, gap))
    running.add(task)
    task.add_done_callback(running.discard)
    return web.Response(text="ok")


async def health(_: web.Request) -> web.Response:
    """It is up."""
    return web.Response(text="ok")


app = web.Application()
app.add_routes([web.get("/health", health), web.get("/stream", follow)])
app.add_routes([web.post("/publish/{count}/{gap}", publishing)])

if __name__ == "__main__":
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), backlog=4096, print=None, access_log=None)
