"""PPO: what it learns at time limits, the details that decide whether it learns, and that it does."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from checks import assert_close, assert_same, quick_jit, row
from environments import Cycle, Pictures, Walk

import jaxpg
import jaxpg_envs
from jaxpg.algorithm import configure
from jaxpg.algorithms.online.ppo import PPOConfig, chunks_of, make_parts
from jaxpg.normalization import normalize
from jaxpg.on_policy import make_network

TINY = {"num_envs": 4, "num_steps": 8, "num_epochs": 2, "num_minibatches": 2, "hidden_sizes": (8,), "total_steps": 3 * 32}
ONE_STEP = TINY | {"num_epochs": 1, "num_minibatches": 1}
CYCLE, WALK = Cycle(), Walk()
KEY = jax.random.key(0)


def compiled_update(**sizes):
    """`(hyperparameters, state) -> (state, metrics)` on the walk, one program for all hyperparameters."""
    make = lambda hyperparameters: jaxpg.make("ppo", WALK, WALK.params(), **hyperparameters, **sizes)
    return quick_jit(lambda hyperparameters, state: make(hyperparameters).update(state))


def network_of(config):
    return make_network("ppo", config, WALK, WALK.params())


def rates(learning_rate=0.01, max_gradient_norm=0.5):
    return {"learning_rate": jnp.float32(learning_rate), "max_gradient_norm": jnp.float32(max_gradient_norm)}


@pytest.fixture(scope="module")
def update():
    return compiled_update(**TINY)


@pytest.fixture(scope="module")
def one_step_update():
    return compiled_update(**ONE_STEP)


@pytest.fixture(scope="module")
def start():
    return quick_jit(jaxpg.make("ppo", WALK, WALK.params(), **TINY).init)(KEY)


class Walker(NamedTuple):
    """PPO on the walk in its parts, at a state whose statistics have seen something."""

    state: object
    transitions: object
    collect: object
    learn: object
    policy: object


@pytest.fixture(scope="module")
def walker(update, start):
    config = configure("ppo", PPOConfig, {**rates(), **TINY})
    parts = make_parts(config, WALK, WALK.params(), network_of(config))
    state = update(rates(), update(rates(), start)[0])[0]
    collect = quick_jit(parts.collect, static_argnums=4)
    _, collect_key, _ = jax.random.split(state.key, 3)
    transitions = collect(collect_key, state.learner, state.rollout, WALK.params())[1]
    return Walker(state, transitions, collect, quick_jit(parts.learn), parts.policy)


# --- Time limits -------------------------------------------------------------------------------------------------------

DISCOUNT, LIMIT = 0.9, 9
REWARDS = jnp.array([[1.0, 1.0], [1.0, 3.0]])
# V(0) = r0 + discount * V(1) and V(1) = r1 + discount * V(0), without end: 1 / (1 - discount) = 10 for rewards of 1.
TRUE_VALUES = np.linalg.solve(np.eye(2) - DISCOUNT * np.array([[0, 1], [1, 0]]), np.asarray(REWARDS).T).T


def learned_values(time_limit):
    """Values of both states after training on a cycle of constant and of unequal rewards that is cut every 9 steps."""
    sizes = {"num_envs": 4, "num_steps": 20, "num_epochs": 4, "num_minibatches": 1, "hidden_sizes": (8,)}
    numbers = {"discount": DISCOUNT, "learning_rate": 0.03, "clip_epsilon": 100.0}
    network = make_network("ppo", configure("ppo", PPOConfig, sizes), CYCLE, CYCLE.params([0.0, 0.0], LIMIT))

    def train(rewards):
        params = CYCLE.params(rewards, LIMIT)
        algorithm = jaxpg.make(
            "ppo", CYCLE, params, time_limit=time_limit, normalize_rewards=False, total_steps=400 * 80, **sizes, **numbers
        )
        learner = jaxpg.train(algorithm, KEY)[0].learner
        return network.value(learner.params, normalize(learner.observation_statistics, jnp.eye(2)))

    return np.asarray(quick_jit(jax.vmap(train))(REWARDS))


@pytest.mark.parametrize("time_limit", ["bootstrap", "mask"])
def test_values_at_a_time_limit_are_those_without_end(time_limit):
    """The states' values differ by 1.05, so that the value of the reset state in place of the final one would show."""
    np.testing.assert_allclose(TRUE_VALUES, [[10, 10], [3.7 / 0.19, 3.9 / 0.19]])
    np.testing.assert_allclose(learned_values(time_limit), TRUE_VALUES, atol=0.2)


