"""Fisher-vector products against dense Fisher matrices, conjugate gradients against solvers, steps against closed forms."""

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checks import quick_jit
from jax.flatten_util import ravel_pytree

from jaxpg.natural_gradient import conjugate_gradient, fisher_vector_product, natural_gradient_step
from jaxpg.networks import CategoricalActor, GaussianActor

FEATURES = jax.random.normal(jax.random.key(0), (12, 3))


@pytest.mark.parametrize("kind", ["categorical", "gaussian"])
def test_the_product_is_with_the_dense_fisher_matrix(kind):
    """The mean over states of E[score score'], the expectation by enumeration or, for the Gaussian, its closed form."""
    actor = CategoricalActor(4, (5,)) if kind == "categorical" else GaussianActor(2, (5,))
    params = actor.init(jax.random.key(1), FEATURES[0])
    params = jax.tree.map(lambda x: x + 0.3 * jax.random.normal(jax.random.key(x.size), x.shape), params)
    flat, unravel = ravel_pytree(params)
    old = actor.apply(params, FEATURES)
    divergence = lambda x: old.kl_divergence(actor.apply(unravel(x), FEATURES)).mean()

    def dense(flat):
        if kind == "categorical":
            scores = jax.jacobian(lambda x: actor.apply(unravel(x), FEATURES).logits)(flat)
            scores = scores - jnp.einsum("sa,sap->sp", old.probs, scores)[:, None]
            return jnp.einsum("sa,sap,saq->pq", old.probs, scores, scores) / len(FEATURES)
        of = lambda x: (lambda d: (d.loc, jnp.log(d.scale_diag)))(actor.apply(unravel(x), FEATURES))
        means, log_scales = jax.jacobian(of)(flat)
        precision = 1 / jnp.square(old.scale_diag)
        of_means = jnp.einsum("sa,sap,saq->pq", precision, means, means)
        return (of_means + 2 * jnp.einsum("sap,saq->pq", log_scales, log_scales)) / len(FEATURES)

    vectors = jax.random.normal(jax.random.key(2), (3, flat.size))
    products, fisher = quick_jit(
        lambda flat: (jax.vmap(lambda v: fisher_vector_product(divergence, flat, v))(vectors), dense(flat))
    )(flat)
    np.testing.assert_allclose(products, np.asarray(vectors) @ np.asarray(fisher), rtol=1e-3, atol=1e-5)
    assert np.linalg.eigvalsh(fisher).max() > 0.1


def test_conjugate_gradients_solve():
    rng = np.random.default_rng(0)
    factor = rng.normal(size=(8, 8))
    matrix, target = factor @ factor.T + np.eye(8), rng.normal(size=8)
    solve = quick_jit(lambda a, b, n: conjugate_gradient(lambda v: a @ v, b, n), static_argnums=2)
    exact = np.linalg.solve(matrix, target)
    a, b = jnp.asarray(matrix, jnp.float32), jnp.asarray(target, jnp.float32)
    np.testing.assert_allclose(solve(a, b, 16), exact, rtol=1e-3, atol=1e-4)
    # k products give the best point of a k-dimensional Krylov space: never further away, in the matrix's norm.
    distance = lambda x: (x - exact) @ matrix @ (x - exact)
    distances = [distance(np.asarray(solve(a, b, n), np.float64)) for n in (1, 2, 4, 8)]
    assert all(np.diff(distances) < 0)
    np.testing.assert_array_equal(solve(a, jnp.zeros(8), 4), 0)  # and not 0 / 0


HESSIAN = jnp.array([[2.0, 0.3], [0.3, 0.5]])
SLOPE = jnp.array([1.0, -2.0])


def step_on_quadratic(objective, max_divergence, **options):
    divergence = lambda p: 0.5 * (p["x"] @ HESSIAN @ p["x"])
    start = {"x": jnp.zeros(2)}
    return quick_jit(
        lambda delta: natural_gradient_step(objective, divergence, start, max_divergence=delta, damping=0.0, **options)
    )(max_divergence)


