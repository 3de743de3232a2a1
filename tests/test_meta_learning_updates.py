"""Training is differentiated by the hyperparameters of on-policy algorithms, through several updates."""

import doctest

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from checks import assert_close, quick_jit
from environments import Box, Cycle, Walk

import jaxpg
import jaxpg.training
from jaxpg.algorithm import lookup
from jaxpg.algorithms.online import a2c, ppo, trpo
from jaxpg.gradient_descent import clip_by_global_norm, global_norm
from jaxpg.on_policy import make_network
from jaxpg.training import advance

KEY = jax.random.key(0)
SIZES = {"num_envs": 2, "num_steps": 4, "hidden_sizes": (4,), "total_steps": 64}
EPOCHS = {"num_epochs": 2, "num_minibatches": 2}
POINT = {"learning_rate": 0.01, "entropy_coefficient": 0.02, "discount": 0.9}


class Slope(Walk):
    """A walk whose rewards and positions change with the actions, by a loop that cannot be differentiated backwards."""

    def start(self, key, params):
        return {"position": 0.3 * jax.random.normal(key, (2,), jnp.float32)}

    def move(self, key, state, action, params):
        position = state["position"] + action.astype(jnp.float32)
        position = jax.lax.while_loop(lambda x: jnp.abs(x).max() > 2, lambda x: 0.9 * x, position)
        return {"position": position}, 10 * action.sum() - position.sum(), jnp.array(False)

    def observe(self, state):
        return state["position"]

    def observation_space(self, params):
        return Box(-2.0, 2.0, (2,))


class Nothing(Cycle):
    """Nothing is seen and nothing is paid: of what begins at zero, nothing is learned."""

    def observe(self, state):
        return jnp.zeros(2)

    def observation_space(self, params):
        return Box(-1.0, 1.0, (2,))


def measure(learner):
    """A smooth function of the parameters."""
    return sum(jnp.cos(3 * x).sum() for x in jax.tree.leaves(learner.params))


def wide(tree):
    return jax.tree.map(lambda x: x.astype(jnp.float64) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree)


CYCLE, SLOPE = Cycle(), Slope()
TRPO = {"num_minibatches": 2, "num_value_epochs": 2, "num_cg_iterations": 3, "num_backtracks": 3}


@pytest.mark.parametrize(
    ("name", "module", "env", "params", "more", "differentiate"),
    [
        ("a2c", a2c, CYCLE, CYCLE.params([1.0, 3.0], 3), {}, jax.grad),
        ("ppo", ppo, SLOPE, SLOPE.params(), EPOCHS, jax.grad),
        ("trpo", trpo, SLOPE, SLOPE.params(), TRPO, jax.jacfwd),
    ],
)
def test_the_derivative_of_training_is_that_of_finite_differences(name, module, env, params, more, differentiate):
    """In 64 bits, while the differences meet what happened in the first place: it is data, not a function of the policy."""

    def parts_of(point):
        config = lookup(name).config_class(**SIZES, **more, **point)
        network = make_network(name, config, env, params)
        return network, module.make_parts(config, env, params, network)

    def train(point, happened=(None, None)):
        network, parts = parts_of(point)
        learner, rollout, rollouts = start.learner, start.rollout, []
        for key, t in zip(jax.random.split(KEY), happened, strict=True):
            if t is None:
                rollout, t = parts.collect(key, learner, rollout, params)
            else:
                distribution = network.distribution(learner.params, parts.appraise(learner, t)[1].features)
                t = t._replace(extras=t.extras._replace(log_prob=distribution.log_prob(t.extras.action)))
            learner, _ = parts.learn(key, learner, t)
            rollouts.append(t)
        return measure(learner), rollouts

    start = jaxpg.make(name, env, params, **SIZES, **more).init(KEY)
    with jax.enable_x64(True):
        start = start._replace(learner=wide(start.learner))
        point = {name: jnp.float64(value) for name, value in POINT.items()}
        exact, happened = quick_jit(differentiate(train, has_aux=True))(point)
        again = quick_jit(lambda point: train(point, happened)[0])
        for field, value in point.items():
            above, below = (again(point | {field: value + step}) for step in (1e-6, -1e-6))
            assert abs(exact[field]) > 1e-4
            np.testing.assert_allclose(exact[field], (above - below) / 2e-6, rtol=1e-5)


