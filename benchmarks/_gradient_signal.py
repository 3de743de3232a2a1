"""The routing gradient of a mixture in one state, exactly known: how well each estimator points at it.

K experts N(m_k, s_k) draw one action each, Q(a) = -(a - 0.5)^2, and routing weights are uniform.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from jaxpg import losses

SAMPLES = 200_000


class Case(NamedTuple):
    """Means, standard deviations and what is added to Q, and signal-to-noise as the specification of the system gives it."""

    mean: tuple[float, ...]
    scale: tuple[float, ...]
    offset: float
    expected: dict[str, float]


CASES = {
    "apart": Case(
        (-1.0, -0.3, 0.4, 1.0),
        (0.3,) * 4,
        0.0,
        {"frequency": 0.88, "score ratio": 0.16, "score ratio with baseline": 0.35, "expectation": 3.4},
    ),
    "apart, Q + 10": Case(
        (-1.0, -0.3, 0.4, 1.0),
        (0.3,) * 4,
        10.0,
        {"frequency": 0.88, "score ratio": 0.003, "score ratio with baseline": 0.35, "expectation": 3.4},
    ),
    "close": Case(
        (-0.3, -0.1, 0.1, 0.3),
        (0.5,) * 4,
        0.0,
        {"frequency": 0.060, "score ratio": 0.023, "score ratio with baseline": 0.049, "expectation": 0.16},
    ),
    "by spread": Case(
        (0.0,) * 4,
        (0.05, 0.3, 0.6, 1.0),
        0.0,
        {"frequency": 0.015, "score ratio": 0.036, "score ratio with baseline": 0.063, "expectation": 0.22},
    ),
}


def action_value(action: Float[Array, "*batch"], offset: float = 0.0) -> Float[Array, "*batch"]:
    """Q(a)."""
    return offset - jnp.square(action - 0.5)


def loss_of(name: str) -> Callable[[Array, Array, Array], Float[Array, ""]]:
    """`(logits (expert,), action values (expert,), drawn expert) -> loss` of one sample, as PMOE-SAC has it without entropy."""

    def loss(logits: Float[Array, " expert"], values: Float[Array, " expert"], drawn: Array) -> Float[Array, ""]:
        log_weights = jax.nn.log_softmax(logits)
        weights = jnp.exp(log_weights)
        if name == "frequency":
            return losses.frequency_routing_loss(weights, values)
        if name == "expectation":
            return -(weights * values).sum()
        baseline = (weights * values).sum() if name == "score ratio with baseline" else 0.0
        advantage = jax.lax.stop_gradient(values[drawn] - baseline)
        return losses.policy_gradient_loss(log_weights[drawn], advantage)

    return loss


def signal_to_noise(case: Case, name: str, key: jax.Array) -> Float[Array, ""]:
    """Squared length of the mean gradient with respect to the logits, over its total variance, of single samples."""
    logits = jnp.zeros(len(case.mean))

    def gradient(key: jax.Array) -> Float[Array, " expert"]:
        noise_key, index_key = jax.random.split(key)
        actions = jnp.array(case.mean) + jnp.array(case.scale) * jax.random.normal(noise_key, logits.shape)
        drawn = jax.random.categorical(index_key, logits)
        return jax.grad(loss_of(name))(logits, action_value(actions, case.offset), drawn)

    gradients = jax.vmap(gradient)(jax.random.split(key, SAMPLES))
    return jnp.square(gradients.mean(0)).sum() / gradients.var(0).sum()


def routing_weights(case: Case, key: jax.Array) -> tuple[Float[Array, " expert"], Float[Array, " expert"]]:
    """Weights that 2,000 Adam steps on the routing loss reach, 64 draws of every expert per step, and each expert's frequency
    of being best."""
    mean, scale = jnp.array(case.mean), jnp.array(case.scale)
    optimizer = optax.adam(1e-2)
    draw = lambda key, count: mean + scale * jax.random.normal(key, (count, mean.size))

    def step(carry: tuple, key: jax.Array) -> tuple[tuple, None]:
        logits, optimizer_state = carry
        values = action_value(draw(key, 64), case.offset)
        loss = lambda logits: losses.frequency_routing_loss(jnp.broadcast_to(jax.nn.softmax(logits), values.shape), values)
        changes, optimizer_state = optimizer.update(jax.grad(loss)(logits), optimizer_state)
        return (optax.apply_updates(logits, changes), optimizer_state), None

    start = jnp.zeros(mean.size)
    (logits, _), _ = jax.lax.scan(step, (start, optimizer.init(start)), jax.random.split(key, 2000))
    winners = jnp.argmax(action_value(draw(jax.random.fold_in(key, 1), SAMPLES)), axis=-1)
    return jax.nn.softmax(logits), jnp.bincount(winners, length=mean.size) / winners.size


def examine() -> dict[str, Any]:
    """All cases by all estimators: `routing` (weights, frequencies) and `signal to noise` (measured, expected)."""
    key = jax.random.key(0)
    results: dict[str, Any] = {"routing": {}, "signal to noise": {}}
    for label, case in CASES.items():
        weights, frequencies = jax.jit(lambda key, case=case: routing_weights(case, key))(key)
        results["routing"][label] = {"weights": weights.tolist(), "frequencies": frequencies.tolist()}
        results["signal to noise"][label] = {
            name: {"measured": float(jax.jit(lambda key, case=case, name=name: signal_to_noise(case, name, key))(key)),
                   "expected": expected}
            for name, expected in case.expected.items()
        }  # fmt: skip
    return results