def test_a_linear_objective_under_a_quadratic_divergence():
    """The maximiser of c'x under x'Hx / 2 <= delta is sqrt(2 delta / c'H^-1 c) H^-1 c."""
    direction = np.linalg.solve(HESSIAN, SLOPE)
    for delta in (0.01, 0.5):
        # A hair under the bound, so that rounding does not decide whether the full step keeps it.
        step = step_on_quadratic(lambda p: SLOPE @ p["x"], delta, backtrack_ratio=0.999)
        expected = np.sqrt(2 * delta / (SLOPE @ direction)) * direction
        np.testing.assert_allclose(step.params["x"], expected, rtol=3e-3)
        assert step.accepted
        assert step.divergence <= delta
        np.testing.assert_allclose(step.divergence, delta, rtol=5e-3)
        np.testing.assert_allclose(step.improvement, SLOPE @ expected, rtol=5e-3)


def test_the_line_search_shortens_until_the_objective_rises():
    """c'x - 40 |x|^2 falls at the full step; the first of the fractions 0.5^k at which it rises is taken."""
    objective = lambda p: SLOPE @ p["x"] - 40 * jnp.sum(jnp.square(p["x"]))
    step = step_on_quadratic(objective, 0.5, backtrack_ratio=0.5)
    direction = np.linalg.solve(HESSIAN, SLOPE)
    full = np.sqrt(1 / (SLOPE @ direction)) * direction
    rises = [f for f in 0.5 ** np.arange(11) if SLOPE @ (f * full) - 40 * np.sum((f * full) ** 2) > 0]
    assert step.fraction == rises[0] < 1
    np.testing.assert_allclose(step.params["x"], rises[0] * full, rtol=1e-4)


def test_the_line_search_shortens_until_the_bound_is_kept():
    """x'Hx / 2 + 5 |x|^4 bends as x'Hx / 2 at the start: the full step, on the bound of the latter, is far beyond."""
    divergence = lambda x: 0.5 * x @ HESSIAN @ x + 5 * jnp.square(jnp.sum(jnp.square(x)))
    search = lambda x: natural_gradient_step(
        lambda x: SLOPE @ x, divergence, x, max_divergence=0.5, damping=0.0, backtrack_ratio=0.5
    )
    step = quick_jit(search)(jnp.zeros(2))
    direction = np.linalg.solve(HESSIAN, SLOPE)
    full = np.sqrt(1 / (SLOPE @ direction)) * direction
    kept = [f for f in 0.5 ** np.arange(11) if divergence(f * full) <= 0.5]
    assert step.fraction == kept[0] < 1
    np.testing.assert_allclose(step.params, kept[0] * full, rtol=1e-4)
    np.testing.assert_allclose(step.divergence, divergence(kept[0] * full), rtol=1e-4)


def test_parameters_stay_when_nothing_improves():
    spike = lambda p: SLOPE @ p["x"] - 1e9 * jnp.sum(jnp.square(p["x"]))  # rises only closer than the search looks
    for objective in (spike, lambda p: 0.0 * p["x"].sum()):  # and a stationary point
        step = step_on_quadratic(objective, 0.5)
        assert not step.accepted
        np.testing.assert_array_equal(step.params["x"], 0)
        assert (step.improvement, step.divergence, step.fraction) == (0, 0, 0)


def test_a_policy_keeps_the_bound_whatever_it_is():
    """A categorical policy with random advantages: every bound is kept, nearly used up, and a larger one earns more."""
    logits = jax.random.normal(jax.random.key(3), (20, 4))
    advantages = jax.random.normal(jax.random.key(4), (20, 4))
    old = distrax.Categorical(logits=logits)

    def run(delta):
        objective = lambda x: (distrax.Categorical(logits=x).probs * advantages).sum(-1).mean()
        divergence = lambda x: old.kl_divergence(distrax.Categorical(logits=x)).mean()
        return natural_gradient_step(objective, divergence, logits, max_divergence=delta, damping=1e-3, num_cg_iterations=20)

    deltas = jnp.array([1e-4, 1e-3, 1e-2, 1e-1])
    steps = quick_jit(jax.vmap(run))(deltas)
    assert steps.accepted.all()
    assert (steps.divergence <= deltas).all()
    assert (steps.divergence > 0.4 * deltas).all()
    assert (np.diff(steps.improvement) > 0).all()
