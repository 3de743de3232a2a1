"""Algorithms that learn from a buffer: fixed points against exact solutions, exploration, targets, one expert and SAC."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checks import assert_close, assert_same, quick_jit, row
from environments import Box, Cycle, Steady, Tabular, Walk

import jaxpg
from jaxpg.algorithm import InputError
from jaxpg.algorithms.online.dqn import DQNConfig, annealed_epsilon, epsilon_greedy
from jaxpg.algorithms.online.soft_option_critic import Options
from jaxpg.networks import Critics, DiscreteActionValues, Experts, TanhGaussian
from jaxpg.training import advance

KEY = jax.random.key(0)
WALK, CYCLE = Walk(), Cycle(3)
DISCRETE, CONTINUOUS = ("dqn", "qr_dqn", "sac_discrete"), ("ddpg", "td3", "sac", "pmoe_sac", "soft_option_critic")
SMALL = {"hidden_sizes": (4,), "batch_size": 8, "num_envs": 2, "gradient_steps": 2, "total_steps": 40, "learning_starts": 4}


def small(name, env=None, params=None, **fields):
    if env is None:
        env = CYCLE if name in (*DISCRETE, "pqn") else WALK
        params = CYCLE.params([1.0, 0.0, -1.0], 4) if env is CYCLE else WALK.params()
    fields = (
        {"total_steps": 64, "num_envs": 4, "num_steps": 4, "num_minibatches": 2} | fields if name == "pqn" else SMALL | fields
    )
    return jaxpg.make(name, env, params, **fields)


@pytest.mark.parametrize("name", [*DISCRETE, *CONTINUOUS, "pqn"])
def test_updates_keep_the_state_in_shape_and_trace_once(name):
    env = Cycle(3) if name in (*DISCRETE, "pqn") else Walk()
    params = env.params([1.0, 0.0, -1.0], 4) if isinstance(env, Cycle) else env.params()
    algorithm = small(name, env, params)
    init, update = quick_jit(algorithm.init), quick_jit(algorithm.update)
    before = jax.eval_shape(init, KEY)
    after, _ = jax.eval_shape(update, before)
    describe = lambda tree: jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), tree)
    assert describe(after) == describe(before)
    state, _ = update(init(KEY))
    traces = env.traces
    for _ in range(2):
        state, metrics = update(state)
    assert env.traces == traces
    assert update._cache_size() == 1
    assert all(np.isfinite(value) for name, value in metrics.items() if not name.startswith("episode_"))
    assert {"episodes", "episode_return", "gradient_norm", "parameter_norm"} <= set(metrics)


@pytest.mark.parametrize("name", ["dqn", "td3", "pmoe_sac", "pqn"])
def test_seeds_under_vmap_are_the_seeds_alone(name):
    algorithm = small(name)
    run = lambda key: advance(algorithm.update, algorithm.init(key), 4)[0]
    keys = jax.random.split(KEY, 3)
    together = quick_jit(jax.vmap(run))(keys)
    assert_close(row(together, 1), quick_jit(run)(keys[1]), rtol=1e-4, atol=1e-5)


# --- Fixed points -------------------------------------------------------------------------------------------------------

TABLE = Tabular()
SOLVE = {
    "hidden_sizes": (),
    "num_envs": 8,
    "gradient_steps": 4,
    "learning_starts": 64,
    "total_steps": 48_000,
    "buffer_size": 20_000,
}


def learned_values(name, seed, action_values, spread=2.0, time_limit=3, **fields):
    """Q of every state after learning from random actions (for PQN and DQN) with a table in place of a network."""
    params = TABLE.params(seed, time_limit, spread)
    algorithm = jaxpg.make(name, TABLE, params, discount=0.8, **fields)
    state, _ = quick_jit(lambda key: advance(algorithm.update, algorithm.init(key), algorithm.num_updates))(KEY)
    return np.asarray(action_values(state, jnp.eye(TABLE.num_states))), params


@pytest.mark.parametrize("fields", [{"double": False}, {"double": True}, {"prioritized": True, "dueling": True}])
def test_dqn_solves_a_table(fields):
    network = DiscreteActionValues(2, (), dueling=fields.get("dueling", False))
    explore = {"epsilon_start": 1.0, "epsilon_end": 1.0, "learning_rate": 3e-3, "batch_size": 256}
    values, params = learned_values(
        "dqn", 1, lambda state, x: network.apply(state.learner.params, x), **SOLVE | explore | fields
    )
    np.testing.assert_allclose(values, TABLE.exact_values(params, 0.8), atol=0.06)


def test_qr_dqn_solves_a_table():
    """One in which a step leads where it must, so that every quantile is the value: of few quantiles the mean is not that of
    a spread-out return."""
    network = DiscreteActionValues(2, (), num_quantiles=5)
    explore = {"epsilon_start": 1.0, "epsilon_end": 1.0, "learning_rate": 1e-2, "num_quantiles": 5, "batch_size": 64}
    fields = SOLVE | explore | {"total_steps": 24_000}
    values, params = learned_values("qr_dqn", 1, lambda state, x: network.apply(state.learner.params, x), 1e3, **fields)
    exact = np.asarray(TABLE.exact_values(params, 0.8))
    np.testing.assert_allclose(values, np.broadcast_to(exact[..., None], values.shape), atol=0.08)


def test_pqn_solves_a_table():
    """Within episodes so long that most values of successors are those at which the next action was chosen."""
    network = DiscreteActionValues(2, (), layer_norm=True)
    fields = {"num_envs": 64, "num_steps": 8, "num_minibatches": 4, "num_epochs": 1, "hidden_sizes": (), "reward_scale": 1.0}
    fields |= {"epsilon_start": 1.0, "epsilon_end": 1.0, "learning_rate": 2e-2, "trace_lambda": 0.0, "total_steps": 200_000}
    values, params = learned_values("pqn", 1, lambda state, x: network.apply(state.params, x), time_limit=40, **fields)
    np.testing.assert_allclose(values, TABLE.exact_values(params, 0.8), atol=0.06)


def test_discrete_sac_solves_a_table():
    temperature = 0.7
    critic = DiscreteActionValues(2, ())
    fields = {"automatic_temperature": False, "initial_temperature": temperature, "learning_rate": 5e-3}
    fields |= {"target_ema_rate": 0.05, "batch_size": 256}
    values, params = learned_values(
        "sac_discrete", 1, lambda state, x: jax.vmap(critic.apply, (0, None))(state.learner.critics, x)[0], **SOLVE | fields
    )
    soft = lambda q: temperature * jax.nn.logsumexp(q / temperature, axis=-1)
    np.testing.assert_allclose(values, TABLE.exact_values(params, 0.8, soft), atol=0.08)


@pytest.mark.parametrize("ends", [False, True])
@pytest.mark.parametrize("name", CONTINUOUS)
def test_a_steady_reward_is_worth_its_sum_through_time_limits(name, ends):
    env = Steady()
    fields = {"hidden_sizes": (16,), "num_envs": 4, "gradient_steps": 4, "total_steps": 4_000, "batch_size": 32}
    fields |= {"learning_starts": 40, "discount": 0.8, "learning_rate": 3e-3, "target_ema_rate": 0.1}
    soft = name in ("sac", "pmoe_sac", "soft_option_critic")
    temperature = 0.2 if soft else 0.0
    fields |= {"automatic_temperature": False, "initial_temperature": temperature} if soft else {}
    algorithm = jaxpg.make(name, env, env.params(ends), **fields)
    state, _ = quick_jit(lambda key: advance(algorithm.update, algorithm.init(key), algorithm.num_updates))(KEY)
    learner = state.learner
    features = jnp.ones((4_000, 1))
    actions = jax.random.uniform(KEY, (4_000, 2), minval=-0.5, maxval=0.5)
    critics = Critics(1 if name == "ddpg" else 2, (16,))
    values = critics.apply(learner.critics, features, actions)
    entropy = 0.0
    if soft:
        network = Experts(1 if name == "sac" else 4, 2, (16,))
        logits, mean, scale, *_ = (Options(network) if name == "soft_option_critic" else network).apply(learner.actor, features)
        log_probs = TanhGaussian(mean, scale).sample_and_log_prob(seed=KEY)[1]
        entropy = float(-(jax.nn.softmax(logits) * log_probs).sum(-1).mean())
    expected = 1.0 if ends else (1.0 + 0.8 * temperature * entropy) / (1.0 - 0.8)
    np.testing.assert_allclose(values.mean(), expected, rtol=0.04)


# --- The start, exploration, targets ------------------------------------------------------------------------------------


def test_nothing_is_learned_before_learning_starts():
    algorithm = small("td3", learning_starts=8)  # 2 environments: the fourth update learns
    update, state = quick_jit(algorithm.update), quick_jit(algorithm.init)(KEY)
    start = state.learner
    for number in range(1, 5):
        state, metrics = update(state)
        if number < 4:
            assert_same(state.learner, start)
            assert float(metrics["q_loss"]) == 0
    assert int(state.learner.gradient_steps) == 2
    assert float(metrics["q_loss"]) > 0
    assert int(state.buffer.count) == 4


def test_the_first_actions_are_uniform():
    algorithm = small("sac", total_steps=4_000, learning_starts=4_000, num_envs=50)
    state, _ = quick_jit(lambda key: advance(algorithm.update, algorithm.init(key), 40))(KEY)
    actions = np.asarray(state.buffer.steps.action[:40]).ravel()
    assert np.abs(actions).max() <= 1
    np.testing.assert_allclose(np.histogram(actions, 8, (-1, 1))[0] / actions.size, 1 / 8, atol=0.02)


@pytest.mark.parametrize("name", ["dqn", "td3", "sac"])
def test_the_first_actions_may_be_those_of_the_untrained_policy(name):
    """As they are where gradient steps from the start change nothing; but here nothing is learned at all."""
    explores = {"noise_correlation": 0.8} if name != "dqn" else {}
    states = []
    for fields in ({"learning_starts": 0, "learning_rate": 0.0}, {"learning_starts": 40, "initial_actions": "policy"}):
        algorithm = small(name, **explores, **fields)
        states.append(quick_jit(lambda key, a=algorithm: advance(a.update, a.init(key), 10)[0])(KEY))
    frozen, untrained = states
    assert_close(untrained.buffer.steps.action[:10], frozen.buffer.steps.action[:10])
    assert int(untrained.buffer.count) == 10
    assert_close(untrained.learner, quick_jit(algorithm.init)(KEY).learner)


def test_actions_are_scaled_to_the_environments_bounds():
    """Walk shows the action that arrived: bounds ±0.5, stored within ±1."""
    algorithm = small("td3")
    state, _ = quick_jit(lambda key: advance(algorithm.update, algorithm.init(key), 10))(KEY)
    steps = state.buffer.steps
    arrived = np.asarray(steps.next_observation[:10, :, 2:])
    np.testing.assert_allclose(arrived, 0.5 * np.asarray(steps.action[:10]), rtol=1e-6, atol=1e-7)


def test_remembered_successors_are_true_ones():
    """At a time limit of 4 on a cycle of 3 states the successor of state 0 is state 1, and not the start."""
    algorithm = small("dqn")
    state, _ = quick_jit(lambda key: advance(algorithm.update, algorithm.init(key), 12))(KEY)
    steps = jax.tree.map(lambda x: np.asarray(x[:12]), state.buffer.steps)
    np.testing.assert_array_equal(steps.next_observation, (steps.observation + 1) % 3)
    assert steps.truncated.sum() == 6
    assert not steps.terminated.any()


def test_epsilon_falls_linearly_and_stays():
    config = DQNConfig(epsilon_start=1.0, epsilon_end=0.1, exploration_fraction=0.5)
    epsilons = [float(annealed_epsilon(config, jnp.float32(x))) for x in (0.0, 0.25, 0.5, 1.0)]
    np.testing.assert_allclose(epsilons, [1.0, 0.55, 0.1, 0.1], rtol=1e-6)


def test_epsilon_greedy_frequencies():
    values = jnp.broadcast_to(jnp.array([0.0, 2.0, 1.0, -1.0]), (40_000, 4))
    actions = np.asarray(epsilon_greedy(KEY, values, 0.2))
    np.testing.assert_allclose(np.bincount(actions) / actions.size, [0.05, 0.85, 0.05, 0.05], atol=0.006)
    assert (np.asarray(epsilon_greedy(KEY, values, 0.0)) == 1).all()


def test_the_target_network_is_copied_every_period():
    algorithm = small("dqn", target_period=3, target_ema_rate=1.0, gradient_steps=1, learning_starts=2)
    update, state = quick_jit(algorithm.update), quick_jit(algorithm.init)(KEY)
    for number in range(1, 7):
        before = state.learner.target_params
        state, _ = update(state)
        assert_same(state.learner.target_params, state.learner.params if number % 3 == 0 else before)


def test_td3_moves_its_actor_every_second_step():
    algorithm = small("td3", gradient_steps=1, learning_starts=2)
    update, state = quick_jit(algorithm.update), quick_jit(algorithm.init)(KEY)
    for number in range(1, 5):
        before = state.learner
        state, _ = update(state)
        moved = not np.array_equal(*(np.asarray(jax.tree.leaves(x.actor)[-1]) for x in (before, state.learner)))
        assert moved == (number % 2 == 0)
        followed = optax_follow(before.target_critics, state.learner.critics, 0.005)
        assert_close(state.learner.target_critics, followed if moved else before.target_critics)


NOISY = {"td3": {"exploration_noise": 0.3}, "sac": {}, "pmoe_sac": {"num_experts": 1}, "soft_option_critic": {"num_experts": 1}}


@pytest.mark.parametrize("name", NOISY)
def test_noise_lasts_as_long_as_it_is_told_to_and_starts_anew_with_an_episode(name):
    env = Steady()
    fields = {"num_envs": 2_000, "total_steps": 120_000, "learning_starts": 0, "learning_rate": 0.0, "noise_correlation": 0.8}
    algorithm = small(name, env, env.params() | {"time_limit": jnp.int32(30)}, **fields, **NOISY[name])

    def step(state, _):
        state, _ = algorithm.update(state)
        return state, jax.tree.leaves(state.rollout.carry)[-1][:, 0]

    state, noise = quick_jit(lambda key: jax.lax.scan(step, algorithm.init(key), None, 40))(KEY)
    policy = algorithm.policy(state)
    without_noise = policy.act(policy.params, KEY, jnp.ones(1), policy.initial_carry)[0][0] / 2
    noise, taken = np.asarray(noise), np.asarray(state.buffer.steps.action[:29, :, 0])
    if name == "td3":
        np.testing.assert_allclose(taken, np.clip(without_noise + 0.3 * noise[:29], -1, 1), atol=1e-5)
    else:  # the scale of the tanh-Gaussian is the one that explains one action, and then all of them
        scale = (np.arctanh(taken[0, 0]) - np.arctanh(without_noise)) / noise[0, 0]
        np.testing.assert_allclose(taken, np.tanh(np.arctanh(without_noise) + scale * noise[:29]), atol=1e-4)
    assert not noise[29].any()  # the episode ended with the thirtieth step
    age = np.arange(29)
    np.testing.assert_allclose(noise[:29].std(1), np.sqrt(1 - 0.8 ** (2 * age + 2)), rtol=0.08)
    correlations = [np.corrcoef(noise[t], noise[t + 1])[0, 1] for t in range(15, 28)]
    np.testing.assert_allclose(correlations, 0.8, atol=0.03)
    assert noise[30].std() < 0.7


def optax_follow(target, params, rate):
    return jax.tree.map(lambda old, new: (1 - rate) * old + rate * new, target, params)


@pytest.mark.parametrize("name", ["sac_discrete", "soft_option_critic"])
def test_the_temperature_rises_while_entropy_is_below_its_target(name):
    """Adam's first step is the learning rate: upwards below a target that no policy reaches, downwards above one of 0."""
    scales = jnp.array([3.0, 0.0]) if name == "sac_discrete" else jnp.array([100.0, 0.0])

    def step(scale):
        algorithm = small(name, gradient_steps=1, learning_starts=2, learning_rate=0.01, target_entropy_scale=scale)
        before = algorithm.init(KEY)
        return algorithm.update(before)[0].learner.log_temperature - before.learner.log_temperature

    np.testing.assert_allclose(quick_jit(jax.vmap(step))(scales), [0.01, -0.01], rtol=1e-3)


