"""A run that was killed, wherever, continues to the bit."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from functools import partial

import commands
import pytest
from commands import RUNNER, Command, endless_chunk, kill, no_space, on_call, save_every_chunk, send, stop_itself

from jaxpg.algorithm import InputError
from jaxpg.experiment import RunError, evaluate_run, load, run
from jaxpg.experiment.checkpoints import Checkpoints
from jaxpg.experiment.logs import read_rows

TRAIN = f"train ppo --env CartPole-v1 --num-seeds 2 --total-steps {commands.TOTAL_STEPS} {commands.TINY}"


def digest(folder):
    return json.loads((folder / "summary.json").read_text())["state_digest"]


def rows(folder):
    text = (folder / "metrics.jsonl").read_text()
    assert text.endswith("\n")
    return [{name: value for name, value in json.loads(line).items() if name != "seconds"} for line in text.splitlines()]


def same_results(folder, reference):
    assert digest(folder) == digest(reference)
    assert rows(folder) == rows(reference)
    updates = [row["update"] for row in rows(folder)]
    assert updates == [*range(2, commands.NUM_UPDATES, 2), commands.NUM_UPDATES]
    seconds = [row["seconds"] for row in read_rows(folder / "metrics.jsonl")]
    assert seconds == sorted(seconds)


# --- kill -9 --------------------------------------------------------------------------------------------------------------

KILLED_AT = {
    "while the folder is made": ("jaxpg.experiment.folder:write_atomically", 1),
    "before the first checkpoint": ("jaxpg.experiment.checkpoints:Checkpoints.save", 1),
    "while orbax renames the first checkpoint": ("orbax.checkpoint._src.path.atomicity:AtomicRenameTemporaryPath.finalize", 1),
    "after orbax, before the note of it": ("jaxpg.experiment.checkpoints:write_atomically", 1),
    "between two checkpoints": ("jaxpg.experiment.logs:append", 21),
    "while orbax renames a later one": ("orbax.checkpoint._src.path.atomicity:AtomicRenameTemporaryPath.finalize", 7),
    "while the note is replaced": ("jaxpg.experiment.checkpoints:os.replace", 6),
    "after the last checkpoint": ("jaxpg.experiment.run:evaluate_run", 1),
    "before the summary": ("jaxpg.experiment.run:draw_behaviour", 1),
}
# What differs in what is found afterwards.
FOUND = ("before the first checkpoint", "after orbax, before the note of it", "between two checkpoints", "before the summary")


@pytest.mark.parametrize("moments", [FOUND, pytest.param(tuple(KILLED_AT), marks=pytest.mark.thorough)], ids=["few", "all"])
def test_a_run_killed_again_and_again(finished_run, tmp_path, moments):
    folder = tmp_path / "run"
    progress = [0]
    for when in moments:
        place, call = KILLED_AT[when]
        result = Command(f"{TRAIN} --out {folder} --resume", tmp_path, partial(on_call, place, call, kill)).wait()
        assert result.code == -signal.SIGKILL, (when, result.stderr)
        rows_now = read_rows(folder / "metrics.jsonl")
        progress.append(rows_now[-1]["update"] if rows_now else 0)
    assert progress[-1] == commands.NUM_UPDATES
    assert len(set(progress)) > len(moments) // 2 + 1  # it had come further each time
    result = Command(f"{TRAIN} --out {folder} --resume", tmp_path).wait()
    assert result.code == 0, result.stderr
    assert f"resuming {folder} after update {commands.NUM_UPDATES} of {commands.NUM_UPDATES}\n" in result.stderr
    same_results(folder, finished_run)
    assert [path.name for path in (folder / "checkpoints").iterdir() if "tmp" in path.name] == []


@pytest.mark.thorough
def test_a_run_on_two_devices_killed_after_its_first_checkpoint(tmp_path):
    """At random moments: `make test-faults`."""
    train = f"{TRAIN} --num-seeds 4 --num-devices 2".replace("--num-seeds 2 ", "")
    reference, folder = tmp_path / "reference", tmp_path / "run"
    assert Command(f"{train} --out {reference}", tmp_path).wait().code == 0
    command = Command(f"{train} --out {folder}", tmp_path, save_every_chunk)
    assert command.wait_for((folder / "latest_checkpoint.json").exists)
    command.process.kill()
    command.process.join()
    result = Command(f"{train} --out {folder} --resume", tmp_path).wait()
    assert result.code == 0, result.stderr
    assert "resuming" in result.stderr
    same_results(folder, reference)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_saves_the_last_chunk(tmp_path, finished_run, number):
    folder = tmp_path / "run"
    command = Command(
        f"{TRAIN} --out {folder}", tmp_path, partial(on_call, "jaxpg.experiment.logs:append", 21, partial(send, number), False)
    )
    result = command.wait()
    assert result.code == 128 + number, result.stderr
    assert "Traceback" not in result.stderr
    (checkpoint,) = Checkpoints(folder).updates()[-1:]
    assert read_rows(folder / "metrics.jsonl")[-1]["update"] == checkpoint < commands.NUM_UPDATES
    last = f"stopped by {number.name} after update {checkpoint}, which is saved; continue with --resume"
    assert result.stderr.splitlines()[-1] == last
    if number != signal.SIGTERM:
        return
    result = Command(f"{TRAIN} --out {folder} --resume", tmp_path).wait()
    assert result.code == 0, result.stderr
    assert f"resuming {folder} after update {checkpoint} of" in result.stderr
    same_results(folder, finished_run)


def test_a_second_signal_leaves_at_once(tmp_path):
    """The first comes while a chunk is computed that never ends."""
    folder = tmp_path / "run"
    command = Command(f"{TRAIN} --out {folder}", tmp_path, endless_chunk)
    assert command.wait_for(lambda: "waiting for ever" in command.stderr())
    os.kill(command.process.pid, signal.SIGTERM)
    time.sleep(0.5)
    assert command.process.is_alive()
    os.kill(command.process.pid, signal.SIGTERM)
    result = command.wait(timeout=5)
    assert (result.code, result.stderr.splitlines()[-1]) == (143, "jaxpg: interrupted; continue with --resume")


def test_a_chunk_that_takes_too_long_is_dropped(tmp_path):
    folder = tmp_path / "run"
    command = Command(f"{TRAIN} --out {folder}", tmp_path, partial(endless_chunk, patience=0.5))
    assert command.wait_for(lambda: "waiting for ever" in command.stderr())
    os.kill(command.process.pid, signal.SIGTERM)
    result = command.wait(timeout=20)
    assert result.code == 143, result.stderr
    assert "stopped by SIGTERM within the updates up to 2. No checkpoint had been saved yet; continue" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("place", ["jaxpg.experiment.command_line:lookup", "jaxpg.experiment.run:compile_step"])
def test_a_signal_during_the_start_leaves_no_traceback(tmp_path, place):
    hook = partial(on_call, place, 1, partial(send, signal.SIGTERM))
    result = Command(f"{TRAIN} --out {tmp_path / 'run'}", tmp_path, hook).wait()
    assert (result.code, result.stderr.splitlines()[-1]) == (143, "jaxpg: interrupted; continue with --resume")
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "run").exists()


def test_a_signal_while_the_modules_are_imported_leaves_no_traceback(tmp_path):
    """The handlers stand before JAX is imported."""
    program = """if True:
        import signal, sys
        class WhenJaxIsImported:
            def find_spec(name, *_):
                if name == "jax":
                    signal.raise_signal(signal.SIGINT)
        sys.meta_path.insert(0, WhenJaxIsImported)
        from jaxpg.__main__ import main
        main(["list"])
    """
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, "jaxpg: interrupted\n")


# --- Another process ------------------------------------------------------------------------------------------------------


def test_a_second_process_on_the_same_folder_is_refused(tmp_path, finished_run):
    folder = tmp_path / "run"
    (tmp_path / "other").mkdir()
    first = Command(f"{TRAIN} --out {folder}", tmp_path, partial(on_call, "jaxpg.experiment.logs:append", 40, stop_itself))
    assert first.wait_for(lambda: len(read_rows(folder / "metrics.jsonl")) == 19)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for resume in ("", " --resume"):
        second = Command(f"{TRAIN} --out {folder}{resume}", tmp_path / "other").wait()
        assert (second.code, "another process is training here" in second.stderr) == (2, True), second.stderr
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    os.kill(first.process.pid, signal.SIGCONT)
    assert first.wait().code == 0
    same_results(folder, finished_run)


# --- Damaged checkpoints --------------------------------------------------------------------------------------------------


def resume(folder):
    return run("ppo", "CartPole-v1", folder, num_seeds=2, resume=True, total_steps=commands.TOTAL_STEPS, **commands.SETTINGS)


def test_a_run_whose_newest_checkpoint_is_damaged(copy_of_run, finished_run, capsys):
    newest = copy_of_run / "checkpoints" / str(commands.NUM_UPDATES)
    for path in newest.rglob("*"):
        if path.is_file():
            os.truncate(path, path.stat().st_size // 2)
    resume(copy_of_run)
    told = capsys.readouterr().err
    assert f"warning: the checkpoint after update {commands.NUM_UPDATES} is damaged" in told
    assert f"after update {commands.NUM_UPDATES - 1} of {commands.NUM_UPDATES}" in told
    assert "Traceback" not in told
    same_results(copy_of_run, finished_run)
    saved = load(copy_of_run, pytest.fail)  # the damaged one was written again
    assert int(saved.states.learner.optimizer_state[1][0].count[0]) == 2 * commands.NUM_UPDATES


def test_evaluating_a_damaged_run_changes_nothing(copy_of_run):
    shutil.rmtree(copy_of_run / "checkpoints" / str(commands.NUM_UPDATES))
    (copy_of_run / "checkpoints" / "300.orbax-checkpoint-tmp").mkdir()
    before = {path: path.stat().st_mtime_ns for path in copy_of_run.rglob("*")}
    warnings = []
    assert math.isfinite(evaluate_run(load(copy_of_run, warnings.append), num_episodes=2)[0])
    assert "gone: falling back" in warnings[0]
    assert {path: path.stat().st_mtime_ns for path in copy_of_run.rglob("*")} == before


def test_a_run_without_a_whole_checkpoint_is_not_begun_again_silently(copy_of_run):
    for path in (copy_of_run / "checkpoints").rglob("manifest.ocdbt"):
        os.truncate(path, 0)
    metrics = (copy_of_run / "metrics.jsonl").read_bytes()
    with pytest.raises(RunError, match=r"no checkpoint in .* can be read: start the run again in another folder"):
        resume(copy_of_run)
    assert (copy_of_run / "metrics.jsonl").read_bytes() == metrics


def test_a_run_whose_metrics_are_gone_still_gets_its_summary(copy_of_run, finished_run, capsys):
    (copy_of_run / "metrics.jsonl").unlink()
    (copy_of_run / "curve.png").unlink()
    resume(copy_of_run)
    assert digest(copy_of_run) == digest(finished_run)
    assert "warning: the learning curve is not drawn: " in capsys.readouterr().err
    assert not (copy_of_run / "curve.png").exists()


# --- Full disks -----------------------------------------------------------------------------------------------------------

FULL_AT = {
    "metrics": ("jaxpg.experiment.logs:append", 30),
    "checkpoint": ("orbax.checkpoint:CheckpointManager.save", 4),
    "curve": ("jaxpg.experiment.plots:Picture.savefig", 1),
    "summary": ("jaxpg.experiment.run:write_atomically", 1),
}


@pytest.mark.thorough
def test_a_disk_that_is_full_again_and_again(finished_run, tmp_path):
    folder = tmp_path / "run"
    assert Command(f"{TRAIN} --out {folder}", tmp_path, partial(on_call, "jaxpg.experiment.run:compile_step", 1, kill)).wait()
    for when, (place, call) in FULL_AT.items():
        result = Command(f"{TRAIN} --out {folder} --resume", tmp_path, partial(on_call, place, call, no_space)).wait()
        assert result.code == 1, (when, result)
        assert "Traceback" not in result.stderr
        message = result.stderr.splitlines()[-1]
        assert message.startswith("jaxpg: "), when
        assert "No space left on device" in message, when
        assert "--resume" in message, when
    assert Command(f"{TRAIN} --out {folder} --resume", tmp_path).wait().code == 0
    same_results(folder, finished_run)


def test_a_file_that_cannot_grow(finished_run, tmp_path):
    """A write that really fails, in the middle of a line."""
    folder, size = tmp_path / "run", 30_000
    result = Command(f"{TRAIN} --out {folder}", tmp_path, partial(commands.limit_file_size, size)).wait()
    assert result.code == 1
    assert "Traceback" not in result.stderr
    assert "File too large" in result.stderr.splitlines()[-1]
    assert (folder / "metrics.jsonl").stat().st_size == size
    assert Command(f"{TRAIN} --out {folder} --resume", tmp_path).wait().code == 0
    same_results(folder, finished_run)


def test_a_small_disk(finished_run, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.system(f"mount -t tmpfs -o size=300k tmpfs {disk} 2>/dev/null"):
        pytest.skip("only root may mount a small disk")
    try:
        folder = disk / "run"
        result = Command(f"{TRAIN} --out {folder}", tmp_path, save_every_chunk).wait()
        assert result.code == 1, result.stderr
        assert "Traceback" not in result.stderr
        assert "No space left on device" in result.stderr.splitlines()[-1]
        reached = load(folder, pytest.fail)  # the checkpoint from before is whole
        assert reached.description["num_seeds"] == 2
        assert os.system(f"mount -o remount,size=8m {disk}") == 0
        result = Command(f"{TRAIN} --out {folder} --resume", tmp_path).wait()
        assert result.code == 0, result.stderr
        same_results(folder, finished_run)
    finally:
        os.system(f"umount -l {disk}")


# --- Another run ----------------------------------------------------------------------------------------------------------


def test_a_complete_run_returns_its_summary_at_once(finished_run, monkeypatch):
    before = {path: path.stat().st_mtime_ns for path in finished_run.rglob("*")}
    monkeypatch.setattr(RUNNER, "_run", lambda *_: pytest.fail("it ran again"))
    assert resume(finished_run) == json.loads((finished_run / "summary.json").read_text())
    assert {path: path.stat().st_mtime_ns for path in finished_run.rglob("*")} == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"algorithm": "pmoe_ppo", "env": "Pendulum-v1"}, "its algorithm is 'ppo', not 'pmoe_ppo'"),
        ({"env": "Acrobot-v1"}, "its env is 'CartPole-v1', not 'Acrobot-v1'"),
        ({"seed": 7}, "its seed is 0, not 7"),
        ({"num_seeds": 3}, "its num_seeds is 2, not 3"),
        ({"discount": 0.5}, r"its discount is 0\.99\d*, not 0\.5"),
        ({"hidden_sizes": (16,)}, r"its hidden_sizes is \[8\], not \[16\]"),
    ],
)
def test_a_folder_of_another_run_is_refused(finished_run, monkeypatch, change, message):
    monkeypatch.setattr(RUNNER, "_run", lambda *_: pytest.fail("it ran"))
    arguments = {"algorithm": "ppo", "env": "CartPole-v1", "num_seeds": 2, "total_steps": commands.TOTAL_STEPS}
    arguments |= {**commands.SETTINGS, **change}
    with pytest.raises(InputError, match=f"holds another run: {message}; give the same, or choose another --out"):
        run(out=finished_run, resume=True, **arguments)


def test_a_run_is_not_shortened(finished_run):
    message = f"its total_steps is {commands.TOTAL_STEPS}, not 128; give the same or more, or choose another --out"
    with pytest.raises(InputError, match=message):
        run("ppo", "CartPole-v1", finished_run, num_seeds=2, resume=True, total_steps=128, **commands.SETTINGS)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "was not written by jaxpg: Expecting property name"),
        ("", "was not written by jaxpg: Expecting value"),
        ("[1]", "it is not a JSON object"),
        ('{"name": "left-pad", "version": "1.0.0"}', "it has no valid algorithm, config, env, env_options"),
        (
            '{"algorithm": "ppo", "env": "CartPole-v1", "seed": "0"}',
            "no valid config, env_options, num_devices, num_seeds, seed",
        ),
        ("\xff\xfe", "was not written by jaxpg"),
    ],
)
def test_a_foreign_config_is_refused(tmp_path, text, message):
    (tmp_path / "config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match=message):
        run("ppo", "CartPole-v1", tmp_path, resume=True)
    with pytest.raises(InputError, match=message):
        load(tmp_path)
    assert (tmp_path / "config.json").read_bytes() == text.encode("latin-1")


def test_other_versions_are_told(copy_of_run, finished_run, capsys):
    description = json.loads((copy_of_run / "config.json").read_text())
    description["versions"]["jax"] = "0.0.1"
    (copy_of_run / "config.json").write_text(json.dumps(description))
    shutil.copy(finished_run / "summary.json", copy_of_run)
    resume(copy_of_run)
    assert "warning: other versions than before of jax:" in capsys.readouterr().err


@pytest.mark.parametrize("text", ['{"returns": [', "{}", "[]", '{"total_steps": "64"}'])
def test_a_damaged_summary_is_named(copy_of_run, text):
    (copy_of_run / "summary.json").write_text(text)
    with pytest.raises(InputError, match=r"summary\.json is damaged .*: delete it, then continue with --resume"):
        resume(copy_of_run)


def test_a_summary_of_another_digest_is_noticed(copy_of_run, finished_run):
    text = (finished_run / "summary.json").read_text()
    found = digest(finished_run)
    (copy_of_run / "summary.json").write_text(text.replace(found, found[1:] + found[:1]))
    with pytest.raises(InputError, match=r"summary\.json is damaged \(its content does not match its checksum\): delete it"):
        resume(copy_of_run)


def test_a_folder_with_all_digits_of_a_float32_continues(finished_run, copy_of_run):
    """As they were written before."""
    config = json.loads((copy_of_run / "config.json").read_text())
    config["config"] |= {"learning_rate": 0.0003000000142492354, "discount": 0.9900000095367432}
    (copy_of_run / "config.json").write_text(json.dumps(config))
    settings = {"num_seeds": 2, "total_steps": commands.TOTAL_STEPS, "resume": True, **commands.SETTINGS}
    run("ppo", "CartPole-v1", copy_of_run, **settings)
    assert digest(copy_of_run) == digest(finished_run)
    with pytest.raises(InputError, match=r"its learning_rate is 0\.0003, not 0\.001;"):
        run("ppo", "CartPole-v1", copy_of_run, learning_rate=1e-3, **settings)
