"""DCRL-MAP-Elites: DCG-MAP-Elites whose actor injects itself into the repertoire (Faldor et al. 2024, arXiv 2401.08632).

The actor's episodes of its own are gone. Instead a quarter of the offspring are the actor, specialised to a descriptor of
the repertoire: a first layer that also reads a fixed descriptor is a first layer with another bias. What these offspring
miss by teaches the critics what the actor's episodes taught them before, at no episode's cost.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, PyTree

from jaxpg.algorithm import Algorithm, InputError, register
from jaxpg.algorithms.quality_diversity.dcg_map_elites import DescriptorConditionedConfig
from jaxpg.algorithms.quality_diversity.episodes import as_task, controller_network, network_controller
from jaxpg.algorithms.quality_diversity.generations import Emitter, as_algorithm, together, untargeted, vary_elites
from jaxpg.algorithms.quality_diversity.gradients import Learning, gradients
from jaxpg.algorithms.quality_diversity.repertoire import Repertoire, sample


@struct.dataclass
class DCRLMapElitesConfig(DescriptorConditionedConfig):
    """Hyperparameters; the actor's hidden layers are those of the controllers."""


def specialize(actor: PyTree, descriptor: Float[Array, " descriptor"]) -> PyTree:
    """The conditioned actor for one descriptor, scaled to [-1, 1], as a network that does not read any.

    The descriptor's share of the first layer, W_d d, becomes part of its bias.

    Raises:
      InputError: the actor has no hidden layer.
    """
    layers = actor["params"]
    if "Trunk_0" not in layers or "Dense_0" not in layers["Trunk_0"]:
        raise InputError("an actor without a hidden layer cannot be specialised: give hidden_sizes at least one")
    first = layers["Trunk_0"]["Dense_0"]
    size = len(first["kernel"]) - len(descriptor)
    folded = {"kernel": first["kernel"][:size], "bias": first["bias"] + descriptor @ first["kernel"][size:]}
    return {"params": layers | {"Trunk_0": layers["Trunk_0"] | {"Dense_0": folded}}}


@register(
    "dcrl_map_elites",
    DCRLMapElitesConfig,
    paper="Faldor et al. 2024, arXiv 2401.08632",
    field="quality_diversity",
    actions="continuous",
    status="results; on robots not yet",
)
def dcrl_map_elites(config: DCRLMapElitesConfig, env: Any, params: PyTree) -> Algorithm:
    """Variation, gradients that keep the descriptor, and the actor's injection."""
    task = as_task("dcrl_map_elites", env, params)
    network = controller_network(task, config.hidden_sizes)
    number = config.num_offspring
    varied, improved = number // 2, number // 4
    injected = number - varied - improved
    learning = gradients(config, task, network, network, number * task.num_steps, config.kernel_length)

    def emit(key: jax.Array, state: Learning, repertoire: Repertoire) -> tuple[PyTree, Float[Array, "offspring descriptor"]]:
        vary_key, improve_key, inject_key = jax.random.split(key, 3)
        climbed, kept = learning.improve(improve_key, state, repertoire, improved)
        asked = repertoire.descriptors[sample(inject_key, repertoire, injected)]
        offspring = together(
            vary_elites(vary_key, repertoire, varied, config),
            climbed,
            jax.vmap(specialize, (None, 0))(state.learner.actor, task.normalize(asked)),
        )
        return offspring, jnp.concatenate([untargeted(varied, task), kept, asked])

    operators = {"variation": varied, "gradient": improved, "injection": injected}
    emitter = Emitter(operators, emit, learning.init, learning.learn)
    return as_algorithm(config, task, network_controller(network, task), emitter)
