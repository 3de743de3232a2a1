"""Prioritised level replay (Jiang et al., 2021, arXiv 2010.03934).

A buffer remembers how much the student could still learn from each level, and levels are replayed by the rank of that score,
some by how long ago they were played.

On a training set (`levels` = dataset) the buffer is the set: every level is played once, without learning from it, then only
replayed. From the generator, the buffer begins empty, and the student learns from new levels as well. Difference from the
paper, which tosses a coin at every update whether to replay: here it is tossed for every environment.
"""

import math
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float, Int, PyTree

from jaxpg.algorithm import Algorithm, InputError, Metrics, Scalar, hyperparameter, register, static
from jaxpg.algorithms.environment_design import level_buffer, scores
from jaxpg.algorithms.environment_design.curriculum import (
    ADVANTAGES,
    GENERATOR,
    Choice,
    Curriculum,
    CurriculumConfig,
    Outcome,
    as_algorithm,
    own_slots,
    sample_levels,
    split_params,
    with_new,
)
from jaxpg.algorithms.environment_design.level_buffer import LevelBuffer
from jaxpg.algorithms.environment_design.scores import Scores
from jaxpg.algorithms.online.ppo import LAMBDA_HELP
from jaxpg.counting import elapsed

BUFFER_HELP = "levels that are remembered; a training set that is not added to is its own buffer"
FILL_HELP = "share of the buffer that is filled with new levels first"
LAMBDA_SCORES = {"score": ("value_l1", "grounded_value_l1", "positive_value_loss")}  # means of advantage estimates


@struct.dataclass
class ReplayConfig(CurriculumConfig):
    """The student's hyperparameters and those of the buffer."""

    buffer_size: int = static(4000, BUFFER_HELP, high=1_000_000)
    score: Literal["value_l1", "grounded_value_l1", "positive_value_loss", "max_mc"] = static(
        "value_l1", "what makes a level worth a replay"
    )
    prioritization: Literal["rank", "proportional"] = static("rank", "by the rank of scores, or in proportion to them")
    temperature: Scalar = hyperparameter(0.1, "of prioritisation; the lower, the more the best levels count", low=1e-3)
    staleness_coefficient: Scalar = hyperparameter(0.3, "share of levels that are replayed by staleness", low=0, high=1)
    minimum_fill: Scalar = hyperparameter(0.5, FILL_HELP, low=0, high=1, needs=GENERATOR)
    gae_lambda: Scalar = hyperparameter(0.95, LAMBDA_HELP, low=0, high=1, needs=(ADVANTAGES, LAMBDA_SCORES))


@struct.dataclass
class PLRConfig(ReplayConfig):
    """Hyperparameters."""

    buffer_size: int = static(4000, BUFFER_HELP, high=1_000_000, needs=GENERATOR)
    replay_probability: Scalar = hyperparameter(0.5, "share of replayed levels", low=0, high=1, needs=GENERATOR)


def score_of(config: ReplayConfig, played: Scores, max_returns: Float[Array, " level"]) -> Float[Array, " level"]:
    """The score that the configuration names; `max_returns` are the best ever seen on the levels."""
    if config.score == "value_l1":
        return played.value_l1
    if config.score == "grounded_value_l1":
        return scores.grounded(played.value_l1, max_returns)
    if config.score == "positive_value_loss":
        return played.positive_value_loss
    return scores.max_mc(played.mean_value, max_returns)


def priorities(config: ReplayConfig, buffer: LevelBuffer, now: Int[Array, "*digit"]) -> Float[Array, " slot"]:
    """Probabilities of a replay: (1 - rho) P_score + rho P_staleness, of all levels that were seen.

    Source: Jiang et al. 2021 (arXiv 2010.03934), section 3.
    """
    by = level_buffer.rank_weights if config.prioritization == "rank" else level_buffer.proportional_weights
    by_score = by(buffer.score, buffer.seen, config.temperature)
    by_staleness = level_buffer.staleness_weights(buffer, buffer.seen, now)
    return (1.0 - config.staleness_coefficient) * by_score + config.staleness_coefficient * by_staleness


def insert_levels(
    config: ReplayConfig,
    buffer: LevelBuffer,
    levels: PyTree,
    played: Scores,
    now: Int[Array, "*digit"],
) -> tuple[LevelBuffer, Metrics]:
    """Scores new levels and keeps them in place of those least likely to be replayed, if their score is no lower.

    Levels of the training set are kept. The order of eviction is that of the authors of DRED (`replay_support`).
    """
    score = score_of(config, played, played.max_return)
    priority = jnp.where(played.scored, score, -jnp.inf)
    weights = jnp.where(buffer.is_dataset, jnp.inf, priorities(config, buffer, now))
    buffer, entered = level_buffer.insert(buffer, levels, score, played.max_return, priority, buffer.score, weights, now)
    return buffer, {"admitted": entered.mean(dtype=jnp.float32)}


def is_ready(config: ReplayConfig, buffer: LevelBuffer) -> Bool[Array, ""]:
    """Whether there are enough levels to replay."""
    return buffer.seen.mean(dtype=jnp.float32) >= config.minimum_fill


def first_visits(config: CurriculumConfig, dataset: PyTree) -> tuple[int, str]:
    """The update, counted from 1, in which every level of the training set was visited, and words for what holds before it."""
    number = jax.tree.leaves(dataset)[0].shape[0]
    visits = math.ceil(number / config.num_envs)
    return 1 + visits, f"nothing is learned on first visits of the training set ({number} levels, num_envs = {config.num_envs})"


