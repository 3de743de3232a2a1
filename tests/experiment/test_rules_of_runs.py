"""Rules that runs have trained, and runs that learn by rules."""

import json
import signal
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checks import assert_same, quick_jit, row
from commands import Command, compile_quickly, compile_quickly_and, kill, on_call

import jaxpg
import jaxpg_envs
from jaxpg.algorithm import InputError
from jaxpg.algorithms.meta_learning.rule_file import load_rule, save_rule
from jaxpg.algorithms.meta_learning.update_rule import UpdateRule
from jaxpg.experiment import load, run
from jaxpg.experiment.checkpoints import Checkpoints, to_host
from jaxpg.experiment.folder import describe
from jaxpg.experiment.warm_start import transfer

KEY = jax.random.key(0)
GRID = {"levels": "small"}
SIZES = {"num_envs": 2, "num_steps": 3, "num_minibatches": 1, "lifetime": 2, "rule_size": 3, "num_bins": 2, "total_steps": 90}
META = SIZES | {"num_agents": 2, "num_inner_updates": 1}
TRAINERS = {"lpg": META, "groove": META | {"buffer_size": 4}, "evolved_rule": SIZES | {"num_pairs": 2}}


def some(like, seed):
    """Numbers of these shapes and dtypes, without a program."""
    random = np.random.default_rng(seed)

    def one(leaf):
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jax.random.split(jax.random.key(seed), leaf.shape)
        return jnp.asarray(random.uniform(0, 2, leaf.shape).astype(leaf.dtype))

    return jax.tree.map(one, like)


def a_run(folder, name, settings, env="GridWorlds-v0", options=GRID):
    """The folder of a run of two seeds whose checkpoint holds any numbers, and its states."""
    agent = jaxpg.make(name, *jaxpg_envs.make(env, **options), **settings)
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(describe(name, env, options, 0, 2, 1, agent.config)))
    states = some(jax.eval_shape(jax.vmap(agent.init), jax.random.split(KEY, 2)), 1)
    Checkpoints(folder).save(1, to_host(states), {"seconds": 1.0, "total_steps": settings["total_steps"]})
    return states


@pytest.mark.parametrize("name", TRAINERS)
def test_the_rule_of_a_run_is_that_of_its_first_seed(tmp_path, name):
    states = a_run(tmp_path / "run", name, TRAINERS[name])
    rule, params = load_rule(tmp_path / "run")
    assert (rule.hidden_size, rule.num_bins, rule.temporally_aware) == (3, 2, name == "evolved_rule")
    assert_same(params, row(states.rule, 0))
    save_rule(tmp_path / "rule", rule, params, {})
    assert_same(load_rule(tmp_path / "rule")[1], params)
    if name == "lpg":  # also where the algorithm is made within a program, as sweeps do
        env = jaxpg_envs.make("CartPole-v1")
        make = lambda rate: jaxpg.make("learned_rule", *env, rule=str(tmp_path / "run"), learning_rate=rate)
        state = jax.eval_shape(jax.vmap(lambda rate: make(rate).init(KEY)), jnp.ones(2))
        assert state.rule_params["params"]["Dense_3"]["kernel"].shape == (2, 3, 2)


def test_a_folder_without_a_rule_says_so(tmp_path):
    a_run(tmp_path / "run", "a2c", {"num_envs": 2, "hidden_sizes": (4,), "total_steps": 90}, "CartPole-v1", {})
    with pytest.raises(InputError, match=r"run holds a run of a2c, which trains none: give the folder of one of"):
        load_rule(tmp_path / "run")
    agent = jaxpg.make("lpg", *jaxpg_envs.make("GridWorlds-v0", **GRID), **META)
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "config.json").write_text(json.dumps(describe("lpg", "GridWorlds-v0", GRID, 0, 2, 1, agent.config)))
    with pytest.raises(InputError, match=r"rule: the run in .*new has not saved a checkpoint yet: let it go on for a while"):
        load_rule(tmp_path / "new")
    (tmp_path / "new" / "config.json").write_text("{}")
    with pytest.raises(InputError, match=r"rule: .*config\.json was not written by jaxpg"):
        load_rule(tmp_path / "new")


