import importlib.metadata
import json
import math
import signal

import commands
import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from commands import PROGRAM, RUNNER, Command
from test_logs import read_events

import jaxpg
import jaxpg_envs
from jaxpg.algorithm import InputError
from jaxpg.experiment import Run, RunError, evaluate_run, load, run
from jaxpg.experiment.checkpoints import digest, to_host
from jaxpg.experiment.evaluation import evaluation_keys


def strict_json(text):
    return json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def train(folder, env="CartPole-v1", **settings):
    return run("ppo", env, folder, **{"num_seeds": 2, "total_steps": 640, **commands.SETTINGS, **settings})


# --- The folder -----------------------------------------------------------------------------------------------------------


def test_the_summary_says_what_the_contract_promises(finished_run):
    summary = strict_json((finished_run / "summary.json").read_text())
    assert (summary["algorithm"], summary["env"], summary["seed"], summary["num_seeds"]) == ("ppo", "CartPole-v1", 0, 2)
    assert summary["total_steps"] == commands.TOTAL_STEPS
    assert len(summary["returns"]) == 2
    low, high = summary["iqm_ci"]
    assert min(summary["returns"]) <= low <= summary["iqm"] <= high <= max(summary["returns"])
    assert summary["iqm"] == pytest.approx(np.mean(summary["returns"]))  # of two seeds, none is cut
    assert summary["compile_seconds"] > 0
    assert summary["env_steps_per_second"] == pytest.approx(2 * commands.TOTAL_STEPS / summary["train_seconds"])
    last = strict_json((finished_run / "metrics.jsonl").read_text().splitlines()[-1])
    assert summary["train_seconds"] == last["seconds"]
    saved = load(finished_run, pytest.fail)
    assert summary["state_digest"] == digest(to_host(saved.states))
    assert summary["returns"] == evaluate_run(saved).tolist()
    assert summary["initial_iqm"] < summary["iqm"]
    assert (finished_run / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(int(path.name) for path in (finished_run / "checkpoints").iterdir()) == [202, 203]


def test_the_metrics_are_those_of_every_update(finished_run):
    rows = [strict_json(line) for line in (finished_run / "metrics.jsonl").read_text().splitlines()]
    assert [row["update"] for row in rows] == [*range(2, 203, 2), 203]
    assert [row["env_steps"] for row in rows] == [64 * row["update"] for row in rows]
    assert all(len(value) == 2 for row in rows for name, value in row.items() if isinstance(value, list))

    env, env_params = jaxpg_envs.make("CartPole-v1")
    agent = jaxpg.make("ppo", env, env_params, total_steps=commands.TOTAL_STEPS, **commands.SETTINGS)
    keys = jax.random.split(jax.random.key(0), 2)
    _, metrics = jax.jit(jax.vmap(lambda key: jaxpg.train(agent, key, num_updates=6)))(keys)
    for row, first in zip(rows[:3], (0, 2, 4), strict=True):
        pair = {name: np.asarray(value)[:, first : first + 2] for name, value in metrics.items()}
        assert set(pair) - set(PROGRAM.COLLECTED) | {"update", "env_steps", "seconds"} == set(row)
        weights = pair["episodes"]
        np.testing.assert_array_equal(row["episodes"], weights.sum(1))
        np.testing.assert_allclose(row["value_loss"], pair["value_loss"].mean(1), rtol=1e-4)
        for seed in range(2):
            present = weights[seed] > 0
            mean = np.average(pair["episode_return"][seed][present], weights=weights[seed][present])
            assert row["episode_return"][seed] == pytest.approx(mean, rel=1e-4)


def test_evaluations_have_keys_of_their_own():
    """None of them is an agent's, whatever the number of seeds."""
    for num_seeds in (1, 2, 5):
        keys = jnp.concatenate([jax.random.split(jax.random.key(3), num_seeds), evaluation_keys(3, num_seeds)])
        assert len(np.unique(jax.random.key_data(keys), axis=0)) == 2 * num_seeds


def test_tensorboard_shows_the_same(finished_run):
    (path,) = finished_run.glob("events.out.tfevents.*")
    _, _, *events = read_events(path)
    rows = [strict_json(line) for line in (finished_run / "metrics.jsonl").read_text().splitlines()]
    assert [event.step for event in events] == [row["env_steps"] for row in rows]
    for event, row in zip(events, rows, strict=True):
        shown = {value.tag: value.simple_value for value in event.summary.value}
        assert shown["policy_loss"] == pytest.approx(np.mean(row["policy_loss"]), rel=1e-6)
    passed = np.diff([event.wall_time for event in events])
    np.testing.assert_allclose(passed, np.diff([row["seconds"] for row in rows]), atol=2)


def test_config_json_reproduces_the_run(finished_run, finished_digest, tmp_path, monkeypatch):
    saved = strict_json((finished_run / "config.json").read_text())
    assert saved["versions"]["jax"] == importlib.metadata.version("jax")
    assert (saved["config"]["learning_rate"], saved["config"]["discount"]) == (3e-4, 0.99)  # not 0.0003000000142492354
    arguments = {name: saved[name] for name in ("algorithm", "env", "env_options", "seed", "num_seeds", "num_devices")}
    traced, alive = [], []
    advance, append = PROGRAM.advance, RUNNER.logs.append
    monkeypatch.setattr(PROGRAM, "advance", lambda *args: traced.append(args) or advance(*args))
    monkeypatch.setattr(RUNNER.logs, "append", lambda *args: alive.append(len(jax.live_arrays())) or append(*args))
    summary = run(out=tmp_path / "again", **arguments, **saved["config"])
    assert summary["state_digest"] == finished_digest  # though checkpoints were saved at other moments
    assert strict_json((tmp_path / "again" / "config.json").read_text()) == saved
    assert len(traced) == 1  # one program, though the last chunk is shorter
    assert max(alive[10:]) - min(alive[10:]) <= 2 * len(jax.tree.leaves(load(finished_run).states))  # memory is flat


def test_the_command_line_trains_to_the_same_bits(finished_run, finished_digest, tmp_path):
    """Its devices, threads and compilation cache are set up in another way."""
    arguments = f"train ppo --env CartPole-v1 --num-seeds 2 --total-steps {commands.TOTAL_STEPS} {commands.TINY} --json"
    result = Command(f"{arguments} --out {tmp_path / 'run'}", tmp_path).wait()
    assert result.code == 0, result.stderr
    summary = strict_json(result.stdout)
    assert summary == strict_json((tmp_path / "run" / "summary.json").read_text())
    assert summary["state_digest"] == finished_digest
    configs = [strict_json((folder / "config.json").read_text()) for folder in (finished_run, tmp_path / "run")]
    assert configs[0] == configs[1]


# --- Loading --------------------------------------------------------------------------------------------------------------


def test_a_loaded_policy_acts(finished_run):
    saved = load(finished_run, pytest.fail)
    policy = saved.algorithm.policy(saved.state(1))
    returns = jaxpg.evaluate(policy, saved.env, saved.env_params, jax.random.key(0), num_episodes=64)
    assert np.isfinite(returns).all()
    assert abs(float(returns.mean()) - evaluate_run(saved)[1]) < 20  # other episodes of the same policy
    _, metrics = saved.algorithm.update(saved.state())  # and learns on
    assert math.isfinite(metrics["policy_loss"])


def test_evaluating_elsewhere(finished_run):
    class LongCartPole(gymnax.environments.CartPole):
        def __init__(self, max_steps=500):
            super().__init__()
            self.max_steps = max_steps

        @property
        def default_params(self):
            return super().default_params.replace(max_steps_in_episode=self.max_steps)

    def make(max_steps: int = 500):
        env = LongCartPole(max_steps)
        return env, env.default_params

    jaxpg_envs.register("LongCartPole", make)
    saved = load(finished_run)
    returns = evaluate_run(saved, num_episodes=16, env="LongCartPole", env_options={"max_steps": 9})
    assert (returns <= 9).all()
    with pytest.raises(InputError, match=r"trained with the observation_space .* but Acrobot-v1 has"):
        evaluate_run(saved, env="Acrobot-v1")
    with pytest.raises(InputError, match=r"trained with the \w+_space .* but Pendulum-v1 has"):
        evaluate_run(saved, env="Pendulum-v1")
    with pytest.raises(jaxpg_envs.EnvironmentInputError, match="unknown argument gravity"):
        evaluate_run(saved, env_options={"gravity": 1.0})  # of the run's own environment


def untrained(env, **options):
    """A run of one seed without its training."""
    environment, params = jaxpg_envs.make(env, **options)
    agent = jaxpg.make("ppo", environment, params, num_envs=2, num_steps=4, num_minibatches=1, hidden_sizes=(4,))
    states = jax.vmap(agent.init)(jax.random.split(jax.random.key(0), 1))
    description = {"env": env, "env_options": options, "seed": 0, "num_seeds": 1, "num_devices": 1}
    return Run(description, agent, environment, params, states)


def test_evaluation_where_dictionaries_are_observed():
    saved = untrained("Maze-v0")
    returns = evaluate_run(saved, num_episodes=2, env_options={"max_steps_in_episode": 20})
    assert ((returns >= 0) & (returns < 1)).all()
    with pytest.raises(InputError, match=r"trained with the observation_space Dict\(.* but CartPole-v1 has Box.* kind differs"):
        evaluate_run(saved, env="CartPole-v1")


def test_evaluation_within_other_bounds_is_refused():
    """A policy acts in units of the bounds: within wider ones it would act more strongly."""

    class Strong(gymnax.make("Pendulum-v1")[0].__class__):
        def action_space(self, params=None):
            return gymnax.environments.spaces.Box(-4.0, 4.0, (1,))

    jaxpg_envs.register("StrongPendulum", lambda: (Strong(), Strong().default_params))
    with pytest.raises(InputError, match=r"action_space Box\(low=-2.* but StrongPendulum has .*: the lower bound differs"):
        evaluate_run(untrained("Pendulum-v1"), env="StrongPendulum")


def test_a_run_whose_actions_were_not_scaled_yet(tmp_path):
    train(tmp_path / "run", "Pendulum-v1", num_seeds=1, total_steps=64)
    load(tmp_path / "run", pytest.fail)
    saved = strict_json((tmp_path / "run" / "config.json").read_text())
    saved["versions"]["jaxpg"] = "0.1.0"
    (tmp_path / "run" / "config.json").write_text(json.dumps(saved))
    told = []
    load(tmp_path / "run", told.append)
    assert "trained by jaxpg 0.1.0, whose actions were the environment's own numbers" in told[0]


def test_no_run_to_load(tmp_path):
    with pytest.raises(InputError, match=r"nowhere holds no run: there is no config\.json"):
        load(tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"file holds no run: there is no config\.json"):
        load(tmp_path / "file")


def test_a_run_that_cannot_be_made_again_is_named(copy_of_run):
    saved = json.loads((copy_of_run / "config.json").read_text())
    for change, message in (
        ({"env": "nowhere"}, 'unknown environment "nowhere"'),
        ({"config": saved["config"] | {"num_envs": {}}}, "ppo: num_envs must be a whole number"),
    ):
        (copy_of_run / "config.json").write_text(json.dumps(saved | change))
        with pytest.raises(InputError, match=rf"the run in .*copy cannot be made again: {message}"):
            load(copy_of_run)


def test_a_run_that_has_saved_nothing_yet(copy_of_run):
    for path in (copy_of_run / "checkpoints", copy_of_run / "latest_checkpoint.json"):
        path.rename(copy_of_run / f"other {path.name}")
    with pytest.raises(InputError, match="has not saved a checkpoint yet"):
        load(copy_of_run)


# --- What is refused ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"seed": 2**32}, "seed must be at most 4294967295, got 4294967296"),
        ({"num_seeds": 0}, "num_seeds must be at least 1, got 0"),
        ({"num_seeds": 10**26}, "num_seeds must be at most 2147483647, got 100000000000000000000000000"),
        ({"num_devices": 3, "num_seeds": 4}, "does not divide among num_devices = 3; it divides among 1, 2, 4"),
        ({"total_steps": 0}, "total_steps must be at least 1"),
        ({"num_minibatches": 7}, r"= 64 steps does not divide into num_minibatches = 7; the nearest that does is 8"),
        ({"lerning_rate": 1.0}, "no hyperparameter 'lerning_rate'; did you mean 'learning_rate'"),
        ({"learning_rate": "fast"}, "learning_rate must be a number, got 'fast'"),
        ({"env": "CartPol-v1"}, 'unknown environment "CartPol-v1"; did you mean "CartPole-v1"'),
        ({"env_options": {"gravity": 1}}, "unknown argument gravity"),
    ],
)
def test_mistakes_leave_no_trace(tmp_path, monkeypatch, settings, message):
    monkeypatch.setattr(RUNNER, "compile_step", lambda *_: pytest.fail("it compiled"))
    with pytest.raises((InputError, jaxpg_envs.UnknownEnvironmentError, jaxpg_envs.EnvironmentInputError), match=message):
        train(tmp_path / "run", **settings)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("remains", ["checkpoints", "metrics.jsonl", "summary.json"])
