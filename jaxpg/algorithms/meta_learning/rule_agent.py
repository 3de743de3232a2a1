"""An agent that learns by an update rule: a policy, predictions in place of values, and an optimiser for each.

The agent descends, with the rule's targets pi_hat and y_hat,

    mean(log pi(a|s) pi_hat) + alpha_y KL(y(s) || y_hat),

through which the rule itself can be differentiated: they are functions of its parameters (Oh et al. 2020, arXiv 2007.08794,
equations 2 and 3, the sign of the first as in GROOVE's code: it is the rule's to find).
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax import struct
from jaxtyping import Array, Float, Int, PyTree

from jaxpg.algorithm import InputError, Policy, Scalar, hyperparameter, static
from jaxpg.algorithms.meta_learning.update_rule import Lived, Targets
from jaxpg.errors import name_of
from jaxpg.gradient_descent import clip_by_global_norm
from jaxpg.networks import MLP
from jaxpg.rollout import RolloutState, Transition, existing_successors, rollout
from jaxpg.spaces import action_decoder, choices, is_discrete, observation_encoder, observation_size

LEAST = 1e-8  # added to probabilities, so that their logarithms and gradients stay finite
SGD = {"optimizer": ("sgd",)}


@struct.dataclass
class AgentConfig:
    """Hyperparameters of the agents. Defaults are those of GROOVE's code for tables on grid-worlds."""

    num_envs: int = static(64, "environments of an agent, stepped side by side")
    num_steps: int = static(20, "steps per environment and update")
    hidden_sizes: tuple[int, ...] = static((), "hidden layers of policy and predictions; none: tables, or linear maps")
    activation: Literal["tanh", "relu", "swish"] = static("relu", "activation of the hidden layers", needs={"hidden_sizes": ()})
    optimizer: Literal["sgd", "adam"] = static("sgd", "how agents descend")
    learning_rate: Scalar = hyperparameter(40.0, "step size of the policy", low=0)
    prediction_learning_rate: Scalar = hyperparameter(4.0, "step size of the predictions", low=0)
    max_gradient_norm: Scalar = hyperparameter(0.5, "gradients are scaled down to this norm first", low=0, needs=SGD)
    prediction_coefficient: Scalar = hyperparameter(0.5, "alpha_y, weight of the predictions' loss", low=0)


class Learner(NamedTuple):
    """An agent: parameters of policy and predictions, the optimisers' states, and the updates that it has had.

    `pace` is a factor of both its step sizes, `prediction_coefficient` its own alpha_y.
    """

    actor: PyTree
    critic: PyTree
    actor_optimizer: PyTree
    critic_optimizer: PyTree
    step: Int[Array, ""]
    pace: Float[Array, ""]
    prediction_coefficient: Float[Array, ""]


class Measures(NamedTuple):
    """Of one update: mean entropies of the updated policy and predictions, mean squares of the rule's targets."""

    policy_entropy: Float[Array, ""]
    prediction_entropy: Float[Array, ""]
    policy_target_l2: Float[Array, ""]
    prediction_target_l2: Float[Array, ""]


class RuleAgent(NamedTuple):
    """Agents for one kind of environment.

    Attributes:
      init: `key -> learner`.
      collect: `(key, learner, rollout_state, env_params) -> (rollout_state, transitions)`.
      learn: `(rule_params, learner, transitions, lifetime) -> (learner, measures)`; whose life is over stays as it is.
      read: `(learner, transitions) -> lived`, what the rule reads, of which no derivative is taken.
      policy: `(learner, deterministic=True) -> Policy`.
      log_prob: `(actor, transitions) -> log pi(a|s)`, axes (time, env).
      critic: the module of the predictions with another number of outputs: `num_outputs -> module`.
      inputs: observations as the modules read them.
      optimizer: of predictions and of whatever else has their form.
    """

    init: Callable[[jax.Array], Learner]
    collect: Callable[..., tuple[RolloutState, Transition]]
    learn: Callable[..., tuple[Learner, Measures]]
    read: Callable[[Learner, Transition], Lived]
    policy: Callable[..., Policy]
    log_prob: Callable[[PyTree, Transition], Float[Array, "time env"]]
    critic: Callable[[int], nn.Module]
    inputs: Callable[[PyTree], Array]
    optimizer: optax.GradientTransformation