@pytest.mark.parametrize("name", [*TRAINERS, "learned_rule"])
def test_a_run_begins_with_the_rule_of_another(name):
    """And an agent with what another has learned, but with its own rule, age and hyperparameters."""
    env = jaxpg_envs.make("GridWorlds-v0", **GRID)
    settings = TRAINERS.get(name, {"num_envs": 2, "num_steps": 3, "hidden_sizes": (4,), "total_steps": 90})
    like = jax.eval_shape(jax.vmap(jaxpg.make(name, *env, **settings).init), jax.random.split(KEY, 2))
    source, fresh = some(like, 1), some(like, 2)
    begun, with_optimizer = (transfer(source, like, 2, each)(fresh) for each in (False, True))
    if name == "learned_rule":
        taken = begun.learner._replace(actor=source.learner.actor, critic=source.learner.critic)
        assert_same(taken, begun.learner)
        moments = [each.learner.actor_optimizer[0].mu for each in (fresh, source)]
        assert_same([begun.learner.actor_optimizer[0].mu, with_optimizer.learner.actor_optimizer[0].mu], moments)
        for field in ("step", "pace", "prediction_coefficient"):
            assert_same(getattr(with_optimizer.learner, field), getattr(fresh.learner, field))
        assert_same(begun.rule_params, fresh.rule_params)
    else:
        assert_same(begun, fresh._replace(rule=source.rule))
    if name in ("lpg", "groove"):
        assert_same(with_optimizer, fresh._replace(rule=source.rule, optimizer_state=source.optimizer_state))


def test_a_run_goes_on_by_the_rule_with_which_it_began(tmp_path):
    """Also if another one of the same sizes has taken its place; without any it says what is missing."""
    rule, path = UpdateRule(3, 2), tmp_path / "rule"
    settings = {"rule": str(path), "num_envs": 2, "num_steps": 4, "hidden_sizes": (4,), "total_steps": 90}
    save_rule(path, rule, rule.initial(KEY), {})
    a_run(tmp_path / "run", "learned_rule", settings, "CartPole-v1", {})
    before = load(tmp_path / "run")
    save_rule(path, rule, rule.initial(jax.random.key(1)), {})
    after = load(tmp_path / "run")

    @quick_jit
    def go_on(key, state):
        return after.algorithm.init(key), [each.algorithm.update(state) for each in (before, after)]

    begun, updated = go_on(KEY, before.state())
    assert_same(begun.rule_params, rule.initial(jax.random.key(1)))
    assert_same(*updated)
    path.with_suffix(".npz").unlink()
    with pytest.raises(InputError, match=f"there is none at {path}, where it must stay for as long as a run"):
        run("learned_rule", "CartPole-v1", tmp_path / "run", num_seeds=2, resume=True, **settings)
    with pytest.raises(InputError, match=f"cannot be made again: .*there is none at {path}"):
        load(tmp_path / "run")


@pytest.mark.thorough
def test_meta_training_that_was_killed_continues_to_the_bit(tmp_path):
    flags = " ".join(f"--set.{name.replace('_', '-')} {value}" for name, value in META.items() if name != "total_steps")
    train = f"train lpg --env GridWorlds-v0 --env-options levels=small --num-seeds 2 --total-steps 480 {flags}"
    assert Command(f"{train} --out {tmp_path / 'whole'}", tmp_path, compile_quickly).wait(600).code == 0

    hook = partial(compile_quickly_and, partial(on_call, "jaxpg.experiment.logs:append", 9, kill))
    result = Command(f"{train} --out {tmp_path / 'run'}", tmp_path, hook).wait(600)
    assert result.code == -signal.SIGKILL, result.stderr
    result = Command(f"{train} --out {tmp_path / 'run'} --resume", tmp_path, compile_quickly).wait(600)
    assert result.code == 0, result.stderr
    assert "resuming" in result.stderr
    digests = [json.loads((tmp_path / name / "summary.json").read_text())["state_digest"] for name in ("whole", "run")]
    assert digests[0] == digests[1]
    assert_same(load_rule(tmp_path / "whole")[1], load_rule(tmp_path / "run")[1])
