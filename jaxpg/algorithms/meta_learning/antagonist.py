"""The antagonist of algorithmic regret: A2C, trained on a level for as long as an agent lived there."""

from collections.abc import Callable
from typing import Any

import distrax
import jax
import optax
from jaxtyping import Array, Float, Int, PyTree

from jaxpg.algorithms.meta_learning.rule_agent import make_heads, make_optimizer
from jaxpg.algorithms.online import a2c
from jaxpg.evaluation import evaluate
from jaxpg.networks import ActorCritic
from jaxpg.rollout import init_rollout
from jaxpg.spaces import observation_size


def make_antagonist(
    config: Any, env: Any, params: PyTree
) -> Callable[[jax.Array, PyTree, Int[Array, " level"]], Float[Array, " level"]]:
    """A function `(key, env_params stacked, lifetimes) -> mean returns` of new A2C agents, each after as many updates.

    Network, optimiser and rollouts are those of the agents; advantages are normalised, as in GROOVE's code.
    """
    a2c_config = a2c.A2CConfig(
        num_envs=config.num_envs,
        num_steps=config.num_steps,
        hidden_sizes=config.hidden_sizes,
        activation=config.activation,
        normalize_observations=False,
        normalize_rewards=False,
        normalize_advantages=True,
        anneal_learning_rate=False,
        discount=config.discount,
        gae_lambda=config.gae_lambda,
        entropy_coefficient=config.antagonist_entropy_coefficient,
        value_coefficient=2.0,  # of half a mean square
    )
    heads = make_heads(config, env, params)
    actor, critic = heads.make(env.action_space(params).n, 0.01), heads.make(1, 1.0)

    def init(key: jax.Array) -> PyTree:
        keys = jax.random.split(key)
        return {"actor": actor.init(keys[0], heads.example), "critic": critic.init(keys[1], heads.example)}

    network = ActorCritic(
        init=init,
        distribution=lambda p, x: distrax.Categorical(logits=actor.apply(p["actor"], x)),
        value=lambda p, x: critic.apply(p["critic"], x)[..., 0],
        context_size=observation_size(env, params),
        read=heads.inputs,
    )
    optimizers = {
        "actor": make_optimizer(config, config.learning_rate),
        "critic": make_optimizer(config, config.prediction_learning_rate),
    }
    optimizer = optax.partition(optimizers, {"actor": "actor", "critic": "critic"})
    parts = a2c.make_parts(a2c_config, env, params, network, optimizer)

    def one(key: jax.Array, env_params: PyTree, lifetime: Int[Array, ""]) -> Float[Array, ""]:
        init_key, env_key, learn_key, evaluate_key = jax.random.split(key, 4)
        start = parts.init(init_key), init_rollout(env_key, env, env_params, config.num_envs)

        def update(index: Array, carry: tuple) -> tuple:
            learner, state = carry
            collect_key, step_key = jax.random.split(jax.random.fold_in(learn_key, index))
            state, transitions = parts.collect(collect_key, learner, state, env_params)
            return parts.learn(step_key, learner, transitions)[0], state

        learner, _ = jax.lax.fori_loop(0, lifetime, update, start)
        return evaluate(parts.policy(learner, False), env, env_params, evaluate_key, config.num_envs).mean()

    def all_of_them(key: jax.Array, env_params: PyTree, lifetimes: Int[Array, " level"]) -> Float[Array, " level"]:
        rows = jax.random.split(key, lifetimes.shape[0]), env_params, lifetimes
        if jax.default_backend() == "cpu":  # side by side, all take as long as the longest life
            return jax.lax.map(lambda row: one(*row), rows)
        return jax.vmap(one)(*rows)

    return all_of_them
