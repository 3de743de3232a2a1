"""Sampling for learnability (Rutherford et al., 2024, "No Regrets", arXiv 2408.15099).

Some of the levels are drawn from a small buffer of those that the student sometimes solves and sometimes not, p (1 - p) being
the largest; the others are new. The buffer is made anew every `period` updates.

Difference from the paper, which stops for a long search every 50 updates: the search for the next buffer is spread over the
updates before it, one batch in each, so that some of its levels were scored by a student up to `period` updates younger. It
looks at about as many levels. An environment keeps its level for the whole update.
"""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Int, PyTree

from jaxpg.algorithm import Algorithm, InputError, Metrics, Scalar, hyperparameter, register, static
from jaxpg.algorithms.environment_design import level_buffer, scores
from jaxpg.algorithms.environment_design.curriculum import (
    LEVELS_HELP,
    Choice,
    Curriculum,
    CurriculumConfig,
    Outcome,
    as_algorithm,
    levels_at,
    own_slots,
    sample_levels,
    split_params,
    with_new,
)
from jaxpg.algorithms.environment_design.level_buffer import LevelBuffer
from jaxpg.counting import last_digit


@struct.dataclass
class SFLConfig(CurriculumConfig):
    """The student's hyperparameters and those of the search."""

    levels: Literal["dataset", "generator"] = static("generator", LEVELS_HELP)
    buffer_size: int = static(100, "levels of highest learnability that are kept", high=1_000_000)
    period: int = static(50, "updates from one buffer to the next")
    copies: int = static(4, "environments that estimate how often one level is solved")
    learnable_fraction: Scalar = hyperparameter(0.5, "share of levels from the buffer, the rest being new", low=0, high=1)


class Memory(NamedTuple):
    """The buffer in use and the one that is being filled; the training set, None with a generator."""

    current: LevelBuffer
    next: LevelBuffer
    dataset: PyTree


@register(
    "sfl",
    SFLConfig,
    paper="Rutherford et al. 2024, arXiv 2408.15099",
    field="environment_design",
    actions="discrete, continuous",
    status="results",
)
def sfl(config: SFLConfig, env: Any, params: PyTree) -> Algorithm:
    """Random levels beside the most learnable ones found lately."""
    params, dataset = split_params("sfl", config, env, params)
    if config.num_envs % config.copies:
        raise InputError(f"sfl: num_envs = {config.num_envs} does not divide into copies = {config.copies} of each level")
    distinct = config.num_envs // config.copies
    if distinct > config.buffer_size:
        raise InputError(
            f"sfl: num_envs / copies = {distinct} levels are looked at in one update, more than buffer_size = "
            f"{config.buffer_size}"
        )
    empty = lambda: level_buffer.init_buffer(config.buffer_size, jax.eval_shape(env.sample_level, jax.random.key(0)))

    def init(key: jax.Array) -> Memory:
        return Memory(empty(), empty(), jax.tree.map(jnp.asarray, dataset))

    def new_levels(key: jax.Array, memory: Memory, number: int) -> PyTree:
        if memory.dataset is None:
            return sample_levels(env, key, number)
        chosen = jax.random.randint(key, (number,), 0, jax.tree.leaves(memory.dataset)[0].shape[0])
        return levels_at(memory.dataset, chosen)

    def choose(key: jax.Array, memory: Memory, now: Int[Array, "*digit"]) -> Choice:
        slot_key, level_key, coin_key = jax.random.split(key, 3)
        buffer = memory.current
        uniform = buffer.seen / jnp.maximum(buffer.seen.sum(), 1)
        slots = level_buffer.sample(slot_key, uniform, (config.num_envs, 1))
        is_learnable = jax.random.bernoulli(coin_key, config.learnable_fraction, (config.num_envs, 1)) & buffer.seen.any()
        levels = with_new(buffer.level, new_levels(level_key, memory, config.num_envs))
        slots = jnp.where(is_learnable, slots, own_slots(config.num_envs, config.buffer_size))
        return Choice(levels, slots, jnp.bool_(True))

    def propose(key: jax.Array, memory: Memory, choice: Choice, outcome: Outcome) -> PyTree:
        return jax.tree.map(lambda x: jnp.repeat(x, config.copies, axis=0), new_levels(key, memory, distinct))

    def admit(memory: Memory, levels: PyTree, outcome: Outcome, now: Int[Array, "*digit"]) -> tuple[Memory, Metrics]:
        e = jax.tree.map(lambda x: x.reshape(distinct, config.copies), outcome.episodes)
        score = scores.learnability(e.solved.sum(1), e.completed.sum(1))
        priority = jnp.where(score > 0, score, -jnp.inf)
        once = jax.tree.map(lambda x: x[:: config.copies], levels)
        held = memory.next.score
        following, entered = level_buffer.insert(memory.next, once, score, e.max_return.max(1), priority, held, held, now)
        is_due = (last_digit(now) + 1) % config.period == 0
        turn = lambda new, old: jax.tree.map(lambda n, o: jnp.where(is_due, n, o), new, old)
        metrics = {"admitted": entered.mean(dtype=jnp.float32), "learnability": score.mean()}
        return memory._replace(current=turn(following, memory.current), next=turn(empty(), following)), metrics

    def measure(memory: Memory, choice: Choice, now: Int[Array, "*digit"]) -> Metrics:
        return {
            "buffer_fill": memory.current.seen.mean(dtype=jnp.float32),
            "replayed": (choice.slots < config.buffer_size).mean(dtype=jnp.float32),
        }

    curriculum = Curriculum(init=init, choose=choose, propose=propose, admit=admit, measure=measure, period=config.period)
    until_then = f"no level comes from the buffer (period = {config.period})"
    return as_algorithm(config, env, params, curriculum, config.period + 1, until_then)
