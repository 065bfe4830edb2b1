"""The leaderboard in a real browser: for the tests of it, and for the pictures in the README.

``python -m tests.browser`` says whether there is one. PGEN_BROWSER in the environment names the Chromium to use, or is
"required" where any will do; under either the tests fail where they would be skipped.
"""

import contextlib
import dataclasses
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

ROOT = Path(__file__).parents[1]
CANDIDATES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
DONE = (
    "[data-testid=stApp][data-test-connection-state=CONNECTED][data-test-script-state=notRunning]"
)
QUIET = (
    400  # milliseconds: within that a click has started the script, and its last elements are drawn
)
LOADED = "link[href], script[src], img[src]"  # what names files that a browser may load


@dataclasses.dataclass
class Seen:
    """What a page has done so far: the errors of its console, and the addresses that it asked for."""

    errors: list[str] = dataclasses.field(default_factory=list)
    requests: list[str] = dataclasses.field(default_factory=list)


def wanted() -> str:
    """What PGEN_BROWSER says; empty where the tests may be skipped."""
    return os.environ.get("PGEN_BROWSER", "")


def program() -> str | None:
    """The Chromium to start: the one that is asked for, else the system's; None leaves it to playwright."""
    if wanted() not in ("", "required"):
        return shutil.which(wanted()) or wanted()
    return next(filter(None, map(shutil.which, CANDIDATES)), None)


def lacking() -> str:
    """Why there is no browser here; empty where there is one."""
    try:
        from playwright.sync_api import Error
    except ImportError:
        return "playwright is not installed: pip install '.[test]'"
    if program():
        return ""
    try:
        with opened():  # playwright knows where it has put its own
            return ""
    except Error:
        return "no Chromium is installed here: CONTRIBUTING.md says how to get one"


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
        process.terminate()  # as a supervisor does: whoever stops the command stops the server
        process.wait(30)
        with (
            contextlib.suppress(ConnectionRefusedError),
            socket.create_connection(("localhost", port), 1),
        ):
            raise AssertionError("the server is still there")
    finally:
        with contextlib.suppress(ProcessLookupError):
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
def launched():
    """A browser."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=program(), args=["--no-sandbox", "--disable-background-networking"]
        )
        yield chromium
        chromium.close()


@contextlib.contextmanager
def page_of(chromium, **options):
    """A page of a browser, which remembers nothing of its others, and what is seen of it."""
    page = chromium.new_page(**options)
    seen = Seen()
    page.on("console", lambda message: seen.errors.extend(_errors(message)))
    page.on("pageerror", lambda error: seen.errors.append(str(error)))
    page.context.on("request", lambda request: seen.requests.append(request.url))
    page.on("websocket", lambda socket: seen.requests.append(socket.url))
    yield page, seen
    page.close()


@contextlib.contextmanager
def opened(**options):
    """A browser's page, and what is seen of it."""
    with launched() as chromium, page_of(chromium, **options) as found:
        yield found


def _errors(message) -> list[str]:
    """The text of an error, and nothing of what Streamlit itself tries: its own address below a page's."""
    own = "/_stcore/" in message.location.get("url", "")
    return [message.text] if message.type == "error" and not own else []


def loaded(page) -> list[str]:
    """The addresses of files that a page names, its icon's too, which not every Chromium asks for."""
    return page.locator(LOADED).evaluate_all("all => all.map(one => one.href || one.src)")


def outside(addresses: Iterable[str]) -> set[str]:
    """Those that are on another machine: neither on localhost nor, as ``data:``, content themselves."""
    split = ((address, urlsplit(address)) for address in addresses)
    return {
        address
        for address, parts in split
        if parts.scheme not in ("data", "blob") and parts.hostname != "localhost"
    }


def settle(page) -> None:
    """Wait until the page is drawn, and stays so for a moment."""
    page.evaluate("window.busy = performance.now()")
    page.wait_for_function(
        f"""() => {{
            const now = performance.now();
            if (!document.querySelector("{DONE}")) window.busy = now;
            return now - window.busy > {QUIET};
        }}""",
        timeout=60_000,
    )


if __name__ == "__main__":
    sys.exit(lacking() or None)
