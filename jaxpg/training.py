"""A run is a scan of `update`.

Meta-gradients: JAX differentiates through `update`, also that of a scan or of `advance`, by the hyperparameters that the
algorithm is made of, since those may be traced. Here A2C's, by what its policy earns after three updates:

    >>> import jax, jax.numpy as jnp
    >>> import jaxpg, jaxpg_envs
    >>> from jaxpg.rollout import rollout
    >>> from jaxpg.training import advance
    >>> env, params = jaxpg_envs.make("CartPole-v1")
    >>> sizes = {"num_steps": 32, "hidden_sizes": (16,)}
    >>> def loss(hyperparameters, state, key):
    ...     algorithm = jaxpg.make("a2c", env, params, **hyperparameters, **sizes)
    ...     state, _ = advance(jax.checkpoint(algorithm.update), state, 3)
    ...     policy = algorithm.policy(state)
    ...     def act(key, observation, carry):
    ...         distribution = policy.distribution(policy.params, observation)
    ...         action = jax.lax.stop_gradient(distribution.sample(seed=key))
    ...         return policy.to_env(action), distribution.log_prob(action), carry
    ...     _, t = rollout(key, act, env, params, state.rollout, 64)
    ...     returns = jaxpg.losses.monte_carlo_returns(t.reward, 0 * t.reward, t.terminated, t.truncated, 0.99)
    ...     return jaxpg.losses.policy_gradient_loss(t.extras, returns - returns.mean())
    >>> state = jaxpg.make("a2c", env, params, **sizes).init(jax.random.key(0))
    >>> point = {"learning_rate": 1e-5, "discount": 0.99}
    >>> slope = jax.jit(jax.grad(loss))(point, state, jax.random.key(1))
    >>> bool(slope["learning_rate"] < 0)  # faster would be better
    True

What is collected is data: neither actions nor simulators are differentiated, however smooth they are, but values and
log-probabilities of the policy that acted are. `jax.checkpoint` computes each update anew on the way back, so that memory holds
one update and a state for each. Few hyperparameters through many updates are a case for `jax.jacfwd`, which goes forwards and
stores nothing, and the only one for TRPO, whose line search takes as many steps as it needs. `vmap` averages over seeds. Nobody
checks the bounds of a traced hyperparameter: let an exponential or a sigmoid keep them.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PyTree

from jaxpg.algorithm import LARGEST, Algorithm, InputError, Metrics, State, require_enough_updates, whole_number
from jaxpg.transforms import mean_of


def train(algorithm: Algorithm, key: jax.Array, num_updates: int | None = None, data: PyTree = None) -> tuple[State, Metrics]:
    """Initialises an algorithm and updates it `num_updates` times (default: its whole run) in one compiled scan.

    Pure: `vmap` over keys trains a population, `vmap` over hyperparameters given to `jaxpg.make` sweeps them, and both
    compile once.

    Args:
      data: second argument of `update`, for algorithms that learn from data.

    Returns:
      The final state, and the metrics of every update stacked along a leading axis (num_updates,).

    Raises:
      InputError: `num_updates` is no positive whole number that 32 bits hold, is too small to learn anything, or goes beyond
        the run's end although the learning rate has fallen to its end there.
    """
    num_updates = algorithm.num_updates if num_updates is None else num_updates
    num_updates = whole_number("num_updates", num_updates, 1, LARGEST)
    require_enough_updates(algorithm, num_updates)
    if num_updates > algorithm.num_updates and getattr(algorithm.config, "anneal_learning_rate", False):
        raise InputError(
            f"num_updates = {num_updates}, but after {algorithm.num_updates}, the end of the run of total_steps = "
            f"{algorithm.config.total_steps}, the learning rate has fallen to its end: make the algorithm with total_steps = "
            f"{num_updates * algorithm.env_steps_per_update}, or with anneal_learning_rate = False"
        )
    return _train(algorithm.init, algorithm.update, num_updates, key, data)


@partial(jax.jit, static_argnums=(0, 1, 2))
def _train(
    init: Callable[..., State], update: Callable[..., tuple[State, Metrics]], num_updates: int, key: jax.Array, data: PyTree
) -> tuple[State, Metrics]:
    arguments = () if data is None else (data,)
    return jax.lax.scan(lambda state, _: update(state, *arguments), init(key), None, num_updates)


def advance(
    update: Callable[[State], tuple[State, Metrics]], state: State, num_updates: Int[Array, ""] | int
) -> tuple[State, Metrics]:
    """Updates a state `num_updates` times and averages the metrics in the loop.

    The number may be traced, so that one program serves pieces of any length and a run cut into pieces is, bit for bit,
    the run in one piece. Means over episodes (`episode_...`) are weighted by the number of `episodes`, which is summed;
    if none was completed, they are NaN (-inf with `jax_debug_nans`). Sums carry along what float32 rounds away, or they would
    stand still at 2^24.
    """
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(update, state)[1])

    def body(_: Array, carry: tuple[State, Metrics, Metrics]) -> tuple[State, Metrics, Metrics]:
        state, sums, lost = carry
        state, metrics = update(state)
        terms = {name: lost[name] + _weighted(name, metrics) for name in metrics}
        new = {name: sums[name] + terms[name] for name in sums}
        return state, new, {name: _rounded_away(sums[name], terms[name], new[name]) for name in sums}

    state, sums, _ = jax.lax.fori_loop(0, num_updates, body, (state, zeros, zeros))
    return state, {name: _mean(name, sums, num_updates) for name in sums}


def _rounded_away(total: Array, term: Array, new: Array) -> Array:
    """What `new` = total + term lacks (Kahan 1965), 0 where it is not finite."""
    return jnp.where(jnp.isfinite(new), term - (new - total), jnp.zeros_like(new))


def _weighted(name: str, metrics: Metrics) -> Array:
    if _is_of_episodes(name, metrics):
        return jnp.where(metrics["episodes"] > 0, metrics[name] * metrics["episodes"], 0.0)
    return metrics[name]


def _mean(name: str, sums: Metrics, num_updates: Int[Array, ""] | int) -> Array:
    if name == "episodes":
        return sums[name]
    return mean_of(sums[name], sums["episodes"]) if _is_of_episodes(name, sums) else sums[name] / num_updates


def _is_of_episodes(name: str, metrics: Metrics) -> bool:
    return name.startswith("episode_") and "episodes" in metrics
