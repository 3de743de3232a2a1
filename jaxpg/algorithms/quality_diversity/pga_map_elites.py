"""PGA-MAP-Elites: policy gradients in MAP-Elites (Nilsson and Cully 2021, "Policy gradient assisted MAP-Elites").

Half of the offspring come from variation by chance, half from elites that climb the gradient of a critic, which TD3 learns
from everybody's steps; its own greedy actor is one of the offspring. It wants the same of everybody, so that where many
descriptors are about equally fit, gradients lead away from diversity.
"""

from typing import Any

import jax
from flax import struct
from jaxtyping import Array, Float, PyTree

from jaxpg.algorithm import Algorithm, register
from jaxpg.algorithms.quality_diversity.episodes import as_task, controller_network, network_controller
from jaxpg.algorithms.quality_diversity.generations import Emitter, as_algorithm, together, untargeted, vary_elites
from jaxpg.algorithms.quality_diversity.gradients import GradientConfig, Learning, gradients
from jaxpg.algorithms.quality_diversity.repertoire import Repertoire


@struct.dataclass
class PGAMapElitesConfig(GradientConfig):
    """Hyperparameters."""


@register(
    "pga_map_elites",
    PGAMapElitesConfig,
    paper="Nilsson and Cully 2021, GECCO",
    field="quality_diversity",
    actions="continuous",
    status="a comparator for dcg_map_elites",
)
def pga_map_elites(config: PGAMapElitesConfig, env: Any, params: PyTree) -> Algorithm:
    """Variation, policy gradients, and the greedy actor."""
    task = as_task("pga_map_elites", env, params)
    network = controller_network(task, config.hidden_sizes)
    number = config.num_offspring
    varied = number // 2
    improved = number - varied - 1
    learning = gradients(config, task, network, network, number * task.num_steps)

    def emit(key: jax.Array, state: Learning, repertoire: Repertoire) -> tuple[PyTree, Float[Array, "offspring descriptor"]]:
        vary_key, improve_key = jax.random.split(key)
        offspring = together(
            vary_elites(vary_key, repertoire, varied, config),
            learning.improve(improve_key, state, repertoire, improved)[0],
            jax.tree.map(lambda x: x[None], state.learner.actor),
        )
        return offspring, untargeted(number, task)

    operators = {"variation": varied, "gradient": improved, "actor": 1}
    emitter = Emitter(operators, emit, learning.init, learning.learn)
    return as_algorithm(config, task, network_controller(network, task), emitter)