def test_critics_that_judge_together_begin_with_values_of_their_own():
    for name in ("sac_discrete", "td3"):
        critics = quick_jit(small(name).init)(KEY).learner.critics
        kernels = [leaf for leaf in jax.tree.leaves(critics) if leaf.ndim > 2]
        assert all((leaf[0] != leaf[1]).any() for leaf in kernels)


# --- Soft actor-critic and mixtures -------------------------------------------------------------------------------------


def test_one_expert_is_sac():
    """From one key, after ten updates of two gradient steps."""
    states = []
    for name, fields in (("sac", {}), ("pmoe_sac", {"num_experts": 1})):
        algorithm = small(name, **fields)
        states.append(quick_jit(lambda key, a=algorithm: advance(a.update, a.init(key), 10)[0])(KEY))
    without_routing = lambda actor: {name: layer for name, layer in actor["params"].items() if name != "routing"}
    one, other = (state.learner for state in states)
    assert_close(without_routing(one.actor), without_routing(other.actor), rtol=0, atol=1e-6)
    assert_close((one.critics, one.target_critics), (other.critics, other.target_critics), rtol=0, atol=1e-6)
    assert_close(one.log_temperature, other.log_temperature, rtol=0, atol=1e-6)
    assert_same(states[0].buffer.steps.action[:3], states[1].buffer.steps.action[:3])


