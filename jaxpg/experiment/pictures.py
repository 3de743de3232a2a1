"""The pictures of behaviour that a finished run leaves in its folder."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from jaxpg.algorithm import Policy
from jaxpg.experiment.behaviour import plot_brax_strobe, plot_experts, record_episode, save_brax_html
from jaxpg.networks import GaussianMixture


def draw_behaviour(before: Policy, after: Policy, env: Any, env_params: PyTree, key: jax.Array, folder: Path) -> list[Path]:
    """Draws what there is to see of an untrained and a trained policy, and returns the files.

    For Brax: `behaviour.html` (the trained episode in three dimensions) and `behaviour.png` (before and after). For a mixture
    policy: `experts.png` (which expert acts where).
    """
    simulated = hasattr(env, "brax")
    distribution = after.distribution
    is_mixture = distribution is not None and isinstance(
        jax.eval_shape(distribution, after.params, env.reset(key, env_params)[0]), GaussianMixture
    )
    if not simulated and not is_mixture:
        return []
    files = []
    trained = record_episode(after, env, env_params, key)
    if simulated:
        files += [folder / "behaviour.html", folder / "behaviour.png"]
        save_brax_html(trained, env, files[0])
        episodes = {"before training": record_episode(before, env, env_params, key), "after training": trained}
        plot_brax_strobe(episodes, env, files[1])
    if is_mixture and trained.length > 1:
        files.append(folder / "experts.png")

        def of_step(observation: jax.Array, action: jax.Array) -> tuple[jax.Array, jax.Array]:
            assert distribution is not None
            mixture = distribution(after.params, observation)
            return mixture.weights, mixture.responsibilities(action)

        weights, responsibilities = jax.jit(jax.vmap(of_step))(trained.observations, trained.actions)
        plot_experts(trained.observations, weights, np.argmax(responsibilities, axis=-1), files[-1])
    return files
