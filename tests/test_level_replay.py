"""Levels of meta-learning agents: scored when a life ends, replayed by at most one agent at a time."""

import jax
import jax.numpy as jnp
import numpy as np
from checks import quick_jit
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxpg.algorithms.environment_design.level_buffer import init_buffer
from jaxpg.algorithms.meta_learning.level_replay import choose_slots, note_scores

CAPACITY, AGENTS, ENDINGS = 9, 4, 3
note = quick_jit(note_scores)
choose = quick_jit(choose_slots, static_argnums=(3, 4))
scores = st.floats(-5, 5, width=32)


@st.composite
def populations(draw):
    """A buffer in any state, and agents on it: at most one on a slot, and each slot that is played was scored."""
    filled = draw(st.integers(0, CAPACITY))
    of_slots = draw(st.lists(scores, min_size=CAPACITY, max_size=CAPACITY))
    seen = np.arange(CAPACITY) < filled
    buffer = init_buffer(CAPACITY, jnp.int32(0))._replace(
        level=jnp.arange(CAPACITY, dtype=jnp.int32), score=jnp.array(of_slots, jnp.float32), seen=jnp.array(seen)
    )
    on_slots = draw(st.lists(st.integers(0, filled - 1), unique=True, max_size=AGENTS)) if filled else []
    slots = np.array([*on_slots, *[CAPACITY] * (AGENTS - len(on_slots))], np.int32)
    return buffer, draw(st.permutations(slots.tolist()))


@given(populations(), st.lists(scores, min_size=ENDINGS, max_size=ENDINGS), st.integers(0, ENDINGS))
@settings(max_examples=60, deadline=None)
def test_scores_are_noted(population, found, number):
    buffer, slots = population
    ended, goes_on = np.array(slots[:ENDINGS], np.int32), slots[number:]
    exists = np.arange(ENDINGS) < number
    active = np.isin(np.arange(CAPACITY), goes_on)
    levels = 100 + jnp.arange(ENDINGS, dtype=jnp.int32)
    after = note(buffer, jnp.array(active), levels, jnp.array(ended), jnp.array(found, jnp.float32), jnp.array(exists), 7)
    level, score, seen = (np.asarray(x) for x in (after.level, after.score, after.seen))
    # Who goes on finds the level where it was, with the score it had.
    np.testing.assert_array_equal(level[active], np.asarray(buffer.level)[active])
    np.testing.assert_array_equal(score[active], np.asarray(buffer.score)[active])
    # By hand: scores of what was replayed, then what is new from the best on, each in the place of the lowest that is left.
    expected = {int(s): (int(s), float(np.float32(x))) for s, x in enumerate(buffer.score) if buffer.seen[s]}
    expected |= {
        int(s): (int(s), float(np.float32(x))) for s, x in zip(ended[:number], found[:number], strict=True) if s < CAPACITY
    }
    new = sorted(((float(np.float32(x)), -i) for i, x in enumerate(found[:number]) if ended[i] == CAPACITY), reverse=True)
    empty = [s for s in range(CAPACITY) if not buffer.seen[s]]
    by_score = sorted((s for s in expected if not active[s]), key=lambda s: expected[s][1])
    kept = dict(expected)
    for (x, minus), place in zip(new, [*empty, *by_score], strict=False):
        if place in empty or x >= expected[place][1]:
            kept[place] = (100 - minus, x)
    assert sorted(score[seen].tolist()) == sorted(x for _, x in kept.values())
    assert seen.sum() == len(kept) >= buffer.seen.sum()
    assert len({*level[seen].tolist()}) == seen.sum()


def test_the_lowest_makes_room_unless_it_is_played():
    buffer = init_buffer(3, jnp.int32(0))._replace(
        level=jnp.arange(3, dtype=jnp.int32), score=jnp.arange(3.0), seen=jnp.ones(3, bool)
    )
    one = jnp.array([100], jnp.int32), jnp.array([3], jnp.int32), jnp.array([5.0]), jnp.array([True])
    for active, levels, found in (([False] * 3, [100, 1, 2], [5, 1, 2]), ([True, False, False], [0, 100, 2], [0, 5, 2])):
        after = note(buffer, jnp.array(active), *one, 7)
        assert (after.level.tolist(), after.score.tolist()) == (levels, found)


@given(populations(), st.integers(0, 2**31), st.sampled_from([None, 0.5]), st.sampled_from([0.0, 0.5, 1.0]))
@settings(max_examples=60, deadline=None)
def test_slots_are_chosen(population, seed, temperature, probability):
    """Different ones, scored, which nobody plays; without a temperature of the best; all as soon as enough wait."""
    buffer, slots = population
    active = np.isin(np.arange(CAPACITY), slots)
    chosen = choose(jax.random.key(seed), buffer, jnp.array(active), ENDINGS, AGENTS, probability, temperature)
    replayed = [int(slot) for slot in chosen if slot < CAPACITY]
    waits = np.asarray(buffer.seen) & ~active
    assert len({*replayed}) == len(replayed)
    assert all(waits[slot] for slot in replayed)
    if waits.sum() < AGENTS or probability == 0:
        assert replayed == []
    elif probability == 1:
        assert len(replayed) == ENDINGS
    if temperature is None:
        best = np.sort(np.asarray(buffer.score)[waits])[::-1][:AGENTS]
        assert all(float(buffer.score[slot]) >= best[-1] for slot in replayed)


def test_replay_in_proportion_is_that_of_a_softmax():
    buffer = init_buffer(3, jnp.int32(0))._replace(score=jnp.array([0.0, 1.0, 2.0]), seen=jnp.ones(3, bool))
    keys = jax.random.split(jax.random.key(0), 4000)
    draw = lambda key: choose_slots(key, buffer, jnp.zeros(3, bool), 1, 1, 1.0, 0.5)[0]
    shares = np.bincount(quick_jit(jax.vmap(draw))(keys), minlength=3) / 4000
    expected = np.exp([0.0, 2.0, 4.0]) / np.exp([0.0, 2.0, 4.0]).sum()
    np.testing.assert_allclose(shares, expected, atol=4 * np.sqrt(0.25 / 4000))