class Head(nn.Module):
    """A table where states are numbers, a linear map without bias of features, or an MLP."""

    num_outputs: int
    num_states: int
    hidden_sizes: tuple[int, ...]
    activation: str
    output_gain: float

    @nn.compact
    def __call__(self, x: Array) -> Float[Array, "*batch output"]:
        if self.num_states:
            # As a linear map of one-hot features begins, and as it learns, without a product of thousands of zeros.
            return nn.Embed(self.num_states, self.num_outputs, embedding_init=nn.initializers.normal(self.num_states**-0.5))(x)
        if not self.hidden_sizes:
            return nn.Dense(self.num_outputs, use_bias=False)(x)
        return MLP(self.hidden_sizes, self.num_outputs, self.output_gain, self.activation)(x)


class Heads(NamedTuple):
    """What learns in an environment.

    Attributes:
      make: `(num_outputs, output_gain) -> module`.
      inputs: observations, with any leading axes, as the modules read them.
      example: an input.
    """

    make: Callable[[int, float], Head]
    inputs: Callable[[PyTree], Array]
    example: Array


def make_heads(config: AgentConfig, env: Any, params: PyTree) -> Heads:
    """Tables where observations are numbers and no hidden layers are asked for."""
    space, size = env.observation_space(params), observation_size(env, params)
    is_table = is_discrete(space) and not config.hidden_sizes
    make = lambda outputs, gain: Head(outputs, size if is_table else 0, config.hidden_sizes, config.activation, gain)
    if is_table:
        return Heads(make, lambda x: x - getattr(space, "start", 0), jnp.int32(0))
    return Heads(make, observation_encoder(env, params), jnp.zeros(size))