@pytest.mark.parametrize("name", ["sac", "pmoe_sac", "soft_option_critic"])
def test_initial_values_of_rlkit(name):
    """Hidden kernels uniform within ±1 / sqrt(units) with biases of 0.1; critics' last layers uniform within ±3e-3."""
    learner = quick_jit(small(name, hidden_sizes=(256, 64), initialization="rlkit").init)(KEY).learner
    actor, critics = learner.actor["params"], learner.critics["params"]["VmapCritic_0"]
    trunks = [(actor.get("experts", actor))["Trunk_0"], critics["Trunk_0"]]
    hidden = [(trunk[layer], units) for trunk in trunks for layer, units in (("Dense_0", 256), ("Dense_1", 64))]
    for layer, units in hidden:
        np.testing.assert_array_equal(layer["bias"], np.float32(0.1))
        assert_uniform(layer["kernel"], 1 / np.sqrt(units))
    assert_uniform(critics["Dense_0"]["kernel"], 3e-3)
    assert np.abs(critics["Dense_0"]["bias"]).max() <= 3e-3
    assert np.abs(critics["Dense_0"]["bias"]).min() > 0
    assert_same(learner.target_critics, learner.critics)


def assert_uniform(numbers, bound):
    """Within ±bound, and with the mean and mean square of a uniform draw, to five standard errors of each."""
    numbers = np.asarray(numbers, float).ravel() / bound
    assert np.abs(numbers).max() <= 1
    assert abs(numbers.mean()) < 5 * np.sqrt(1 / 3 / numbers.size)
    assert abs((numbers**2).mean() - 1 / 3) < 5 * np.sqrt(4 / 45 / numbers.size)


