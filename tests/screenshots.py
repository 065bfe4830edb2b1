"""The README's pictures of the leaderboard, from the shipped records: ``python -m tests.screenshots``."""

from tests import browser

FOLDER = browser.ROOT / "docs"
PAGES = {"overview": "", "board": "board"}  # the largest board
LOADED = (
    "() => !document.querySelector('[data-testid=stSkeleton]')"  # no grey bar stands for a part
)


def main() -> None:
    """Write ``docs/<page>.png``."""
    size = {"width": 1280, "height": 1000}
    with browser.served() as address:
        for name, path in PAGES.items():
            with browser.opened(viewport=size, device_scale_factor=1) as (page, _):
                page.goto(f"{address}/{path}")
                browser.settle(page)
                page.wait_for_function(LOADED, timeout=60_000)
                page.wait_for_timeout(3000)
                page.screenshot(path=FOLDER / f"{name}.png")
                print(FOLDER / f"{name}.png")


if __name__ == "__main__":
    main()