def test_updates_computed_anew_give_the_same_derivative_in_less_memory():
    """Through the updates that `make` gives, of two seeds; and forwards the derivative is the same as backwards."""
    params = SLOPE.params()
    states = jax.vmap(jaxpg.make("a2c", SLOPE, params, **SIZES).init)(jax.random.split(KEY))

    def through(wrap):
        def loss(point, state):
            update = wrap(jaxpg.make("a2c", SLOPE, params, **SIZES, **point).update)
            return measure(advance(update, state, 6)[0].learner)

        return loss

    forwards = quick_jit(jax.vmap(jax.jacfwd(through(lambda update: update)), (None, 0)))(POINT, states)
    found, memory = [], []
    for wrap in (lambda update: update, jax.checkpoint):
        gradient = quick_jit(jax.vmap(jax.grad(through(wrap)), (None, 0))).lower(POINT, states).compile()
        found.append(gradient(POINT, states))
        memory.append(gradient.memory_analysis().temp_size_in_bytes)
        assert_close(found[-1], forwards, rtol=1e-3, atol=1e-4)
        assert jax.tree.all(jax.tree.map(lambda x: (x != 0).all(), found[-1]))
    assert_close(*found, rtol=1e-5)
    assert memory[1] < memory[0] / 2


@pytest.mark.parametrize(("name", "more"), [("a2c", {}), ("ppo", EPOCHS)])
def test_where_nothing_is_learned_the_derivative_is_zero(name, more):
    env = Nothing()
    params = env.params([0.0, 0.0], 3)
    start = jaxpg.make(name, env, params, **SIZES, **more).init(KEY)

    def loss(point):
        return measure(advance(jaxpg.make(name, env, params, **SIZES, **more, **point).update, start, 2)[0].learner)

    point = {"discount": 0.9, "entropy_coefficient": 0.0}
    assert quick_jit(jax.grad(loss))(point) == {"discount": 0.0, "entropy_coefficient": 0.0}


@pytest.mark.parametrize("size", [0.0, 0.5, 3.0])
def test_the_bound_on_gradients_is_optaxs_and_has_a_derivative_everywhere(size):
    gradient = {"a": size * jnp.array([0.6, 0.0]), "b": size * jnp.array(0.8)}  # of norm `size`
    clip = lambda clipping, gradient, bound: clipping(bound).update(gradient, optax.EmptyState())[0]
    assert_close(clip(clip_by_global_norm, gradient, 1.0), clip(optax.clip_by_global_norm, gradient, 1.0), rtol=0, atol=0)
    weighted = lambda gradient, bound: sum(
        (x * w).sum() for x, w in zip(jax.tree.leaves(clip(clip_by_global_norm, gradient, bound)), (1.0, 2.0), strict=True)
    )
    by_gradient, by_bound = jax.grad(weighted, (0, 1))(gradient, 1.0)
    unit, weights = np.array([0.6, 0.0, 0.8]), np.array([1.0, 1.0, 2.0])
    expected = (weights - (weights @ unit) * unit) / size if size > 1 else weights
    np.testing.assert_allclose(np.append(by_gradient["a"], by_gradient["b"]), expected, rtol=1e-5)
    np.testing.assert_allclose(by_bound, weights @ unit if size > 1 else 0.0, rtol=1e-5)
    norm_slope = jax.grad(global_norm)(gradient)
    np.testing.assert_allclose(np.append(norm_slope["a"], norm_slope["b"]), unit if size else 0 * unit, rtol=1e-5)


def test_the_example_runs():
    assert doctest.testmod(jaxpg.training).failed == 0
    assert doctest.testmod(jaxpg.training).attempted > 0