def test_tanh_gaussian_is_a_density():
    policy = TanhGaussian(jnp.array([0.3]), jnp.array([0.8]))
    at = jnp.linspace(-0.9999, 0.9999, 20_001)[:, None]
    density = np.exp(np.asarray(jax.vmap(policy.log_prob)(at)))
    np.testing.assert_allclose(np.trapezoid(density, np.asarray(at[:, 0])), 1.0, atol=1e-3)
    action, log_prob = policy.sample_and_log_prob(seed=KEY)
    np.testing.assert_allclose(log_prob, policy.log_prob(action), rtol=1e-4)
    np.testing.assert_allclose(policy.mode(), np.tanh([0.3]), rtol=1e-6)


@pytest.mark.parametrize(
    "estimator", ["frequency", "frequency_all", "score_ratio", "gumbel", "expectation", "gating", "multiplicative"]
)
def test_every_estimator_trains_experts_and_routing(estimator):
    algorithm = small("pmoe_sac", estimator=estimator, num_experts=3, learning_rate=1e-2)
    init, run = quick_jit(algorithm.init), quick_jit(lambda state: advance(algorithm.update, state, 8)[0])
    before = init(KEY)
    after = run(before)
    for layer in ("mean", "log_std", "routing"):
        change = after.learner.actor["params"][layer]["kernel"] - before.learner.actor["params"][layer]["kernel"]
        assert np.isfinite(change).all()
        assert np.abs(change).max() > 1e-3


