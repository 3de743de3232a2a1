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
from jaxpg.algorithms.quality_diversity.episodes import as_task, controller_network, network_controller, open_loop_controller
from jaxpg.algorithms.quality_diversity.generations import (
    Emitter,
    QualityDiversityConfig,
    as_algorithm,
    untargeted,
    vary_elites,
)
from jaxpg.algorithms.quality_diversity.repertoire import Repertoire


@struct.dataclass
class MapElitesConfig(QualityDiversityConfig):
    """Hyperparameters."""

    controller: Literal["network", "open_loop"] = static("network", "a genotype is a network, or the actions themselves")


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
    if config.controller == "network":
        controller = network_controller(controller_network(task, config.hidden_sizes), task)
    else:
        controller = open_loop_controller(task)

    def emit(key: jax.Array, _: tuple, repertoire: Repertoire) -> tuple[PyTree, Float[Array, "offspring descriptor"]]:
        return vary_elites(key, repertoire, config.num_offspring, config), untargeted(config.num_offspring, task)

    return as_algorithm(config, task, controller, Emitter({"variation": config.num_offspring}, emit))