def first_replay(config: ReplayConfig, dataset: PyTree, rollouts: int, until_then: str) -> tuple[int, str]:
    """The update, counted from 1, in which the buffer is filled enough, and words for what holds before it.

    Args:
      rollouts: of an update, each of which fills `num_envs` slots.
    """
    if dataset is not None:
        return first_visits(config, dataset)
    if isinstance(config.minimum_fill, jax.core.Tracer):
        return 1, ""
    per_update = rollouts * config.num_envs
    filled = np.minimum(per_update * np.arange(config.buffer_size // per_update + 2), config.buffer_size)
    ready = np.float32(filled / config.buffer_size) >= np.float32(config.minimum_fill)
    sizes = f"buffer_size = {config.buffer_size}, minimum_fill = {np.float32(config.minimum_fill)}"
    return 1 + int(np.argmax(ready)), f"{until_then} while the buffer is filled ({sizes})"


def measure(buffer: LevelBuffer, choice: Choice, now: Int[Array, "*digit"]) -> Metrics:
    """How full the buffer is, the scores in it, how old they are, and the share of replayed levels."""
    seen = jnp.maximum(buffer.seen.sum(), 1)
    mean = lambda x: jnp.sum(x, where=buffer.seen) / seen
    return {
        "buffer_fill": buffer.seen.mean(dtype=jnp.float32),
        "buffer_score": mean(buffer.score),
        "buffer_solved": mean((buffer.max_return > 0).astype(jnp.float32)),
        "buffer_staleness": mean(elapsed(now, buffer.last_sampled).astype(jnp.float32)),
        "replayed": (choice.slots[:, 0] < buffer.score.size).mean(dtype=jnp.float32),
    }


def replay_or_visit(
    key: jax.Array, config: CurriculumConfig, buffer: LevelBuffer, probabilities: Float[Array, " slot"]
) -> Choice:
    """Levels of the buffer by these probabilities, once every level of the set was visited; nothing is learned from visits."""
    visiting = level_buffer.to_visit(buffer).any()
    visits = level_buffer.first_to_visit(buffer, config.num_envs)[:, None]
    sampled = level_buffer.sample(key, probabilities, (config.num_envs, config.num_steps))
    return Choice(buffer.level, jnp.where(visiting, visits, sampled), ~visiting)


def replay(
    config: ReplayConfig,
    env: Any,
    dataset: PyTree,
    capacity: int,
    new_level_probability: Float[Array, ""] | float,
    learn_from_new: bool,
) -> Curriculum:
    """A curriculum that replays. It proposes nothing, but could admit.

    Levels of the dataset are visited first. Then replayed are all that are chosen or, with a generator, some by a coin.

    Args:
      new_level_probability: how likely an environment plays a level of the generator.
      learn_from_new: whether the student learns while the buffer is not ready.

    Raises:
      InputError: more environments than levels, or more levels of the dataset than slots.
    """
    number = capacity if dataset is None else jax.tree.leaves(dataset)[0].shape[0]
    if number > capacity:
        raise InputError(f"a training set of {number} levels does not fit into buffer_size = {capacity}")
    if number < config.num_envs:
        raise InputError(f"num_envs = {config.num_envs} environments need as many levels, but there are {number}")

    def init(key: jax.Array) -> LevelBuffer:
        return level_buffer.init_buffer(capacity, jax.eval_shape(env.sample_level, key), dataset)

    def choose(key: jax.Array, buffer: LevelBuffer, now: Int[Array, "*digit"]) -> Choice:
        slot_key, level_key, coin_key = jax.random.split(key, 3)
        if dataset is not None:
            return replay_or_visit(slot_key, config, buffer, priorities(config, buffer, now))
        sampled = level_buffer.sample(slot_key, priorities(config, buffer, now), (config.num_envs, config.num_steps))
        ready = is_ready(config, buffer)
        is_new = ~ready | jax.random.bernoulli(coin_key, new_level_probability, (config.num_envs, 1))
        slots = jnp.where(is_new, own_slots(config.num_envs, capacity), sampled)
        levels = with_new(buffer.level, sample_levels(env, level_key, config.num_envs))
        return Choice(levels, slots, ready | learn_from_new)

    def record(buffer: LevelBuffer, choice: Choice, outcome: Outcome, now: Int[Array, "*digit"]) -> LevelBuffer:
        old = jax.tree.map(lambda x: x[:capacity], outcome.slots)
        new, levels = jax.tree.map(lambda x: x[capacity:], (outcome.slots, choice.levels))
        score = score_of(config, old, jnp.maximum(buffer.max_return, old.max_return))
        buffer = level_buffer.update_scores(buffer, old, score, now)
        if dataset is not None:
            return buffer
        return insert_levels(config, buffer, levels, new, now)[0]

    def admit(buffer: LevelBuffer, levels: PyTree, outcome: Outcome, now: Int[Array, "*digit"]) -> tuple[LevelBuffer, Metrics]:
        return insert_levels(config, buffer, levels, outcome.slots, now)

    return Curriculum(init=init, choose=choose, record=record, admit=admit, measure=measure)


@register(
    "plr",
    PLRConfig,
    paper="Jiang et al. 2021, arXiv 2010.03934",
    field="environment_design",
    actions="discrete, continuous",
    status="complete",
)
def plr(config: PLRConfig, env: Any, params: PyTree) -> Algorithm:
    """Replay of a training set, or of random levels beside new ones."""
    params, dataset = split_params("plr", config, env, params)
    capacity = config.buffer_size if dataset is None else jax.tree.leaves(dataset)[0].shape[0]
    curriculum = replay(config, env, dataset, capacity, 1.0 - config.replay_probability, learn_from_new=True)
    return as_algorithm(config, env, params, curriculum, *first_replay(config, dataset, 1, "no level is replayed"))
