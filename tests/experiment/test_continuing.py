"""Runs that go further than they were meant to, begin where another one ended, or are judged while they train."""

import json
import math

import commands
import environments
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checks import row
from commands import RUNNER

import jaxpg
from jaxpg.algorithm import InputError
from jaxpg.experiment import evaluate_run, load, run
from jaxpg.experiment.best import Best, restore_best
from jaxpg.experiment.checkpoints import digest, to_host
from jaxpg.experiment.logs import read_rows
from jaxpg.replay import Step, add, grow_buffer, init_buffer, reprioritize, sample

ON_POLICY = {**commands.SETTINGS, "anneal_learning_rate": False}
OFF_POLICY = {
    "hidden_sizes": (8,),
    "num_envs": 2,
    "batch_size": 8,
    "learning_starts": 16,
    "prioritized": True,
    "epsilon_start": 0.1,  # nothing that follows the run's length
    "epsilon_end": 0.1,
    "importance_exponent": 1.0,
}


def train(folder, algorithm="ppo", settings=ON_POLICY, **others):
    return run(algorithm, "CartPole-v1", folder, **{"num_seeds": 2, **settings, **others})


def description(folder):
    return json.loads((folder / "config.json").read_text())


# --- Longer ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("algorithm", "settings", "steps", "more"), [("ppo", ON_POLICY, 640, 1280), ("dqn", OFF_POLICY, 50, 300)]
)
def test_a_lengthened_run_is_the_longer_run(tmp_path, monkeypatch, algorithm, settings, steps, more):
    """To the bit, if nothing follows the run's length; a replay buffer grows on the way."""
    whole = train(tmp_path / "whole", algorithm, settings, total_steps=more)
    train(tmp_path / "run", algorithm, settings, total_steps=steps)
    with monkeypatch.context() as patch:  # killed before the first checkpoint of the longer run
        patch.setattr(RUNNER, "_train", lambda *_: exec("raise KeyboardInterrupt"))
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "run", algorithm, settings, total_steps=more, resume=True)
    assert load(tmp_path / "run").algorithm.config.total_steps == more
    lengthened = train(tmp_path / "run", algorithm, settings, resume=True)  # its length is now that of the folder
    assert lengthened["state_digest"] == whole["state_digest"]
    assert (lengthened["total_steps"], description(tmp_path / "run")["lengthened_from"]) == (more, [steps])
    without_time = lambda rows: [{name: row[name] for name in row if name != "seconds"} for row in rows]
    last = lambda name: without_time(read_rows(tmp_path / name / "metrics.jsonl"))[-1]
    assert last("run") == last("whole")
    assert digest(to_host(load(tmp_path / "run").states)) == whole["state_digest"]
    assert train(tmp_path / "run", algorithm, settings, resume=True) == lengthened  # complete again


def test_what_follows_the_length_is_that_of_the_longer_run(tmp_path):
    annealed = {**ON_POLICY, "anneal_learning_rate": True, "learning_rate": 1e-2}
    train(tmp_path / "run", settings=annealed, total_steps=640)
    before = to_host(load(tmp_path / "run").states.learner.params)
    train(tmp_path / "run", settings=annealed, total_steps=1280, resume=True)
    after = to_host(load(tmp_path / "run").states.learner.params)
    assert max(np.abs(after[name] - before[name]).max() for name in before) > 1e-2  # the rate is no longer near zero


def steps_of(values, num_envs=3):
    shape = (len(values), num_envs)
    reward = jnp.broadcast_to(jnp.asarray(values, jnp.float32)[:, None], shape) + jnp.arange(num_envs) / 10
    flags = jnp.zeros(shape, bool)
    return Step(reward[..., None], jnp.zeros(shape, jnp.int32), reward, flags, flags, reward[..., None] + 1)


@pytest.mark.parametrize("prioritized", [False, True])
def test_a_grown_buffer_is_the_larger_one(prioritized):
    example = row(steps_of([0.0]), 0)
    small, large = (init_buffer(example, capacity, 2, prioritized) for capacity in (12, 36))
    for start in (0.0, 2.0):
        small, large = (add(buffer, steps_of([start, start + 1])) for buffer in (small, large))
    if prioritized:
        drawn = sample(jax.random.key(0), small, 6, 0.9)
        small, large = (reprioritize(buffer, drawn, jnp.arange(1.0, 7.0)) for buffer in (small, large))
    grown = grow_buffer(small, large.steps.reward.shape[0])
    for value in (4.0, 6.0):
        grown, large = (add(buffer, steps_of([value, value + 1])) for buffer in (grown, large))
    jax.tree.map(np.testing.assert_array_equal, grown, large)


# --- Another number of devices ---------------------------------------------------------------------------------------------


