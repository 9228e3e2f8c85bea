"""What one would build today: Starlette with sse-starlette under uvicorn, a queue a client.

``python starlette_sse.py PORT``; ``POST /publish/<count>/<gap_ms>`` sends so many events.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import uvicorn
from sse_starlette.sse import EventSourceResponse
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from common import messages

queues: set[asyncio.Queue[dict[str, str]]] = set()
running: set[asyncio.Task[None]] = set()


async def follow(request: Request) -> Response:
    """One client with a queue of its own."""
    queue: asyncio.Queue[dict[str, str]] = asyncio.Queue()

    async def read() -> AsyncIterator[dict[str, str]]:
        queues.add(queue)
        try:
            while True:
                yield await queue.get()
        finally:
            queues.discard(queue)

    return EventSourceResponse(read())


async def publish(count: int, gap: float) -> None:
    """So many events, one each ``gap`` seconds."""
    loop = asyncio.get_running_loop()
    due = loop.time()
    for number in range(count):
        message = {"id": str(number), "data": messages.event(number)}
        for queue in list(queues):
            queue.put_nowait(message)
        due += gap
        await asyncio.sleep(max(0.0, due - loop.time()) if gap else 0.0)


async def publishing(request: Request) -> Response:
    """Begin to publish."""
    task = asyncio.create_task(publish(request.path_params["count"], request.path_params["gap"] / 1000))
    running.add(task)
    task.add_done_callback(running.discard)
    return PlainTextResponse("ok")


async def health(_: Request) -> Response:
    """It is up."""
    return PlainTextResponse("ok")


app = Starlette(
    routes=[
        Route("/health", health),
        Route("/stream", follow),
        Route("/publish/{count:int}/{gap:int}", publishing, methods=["POST"]),
    ]
)

if __name__ == "__main__":
    uvicorn.run(
        app, host="127.0.0.1", port=int(sys.argv[1]), backlog=4096, log_level="error", access_log=False
    )
