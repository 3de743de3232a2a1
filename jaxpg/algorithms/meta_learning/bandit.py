"""A bandit over the agents' own hyperparameters: each life has a step size and a weight alpha_y by which others did well.

Source: Oh et al. 2020 (arXiv 2007.08794), whose bandits, one for each kind of environment, choose with probabilities
proportional to exp((R + rho / sqrt(N)) / tau), R being a running mean of returns at the ends of lives and N their number; all
from memory, as are three values an octave apart of either hyperparameter.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, ScalarLike

OCTAVES = (0.5, 1.0, 2.0)
NUM_ARMS = 9
DECAY = 0.98  # of what is remembered, whenever lives end


class Bandit(NamedTuple):
    """Of each arm the sum of returns and their number, of which what is old counts less."""

    total: Float[Array, " arm"]
    count: Float[Array, " arm"]


def init_bandit() -> Bandit:
    """No arm has been tried."""
    return Bandit(jnp.zeros(NUM_ARMS), jnp.zeros(NUM_ARMS))


def factors(arms: Int[Array, "*n"]) -> tuple[Float[Array, "*n"], Float[Array, "*n"]]:
    """Of the step sizes, and of alpha_y."""
    octaves = jnp.array(OCTAVES)
    return octaves[arms // 3], octaves[arms % 3]


def choose_arms(
    key: jax.Array, bandit: Bandit, number: int, temperature: ScalarLike, bonus: ScalarLike
) -> Int[Array, " {number}"]:
    """Arms for new lives: any of those that were never tried, as long as there are such."""
    untried = bandit.count == 0
    count = jnp.where(untried, 1.0, bandit.count)
    logits = (bandit.total / count + bonus / jnp.sqrt(count)) / temperature
    logits = jnp.where(untried.any(), jnp.where(untried, 0.0, -jnp.inf), logits)
    return jax.random.categorical(key, logits, shape=(number,)).astype(jnp.int32)


def note_returns(bandit: Bandit, arms: Int[Array, " n"], returns: Float[Array, " n"], exists: Bool[Array, " n"]) -> Bandit:
    """The bandit once lives have ended, where there are such."""
    places = jnp.where(exists, arms, NUM_ARMS)
    return Bandit(
        (DECAY * bandit.total).at[places].add(returns, mode="drop"), (DECAY * bandit.count).at[places].add(1.0, mode="drop")
    )
