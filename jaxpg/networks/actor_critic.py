"""An actor and a critic as one set of functions, with or without an encoder and a memory in front of both."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree, Shaped

from jaxpg.networks.recurrent import Memory


def _encode_nothing(params: PyTree, features: Array) -> Array:
    return features


def _remember_nothing(params: PyTree, carry: tuple, inputs: Array) -> tuple[tuple, Array]:
    return carry, inputs


class ActorCritic(NamedTuple):
    """Actor and critic; `params` is `{"actor": ..., "critic": ...}`, and `"encoder"` and `"memory"` if there are such.

    Actor and critic share nothing but what is in front of them. They read contexts: what the memory makes of its inputs so
    far or, without a memory, these inputs: the encoded features or, without an encoder, the features.

    Attributes:
      init: `key -> params`.
      distribution: `(params, contexts (*batch, context)) -> distribution over actions`.
      value: `(params, contexts (*batch, context)) -> values (*batch,)`.
      context_size: length of a context.
      encode: `(params, features (*batch, feature)) -> inputs (*batch, input)`.
      step: `(params, carry (*batch, ...), inputs (*batch, input)) -> (carry, contexts)`, of the memory.
      initial_carry: of one environment at the start of an episode; `()` without a memory.
      read: `observations -> features`, whatever `encode` takes; None where features are flat vectors, as
        `spaces.observation_encoder` makes them.
    """

    init: Callable[[jax.Array], PyTree]
    distribution: Callable[[PyTree, Float[Array, "*batch context"]], Any]
    value: Callable[[PyTree, Float[Array, "*batch context"]], Float[Array, "*batch"]]
    context_size: int
    encode: Callable[[PyTree, Array], Array] = _encode_nothing
    step: Callable[..., tuple[PyTree, Array]] = _remember_nothing
    initial_carry: PyTree = ()
    read: Callable[[PyTree], Array] | None = None

    def remember(self, params: PyTree, carry: PyTree, features: Array) -> tuple[PyTree, Array]:
        """The memory one step on, `(carry, contexts)`."""
        return self.step(params, carry, self.encode(params, features))


def actor_critic(
    actor: nn.Module, critic: nn.Module, feature_size: int, encoder: Any = None, memory: Memory | None = None
) -> ActorCritic:
    """Joins an actor module (contexts to a distribution), a critic module (contexts to one number), and what is before them.

    Args:
      encoder: a module, features to inputs.
    """
    features = jax.ShapeDtypeStruct((feature_size,), jnp.float32)
    inputs = jax.eval_shape(encoder.init_with_output, jax.random.key(0), features)[0] if encoder else features
    input_size = inputs.shape[-1]
    context_size = memory.size if memory else input_size

    def init(key: jax.Array) -> PyTree:
        actor_key, critic_key = jax.random.split(key)
        context = jnp.zeros(context_size)
        params = {"actor": actor.init(actor_key, context), "critic": critic.init(critic_key, context)}
        if memory:
            params["memory"] = memory.init(jax.random.fold_in(key, 2), memory.initial_carry(), jnp.zeros(input_size))
        if encoder:
            params["encoder"] = encoder.init(jax.random.fold_in(key, 3), jnp.zeros(feature_size))
        return params

    network = ActorCritic(
        init=init,
        distribution=lambda params, contexts: actor.apply(params["actor"], contexts),
        value=lambda params, contexts: critic.apply(params["critic"], contexts)[..., 0],
        context_size=context_size,
    )
    if encoder:
        network = network._replace(encode=lambda params, features: encoder.apply(params["encoder"], features))
    if not memory:
        return network
    step = lambda params, carry, inputs: memory.apply(params["memory"], carry, inputs)
    return network._replace(step=step, initial_carry=memory.initial_carry())


def recall(
    network: ActorCritic,
    params: PyTree,
    carry: PyTree[Float[Array, "*env hidden"]],
    features: Shaped[Array, "time *env_and_feature"],
    starts: Bool[Array, "time *env"],
) -> Shaped[Array, "time *env_and_context"]:
    """The contexts along sequences, computed anew from the carry before their first step.

    Without a memory they are the inputs, whatever their leading axes.

    Args:
      starts: whether an episode starts with this step, so that the carry is set back before it.
    """
    inputs = network.encode(params, features)
    if not jax.tree.leaves(network.initial_carry):
        return inputs

    def step(carry: PyTree, x: tuple[Array, Array]) -> tuple[PyTree, Array]:
        inputs, starts = x
        return network.step(params, restart(carry, starts, network.initial_carry), inputs)

    return jax.lax.scan(step, carry, (inputs, starts))[1]


def restart(carry: PyTree, starts: Bool[Array, " env"], initial_carry: PyTree) -> PyTree:
    """The carries, with `initial_carry` in the environments where an episode starts."""
    choose = lambda old, new: jnp.where(starts.reshape(-1, *(1,) * (old.ndim - 1)), new, old)
    return jax.tree.map(choose, carry, initial_carry)
