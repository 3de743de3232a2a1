"""ME-ES: an evolution strategy that climbs from elite to elite, for fitness and for novelty in turn (Colas et al. 2020).

A generation is the strategy's mean and samples around it, in mirrored pairs; the mean of their noise, weighted with centred
ranks, is the direction of a step of Adam. After some steps the strategy begins anew at another elite, with the other aim.
Novelty is the distance to what earlier means achieved.

Differences from the paper: samples get into the repertoire like means, since they have been evaluated; a mean runs one episode
and not 30; observations are not normalised. Of the official code's rules for where to begin, one of two for each of the
paper's experiments, these are `best_or_uniform` for fitness and `novelty_bias` for novelty.
"""

import math
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jaxtyping import Array, Bool, Float, Int, PyTree

from jaxpg.algorithm import Algorithm, InputError, Metrics, Scalar, hyperparameter, register, static
from jaxpg.algorithms.quality_diversity.episodes import CONTROLLER_HELP, Episodes, as_task, make_controller
from jaxpg.algorithms.quality_diversity.generations import (
    Emitter,
    QualityDiversityConfig,
    as_algorithm,
    together,
    untargeted,
)
from jaxpg.algorithms.quality_diversity.repertoire import Repertoire, acceptable, genotypes_at
from jaxpg.counting import increment
from jaxpg.gradient_descent import descend
from jaxpg.transforms import any_in_batch

MEANS = 1000  # as many as the paper's runs have generations: whose descriptors novelty is measured by
NEIGHBOURS = 10  # of a descriptor
MOST_NOVEL = 5  # elites, one of which a search for novelty begins at but for one time in ten


@struct.dataclass
class MEESConfig(QualityDiversityConfig):
    """Hyperparameters."""

    num_offspring: int = static(1001, "genotypes that a generation evaluates: the mean, and samples in pairs", low=5)
    controller: Literal["network", "open_loop"] = static("network", CONTROLLER_HELP)
    generations_per_elite: int = static(10, "steps of the strategy from one elite")
    sigma: Scalar = hyperparameter(0.02, "standard deviation of the samples", low=0)
    learning_rate: Scalar = hyperparameter(0.01, "step size of Adam", low=0)
    weight_decay: Scalar = hyperparameter(0.005, "how much of the mean is taken from the direction", low=0)


class Strategy(NamedTuple):
    """The state of the search, before a generation.

    Attributes:
      mean, optimizer_state: where the next step begins.
      latest: what the last step led to, which was the end of a climb where it is not the mean: evaluated in any case.
      noise: of half of the samples, leaves (pair, ...); the others' is its negative.
      achieved: descriptors of the last `MEANS` evaluated `latest`, infinite where there is none.
      steps: how many were made.
    """

    mean: PyTree[Array]
    optimizer_state: PyTree
    latest: PyTree[Array]
    noise: PyTree[Array]
    achieved: Float[Array, "mean descriptor"]
    steps: Int[Array, ""]


def novelty(
    descriptors: Float[Array, "*batch descriptor"], achieved: Float[Array, "mean descriptor"]
) -> Float[Array, "*batch"]:
    """Mean squared distance to the `NEIGHBOURS` nearest of those achieved, infinite being none; 0 if there is none at all.

    Source: Colas et al. 2020; squared as in the official code.
    """
    distances = jnp.square(descriptors[..., None, :] - achieved).sum(-1)
    nearest, _ = jax.lax.top_k(-jnp.where(jnp.isnan(distances), jnp.inf, distances), NEIGHBOURS)
    known = jnp.isfinite(nearest)
    return jnp.where(known, -nearest, 0.0).sum(-1) / jnp.maximum(known.sum(-1), 1)


def ascent_direction(values: Float[Array, "two pair"], noise: PyTree[Float[Array, "pair ..."]]) -> PyTree[Float[Array, "..."]]:
    """The mean of the noise, weighted with the centred ranks of x + sigma noise less those of x - sigma noise.

    Ranks are from -0.5 to 0.5, of equal values the same. Source: Salimans et al. 2017 (arXiv 1703.03864), section 2.1; scaled
    as in the official code of ME-ES.
    """
    ranks = (jax.scipy.stats.rankdata(values.ravel()) - 1.0) / (values.size - 1) - 0.5
    plus, minus = ranks.reshape(values.shape)
    return jax.tree.map(lambda x: jnp.tensordot(plus - minus, x, 1) / len(plus), noise)


def elite_probabilities(
    fitnesses: Float[Array, " cell"], novelties: Float[Array, " cell"], explores: Bool[Array, ""]
) -> Float[Array, " cell"]:
    """With which each elite is begun at; -inf is the fitness of empty cells.

    For fitness, one half goes to the fittest and one half to all alike; for novelty, a tenth to all alike and the rest to the
    most novel in proportion to their novelty. Source: official code, `best_or_uniform` and `novelty_bias`.
    """
    filled = fitnesses > -jnp.inf
    uniform = filled / filled.sum()
    fittest = jax.nn.one_hot(fitnesses.argmax(), len(fitnesses))
    novelties = jnp.where(filled, novelties, 0.0)
    least = jax.lax.top_k(novelties, min(MOST_NOVEL, len(novelties)))[0][-1]
    most_novel = jnp.where(novelties >= least, novelties, 0.0)
    total = most_novel.sum()
    most_novel = jnp.where(total > 0, most_novel / jnp.where(total > 0, total, 1.0), uniform)
    return jnp.where(explores, 0.1 * uniform + 0.9 * most_novel, 0.5 * uniform + 0.5 * fittest)


