"""What on-policy algorithms share: acting with an actor-critic, and what the experience looks like to a learner.

An algorithm of this family is a function `learn`; the rest is here. Observations are stored as they came and normalised
when they are read, with statistics that change only between updates, so that acting and learning agree to the bit.
"""

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jaxtyping import Array, Bool, Float, PyTree

from jaxpg import losses
from jaxpg.algorithm import LARGEST, LONGEST, MOST_UNITS, Algorithm, InputError, Metrics, Policy, Scalar, hyperparameter, static
from jaxpg.counting import divisors, falling, fraction, increment, init_count
from jaxpg.errors import name_of
from jaxpg.gradient_descent import clip_by_global_norm, descend, global_norm
from jaxpg.networks import (
    MLP,
    ActorCritic,
    CategoricalActor,
    DenseEncoder,
    GaussianActor,
    ImageEncoder,
    Memory,
    MultiCategoricalActor,
    actor_critic,
    recall,
)
from jaxpg.normalization import (
    RewardScaling,
    RunningStatistics,
    init_reward_scaling,
    init_statistics,
    normalize,
    scale_rewards,
    update_statistics,
)
from jaxpg.rollout import (
    RolloutState,
    Transition,
    episode_metrics,
    existing_successors,
    init_rollout,
    nonfinite_metrics,
    rollout,
)
from jaxpg.spaces import (
    SUPPORTED_ACTIONS,
    action_decoder,
    choices,
    is_box,
    locate_image,
    observation_encoder,
    observation_size,
)
from jaxpg.transforms import any_in_batch

TIME_LIMIT_HELP = "at a time limit: use the final observation's value, treat it as an end of the task, or drop the step"
MEMORY = {"memory": ("gru", "lstm")}
ANNEAL_HELP = "let the learning rate fall linearly over total_steps"
ANNEALING_HELP = "part of the run in which the learning rate falls"
RATE_END_HELP = "step size in the end"
ANNEALED = {"anneal_learning_rate": (True,)}
ENCODER_HELP = "a dense layer in front of the memory, if there is one, or 16 filters of 3 x 3 over the image that is observed"


@struct.dataclass
class OnPolicyConfig:
    """Hyperparameters of every on-policy algorithm."""

    total_steps: int = static(
        500_000, "environment steps of the whole run: its length and the horizon of annealing", high=LONGEST
    )
    num_envs: int = static(16, "environments stepped side by side")
    num_steps: int = static(128, "steps per environment and update")
    hidden_sizes: tuple[int, ...] = static((64, 64), "hidden layers of actor and critic")
    activation: Literal["tanh", "relu", "swish"] = static("tanh", "activation of the hidden layers", needs={"hidden_sizes": ()})
    encoder: Literal["dense", "convolution"] = static("dense", ENCODER_HELP)
    memory: Literal["none", "gru", "lstm"] = static("none", "recurrent cell in front of actor and critic")
    memory_size: int = static(128, "units of the recurrent cell", high=MOST_UNITS, needs=MEMORY)
    time_limit: Literal["bootstrap", "terminal", "mask"] = static("bootstrap", TIME_LIMIT_HELP)
    normalize_observations: bool = static(True, "divide observations by their running standard deviation")
    normalize_rewards: bool = static(True, "divide rewards by the running standard deviation of returns")
    anneal_learning_rate: bool = static(True, ANNEAL_HELP)
    learning_rate: Scalar = hyperparameter(3e-4, "step size", low=0)
    annealing_fraction: Scalar = hyperparameter(1.0, ANNEALING_HELP, low=0, high=1, needs=ANNEALED)
    learning_rate_end: Scalar = hyperparameter(0.0, RATE_END_HELP, low=0, needs=ANNEALED)
    discount: Scalar = hyperparameter(0.99, "gamma", low=0, high=1)
    entropy_coefficient: Scalar = hyperparameter(0.0, "weight of the entropy bonus", low=0)
    max_gradient_norm: Scalar = hyperparameter(0.5, "gradients are scaled down to this global norm", low=0)


@struct.dataclass
class JointConfig(OnPolicyConfig):
    """And of those that train policy and value function by the gradient of one loss."""

    value_coefficient: Scalar = hyperparameter(0.5, "weight of the value loss", low=0)


