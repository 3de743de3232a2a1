"""Whole episodes of many deterministic controllers at once: fitnesses, descriptors, and the steps to learn from."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from jaxpg.algorithm import InputError
from jaxpg.errors import name_of
from jaxpg.networks import TanhActor
from jaxpg.off_policy import Actions, bounded_actions
from jaxpg.spaces import observation_encoder, observation_size


class Task(NamedTuple):
    """A quality-diversity task: an environment that says how it was solved.

    Attributes:
      num_steps: the longest episode.
      low, high: bounds of the descriptor.
    """

    env: Any
    params: PyTree
    actions: Actions
    encode: Callable[[PyTree], Float[Array, "*batch feature"]]
    observation_size: int
    num_steps: int
    low: Float[Array, " descriptor"]
    high: Float[Array, " descriptor"]

    def normalize(self, descriptors: Float[Array, "*batch descriptor"]) -> Float[Array, "*batch descriptor"]:
        """Descriptors on a scale from -1 to 1."""
        return 2.0 * (descriptors - self.low) / (self.high - self.low) - 1.0

    def unnormalize(self, descriptors: Float[Array, "*batch descriptor"]) -> Float[Array, "*batch descriptor"]:
        """The inverse of `normalize`."""
        return self.low + 0.5 * (descriptors + 1.0) * (self.high - self.low)


def as_task(name: str, env: Any, params: PyTree) -> Task:
    """What the algorithm `name` needs to know of an environment.

    Raises:
      InputError: it has no descriptor, no bounded continuous actions, or no concrete time limit.
    """
    actions = bounded_actions(name, env, params)
    if not hasattr(env, "descriptor_bounds"):
        raise InputError(
            f"{name} needs a task with a descriptor, but {name_of(env)} has none: choose a quality-diversity task "
            "(PointOmni-v0, PlanarArm-v0, brax/ant_omni, ...) or give yours `descriptor_bounds(params)` and info['descriptor']"
        )
    limit = getattr(params, "max_steps_in_episode", None)
    if limit is None or isinstance(limit, jax.core.Tracer):
        raise InputError(
            f"{name} runs whole episodes: the params of {name_of(env)} need a number max_steps_in_episode, not {limit}"
        )
    low, high = env.descriptor_bounds(params)
    encode = observation_encoder(env, params)
    return Task(env, params, actions, encode, observation_size(env, params), int(limit), low, high)


class Controller(NamedTuple):
    """What a genotype is and does.

    Attributes:
      init: `key -> genotype`.
      act: `(genotype, features (feature,), time ()) -> action (action,)` within [-1, 1].
    """

    init: Callable[[jax.Array], PyTree]
    act: Callable[[PyTree, Float[Array, " feature"], Int[Array, ""]], Float[Array, " action"]]


def controller_network(task: Task, hidden_sizes: tuple[int, ...]) -> TanhActor:
    """The network of controllers and actors, initialised as in QDax."""
    return TanhActor(task.actions.size, hidden_sizes, kernel_init=nn.initializers.lecun_uniform())


def network_controller(network: TanhActor, task: Task) -> Controller:
    """The genotype is a network's parameters."""
    init = lambda key: network.init(key, jnp.zeros(task.observation_size))
    return Controller(init, lambda params, features, _: network.apply(params, features))


def open_loop_controller(task: Task) -> Controller:
    """The genotype is the episode's actions, (time, action), at the start uniform within [-1, 1]; observations are ignored."""

    def init(key: jax.Array) -> Float[Array, "time action"]:
        return jax.random.uniform(key, (task.num_steps, task.actions.size), minval=-1.0, maxval=1.0)

    return Controller(init, lambda actions, _, time: jnp.clip(actions[time], -1.0, 1.0))


CONTROLLER_HELP = "a genotype is a network, or the actions themselves"


def make_controller(kind: Literal["network", "open_loop"], task: Task, hidden_sizes: tuple[int, ...]) -> Controller:
    """The controller of that kind; `hidden_sizes` are a network's."""
    if kind == "open_loop":
        return open_loop_controller(task)
    return network_controller(controller_network(task, hidden_sizes), task)


class Steps(NamedTuple):
    """Steps of episodes side by side. `valid` marks those that are an episode's, not of the next one after its end."""

    features: Float[Array, "time episode feature"]
    action: Float[Array, "time episode action"]
    reward: Float[Array, "time episode"]
    terminated: Bool[Array, "time episode"]
    next_features: Float[Array, "time episode feature"]
    valid: Bool[Array, "time episode"]


class Episodes(NamedTuple):
    """Whole episodes. Fitness is the undiscounted return, the descriptor that of the last step."""

    fitnesses: Float[Array, " episode"]
    descriptors: Float[Array, "episode descriptor"]
    lengths: Int[Array, " episode"]
    steps: Steps


def run_episodes(
    key: jax.Array,
    task: Task,
    act: Callable[[Float[Array, "episode feature"], Int[Array, ""]], Float[Array, "episode action"]],
    number: int,
) -> Episodes:
    """One episode of each of `number` controllers, from a fresh reset to its first end.

    Args:
      act: `(features, time) -> actions within [-1, 1]`, row i being controller i's.
    """
    reset_key, step_key = jax.random.split(key)
    observation, env_state = jax.vmap(task.env.reset, (0, None))(jax.random.split(reset_key, number), task.params)
    step_envs = jax.vmap(task.env.step, (0, 0, 0, None))

    def step(carry: tuple, x: tuple[jax.Array, Int[Array, ""]]) -> tuple[tuple, Steps]:
        env_state, features, alive, fitness, descriptor, length = carry
        keys, time = x
        action = act(features, time)
        observation, env_state, reward, terminated, truncated, info = step_envs(
            keys, env_state, task.actions.to_env(action), task.params
        )
        reward = jnp.asarray(reward, jnp.float32).reshape(number)
        terminated, truncated = jnp.asarray(terminated, bool), jnp.asarray(truncated, bool)
        steps = Steps(features, action, reward, terminated, task.encode(info["final_observation"]), alive)
        is_number = ~jnp.isnan(action).any(-1)  # not where a controller observed NaN, whatever the environment made of it
        fitness = fitness + jnp.where(alive, jnp.where(is_number, reward, jnp.nan), 0.0)
        descriptor = jnp.where(alive[:, None], info["descriptor"], descriptor)
        length = length + alive
        return (env_state, task.encode(observation), alive & ~(terminated | truncated), fitness, descriptor, length), steps

    zeros = jnp.zeros(number)
    nowhere, no_steps = jnp.zeros((number, len(task.low))), jnp.zeros(number, jnp.int32)
    start = (env_state, task.encode(observation), jnp.ones(number, bool), zeros, nowhere, no_steps)
    keys = jax.random.split(step_key, (task.num_steps, number))
    (*_, fitness, descriptor, length), steps = jax.lax.scan(step, start, (keys, jnp.arange(task.num_steps)))
    return Episodes(fitness, descriptor, length, steps)


def run_genotypes(key: jax.Array, task: Task, controller: Controller, genotypes: PyTree[Array]) -> Episodes:
    """One episode of each genotype, leaves (episode, ...)."""
    act = lambda features, time: jax.vmap(controller.act, (0, 0, None))(genotypes, features, time)
    return run_episodes(key, task, act, len(jax.tree.leaves(genotypes)[0]))