def test_values_with_time_limits_as_ends_are_far_too_small():
    """The same assertion fails widely: at most 1 + 0.9 + ... + 0.9^8 = 6.1 of 10, and less on average over an episode."""
    values = learned_values("terminal")
    assert (values < 0.65 * TRUE_VALUES).all()
    assert (values > 0.3 * TRUE_VALUES).all()


def test_masked_steps_teach_nothing(walker):
    """With "mask", neither reward nor successor of a truncated step changes what is learned; with "bootstrap" both do."""
    cut = walker.transitions.truncated & ~walker.transitions.terminated
    assert 0 < cut.sum() < cut.size
    other_reward = walker.transitions._replace(reward=walker.transitions.reward + 5.0 * cut)
    shifted = walker.transitions.next_observation + 1.0 * cut[..., None]
    other_successor = walker.transitions._replace(next_observation=shifted)
    config = configure("ppo", PPOConfig, {"time_limit": "mask", "normalize_rewards": False, **rates(), **TINY})
    masked = make_parts(config, WALK, WALK.params(), network_of(config))
    _, e = quick_jit(masked.appraise)(walker.state.learner, walker.transitions)
    differences = e.reward + config.discount * jnp.where(e.terminated, 0.0, e.next_value) - e.value
    np.testing.assert_allclose(differences[cut], 0.0, atol=1e-6)
    masked_learn = quick_jit(masked.learn)
    learn = lambda transitions: masked_learn(KEY, walker.state.learner, transitions)[0].params
    assert_same(learn(other_reward), learn(walker.transitions))
    assert_same(learn(other_successor), learn(walker.transitions))
    bootstrapped = [
        walker.learn(KEY, walker.state.learner, t)[0].params["actor"]["params"]["log_std"]
        for t in (walker.transitions, other_reward, other_successor)
    ]
    assert (bootstrapped[0] != bootstrapped[1]).any()
    assert (bootstrapped[0] != bootstrapped[2]).any()


# --- Acting ------------------------------------------------------------------------------------------------------------


def test_actions_are_scaled_and_clipped_for_the_environment_only(walker):
    """Bounds are ±0.5, and ±1 on the policy's scale."""
    transitions, behaviour = walker.transitions, walker.transitions.extras
    np.testing.assert_allclose(transitions.action, 0.5 * np.clip(behaviour.action, -1, 1), rtol=1e-6)
    assert np.abs(transitions.action).max() == 0.5
    np.testing.assert_allclose(transitions.next_observation[..., 2:], transitions.action, rtol=1e-6)  # what arrived
    outside = np.abs(behaviour.action) > 1
    assert 0.2 < outside.mean() < 0.6

    distribution = walker.policy(walker.state.learner).distribution
    params = walker.policy(walker.state.learner).params
    now = quick_jit(lambda t: (distribution(params, t.observation).mean(), distribution(params, t.observation).stddev()))
    mean, std = (np.asarray(x, np.float64) for x in now(transitions))
    of_sample = -0.5 * ((behaviour.action - mean) / std) ** 2 - np.log(std) - 0.5 * np.log(2 * np.pi)
    np.testing.assert_allclose(behaviour.log_prob, of_sample.sum(-1), rtol=1e-4, atol=1e-5)


def test_ratios_start_at_one(walker):
    """The policy of the state from which a batch was collected gives the log-probabilities stored with it."""
    policy = walker.policy(walker.state.learner)
    log_prob = lambda t: policy.distribution(policy.params, t.observation).log_prob(t.extras.action)
    ratio = np.exp(np.asarray(quick_jit(log_prob)(walker.transitions)) - walker.transitions.extras.log_prob)
    np.testing.assert_allclose(ratio, 1.0, atol=1e-5)
    assert walker.state.learner.observation_statistics.count > 60


def test_the_first_gradient_step_is_on_policy(one_step_update, update, start):
    state = start
    for _ in range(3):
        state, metrics = one_step_update(rates(0.02), state)
        assert abs(metrics["approximate_kl"]) < 1e-5
        assert metrics["clip_fraction"] == 0.0
        assert abs(metrics["policy_loss"]) < 1e-5  # normalised advantages sum to zero
    _, metrics = update(rates(0.02), state)  # four steps: the policy moves
    assert metrics["approximate_kl"] > 1e-4
    assert metrics["clip_fraction"] > 0.0


