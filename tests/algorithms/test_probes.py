"""Every algorithm is asked questions whose answers are known, and a wrong answer names the mistake (`probes.py`)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checks import quick_jit
from probes import DISCOUNT, QUESTIONS, Cue, Doors, DoorsParams, Plate, PlateParams, Probe, actor_critic_rule

import jaxpg
from jaxpg.algorithm import REGISTRY, fields
from jaxpg.algorithms.meta_learning.rule_file import save_rule
from jaxpg.algorithms.quality_diversity.repertoire import score
from jaxpg.algorithms.quality_diversity.reproducibility import reproducibility
from jaxpg.training import advance

KEY, SEEDS = jax.random.key(0), 4
BOX = (-1.0, 3.0)

QUICK = {"num_envs": 8, "num_steps": 8, "hidden_sizes": (), "anneal_learning_rate": False, "discount": DISCOUNT}
ROLLOUT = QUICK | {"normalize_rewards": False, "total_steps": 60 * 64}
SLOWLY = {"learning_rate": 0.03, "entropy_coefficient": 0.05, "total_steps": 120 * 64}
EPOCHS = {"num_epochs": 2, "num_minibatches": 2, "learning_rate": 0.05}
REMEMBERED = {"num_envs": 4, "gradient_steps": 2, "batch_size": 32, "learning_starts": 400, "total_steps": 1600}
REMEMBERED |= {"hidden_sizes": (16,), "discount": DISCOUNT, "learning_rate": 0.01, "target_ema_rate": 0.1}
DETERMINISTIC = {"exploration_noise": 0.5, "learning_rate": 0.005, "total_steps": 2000}  # lest the tangent saturate at first
SOFT = REMEMBERED | {"automatic_temperature": False, "initial_temperature": 0.05}
BY_RULE = {"num_envs": 8, "num_steps": 8, "hidden_sizes": (), "learning_rate": 0.05, "prediction_learning_rate": 0.05}
BY_RULE |= {"total_steps": 120 * 64}
ONLINE = {
    "a2c": ROLLOUT | {"learning_rate": 0.02},
    "ddpg": REMEMBERED | DETERMINISTIC,
    "dqn": REMEMBERED,
    "impala": ROLLOUT | SLOWLY,
    "learned_rule": BY_RULE,
    "pmoe_ppo": ROLLOUT | EPOCHS | {"num_experts": 2},
    "pmoe_sac": SOFT | {"num_experts": 2},
    "ppo": ROLLOUT | EPOCHS,
    "pqn": QUICK | EPOCHS | {"trace_lambda": 0.0, "reward_scale": 1.0, "total_steps": 120 * 64},
    "qr_dqn": REMEMBERED | {"num_quantiles": 5},
    "reinforce": ROLLOUT | SLOWLY,
    "sac": SOFT,
    "sac_discrete": SOFT,
    "soft_option_critic": SOFT | {"num_experts": 2},
    "td3": REMEMBERED | DETERMINISTIC,
    "trpo": ROLLOUT | {"num_minibatches": 2, "num_value_epochs": 2, "learning_rate": 0.05},
}
RECURRENT = ("a2c", "impala", "pmoe_ppo", "ppo", "reinforce", "trpo")
RECALLED = {"num_envs": 16, "hidden_sizes": (8,), "memory": "gru", "memory_size": 8, "discount": 0.9, "total_steps": 60 * 128}
RECALLED |= {"learning_rate": 0.02}
SEARCH = {"num_cells": 8, "num_offspring": 32, "hidden_sizes": (4,), "total_steps": 30 * 32 * 2}
GRADIENTS = SEARCH | {"critic_hidden_sizes": (8,), "critic_steps": 20, "policy_gradient_steps": 5, "batch_size": 16}
SEARCHES = {
    "map_elites": SEARCH | {"iso_sigma": 0.2},
    "cma_me": SEARCH | {"num_emitters": 2, "sigma": 0.5},
    "me_es": SEARCH | {"num_offspring": 33, "generations_per_elite": 2, "sigma": 0.3, "learning_rate": 0.1},
    "pga_map_elites": GRADIENTS | {"iso_sigma": 0.2},
    "dcg_map_elites": GRADIENTS | {"iso_sigma": 0.2, "actor_hidden_sizes": (4,)},
    "dcrl_map_elites": GRADIENTS | {"iso_sigma": 0.2},
}
STUDENT = {"num_envs": 4, "num_steps": 8, "num_epochs": 4, "hidden_sizes": (), "memory": "none", "encoder": "dense"}
STUDENT |= {"learning_rate": 0.1, "total_steps": 30 * 2 * 32}
DESIGNERS = {
    "domain_randomization": {},
    "plr": {},
    "robust_plr": {"levels": "dataset", "buffer_size": 8},
    "accel": {"levels": "dataset", "buffer_size": 8},
    "sfl": {"buffer_size": 4, "period": 3, "copies": 2},
    "paired": {"num_walls": 1},
    "dred": {"generation": "edits", "buffer_size": 8},
}
AGENTS = {"num_envs": 4, "num_steps": 4, "lifetime": 6, "rule_size": 8, "num_bins": 2, "num_minibatches": 1}
META = AGENTS | {"num_agents": 16, "num_inner_updates": 3, "max_endings": 8, "meta_learning_rate": 0.01, "remat": False}
META_LEARNERS = {
    "evolved_rule": AGENTS | {"num_pairs": 16, "meta_learning_rate": 0.05, "temporally_aware": False},
    "lpg": META,
    "groove": META | {"buffer_size": 32},
}
THOROUGH = ("lpg", "groove")  # programs that take long to compile


@pytest.fixture(scope="module", autouse=True)
def rule_by_hand(tmp_path_factory):
    """What the agent of `learned_rule` learns by."""
    BY_RULE["rule"] = str(tmp_path_factory.mktemp("rules") / "actor_critic")
    save_rule(BY_RULE["rule"], *actor_critic_rule(), {})


def test_every_algorithm_is_asked():
    """In the environments that it can act in; those with a memory, also for what they remember."""
    assert {*ONLINE, *SEARCHES, *DESIGNERS, *META_LEARNERS} == set(REGISTRY)
    has_memory = lambda entry: entry.field == "online" and any(f.name == "memory" for f in fields(entry.config_class))
    assert set(RECURRENT) == {name for name, entry in REGISTRY.items() if has_memory(entry)}


def is_discrete(name):
    return "discrete" in REGISTRY[name].actions


@pytest.mark.parametrize("name", ONLINE)
def test_answers(name):
    """All questions at once. Of four seeds all are right but for one at most."""
    env = Probe(None if is_discrete(name) else BOX)

    def choices(tables, key):
        """In each state."""
        algorithm = jaxpg.make(name, env, tables, **ONLINE[name])
        state, _ = advance(algorithm.update, algorithm.init(key), algorithm.num_updates)
        policy = algorithm.policy(state)
        actions = jax.vmap(lambda place: policy.act(policy.params, KEY, place, policy.initial_carry)[0])(jnp.arange(3))
        return actions if is_discrete(name) else (env.share(actions) > 0.5).astype(jnp.int32)

    tables = jax.tree.map(lambda *x: jnp.stack(x), *(each.tables for each in QUESTIONS.values()))
    ask = quick_jit(jax.vmap(jax.vmap(choices, (None, 0)), (0, None)))
    answers = np.asarray(ask(tables, jax.random.split(KEY, SEEDS)))
    mistakes = []
    for (words, each), found in zip(QUESTIONS.items(), answers, strict=True):
        states = list(each.best)
        right = (found[:, states] == list(each.best.values())).all(1)
        if right.sum() < SEEDS - 1:
            mistakes.append(f"{name}, {words}: {each.mistake} ({right.sum()} of {SEEDS} right: {found[:, states].tolist()})")
    assert not mistakes, "\n".join(mistakes)


@pytest.mark.parametrize("name", RECURRENT)
def test_a_sign_is_remembered(name):
    """Two steps later naming it pays 1, and else -1: without a memory the mean is 0."""
    env = Cue(None if is_discrete(name) else BOX)
    params = env.params(3)

    def score(key):
        algorithm = jaxpg.make(name, env, params, **ONLINE[name] | RECALLED)
        state, _ = advance(algorithm.update, algorithm.init(key), algorithm.num_updates)
        return jaxpg.evaluate(algorithm.policy(state), env, params, key, 32).mean()

    scores = quick_jit(jax.vmap(score))(jax.random.split(KEY, SEEDS))
    assert (scores > 0.9).sum() >= SEEDS - 1, f"memories are lost, or those of another step or environment: {scores}"


@pytest.mark.parametrize("name", SEARCHES)
def test_searches(name):
    env, params = Plate(), PlateParams()
    algorithm = jaxpg.make(name, env, params, **SEARCHES[name])

    def search(key):
        state, _ = advance(algorithm.update, algorithm.init(key), 30)
        return state, score(state.repertoire), reproducibility(key, algorithm, env, params, state)

    _, found, again = quick_jit(search)(KEY)
    assert found["coverage"] == 1, "offspring are put into cells that are not theirs, or hardly vary"
    assert found["qd_score"] > 2 * 8 * 0.95, "the worse are kept, or offspring are the worse for what is learned"
    np.testing.assert_allclose(again["qd_score"], found["qd_score"], rtol=1e-5, err_msg="fitnesses are of other genotypes")
    assert again["descriptor_error"] < 1e-5, "descriptors are of other genotypes"


@pytest.mark.parametrize("name", DESIGNERS)
def test_designers(name):
    env = Doors()
    levels = jax.vmap(env.sample_level)(jax.random.split(jax.random.key(1), 8))
    assert set(np.asarray(levels.goal)) == set(range(4))
    algorithm = jaxpg.make(name, env, DoorsParams(levels), **STUDENT | DESIGNERS[name])

    def doors(key):
        state, _ = advance(algorithm.update, algorithm.init(key), algorithm.num_updates)
        policy = algorithm.policy(state)
        return jax.vmap(lambda goal: policy.act(policy.params, key, goal, policy.initial_carry)[0])(jnp.arange(4))

    found = quick_jit(jax.vmap(doors))(jax.random.split(KEY, SEEDS))
    right = (found == jnp.arange(4)).all(1).sum()
    assert right >= SEEDS - 1, f"the student learns nothing, or not from the levels that it played: {found}"


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.thorough] * (name in THOROUGH)) for name in META_LEARNERS]
)
def test_meta_learners(name):
    """Agents that begin anew learn by the rule which door pays on their level."""
    env = Doors()
    level = env.sample_level(KEY)
    make = lambda goal: jaxpg.make(name, env, DoorsParams(level._replace(goal=goal)), **META_LEARNERS[name])

    def doors(key):
        algorithm = make(level.goal)
        state, _ = advance(algorithm.update, algorithm.init(key), 100)

        def opened(goal):
            policy = make(goal).policy(state)
            return policy.act(policy.params, KEY, goal, policy.initial_carry)[0]

        return jax.vmap(opened)(jnp.arange(4))

    found = quick_jit(jax.vmap(doors))(jax.random.split(KEY, SEEDS))
    right = (found == jnp.arange(4)).all(1).sum()
    assert right >= SEEDS - 1, f"the rule is not made better, or agents do not learn by it: {found}"
