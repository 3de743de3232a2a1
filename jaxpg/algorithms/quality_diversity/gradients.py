"""Policy gradients within MAP-Elites: twin delayed critics and an actor, learned from every offspring's steps.

With a descriptor, actor and critics are conditioned: the observation is joined by the descriptor that was to be achieved,
scaled to [-1, 1], and rewards are scaled by how near to it the episode came. Without, this is TD3.

The released code of PGA-MAP-Elites and DCG-MAP-Elites leaves the last step of an episode that ran out of time out of the
critics' loss; here it is bootstrapped from the final observation. When the critics' targets move is a choice,
`critic_targets`: as in the released code, or as in TD3 and the papers' pseudo-code. The actor climbs the critics of its own
step, as in TD3; in the released code of DCG-MAP-Elites, those before it.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jaxtyping import Array, Float, PyTree

from jaxpg.algorithm import Metrics, Scalar, hyperparameter, static
from jaxpg.algorithms.online.td3 import CriticTargets, Learner, deterministic_actor_critic, first
from jaxpg.algorithms.quality_diversity.episodes import Episodes, Steps, Task
from jaxpg.algorithms.quality_diversity.generations import VariationConfig
from jaxpg.algorithms.quality_diversity.memory import Memory, init_memory, random_rows, remember, require_capacity
from jaxpg.algorithms.quality_diversity.repertoire import Repertoire, genotypes_at, sample
from jaxpg.algorithms.quality_diversity.variation import policy_gradient
from jaxpg.networks import Critics, TanhActor
from jaxpg.replay import Sample
from jaxpg.rollout import existing_successors


@struct.dataclass
class GradientConfig(VariationConfig):
    """Hyperparameters of the algorithms with critics."""

    critic_hidden_sizes: tuple[int, ...] = static((256, 256), "hidden layers of the critics")
    buffer_size: int = static(1_000_000, "steps that are remembered, the newest ones")
    batch_size: int = static(100, "remembered steps per gradient step")
    critic_steps: int = static(3000, "gradient steps of the critics per generation")
    policy_gradient_steps: int = static(150, "gradient steps of each offspring that is made by gradients")
    policy_delay: int = static(2, "gradient steps of the critics from one step of the actor and its target to the next")
    critic_targets: CriticTargets = static(
        "every_step", "when the critics' targets move: at each of their steps, or with the actor and its target"
    )
    learning_rate: Scalar = hyperparameter(3e-4, "step size of actor and critics", low=0)
    policy_learning_rate: Scalar = hyperparameter(5e-3, "step size of the offspring", low=0)
    discount: Scalar = hyperparameter(0.99, "gamma", low=0, high=1)
    target_ema_rate: Scalar = hyperparameter(0.005, "how far a target network moves at a step", low=0, high=1)
    target_noise: Scalar = hyperparameter(0.2, "standard deviation of the noise that blurs the target action", low=0)
    target_noise_clip: Scalar = hyperparameter(0.5, "bound of that noise", low=0)


class Learning(NamedTuple):
    """What an emitter with critics carries from one generation to the next."""

    learner: Learner
    memory: Memory


class Gradients(NamedTuple):
    """The parts of an emitter with critics; targets and descriptors are in the task's units.

    Attributes:
      init: `key -> Learning`.
      learn: of an `Emitter`: remembers the offspring's steps, then trains.
      remember: `(memory, steps, achieved (episode, descriptor), targets (episode, descriptor)) -> memory`; steps with a number
        that is not finite, but for what is reported behind a termination, are left out.
      train: `(key, learning) -> (learning, metrics)`, the gradient steps of one generation.
      improve: `(key, learning, repertoire, number) -> (offspring, descriptors)`: elites that climbed the critic towards their
        own descriptors, which are returned too.
      join: `(features (*batch, feature), targets (*batch, descriptor)) -> (*batch, feature)`, what actor and critics observe.
    """

    init: Callable[[jax.Array], Learning]
    learn: Callable[..., tuple[Learning, Metrics]]
    remember: Callable[..., Memory]
    train: Callable[[jax.Array, Learning], tuple[Learning, Metrics]]
    improve: Callable[..., tuple[PyTree, Float[Array, "offspring descriptor"]]]
    join: Callable[[Array, Array], Array]


def similarity(
    achieved: Float[Array, "*batch descriptor"], targets: Float[Array, "*batch descriptor"], length: Scalar
) -> Float[Array, "*batch"]:
    """exp(-|d - d'| / length) of descriptors scaled to [-1, 1] (Faldor et al. 2023)."""
    return jnp.exp(-jnp.linalg.norm(achieved - targets, axis=-1) / length)


def gradients(
    config: GradientConfig,
    task: Task,
    controller: TanhActor,
    actor: Any,
    steps_per_update: int,
    kernel_length: Scalar | None = None,
    relabel: bool = False,
) -> Gradients:
    """Twin delayed learning from a memory of steps.

    Args:
      controller: the genotypes' network.
      actor: the network that learns with the critics, from joined features to actions, with `init` and `apply`.
      steps_per_update: most steps that a generation remembers.
      kernel_length: of `similarity`; with it, actor and critics are conditioned on descriptors.
      relabel: the second half of a minibatch are the steps of the first under each other's descriptors, in reverse order.

    Raises:
      InputError: the memory cannot hold one generation.
    """
    conditioned = kernel_length is not None
    critics = Critics(2, config.critic_hidden_sizes)
    first_critic = critics.clone(num_critics=1)
    init_learner, learn = deterministic_actor_critic(
        actor,
        critics,
        optax.flatten(optax.adam(config.learning_rate)),
        config.policy_delay,
        config.target_ema_rate,
        config.target_noise,
        config.target_noise_clip,
        config.critic_targets,
    )
    joined_size = task.observation_size + (len(task.low) if conditioned else 0)
    sizes = (joined_size, joined_size, task.actions.size, 1, 1)
    capacity = min(config.buffer_size, steps_per_update * math.ceil(config.total_steps / steps_per_update))
    require_capacity(capacity, steps_per_update)

    def join(features: Array, targets: Array) -> Array:
        return jnp.concatenate([features, task.normalize(targets)], axis=-1) if conditioned else features

    def init(key: jax.Array) -> Learning:
        learner = init_learner(key, jnp.zeros(joined_size), jnp.zeros(task.actions.size))
        return Learning(learner, init_memory(capacity, sum(sizes)))

    def remember_steps(
        memory: Memory,
        steps: Steps,
        achieved: Float[Array, "episode descriptor"],
        targets: Float[Array, "episode descriptor"],
    ) -> Memory:
        scale = similarity(task.normalize(achieved), task.normalize(targets), kernel_length) if conditioned else 1.0
        asked = jnp.broadcast_to(targets, (len(steps.reward), *targets.shape))
        bootstrap = 1.0 - steps.terminated
        parts = (join(steps.features, asked), join(steps.next_features, asked), steps.action)
        rows = jnp.concatenate([*parts, (scale * steps.reward)[..., None], bootstrap[..., None]], axis=-1)
        # Nothing can be learned of descriptors from an episode that achieved none, nor from a step with a NaN.
        successors = existing_successors(steps.next_features, steps.features, steps.terminated)
        numbers = jnp.concatenate([steps.features, successors, steps.action, steps.reward[..., None]], axis=-1)
        valid = steps.valid & jnp.isfinite(numbers).all(-1) & (jnp.isfinite(achieved).all(-1) if conditioned else True)
        return remember(memory, rows.reshape(-1, sum(sizes)), valid.ravel())

    def columns(rows: Float[Array, "batch width"]) -> list[Float[Array, "batch column"]]:
        return jnp.split(rows, np.cumsum(sizes)[:-1], axis=-1)

    def with_negatives(rows: Float[Array, "half width"]) -> Float[Array, "batch width"]:
        observation, next_observation, action, reward, bootstrap = columns(rows)
        achieved = observation[:, task.observation_size :]
        asked = achieved[::-1]
        others = [x.at[:, task.observation_size :].set(asked) for x in (observation, next_observation)]
        scaled = similarity(achieved, asked, kernel_length)[:, None] * reward
        return jnp.concatenate([rows, jnp.concatenate([*others, action, scaled, bootstrap], axis=-1)])[: config.batch_size]

    def as_sample(rows: Float[Array, "batch width"]) -> Sample:
        observation, next_observation, action, reward, bootstrap = columns(rows)
        weight, index = jnp.ones(len(rows)), jnp.zeros(len(rows), jnp.int32)
        bootstrap = config.discount * bootstrap[:, 0]
        next_observation = existing_successors(next_observation, observation, bootstrap == 0)
        return Sample(observation, action, reward[:, 0], bootstrap, next_observation, weight, index, index)

    def train(key: jax.Array, learning: Learning) -> tuple[Learning, Metrics]:
        index_key, learn_key = jax.random.split(key)
        number = math.ceil(config.batch_size / 2) if relabel else config.batch_size
        index = random_rows(index_key, learning.memory, config.critic_steps, number)

        def step(learner: Learner, x: tuple[jax.Array, Array]) -> tuple[Learner, Metrics]:
            key, index = x
            rows = learning.memory.rows[index]
            learner, _, metrics = learn(key, learner, as_sample(with_negatives(rows) if relabel else rows))
            return learner, metrics

        keys = jax.random.split(learn_key, config.critic_steps)
        learner, metrics = jax.lax.scan(step, learning.learner, (keys, index))
        return learning._replace(learner=learner), jax.tree.map(lambda x: x.mean(0), metrics)

    def learn_from_offspring(
        key: jax.Array,
        learning: Learning,
        repertoire: Repertoire,
        episodes: Episodes,
        targets: Float[Array, "offspring descriptor"],
    ) -> tuple[Learning, Metrics]:
        del repertoire
        memory = remember_steps(learning.memory, episodes.steps, episodes.descriptors, targets)
        return train(key, learning._replace(memory=memory))

    def improve(
        key: jax.Array, learning: Learning, repertoire: Repertoire, number: int
    ) -> tuple[PyTree, Float[Array, "offspring descriptor"]]:
        cell_key, index_key = jax.random.split(key)
        cells = sample(cell_key, repertoire, number)
        targets = repertoire.descriptors[cells]
        index = random_rows(index_key, learning.memory, config.policy_gradient_steps, config.batch_size)
        observations = learning.memory.rows[index][..., : task.observation_size]
        critic = first(learning.learner.critics)

        def value(genotypes: PyTree, observations: Float[Array, "batch feature"]) -> Float[Array, "offspring batch"]:
            actions = jax.vmap(controller.apply, (0, None))(genotypes, observations)
            everyones = jnp.broadcast_to(observations, (*actions.shape[:2], task.observation_size))
            asked = jnp.broadcast_to(targets[:, None], (*actions.shape[:2], targets.shape[-1]))
            return first_critic.apply(critic, join(everyones, asked), actions)[0]

        parents = genotypes_at(repertoire, cells)
        return policy_gradient(value, parents, observations, config.policy_learning_rate), targets

    return Gradients(init, learn_from_offspring, remember_steps, train, improve, join)