def test_deterministic_and_sampled_policies(walker):
    mode, sample = walker.policy(walker.state.learner), walker.policy(walker.state.learner, deterministic=False)
    observation = walker.transitions.observation[0, 0]
    keys = jax.random.split(KEY, 2000)
    of = lambda policy: quick_jit(jax.vmap(lambda key: policy.act(policy.params, key, observation, ())[0]))(keys)
    best, drawn = of(mode), of(sample)
    distribution = mode.distribution(mode.params, observation)
    np.testing.assert_allclose(best, np.broadcast_to(0.5 * np.clip(distribution.mode(), -1, 1), best.shape), rtol=1e-5)
    assert np.abs(drawn).max() == 0.5
    below = 0.5 + 0.5 * jax.scipy.special.erf((-1 - distribution.mean()) / distribution.stddev() / np.sqrt(2))
    np.testing.assert_allclose((drawn == -0.5).mean(0), below, atol=0.05)


# --- Learning ----------------------------------------------------------------------------------------------------------


def test_collecting_and_learning_apart_are_an_update(walker, update):
    state = walker.state
    key, collect_key, learn_key = jax.random.split(state.key, 3)
    rollout_state, transitions = walker.collect(collect_key, state.learner, state.rollout, WALK.params())
    learner, metrics = walker.learn(learn_key, state.learner, transitions)
    expected, expected_metrics = update(rates(), state)
    assert_close((learner, rollout_state, key), (expected.learner, expected.rollout, expected.key), atol=1e-5)
    assert_close(metrics, {name: expected_metrics[name] for name in metrics}, atol=1e-5)
    rows = jax.tree.map(lambda x: jnp.broadcast_to(x, (4, *x.shape)), WALK.params())
    of_rows = walker.collect(collect_key, state.learner, state.rollout, rows, 0)
    assert_close(of_rows, (rollout_state, transitions))


