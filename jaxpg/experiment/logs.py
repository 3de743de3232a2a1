"""Where the numbers of a run go: `metrics.jsonl`, TensorBoard and, on request, Weights & Biases."""

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto import event_pb2, summary_pb2

from jaxpg.algorithm import InputError
from jaxpg.experiment.checkpoints import write_atomically

Row = dict[str, Any]
Log = Callable[[Row], None]


def finite_or_none(values: np.ndarray) -> Any:
    """Numbers for JSON, which has no NaN or infinity."""
    return [float(x) if math.isfinite(x) else None for x in np.asarray(values, float)]


def read_rows(path: Path) -> list[Row]:
    """The rows of a `metrics.jsonl`; a last line torn by a crash is left out."""
    rows = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


def json_lines(path: Path, keep_until: int) -> Log:
    """Appends rows to a file, after dropping those beyond update `keep_until`: a resumed run computes them again."""
    kept = [row for row in read_rows(path) if row["update"] <= keep_until]
    write_atomically(path, "".join(json.dumps(row) + "\n" for row in kept))
    file = open(path, "a", buffering=1)  # noqa: SIM115  (it lives as long as the run)

    def log(row: Row) -> None:
        file.write(json.dumps(row) + "\n")

    return log


def tensorboard(folder: Path, first_step: int) -> Log:
    """Writes the mean over seeds of every metric as TensorBoard events, without a background thread.

    Events from `first_step` on that an interrupted run left are marked as superseded.
    """
    writer = EventsWriter(str(folder / "events"))
    start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
    writer.write_event(event_pb2.Event(session_log=start, step=first_step, wall_time=time.time()))

    def log(row: Row) -> None:
        values = []
        for name, value in row.items():
            present = [x for x in value if x is not None] if isinstance(value, list) else []
            if present:
                values.append(summary_pb2.Summary.Value(tag=name, simple_value=sum(present) / len(present)))
        summary = summary_pb2.Summary(value=values)
        writer.write_event(event_pb2.Event(summary=summary, step=row["env_steps"], wall_time=time.time()))
        writer.flush()

    return log


def weights_and_biases(project: str, folder: Path, config: dict[str, Any]) -> Log:
    """Logs the mean over seeds of every metric to a Weights & Biases project.

    Raises:
      InputError: the package `wandb` is not installed.
    """
    try:
        import wandb
    except ImportError as error:
        raise InputError("--wandb needs the package wandb: pip install 'jaxpg[wandb]'") from error
    run = wandb.init(project=project, dir=str(folder), config=config, id=folder.absolute().name, resume="allow")

    def log(row: Row) -> None:
        lists = {name: [x for x in value if x is not None] for name, value in row.items() if isinstance(value, list)}
        run.log({name: sum(value) / len(value) for name, value in lists.items() if value}, step=row["env_steps"])

    return log
