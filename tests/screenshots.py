"""The README's pictures of the leaderboard, from the shipped records: ``python -m tests.screenshots``."""

from tests import browser

FOLDER = browser.ROOT / "docs"
PAGES = {
    "leaderboard": "?board={board}&by=Mean",
    "compare": "compare?{runs}",
}
LOADED = (
    "() => !document.querySelector('[data-testid=stSkeleton]')"  # no grey bar stands for a part
)


def main() -> None:
    """Write ``docs/<page>.png``."""
    import pandas as pd

    from leaderboard import load, variants
    from leaderboard.boards import boards, largest

    runs = load.load([browser.ROOT / "leaderboard" / "results"])[0]
    found = boards(runs)
    board = largest(found)
    own = runs[(runs["board"] == board) & (runs["seed"] == 0)]
    own = own[variants.names(own).isin(["pdiff", "vae"])].sort_values("generator")
    assert isinstance(own, pd.DataFrame)
    chosen = "&".join(f"run={run}" for run in own["id"])
    with browser.served() as address:
        for name, path in PAGES.items():
            size = {"width": 1280, "height": 900}
            with browser.opened(viewport=size, device_scale_factor=1) as (page, _):
                page.goto(f"{address}/{path.format(board=board, runs=chosen)}")
                browser.settle(page)
                page.wait_for_function(LOADED, timeout=60_000)
                page.wait_for_timeout(3000)
                page.screenshot(path=FOLDER / f"{name}.png")
                print(FOLDER / f"{name}.png")


if __name__ == "__main__":
    main()
