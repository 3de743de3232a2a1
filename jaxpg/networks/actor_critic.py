"""An actor and a critic as one set of functions, with or without a memory in front of both."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from jaxpg.networks.recurrent import Memory


def _remember_nothing(params: PyTree, carry: tuple, features: Array) -> tuple[tuple, Array]:
    return carry, features


class ActorCritic(NamedTuple):
    """Separate actor and critic; `params` is `{"actor": ..., "critic": ...}`, and `"memory"` if there is one.

    Actor and critic read contexts: what the memory makes of the features so far, or, without a memory, the features.

    Attributes:
      init: `key -> params`.
      distribution: `(params, contexts (*batch, context)) -> distribution over actions`.
      value: `(params, contexts (*batch, context)) -> values (*batch,)`.
      remember: `(params, carry (*batch, ...), features (*batch, feature)) -> (carry, contexts)`, one step of the memory.
      initial_carry: of one environment at the start of an episode; `()` without a memory.
      context_size: length of a context.
    """

    init: Callable[[jax.Array], PyTree]
    distribution: Callable[[PyTree, Float[Array, "*batch context"]], Any]
    value: Callable[[PyTree, Float[Array, "*batch context"]], Float[Array, "*batch"]]
    context_size: int
    remember: Callable[..., tuple[PyTree, Array]] = _remember_nothing
    initial_carry: PyTree = ()


def actor_critic(actor: nn.Module, critic: nn.Module, feature_size: int, memory: Memory | None = None) -> ActorCritic:
    """Joins an actor module (contexts to a distribution), a critic module (contexts to one number) and a memory."""
    context_size = memory.size if memory else feature_size

    def init(key: jax.Array) -> PyTree:
        actor_key, critic_key = jax.random.split(key)
        context = jnp.zeros(context_size)
        params = {"actor": actor.init(actor_key, context), "critic": critic.init(critic_key, context)}
        if memory:
            params["memory"] = memory.init(jax.random.fold_in(key, 2), memory.initial_carry(), jnp.zeros(feature_size))
        return params

    network = ActorCritic(
        init=init,
        distribution=lambda params, contexts: actor.apply(params["actor"], contexts),
        value=lambda params, contexts: critic.apply(params["critic"], contexts)[..., 0],
        context_size=context_size,
    )
    if not memory:
        return network
    remember = lambda params, carry, features: memory.apply(params["memory"], carry, features)
    return network._replace(remember=remember, initial_carry=memory.initial_carry())


def recall(
    network: ActorCritic,
    params: PyTree,
    carry: PyTree[Float[Array, "*env hidden"]],
    features: Float[Array, "time *env feature"],
    starts: Bool[Array, "time *env"],
) -> Float[Array, "time *env context"]:
    """The contexts along sequences, computed anew from the carry before their first step.

    Without a memory they are the features, whatever their leading axes.

    Args:
      starts: whether an episode starts with this step, so that the carry is set back before it.
    """
    if not jax.tree.leaves(network.initial_carry):
        return features

    def step(carry: PyTree, x: tuple[Array, Array]) -> tuple[PyTree, Array]:
        features, starts = x
        return network.remember(params, restart(carry, starts, network.initial_carry), features)

    return jax.lax.scan(step, carry, (features, starts))[1]


def restart(carry: PyTree, starts: Bool[Array, " env"], initial_carry: PyTree) -> PyTree:
    """The carries, with `initial_carry` in the environments where an episode starts."""
    choose = lambda old, new: jnp.where(starts.reshape(-1, *(1,) * (old.ndim - 1)), new, old)
    return jax.tree.map(choose, carry, initial_carry)
