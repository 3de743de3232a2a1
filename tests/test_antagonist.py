"""The antagonist of algorithmic regret is A2C with tables: what its actor-critic reads."""

import distrax
import jax
import jax.numpy as jnp
import numpy as np
from checks import quick_jit

import jaxpg_envs
from jaxpg.algorithms.meta_learning.rule_agent import Head
from jaxpg.algorithms.online import a2c
from jaxpg.networks import ActorCritic
from jaxpg.rollout import init_rollout

ENV, PARAMS = jaxpg_envs.make("GridWorlds-v0", levels="small")
NUM_STATES = ENV.observation_space(PARAMS).n
KEY = jax.random.key(0)


def linear_network(is_table):
    """A table that reads numbers, or the linear map of one-hot features, with the same parameters."""
    actor, critic = (Head(n, NUM_STATES if is_table else 0, (), "relu", 1.0) for n in (ENV.num_actions, 1))
    example = jnp.int32(0) if is_table else jnp.zeros(NUM_STATES)

    def init(key):
        like = {"actor": actor.init(key, example), "critic": critic.init(key, example)}
        leaves, structure = jax.tree.flatten(like)
        return jax.tree.unflatten(structure, [jax.random.normal(key, x.shape) for x in leaves])

    return ActorCritic(
        init=init,
        distribution=lambda p, x: distrax.Categorical(logits=actor.apply(p["actor"], x)),
        value=lambda p, x: critic.apply(p["critic"], x)[..., 0],
        context_size=NUM_STATES,
        read=(lambda x: x) if is_table else None,
    )


def test_an_actor_critic_reads_observations_as_it_says():
    """A table of numbered states acts and learns as the linear map of one-hot features does."""
    config = a2c.A2CConfig(num_envs=4, num_steps=8, normalize_observations=False, normalize_rewards=False, learning_rate=0.1)
    found = []
    for is_table in (True, False):
        parts = a2c.make_parts(config, ENV, PARAMS, linear_network(is_table))

        def learned(key, parts=parts):
            learner = parts.init(key)
            _, t = parts.collect(key, learner, init_rollout(key, ENV, PARAMS, 4), PARAMS)
            updated = parts.learn(key, learner, t)[0]
            return t.observation, t.extras.action, jax.tree.leaves(learner.params), jax.tree.leaves(updated.params)

        found.append(quick_jit(learned)(KEY))
    for one, other in zip(*map(jax.tree.leaves, found), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
    before, after = found[0][2:]
    assert all(np.abs(new - old).max() > 1e-3 for old, new in zip(before, after, strict=True))
