"""The dashboard in Chromium, watched: when the moment an agent wrote of stands in the page."""

from __future__ import annotations

import shutil
from typing import Any

from .servers import Unavailable

_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# Timers of the page are the same clock as ours: timeOrigin is the wall clock, now() is monotonic from there.
_WATCH = r"""
(() => {
  const seen = new Set(); window.__dom = []; window.__frame = [];
  const look = () => {
    const now = performance.timeOrigin + performance.now();
    const fresh = [];
    for (const found of document.body.textContent.matchAll(/wall=([0-9]{13}[.][0-9])/g)) {
      if (!seen.has(found[1])) { seen.add(found[1]); fresh.push(Number(found[1])); }
    }
    for (const wall of fresh) window.__dom.push([now, wall]);
    if (fresh.length) requestAnimationFrame(() => {
      const shown = performance.timeOrigin + performance.now();
      for (const wall of fresh) window.__frame.push([shown, wall]);
    });
  };
  document.addEventListener("DOMContentLoaded", () =>
    new MutationObserver(look).observe(document.body, {subtree: true, childList: true, characterData: true}));
})();
"""


class Page:
    """One page of the dashboard in a headless Chromium; Unavailable where there is none."""

    def __init__(self, address: str) -> None:
        found = [path for name in _BROWSERS if (path := shutil.which(name))]
        if not found:
            raise Unavailable("no Chromium on PATH")
        try:
            from playwright.sync_api import sync_playwright
        except ImportError:
            raise Unavailable("playwright is not installed") from None
        self._playwright = sync_playwright().start()
        self._browser = self._playwright.chromium.launch(executable_path=found[0], args=["--no-sandbox"])
        self._page: Any = self._browser.new_page()
        self._page.add_init_script(_WATCH)
        self._page.goto(address)

    def wait(self, seconds: float) -> None:
        """Let it live."""
        self._page.wait_for_timeout(seconds * 1000)

    def latencies(self, what: str) -> list[float]:
        """Milliseconds until the page held it (``dom``), or until the frame after that (``frame``)."""
        return [now - wall for now, wall in self._page.evaluate(f"window.__{what}")]

    def close(self) -> None:
        """End the browser."""
        self._browser.close()
        self._playwright.stop()
