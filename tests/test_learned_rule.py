"""Agents that learn by a rule, and what its trainers refuse before anything is compiled."""

import jax
import jax.numpy as jnp
import pytest
from checks import assert_close, assert_same, quick_jit

import jaxpg
import jaxpg_envs
from jaxpg.algorithm import InputError
from jaxpg.algorithms.meta_learning.learned_rule import LearnedRuleConfig
from jaxpg.algorithms.meta_learning.rule_agent import make_agent
from jaxpg.algorithms.meta_learning.rule_file import save_rule
from jaxpg.algorithms.meta_learning.update_rule import UpdateRule
from jaxpg.rollout import init_rollout
from jaxpg.spaces import observation_size

KEY = jax.random.key(0)
PLANES = observation_size(*jaxpg_envs.make("GridWorlds-v0", levels="rand_small", observation="planes"))
SIZES = {"num_envs": 3, "num_steps": 4, "total_steps": 24}


@pytest.fixture(scope="module")
def aware(tmp_path_factory):
    """A rule that reads how far a life has come."""
    rule, path = UpdateRule(3, 2, temporally_aware=True), tmp_path_factory.mktemp("rules") / "aware"
    params = rule.initial(KEY)
    save_rule(path, rule, params, {})
    return rule, params, str(path)


def test_an_update_is_what_the_agent_learns_by_the_rule(aware):
    """The run is its life, behind whose end it stays as it is."""
    rule, rule_params, path = aware
    env, params = jaxpg_envs.make("CartPole-v1")
    algorithm = jaxpg.make("learned_rule", env, params, rule=path, hidden_sizes=(4,), **SIZES)
    config = LearnedRuleConfig(hidden_sizes=(4,), **SIZES)
    agent = make_agent("learned_rule", config, env, params, rule.apply, 2)

    @quick_jit
    def start(key):
        _, learner_key, env_key = jax.random.split(key, 3)
        return algorithm.init(key), agent.init(learner_key), init_rollout(env_key, env, params, 3)

    @quick_jit
    def both(state, learner, rollout):
        rollout, transitions = agent.collect(jax.random.split(state.key)[1], learner, rollout, params)
        learner, _ = agent.learn(rule_params, learner, transitions, jnp.int32(2))
        return algorithm.update(state)[0], learner, rollout

    first = start(KEY)
    second = both(*first)
    third = both(*second)
    for state, learner, rollout in (first, second, third):
        assert_close((state.learner, state.rollout.env_state), (learner, rollout.env_state))
        assert_same(state.rule_params, rule_params)
    for before, after in ((first, second), (second, third)):
        moved = jax.tree.map(lambda new, old: jnp.abs(new - old).max() > 0, after[0].learner.actor, before[0].learner.actor)
        assert all(jax.tree.leaves(moved))
    assert_same(both(*third)[0].learner, third[0].learner)


@pytest.mark.parametrize(
    ("env", "options", "settings", "shapes"),
    [
        ("GridWorlds-v0", {"levels": "small"}, {"hidden_sizes": (), "optimizer": "sgd"}, [(288, 5)]),
        ("GridWorlds-v0", {"levels": "small"}, {"hidden_sizes": (4,)}, [(4,), (288, 4), (5,), (4, 5)]),
        ("GridWorlds-v0", {"levels": "rand_small", "observation": "planes"}, {"hidden_sizes": ()}, [(PLANES, 5)]),
        ("CartPole-v1", {}, {"hidden_sizes": (4,)}, [(4,), (4, 4), (2,), (4, 2)]),
        ("CartPole-v1", {}, {"hidden_sizes": ()}, [(4, 2)]),
    ],
)
def test_where_it_can_act(env, options, settings, shapes):
    """Tables where states are numbered and there are no layers; else maps of features."""
    env, params = jaxpg_envs.make(env, **options)
    algorithm = jaxpg.make("learned_rule", env, params, **settings, **SIZES)
    state = jax.eval_shape(algorithm.init, KEY)
    after, _ = jax.eval_shape(algorithm.update, state)
    types = lambda tree: jax.tree.map(lambda x: (x.shape, x.dtype), tree)
    assert types(after) == types(state)
    assert [x.shape for x in jax.tree.leaves(state.learner.actor)] == shapes


GRID, CARTPOLE, PENDULUM = ("GridWorlds-v0", {"levels": "small"}), ("CartPole-v1", {}), ("Pendulum-v1", {})
MAZE = ("Maze-v0", {"size": 3})
REFUSALS = [
    ("learned_rule", PENDULUM, {}, "learned_rule takes one discrete action, but Pendulum-v1 has Box"),
    ("learned_rule", CARTPOLE, {"rule": "nowhere"}, r"rule = 'nowhere'; There is: .*grid_worlds.* save_rule"),
    ("learned_rule", CARTPOLE, {"rule": ""}, "learned_rule: rule must be a text of printable letters, got ''"),
    ("lpg", GRID, {"num_inner_updates": 0}, "lpg: num_inner_updates must be at least 1, got 0"),
    ("lpg", GRID, {"num_agents": 12, "num_minibatches": 8}, "num_agents = 12 does not divide .* take num_minibatches = 4"),
    ("lpg", GRID, {"buffer_size": 8}, "lpg: buffer_size is read only with score = algorithmic_regret or"),
    ("lpg", CARTPOLE, {}, "lpg needs levels for its agents, but CartPole-v1 has none: choose GridWorlds-v0"),
    ("lpg", PENDULUM, {}, "lpg takes one discrete action"),
    ("groove", MAZE, {}, "groove: levels of Maze-v0 do not say for how many updates agents live: set lifetime"),
    ("groove", MAZE, {"score": "optimal_regret", "lifetime": 2}, "needs the optimal return of a level, which Maze-v0 cannot"),
    ("evolved_rule", CARTPOLE, {}, "evolved_rule needs levels for its agents"),
    ("evolved_rule", GRID, {"num_pairs": 3, "num_minibatches": 4}, "twice num_pairs = 3 does .* take num_minibatches = 2"),
]


@pytest.mark.parametrize(("name", "env", "settings", "message"), REFUSALS)
def test_what_cannot_be_trained_is_refused_before_anything_is_compiled(name, env, settings, message, monkeypatch):
    env, params = jaxpg_envs.make(env[0], **env[1])
    monkeypatch.setattr(jax.stages.Lowered, "compile", lambda *_, **__: pytest.fail("it compiled"))
    with pytest.raises(InputError, match=message):
        jaxpg.make(name, env, params, **settings)