def test_statistics_are_those_of_the_batch_after_learning(start, update):
    state, metrics = update(rates(), start)
    config = configure("ppo", PPOConfig, TINY)
    parts = make_parts(config, WALK, WALK.params(), network_of(config))
    _, collect_key, _ = jax.random.split(start.key, 3)
    observations = quick_jit(parts.collect)(collect_key, start.learner, start.rollout, WALK.params())[1].observation
    flat = np.asarray(observations, np.float64).reshape(-1, 4)
    statistics = state.learner.observation_statistics
    np.testing.assert_allclose(statistics.mean, flat.mean(0), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(statistics.variance, flat.var(0), rtol=1e-3, atol=1e-4)
    assert statistics.count == pytest.approx(32, rel=1e-4)
    assert metrics["episodes"] > 0


def test_the_learning_rate_falls_by_update_to_zero(start, update):
    """(1 - u / 3) in the u-th of 3 updates, the same in all gradient steps of one, and 0 from then on."""

    def at(gradient_steps, learning_rate):
        is_schedule = lambda x: isinstance(x, optax.ScaleByScheduleState)
        put = lambda x: x._replace(count=jnp.int32(gradient_steps)) if is_schedule(x) else x
        state = jax.tree.map(put, start, is_leaf=is_schedule)
        return update(rates(learning_rate), state)[0].learner.params

    per_update = TINY["num_epochs"] * TINY["num_minibatches"]
    assert_close(at(per_update, 0.03), at(0, 0.02), rtol=1e-4, atol=1e-6)
    assert_close(at(2 * per_update, 0.03), at(0, 0.01), rtol=1e-4, atol=1e-6)
    for updates in (3, 4, 10):
        assert_same(at(updates * per_update, 0.03), start.learner.params)


def test_gradients_are_clipped_by_their_global_norm(start, one_step_update):
    """Adam's first moment after one step is a tenth of the gradient it was given."""
    moments = {}
    for largest in (0.05, 1e9):
        state, metrics = one_step_update(rates(max_gradient_norm=largest), start)
        moments[largest] = optax.tree_utils.tree_get(state.learner.optimizer_state, "mu")
    norm = float(metrics["gradient_norm"])
    assert norm > 0.5  # reported before clipping
    np.testing.assert_allclose(optax.global_norm(moments[1e9]), 0.1 * norm, rtol=1e-4)
    np.testing.assert_allclose(optax.global_norm(moments[0.05]), 0.1 * 0.05, rtol=1e-4)
    assert_close(moments[0.05], jax.tree.map(lambda x: x * 0.05 / norm, moments[1e9]), rtol=1e-4, atol=1e-8)


def test_minibatches_partition_the_batch_in_every_epoch(start):
    seen = []

    def watch(params, contexts, batch, key):
        jax.debug.callback(lambda x: seen.append(np.asarray(x)), batch.features, ordered=True)
        return jnp.float32(0), {}

    config = configure("ppo", PPOConfig, TINY | {"normalize_observations": False, "num_minibatches": 4})
    network = network_of(config)
    parts = make_parts(config, WALK, WALK.params(), network, watch)
    _, transitions = quick_jit(parts.collect)(KEY, start.learner, start.rollout, WALK.params())
    jax.block_until_ready(quick_jit(parts.learn)(KEY, start.learner, transitions))
    jax.effects_barrier()
    assert [x.shape for x in seen] == [(8, 4)] * (2 * 4)
    everything = np.asarray(transitions.observation).reshape(32, 4)
    assert len(np.unique(everything, axis=0)) == 32
    epochs = [np.concatenate(seen[:4]), np.concatenate(seen[4:])]
    for epoch in epochs:
        np.testing.assert_array_equal(np.unique(epoch, axis=0), np.unique(everything, axis=0))
        assert (epoch != everything).any()  # shuffled
    assert (epochs[0] != epochs[1]).any()


def test_an_entropy_bonus_widens_the_policy(start):
    update = compiled_update(**TINY)
    with_bonus, without = (update({**rates(), "entropy_coefficient": jnp.float32(weight)}, start)[0] for weight in (0.5, 0.0))
    spread = lambda state: state.learner.params["actor"]["params"]["log_std"].mean()
    assert spread(with_bonus) > spread(without) + 1e-3


def test_gradients_in_chunks_are_the_gradient(start):
    """Minibatches of 16 samples at once, in 2 chunks and one by one: the same step but for rounding."""
    whole, *chunked = (compiled_update(**TINY, chunk_size=size)(rates(), start) for size in (16, 8, 1))
    for state, metrics in chunked:
        assert_close(state.learner.params, whole[0].learner.params, rtol=1e-3, atol=2e-5)
        assert_close(metrics, whole[1], rtol=1e-3, atol=1e-4)


def test_chunks_are_equal_and_no_larger_than_asked_for():
    assert [chunks_of(16, size) for size in (16, 8, 7, 1, 100)] == [1, 2, 4, 16, 1]
    assert chunks_of(65_536, 0) == (64 if jax.default_backend() == "cpu" else 1)


def test_the_kl_penalty_keeps_the_policy_near(start):
    kl_update = compiled_update(**TINY, surrogate="kl")
    near, free = (
        kl_update({"learning_rate": jnp.float32(0.02), "kl_coefficient": jnp.float32(weight)}, start) for weight in (100.0, 0.0)
    )
    assert 0 <= near[1]["approximate_kl"] < 0.5 * free[1]["approximate_kl"]


# --- Purity ------------------------------------------------------------------------------------------------------------


def test_the_same_key_gives_the_same_bits(start, update):
    first = update(rates(), start)
    assert_same(update(rates(), start), first)
    assert_same(compiled_update(**TINY)(rates(), start), first)  # made, traced and compiled again
    other = start._replace(key=jax.random.key(1))
    assert (update(rates(), other)[1]["policy_loss"] != first[1]["policy_loss"]).all()


def test_seeds_side_by_side_are_runs_of_their_own():
    algorithm = jaxpg.make("ppo", WALK, WALK.params(), **TINY)
    run = lambda key: jaxpg.train(algorithm, key, 2)
    keys = jax.random.split(KEY, 2)
    both, alone = quick_jit(jax.vmap(run))(keys), quick_jit(run)
    for i in range(2):
        assert_close(row(both, i), alone(keys[i]), rtol=1e-3, atol=1e-4)
    assert not np.allclose(both[1]["policy_loss"][0], both[1]["policy_loss"][1])


def test_compiled_is_not_compiled():
    sizes = {"num_envs": 2, "num_steps": 2, "num_epochs": 1, "num_minibatches": 1, "hidden_sizes": (2,)}
    algorithm = jaxpg.make("ppo", CYCLE, CYCLE.params([1.0, 3.0], 2), **sizes)
    state = quick_jit(algorithm.init)(KEY)
    compiled = quick_jit(algorithm.update)(state)
    with jax.disable_jit():
        plain = algorithm.update(state)
    assert_close(plain, compiled, rtol=1e-4, atol=1e-6)


def test_training_can_be_differentiated():
    """d(distance of the critic)/d(hyperparameter) through gradient steps, Adam included, is the slope of finite differences.

    Without value clipping, at which the slope jumps; with rectified units, of which some are silent and have gradient 0.
    """
    sizes = TINY | {"anneal_learning_rate": False, "clip_epsilon": 100.0, "activation": "relu"}

    def trained(hyperparameters, num_updates):
        algorithm = jaxpg.make("ppo", CYCLE, CYCLE.params([1.0, 3.0], 5), **hyperparameters, **sizes)
        learner = jaxpg.train(algorithm, KEY, num_updates)[0].learner
        moved = jax.tree.map(jnp.subtract, learner.params["critic"], algorithm.init(KEY).learner.params["critic"])
        return sum(jnp.square(leaf).sum() for leaf in jax.tree.leaves(moved))

    value_and_slopes = quick_jit(jax.value_and_grad(trained), static_argnums=1)
    point = {"learning_rate": 0.01, "discount": 0.9, "gae_lambda": 0.9}
    steps = {"learning_rate": 1e-3, "discount": 1e-2, "gae_lambda": 1e-2}
    for num_updates in (1, 2):  # a second update's targets depend on what the first one learned
        slopes = value_and_slopes(point, num_updates)[1]
        for name, step in steps.items():
            above, below = (value_and_slopes(point | {name: point[name] + s}, num_updates)[0] for s in (step, -step))
            np.testing.assert_allclose(slopes[name], (above - below) / (2 * step), rtol=0.02)
            assert abs(slopes[name]) > 1e-5


# --- Environments ------------------------------------------------------------------------------------------------------


def test_observations_of_any_shape_and_kind():
    pictures, cycle = Pictures(4), Cycle(7)
    for env, params, size in ((pictures, pictures.params(jnp.ones(4), 3), 12), (cycle, cycle.params(jnp.ones(7), 3), 7)):
        algorithm = jaxpg.make("ppo", env, params, **TINY)
        state, _ = jax.eval_shape(lambda key, algorithm=algorithm: algorithm.update(algorithm.init(key)), KEY)
        assert state.learner.params["actor"]["params"]["MLP_0"]["Dense_0"]["kernel"].shape == (size, 8)
        assert state.learner.observation_statistics.mean.shape == (size,)
        jax.eval_shape(
            lambda state, env=env, params=params, a=algorithm: jaxpg.evaluate(a.policy(state), env, params, KEY), state
        )


# --- Does it learn? ----------------------------------------------------------------------------------------------------


def test_it_balances_a_pole_and_not_with_the_wrong_sign(monkeypatch):
    """41k steps. The optimum is 500, random actions give 22; advantages of the wrong sign must fail."""
    env, params = jaxpg_envs.make("CartPole-v1")
    estimate = jaxpg.losses.generalized_advantage_estimation
    sizes = {"num_envs": 8, "num_steps": 128, "num_epochs": 4, "num_minibatches": 4, "hidden_sizes": (16,)}

    def run(sign, key):
        signed = lambda *arguments: (lambda advantages, targets: (sign * advantages, targets))(*estimate(*arguments))
        monkeypatch.setattr("jaxpg.losses.generalized_advantage_estimation", signed)
        algorithm = jaxpg.make("ppo", env, params, learning_rate=1e-2, total_steps=40 * 1024, **sizes)
        state, _ = jaxpg.train(algorithm, key)
        return jaxpg.evaluate(algorithm.policy(state), env, params, key, 32, 500).mean()

    runs = quick_jit(jax.vmap(jax.vmap(run, (None, 0)), (0, None)))
    right, wrong = runs(jnp.array([1.0, -1.0]), jax.random.split(KEY, 2))
    assert right.min() > 400
    assert wrong.max() < 60
