"""Lives of agents that learn by a rule, on a level for as long as it says."""

import jax
import jax.numpy as jnp
import pytest
from checks import assert_same, quick_jit

import jaxpg_envs
from jaxpg.algorithm import InputError
from jaxpg.algorithms.meta_learning.lives import make_living
from jaxpg.algorithms.meta_learning.rule_agent import AgentConfig, make_agent
from jaxpg.algorithms.meta_learning.update_rule import UpdateRule

RULE, CONFIG = UpdateRule(4, 3), AgentConfig(num_envs=2, num_steps=3)
KEY = jax.random.key(0)


def living_in(env, params, lifetime=0):
    agent = make_agent("lpg", CONFIG, env, params, RULE.apply, 3)
    return agent, make_living("lpg", CONFIG, lifetime, env, params, agent)


def test_a_life_is_as_many_updates_as_its_level_says():
    """One after the other, each on a rollout of its own that goes on where the last one ended."""
    env, params = jaxpg_envs.make("GridWorlds-v0", levels="small")
    level = params.level._replace(lifetime=jnp.int32(3))
    agent, living = living_in(env, params.replace(level=level))
    eta, life = RULE.initial(KEY), living.born(KEY, level, ())
    assert (living.lifetime, int(life.lifetime), int(life.learner.step)) == (3, 3, 0)
    grown = quick_jit(living.grown)(eta, KEY, life)
    learner, state = life.learner, life.rollout
    collect, learn = quick_jit(agent.collect), quick_jit(agent.learn)
    for index in range(3):
        state, t = collect(jax.random.fold_in(KEY, index), learner, state, living.params_of(level))
        learner, _ = learn(eta, learner, t, life.lifetime)
    assert int(grown.step) == 3
    for one, other in zip(jax.tree.leaves(grown), jax.tree.leaves(learner), strict=True):
        assert jnp.allclose(one, other, rtol=1e-4, atol=1e-5)
    assert (
        jnp.abs(grown.actor["params"]["Embed_0"]["embedding"] - life.learner.actor["params"]["Embed_0"]["embedding"]).max() > 0
    )
    assert_same(living.born(KEY, level, ()).learner, life.learner)


def test_who_cannot_live_is_told_why():
    with pytest.raises(InputError, match="lpg needs levels for its agents, but CartPole-v1 has none: choose GridWorlds-v0"):
        living_in(*jaxpg_envs.make("CartPole-v1"))
    maze = jaxpg_envs.make("Maze-v0", size=3)
    with pytest.raises(InputError, match="levels of Maze-v0 do not say for how many updates agents live: set lifetime"):
        living_in(*maze)
    assert living_in(*maze, lifetime=7)[1].lifetime == 7
    with pytest.raises(InputError, match="lpg takes one discrete action, but Pendulum-v1 has Box"):
        living_in(*jaxpg_envs.make("Pendulum-v1"))
