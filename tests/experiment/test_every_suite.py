"""A run on every suite and backend is trained, killed, continued to the bit, and loaded: `make test-environments`.

Outside of `make test`, because the physics alone compiles for minutes. Suites that are not installed are skipped.
"""

import importlib.util
import json
import signal
from functools import partial

import pytest
from commands import Command, kill, on_call, save_every_chunk

import jaxpg_envs
from jaxpg_envs.suites import SUITES

SHORT = {"max_steps_in_episode": 8}
PACKAGES = {"playground": "mujoco_playground"}
CASES = [
    ("CartPole-v1", {}),
    ("Pendulum-v1", {}),
    ("Breakout-MinAtar", {}),
    ("Catch-bsuite", {}),
    ("FourRooms-misc", {}),
    *(("brax/inverted_pendulum", {"backend": backend, **SHORT}) for backend in ("generalized", "positional", "spring", "mjx")),
    ("mjx/hopper", SHORT),
    ("brax/hopper_uni", {"backend": "spring", **SHORT}),
    ("brax/hopper_uni", {"backend": "mjx", **SHORT}),
    ("brax/anttrap_omni", {"backend": "mjx", **SHORT}),
    ("StatelessCartPole-v1", {}),
    ("TargetReaching-v0", {}),
    ("PointOmni-v0", {}),
    ("PlanarArm-v0", {}),
    ("CaveEscape-v0", {"size": 5, "max_steps_in_episode": 20}),
    ("Maze-v0", {"max_steps_in_episode": 20}),
    ("GridWorlds-v0", {"levels": "small"}),
    ("jumanji/Snake-v1", SHORT),
    ("jumanji/TSP-v1", SHORT),
    ("jumanji/Knapsack-v1", SHORT),
    ("pgx/tic_tac_toe", SHORT),
    ("pgx/2048", SHORT),
    ("pgx/go_9x9", SHORT),
    ("pgx/minatar-breakout", SHORT),
    ("craftax/Craftax-Classic-Symbolic-v1", SHORT),
    ("xminigrid/MiniGrid-Empty-5x5", SHORT),
    ("playground/CartpoleBalance", SHORT),
    ("playground/HopperHop", SHORT),
]
TINY = "--total-steps 48 --set.hidden-sizes 8 --set.num-envs 2 --set.num-steps 4 --set.num-epochs 1 --set.num-minibatches 1"


@pytest.mark.environments
@pytest.mark.parametrize(("env", "options"), CASES, ids=lambda value: value if isinstance(value, str) else value.get("backend"))
def test_a_run_is_killed_continued_and_loaded(env, options, tmp_path):
    suite = env.partition("/")[0]
    if suite in SUITES and importlib.util.find_spec(PACKAGES.get(suite, suite)) is None:
        pytest.skip(f"needs the extra jaxpg[{suite}]")
    flags = "--env-options " + " ".join(f"{name}={value}" for name, value in options.items()) if options else ""
    train = f"train ppo --env {env} {TINY} {flags}"
    folder, reference = tmp_path / "run", tmp_path / "reference"

    def call(arguments, hook=None):
        return Command(arguments, tmp_path, hook).wait(timeout=900)

    killed = call(f"{train} --out {folder}", partial(on_call, "jaxpg.experiment.checkpoints:Checkpoints.save", 3, kill))
    assert killed.code == -signal.SIGKILL, killed.stderr
    for out in (folder, reference):
        result = call(f"{train} --out {out} --resume", save_every_chunk)
        assert result.code == 0, result.stderr
    summaries = [json.loads((out / "summary.json").read_text()) for out in (folder, reference)]
    assert summaries[0]["state_digest"] == summaries[1]["state_digest"]
    evaluated = call(f"evaluate {folder} --episodes 2 --json")
    assert evaluated.code == 0, evaluated.stderr
    assert json.loads(evaluated.stdout)["env"] == env


@pytest.mark.environments
def test_every_suite_has_its_case():
    suite_of = {entry.id: entry.suite for entry in jaxpg_envs.registered()}
    assert {suite_of[env] for env, _ in CASES} == set(suite_of.values())