def test_remains_of_a_run_are_not_overwritten(tmp_path, remains):
    (tmp_path / remains).mkdir()
    for resume in (True, False):
        with pytest.raises(InputError, match=r"remains of a run without its config\.json: choose another --out"):
            train(tmp_path, resume=resume)


@pytest.mark.parametrize(
    ("numbers", "message"),
    [((0.5, 1, 1), r"seed must be a whole number, got 0\.5"), ((0, "3", 1), "num_seeds must be a whole number, got '3'")],
)
def test_numbers_that_are_none(numbers, message):
    with pytest.raises(InputError, match=message):
        RUNNER.require_numbers(*numbers)


# --- Memory, signals ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("total_steps", "updates"), [(6_400, 1), (64_000, 10), (10**15, 2**24 // 64)])
def test_a_run_of_any_length_says_and_saves_something_now_and_then(total_steps, updates):
    agent = jaxpg.make("ppo", *jaxpg_envs.make("CartPole-v1"), total_steps=total_steps, **commands.SETTINGS)
    assert agent.env_steps_per_update == 64
    assert RUNNER.updates_of_chunk(agent) == updates


def test_what_does_not_fit_into_the_memory_is_refused_before_the_folder_is_made(tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r"takes [\d,.]+ GiB of memory, and there are [\d.]+: reduce num_envs = \d+, "):
        train(tmp_path / "run", num_envs=2**29, num_steps=2, total_steps=2**31)

    def full(*_):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 bytes")

    monkeypatch.setattr(RUNNER, "compile_step", full)
    with pytest.raises(RunError, match=r"out of memory: reduce num_envs = 4, num_steps = 16, .*, the seeds \(2\)"):
        train(tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_memory_that_runs_out_later_is_told_too(tmp_path, finished_run, monkeypatch):
    def full(*_):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 bytes")

    monkeypatch.setattr(RUNNER, "_train", full)
    with pytest.raises(RunError, match=r"out of memory: reduce num_envs = 4.* No checkpoint had been saved yet"):
        train(tmp_path / "run")
    with pytest.raises(InputError, match=r"evaluate fewer episodes than 10,000,000,000,000"):
        evaluate_run(load(finished_run), 10**13)
    monkeypatch.setattr("jaxpg.experiment.evaluation.mean_returns", full)
    with pytest.raises(RunError, match="out of memory: evaluate fewer episodes than 7"):
        evaluate_run(load(finished_run), 7)


@pytest.mark.parametrize(("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_a_signal_in_python_saves_and_then_does_what_it_does(tmp_path, finished_digest, monkeypatch, number, error):
    arguments = {"num_seeds": 2, "total_steps": commands.TOTAL_STEPS, **commands.SETTINGS}
    before, save, once = signal.getsignal(number), RUNNER.Checkpoints.save, [number]
    monkeypatch.setattr(RUNNER.Checkpoints, "save", lambda *args: [save(*args), *map(signal.raise_signal, once), once.clear()])
    with pytest.raises(error) as stop:
        run("ppo", "CartPole-v1", tmp_path / "run", **arguments)
    assert error is KeyboardInterrupt or stop.value.code == 143
    assert signal.getsignal(number) is before
    assert 0 < load(tmp_path / "run").states.learner.optimizer_state[1][0].count[0] <= 8  # that chunk, or the next
    monkeypatch.setattr(RUNNER.Checkpoints, "save", save)
    assert run("ppo", "CartPole-v1", tmp_path / "run", resume=True, **arguments)["state_digest"] == finished_digest


# --- Training that goes wrong ---------------------------------------------------------------------------------------------


def test_a_learning_rate_that_is_much_too_large(tmp_path):
    with pytest.raises(
        RunError, match=r"training stopped: \w+ is (nan|inf|-inf) \(seed 0, 1\) in the updates up to 1\. "
    ) as stop:
        train(tmp_path / "run", learning_rate=1e38)
    assert "No checkpoint had been saved yet. A smaller learning rate often helps" in str(stop.value)
    assert (tmp_path / "run" / "metrics.jsonl").read_text() == ""


def test_an_environment_that_emits_nan_after_a_while(tmp_path, monkeypatch):
    class Faulty(gymnax.environments.CartPole):
        def step_env(self, key, state, action, params):
            observation, state, reward, *rest = super().step_env(key, state, action, params)
            return observation, state, jnp.where(state.time >= 70, jnp.nan, reward), *rest

    def make():
        env = Faulty()
        return env, env.default_params

    jaxpg_envs.register("Faulty", make)
    monkeypatch.setattr(RUNNER, "SAVE_SHARE", math.inf)
    with pytest.raises(RunError, match=r"Faulty gave non-finite rewards \(seed [\d, ]+\) in the updates up to (\d+)\.") as stop:
        train(tmp_path, "Faulty", total_steps=64 * 200, learning_rate=1e-2)
    stopped_at = int(str(stop.value).split("up to ")[1].split(".")[0])
    saved = load(tmp_path, pytest.fail)
    assert f"The checkpoint after update {stopped_at - 2} is kept" in str(stop.value)
    assert all(np.isfinite(leaf).all() for leaf in to_host(saved.states).values() if leaf.dtype == np.float32)
    rows = [strict_json(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["update"] == stopped_at - 2
    with pytest.raises(RunError, match=f"in the updates up to {stopped_at}"):  # as before
        train(tmp_path, "Faulty", total_steps=64 * 200, learning_rate=1e-2, resume=True)


def test_nothing_that_is_not_finite_is_remembered_in_what_is_saved(tmp_path, monkeypatch):
    """A replay buffer would keep it until it is drawn, long after."""

    class Faulty(gymnax.environments.CartPole):
        def step_env(self, key, state, action, params):
            observation, state, reward, *rest = super().step_env(key, state, action, params)
            return observation, state, jnp.where(state.time >= 25, jnp.inf, reward), *rest

    monkeypatch.setattr(RUNNER, "SAVE_SHARE", math.inf)
    settings = {"total_steps": 4000, "learning_starts": 3000, "num_envs": 4, "num_steps": 4, "hidden_sizes": (8,)}
    with pytest.raises(RunError, match=r"gave non-finite rewards .* is kept, from before\. Most likely the environment is at"):
        run("dqn", Faulty(), tmp_path / "run", **settings)
    saved = load(tmp_path / "run", pytest.fail, env=Faulty())
    assert int(saved.states.buffer.count[0]) > 0
    assert np.isfinite(saved.states.buffer.steps.reward).all()


def test_a_state_with_a_nan_is_not_saved(tmp_path):
    checkpoints, nan = RUNNER.Checkpoints(tmp_path), np.array([0, np.nan], np.float32)
    allowed = {"rollout.env_state.goal": nan, "buffer.steps.next_observation": nan, "memory.rows": nan, "count": np.array([1])}
    RUNNER.require_sound(allowed | {"learner.params.kernel": np.array([np.inf])}, 3, checkpoints)
    for name in ("learner.params.kernel", "learner.optimizer_state.0.nu", "buffer.steps.reward"):
        with pytest.raises(RunError, match=f"training stopped: {name} of the state after update 3 holds NaN. No checkpoint"):
            RUNNER.require_sound(allowed | {name: nan}, 3, checkpoints)


def test_no_episode_ends(tmp_path):
    """Then there is no mean return, which is no fault, and JSON has a null."""
    summary = train(tmp_path, "Pendulum-v1", num_seeds=1, total_steps=128)  # an episode has 200 steps
    assert all(strict_json(line)["episode_return"] == [None] for line in (tmp_path / "metrics.jsonl").read_text().splitlines())
    assert math.isfinite(summary["iqm"])
    assert summary["iqm_ci"] == [summary["iqm"]] * 2
