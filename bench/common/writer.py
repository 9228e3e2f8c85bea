"""An agent that writes as fast as it can: ``python writer.py MODE``, then a result; standard library only."""

from __future__ import annotations

import json
import os
import sys

MEGABYTE = 1_000_000
TOTAL = 100 * MEGABYTE


def block(length: int) -> bytes:
    """One line of Claude's stream of exactly so many bytes, its newline included."""
    frame = json.dumps(_spoken(""))
    return (json.dumps(_spoken("x" * (length - len(frame) - 1))) + "\n").encode()


def _spoken(text: str) -> dict[str, object]:
    content = [{"type": "text", "text": text}]
    return {"type": "assistant", "message": {"id": "m", "role": "assistant", "content": content}}


def write(data: bytes) -> None:
    """All of it."""
    view = memoryview(data)
    while view:
        view = view[os.write(1, view) :]


def main(mode: str, scale: float) -> None:
    """``lines``: 1 million short ones, ``mixed``: 100 MB in lines of 2 KB, ``one``: one line of 100 MB."""
    if mode == "one":
        write(block(int(TOTAL * scale)))
    else:
        length, count = (100, 1_000_000) if mode == "lines" else (2000, TOTAL // 2000)
        portion = block(length) * 500
        for _ in range(int(count * scale) // 500):
            write(portion)
    result = {"type": "result", "subtype": "success", "is_error": False, "result": "the last word"}
    write((json.dumps({**result, "session_id": "bench", "total_cost_usd": 0.5}) + "\n").encode())


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