def test_routing_does_not_shape_the_trunk():
    network = Experts(3, 2, (8,))
    params = network.init(KEY, jnp.ones(4))
    gradient = jax.grad(lambda params: jax.nn.log_softmax(network.apply(params, jnp.ones(4))[0])[0])(params)["params"]
    assert np.abs(gradient["routing"]["kernel"]).max() > 0
    assert all(np.abs(leaf).max() == 0 for leaf in jax.tree.leaves(gradient["Trunk_0"]))


# --- Bad input ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CONTINUOUS)
def test_discrete_actions_are_refused(name):
    with pytest.raises(InputError, match=f"{name} needs continuous actions"):
        small(name, CYCLE, CYCLE.params([0.0, 0.0, 0.0], 4))


@pytest.mark.parametrize("name", [*DISCRETE, "pqn"])
def test_continuous_actions_are_refused(name):
    with pytest.raises(InputError, match=f"{name} needs discrete actions"):
        small(name, WALK, WALK.params())


def test_unbounded_actions_are_refused():
    class Unbounded(Walk):
        def action_space(self, params):
            return Box(-jnp.inf, jnp.inf, (2,))

    with pytest.raises(InputError, match="finite bounds"):
        small("sac", Unbounded(), WALK.params())


def test_a_buffer_that_cannot_hold_a_sample_is_refused():
    with pytest.raises(InputError, match="must hold at least 8"):
        small("dqn", buffer_size=7, n_step=3)


def test_a_batch_that_does_not_divide_is_refused():
    with pytest.raises(InputError, match="nearest that does is 2"):
        small("pqn", num_minibatches=3)
