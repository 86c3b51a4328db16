"""A headless Chromium driven over its own debugging protocol: what a page logs, asks the network for, and answers."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

PROGRAM = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chromium-browser")
needs_chromium = pytest.mark.skipif(PROGRAM is None, reason="no chromium program on this machine: `apt install chromium`")


class Page:
    """One open page."""

    def __init__(self, socket: Any) -> None:
        self.socket, self.number = socket, 0
        self.complaints: list[str] = []
        """Exceptions, console errors and warnings."""
        self.requests: list[str] = []
        """Addresses other than the page itself and data."""

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self.number += 1
        mine = self.number
        await self.socket.write_message(json.dumps({"id": mine, "method": method, "params": parameters}))
        while True:
            message = json.loads(await asyncio.wait_for(self.socket.read_message(), 30))
            self._note(message)
            if message.get("id") == mine:
                assert "error" not in message, message
                return dict(message["result"])

    def _note(self, message: dict[str, Any]) -> None:
        match message.get("method"):
            case "Runtime.exceptionThrown":
                self.complaints.append(json.dumps(message["params"]["exceptionDetails"])[:500])
            case "Runtime.consoleAPICalled" if message["params"]["type"] in ("error", "warning"):
                self.complaints.append(json.dumps(message["params"]["args"])[:500])
            case "Log.entryAdded" if message["params"]["entry"]["level"] in ("error", "warning"):
                self.complaints.append(message["params"]["entry"]["text"])
            case "Network.requestWillBeSent":
                address = message["params"]["request"]["url"]
                if not address.startswith(("file:", "data:", "blob:")):
                    self.requests.append(address)

    async def ask(self, script: str) -> Any:
        """The value of an expression in the page."""
        found = await self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    async def until(self, script: str, seconds: float = 25) -> None:
        end = time.monotonic() + seconds
        while not await self.ask(script):
            assert time.monotonic() < end, f"never true: {script}; {self.complaints}"
            await asyncio.sleep(0.1)

    async def screenshot(self, path: Path) -> None:
        found = await self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(found["data"]))


def visit(file: Path, what: Callable[[Page], Awaitable[None]]) -> Page:
    """Open a file with no network, do something, close."""
    return asyncio.run(_visit(file, what))


async def _visit(file: Path, what: Callable[[Page], Awaitable[None]]) -> Page:
    from tornado.websocket import websocket_connect

    assert PROGRAM is not None
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        browser = subprocess.Popen(
            [
                PROGRAM, "--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0",
                f"--user-data-dir={profile}",
                "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "--window-size=1400,1000",
                "--disable-background-networking",
                "--no-first-run", "about:blank",
            ],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            port = Path(profile) / "DevToolsActivePort"
            for _ in range(300):
                if port.is_file() and port.read_text().count("\n"):
                    break
                await asyncio.sleep(0.1)
            number, route = port.read_text().split("\n")[:2]
            root = await websocket_connect(f"ws://127.0.0.1:{number}{route}", max_message_size=200_000_000)
            found = await Page(root).call("Target.createTarget", url="about:blank")
            address = f"ws://127.0.0.1:{number}/devtools/page/{found['targetId']}"
            page = Page(await websocket_connect(address, max_message_size=200_000_000))
            for domain in ("Runtime", "Log", "Network", "Page"):
                await page.call(f"{domain}.enable")
            await page.call("Page.navigate", url=file.resolve().as_uri())
            await page.until("document.documentElement?.dataset.ready === 'yes'")
            await what(page)
            return page
        finally:
            browser.terminate()
            browser.wait(10)
