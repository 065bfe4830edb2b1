"""A record with its side file and its generated weights as one zip, to send to somebody."""

import zipfile
from pathlib import Path

from bench.errors import BadRequest
from bench.records.record import Artifact, Record
from bench.system import store

RECORD, SIDE, WEIGHTS = "record.json", "side.npz", "generated.safetensors"  # members of the zip
EPOCH = (1980, 1, 1, 0, 0, 0)  # the same content gives the same bytes


def export(path: Path, output: Path, *, weights: bool = True) -> Path:
    """Pack a record.

    Args:
        path: of the record.
        output: the zip to write.
        weights: whether the generated weights go with it.

    Raises:
        BadRequest: the record, its side file or its weights are missing, or not those that it names.
    """
    record = Record.read(path)
    members = {RECORD: path}
    if record.artifacts.side:
        file = path.with_suffix(".npz")
        _same(file, record.artifacts.side, "run the record's command again")
        members[SIDE] = file
    if weights:
        name = Path(record.artifacts.generated.file).name
        file = store.fetch(store.home() / "generated" / name)
        help_ = "run the record's command again, set BENCH_HOME to where it was run, or leave them out: --no-weights"
        _same(file, record.artifacts.generated, help_)
        members[WEIGHTS] = file
    with store.atomic(output) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name, file in members.items():
            archive.writestr(zipfile.ZipInfo(name, EPOCH), file.read_bytes())
    return output


def _same(path: Path, named: Artifact, help_: str) -> None:
    """Refuse a file that is missing, or is not the one that the record names."""
    if not path.is_file():
        raise BadRequest(f"{path} is not there: {help_}")
    if store.file_hash(path) != named.sha256:
        raise BadRequest(f"{path} is not the file that the record names: {help_}")
