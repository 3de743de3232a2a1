"""CMA-ME: evolution strategies that search for improvements of a repertoire (Fontaine et al. 2020, arXiv 1912.02400).

Several strategies search side by side. Each draws genotypes from a normal distribution and moves it towards the better half:
first those that filled an empty cell, by fitness, then those fitter than their cell's elite, by how much, then the rest. A
strategy of whose offspring none got in begins anew at a random elite.

Differences from the paper: covariances are diagonal (Ros and Hansen 2008), since those of a network's thousands of weights
would not fit into memory; the better half of the offspring are parents however many of them got in; all emitters add their
offspring at once, judged against the repertoire before any of them. The paper's other emitters, of random directions and of
fitness alone, are missing. The strategies are evosax's.
"""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, PyTree

from jaxpg.algorithm import Algorithm, InputError, Metrics, Scalar, hyperparameter, register, static
from jaxpg.algorithms.quality_diversity.episodes import CONTROLLER_HELP, Episodes, as_task, make_controller
from jaxpg.algorithms.quality_diversity.generations import Emitter, QualityDiversityConfig, as_algorithm, untargeted
from jaxpg.algorithms.quality_diversity.repertoire import Repertoire, acceptable, genotypes_at, nearest, sample


@struct.dataclass
class CMAMEConfig(QualityDiversityConfig):
    """Hyperparameters."""

    controller: Literal["network", "open_loop"] = static("network", CONTROLLER_HELP)
    num_emitters: int = static(8, "evolution strategies, which share the offspring evenly")
    sigma: Scalar = hyperparameter(0.1, "standard deviation with which a strategy begins", low=0)


class Strategies(NamedTuple):
    """The state of all emitters; leaves of the first two (emitter, ...).

    Attributes:
      states: evosax's.
      offspring: genotypes drawn for the next generation, leaves (emitter, offspring, ...).
      fitnesses: the repertoire's, before that generation.
      began: whether there were offspring of theirs yet; the first generation is random.
    """

    states: PyTree
    offspring: PyTree
    fitnesses: Float[Array, " cell"]
    began: Bool[Array, ""]


def improvement_ranks(
    fitnesses: Float[Array, " offspring"], elites: Float[Array, " offspring"]
) -> tuple[Float[Array, " offspring"], Bool[Array, " offspring"]]:
    """Ranks by improvement, 0 being the best, and who is better than the elite of its cell.

    Args:
      fitnesses: NaN for who can not get in.
      elites: fitness of the elite in each one's cell, -inf for an empty cell.

    Source: Fontaine et al. 2020, section 4 (improvement emitter).
    """
    able = ~jnp.isnan(fitnesses)
    improves, discovers = able & (fitnesses > elites), able & (elites == -jnp.inf)
    kind = discovers.astype(jnp.int32) + improves - ~able
    value = jnp.where(discovers, fitnesses, jnp.where(able, fitnesses - elites, 0.0))
    order = jnp.lexsort((-value, -kind))
    return jnp.zeros_like(fitnesses).at[order].set(jnp.arange(len(order), dtype=fitnesses.dtype)), improves


def make_strategy(num_offspring: int, genotype: PyTree) -> tuple[Any, Any]:
    """evosax's strategy with a diagonal covariance, and its parameters.

    A diagonal of n numbers is learned (n + 2) / 3 times as quickly as a full covariance (Ros and Hansen 2008, section 3), which
    evosax 0.3 leaves out.
    """
    from evosax.algorithms import Sep_CMA_ES  # here, because it starts JAX's backend

    strategy = Sep_CMA_ES(num_offspring, genotype)
    options, quicker = strategy.default_params, (strategy.num_dims + 2) / 3
    c_1 = quicker * options.c_1
    return strategy, options.replace(c_1=c_1, c_mu=jnp.minimum(quicker * options.c_mu, 1 - c_1))


