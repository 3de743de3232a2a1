"""The replay buffer: what it keeps, returns over n steps against brute force, frequencies, and that it is written in place."""

import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checks import quick_jit
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxpg.algorithm import InputError
from jaxpg.replay import Step, add, init_buffer, reprioritize, sample

DISCOUNT = 0.9


class History(NamedTuple):
    """All that ever happened, (time, env); the observation is the step's number, that behind it the number plus a half."""

    rewards: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray

    def rows(self, start, stop):
        number = jnp.arange(start, stop)[:, None] + 1000.0 * jnp.arange(self.rewards.shape[1])
        part = (jnp.asarray(x[start:stop]) for x in self)
        reward, terminated, truncated = part
        return Step(number, number.astype(jnp.int32), reward, terminated, truncated, number + 0.5)


def history(length, num_envs, seed=0, ends=0.2):
    rng = np.random.default_rng(seed)
    flags = rng.random((2, length, num_envs)) < ends / 2
    return History(rng.normal(size=(length, num_envs)).astype(np.float32), *flags)


def filled(past, capacity, num_steps=1, n_step=1, prioritized=False):
    first = jax.tree.map(lambda x: x[0], past.rows(0, 1))
    buffer = init_buffer(first, capacity, num_steps, prioritized)
    write = quick_jit(lambda buffer, rows: add(buffer, rows, n_step))
    for start in range(0, len(past.rewards), num_steps):
        buffer = write(buffer, past.rows(start, start + num_steps))
    return buffer


def test_the_newest_rows_are_kept():
    buffer = filled(history(14, 3), capacity=15, num_steps=2)
    assert buffer.steps.reward.shape == (6, 3)  # 15 / 3 rows, rounded up to writes of two
    assert int(buffer.count) == 14
    assert sorted(np.asarray(buffer.steps.observation[:, 0])) == [8, 9, 10, 11, 12, 13]


def test_rows_that_do_not_fit_the_ring_are_refused():
    past = history(9, 2)
    buffer = filled(past, capacity=8, num_steps=2)
    with pytest.raises(InputError, match="3 rows at once"):
        add(buffer, past.rows(0, 3))


