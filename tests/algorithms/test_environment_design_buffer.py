"""Level buffers and scores: formulas by hand, invariants for any contents."""

import jax
import jax.numpy as jnp
import numpy as np
from checks import assert_same, quick_jit, row
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxpg.algorithms.environment_design import level_buffer, scores
from jaxpg.algorithms.environment_design.level_buffer import (
    first_to_visit,
    init_buffer,
    insert,
    proportional_weights,
    rank_weights,
    sample,
    staleness_weights,
    update_scores,
)

CAPACITY, NEW, DATASET = 8, 3, 2
compiled_insert, compiled_update = quick_jit(insert), quick_jit(update_scores)
compiled_ranks, compiled_shares = quick_jit(rank_weights), quick_jit(proportional_weights)
few = settings(max_examples=60, deadline=None)
numbers = st.sampled_from([-1.0, 0.0, 0.25, 0.5, 1.0, 2.0, 3.0])  # ties are likely


def buffer_of(identities=(), is_dataset=True):
    """A buffer of levels that are numbers; empty slots hold 0."""
    dataset = jnp.asarray(identities, jnp.int32) if len(identities) else None
    buffer = init_buffer(CAPACITY, jnp.int32(0), dataset)
    return buffer if is_dataset else buffer._replace(is_dataset=jnp.zeros(CAPACITY, bool))


def insert_scored(buffer, identities, score, now=1, weights=None):
    """Levels enter by their score, those of the dataset stay; the lowest scores, or weights, leave first."""
    score = jnp.asarray(score, jnp.float32)
    weights = jnp.where(buffer.is_dataset, jnp.inf, buffer.score) if weights is None else weights
    return compiled_insert(buffer, jnp.asarray(identities, jnp.int32), score, score, score, buffer.score, weights, now)


def played(slots, score, max_returns=None):
    """What `update_scores` takes: these slots were played and scored."""
    scored = jnp.zeros(CAPACITY, bool).at[jnp.array(slots)].set(True)
    best = jnp.full(CAPACITY, -jnp.inf).at[jnp.array(slots)].set(jnp.asarray(score if max_returns is None else max_returns))
    score = jnp.zeros(CAPACITY).at[jnp.array(slots)].set(jnp.asarray(score, jnp.float32))
    return scores.Scores(scored, scored, score, score, score, best)


def update_played(buffer, slots, score, now):
    found = played(slots, score)
    return compiled_update(buffer, found, found.value_l1, now)


# --- Prioritisation -----------------------------------------------------------------------------------------------------


def test_ranks_by_hand():
    """Scores 3, 1, 2 of which the second is out: ranks 1 and 2, weights 1 and (1/2)^(1/0.5) = 1/4."""
    support = jnp.array([True, False, True])
    np.testing.assert_allclose(rank_weights(jnp.array([3.0, 9.0, 2.0]), support, 0.5), [0.8, 0, 0.2], rtol=1e-6)


def test_proportions_and_staleness_by_hand():
    """Ages 1, 3 and 6 in update 7, the last one out of the support."""
    np.testing.assert_allclose(
        proportional_weights(jnp.array([1.0, 3.0, -2.0]), jnp.ones(3, bool), 1.0), [0.25, 0.75, 0], rtol=1e-6
    )
    buffer = buffer_of([5, 6, 7])._replace(last_sampled=jnp.array([6, 4, 1, 0, 0, 0, 0, 0], jnp.int32))
    support = jnp.arange(CAPACITY) < 2
    np.testing.assert_allclose(staleness_weights(buffer, support, 7), [0.25, 0.75] + [0] * 6, rtol=1e-6)
    at_once = buffer._replace(last_sampled=jnp.full(CAPACITY, 7, jnp.int32))
    np.testing.assert_allclose(staleness_weights(at_once, support, 7), [0.5, 0.5] + [0] * 6)


