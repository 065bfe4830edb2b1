"""Packages that somebody else installed: real metadata in a folder on the path."""

from pathlib import Path

import pytest


def install(patch: pytest.MonkeyPatch, folder: Path, name: str, **groups: dict[str, str]) -> None:
    """Register entry points as an installed distribution does.

    Args:
        patch: undoes it at the end of the test.
        folder: where modules of the package may be written to as well.
        name: the distribution's.
        groups: for each kind of plugin, such as ``tasks``, values of its entry points by name.
    """
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    lines = []
    for group, entries in groups.items():
        lines += [f"[bench.{group}]", *(f"{key} = {value}" for key, value in entries.items())]
    (info / "entry_points.txt").write_text("\n".join(lines))
    patch.syspath_prepend(folder)