def make_agent(
    name: str, config: AgentConfig, env: Any, params: PyTree, rule: Callable[..., Targets], num_bins: int
) -> RuleAgent:
    """Agents for the environment.

    Args:
      rule: `(rule_params, lived, step, lifetime) -> targets`.
      num_bins: of the predictions that it reads.

    Raises:
      InputError: actions are not discrete.
    """
    numbers = choices(env.action_space(params))
    if numbers is None or numbers.ndim:
        raise InputError(
            f"{name} takes one discrete action, but {name_of(env)} has {env.action_space(params)}: choose an environment such "
            "as GridWorlds-v0, CartPole-v1 or Breakout-MinAtar"
        )
    to_env = action_decoder(env, params)
    head, inputs, example = make_heads(config, env, params)
    actor, critic = head(int(numbers), 0.01), head(num_bins, 1.0)
    optimizer = lambda rate: make_optimizer(config, rate)
    actor_optimizer, critic_optimizer = optimizer(config.learning_rate), optimizer(config.prediction_learning_rate)

    def init(key: jax.Array) -> Learner:
        keys = jax.random.split(key)
        actor_params, critic_params = actor.init(keys[0], example), critic.init(keys[1], example)
        states = actor_optimizer.init(actor_params), critic_optimizer.init(critic_params)
        own = jnp.float32(1), jnp.asarray(config.prediction_coefficient, jnp.float32)
        return Learner(actor_params, critic_params, *states, jnp.int32(0), *own)

    def collect(key: jax.Array, learner: Learner, state: RolloutState, env_params: PyTree) -> tuple[RolloutState, Transition]:
        params = jax.lax.stop_gradient(learner.actor)  # what happens is data, also to a meta-gradient

        def act(key: jax.Array, observation: PyTree, carry: tuple) -> tuple[Array, Array, tuple]:
            action = jax.random.categorical(key, actor.apply(params, inputs(observation)))
            return to_env(action), action, carry

        return rollout(key, act, env, env_params, state, config.num_steps)

    def log_prob(params: PyTree, t: Transition) -> Float[Array, "time env"]:
        return jnp.log(_taken(jax.nn.softmax(actor.apply(params, inputs(t.observation))), t.extras) + LEAST)

    def read(learner: Learner, t: Transition) -> Lived:
        following = existing_successors(t.next_observation, t.observation, t.terminated)
        probability = jnp.exp(log_prob(learner.actor, t))
        predictions = (jax.nn.softmax(critic.apply(learner.critic, inputs(x))) for x in (t.observation, following))
        return Lived(t.reward, t.terminated, t.done, probability, *predictions)

    def learn(rule_params: PyTree, learner: Learner, t: Transition, lifetime: Int[Array, ""]) -> tuple[Learner, Measures]:
        targets = rule(rule_params, jax.lax.stop_gradient(read(learner, t)), learner.step, lifetime)
        x = inputs(t.observation)

        def loss(params: tuple[PyTree, PyTree]) -> Float[Array, ""]:
            actor_params, critic_params = params
            log_predictions = jax.nn.log_softmax(critic.apply(critic_params, x))
            divergence = (jnp.exp(log_predictions) * (log_predictions - targets.log_prediction)).sum(-1)
            policy_loss = (log_prob(actor_params, t) * targets.policy).mean()
            return policy_loss + learner.prediction_coefficient * divergence.mean()

        gradients = jax.grad(loss)((learner.actor, learner.critic))
        actor_changes, actor_state = actor_optimizer.update(gradients[0], learner.actor_optimizer, learner.actor)
        critic_changes, critic_state = critic_optimizer.update(gradients[1], learner.critic_optimizer, learner.critic)
        moved = lambda params, changes: optax.apply_updates(params, optax.tree.scale(learner.pace, changes))
        updated = learner._replace(
            actor=moved(learner.actor, actor_changes),
            critic=moved(learner.critic, critic_changes),
            actor_optimizer=actor_state,
            critic_optimizer=critic_state,
            step=learner.step + 1,
        )
        learner = jax.tree.map(lambda new, old: jnp.where(updated.step <= lifetime, new, old), updated, learner)
        return learner, Measures(
            policy_entropy=_entropy(actor.apply(learner.actor, x)),
            prediction_entropy=_entropy(critic.apply(learner.critic, x)),
            policy_target_l2=jnp.square(targets.policy).mean(),
            prediction_target_l2=jnp.square(jnp.exp(targets.log_prediction)).sum(-1).mean(),
        )

    def act_with(deterministic: bool) -> Callable[..., tuple[Array, PyTree]]:
        def act(params: PyTree, key: jax.Array, observation: PyTree, carry: PyTree) -> tuple[Array, PyTree]:
            logits = actor.apply(params, inputs(observation))
            return to_env(jnp.argmax(logits, -1) if deterministic else jax.random.categorical(key, logits)), carry

        return act

    acts = {True: act_with(True), False: act_with(False)}  # one function object each, so that compiled evaluations are found

    def policy(learner: Learner, deterministic: bool = True) -> Policy:
        return Policy(learner.actor, acts[deterministic], to_env=to_env)

    return RuleAgent(init, collect, learn, read, policy, log_prob, lambda outputs: head(outputs, 1.0), inputs, critic_optimizer)


def make_optimizer(config: AgentConfig, rate: Scalar) -> optax.GradientTransformation:
    """That of the agents, whose steps have finite derivatives also where a gradient is zero: a policy may be sure of itself."""
    if config.optimizer == "sgd":
        return optax.chain(clip_by_global_norm(config.max_gradient_norm), optax.sgd(rate))
    return optax.adam(rate, eps_root=1e-16)


def _taken(values: Float[Array, "*batch action"], actions: Int[Array, "*batch"]) -> Float[Array, "*batch"]:
    return jnp.take_along_axis(values, actions[..., None], axis=-1)[..., 0]


def _entropy(logits: Float[Array, "*batch option"]) -> Float[Array, ""]:
    log_p = jax.nn.log_softmax(logits)
    return -(jnp.exp(log_p) * log_p).sum(-1).mean()
