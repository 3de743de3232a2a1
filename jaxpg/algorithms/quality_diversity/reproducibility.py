"""Whether a repertoire does what it says when it is run again, and how much of it the distilled actor does.

Source: Faldor et al. 2023 (arXiv 2303.03832), section 5 and table 2; Flageat et al. 2022 (arXiv 2211.13742) on the metrics.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from jaxpg.algorithm import Algorithm, InputError, Policy
from jaxpg.algorithms.quality_diversity.dcg_map_elites import DCGMapElitesConfig, DescriptorConditionedConfig
from jaxpg.algorithms.quality_diversity.dcrl_map_elites import specialize
from jaxpg.algorithms.quality_diversity.episodes import (
    Controller,
    Task,
    as_task,
    controller_network,
    make_controller,
    network_controller,
    run_genotypes,
)
from jaxpg.algorithms.quality_diversity.generations import QualityDiversityState
from jaxpg.algorithms.quality_diversity.repertoire import Repertoire, add, init_repertoire, score


def reproducibility(
    key: jax.Array, algorithm: Algorithm, env: Any, params: PyTree, state: QualityDiversityState
) -> dict[str, Float[Array, ""]]:
    """Runs every elite again and, of an algorithm with a conditioned actor, the actor towards each elite's descriptor.

    Args:
      algorithm: made for `env` and `params`.

    Returns:
      `qd_score`, the sum of the new fitnesses over filled cells, which does not ask where they were earned;
      `corrected_qd_score`, the score of a repertoire filled anew with what was achieved; `descriptor_error`, the mean
      distance from the stored to the new descriptor, in the task's units; and `descriptor_error_in_cells`, the same of
      descriptors scaled to [-1, 1], in sides of a square (cube, ...) as large as a cell is on average.

      With an actor the same three times: `actor_...`; `centroid_actor_...`, which is told the cells' centroids, from which it
      then errs, as in the released code; and `untold_actor_...`, which is told the centre of all descriptors at every cell:
      what a policy measures that knows nothing of the repertoire.
    """
    task, repertoire = as_task("reproducibility", env, params), state.repertoire
    elite_key, actor_key = jax.random.split(key)
    elites = _elites(algorithm.config, task)
    measured = _against(repertoire, elite_key, task, elites, repertoire.genotypes, repertoire.descriptors)
    if isinstance(algorithm.config, DescriptorConditionedConfig):
        controller = network_controller(controller_network(task, _actor_sizes(algorithm.config)), task)
        actors = jax.vmap(lambda d: _actor_for(algorithm.config, state, task, d))
        of_actor = lambda told, wanted: _against(repertoire, actor_key, task, controller, actors(told), wanted)
        centre = task.unnormalize(jnp.zeros_like(repertoire.descriptors))
        told = jnp.stack([repertoire.descriptors, repertoire.centroids, centre])
        wanted = jnp.stack([repertoire.descriptors, repertoire.centroids, repertoire.descriptors])
        for name, values in jax.vmap(of_actor)(told, wanted).items():
            measured |= {f"{actor}_{name}": values[i] for i, actor in enumerate(("actor", "centroid_actor", "untold_actor"))}
    return measured


def distilled_policy(
    algorithm: Algorithm, env: Any, params: PyTree, state: QualityDiversityState, descriptor: Float[Array, " descriptor"]
) -> Policy:
    """The actor's policy towards a descriptor, in the task's units; pure, so that `vmap` over descriptors gives many.

    Raises:
      InputError: the algorithm has no conditioned actor.
    """
    if not isinstance(algorithm.config, DescriptorConditionedConfig):
        raise InputError("only dcg_map_elites and dcrl_map_elites distil the repertoire into one policy")
    task = as_task("distilled_policy", env, params)
    network = controller_network(task, _actor_sizes(algorithm.config))

    def act(params: PyTree, key: jax.Array, observation: PyTree, carry: tuple) -> tuple[Array, tuple]:
        del key
        return task.actions.to_env(network.apply(params, task.encode(observation))), carry

    return Policy(_actor_for(algorithm.config, state, task, descriptor), act)


def _against(
    repertoire: Repertoire,
    key: jax.Array,
    task: Task,
    controller: Controller,
    genotypes: PyTree,
    wanted: Float[Array, "cell descriptor"],
) -> dict[str, Float[Array, ""]]:
    """Scores, and errors from the descriptors that were wanted, of one controller for each of the repertoire's filled cells."""
    episodes = run_genotypes(key, task, controller, genotypes)
    empty = init_repertoire((), repertoire.centroids)
    anew, _ = add(empty, (), jnp.where(repertoire.filled, episodes.fitnesses, jnp.nan), episodes.descriptors)
    missed_by = lambda scaled: jnp.linalg.norm(scaled(episodes.descriptors) - scaled(wanted), axis=-1)
    cell_width = 2.0 * len(repertoire.centroids) ** (-1 / len(task.low))
    return {
        "qd_score": jnp.where(repertoire.filled, episodes.fitnesses, 0.0).sum(),
        "corrected_qd_score": score(anew)["qd_score"],
        "descriptor_error": missed_by(lambda descriptors: descriptors).mean(where=repertoire.filled),
        "descriptor_error_in_cells": missed_by(task.normalize).mean(where=repertoire.filled) / cell_width,
    }


def _elites(config: Any, task: Task) -> Controller:
    return make_controller(getattr(config, "controller", "network"), task, config.hidden_sizes)


def _actor_sizes(config: DescriptorConditionedConfig) -> tuple[int, ...]:
    return config.actor_hidden_sizes if isinstance(config, DCGMapElitesConfig) else config.hidden_sizes


def _actor_for(config: Any, state: QualityDiversityState, task: Task, descriptor: Float[Array, " descriptor"]) -> PyTree:
    """The actor as a network that reads observations alone."""
    actor = state.emitter.learner.actor
    if isinstance(config, DCGMapElitesConfig) and config.ablation == "unconditioned_actor":
        return actor
    return specialize(actor, task.normalize(descriptor))