@few
@given(
    st.lists(numbers, min_size=CAPACITY, max_size=CAPACITY),
    st.lists(st.booleans(), min_size=CAPACITY, max_size=CAPACITY),
    st.sampled_from([0.1, 0.3, 1.0, 2.0]),
)
def test_weights_are_the_formula(score, support, temperature):
    """(1 / rank)^(1 / T), normalised over the support; nothing outside, a sum of 1 or of 0 where there is none."""
    score, support = np.array(score, np.float32), np.array(support)
    weights = np.asarray(compiled_ranks(score, support, temperature), float)
    inside = np.flatnonzero(support)
    expected = np.zeros(CAPACITY)
    for rank, slot in enumerate(sorted(inside, key=lambda slot: (-score[slot], slot)), start=1):
        expected[slot] = (1.0 / rank) ** (1.0 / temperature)
    expected /= max(expected.sum(), 1e-30)
    np.testing.assert_allclose(weights, expected, rtol=1e-4, atol=1e-12)
    shares = np.asarray(compiled_shares(score, support, temperature), float)
    positive = np.where(support, np.maximum(score, 0.0), 0.0) ** (1.0 / temperature)
    expected = positive if positive.sum() > 0 else support.astype(float)
    np.testing.assert_allclose(shares, expected / max(expected.sum(), 1e-30), rtol=1e-4, atol=1e-12)


def test_what_has_no_probability_is_not_sampled():
    probabilities = jnp.array([0.0, 0.3, 0.0, 0.7, 0.0])
    slots = np.asarray(quick_jit(sample, static_argnums=2)(jax.random.key(0), probabilities, (40, 100)))
    assert set(slots.ravel()) == {1, 3}
    np.testing.assert_allclose((slots == 3).mean(), 0.7, atol=0.03)


# --- Writing ------------------------------------------------------------------------------------------------------------


def test_what_was_played_is_noted():
    """Slot 1 is scored twice, slot 3 once and played in vain later: its score stays, its age does not."""
    buffer = buffer_of([10, 11, 12, 13])
    buffer = update_played(buffer, [1, 3], [0.5, 2.0], 4)
    later = played([1], [0.25])
    later = later._replace(played=later.played.at[jnp.array([2, 3])].set(True))
    buffer = compiled_update(buffer, later, later.value_l1, 5)
    np.testing.assert_array_equal(buffer.score[:4], [0, 0.25, 0, 2])
    np.testing.assert_array_equal(buffer.max_return[:4], [-np.inf, 0.5, -np.inf, 2])
    np.testing.assert_array_equal(buffer.seen[:5], [False, True, False, True, False])
    np.testing.assert_array_equal(buffer.last_sampled[:4], [0, 5, 5, 5])


def test_levels_of_the_dataset_are_visited_in_turn():
    buffer = buffer_of([10, 11, 12, 13, 14])
    visited = []
    while level_buffer.to_visit(buffer).any():
        slots = first_to_visit(buffer, 2)
        visited.append(np.asarray(slots).tolist())
        buffer = update_played(buffer, slots, jnp.ones(2), 0)
    assert visited == [[0, 1], [2, 3], [4, 0]]


def test_insertion_by_hand():
    """A full buffer of scores 1 to 6 and two levels of the dataset: 0.5 does not enter, 5 and 9 put the lowest out."""
    buffer = update_played(buffer_of([90, 91]), [0, 1], [0.0, 0.0], 0)
    buffer, _ = insert_scored(buffer, [1, 2, 3], [1, 2, 3])
    buffer, _ = insert_scored(buffer, [4, 5, 6], [4, 5, 6])
    buffer, entered = insert_scored(buffer, [7, 8, 9], [5, 0.5, 9], now=3)
    assert entered.tolist() == [True, False, True]
    assert sorted(buffer.level.tolist()) == [3, 4, 5, 6, 7, 9, 90, 91]
    slot = buffer.level.tolist().index(9)
    assert [float(x) for x in row(buffer, slot)] == [9, 9, 9, 3, True, False]
    _, entered = insert_scored(buffer, [7, 8, 9], [-np.inf, 3, -np.inf])  # as high as the lowest: the old one goes
    assert entered.tolist() == [False, True, False]


