"""Update rules by evolution strategies: the black box beside the meta-gradient (as in Jackson et al., 2024, arXiv 2402.05828).

In an update pairs of rules, the mean and an equal step of noise to either side of it, each train an agent for its whole life,
both on one level and from the same start. The better rule of a pair, by its agent's return in the end, draws the mean its way.
Nothing is differentiated and no life cut short, so that `temporally_aware` rules can weigh what comes late in a life. The
strategy is evosax's OpenAI-ES.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int, PyTree

from jaxpg.algorithm import (
    LONGEST,
    MOST_UNITS,
    Algorithm,
    InputError,
    Metrics,
    Policy,
    Scalar,
    hyperparameter,
    register,
    static,
)
from jaxpg.algorithms.meta_learning.lives import LIFETIME_HELP, make_living
from jaxpg.algorithms.meta_learning.rule_agent import AgentConfig, make_agent
from jaxpg.algorithms.meta_learning.update_rule import UpdateRule
from jaxpg.counting import increment, init_count


@struct.dataclass
class EvolvedRuleConfig(AgentConfig):
    """Hyperparameters, by default those of TA-LPG's code."""

    total_steps: int = static(10**14, "environment steps of all agents", high=LONGEST)
    num_pairs: int = static(512, "levels of an update, and pairs of rules that are tried on them")
    num_minibatches: int = static(8, "parts of the population that live one after the other")
    lifetime: int = static(0, LIFETIME_HELP, low=0)
    rule_size: int = static(256, "units of the rule's recurrent network", high=MOST_UNITS)
    num_bins: int = static(8, "m, of the agents' predictions", low=2, high=MOST_UNITS)
    temporally_aware: bool = static(True, "the rule reads how far an agent's life has come")
    meta_learning_rate: Scalar = hyperparameter(1e-2, "step size of Adam on the rule", low=0)
    meta_learning_rate_decay: Scalar = hyperparameter(0.999, "factor of the step size per update, down to 1e-5", low=0, high=1)
    noise: Scalar = hyperparameter(0.1, "standard deviation of the rules around their mean", low=1e-6)


class EvolvedRuleState(NamedTuple):
    """The whole state of a run: the mean of the rules, and evosax's state but for that mean."""

    key: jax.Array
    rule: PyTree
    strategy: PyTree
    updates: Int[Array, "*digit"]


@register(
    "evolved_rule",
    EvolvedRuleConfig,
    paper="Jackson et al. 2024, arXiv 2402.05828",
    field="meta_learning",
    actions="discrete",
    status="a comparator for lpg",
)
def evolved_rule(config: EvolvedRuleConfig, env: Any, params: PyTree) -> Algorithm:
    """OpenAI-ES on the parameters of an update rule."""
    from evosax.algorithms import Open_ES  # here, because it starts JAX's backend
    from evosax.core.fitness_shaping import identity_fitness_shaping_fn

    population = 2 * config.num_pairs
    if population % config.num_minibatches:
        raise InputError(
            f"evolved_rule: twice num_pairs = {config.num_pairs} does not divide into num_minibatches = "
            f"{config.num_minibatches}: take num_minibatches = {math.gcd(population, config.num_minibatches)}"
        )
    rule = UpdateRule(config.rule_size, config.num_bins, config.temporally_aware)
    agent = make_agent("evolved_rule", config, env, params, rule.apply, config.num_bins)
    living = make_living("evolved_rule", config, config.lifetime, env, params, agent)
    example = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), jax.eval_shape(rule.initial, jax.random.key(0)))

    def learning_rate(count: Int[Array, ""]) -> Float[Array, ""]:
        least = jnp.minimum(config.meta_learning_rate, 1e-5)
        return jnp.maximum(config.meta_learning_rate * config.meta_learning_rate_decay**count, least)

    strategy = Open_ES(
        population,
        example,
        optimizer=optax.adam(learning_rate),
        std_schedule=optax.constant_schedule(config.noise),
        fitness_shaping_fn=identity_fitness_shaping_fn,
    )
    steps = population * config.num_envs * config.num_steps * living.lifetime
    num_updates = math.ceil(config.total_steps / steps)

    def init(key: jax.Array) -> EvolvedRuleState:
        key, rule_key, strategy_key = jax.random.split(key, 3)
        rule_params = rule.initial(rule_key)
        with jax.debug_nans(False):  # evosax begins with NaN in the place of a best solution
            start = strategy.init(strategy_key, rule_params, strategy.default_params)
        start = start.replace(mean=(), best_solution=ravel_pytree(rule_params)[0])
        return EvolvedRuleState(key, rule_params, start, init_count(num_updates))

    def fitness(key: jax.Array, rule_params: PyTree, birth_key: jax.Array, level: PyTree) -> Float[Array, ""]:
        life_key, return_key = jax.random.split(key)
        learner = living.grown(rule_params, life_key, living.born(birth_key, level, ()))
        return living.return_of(return_key, learner, level)

    def update(state: EvolvedRuleState) -> tuple[EvolvedRuleState, Metrics]:
        key, ask_key, level_key, birth_key, life_key, tell_key = jax.random.split(state.key, 6)
        start = state.strategy.replace(mean=ravel_pytree(state.rule)[0])
        rules, asked = strategy.ask(ask_key, start, strategy.default_params)  # one side first, then the other
        levels = jax.vmap(living.sample_level)(jax.random.split(level_key, config.num_pairs))
        twice = lambda tree: jax.tree.map(lambda x: x[jnp.arange(population) % config.num_pairs], tree)
        births, lives = jax.random.split(birth_key, config.num_pairs), jax.random.split(life_key, population)
        candidates = lives, rules, twice(births), twice(levels)
        size = population // config.num_minibatches
        returns = jax.lax.map(lambda x: fitness(*x), candidates, batch_size=size)
        better = jnp.sign(returns[: config.num_pairs] - returns[config.num_pairs :]) / 2
        cost = -jnp.concatenate([better, -better])  # evosax minimises
        told, _ = strategy.tell(tell_key, rules, cost, asked, strategy.default_params)
        metrics = {
            "fitness_mean": returns.mean(),
            "fitness_min": returns.min(),
            "fitness_max": returns.max(),
            "decided_pairs": (better != 0).mean(dtype=jnp.float32),
        }
        rule_params = strategy.get_mean(told)
        return EvolvedRuleState(key, rule_params, told.replace(mean=()), increment(state.updates)), metrics

    def policy(state: EvolvedRuleState, deterministic: bool = True) -> Policy:
        """That of a new agent, which lives on the level of the parameters and learns by the mean rule."""
        return living.policy(state.rule, jax.random.fold_in(state.key, 0), deterministic)

    return Algorithm(init, update, policy, config, steps, num_updates)
