"""The lives of agents: born on a level, they learn by a rule for as many updates as the level says."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from jaxpg.algorithm import InputError, Policy, in_32_bits
from jaxpg.algorithms.meta_learning.rule_agent import AgentConfig, Learner, RuleAgent
from jaxpg.errors import name_of
from jaxpg.evaluation import evaluate
from jaxpg.rollout import RolloutState, init_rollout

LIFETIME_HELP = "updates that an agent lives; 0: as many as its level says"


class Lives(NamedTuple):
    """Agents: what they have learned, where they stand, their levels, updates until their lives end; `critic` is their value
    function, which only a meta-gradient reads (else `()`)."""

    learner: Learner
    rollout: RolloutState
    critic: PyTree
    level: PyTree
    lifetime: Int[Array, "*agent"]


class Living(NamedTuple):
    """What can be done with one agent on one level of an environment.

    Attributes:
      sample_level: `key -> level`.
      params_of: `level -> env_params`.
      born: `(key, level, critic) -> life`.
      grown: `(rule_params, key, life) -> learner` at its end.
      return_of: `(key, learner, level) -> mean return` of the policy as it explores, an episode in each environment.
      policy: `(rule_params, key, deterministic) -> Policy` of an agent that has lived on the level of the parameters.
      lifetime: of an agent there.
    """

    sample_level: Callable[[jax.Array], PyTree]
    params_of: Callable[[PyTree], PyTree]
    born: Callable[[jax.Array, PyTree, PyTree], Lives]
    grown: Callable[[PyTree, jax.Array, Lives], Learner]
    return_of: Callable[[jax.Array, Learner, PyTree], Float[Array, ""]]
    policy: Callable[[PyTree, jax.Array, bool], Policy]
    lifetime: int


def make_living(name: str, config: AgentConfig, lifetime: int, env: Any, params: PyTree, agent: RuleAgent) -> Living:
    """Lives in an environment that has levels.

    Args:
      lifetime: of all agents; 0 if their levels say it.

    Raises:
      InputError: the environment has no levels, or none that say for how long agents live.
    """
    if not hasattr(env, "sample_level") or not hasattr(params, "level"):
        raise InputError(f"{name} needs levels for its agents, but {name_of(env)} has none: choose GridWorlds-v0")
    if not lifetime and not hasattr(params.level, "lifetime"):
        raise InputError(f"{name}: levels of {name_of(env)} do not say for how many updates agents live: set lifetime")

    def params_of(level: PyTree) -> PyTree:
        return params.replace(level=level)

    def born(key: jax.Array, level: PyTree, critic: PyTree) -> Lives:
        learner_key, env_key = jax.random.split(key)
        rollout = init_rollout(env_key, env, params_of(level), config.num_envs)
        updates = jnp.asarray(lifetime or level.lifetime, jnp.int32)
        return Lives(agent.init(learner_key), rollout, critic, level, updates)

    def grown(rule_params: PyTree, key: jax.Array, life: Lives) -> Learner:
        def update(index: Array, carry: tuple[Learner, RolloutState]) -> tuple[Learner, RolloutState]:
            learner, state = carry
            state, t = agent.collect(jax.random.fold_in(key, index), learner, state, params_of(life.level))
            return agent.learn(rule_params, learner, t, life.lifetime)[0], state

        return jax.lax.fori_loop(0, life.lifetime, update, (life.learner, life.rollout))[0]

    def return_of(key: jax.Array, learner: Learner, level: PyTree) -> Float[Array, ""]:
        return evaluate(agent.policy(learner, False), env, params_of(level), key, config.num_envs).mean()

    @in_32_bits
    def policy(rule_params: PyTree, key: jax.Array, deterministic: bool) -> Policy:
        birth_key, life_key = jax.random.split(key)
        life = born(birth_key, params.level, ())
        return agent.policy(grown(rule_params, life_key, life), deterministic)

    return Living(env.sample_level, params_of, born, grown, return_of, policy, int(lifetime or params.level.lifetime))