def test_the_lowest_weight_is_evicted_whatever_its_score():
    """Scores 1 to 6 in slots 2 to 7, of weights 6 to 1: new levels of 9, 5 and 4.5 meet scores of 6, 5 and 4, and -inf none."""
    buffer, _ = insert_scored(buffer_of([90, 91]), [1, 2, 3], [1, 2, 3])
    buffer, _ = insert_scored(buffer, [4, 5, 6], [4, 5, 6])
    buffer = update_played(buffer, [0, 1], [0.0, 0.0], 0)
    slots = jnp.argsort(buffer.score)  # of both levels of the dataset first
    weights = jnp.zeros(CAPACITY).at[slots].set(jnp.array([jnp.inf, jnp.inf, 6, 5, 4, 3, 2, 1]))
    after, entered = insert_scored(buffer, [7, 8, 9], [4.5, 9, 5], weights=weights)
    assert entered.tolist() == [True, True, True]
    assert sorted(after.level.tolist()) == [1, 2, 3, 7, 8, 9, 90, 91]
    after, entered = insert_scored(buffer, [7, 8, 9], [3.5, 5.5, -np.inf], weights=weights)
    assert not entered.any()  # 5.5 meets 6, 3.5 meets 5
    assert_same(after, buffer)
    _, entered = insert_scored(buffer, [7, 8, 9], [9, 9, 9], weights=jnp.full(CAPACITY, jnp.inf).at[3].set(0.0))
    assert entered.sum() == 1


@few
@given(
    st.lists(st.tuples(st.booleans(), st.lists(numbers, min_size=NEW, max_size=NEW)), min_size=1, max_size=6),
    st.lists(st.integers(0, CAPACITY - 1), min_size=NEW, max_size=NEW),
)
def test_no_level_is_lost_or_doubled(operations, slots):
    """Whatever is inserted or played: the best ones remain, as if inserted one by one; the dataset is never evicted."""
    buffer, identity = buffer_of([100, 101]), 0
    held = []  # scores of what a list that keeps the best would hold
    for is_insertion, score in operations:
        if is_insertion:
            identities = range(identity + 1, identity + 1 + NEW)
            identity += NEW
            before = np.asarray(buffer.level)[np.asarray(buffer.seen)].tolist()
            buffer, entered = insert_scored(buffer, list(identities), score)
            held = sorted([*held, *score], reverse=True)[: CAPACITY - DATASET]
            kept = np.asarray(buffer.level)[np.asarray(buffer.seen)].tolist()
            assert len(set(kept)) == len(kept)
            assert set(kept) <= {*before, *identities}
            assert [identity in kept for identity in identities] == entered.tolist()
        else:
            held_slots = np.array(slots)[np.asarray(buffer.seen | buffer.is_dataset)[slots]]
            if len(held_slots):
                buffer = update_played(buffer, held_slots[:1], score[:1], 2)
            held = np.asarray(buffer.score)[np.asarray(buffer.seen & ~buffer.is_dataset)].tolist()
        generated = buffer.seen & ~buffer.is_dataset
        assert sorted(np.asarray(buffer.score)[np.asarray(generated)].tolist(), reverse=True) == sorted(held, reverse=True)
        assert buffer.level[:DATASET].tolist() == [100, 101]
        assert buffer.is_dataset.tolist() == [True] * DATASET + [False] * (CAPACITY - DATASET)


def test_levels_of_the_dataset_are_evicted_once_seen_where_they_are_not_kept():
    buffer = update_played(buffer_of(range(1, 9)), [0, 1, 2], [1.0, 1.0, 1.0], 0)
    buffer, entered = insert_scored(buffer, [21, 22, 23], [2, 2, 0.5], weights=buffer.score)
    assert entered.tolist() == [True, True, False]
    assert sorted(buffer.level.tolist()) == [3, 4, 5, 6, 7, 8, 21, 22]
    assert buffer.is_dataset.sum() == 6


# --- Scores -------------------------------------------------------------------------------------------------------------


def test_scores_by_hand():
    np.testing.assert_allclose(scores.max_mc(jnp.array([0.25]), jnp.array([1.0])), [0.75])
    np.testing.assert_allclose(scores.grounded(jnp.ones(3), jnp.array([-jnp.inf, 0.0, 0.1])), [0, 0, 1])
    np.testing.assert_allclose(scores.learnability(jnp.array([0, 1, 2, 4.0]), jnp.array([0, 4, 4, 4.0])), [0, 3 / 16, 0.25, 0])


