"""What quality-diversity algorithms share: a generation is emit, evaluate, add, learn, and it is one update.

What differs is the emitter: where offspring come from, and what it learns from their episodes.

An offspring whose fitness or descriptor is not finite stops no run: it is counted as `rejected`, and for nothing else. Nor are
numbers that are none remembered by emitters that learn from steps (`Gradients.remember`).
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Int, PyTree

from jaxpg.algorithm import LONGEST, Algorithm, Metrics, Policy, Scalar, hyperparameter, static
from jaxpg.algorithms.quality_diversity.episodes import Controller, Episodes, Task, run_genotypes
from jaxpg.algorithms.quality_diversity.repertoire import (
    Repertoire,
    acceptable,
    add,
    genotypes_at,
    init_repertoire,
    sample,
    score,
    unit_centroids,
)
from jaxpg.algorithms.quality_diversity.variation import isoline
from jaxpg.counting import increment
from jaxpg.transforms import any_in_batch, mean_of


@struct.dataclass
class QualityDiversityConfig:
    """Hyperparameters of every algorithm with a repertoire."""

    total_steps: int = static(
        64_000_000, "environment steps of the whole run; an episode counts with its time limit", high=LONGEST
    )
    num_cells: int = static(1024, "cells of the repertoire", high=20_000)
    num_offspring: int = static(256, "genotypes that a generation evaluates, each in one episode", low=4)
    hidden_sizes: tuple[int, ...] = static((128, 128), "hidden layers of the controllers", needs={"controller": ("network",)})


@struct.dataclass
class VariationConfig(QualityDiversityConfig):
    """And those of variation by chance and along lines."""

    iso_sigma: Scalar = hyperparameter(0.005, "standard deviation of independent changes to a genotype", low=0)
    line_sigma: Scalar = hyperparameter(0.05, "standard deviation of changes along the line to another genotype", low=0)


class QualityDiversityState(NamedTuple):
    """The whole state of a run; `updates` generations have been made."""

    key: jax.Array
    repertoire: Repertoire
    emitter: PyTree
    updates: Int[Array, ""]


def learn_nothing(key: jax.Array, emitter: PyTree, *_: Any) -> tuple[PyTree, Metrics]:
    """Of an emitter without a memory."""
    del key
    return emitter, {}


class Emitter(NamedTuple):
    """Where offspring come from.

    Attributes:
      operators: how many offspring of a generation each operator makes, in the order of their rows.
      emit: `(key, emitter, repertoire) -> (genotypes, targets)`, leaves (offspring, ...): the offspring, and the descriptor
        that each was meant to achieve, infinite for those that were meant to achieve any.
      init: `key -> emitter`, its state.
      learn: `(key, emitter, repertoire, episodes, targets) -> (emitter, metrics)`, after the offspring's episodes, which were
        added to the repertoire; what was achieved stands in for infinite targets.
      more_episodes: episodes that `learn` runs itself.
    """

    operators: dict[str, int]
    emit: Callable[[jax.Array, PyTree, Repertoire], tuple[PyTree, Float[Array, "offspring descriptor"]]]
    init: Callable[[jax.Array], PyTree] = lambda key: ()
    learn: Callable[..., tuple[PyTree, Metrics]] = learn_nothing
    more_episodes: int = 0


def vary_elites(key: jax.Array, repertoire: Repertoire, number: int, config: VariationConfig) -> PyTree:
    """Offspring of two elites each, by chance."""
    parents_key, others_key, key = jax.random.split(key, 3)
    parents, others = (genotypes_at(repertoire, sample(key, repertoire, number)) for key in (parents_key, others_key))
    return isoline(key, parents, others, config.iso_sigma, config.line_sigma)


def together(*stacks: PyTree) -> PyTree:
    """Stacks of genotypes, leaves (offspring, ...), one after the other."""
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *stacks)


def untargeted(number: int, task: Task) -> Float[Array, "offspring descriptor"]:
    """The targets of offspring without any."""
    return jnp.full((number, len(task.low)), jnp.inf)


def as_algorithm(config: QualityDiversityConfig, task: Task, controller: Controller, emitter: Emitter) -> Algorithm:
    """A generation is an update; the first one's offspring are random controllers."""
    steps_per_update = (config.num_offspring + emitter.more_episodes) * task.num_steps
    num_updates = math.ceil(config.total_steps / steps_per_update)
    centroids = unit_centroids(config.num_cells, len(task.low))

    def init(key: jax.Array) -> QualityDiversityState:
        key, controller_key, emitter_key = jax.random.split(key, 3)
        genotypes = jax.vmap(controller.init)(jax.random.split(controller_key, config.num_cells))
        repertoire = init_repertoire(genotypes, task.unnormalize(jnp.asarray(centroids)))
        return QualityDiversityState(key, repertoire, emitter.init(emitter_key), jnp.int32(0))

    def update(state: QualityDiversityState) -> tuple[QualityDiversityState, Metrics]:
        key, emit_key, episode_key, learn_key = jax.random.split(state.key, 4)

        def random_offspring() -> tuple[PyTree, Float[Array, "offspring descriptor"]]:
            genotypes = jax.vmap(controller.init)(jax.random.split(emit_key, config.num_offspring))
            return genotypes, untargeted(config.num_offspring, task)

        genotypes, targets = jax.lax.cond(
            any_in_batch(state.updates == 0),
            random_offspring,
            lambda: emitter.emit(emit_key, state.emitter, state.repertoire),
        )
        episodes = run_genotypes(episode_key, task, controller, genotypes)
        repertoire, added = add(state.repertoire, genotypes, episodes.fitnesses, episodes.descriptors)
        targets = jnp.where(jnp.isinf(targets), episodes.descriptors, targets)
        learned, metrics = emitter.learn(learn_key, state.emitter, repertoire, episodes, targets)
        metrics = metrics | score(repertoire) | _additions(emitter, added) | _episode_metrics(episodes)
        return QualityDiversityState(key, repertoire, learned, increment(state.updates)), metrics

    def act(genotype: PyTree, key: jax.Array, observation: PyTree, time: Int[Array, ""]) -> tuple[Array, Int[Array, ""]]:
        del key
        return task.actions.to_env(controller.act(genotype, task.encode(observation), time)), time + 1

    def policy(state: QualityDiversityState, deterministic: bool = True) -> Policy:
        """The fittest controller, a random one before the first generation; all controllers are deterministic."""
        del deterministic
        fittest = jnp.argmax(state.repertoire.fitnesses)
        return Policy(genotypes_at(state.repertoire, fittest), act, jnp.int32(0))

    policy_delay, critic_steps = getattr(config, "policy_delay", 1), getattr(config, "critic_steps", 1)
    first_actor = math.ceil(policy_delay / critic_steps)
    until_then = f"genotypes are random (num_offspring = {config.num_offspring})"
    if first_actor > 2:
        until_then = f"the actor learns nothing (critic_steps = {critic_steps}, policy_delay = {policy_delay})"
    return Algorithm(init, update, policy, config, steps_per_update, num_updates, max(first_actor, 2), until_then)


def _additions(emitter: Emitter, added: Array) -> Metrics:
    """How many offspring of each operator got into the repertoire."""
    ends = jnp.cumsum(jnp.array(list(emitter.operators.values())))
    counts = jnp.diff(jnp.cumsum(added)[ends - 1], prepend=0)
    return {f"added_by_{name}": counts[i].astype(jnp.float32) for i, name in enumerate(emitter.operators)}


def _episode_metrics(episodes: Episodes) -> Metrics:
    """Of those whose fitness and descriptor are finite; the others are `rejected`."""
    counts = acceptable(episodes.fitnesses, episodes.descriptors)
    number = counts.sum(dtype=jnp.float32)
    mean = lambda x: mean_of(jnp.sum(x, where=counts, dtype=jnp.float32), number)
    return {
        "episodes": number,
        "episode_return": mean(episodes.fitnesses),
        "episode_length": mean(episodes.lengths),
        "rejected": len(counts) - number,
    }
