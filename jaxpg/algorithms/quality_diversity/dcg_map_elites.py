"""DCG-MAP-Elites: descriptor-conditioned gradients and archive distillation (Faldor et al. 2023, GECCO, arXiv 2303.03832).

PGA-MAP-Elites, but the critics are asked for the value of acting towards a descriptor, so that each elite climbs while it
keeps its own. The actor that learns with them is conditioned too, and becomes one policy that does what the whole
repertoire does. In each generation it is run towards descriptors of the repertoire: what it misses by teaches the critics
what not to do. Its episodes do not enter the repertoire, but count as environment steps.

Differences from the paper: the kernel's length is in units of descriptors scaled to [-1, 1], 0.1 by default as in its
successor (the code's effective length on Ant-Omni is 0.48); see also `gradients`.
"""

from typing import Any, Literal, NamedTuple

import jax
from flax import struct
from jaxtyping import Array, Float, PyTree

from jaxpg.algorithm import Algorithm, Metrics, Scalar, hyperparameter, register, static
from jaxpg.algorithms.quality_diversity.episodes import Episodes, as_task, controller_network, network_controller, run_episodes
from jaxpg.algorithms.quality_diversity.generations import Emitter, as_algorithm, together, untargeted, vary_elites
from jaxpg.algorithms.quality_diversity.gradients import GradientConfig, Learning, gradients
from jaxpg.algorithms.quality_diversity.repertoire import Repertoire, sample
from jaxpg.networks import TanhActor

KERNEL_HELP = "distance of scaled descriptors at which rewards fall to 1/e"
# Positives alone achieved what they were asked for: no distance. Of others' descriptors, none has noise.
NEGATIVES = {"ablation": ("none", "relabelled_negatives", "unconditioned_actor")}
ACTOR_EPISODES = {"ablation": ("none", "unconditioned_actor")}


@struct.dataclass
class DescriptorConditionedConfig(GradientConfig):
    """Hyperparameters of what both descriptor-conditioned algorithms have."""

    kernel_length: Scalar = hyperparameter(0.1, KERNEL_HELP, low=1e-4)


@struct.dataclass
class DCGMapElitesConfig(DescriptorConditionedConfig):
    """Hyperparameters."""

    actor_hidden_sizes: tuple[int, ...] = static((256, 256), "hidden layers of the actor")
    kernel_length: Scalar = hyperparameter(0.1, KERNEL_HELP, low=1e-4, needs=NEGATIVES)
    descriptor_noise: Scalar = hyperparameter(
        0.0004, "noise of the descriptors asked for, in parts of their range", low=0, needs=ACTOR_EPISODES
    )
    ablation: Literal["none", "no_actor_episodes", "relabelled_negatives", "unconditioned_actor"] = static(
        "none",
        "of the paper: positives alone; half of a minibatch under other descriptors as negatives; an actor that is not told",
    )


class Untold(NamedTuple):
    """An actor that sees the first `size` features only, as a network."""

    network: TanhActor
    size: int

    def init(self, key: jax.Array, features: Float[Array, " feature"]) -> PyTree:
        return self.network.init(key, features[: self.size])

    def apply(self, params: PyTree, features: Float[Array, "*batch feature"]) -> Float[Array, "*batch action"]:
        return self.network.apply(params, features[..., : self.size])


@register(
    "dcg_map_elites",
    DCGMapElitesConfig,
    paper="Faldor et al. 2023, arXiv 2303.03832",
    field="quality_diversity",
    actions="continuous",
    status="complete",
)
def dcg_map_elites(config: DCGMapElitesConfig, env: Any, params: PyTree) -> Algorithm:
    """Variation, and gradients that keep the descriptor."""
    task = as_task("dcg_map_elites", env, params)
    network = controller_network(task, config.hidden_sizes)
    told = controller_network(task, config.actor_hidden_sizes)
    actor = Untold(told, task.observation_size) if config.ablation == "unconditioned_actor" else told
    number = config.num_offspring
    varied = number // 2
    improved = number - varied
    more = number if config.ablation in ACTOR_EPISODES["ablation"] else 0
    steps, relabel = (number + more) * task.num_steps, config.ablation == "relabelled_negatives"
    learning = gradients(config, task, network, actor, steps, config.kernel_length, relabel)

    def emit(key: jax.Array, state: Learning, repertoire: Repertoire) -> tuple[PyTree, Float[Array, "offspring descriptor"]]:
        vary_key, improve_key = jax.random.split(key)
        offspring = together(
            vary_elites(vary_key, repertoire, varied, config),
            learning.improve(improve_key, state, repertoire, improved)[0],
        )
        return offspring, untargeted(number, task)

    def evaluate_actor(key: jax.Array, state: Learning, targets: Float[Array, "episode descriptor"]) -> Episodes:
        act = lambda features, time: actor.apply(state.learner.actor, learning.join(features, targets))
        return run_episodes(key, task, act, number)

    def learn(
        key: jax.Array,
        state: Learning,
        repertoire: Repertoire,
        episodes: Episodes,
        targets: Float[Array, "offspring descriptor"],
    ) -> tuple[Learning, Metrics]:
        cell_key, noise_key, episode_key, train_key = jax.random.split(key, 4)
        memory = learning.remember(state.memory, episodes.steps, episodes.descriptors, targets)
        if more:
            noise = config.descriptor_noise * (task.high - task.low) * jax.random.normal(noise_key, targets.shape)
            asked = repertoire.descriptors[sample(cell_key, repertoire, number)] + noise
            actors = evaluate_actor(episode_key, state, asked)
            memory = learning.remember(memory, actors.steps, actors.descriptors, asked)
        return learning.train(train_key, state._replace(memory=memory))

    emitter = Emitter({"variation": varied, "gradient": improved}, emit, learning.init, learn, more)
    return as_algorithm(config, task, network_controller(network, task), emitter)