@register(
    "me_es",
    MEESConfig,
    paper="Colas et al. 2020, arXiv 2003.01825",
    field="quality_diversity",
    actions="continuous",
    status="results",
)
def me_es(config: MEESConfig, env: Any, params: PyTree) -> Algorithm:
    """Explores and exploits in turn, for fitness first."""
    task = as_task("me_es", env, params)
    if config.num_offspring % 2 == 0:
        raise InputError(
            f"me_es: num_offspring = {config.num_offspring} must be odd: the mean, and samples in pairs; take "
            f"{config.num_offspring - 1} or {config.num_offspring + 1}"
        )
    pairs = config.num_offspring // 2
    controller = make_controller(config.controller, task, config.hidden_sizes)
    optimizer = optax.adam(config.learning_rate)

    def draw_noise(key: jax.Array, genotype: PyTree) -> PyTree:
        leaves, structure = jax.tree.flatten(genotype)
        keys = jax.random.split(key, len(leaves))
        noise = [jax.random.normal(key, (pairs, *x.shape)) for key, x in zip(keys, leaves, strict=True)]
        return jax.tree.unflatten(structure, noise)

    def init(key: jax.Array) -> Strategy:
        noise_key, key = jax.random.split(key)
        mean = controller.init(key)
        achieved = jnp.full((MEANS, len(task.low)), jnp.inf)
        return Strategy(mean, optimizer.init(mean), mean, draw_noise(noise_key, mean), achieved, jnp.int32(0))

    def emit(key: jax.Array, strategy: Strategy, _: Repertoire) -> tuple[PyTree, Float[Array, "offspring descriptor"]]:
        del key
        moved = lambda sign: jax.tree.map(lambda x, e: x + sign * config.sigma * e, strategy.mean, strategy.noise)
        latest = jax.tree.map(lambda x: x[None], strategy.latest)
        return together(latest, moved(1.0), moved(-1.0)), untargeted(config.num_offspring, task)

    def explores(climb: Int[Array, ""]) -> Bool[Array, ""]:
        return climb % 2 == 1

    def learn(
        key: jax.Array, strategy: Strategy, repertoire: Repertoire, episodes: Episodes, targets: Array
    ) -> tuple[Strategy, Metrics]:
        del targets
        elite_key, noise_key = jax.random.split(key)
        # The first generation is random and belongs to no climb; the first climb begins at one of its elites.
        began = strategy.steps > 0
        exploring = explores((strategy.steps - 1) // config.generations_per_elite)
        place = (strategy.steps - 1) % MEANS
        able = acceptable(episodes.fitnesses, episodes.descriptors)
        latest = jnp.where(jnp.isfinite(episodes.descriptors[0]).all(), episodes.descriptors[0], jnp.inf)
        achieved = jnp.where(began, strategy.achieved.at[place].set(latest), strategy.achieved)
        samples = episodes.descriptors[1:]
        values = jnp.where(exploring, novelty(samples, achieved), episodes.fitnesses[1:])
        ascent = ascent_direction(jnp.where(able[1:], values, -jnp.inf).reshape(2, pairs), strategy.noise)
        gradient = jax.tree.map(lambda step, x: config.weight_decay * x - step, ascent, strategy.mean)
        stepped, optimizer_state = descend(optimizer, gradient, strategy.mean, strategy.optimizer_state)

        climb_ends = strategy.steps % config.generations_per_elite == 0

        def draw_elite() -> PyTree:
            aim = explores(strategy.steps // config.generations_per_elite)
            chances = elite_probabilities(repertoire.fitnesses, novelty(repertoire.descriptors, achieved), aim)
            return genotypes_at(repertoire, jax.random.choice(elite_key, len(chances), p=chances))

        elite = jax.lax.cond(any_in_batch(climb_ends), draw_elite, lambda: strategy.mean)
        choose = lambda flag, a, b: jax.tree.map(lambda a, b: jnp.where(flag, a, b), a, b)
        learned = Strategy(
            mean=choose(climb_ends, elite, stepped),
            optimizer_state=choose(climb_ends, optimizer.init(elite), optimizer_state),
            latest=choose(began, stepped, elite),
            noise=draw_noise(noise_key, elite),
            achieved=achieved,
            steps=increment(strategy.steps, math.lcm(2 * config.generations_per_elite, MEANS)),
        )
        return learned, {"explores": (began & exploring).astype(jnp.float32)}

    operators = {"mean": 1, "samples": config.num_offspring - 1}
    return as_algorithm(config, task, controller, Emitter(operators, emit, init, learn))
