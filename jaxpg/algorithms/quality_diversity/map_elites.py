"""MAP-Elites (Mouret and Clune 2015, arXiv 1504.04909) with a Voronoi tessellation (Vassiliades et al. 2018, 1610.05729).

A repertoire keeps the fittest controller found for each cell of the space of descriptors. Each generation draws pairs of
elites, varies the first by chance and along the line to the second, and puts the offspring where it is better than what is
there.
"""

from typing import Any, Literal

import jax
from flax import struct
from jaxtyping import Array, Float, PyTree

from jaxpg.algorithm import Algorithm, register, static
from jaxpg.algorithms.quality_diversity.episodes import CONTROLLER_HELP, as_task, make_controller
from jaxpg.algorithms.quality_diversity.generations import (
    Emitter,
    VariationConfig,
    as_algorithm,
    untargeted,
    vary_elites,
)
from jaxpg.algorithms.quality_diversity.repertoire import Repertoire


@struct.dataclass
class MapElitesConfig(VariationConfig):
    """Hyperparameters."""

    controller: Literal["network", "open_loop"] = static("network", CONTROLLER_HELP)


@register(
    "map_elites",
    MapElitesConfig,
    paper="Mouret and Clune 2015, arXiv 1504.04909",
    field="quality_diversity",
    actions="continuous",
    status="complete",
)
def map_elites(config: MapElitesConfig, env: Any, params: PyTree) -> Algorithm:
    """Variation alone."""
    task = as_task("map_elites", env, params)
    controller = make_controller(config.controller, task, config.hidden_sizes)

    def emit(key: jax.Array, _: tuple, repertoire: Repertoire) -> tuple[PyTree, Float[Array, "offspring descriptor"]]:
        return vary_elites(key, repertoire, config.num_offspring, config), untargeted(config.num_offspring, task)

    return as_algorithm(config, task, controller, Emitter({"variation": config.num_offspring}, emit))
