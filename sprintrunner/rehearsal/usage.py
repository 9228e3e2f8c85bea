"""Tokens and dollars of a run, counted from the text that really went in and out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

CHARACTERS_PER_TOKEN = 4
#: Tokens of the system prompt and the tool definitions of the real CLI.
SYSTEM_TOKENS = 9_000


class Price(NamedTuple):
    """Dollars for a million tokens."""

    fresh: float
    cached: float
    output: float


PRICES = {"opus": Price(4.0, 0.2, 20.0), "sonnet": Price(2.0, 0.1, 10.0), "haiku": Price(0.8, 0.04, 4.0)}
ALIASES = {
    "opus": "claude-opus-5-5",
    "sonnet": "claude-sonnet-5-5",
    "haiku": "claude-haiku-5-5",
    "fable": "claude-opus-5-5",
}
DEFAULT_MODEL = "claude-opus-5-5"


def model_id(name: str | None) -> str | None:
    """The full name of a model; None when there is no such model."""
    if not name or name == "default":
        return DEFAULT_MODEL
    plain = name.removesuffix("[1m]")
    return ALIASES.get(plain) or (plain if plain.startswith("claude-") else None)


def price_of(model: str) -> Price:
    """What a model costs; one of no known family costs as much as the dearest."""
    return next((price for family, price in PRICES.items() if family in model), PRICES["opus"])


class Meter:
    """The figures of one run, on top of those of the session it resumes.

    A turn reads all that was said before from the cache and pays fresh only for what is new.
    """

    def __init__(self, model: str, heard: int, earlier: Mapping[str, Mapping[str, Any]]) -> None:
        self.model = model
        self.earlier = {name: dict(usage) for name, usage in earlier.items()}
        self._known = 0
        self._new = SYSTEM_TOKENS + heard // CHARACTERS_PER_TOKEN
        self._written = self._cached = self._created = self._output = self._fresh = 0
        self._last: tuple[int, int] = (0, 0)

    def heard(self, characters: int) -> None:
        """A tool answered with so many characters: they are new to the next turn."""
        self._new += characters // CHARACTERS_PER_TOKEN

    def turn(self, characters: int) -> None:
        """The model answered with so many characters."""
        self._last = (self._new, self._known)
        output = 60 + characters // CHARACTERS_PER_TOKEN
        self._fresh += 4
        self._created += self._new
        self._cached += self._known
        self._output += output
        self._known += self._new + output
        self._new = 0

    def last_turn(self) -> dict[str, int]:
        """Usage as an assistant line shows it: before the output is counted."""
        created, cached = self._last
        return _usage(4, created, cached, 1)

    def nothing(self) -> dict[str, int]:
        return _usage(0, 0, 0, 0)

    def main_loop(self) -> dict[str, Any]:
        """``usage`` of the result line: this run alone."""
        return {
            **_usage(self._fresh, self._created, self._cached, self._output),
            "server_tool_use": {"web_search_requests": 0, "web_fetch_requests": 0},
            "service_tier": "standard",
        }

    def _cost(self) -> float:
        price = price_of(self.model)
        fresh = self._fresh + 1.25 * self._created
        return (fresh * price.fresh + self._cached * price.cached + self._output * price.output) / 1e6

    def models(self) -> dict[str, Any]:
        """``modelUsage`` of the result line: the whole session, resumed parts included."""
        total = {name: dict(usage) for name, usage in self.earlier.items()}
        if not self._output:
            return total
        mine = {
            "inputTokens": self._fresh,
            "outputTokens": self._output,
            "cacheReadInputTokens": self._cached,
            "cacheCreationInputTokens": self._created,
            "webSearchRequests": 0,
            "costUSD": self._cost(),
        }
        before = total.get(self.model, {})
        added = {name: before.get(name, 0) + value for name, value in mine.items()}
        total[self.model] = {**added, "contextWindow": 1_000_000, "maxOutputTokens": 128_000}
        return total

    def total_cost(self) -> float:
        """Dollars of the whole session so far."""
        return float(sum(usage["costUSD"] for usage in self.models().values()))


def _usage(fresh: int, created: int, cached: int, output: int) -> dict[str, int]:
    return {
        "input_tokens": fresh,
        "cache_creation_input_tokens": created,
        "cache_read_input_tokens": cached,
        "output_tokens": output,
    }