def test_a_run_continues_on_another_number_of_devices(tmp_path):
    train_command = f"train ppo --env CartPole-v1 --num-seeds 2 --total-steps 640 {commands.TINY} --out {tmp_path / 'run'}"
    result = commands.Command(f"{train_command} --num-devices 2", tmp_path).wait()
    assert result.code == 0, result.stderr
    longer = f"{train_command} --num-devices 1 --resume --json".replace("640", "1280")
    result = commands.Command(longer, tmp_path).wait()
    assert result.code == 0, result.stderr
    assert "warning: 1 device, before 2: results may differ in the last bits" in result.stderr
    assert json.loads(result.stdout)["total_steps"] == 1280
    assert description(tmp_path / "run")["num_devices"] == 1


# --- Evaluations ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def judged_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("judged") / "run"
    train(folder, total_steps=1280, learning_rate=3e-3, eval_every=256, eval_episodes=5)
    return folder


def evaluation_keys(update):
    return jax.random.split(jax.random.fold_in(jax.random.fold_in(jax.random.key(0), 3), update), 2)


def test_evaluations_are_those_of_the_deterministic_policy(judged_run, tmp_path):
    rows = read_rows(judged_run / "metrics.jsonl")
    judged = [row for row in rows if "evaluation_return" in row]
    assert [row["env_steps"] for row in judged] == [256, 512, 768, 1024, 1280]
    assert len(rows) == 20
    saved = load(judged_run)
    for seed, key in enumerate(evaluation_keys(20)):
        policy = saved.algorithm.policy(saved.state(seed))
        returns = jaxpg.evaluate(policy, saved.env, saved.env_params, key, num_episodes=5)
        assert judged[-1]["evaluation_return"][seed] == pytest.approx(returns.mean())
    plain = train(tmp_path / "plain", total_steps=1280, learning_rate=3e-3)
    assert plain["state_digest"] == digest(to_host(saved.states))  # being judged changes nothing


def test_the_best_policy_of_each_seed_is_kept(judged_run):
    judged = [row for row in read_rows(judged_run / "metrics.jsonl") if "evaluation_return" in row]
    returns = np.array([row["evaluation_return"] for row in judged])
    best = json.loads((judged_run / "summary.json").read_text())["best"]
    assert best["returns"] == returns.max(axis=0).tolist()
    assert best["updates"] == [judged[i]["update"] for i in returns.argmax(axis=0)]
    saved = load(judged_run, checkpoint="best")
    for seed in range(2):
        key = evaluation_keys(best["updates"][seed])[seed]
        again = jaxpg.evaluate(saved.algorithm.policy(saved.state(seed)), saved.env, saved.env_params, key, num_episodes=5)
        assert again.mean() == pytest.approx(best["returns"][seed])
    assert math.isfinite(evaluate_run(saved, num_episodes=2)[0])