@register(
    "cma_me",
    CMAMEConfig,
    paper="Fontaine et al. 2020, arXiv 1912.02400",
    field="quality_diversity",
    actions="continuous",
    status="results; improvement emitters alone",
)
def cma_me(config: CMAMEConfig, env: Any, params: PyTree) -> Algorithm:
    """Improvement emitters alone."""
    task = as_task("cma_me", env, params)
    number = config.num_emitters
    if config.num_offspring % number:
        raise InputError(f"cma_me: num_offspring = {config.num_offspring} does not divide into num_emitters = {number}")
    if config.num_offspring == number:
        raise InputError(
            f"cma_me: num_offspring = num_emitters = {number} leaves one offspring to each, which has no better half: give at "
            f"least {2 * number}, or fewer emitters"
        )
    controller = make_controller(config.controller, task, config.hidden_sizes)
    with jax.ensure_compile_time_eval():  # evosax counts the weights of an example, also where hyperparameters are traced
        strategy, options = make_strategy(config.num_offspring // number, controller.init(jax.random.key(0)))
    options = options.replace(std_init=config.sigma)

    def begin(key: jax.Array, means: PyTree) -> PyTree:
        states = jax.vmap(lambda key, mean: strategy.init(key, mean, options))(jax.random.split(key, number), means)
        states = states.replace(best_solution=states.mean)  # not NaN, which `jax_debug_nans` takes for a mistake
        return jax.tree.map(lambda x: jax.lax.convert_element_type(x, x.dtype), states)  # of Python's numbers too

    def ask(key: jax.Array, states: PyTree) -> tuple[PyTree, PyTree]:
        return jax.vmap(lambda key, state: strategy.ask(key, state, options))(jax.random.split(key, number), states)

    def init(key: jax.Array) -> Strategies:
        begin_key, ask_key, key = jax.random.split(key, 3)
        offspring, states = ask(ask_key, begin(begin_key, jax.vmap(controller.init)(jax.random.split(key, number))))
        return Strategies(states, offspring, jnp.full(config.num_cells, -jnp.inf), jnp.bool_(False))

    def emit(key: jax.Array, strategies: Strategies, _: Repertoire) -> tuple[PyTree, Float[Array, "offspring descriptor"]]:
        del key
        genotypes = jax.tree.map(lambda x: x.reshape(config.num_offspring, *x.shape[2:]), strategies.offspring)
        return genotypes, untargeted(config.num_offspring, task)

    def learn(
        key: jax.Array, strategies: Strategies, repertoire: Repertoire, episodes: Episodes, targets: Array
    ) -> tuple[Strategies, Metrics]:
        tell_key, elite_key, begin_key, ask_key = jax.random.split(key, 4)
        elites = strategies.fitnesses[nearest(repertoire.centroids, episodes.descriptors)]
        able = acceptable(episodes.fitnesses, episodes.descriptors)
        fitnesses = jnp.where(able, episodes.fitnesses, jnp.nan)
        ranks, improves = jax.vmap(improvement_ranks)(fitnesses.reshape(number, -1), elites.reshape(number, -1))
        tell = lambda key, offspring, ranks, state: strategy.tell(key, offspring, ranks, state, options)[0]
        told = jax.vmap(tell)(jax.random.split(tell_key, number), strategies.offspring, ranks, strategies.states)
        fresh = begin(begin_key, genotypes_at(repertoire, sample(elite_key, repertoire, number)))
        goes_on = strategies.began & improves.any(1) & jnp.isfinite(told.std)
        choose = jax.vmap(lambda flag, a, b: jax.tree.map(lambda a, b: jnp.where(flag, a, b), a, b))
        offspring, states = ask(ask_key, choose(goes_on, told, fresh))
        metrics = {"restarts": (~goes_on).mean(dtype=jnp.float32), "sigma": states.std.mean()}
        return Strategies(states, offspring, repertoire.fitnesses, jnp.bool_(True)), metrics

    return as_algorithm(config, task, controller, Emitter({"strategies": config.num_offspring}, emit, init, learn))
