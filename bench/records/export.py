"""Export of a record, its side file and its generated weights as one zip."""

import zipfile
from pathlib import Path

from bench.errors import BadRequest
from bench.records.record import Artifact, Record
from bench.system import store

RECORD, SIDE, WEIGHTS = "record.json", "side.npz", "generated.safetensors"  # members of the zip
EPOCH = (1980, 1, 1, 0, 0, 0)  # time of every member, so that the same content gives the same bytes


def export(path: Path, output: Path, *, weights: bool = True) -> Path:
    """Write a zip with a record, its side file and, if wanted, its generated weights; return the zip's path.

    Args:
        path: path of the record.
        output: path of the zip to write.
        weights: whether to include the generated weights.

    Raises:
        BadRequest: the record is invalid, or its side file or weights are missing or not those that it names.
    """
    record = Record.read(path)
    members = {RECORD: path}
    if record.artifacts.side:
        file = path.with_suffix(".npz")
        _require(file, record.artifacts.side, "run the record's command again")
        members[SIDE] = file
    if weights:
        name = Path(record.artifacts.generated.file).name
        file = store.fetch(store.home() / "generated" / name)
        help_ = "run the record's command again, set BENCH_HOME to where it was run, or leave them out: --no-weights"
        _require(file, record.artifacts.generated, help_)
        members[WEIGHTS] = file
    with store.atomic(output) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name, file in members.items():
            archive.writestr(zipfile.ZipInfo(name, EPOCH), file.read_bytes())
    return output


def _require(path: Path, named: Artifact, help_: str) -> None:
    """Raise an error if a file is missing, or its hash is not the one in the record.

    Args:
        path: path of the file.
        named: file name and hash in the record.
        help_: what to do about it, for the message.

    Raises:
        BadRequest: the file is missing or another one.
    """
    if not path.is_file():
        raise BadRequest(f"{path} is not there: {help_}")
    if store.file_hash(path) != named.sha256:
        raise BadRequest(f"{path} is not the file that the record names: {help_}")