class Learner(NamedTuple):
    """What learning changes; `extra` is what an algorithm keeps beyond the rest."""

    params: PyTree
    optimizer_state: PyTree
    observation_statistics: RunningStatistics
    reward_scaling: RewardScaling
    extra: PyTree = ()


class OnPolicyState(NamedTuple):
    """The whole state of a run."""

    key: jax.Array
    learner: Learner
    rollout: RolloutState


class Behaviour(NamedTuple):
    """Of each step: the action as sampled, on the policy's own scale (`spaces.action_decoder`), and its log-probability.

    With a memory, also the carry before the step and the context that was acted on; else `()`.
    """

    action: Array
    log_prob: Float[Array, "*batch"]
    carry: PyTree
    context: PyTree


class Experience(NamedTuple):
    """A rollout as a learner reads it; axes (time, env), `carry` alone (env, ...); features are mostly vectors."""

    features: Array
    starts: Bool[Array, "time env"]
    carry: PyTree
    action: Array
    log_prob: Float[Array, "time env"]
    value: Float[Array, "time env"]
    next_value: Float[Array, "time env"]
    reward: Float[Array, "time env"]
    terminated: Bool[Array, "time env"]
    truncated: Bool[Array, "time env"]


class Parts(NamedTuple):
    """An on-policy algorithm in parts, for those that train it inside theirs: curricula, robust control, meta-learning.

    Attributes:
      init: `key -> learner`.
      collect: `(key, learner, rollout_state, env_params, params_axis=None) -> (rollout_state, transitions)`; with
        `params_axis=0`, every environment has a row of `env_params`, with a tree of axes, of some parts of it.
      learn: `(key, learner, transitions) -> (learner, metrics)`.
      policy: `(learner, deterministic=True) -> Policy`.
      appraise: `(learner, transitions) -> (learner, experience)`: features, values and scaled rewards, as `learn` has them.
      initial_carry: the memory at the start of an episode, for `init_rollout`.
    """

    init: Callable[[jax.Array], Learner]
    collect: Callable[..., tuple[RolloutState, Transition]]
    learn: Callable[[jax.Array, Learner, Transition], tuple[Learner, Metrics]]
    policy: Callable[..., Policy]
    appraise: Callable[[Learner, Transition], tuple[Learner, Experience]]
    initial_carry: PyTree = ()


class Actor(NamedTuple):
    """What `make_actor` gives an algorithm to build its `learn` on.

    Attributes:
      init: `(key, init_optimizer) -> learner`.
      collect, policy, appraise: as in `Parts`.
      observe: `(learner, transitions) -> learner` with the observations counted: the last thing that an update does, so
        that acting and learning within it saw the same statistics.
    """

    init: Callable[[jax.Array, Callable[[PyTree], PyTree]], Learner]
    collect: Callable[..., tuple[RolloutState, Transition]]
    appraise: Callable[[Learner, Transition], tuple[Learner, Experience]]
    observe: Callable[[Learner, Transition], Learner]
    policy: Callable[..., Policy]


