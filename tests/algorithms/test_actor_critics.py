"""A2C, REINFORCE, IMPALA and TRPO: the gradient each takes, the lag, the trust region, and that they learn."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from checks import assert_close, assert_same, quick_jit
from environments import Walk

import jaxpg
import jaxpg_envs
from jaxpg import losses
from jaxpg.algorithm import configure
from jaxpg.algorithms.online import a2c, impala, reinforce, trpo
from jaxpg.normalization import normalize
from jaxpg.on_policy import make_network

WALK, KEY = Walk(), jax.random.key(0)
SIZES = {"num_envs": 3, "num_steps": 7, "hidden_sizes": (4,), "total_steps": 210, "normalize_rewards": False}
MODULES = {
    "a2c": (a2c, a2c.A2CConfig),
    "impala": (impala, impala.IMPALAConfig),
    "reinforce": (reinforce, reinforce.REINFORCEConfig),
    "trpo": (trpo, trpo.TRPOConfig),
}


class FirstUpdate:
    """The parts of an algorithm, and what it collects and learns first."""

    def __init__(self, name, params=None, **fields):
        params = WALK.params() if params is None else params
        module, config_class = MODULES[name]
        self.config = configure(name, config_class, SIZES | fields)
        self.network = make_network(name, self.config, WALK, params)
        self.parts = module.make_parts(self.config, WALK, params, self.network)
        algorithm = jaxpg.make(name, WALK, params, **SIZES | fields)

        def run(key):
            state = algorithm.init(key)
            _, collect_key, learn_key = jax.random.split(state.key, 3)
            _, transitions = self.parts.collect(collect_key, state.learner, state.rollout, params)
            learner, metrics = self.parts.learn(learn_key, state.learner, transitions)
            return state.learner, transitions, learner, metrics

        self.before, self.transitions, self.after, self.metrics = quick_jit(run)(KEY)

    def reference_gradient(self, weights, targets):
        """Of -mean(w log pi) - entropy bonus + value loss, written out; the statistics of the start are mean 0, variance 1."""
        c = self.config
        return self.gradient(weights, targets, 0.5 * c.value_coefficient, c.entropy_coefficient)

    def gradient(self, weights, targets, value_weight, entropy_weight):
        """The same with the weights of the mean square and of the entropy."""
        t = self.transitions

        def loss(params):
            features = normalize(self.before.observation_statistics, t.observation)
            distribution = self.network.distribution(params, features)
            values = self.network.value(params, features)
            policy_loss = -(distribution.log_prob(t.extras.action) * weights).mean()
            value_loss = jnp.square(values - targets).mean()
            return policy_loss + value_weight * value_loss - entropy_weight * distribution.entropy().mean()

        return quick_jit(jax.grad(loss))(self.before.params)

    def values(self):
        normalized = lambda x: normalize(self.before.observation_statistics, x)
        value = quick_jit(lambda x: self.network.value(self.before.params, normalized(x)))
        return value(self.transitions.observation), value(self.transitions.next_observation)


@pytest.fixture(scope="module")
def a2c_update():
    return FirstUpdate("a2c")


def test_a2c_takes_the_gradient_of_n_step_advantages(a2c_update):
    """Of the loss of Stable-Baselines3 with its defaults: 0.5 times a mean square, no entropy bonus."""
    t, c = a2c_update.transitions, a2c_update.config
    values, next_values = a2c_update.values()
    returns = losses.n_step_returns(t.reward, next_values, t.terminated, t.truncated, c.discount, c.num_steps)
    gradient = a2c_update.gradient(returns - values, returns, 0.5, 0.0)
    norm = optax.global_norm(gradient)
    np.testing.assert_allclose(a2c_update.metrics["gradient_norm"], norm, rtol=1e-3)
    # RMSProp's first step: -rate * g / sqrt(0.01 g^2 + eps), so 10 times the rate against the sign, with g clipped.
    clipped = jax.tree.map(lambda g: g * jnp.minimum(1.0, c.max_gradient_norm / norm), gradient)
    expected = jax.tree.map(
        lambda p, g: p - c.learning_rate * g / jnp.sqrt(0.01 * jnp.square(g) + 1e-5), a2c_update.before.params, clipped
    )
    assert_close(a2c_update.after.params, expected, rtol=1e-3, atol=2e-5)


def test_reinforce_weighs_by_returns_over_a_learned_value():
    update = FirstUpdate("reinforce")
    t, c = update.transitions, update.config
    values, next_values = update.values()
    returns = losses.monte_carlo_returns(t.reward, next_values, t.terminated, t.truncated, c.discount)
    norm = optax.global_norm(update.reference_gradient(returns - values, returns))
    np.testing.assert_allclose(update.metrics["gradient_norm"], norm, rtol=1e-3)


def test_reinforce_with_the_mean_counts_completed_episodes_only():
    update = FirstUpdate("reinforce", baseline="mean", discount=0.9)
    t = update.transitions
    done, reward = np.asarray(t.done), np.asarray(t.reward)
    returns, complete = np.zeros_like(reward), np.zeros_like(done)
    for env in range(done.shape[1]):
        for time in range(len(done)):
            ends = np.flatnonzero(done[time:, env])
            if len(ends):
                complete[time, env] = True
                returns[time, env] = sum(0.9**k * reward[time + k, env] for k in range(ends[0] + 1))
    assert 0 < complete.sum() < complete.size
    np.testing.assert_array_equal(reinforce.has_ended(t.done), complete)
    weights = np.where(complete, returns - returns[complete].mean(), 0.0) / complete.mean()
    no_value = jnp.asarray(update.values()[0])  # targets equal to the values: no value loss
    gradient = update.reference_gradient(jnp.asarray(weights, jnp.float32), no_value)
    np.testing.assert_allclose(update.metrics["gradient_norm"], optax.global_norm(gradient), rtol=1e-3)
    assert_same(update.after.params["critic"], update.before.params["critic"])


def test_reinforce_without_a_completed_episode_learns_nothing():
    update = FirstUpdate("reinforce", WALK.params(1e9), baseline="mean", num_steps=2, entropy_coefficient=0.0)
    assert not update.transitions.done.any()
    assert_same(update.after.params, update.before.params)


def test_impala_without_a_lag_takes_the_gradient_of_a2c(a2c_update):
    """V-trace on-policy is the n-step return: the same key gives the same batch, and the same losses on it."""
    c = a2c_update.config
    update = FirstUpdate("impala", policy_lag=0, value_coefficient=c.value_coefficient, entropy_coefficient=0.0)
    assert_close(update.transitions.reward, a2c_update.transitions.reward)
    for name in ("policy_loss", "value_loss", "entropy", "gradient_norm"):
        np.testing.assert_allclose(update.metrics[name], a2c_update.metrics[name], rtol=1e-4, err_msg=name)
    assert update.metrics["clipped_ratios"] == 0


def test_impala_acts_with_parameters_that_are_as_old_as_the_lag():
    lag, fields = 2, SIZES | {"learning_rate": 0.01}
    algorithm = jaxpg.make("impala", WALK, WALK.params(), policy_lag=lag, **fields)
    state = quick_jit(algorithm.init)(KEY)
    update, history, metrics = quick_jit(algorithm.update), [state.learner.params] * (lag + 1), None
    for _ in range(4):
        assert_same(jax.tree.map(lambda x: x[0], state.learner.extra), history[-lag - 1])
        state, metrics = update(state)
        history.append(state.learner.params)
    assert metrics["clipped_ratios"] > 0.1
    config = configure("impala", impala.IMPALAConfig, fields | {"policy_lag": lag})
    network = make_network("impala", config, WALK, WALK.params())
    collect = quick_jit(impala.make_parts(config, WALK, WALK.params(), network).collect)
    _, transitions = collect(KEY, state.learner, state.rollout, WALK.params())
    features = normalize(state.learner.observation_statistics, transitions.observation)
    log_prob = quick_jit(lambda p: network.distribution(p, features).log_prob(transitions.extras.action))
    assert_close(log_prob(history[-lag - 1]), transitions.extras.log_prob, rtol=1e-4, atol=1e-5)
    assert np.abs(log_prob(history[-1]) - transitions.extras.log_prob).max() > 1e-3


def test_trpo_stays_within_its_trust_region_and_uses_it():
    bounds = jnp.array([1e-4, 1e-2])

    def run(bound):
        sizes = SIZES | {"num_steps": 30, "num_minibatches": 3, "num_value_epochs": 2, "total_steps": 6 * 90}
        algorithm = jaxpg.make("trpo", WALK, WALK.params(), max_divergence=bound, **sizes)
        return jaxpg.train(algorithm, KEY, 6)[1]

    metrics = quick_jit(jax.vmap(run))(bounds)
    assert (metrics["kl_divergence"] <= bounds[:, None]).all()
    assert (metrics["step_fraction"] > 0).all()
    assert (metrics["kl_divergence"].mean(axis=1) > 0.4 * bounds).all()
    assert (metrics["policy_improvement"] > 0).all()


def test_trpo_moves_the_policy_by_the_natural_gradient_and_the_value_by_its_own():
    """With no room for the policy only the critic moves; with no learning rate only the policy does."""
    fields = {"num_minibatches": 3, "num_value_epochs": 2}
    still = FirstUpdate("trpo", max_divergence=0.0, **fields)
    assert_same(still.after.params["actor"], still.before.params["actor"])
    kernels = [x.params["critic"]["params"]["Dense_0"]["kernel"] for x in (still.after, still.before)]
    assert np.abs(kernels[0] - kernels[1]).max() > 1e-4
    fixed = FirstUpdate("trpo", learning_rate=0.0, **fields)
    assert_same(fixed.after.params["critic"], fixed.before.params["critic"])
    moved = np.abs(fixed.after.params["actor"]["params"]["log_std"] - fixed.before.params["actor"]["params"]["log_std"])
    assert moved.max() > 1e-4


LEARNERS = {
    "a2c": {"num_envs": 16, "num_steps": 8, "learning_rate": 3e-3, "total_steps": 60_000},
    "impala": {"num_envs": 16, "num_steps": 16, "learning_rate": 1e-2, "total_steps": 100_000},
    "reinforce": {"num_envs": 8, "num_steps": 64, "learning_rate": 5e-3, "total_steps": 60_000},  # 207 to 500 over 8 seeds
    "trpo": {"num_envs": 8, "num_steps": 128, "total_steps": 40_000},
}


@pytest.mark.parametrize("name", LEARNERS)
def test_it_balances_a_pole(name):
    """Random actions give 22, the optimum is 500; gradients of the wrong sign stay below 22."""
    env, params = jaxpg_envs.make("CartPole-v1")
    algorithm = jaxpg.make(name, env, params, hidden_sizes=(16,), **LEARNERS[name])

    def run(key):
        state, _ = jaxpg.train(algorithm, key)
        return jaxpg.evaluate(algorithm.policy(state), env, params, key, 32, 500).mean()

    assert quick_jit(run)(KEY) > 150
