"""Gaussian mixtures as policies (Ren et al., 2021, arXiv 2104.09122)."""

from typing import Any

import distrax
import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxpg.networks.mlp import MLP

# Far outside the counters that drawing the noise consumes, so that index and noise are independent.
_INDEX_STREAM = 0x7FFFFFFF


class GaussianMixture(distrax.MixtureSameFamily):
    """The mixture sum_k w_k N(mu_k, diag sigma_k^2) of K experts over vectors of A numbers.

    It draws the noise as a `distrax.MultivariateNormalDiag` of the same key does, so that a mixture of one expert
    samples the very actions of the Gaussian.

    Args:
      logits: unnormalised log weights w, shape (*batch, expert).
      mean: expert means, shape (*batch, expert, action).
      scale: expert standard deviations, shape (*batch, expert, action).
    """

    def __init__(
        self,
        logits: Float[Array, "*batch expert"],
        mean: Float[Array, "*batch expert action"],
        scale: Float[Array, "*batch expert action"],
    ):
        super().__init__(distrax.Categorical(logits=logits), distrax.MultivariateNormalDiag(mean, scale))

    @property
    def weights(self) -> Float[Array, "*batch expert"]:
        """Routing probabilities w."""
        return self.mixture_distribution.probs

    @property
    def logits(self) -> Float[Array, "*batch expert"]:
        """Unnormalised log weights."""
        return self.mixture_distribution.logits

    @property
    def scales(self) -> Float[Array, "*batch expert action"]:
        """Expert standard deviations."""
        return self.components_distribution.scale_diag

    @property
    def means(self) -> Float[Array, "*batch expert action"]:
        """Expert means."""
        return self.components_distribution.loc

    def responsibilities(self, action: Float[Array, "*batch action"]) -> Float[Array, "*batch expert"]:
        """Posterior probability that each expert produced the action."""
        log_prob = self.components_distribution.log_prob(action[..., None, :])
        return jax.nn.softmax(jax.nn.log_softmax(self.logits) + log_prob)

    def sample_expert_mean(self, key: jax.Array) -> Float[Array, "*batch action"]:
        """The mean of an expert drawn from the weights."""
        return self._of_expert(self.means, self.mixture_distribution.sample(seed=key))

    def mode(self) -> Float[Array, "*batch action"]:
        """The mean of the expert with the largest weight (an approximation of the density's mode)."""
        return self._of_expert(self.means, jnp.argmax(self.logits, axis=-1))

    def entropy(self) -> Float[Array, "*batch"]:
        """An upper bound, sum_k w_k (H(N_k) - log w_k): a mixture's entropy has no closed form.

        Exact for one expert and for experts that do not overlap. Source: Huber et al. (2008), eq. 7.
        """
        of_experts = (self.weights * self.components_distribution.entropy()).sum(-1)
        return of_experts + self.mixture_distribution.entropy()

    def _sample_n(self, key: jax.Array, n: int) -> Array:
        mean, scale = self.means, self.scales
        index = self.mixture_distribution.sample(seed=jax.random.fold_in(key, _INDEX_STREAM), sample_shape=n)
        shape = (n, *mean.shape[:-2], mean.shape[-1])
        expand = lambda x: jnp.broadcast_to(x, (n, *x.shape))
        noise = jax.random.normal(key, shape)
        return self._of_expert(expand(mean), index) + self._of_expert(expand(scale), index) * noise

    @staticmethod
    def _of_expert(x: Float[Array, "*batch expert action"], index: Any) -> Float[Array, "*batch action"]:
        return jnp.take_along_axis(x, index[..., None, None], axis=-2)[..., 0, :]


class GaussianMixtureActor(nn.Module):
    """K Gaussian experts on one trunk, with state-independent log standard deviations, and linear routing logits.

    The routing head reads the observation itself, not the trunk.
    """

    num_experts: int
    action_size: int
    hidden_sizes: tuple[int, ...]
    activation: str = "tanh"

    @nn.compact
    def __call__(self, x: Float[Array, "*batch feature"]) -> GaussianMixture:
        shape = (self.num_experts, self.action_size)
        mean = MLP(self.hidden_sizes, self.num_experts * self.action_size, 0.01, self.activation)(x)
        mean = mean.reshape(*mean.shape[:-1], *shape)
        log_std = self.param("log_std", nn.initializers.zeros, shape)
        logits = nn.Dense(self.num_experts, name="routing")(x)
        return GaussianMixture(logits, mean, jnp.broadcast_to(jnp.exp(log_std), mean.shape))