def make_actor(
    config: OnPolicyConfig,
    env: Any,
    env_params: PyTree,
    network: ActorCritic,
    best_action: Callable[[Any, jax.Array], Array] = lambda distribution, key: distribution.mode(),
) -> Actor:
    """Acting with any actor-critic.

    Args:
      best_action: `(distribution, key) -> action` of the deterministic policy.
    """
    encode, to_env = network.read or observation_encoder(env, env_params), action_decoder(env, env_params)
    has_memory = config.memory != "none"

    def init(key: jax.Array, init_optimizer: Callable[[PyTree], PyTree]) -> Learner:
        params = network.init(key)
        statistics = init_statistics((observation_size(env, env_params),))
        return Learner(params, init_optimizer(params), statistics, init_reward_scaling(config.num_envs))

    def features_of(statistics: RunningStatistics, observation: PyTree) -> Array:
        features = encode(observation)
        return normalize(statistics, features) if config.normalize_observations else features

    def collect(
        key: jax.Array, learner: Learner, state: RolloutState, env_params: PyTree, params_axis: PyTree = None
    ) -> tuple[RolloutState, Transition]:
        def act(key: jax.Array, observation: PyTree, carry: PyTree) -> tuple[Array, Behaviour, PyTree]:
            features = features_of(learner.observation_statistics, observation)
            next_carry, contexts = network.remember(learner.params, carry, features)
            distribution = network.distribution(learner.params, contexts)
            action = jax.lax.stop_gradient(distribution.sample(seed=key))  # data, also to a meta-gradient
            behaviour = Behaviour(action, distribution.log_prob(action), carry, contexts if has_memory else ())
            return to_env(action), behaviour, next_carry

        return rollout(key, act, env, env_params, state, config.num_steps, params_axis, network.initial_carry)

    def appraise(learner: Learner, transitions: Transition) -> tuple[Learner, Experience]:
        behaviour: Behaviour = transitions.extras
        rewards, terminated = transitions.reward, transitions.terminated
        scaling = learner.reward_scaling
        if config.normalize_rewards:
            scaling, rewards = scale_rewards(scaling, rewards, transitions.done, config.discount)
        features = features_of(learner.observation_statistics, transitions.observation)
        contexts = behaviour.context if has_memory else network.encode(learner.params, features)
        values = network.value(learner.params, contexts)

        def next_values_of(steps: tuple[Any, Any]) -> Float[Array, "*step"]:
            at = lambda tree: jax.tree.map(lambda x: x[steps], tree)
            carry, _ = network.remember(learner.params, at(behaviour.carry), at(features))
            following = existing_successors(*map(at, (transitions.next_observation, transitions.observation, ended)))
            next_features = features_of(learner.observation_statistics, following)
            return network.value(learner.params, network.remember(learner.params, carry, next_features)[1])

        cut = transitions.truncated & ~terminated
        ended = terminated if config.time_limit == "bootstrap" else transitions.done
        next_values = values_of_successors(values, cut, next_values_of)
        if config.time_limit == "terminal":
            terminated = transitions.done
        elif config.time_limit == "mask":  # a reward and a successor that make the temporal difference zero, as in Brax
            rewards, next_values = jnp.where(cut, values, rewards), jnp.where(cut, 0.0, next_values)
        experience = Experience(
            features=features,
            starts=jnp.concatenate([jnp.zeros_like(terminated[:1]), transitions.done[:-1]]),
            carry=jax.tree.map(lambda x: x[0], behaviour.carry),
            action=behaviour.action,
            log_prob=behaviour.log_prob,
            value=values,
            next_value=next_values,
            reward=rewards,
            terminated=terminated,
            truncated=transitions.truncated,
        )
        return learner._replace(reward_scaling=scaling), experience

    def observe(learner: Learner, transitions: Transition) -> Learner:
        if not config.normalize_observations:
            return learner
        statistics = update_statistics(learner.observation_statistics, encode(transitions.observation))
        return learner._replace(observation_statistics=statistics)

    def distribution(params: PyTree, observation: PyTree) -> Any:
        network_params, statistics = params
        features = features_of(statistics, observation)
        return network.distribution(network_params, network.remember(network_params, (), features)[1])

    def act(deterministic: bool) -> Callable[..., tuple[Array, PyTree]]:
        def act(params: PyTree, key: jax.Array, observation: PyTree, carry: PyTree) -> tuple[Array, PyTree]:
            network_params, statistics = params
            carry, context = network.remember(network_params, carry, features_of(statistics, observation))
            actions = network.distribution(network_params, context)
            action = best_action(actions, key) if deterministic else actions.sample(seed=key)
            return to_env(action), carry

        return act

    acts = {True: act(True), False: act(False)}  # one function object each, so that compiled evaluations are found again

    def policy(learner: Learner, deterministic: bool = True) -> Policy:
        return Policy(
            params=(learner.params, learner.observation_statistics),
            act=acts[deterministic],
            initial_carry=network.initial_carry,
            distribution=None if has_memory else distribution,
            to_env=to_env,
        )

    return Actor(init, collect, appraise, observe, policy)


def make_network(name: str, config: OnPolicyConfig, env: Any, env_params: PyTree) -> ActorCritic:
    """The actor-critic that fits the environment: softmax policies for discrete actions, a Gaussian for continuous ones.

    Raises:
      InputError: the environment's spaces are of another kind.
    """
    space = env.action_space(env_params)
    numbers = choices(space)
    actor: Any
    if is_box(space):
        actor = GaussianActor(math.prod(space.shape), config.hidden_sizes, config.activation)
    elif numbers is None:
        raise InputError(f"{name} takes {SUPPORTED_ACTIONS}, but {name_of(env)} has {space}")
    elif numbers.ndim == 0:
        actor = CategoricalActor(int(numbers), config.hidden_sizes, config.activation)
    else:
        actor = MultiCategoricalActor(tuple(numbers.ravel().tolist()), config.hidden_sizes, config.activation)
    return join(name, config, actor, env, env_params)