def test_episodes_of_a_rollout():
    """Of two levels: returns 1, 2 and 0, the last one running; one that never ends."""
    rewards = jnp.array([[1.0, 1.0], [0.0, 0.0], [2.0, -3.0], [5.0, 1.0]])
    done = jnp.array([[True, False], [False, False], [True, False], [False, False]])
    episodes = quick_jit(scores.count_episodes)(rewards, done)
    np.testing.assert_array_equal(episodes.completed, [2, 0])
    np.testing.assert_array_equal(episodes.solved, [2, 0])
    np.testing.assert_array_equal(episodes.return_sum, [3, 0])
    np.testing.assert_array_equal(episodes.max_return, [2, -1])
    np.testing.assert_allclose(scores.regret(episodes, row(episodes, slice(None, None, -1))), [2 - 0, -1 - 1.5])


score_slots = quick_jit(scores.score_slots, static_argnums=5)


def test_a_slot_is_scored_by_the_last_episode_that_ended_on_it():
    """By hand, columns are environments. Slot 0: played twice in the first one and once in the third. Slot 1: in the first and,
    cut, in the second after an end. Slot 2: once. Slot 3: an episode that fills the rollout. Slot 4: cut. Slot 5: never."""
    slots = jnp.array([[0, 2, 3, 0], [0, 2, 3, 0], [0, 1, 3, 4], [1, 1, 3, 4]])
    done = jnp.array([[1, 0, 0, 0], [0, 1, 0, 1], [1, 0, 0, 0], [1, 0, 0, 0]], bool)
    rewards = jnp.array([[3.0, 0, 1, 0], [0, 1, 1, 2], [1, 9, 1, 9], [5, 9, -4, 9]])
    advantages = jnp.array([[9.0, 1, 1, 4], [1, -3, -1, -1], [-2, 9, 0, 9], [-6, 9, 2, 9]])
    values = jnp.array([[9.0, 1, 0, 1], [1, 2, 0, 2], [2, 9, 0, 9], [3, 9, 2, 9]])
    found = score_slots(slots, rewards, done, advantages, values, 6)
    np.testing.assert_array_equal(found.played, [True] * 5 + [False])
    np.testing.assert_array_equal(found.scored, [True, True, True, True, False, False])
    np.testing.assert_allclose(found.value_l1[:4], [2.5, 6, 2, 1])
    np.testing.assert_allclose(found.positive_value_loss[:4], [2, 0, 0.5, 0.75])
    np.testing.assert_allclose(found.mean_value[:4], [1.5, 3, 1.5, 0.5])
    np.testing.assert_array_equal(found.max_return, [3, 5, 1, -1, -np.inf, -np.inf])


@few
@given(st.integers(0, 2**31), st.sampled_from([0.02, 0.2, 0.6]))
def test_scores_are_those_of_a_loop(seed, share):
    """Over environments, then time: every episode that ends overwrites what its slot had."""
    rng = np.random.default_rng(seed)
    shape, num_slots = (9, 4), 5
    done = rng.random(shape) < share
    rewards, advantages, values = rng.normal(size=(3, *shape)).astype(np.float32)
    slots = np.zeros(shape, np.int32)
    expected = {}
    best, touched = np.full(num_slots, -np.inf, np.float32), set()
    for env in range(shape[1]):
        begin, slot = 0, rng.integers(num_slots)
        for time in range(shape[0]):
            slots[time, env] = slot
            touched.add(slot)
            fills = begin == 0 and time == shape[0] - 1
            if done[time, env] or fills:
                steps = slice(begin, time + 1)
                a, v = advantages[steps, env], values[steps, env]
                expected[slot] = np.abs(a).mean(), np.maximum(a, 0).mean(), v.mean()
                best[slot] = max(best[slot], rewards[steps, env].sum())
                begin, slot = time + 1, rng.integers(num_slots)
    found = score_slots(slots, rewards, done, advantages, values, num_slots)
    np.testing.assert_array_equal(found.played, [slot in touched for slot in range(num_slots)])
    np.testing.assert_array_equal(found.scored, [slot in expected for slot in range(num_slots)])
    measured = zip(found.value_l1, found.positive_value_loss, found.mean_value, strict=True)
    for slot, numbers_of in enumerate(measured):
        if slot in expected:
            np.testing.assert_allclose(numbers_of, expected[slot], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.max_return, best, rtol=1e-4, atol=1e-5)
