import json
import struct
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.record_writer import masked_crc32c

from jaxpg.algorithm import InputError
from jaxpg.experiment import logs

ROWS = [
    {"update": 1, "env_steps": 64, "seconds": 0.5, "loss": [1.0, 3.0], "episode_return": [None, None]},
    {"update": 2, "env_steps": 128, "seconds": 1.0, "loss": [2.0, 2.5], "episode_return": [None, 7.0]},
    {"update": 3, "env_steps": 192, "seconds": 1.5, "loss": [0.0, 0.5], "episode_return": [5.0, 8.0]},
]


def read_events(path):
    """The events of a TFRecord file, whose checksums are checked."""
    data, events = path.read_bytes(), []
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        assert struct.unpack("<I", data[8:12]) == (masked_crc32c(data[:8]),)
        content, data = data[12 : 12 + length], data[12 + length :]
        assert struct.unpack("<I", data[:4]) == (masked_crc32c(content),)
        data = data[4:]
        events.append(Event.FromString(content))
    return events


# --- metrics.jsonl --------------------------------------------------------------------------------------------------------


def test_rows_are_on_disk_as_soon_as_they_are_logged(tmp_path):
    path = tmp_path / "metrics.jsonl"
    log = logs.json_lines(path, keep_until=0, warn=pytest.fail)
    for number, row in enumerate(ROWS, start=1):
        log(row)
        assert logs.read_rows(path) == ROWS[:number]
    assert [json.loads(line) for line in path.read_text().splitlines()] == ROWS


@pytest.mark.parametrize("torn", ["", '{"update": 4, "env_st', "\0\0\0\0"])
def test_a_resumed_run_continues_after_the_checkpoint(tmp_path, torn):
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS) + torn)
    log = logs.json_lines(path, keep_until=2, warn=pytest.fail)
    assert logs.read_rows(path) == ROWS[:2]
    log({**ROWS[2], "seconds": 9.0})
    assert logs.read_rows(path) == [*ROWS[:2], {**ROWS[2], "seconds": 9.0}]


DAMAGED = ['{"update": 2, "env_st', "\0\0", "[1]", '{"update": "2", "env_steps": 128}', "[" * 10**5]
DAMAGED.append(f'{{"update": 2, "env_steps": 1{"0" * 400}}}')


@pytest.mark.parametrize("damaged", DAMAGED)
def test_a_damaged_line_is_named_and_nothing_behind_it_is_lost(tmp_path, damaged):
    path = tmp_path / "metrics.jsonl"
    first, _, last = [json.dumps(row) + "\n" for row in ROWS]
    path.write_text(first + damaged + "\n" + last)
    warnings = []
    logs.json_lines(path, keep_until=3, warn=warnings.append)
    assert path.read_text() == first + damaged + "\n" + last
    assert [f"{path}, line 2 is damaged" in warning for warning in warnings] == [True]
    logs.json_lines(path, keep_until=2, warn=warnings.append)
    assert path.read_text() == first + damaged + "\n"


def test_json_has_no_nan():
    values = logs.finite_or_none(np.array([1.0, np.nan, np.inf, -np.inf]))
    assert json.dumps(values, allow_nan=False) == "[1.0, null, null, null]"


# --- TensorBoard ----------------------------------------------------------------------------------------------------------


def test_tensorboard_reads_the_means_over_seeds(tmp_path):
    before = time.time()
    log = logs.tensorboard(tmp_path, first_step=0)
    for row in ROWS:
        log(row)
    (path,) = tmp_path.glob("events.out.tfevents.*")
    version, start, *events = read_events(path)
    assert version.file_version == "brain.Event:2"
    assert (start.session_log.status, start.step) == (SessionLog.START, 0)
    read = [{value.tag: value.simple_value for value in event.summary.value} for event in events]
    assert read == [{"loss": 2.0}, {"loss": 2.25, "episode_return": 7.0}, {"loss": 0.25, "episode_return": 6.5}]
    assert [event.step for event in events] == [64, 128, 192]
    times = [event.wall_time for event in (version, start, *events)]
    assert before <= times[0]
    assert times == sorted(times)
    assert times[-1] <= time.time()


def test_a_resumed_run_supersedes_later_events_in_a_file_of_its_own(tmp_path):
    logs.tensorboard(tmp_path, first_step=0)(ROWS[0])
    first = {path: path.read_bytes() for path in tmp_path.iterdir()}
    logs.tensorboard(tmp_path, first_step=64)(ROWS[1])
    (second,) = set(tmp_path.iterdir()) - set(first)
    assert all(path.read_bytes() == content for path, content in first.items())
    assert second.name > next(iter(first)).name  # TensorBoard reads a folder's files in this order
    _, start, event = read_events(second)
    assert (start.session_log.status, start.step, event.step) == (SessionLog.START, 64, 128)


# --- Weights & Biases -----------------------------------------------------------------------------------------------------


def test_weights_and_biases_gets_the_means(tmp_path, monkeypatch):
    begun, logged = [], []
    run = SimpleNamespace(log=lambda values, step: logged.append((step, values)))
    wandb = SimpleNamespace(init=lambda **arguments: begun.append(arguments) or run, __spec__=object())
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    logs.require_wandb()
    log = logs.weights_and_biases("a project", tmp_path / "a run", {"seed": 1})
    for row in ROWS[:2]:
        log(row)
    assert logged == [(64, {"loss": 2.0}), (128, {"loss": 2.25, "episode_return": 7.0})]
    assert (begun[0]["project"], begun[0]["config"], begun[0]["resume"]) == ("a project", {"seed": 1}, "allow")


def test_weights_and_biases_is_asked_for_by_name(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(InputError, match=r"wandb: .*pip install -c requirements.lock -e '\.\[wandb\]'$"):
        logs.require_wandb()