def join(name: str, config: OnPolicyConfig, actor: Any, env: Any, env_params: PyTree) -> ActorCritic:
    """An actor module with the critic, and the encoder and the memory in front, that the configuration asks for.

    Raises:
      InputError: a convolution is asked for, but observations have no image.
    """
    encoder: Any = None
    if config.encoder == "convolution":
        encoder = ImageEncoder(*locate_image(name, env, env_params))
    elif config.memory != "none":
        encoder = DenseEncoder(config.memory_size)
    memory = None if config.memory == "none" else Memory(config.memory, config.memory_size)
    critic = MLP(config.hidden_sizes, 1, 1.0, config.activation)
    return actor_critic(actor, critic, observation_size(env, env_params), encoder, memory)


def contexts_of(network: ActorCritic, params: PyTree, experience: Any) -> Array:
    """What actor and critic read, for parameters to be differentiated: memories are computed anew along the rollout."""
    return recall(network, params, experience.carry, experience.features, experience.starts)


def values_of_successors(
    values: Float[Array, "time env"],
    cut: Bool[Array, "time env"],
    evaluate: Callable[[tuple[Any, Any]], Float[Array, "*step"]],
) -> Float[Array, "time env"]:
    """The value of each step's true successor; where the episode terminated, a number that must not count.

    It is the next step's value but after the last steps and where the episode was cut. Those are evaluated, in one batch as
    long as they are few: at most one step in 16, beside the last ones. If they are more, every step is.

    Args:
      values: of the state in which each step began.
      cut: whether the episode was truncated after the step.
      evaluate: `(times, envs) -> values of the successors of these steps`; both index the leading axes of a rollout.
    """
    num_steps, num_envs = values.shape
    capacity = num_envs * (1 + math.ceil((num_steps - 1) / 16))
    alone = cut.at[-1].set(True)

    def evaluate_few() -> Float[Array, "time env"]:
        steps = jnp.nonzero(alone, size=capacity, fill_value=num_steps)  # beyond the last step: none
        shifted = jnp.concatenate([values[1:], values[-1:]])
        return shifted.at[steps].set(evaluate(steps), mode="drop")

    every = (slice(None), slice(None))
    return jax.lax.cond(any_in_batch(alone.sum() > capacity), lambda: evaluate(every), evaluate_few)


