"""PMOE-PPO: what reduces to PPO, which loss trains which part, and what mixtures are for."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from checks import assert_close, assert_same, quick_jit
from environments import Peaks, Walk
from jax.flatten_util import ravel_pytree

import jaxpg
from jaxpg import losses
from jaxpg.experiment import pictures
from jaxpg.experiment.behaviour import record_episode
from jaxpg.networks import GaussianMixture

TINY = {"num_envs": 4, "num_steps": 8, "num_epochs": 2, "num_minibatches": 2, "hidden_sizes": (8,), "total_steps": 3 * 32}
KEY = jax.random.key(0)
WALK = Walk()


def make(env=WALK, params=None, **hyperparameters):
    return jaxpg.make("pmoe_ppo", env, WALK.params() if params is None else params, **hyperparameters)


# --- One expert is PPO -------------------------------------------------------------------------------------------------


def test_one_expert_without_q_is_ppo():
    """The same key gives the same actor and critic, the same actions, and the same parameters after three updates."""

    def run(algorithm, key):
        start = algorithm.init(key)
        state, metrics = jaxpg.train(algorithm, key, 3)
        return start, state, metrics

    sizes = {**TINY, "learning_rate": 1e-3, "entropy_coefficient": 0.01}
    ppo = jaxpg.make("ppo", WALK, WALK.params(), **sizes)
    pmoe = make(num_experts=1, q_coefficient=0.0, **sizes)
    one, other = (quick_jit(lambda key, a=a: run(a, key))(KEY) for a in (pmoe, ppo))
    for pmoe_state, ppo_state, same in ((one[0], other[0], assert_same), (one[1], other[1], assert_close)):
        actor, gaussian = (x.learner.params["actor"]["params"] for x in (pmoe_state, ppo_state))
        same(actor["MLP_0"], gaussian["MLP_0"])
        same(actor["log_std"][0], gaussian["log_std"])
        same(pmoe_state.learner.params["critic"], ppo_state.learner.params["critic"])
        same(pmoe_state.rollout, ppo_state.rollout)  # in which the last actions stand
    names = set(other[2]) - {"parameter_norm"}  # which counts Q and the routing
    assert_close({name: one[2][name] for name in names}, {name: other[2][name] for name in names}, rtol=1e-4, atol=1e-5)
    start, end = (state.learner.params["actor"]["params"]["log_std"] for state in other[:2])
    assert np.abs(end - start).max() > 1e-3
    assert_same(one[1].learner.params["q"], one[0].learner.params["q"])


# --- Which loss trains which part --------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=[True, False], ids=["routed by PPO", "routed by frequencies only"])
def gradient_of(request):
    """(gradient of an update's only step with these coefficients, route_ppo_gradient), read from Adam's first moment."""
    sizes = TINY | {"num_epochs": 1, "num_minibatches": 1, "num_experts": 3, "max_gradient_norm": 1e9}

    def update(coefficients, key):
        algorithm = make(route_ppo_gradient=request.param, **coefficients, **sizes)
        state = algorithm.update(algorithm.init(key))[0]
        _, as_params = ravel_pytree(state.learner.params)
        return as_params(10 * optax.tree_utils.tree_get(state.learner.optimizer_state, "mu"))

    compiled = quick_jit(update)

    def gradient(routing, q, value=0.5):
        coefficients = {"routing_coefficient": routing, "q_coefficient": q, "value_coefficient": value}
        return compiled({name: jnp.float32(number) for name, number in coefficients.items()}, KEY)

    return gradient, request.param


def largest(tree):
    return max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(tree))


def test_the_surrogate_trains_the_routing_only_if_asked_to(gradient_of):
    gradient, route_ppo_gradient = gradient_of
    actor = gradient(0.0, 0.0)["actor"]["params"]
    assert largest(actor["MLP_0"]) > 1e-3
    assert largest(actor["log_std"]) > 1e-3
    assert (largest(actor["routing"]) > 1e-5) == route_ppo_gradient
    assert largest(actor["routing"]) == 0 or route_ppo_gradient


def test_the_routing_loss_trains_the_routing_only(gradient_of):
    """Not the trunk, not the experts, not the critics: their gradients keep every bit."""
    gradient, _ = gradient_of
    without, with_routing = gradient(0.0, 1.0), gradient(1.0, 1.0)
    routing = [tree["actor"]["params"].pop("routing") for tree in (without, with_routing)]
    assert_same(with_routing, without)
    assert largest(jax.tree.map(jnp.subtract, *routing)) > 1e-3


def test_the_q_loss_trains_q_only(gradient_of):
    gradient, _ = gradient_of
    without, with_q = gradient(1.0, 0.0), gradient(1.0, 1.0)
    assert largest(without.pop("q")) == 0
    assert largest(with_q.pop("q")) > 1e-3
    assert_same(with_q, without)


# --- Routing -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("means", "scales"), [((-1.0, -0.3, 0.4, 1.0), (0.3,) * 4), ((0.0,) * 4, (0.05, 0.3, 0.6, 1.0))], ids=["apart", "nested"]
)
def test_weights_become_frequencies_of_having_the_best_action(means, scales):
    """Q(a) = -(a - 0.5)^2, 64 fresh draws per step. Nested experts: a frequency, not the best mean, which is expert 0's."""
    experts = lambda logits, rows: GaussianMixture(
        jnp.broadcast_to(logits, (rows, 4)),
        jnp.broadcast_to(jnp.array(means)[:, None], (rows, 4, 1)),
        jnp.broadcast_to(jnp.array(scales)[:, None], (rows, 4, 1)),
    )
    q = lambda action: -jnp.square(action[..., 0] - 0.5)
    optimizer = optax.adam(1e-2)

    def step(carry, key):
        logits, optimizer_state = carry

        def loss(logits):
            policy = experts(logits, 64)
            candidates = policy.components_distribution.sample(seed=key)
            return losses.frequency_routing_loss(policy.weights, q(candidates))

        changes, optimizer_state = optimizer.update(jax.grad(loss)(logits), optimizer_state)
        return (optax.apply_updates(logits, changes), optimizer_state), None

    def train(key):
        start = (jnp.zeros(4), optimizer.init(jnp.zeros(4)))
        (logits, _), _ = jax.lax.scan(step, start, jax.random.split(key, 2000))
        draws = experts(logits, 100_000).components_distribution.sample(seed=jax.random.key(1))
        return jax.nn.softmax(logits), jnp.bincount(jnp.argmax(q(draws), 1), length=4) / 100_000

    weights, frequencies = quick_jit(train)(KEY)
    assert np.abs(weights - frequencies).max() < 0.03
    np.testing.assert_allclose(weights.sum(), 1.0, rtol=1e-6)
    assert frequencies.argmax() == (2 if means[0] else 1 if frequencies[1] > frequencies[2] else 2)


@pytest.fixture(scope="module")
def routed():
    """An actor whose three experts sit at -0.4, 0.1 and 0.3 and are drawn at 0.2, 0.5 and 0.3, wherever it is.

    In the environment that is -0.2, 0.05 and 0.15: its bounds are ±0.5.
    """
    algorithm = make(num_experts=3, **TINY)
    state = quick_jit(algorithm.init)(KEY)
    actor = jax.tree.map(jnp.zeros_like, state.learner.params["actor"])["params"]
    actor["MLP_0"]["Dense_1"]["bias"] = jnp.array([-0.4, -0.4, 0.1, 0.1, 0.3, 0.3])
    actor["routing"]["bias"] = jnp.log(jnp.array([0.2, 0.5, 0.3]))
    params = state.learner.params | {"actor": {"params": actor}}
    return state._replace(learner=state.learner._replace(params=params))


def actions(policy, number):
    return np.asarray(
        quick_jit(jax.vmap(lambda key: policy.act(policy.params, key, jnp.ones(4), ())[0]))(jax.random.split(KEY, number))
    )


def test_evaluation_by_the_mean_of_a_drawn_expert(routed):
    drawn = actions(make(num_experts=3, **TINY).policy(routed), 3000)
    np.testing.assert_array_equal(drawn[:, 0], drawn[:, 1])
    index = np.abs(drawn[:, :1] - [-0.2, 0.05, 0.15]).argmin(1)
    np.testing.assert_allclose(drawn[:, 0], np.array([-0.2, 0.05, 0.15])[index], rtol=1e-6)
    np.testing.assert_allclose(np.bincount(index) / 3000, [0.2, 0.5, 0.3], atol=0.04)


def test_evaluation_by_the_likeliest_expert(routed):
    best = actions(make(num_experts=3, evaluation="argmax_expert_mean", **TINY).policy(routed), 5)
    np.testing.assert_allclose(best, np.full((5, 2), 0.05), rtol=1e-6)


def test_acting_samples_the_mixture_within_bounds(routed):
    policy = make(num_experts=3, **TINY).policy(routed, deterministic=False)
    drawn = actions(policy, 2000)
    assert np.abs(drawn).max() == 0.5
    assert len(np.unique(drawn)) > 500
    distribution = policy.distribution(policy.params, jnp.ones((7, 4)))
    np.testing.assert_allclose(distribution.weights, np.broadcast_to([0.2, 0.5, 0.3], (7, 3)), rtol=1e-5)
    np.testing.assert_allclose(distribution.weights.sum(-1), 1.0, rtol=1e-6)


def test_the_picture_names_the_expert_that_acted(routed, monkeypatch):
    """Means are compared with the action in the environment's units."""
    policy = make(num_experts=3, **TINY).policy(routed)
    episode = record_episode(policy, WALK, WALK.params(limit=9.0, time_limit=30), KEY)
    drawn, plot = [], pictures.plot_experts
    watch = lambda observations, weights, experts, *rest: drawn.append(experts) or plot(observations, weights, experts, *rest)
    monkeypatch.setattr(pictures, "plot_experts", watch)
    pictures.draw_experts(policy, episode)
    assert set(np.unique(drawn)) == {0, 1, 2}
    np.testing.assert_array_equal(drawn[0], np.abs(episode.actions[:, :1] - [-0.2, 0.05, 0.15]).argmin(1))


def test_one_environment_one_action():
    """Axes of length 1 survive: one environment, an action of one number, one expert."""
    env = Walk(1)
    sizes = {"num_envs": 1, "num_steps": 4, "num_minibatches": 2, "hidden_sizes": (4,), "num_epochs": 1}
    for num_experts in (1, 3):
        algorithm = make(env, env.params(), num_experts=num_experts, **sizes)

        def run(key, algorithm=algorithm):
            state, metrics = algorithm.update(algorithm.init(key))
            return metrics, jaxpg.evaluate(algorithm.policy(state), env, env.params(), key, 1, 9)

        metrics, returns = jax.eval_shape(run, KEY)
        assert {x.shape for x in metrics.values()} == {()}
        assert returns.shape == (1,)


# --- Does it learn? ----------------------------------------------------------------------------------------------------


def test_a_mixture_learns_two_best_actions_and_neither_with_the_wrong_sign(monkeypatch):
    """Reward peaks of 1 at -0.6 and 0.6; two experts that start at -0.3 and 0.3. Routed by frequencies, both are kept.

    A Gaussian would have to give up one of the peaks, or be paid for less than half of its actions.
    """
    env = Peaks()
    estimate = losses.generalized_advantage_estimation
    sizes = {"num_envs": 32, "num_steps": 8, "num_epochs": 4, "num_minibatches": 4, "hidden_sizes": (8,)}
    numbers = {"learning_rate": 1e-2, "total_steps": 40 * 256, "num_experts": 2, "route_ppo_gradient": False}

    def run(sign, key):
        signed = lambda *arguments: (lambda advantages, targets: (sign * advantages, targets))(*estimate(*arguments))
        monkeypatch.setattr("jaxpg.losses.generalized_advantage_estimation", signed)
        algorithm = make(env, env.params(), **sizes, **numbers)
        state = algorithm.init(key)
        actor = state.learner.params["actor"]["params"]
        actor["MLP_0"]["Dense_1"]["bias"], actor["log_std"] = jnp.array([-0.3, 0.3]), jnp.full((2, 1), jnp.log(0.3))
        state, _ = jax.lax.scan(lambda state, _: algorithm.update(state), state, None, 40)
        policy = algorithm.policy(state, deterministic=False)
        experts = policy.distribution(policy.params, jnp.zeros(1))
        returns = jaxpg.evaluate(policy, env, env.params(), key, 500, 2)
        return returns.mean(), experts.means[:, 0], experts.weights

    runs = quick_jit(jax.vmap(jax.vmap(run, (None, 0)), (0, None)))
    returns, means, weights = runs(jnp.array([1.0, -1.0]), jax.random.split(KEY, 3))
    assert returns[0].min() > 0.9
    np.testing.assert_allclose(means[0], [[-0.6, 0.6]] * 3, atol=0.05)
    np.testing.assert_allclose(weights[0], 0.5, atol=0.15)
    assert returns[1].max() < 0.1
