"""Policies over actions within [-1, 1]: hyperbolic tangents of Gaussians, one or several, and a deterministic actor."""

from collections.abc import Callable

import distrax
import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxpg.networks.action_value import INITIALIZERS, Trunk, symmetric_uniform

LOG_STD_RANGE = (-20.0, 2.0)


class TanhGaussian(distrax.Transformed):
    """tanh(u) with u ~ N(mean, diag(scale)^2) over vectors of A numbers.

    Log-probabilities are densities within (-1, 1)^A; use `sample_and_log_prob`, which does not invert the tangent.
    """

    def __init__(self, mean: Float[Array, "*batch action"], scale: Float[Array, "*batch action"]):
        super().__init__(distrax.MultivariateNormalDiag(mean, scale), distrax.Block(distrax.Tanh(), 1))

    def at(self, noise: Float[Array, "*batch action"]) -> Float[Array, "*batch action"]:
        """The action that standard normal noise makes: tanh(mean + scale * noise)."""
        return jnp.tanh(self.distribution.loc + self.distribution.scale_diag * noise)

    def mode(self) -> Float[Array, "*batch action"]:
        """tanh(mean), as evaluations of squashed policies have it: the median of each number."""
        return jnp.tanh(self.distribution.loc)


class TanhActor(nn.Module):
    """A deterministic policy (Fujimoto et al. 2018, arXiv 1802.09477)."""

    action_size: int
    hidden_sizes: tuple[int, ...]
    activation: str = "relu"
    kernel_init: Callable[..., Array] = nn.initializers.lecun_normal()

    @nn.compact
    def __call__(self, x: Float[Array, "*batch feature"]) -> Float[Array, "*batch action"]:
        hidden = Trunk(self.hidden_sizes, self.activation, kernel_init=self.kernel_init)(x)
        return jnp.tanh(nn.Dense(self.action_size, kernel_init=self.kernel_init)(hidden))


class Experts(nn.Module):
    """K squashed Gaussian experts on one trunk, and the logits of routing among them.

    Means and log standard deviations start within ±1e-3 of zero, so that all experts start alike. What routing learns does
    not reach the trunk (Ren et al., 2021). One expert is SAC's policy (Haarnoja et al., 2018).
    """

    num_experts: int
    action_size: int
    hidden_sizes: tuple[int, ...]
    activation: str = "relu"
    initialization: str = "lecun_normal"

    @nn.compact
    def __call__(
        self, x: Float[Array, "*batch feature"]
    ) -> tuple[Float[Array, "*batch expert"], Float[Array, "*batch expert action"], Float[Array, "*batch expert action"]]:
        """Logits, means and standard deviations, the latter two before the tangent."""
        kernel_init, bias_init, *_ = INITIALIZERS[self.initialization]
        hidden = Trunk(self.hidden_sizes, self.activation, kernel_init=kernel_init, bias_init=bias_init)(x)
        small = symmetric_uniform(1e-3)
        shape = (*x.shape[:-1], self.num_experts, self.action_size)
        head = lambda name: nn.Dense(shape[-1] * shape[-2], kernel_init=small, bias_init=small, name=name)(hidden)
        mean, log_std = head("mean").reshape(shape), jnp.clip(head("log_std").reshape(shape), *LOG_STD_RANGE)
        logits = nn.Dense(self.num_experts, name="routing")(jax.lax.stop_gradient(hidden))
        return logits, mean, jnp.exp(log_std)
