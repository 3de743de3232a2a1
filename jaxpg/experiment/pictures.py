"""The pictures of behaviour that a finished run leaves in its folder."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from jaxpg.algorithm import InputError, Policy
from jaxpg.algorithms.quality_diversity.repertoire import Repertoire
from jaxpg.experiment.behaviour import Episode, plot_brax_strobe, plot_experts, record_episode, save_brax_html
from jaxpg.experiment.classic_control import find_scene, plot_film
from jaxpg.experiment.plots import Picture
from jaxpg.experiment.repertoire_picture import plot_repertoires
from jaxpg.networks import GaussianMixture


def draw_behaviour(
    before: Policy, after: Policy, env: Any, env_params: PyTree, key: jax.Array, folder: Path, caption: str = ""
) -> list[Path]:
    """Draws what there is to see of an untrained and a trained policy, and returns the files.

    For Brax: `behaviour.html` (the trained episode in three dimensions) and `behaviour.png` (before and after), which there
    is for gymnax's classic control too. For a mixture policy: `experts.png` (which expert acts where).

    Args:
      caption: what stands above each, such as the algorithm, the environment and the seed.
    """
    simulated = hasattr(env, "brax")
    observation, state = env.reset(key, env_params)
    scene, is_mixture = find_scene(state, env_params), _is_mixture(after, observation)
    if not simulated and scene is None and not is_mixture:
        return []
    files = []
    trained = record_episode(after, env, env_params, key)
    if scene is not None:
        files.append(folder / "behaviour.png")
        episodes = {"before training": record_episode(before, env, env_params, key), "after training": trained}
        plot_film(episodes, scene, files[-1], caption)
    if simulated:
        files += [folder / "behaviour.html", folder / "behaviour.png"]
        save_brax_html(trained, env, files[0], caption)
        episodes = {"before training": record_episode(before, env, env_params, key), "after training": trained}
        plot_brax_strobe(episodes, env, files[1], caption=caption)
    if is_mixture and trained.length > 1:
        files.append(folder / "experts.png")
        draw_experts(after, trained, files[-1], caption=caption)
    return files


def draw_repertoire(state: PyTree, env: Any, env_params: PyTree, folder: Path, caption: str = "") -> list[Path]:
    """Draws the repertoire of a quality-diversity algorithm's state into `repertoire.png`, and returns the file.

    Nothing for other algorithms, and for descriptors of other than two dimensions.
    """
    repertoire = getattr(state, "repertoire", None)
    if not isinstance(repertoire, Repertoire) or repertoire.centroids.shape[1] != 2:
        return []
    low, high = env.descriptor_bounds(env_params)
    file = folder / "repertoire.png"
    names = env.descriptor_names(env_params) if hasattr(env, "descriptor_names") else None
    plot_repertoires({"repertoire": repertoire}, low, high, file, names, caption)
    return [file]


def draw_experts(
    policy: Policy,
    episode: Episode,
    path: str | os.PathLike | None = None,
    state_labels: Sequence[str] | None = None,
    caption: str = "",
) -> Picture:
    """Draws which expert of a mixture policy acted where in an episode: the one whose mean is nearest to the action.

    For a deterministic policy, which takes an expert's mean, that is the expert that acted.

    Raises:
      InputError: the policy is not a mixture of experts, or the episode has fewer than two steps.
    """
    distribution = policy.distribution
    if distribution is None or not _is_mixture(policy, episode.observations[0]):
        raise InputError("the policy is not a mixture of experts: train one with pmoe_ppo")

    def of_step(observation: Array, action: Array) -> tuple[Float[Array, " expert"], Array]:
        mixture = distribution(policy.params, observation)
        distances = jnp.square(policy.to_env(mixture.means) - action).reshape(len(mixture.means), -1).sum(axis=-1)
        return mixture.weights, jnp.argmin(distances)

    weights, experts = jax.jit(jax.vmap(of_step))(episode.observations, episode.actions)
    return plot_experts(episode.observations, weights, experts, path, state_labels, caption)


def _is_mixture(policy: Policy, observation: PyTree) -> bool:
    if policy.distribution is None:
        return False
    return isinstance(jax.eval_shape(policy.distribution, policy.params, observation), GaussianMixture)