def scale_by_learning_rate(config: Any, gradient_steps_per_update: int) -> optax.GradientTransformation:
    """The last part of an optimiser: the learning rate is constant, or falls linearly over some of the run's updates."""
    if not config.anneal_learning_rate:
        return optax.scale_by_learning_rate(config.learning_rate)
    num_updates = math.ceil(config.total_steps / (config.num_envs * config.num_steps))
    num_gradient_steps = num_updates * gradient_steps_per_update

    def init(params: PyTree) -> optax.ScaleByScheduleState:
        del params
        return optax.ScaleByScheduleState(init_count(num_gradient_steps))

    def update(
        changes: PyTree, state: optax.ScaleByScheduleState, params: PyTree = None
    ) -> tuple[PyTree, optax.ScaleByScheduleState]:
        del params
        is_number = state.count.ndim == 0
        # Of so many gradient steps that they do not fit into a number, one update's are next to none.
        made = (state.count // gradient_steps_per_update, num_updates) if is_number else (state.count, num_gradient_steps)
        rate = falling(config.learning_rate, config.learning_rate_end, fraction(*made), config.annealing_fraction)
        changes = jax.tree.map(lambda x: jnp.asarray(-rate, x.dtype) * x, changes)
        return changes, optax.ScaleByScheduleState(increment(state.count))

    return optax.GradientTransformation(init, update)


def clipped_adam(config: OnPolicyConfig, gradient_steps_per_update: int) -> optax.GradientTransformation:
    """Adam behind a bound on the gradient's global norm, on one long vector: one kernel, not one for every parameter.

    `eps_root` is far below what changes a step, but without it the derivative of training through a parameter whose gradient
    is zero (a silent rectified unit) would be NaN.
    """
    adam = optax.chain(optax.scale_by_adam(eps=1e-5, eps_root=1e-16), scale_by_learning_rate(config, gradient_steps_per_update))
    return optax.flatten(optax.chain(clip_by_global_norm(config.max_gradient_norm), adam))


def actor_critic_step(
    config: JointConfig,
    network: ActorCritic,
    optimizer: optax.GradientTransformation,
    learner: Learner,
    experience: Experience,
    advantages: Float[Array, "time env"],
    targets: Float[Array, "time env"],
) -> tuple[Learner, Metrics]:
    """One gradient step of policy, value function and entropy bonus (Mnih et al., 2016)."""

    def loss(params: PyTree) -> tuple[Float[Array, ""], Metrics]:
        contexts = contexts_of(network, params, experience)
        distribution = network.distribution(params, contexts)
        policy_loss = losses.policy_gradient_loss(distribution.log_prob(experience.action), advantages)
        value_loss = losses.value_loss(network.value(params, contexts), targets)
        entropy = distribution.entropy().mean()
        metrics = {"policy_loss": policy_loss, "value_loss": value_loss, "entropy": entropy}
        return policy_loss + config.value_coefficient * value_loss - config.entropy_coefficient * entropy, metrics

    gradient, metrics = jax.grad(loss, has_aux=True)(learner.params)
    params, optimizer_state = descend(optimizer, gradient, learner.params, learner.optimizer_state)
    metrics["gradient_norm"] = global_norm(gradient)
    metrics["parameter_norm"] = global_norm(params)
    metrics["explained_variance"] = losses.explained_variance(experience.value, targets)
    return learner._replace(params=params, optimizer_state=optimizer_state), metrics


def mean_over_chunks(function: Callable[[PyTree], PyTree], chunks: PyTree, num_chunks: int) -> PyTree:
    """The mean of `function` over the leading axis, one chunk after the other: what it computes for one may stay in cache."""
    if num_chunks == 1:
        return function(jax.tree.map(lambda x: x[0], chunks))
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(function, jax.tree.map(lambda x: x[0], chunks)))
    add = lambda sums, chunk: (jax.tree.map(jnp.add, sums, function(chunk)), None)
    return jax.tree.map(lambda x: x / num_chunks, jax.lax.scan(add, zeros, chunks)[0])


def as_algorithm(config: OnPolicyConfig, parts: Parts, env: Any, env_params: PyTree) -> Algorithm:
    """An update is: collect, then learn."""

    def init(key: jax.Array) -> OnPolicyState:
        key, learner_key, env_key = jax.random.split(key, 3)
        start = init_rollout(env_key, env, env_params, config.num_envs, initial_carry=parts.initial_carry)
        return OnPolicyState(key, parts.init(learner_key), start)

    def update(state: OnPolicyState) -> tuple[OnPolicyState, Metrics]:
        key, collect_key, learn_key = jax.random.split(state.key, 3)
        rollout_state, transitions = parts.collect(collect_key, state.learner, state.rollout, env_params)
        learner, metrics = parts.learn(learn_key, state.learner, transitions)
        metrics = metrics | episode_metrics(rollout_state.episodes) | nonfinite_metrics(transitions)
        return OnPolicyState(key, learner, rollout_state), metrics

    def policy(state: OnPolicyState, deterministic: bool = True) -> Policy:
        return parts.policy(state.learner, deterministic)

    steps = config.num_envs * config.num_steps
    return Algorithm(init, update, policy, config, steps, math.ceil(config.total_steps / steps))


def require_divisible(what: str, number: int, num_minibatches: int) -> None:
    """Checks that minibatches are equal.

    Raises:
      InputError: they are not, and the nearest number that divides is offered; or there are too many to number.
    """
    if number > LARGEST:
        raise InputError(f"{what} is more than 32 bits can number: take at most {LARGEST}")
    if number % num_minibatches:
        nearest = min(divisors(number), key=lambda divisor: abs(divisor - num_minibatches))
        raise InputError(f"{what} does not divide into num_minibatches = {num_minibatches}; the nearest that does is {nearest}")


def require_several(what: str, samples: int) -> None:
    """Raises `InputError` if the samples among which advantages are compared are one: less its mean, that is nothing."""
    if samples < 2:
        raise InputError(
            f"{what} is a single step, of whose advantage nothing is left once the mean is subtracted, so that the policy "
            "would not learn: take more num_envs or num_steps, or fewer num_minibatches"
        )