@given(seed=st.integers(0, 1000), n_step=st.integers(1, 5), length=st.integers(6, 30))
@settings(max_examples=30, deadline=None)
def test_returns_over_n_steps_equal_brute_force(seed, n_step, length):
    past, capacity_rows = history(length, 2, seed), 10
    buffer = filled(past, 2 * capacity_rows)
    drawn = quick_jit(sample, static_argnums=(2, 4))(jax.random.key(seed), buffer, 64, DISCOUNT, n_step)
    for i in range(64):
        env = int(drawn.env[i])
        t = int(drawn.observation[i]) - 1000 * env
        assert int(drawn.action[i]) == int(drawn.observation[i])
        assert max(0, length - capacity_rows) <= t <= length - n_step, "a step that is there, as are the n - 1 after it"
        total, factor = 0.0, 1.0
        for k in range(n_step):
            total += factor * past.rewards[t + k, env]
            factor *= DISCOUNT
            if past.terminated[t + k, env] or past.truncated[t + k, env]:
                break
        bootstrap = 0.0 if past.terminated[t + k, env] else factor
        np.testing.assert_allclose(drawn.reward[i], total, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(drawn.bootstrap[i], bootstrap, rtol=1e-5)
        assert float(drawn.next_observation[i]) == t + k + 0.5 + 1000 * env
        assert drawn.weight[i] == 1


def test_every_step_is_drawn_equally_often():
    past = history(23, 4)
    buffer = filled(past, capacity=40)
    drawn = sample(jax.random.key(0), buffer, 64_000, DISCOUNT, 3)
    counts = np.bincount(np.asarray(drawn.row * 4 + drawn.env), minlength=40).reshape(10, 4)
    # 23 rows were written into 10: rows 13 to 22, of which 21 and 22 have no two successors. Of eight rows and four columns
    # half of the steps would be missing if one number chose both.
    possible = counts[[t % 10 for t in range(13, 21)]]
    assert possible.sum() == 64_000
    np.testing.assert_allclose(possible, 64_000 / 32, rtol=0.08)


@pytest.mark.parametrize("garbage", [np.nan, np.inf])
@pytest.mark.parametrize("flag", ["terminated", "truncated"])
def test_rewards_of_the_next_episode_do_not_count_whatever_they_are(flag, garbage):
    """The episode ends with step 1; what follows it within the three steps is no number."""
    past = History(np.ones((6, 1), np.float32), *np.zeros((2, 6, 1), bool))
    getattr(past, flag)[1] = True
    past.rewards[2:] = garbage
    drawn = sample(jax.random.key(0), filled(past, 6), 64, 0.5, 3)
    first, second = drawn.row == 0, drawn.row == 1
    assert first.any()
    assert second.any()
    np.testing.assert_array_equal(drawn.reward[first], 1.5)
    np.testing.assert_array_equal(drawn.reward[second], 1.0)
    assert not np.isfinite(drawn.reward[drawn.row > 1]).any()
    assert np.isfinite(drawn.bootstrap).all()


@pytest.mark.parametrize("prioritized", [False, True])
def test_a_ring_that_was_written_for_ages_is_that_of_a_few_rounds(prioritized):
    """Its counter near the limit of int32, and over it: the same rows are written, and the same are drawn."""
    past, rows = history(40, 2), 10
    write = quick_jit(lambda buffer, rows: add(buffer, rows, 3))
    draw = quick_jit(lambda key, buffer: sample(key, buffer, 32, DISCOUNT, 3))
    young = filled(past, 2 * rows, 2, 3, prioritized)
    limit = 2**31 - 8
    assert (limit - int(young.count)) % rows == 0
    old = young._replace(count=jnp.int32(limit))
    for t in range(0, 20, 2):
        young, old = (write(buffer, past.rows(t, t + 2)) for buffer in (young, old))
        assert old.count > rows
        for key in jax.random.split(jax.random.key(t), 2):
            jax.tree.map(np.testing.assert_array_equal, draw(key, old), draw(key, young))
    jax.tree.map(np.testing.assert_array_equal, old.steps, young.steps)


def leaves_of(buffer):
    tree = buffer.priorities.tree
    return tree[tree.size // 2 :]


def prioritized_buffer(length=23, n_step=3):
    buffer = filled(history(length, 3), 30, n_step=n_step, prioritized=True)
    numbers = jnp.arange(30)
    known = (leaves_of(buffer)[:30] > 0).reshape(10, 3)
    everything = sample(jax.random.key(0), buffer, 30, DISCOUNT)._replace(row=numbers // 3, env=numbers % 3)
    wanted = jnp.where(known.ravel(), 1.0 + numbers, 0.0)
    return reprioritize(buffer, everything, wanted), np.asarray(wanted)


def test_steps_are_drawn_in_proportion_to_their_priorities():
    buffer, wanted = prioritized_buffer()
    assert (wanted > 0).reshape(10, 3).all(1).sum() == 8, "the two newest rows have no two successors yet"
    drawn = sample(jax.random.key(1), buffer, 100_000, DISCOUNT, 3, 0.7)
    index = np.asarray(drawn.row * 3 + drawn.env)
    shares = np.bincount(index, minlength=30) / index.size
    np.testing.assert_allclose(shares, wanted / wanted.sum(), atol=2e-4)  # stratified: far closer than chance
    weights = (24 * np.maximum(wanted, 1e-9) / wanted.sum()) ** -0.7 * (wanted > 0)
    np.testing.assert_allclose(drawn.weight, weights[index] / weights[index].max(), rtol=1e-4)


def test_sums_of_priorities_stay_exact():
    buffer, _ = prioritized_buffer()
    write = quick_jit(lambda buffer, rows: add(buffer, rows, 3))
    past = history(60, 3, seed=1)
    set_some = quick_jit(
        lambda key, buffer: reprioritize(
            buffer, drawn := sample(key, buffer, 7, DISCOUNT, 3), jnp.abs(drawn.reward) * 1e3 + 1e-6
        )
    )
    for t in range(60):
        buffer = set_some(jax.random.key(t), write(buffer, past.rows(t, t + 1)))
        tree = np.asarray(buffer.priorities.tree)
        np.testing.assert_array_equal(tree[1:32], tree[2::2] + tree[3::2])
    assert float(buffer.priorities.largest) >= float(leaves_of(buffer).max())


def test_new_steps_get_the_largest_priority():
    buffer, wanted = prioritized_buffer(n_step=1)
    buffer = add(buffer, history(24, 3).rows(23, 24))
    values = np.asarray(leaves_of(buffer))[:30].reshape(10, 3)
    np.testing.assert_array_equal(values[23 % 10], wanted.max())


def loop_over(capacity, prioritized):
    """A compiled loop that writes, samples and, with priorities, sets new ones; its buffer, full."""
    past = history(1, 1)
    step = past.rows(0, 1)
    step = step._replace(observation=jnp.ones((1, 1, 8)), next_observation=jnp.ones((1, 1, 8)))
    buffer = init_buffer(jax.tree.map(lambda x: x[0], step), capacity, 1, prioritized)._replace(count=jnp.int32(capacity))

    def turn(buffer, key):
        buffer = add(buffer, step)
        drawn = sample(key, buffer, 32, DISCOUNT)
        if prioritized:
            buffer = reprioritize(buffer, drawn, jnp.abs(drawn.reward) + 1.0)
        return buffer, drawn.reward.sum() + drawn.next_observation.sum()

    run = jax.jit(lambda buffer, keys: jax.lax.scan(turn, buffer, keys), donate_argnums=0)
    keys = jax.random.split(jax.random.key(0), 300)
    return run.lower(buffer, keys).compile(), buffer, keys


@pytest.mark.parametrize("prioritized", [False, True])
def test_an_insertion_costs_the_same_at_any_capacity(prioritized):
    seconds = {}
    for capacity in (2_000, 1_000_000):
        run, buffer, keys = loop_over(capacity, prioritized)
        memory = run.memory_analysis()
        if capacity == 1_000_000 and memory is not None:
            assert memory.temp_size_in_bytes < 0.2 * memory.argument_size_in_bytes, "the loop keeps a copy"
        found = []
        for _ in range(5):
            started = time.perf_counter()
            buffer, _ = jax.block_until_ready(run(buffer, keys))
            found.append(time.perf_counter() - started)
        seconds[capacity] = min(found)
    # 500 times the memory. A copy per turn would take 300 x 80 MB, seconds; caches and, of priorities, square roots do differ.
    assert seconds[1_000_000] < 12 * seconds[2_000] + 0.05