def test_best_keeps_rows_of_different_updates(tmp_path):
    cycle = environments.Cycle()
    agent = jaxpg.make("dqn", cycle, cycle.params([0.0, 1.0], 4), total_steps=2000, hidden_sizes=(8,))
    like = jax.eval_shape(jax.vmap(agent.init), jax.random.split(jax.random.key(0), 3))
    make = jax.jit(jax.vmap(agent.init))
    states = [make(jax.random.split(jax.random.key(seed), 3)) for seed in range(3)]
    best = Best(tmp_path, agent, like, pytest.fail)
    best.offer(1, np.array([1.0, 5.0, np.nan]), states[0])
    best.offer(2, np.array([2.0, 5.0, -3.0]), states[1])
    best = Best(tmp_path, agent, like, pytest.fail)  # as after an interruption
    best.offer(3, np.array([0.0, 6.0, -3.0]), states[2])
    assert (best.record["updates"], best.record["returns"]) == ([2, 3, 2], [2.0, 6.0, -3.0])
    kept = restore_best(tmp_path, agent, like, pytest.fail)
    expected = [row(states[i].learner.params, seed) for seed, i in enumerate((1, 2, 1))]
    for seed in range(3):
        jax.tree.map(np.testing.assert_array_equal, row(kept.learner.params, seed), expected[seed])
    broken = jax.tree.map(lambda x: x.at[0].set(jnp.nan), states[0].learner.params)
    best.offer(4, np.array([9.0, 6.0, -3.0]), states[0]._replace(learner=states[0].learner._replace(params=broken)))
    assert best.record["returns"] == [2.0, 6.0, -3.0]  # whatever a policy of NaNs gets
    assert all(leaf.size < 1000 for leaf in best._leaves.values())  # not the buffer, which no policy reads


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"eval_every": 0}, "eval_every must be at least 1, got 0"),
        ({"eval_every": 100, "eval_episodes": 1.5}, r"eval_episodes must be a whole number, got 1\.5"),
        ({"init_optimizer": True}, "init_optimizer needs init_from"),
        ({"init_from": "nowhere"}, "nowhere holds no run"),
    ],
)
def test_settings_without_sense(tmp_path, monkeypatch, settings, message):
    monkeypatch.setattr(RUNNER, "compile_step", lambda *_: pytest.fail("it compiled"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message):
        train(tmp_path / "run", total_steps=640, **settings)
    assert not (tmp_path / "run").exists()


def test_a_run_without_evaluations_has_no_best(finished_run):
    with pytest.raises(InputError, match="has kept no best policy: train with --eval-every N"):
        load(finished_run, checkpoint="best")


# --- Warm starts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("with_optimizer", [False, True])
def test_a_run_begins_where_another_one_ended(judged_run, tmp_path, with_optimizer):
    source = load(judged_run)
    settings = {"total_steps": 64, "learning_rate": 0.0, "init_from": judged_run, "init_optimizer": with_optimizer}
    train(tmp_path / "run", **settings)
    states = load(tmp_path / "run").states
    jax.tree.map(np.testing.assert_array_equal, states.learner.params, source.states.learner.params)
    counted = states.learner.observation_statistics.count - source.states.learner.observation_statistics.count
    np.testing.assert_allclose(counted, 64)
    gradient_steps = np.asarray(states.learner.optimizer_state[1][0].count)
    np.testing.assert_array_equal(gradient_steps, 2 + (40 if with_optimizer else 0))  # of Adam


def test_a_schedule_begins_anew(judged_run, tmp_path):
    settings = {"total_steps": 64, "anneal_learning_rate": True, "learning_rate": 1e-2}
    train(tmp_path / "run", **settings, init_from=judged_run, init_optimizer=True)
    before, after = (to_host(load(folder).states.learner.params) for folder in (judged_run, tmp_path / "run"))
    assert max(np.abs(after[name] - before[name]).max() for name in before) > 1e-3


@pytest.mark.parametrize(
    ("algorithm", "settings", "message"),
    [
        ("ppo", {"hidden_sizes": (16,)}, r"learner\.params\.actor.*bias is float32\(8,\) there and float32\(16,\) here"),
        ("ppo", {"memory": "gru"}, r"learner\.params\.actor.*kernel is float32\(4, 8\) there and float32\(128, 8\) here"),
        ("ppo", {"num_seeds": 3}, "that run has 2 seeds, this one 3"),
        ("a2c", {"num_epochs": None, "num_minibatches": None}, "holds a run of 'ppo', not of 'a2c'"),
    ],
)
def test_a_start_that_does_not_fit(judged_run, tmp_path, monkeypatch, algorithm, settings, message):
    monkeypatch.setattr(RUNNER, "compile_step", lambda *_: pytest.fail("it compiled"))
    settings = {name: value for name, value in (ON_POLICY | settings).items() if value is not None}
    with pytest.raises(InputError, match=message):
        train(tmp_path / "run", algorithm, settings, total_steps=640, init_from=judged_run)
    assert not (tmp_path / "run").exists()


# --- Algorithms that do not fit into a run ---------------------------------------------------------------------------------


def test_an_algorithm_without_returns_is_run_and_drawn(tmp_path, monkeypatch):
    monkeypatch.setattr(RUNNER, "make", lambda *arguments, **settings: strange(*arguments, **settings))
    summary = train(tmp_path / "run", total_steps=640)
    assert set(read_rows(tmp_path / "run" / "metrics.jsonl")[0]) == {"update", "env_steps", "seconds", "loss"}
    assert math.isfinite(summary["iqm"])
    assert (tmp_path / "run" / "curve.png").read_bytes().startswith(b"\x89PNG")


def strange(*arguments, change=lambda state, metrics: (state, {"loss": metrics["value_loss"]}), **settings):
    agent = jaxpg.make(*arguments, **settings)
    return agent._replace(update=jax.jit(lambda state: change(*agent.update(state))))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state, metrics: (state, {"losses": jnp.zeros(3)}), "metrics must be scalars, but losses of update are not"),
        (lambda state, metrics: (state, {"solved": jnp.bool_(True)}), "numbers by name, but 'solved' is a truth value"),
        (lambda state, metrics: (state, {1: jnp.float32(0)}), "numbers by name, but 1 is a truth value or no name"),
        (lambda state, metrics: (state, {}), "a dictionary of scalars, one or more"),
        (lambda state, metrics: state, r"update must return \(state, metrics\), metrics being a dictionary"),
        (lambda state, metrics: (state._replace(learner=()), metrics), "a state of another structure than init's"),
        (
            lambda state, metrics: (state._replace(key=jnp.zeros(3)), metrics),
            r"update makes key a float32\(3,\), which init makes a key<fry>\(\): it must stay the same",
        ),
    ],
)
def test_an_algorithm_that_cannot_run_is_refused(tmp_path, monkeypatch, change, message):
    monkeypatch.setattr(RUNNER, "make", lambda *arguments, **settings: strange(*arguments, change=change, **settings))
    monkeypatch.setattr(RUNNER, "compile_step", lambda *_: pytest.fail("it compiled"))
    with pytest.raises(InputError, match=message):
        train(tmp_path / "run", total_steps=640)
    assert not (tmp_path / "run").exists()
