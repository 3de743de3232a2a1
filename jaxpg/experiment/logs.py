"""Where the numbers of a run go: `metrics.jsonl`, TensorBoard and, on request, Weights & Biases."""

import importlib.util
import json
import math
import socket
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from tensorboardX.proto import event_pb2, summary_pb2
from tensorboardX.record_writer import masked_crc32c

from jaxpg.algorithm import InputError
from jaxpg.experiment.checkpoints import write_atomically
from jaxpg_envs.suites import how_to_install

Row = dict[str, Any]
Log = Callable[[Row], None]


def finite_or_none(values: np.ndarray) -> list[float | None]:
    """Numbers for JSON, which has no NaN or infinity."""
    return [float(x) if math.isfinite(x) else None for x in np.asarray(values, float)]


def read_rows(path: Path) -> list[Row]:
    """The rows of a `metrics.jsonl`; a last line torn by a crash is left out."""
    rows = []
    for line in path.read_text(errors="replace").splitlines() if path.exists() else []:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


def append(path: Path, content: bytes) -> None:
    """Appends to a file and closes it, so that a full disk is noticed here, not by a buffer that is flushed later."""
    with open(path, "ab") as file:
        file.write(content)


def json_lines(path: Path, keep_until: int) -> Log:
    """Appends rows to a file, after dropping those beyond update `keep_until`: a resumed run computes them again."""
    kept = [row for row in read_rows(path) if row["update"] <= keep_until]
    write_atomically(path, "".join(json.dumps(row) + "\n" for row in kept))

    def log(row: Row) -> None:
        append(path, (json.dumps(row) + "\n").encode())

    return log


def tensorboard(folder: Path, first_step: int) -> Log:
    """Writes the mean over seeds of every metric as TensorBoard events.

    Events from `first_step` on that an interrupted run left are marked as superseded.
    """
    path = folder / f"events.out.tfevents.{time.time_ns()}.{socket.gethostname()}"

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
