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
      `corrected_qd_score`, the score of a repertoire filled anew with what was achieved; and `descriptor_error`, the mean
      distance from the stored to the new descriptor, in the task's units. With an actor the same, named `actor_...`.
    """
    task, repertoire = as_task("reproducibility", env, params), state.repertoire
    elite_key, actor_key = jax.random.split(key)
    measured = _against(repertoire, elite_key, task, _elites(algorithm.config, task), repertoire.genotypes)
    if isinstance(algorithm.config, DescriptorConditionedConfig):
        controller = network_controller(controller_network(task, _actor_sizes(algorithm.config)), task)
        actors = jax.vmap(lambda d: _actor_for(algorithm.config, state, task, d))(repertoire.descriptors)
        of_actor = _against(repertoire, actor_key, task, controller, actors)
        measured |= {f"actor_{name}": value for name, value in of_actor.items()}
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
    repertoire: Repertoire, key: jax.Array, task: Task, controller: Controller, genotypes: PyTree
) -> dict[str, Float[Array, ""]]:
    """Score and descriptor error of one controller per cell against the repertoire's filled cells."""
    episodes = run_genotypes(key, task, controller, genotypes)
    empty = init_repertoire((), repertoire.centroids)
    anew, _ = add(empty, (), jnp.where(repertoire.filled, episodes.fitnesses, jnp.nan), episodes.descriptors)
    distance = jnp.linalg.norm(episodes.descriptors - repertoire.descriptors, axis=-1)
    return {
        "qd_score": jnp.where(repertoire.filled, episodes.fitnesses, 0.0).sum(),
        "corrected_qd_score": score(anew)["qd_score"],
        "descriptor_error": distance.mean(where=repertoire.filled),
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
