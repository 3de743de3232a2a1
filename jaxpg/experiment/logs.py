"""Where the numbers of a run go: `metrics.jsonl`, TensorBoard and, on request, Weights & Biases."""

import importlib.util
import json
import math
import socket
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tensorboardX.proto import event_pb2, summary_pb2
from tensorboardX.record_writer import masked_crc32c

from jaxpg.algorithm import InputError
from jaxpg.experiment.files import append, is_number, parse_json, read, write_atomically
from jaxpg_envs.suites import how_to_install

Row = dict[str, Any]
Log = Callable[[Row], None]


def finite_or_none(values: np.ndarray) -> list[float | None]:
    """Numbers for JSON, which has no NaN or infinity."""
    return [float(x) if math.isfinite(x) else None for x in np.asarray(values, float)]


class Line(NamedTuple):
    """A line of a `metrics.jsonl`.

    Attributes:
      number: from 1.
      row: None if the line is damaged.
    """

    number: int
    text: bytes
    row: Row | None


def read_lines(path: Path) -> list[Line]:
    """The lines of a `metrics.jsonl` without a last one torn by a crash; none if there is no such file.

    Raises:
      InputError: the file cannot be read, or is a link.
    """
    try:
        *whole, _ = read(path).split(b"\n")
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {path}: {error}") from error
    return [Line(number, text, _row(text)) for number, text in enumerate(whole, start=1) if text.strip()]


def _row(text: bytes) -> Row | None:
    try:
        row = parse_json(text)
    except ValueError:
        return None
    is_sound = isinstance(row, dict) and type(row.get("update")) is int and is_number(row.get("env_steps"))
    is_sound = is_sound and all(
        x is None or is_number(x) for value in row.values() for x in (value if isinstance(value, list) else [value])
    )
    return row if is_sound else None


def read_rows(path: Path) -> list[Row]:
    """The rows of a `metrics.jsonl`, without damaged lines."""
    return [line.row for line in read_lines(path) if line.row is not None]


def json_lines(path: Path, keep_until: int, warn: Callable[[str], None]) -> Log:
    """Appends rows to a file, after dropping those beyond update `keep_until`: a resumed run computes them again.

    A damaged line stays as it is, and `warn` is told.
    """
    kept, is_beyond = [], False
    for line in read_lines(path):
        if line.row is None:
            warn(f"{path}, line {line.number} is damaged: the file cannot be drawn until it is mended or removed")
        else:
            is_beyond = line.row["update"] > keep_until
        if not is_beyond:
            kept.append(line.text + b"\n")
    write_atomically(path, b"".join(kept))

    def log(row: Row) -> None:
        append(path, (json.dumps(row) + "\n").encode())

    return log


def tensorboard(folder: Path, first_step: int) -> Log:
    """Writes the mean over seeds of every metric as TensorBoard events.

    Events from `first_step` on that an interrupted run left are marked as superseded.
    """
    path = folder / f"events.out.tfevents.{time.time_ns()}.{socket.gethostname()}"

    path.open("xb").close()  # nobody else's

    def write(**content: Any) -> None:
        append(path, _record(event_pb2.Event(wall_time=time.time(), **content).SerializeToString()))

    write(file_version="brain.Event:2")
    write(session_log=event_pb2.SessionLog(status=event_pb2.SessionLog.START), step=first_step)

    def log(row: Row) -> None:
        values = [summary_pb2.Summary.Value(tag=name, simple_value=mean) for name, mean in _means(row).items()]
        write(summary=summary_pb2.Summary(value=values), step=row["env_steps"])

    return log


def _record(content: bytes) -> bytes:
    """A TFRecord: length and content, each followed by its checksum."""
    length = struct.pack("<Q", len(content))
    return b"".join([length, struct.pack("<I", masked_crc32c(length)), content, struct.pack("<I", masked_crc32c(content))])


def require_wandb() -> None:
    """Raises `InputError` if the package `wandb` is not installed."""
    if importlib.util.find_spec("wandb") is None:
        raise InputError(f"--wandb needs the package wandb: {how_to_install('wandb')}")


def weights_and_biases(project: str, folder: Path, config: dict[str, Any]) -> Log:
    """Logs the mean over seeds of every metric to a Weights & Biases project."""
    import wandb

    run = wandb.init(project=project, dir=str(folder), config=config, id=folder.absolute().name, resume="allow")

    def log(row: Row) -> None:
        run.log(_means(row), step=row["env_steps"])

    return log


def _means(row: Row) -> dict[str, float]:
    """Means over the seeds that have a value, of every metric of which one has."""
    present = {name: [x for x in value if x is not None] for name, value in row.items() if isinstance(value, list)}
    return {name: sum(values) / len(values) for name, values in present.items() if values}
