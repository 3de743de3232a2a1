"""The update rule of LPG (Oh et al. 2020, arXiv 2007.08794): what an agent has lived, read backwards, gives its targets.

At every step the rule says by how much the action's probability is to change, and which distribution over a few bins the agent
is to predict there. What the bins mean is the rule's own invention: they take the place of a value function.

Differences: a GRU as in GROOVE's code, where both papers say LSTM; the discount is no input, as there. An episode's end by a
time limit is not a termination: the prediction of its last observation is read.
"""

from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from jaxpg.networks import Memory

EMBEDDING_SIZE = 16


class Lived(NamedTuple):
    """What the rule reads of an agent's experience: `probability` is that of the action taken, predictions are over bins."""

    reward: Float[Array, "time *env"]
    terminated: Bool[Array, "time *env"]
    done: Bool[Array, "time *env"]
    probability: Float[Array, "time *env"]
    prediction: Float[Array, "time *env bin"]
    next_prediction: Float[Array, "time *env bin"]


class Targets(NamedTuple):
    """What the rule says: of the policy (descended along its product with the log-probability), and of the prediction."""

    policy: Float[Array, "time *env"]
    log_prediction: Float[Array, "time *env bin"]


class UpdateRule(nn.Module):
    """U_eta.

    Attributes:
      hidden_size: units of the recurrent network.
      num_bins: of the agent's predictions.
      temporally_aware: whether it reads how far the agent's life has come, n / N, and how long it is, log N (TA-LPG: Jackson et
        al. 2024, arXiv 2402.05828; its code has both numbers as they are).
    """

    hidden_size: int
    num_bins: int
    temporally_aware: bool = False

    @nn.compact
    def __call__(self, lived: Lived, step: Int[Array, ""], lifetime: Int[Array, ""]) -> Targets:
        embed = nn.Sequential([nn.Dense(EMBEDDING_SIZE), nn.relu, nn.Dense(1)])
        following = jnp.where(lived.terminated, 0.0, embed(lived.next_prediction)[..., 0])
        inputs = [lived.reward, lived.terminated, lived.probability, embed(lived.prediction)[..., 0], following]
        if self.temporally_aware:
            inputs += [step / lifetime, jnp.log(lifetime)]
        x = jnp.stack([jnp.broadcast_to(each, lived.reward.shape).astype(lived.reward.dtype) for each in inputs], axis=-1)
        read_backwards = nn.scan(_remember, variable_broadcast="params", split_rngs={"params": False}, reverse=True)
        carry = jnp.zeros((*lived.reward.shape[1:], self.hidden_size), x.dtype)
        _, hidden = read_backwards(Memory("gru", self.hidden_size), carry, (x, lived.done))
        hidden = nn.relu(hidden)
        return Targets(nn.Dense(1)(hidden)[..., 0], nn.log_softmax(nn.Dense(self.num_bins)(hidden)))

    def initial(self, key: Array) -> PyTree:
        """Random parameters."""
        zeros, bins = jnp.zeros((1, 1)), jnp.zeros((1, 1, self.num_bins))
        flags = jnp.zeros((1, 1), bool)
        return self.init(key, Lived(zeros, flags, flags, zeros, bins, bins), jnp.int32(0), jnp.int32(1))


def _remember(memory: Memory, carry: Array, step: tuple[Array, Array]) -> tuple[Array, Array]:
    """What comes after an episode's end is nothing to the steps before it."""
    inputs, done = step
    return memory(jnp.where(done[..., None], 0.0, carry), inputs)
