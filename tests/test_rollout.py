"""Rollouts against a Python loop over `env.step` with the same keys, and episode statistics against hand counts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checks import assert_close, assert_same, quick_jit, row
from environments import Cycle, Walk

from jaxpg.rollout import Transition, episode_metrics, init_rollout, nonfinite_metrics, rollout

NUM_ENVS, NUM_STEPS = 3, 12
WALK = Walk()
SHARED = WALK.params()
PER_ENV = jax.tree.map(lambda *rows: jnp.stack(rows), WALK.params(), WALK.params(0.8, 3, 0.2), WALK.params(9.0, 4, -0.4))


def act(key, observation, carry):
    """`carry` counts the steps of the running episode."""
    noise = jax.random.normal(key, (NUM_ENVS, 2))
    return 0.3 * noise - 0.1 * observation[:, :2], {"noise": noise, "steps": carry}, carry + 1


def two_rollouts(key, params, params_axis):
    first_key, second_key, reset_key = jax.random.split(key, 3)
    start = init_rollout(reset_key, WALK, params, NUM_ENVS, params_axis, jnp.int32(0))
    middle, first = rollout(first_key, act, WALK, params, start, NUM_STEPS, params_axis, jnp.int32(0))
    end, second = rollout(second_key, act, WALK, params, middle, NUM_STEPS, params_axis, jnp.int32(0))
    return (middle, end), (first, second)


@pytest.fixture(scope="module", params=[None, 0], ids=["shared params", "params per environment"])
def rollouts(request):
    """(states after, transitions) of two rollouts in a row, and the same by a loop over steps and environments."""
    key, params = jax.random.key(0), SHARED if request.param is None else PER_ENV
    compiled = quick_jit(two_rollouts, static_argnums=2)(key, params, request.param)
    first_key, second_key, reset_key = jax.random.split(key, 3)
    rows = [params if request.param is None else row(params, i) for i in range(NUM_ENVS)]
    reset, step = quick_jit(WALK.reset), quick_jit(WALK.step)
    envs = [reset(k, p) for k, p in zip(jax.random.split(reset_key, NUM_ENVS), rows, strict=True)]
    returns, lengths, loops = np.zeros(NUM_ENVS), np.zeros(NUM_ENVS, int), []
    for rollout_key in (first_key, second_key):
        steps, episodes = [], []
        for act_key, *env_keys in jax.random.split(rollout_key, (NUM_STEPS, 1 + NUM_ENVS)):
            observation = jnp.stack([observation for observation, _ in envs])
            action, extras, _ = act(act_key, observation, jnp.asarray(lengths, jnp.int32))
            results = [step(k, state, a, p) for k, (_, state), a, p in zip(env_keys, envs, action, rows, strict=True)]
            envs = [(result[0], result[1]) for result in results]
            reward, terminated, truncated = (np.array([result[i] for result in results]) for i in (2, 3, 4))
            final = np.stack([result[5]["final_observation"] for result in results])
            steps.append((observation, action, reward, terminated, truncated, final, extras))
            returns, lengths = returns + reward, lengths + 1
            for i in np.flatnonzero(terminated | truncated):
                episodes.append((returns[i], lengths[i]))
                returns[i], lengths[i] = 0, 0
        last = np.stack([observation for observation, _ in envs])
        stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *steps)
        loops.append((stacked, last, np.array(episodes), returns.copy(), lengths.copy()))
    return compiled, loops


def test_transitions_are_those_of_the_loop(rollouts):
    (states, transitions), loops = rollouts
    for state, transition, (steps, last, *_) in zip(states, transitions, loops, strict=True):
        assert_close(tuple(transition), steps, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(state.observation, last, rtol=1e-5, atol=1e-5)
        assert transition.terminated.any()
        assert (transition.truncated & ~transition.terminated).any()


def test_next_observations_are_true_successors(rollouts):
    """Inside an episode the observation that follows; at its end another than that of the reset."""
    (_, transitions), _ = rollouts
    for transition in transitions:
        following, done = np.asarray(transition.observation[1:]), np.asarray(transition.done[:-1])
        successor = np.asarray(transition.next_observation[:-1])
        np.testing.assert_allclose(successor[~done], following[~done], rtol=1e-5, atol=1e-6)
        assert (np.abs(successor[done] - following[done]).max(axis=-1) > 0.1).all()
        np.testing.assert_allclose(transition.next_observation[..., 2:], transition.action, rtol=1e-5, atol=1e-6)  # reported


def test_episode_statistics_are_those_of_the_loop(rollouts):
    """Episodes run on from one rollout into the next, and are counted where they end."""
    (states, _), loops = rollouts
    for state, (_, _, episodes, returns, lengths) in zip(states, loops, strict=True):
        statistics, metrics = state.episodes, episode_metrics(state.episodes)
        assert metrics["episodes"] == len(episodes) > 0
        np.testing.assert_allclose(metrics["episode_return"], episodes[:, 0].mean(), rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(metrics["episode_length"], episodes[:, 1].mean(), rtol=1e-6)
        np.testing.assert_allclose(statistics.running_return, returns, rtol=1e-4, atol=1e-4)
        np.testing.assert_array_equal(statistics.running_length, lengths)


def test_equal_rows_of_params_are_shared_params():
    rows = jax.tree.map(lambda x: jnp.broadcast_to(x, (NUM_ENVS, *x.shape)), SHARED)
    run = quick_jit(two_rollouts, static_argnums=2)
    assert_close(run(jax.random.key(1), rows, 0), run(jax.random.key(1), SHARED, None))


def test_episodes_by_hand():
    """A cycle of rewards 1, 2, 4, 8, 16 cut after 3 steps: 7 per episode, and the successor of state 2 is 3, not 0."""
    env = Cycle(5)
    params = env.params([1.0, 2.0, 4.0, 8.0, 16.0], 3)
    choose = lambda key, observation, carry: (jnp.zeros(2, jnp.int32), (), carry)
    run = quick_jit(lambda state, n: rollout(jax.random.key(0), choose, env, params, state, n), static_argnums=1)
    state = init_rollout(jax.random.key(0), env, params, num_envs=2)

    state, transitions = run(state, 4)
    np.testing.assert_array_equal(transitions.observation[:, 0], [0, 1, 2, 0])
    np.testing.assert_array_equal(transitions.next_observation[:, 0], [1, 2, 3, 1])
    np.testing.assert_array_equal(transitions.truncated[:, 1], [False, False, True, False])
    assert not transitions.terminated.any()
    assert {name: float(x) for name, x in episode_metrics(state.episodes).items()} == {
        "episodes": 2,
        "episode_return": 7,
        "episode_length": 3,
    }
    np.testing.assert_array_equal(state.episodes.running_return, [1, 1])

    state, _ = run(state, 1)  # no episode ends
    metrics = episode_metrics(state.episodes)
    assert metrics["episodes"] == 0
    assert np.isnan([metrics["episode_return"], metrics["episode_length"]]).all()

    state, _ = run(state, 4)
    assert [float(x) for x in episode_metrics(state.episodes).values()] == [4, 7, 3]
    assert_same(state.episodes.running_length, np.zeros(2))


def steps(num_steps=1, num_envs=5, **parts):
    """Transitions of ones that go on; leaves of two sizes and of integers are observed."""
    ones = lambda *shape: jnp.ones((num_steps, num_envs, *shape))
    observation = {"image": ones(2, 3), "number": ones(), "choice": ones().astype(int)}
    flag = jnp.zeros((num_steps, num_envs), bool)
    return Transition(observation, (), ones(), flag, flag, observation, ())._replace(**parts)


def test_rewards_and_observations_that_are_no_numbers_are_counted_once():
    assert nonfinite_metrics(steps()) == {"nonfinite_rewards": 0, "nonfinite_observations": 0}
    ok = steps().observation
    lost = {
        "image": ok["image"].at[0, 0].set(jnp.nan).at[0, 1, 1, 2].set(jnp.inf),
        "number": ok["number"].at[0, 1:3].set(-jnp.inf),
    }
    lost |= {"choice": ok["choice"]}  # steps 0, 1 and 2, the second in both leaves
    rewards = jnp.array([[jnp.nan, jnp.inf, -jnp.inf, 1e38, 0.0]])
    found = nonfinite_metrics(steps(observation=lost, next_observation=lost, reward=rewards))
    assert found == {"nonfinite_rewards": 3, "nonfinite_observations": 3}
    assert {x.dtype for x in found.values()} == {jnp.dtype("float32")}

    ends = {
        "terminated": jnp.array([[True, True, False, True, True]]),
        "truncated": jnp.array([[False, True, True, True, False]]),
    }
    assert nonfinite_metrics(steps(next_observation=lost, **ends))["nonfinite_observations"] == 1, "behind the third alone"
    assert nonfinite_metrics(steps(observation=lost, **ends))["nonfinite_observations"] == 3, "whatever came of it"
    together = nonfinite_metrics(steps(observation=lost), steps(3, 2, reward=jnp.full((3, 2), jnp.nan)))
    assert together == {"nonfinite_rewards": 6, "nonfinite_observations": 3}


def test_no_gradient_flows_through_the_environment():
    def total(gain, detached):
        def act(key, observation, carry):
            action = jnp.full((2, 2), gain)
            return action, gain * observation[:, 0], carry

        start = init_rollout(jax.random.key(1), WALK, SHARED, 2)
        _, transitions = rollout(jax.random.key(0), act, WALK, SHARED, start, 3)
        if detached:
            return transitions.reward.sum() + transitions.next_observation.sum()
        return transitions.extras.sum()  # gain * observation: what the acting function computed keeps its gradient

    start = init_rollout(jax.random.key(1), WALK, SHARED, 2)
    gradient = quick_jit(jax.grad(total), static_argnums=1)
    assert gradient(0.1, True) == 0.0
    through_step = lambda gain: WALK.step(jax.random.key(0), row(start.env_state, 0), jnp.full(2, gain), SHARED)[2]
    assert quick_jit(jax.grad(through_step))(0.1) != 0.0  # it would, were it not stopped
    assert gradient(0.1, False) != 0.0
