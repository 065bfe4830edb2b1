"""The leaderboard in a real browser: for the test of it, and for the pictures in the README."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
CANDIDATES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
DONE = (
    "[data-testid=stApp][data-test-connection-state=CONNECTED][data-test-script-state=notRunning]"
)


def browser() -> str | None:
    """A Chromium that is installed here."""
    return next(filter(None, map(shutil.which, CANDIDATES)), None)


@contextlib.contextmanager
def served(*results: Path) -> Iterator[str]:
    """``python -m bench leaderboard`` on the shipped records and these folders; yields its address."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    words = [sys.executable, "-m", "bench", "leaderboard", "--port", str(port)]
    for folder in results:
        words += ["--results", str(folder)]
    settings = {"STREAMLIT_SERVER_HEADLESS": "true", "STREAMLIT_SERVER_FILE_WATCHER_TYPE": "none"}
    process = subprocess.Popen(
        words, cwd=ROOT, env={**os.environ, **settings}, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        _wait(f"http://localhost:{port}/_stcore/health", process)
        yield f"http://localhost:{port}"
    finally:
        os.killpg(process.pid, 15)
        process.wait()


def _wait(address: str, process: "subprocess.Popen[bytes]") -> None:
    for _ in range(300):
        assert process.poll() is None, "the leaderboard stopped"
        with contextlib.suppress(OSError):
            urllib.request.urlopen(address, timeout=1).close()
            return
        time.sleep(0.1)
    raise TimeoutError(f"no answer from {address}")


@contextlib.contextmanager
def opened(**options):
    """A browser's page, and the list of errors that its console got."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=browser(), args=["--no-sandbox", "--disable-background-networking"]
        )
        page = chromium.new_page(**options)
        errors: list[str] = []
        page.on("console", lambda message: errors.append(_error(message)))
        page.on("pageerror", lambda error: errors.append(str(error)))
        yield page, errors
        chromium.close()


def _error(message) -> str:
    """The text of an error, and nothing of what Streamlit itself tries: its own address below a page's."""
    own = "/_stcore/" in message.location.get("url", "")
    return message.text if message.type == "error" and not own else ""


def settle(page) -> None:
    """Wait until the page is drawn."""
    page.wait_for_timeout(400)
    page.wait_for_selector(DONE, timeout=60_000)
    page.wait_for_timeout(400)
