"""DRED's autoencoder of levels: its graph network, its loss, interpolation, and levels that are always valid."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checks import quick_jit, row
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxpg.algorithms.environment_design.level_vae import (
    LevelVAE,
    Logits,
    cell_features,
    generate,
    interpolate,
    is_ground,
    reconstruction_log_prob,
    sample_level,
    slerp,
    sum_of_neighbours,
    train_vae,
    vae_loss,
)
from jaxpg_envs.levels import EMPTY, LAVA, MOSS, WALL, CaveLevel, level_set

SIZE = 7
LEVELS = jax.tree.map(jnp.asarray, level_set("train", 0, 16, SIZE))
VAE = LevelVAE(SIZE * SIZE, latent_size=16, encoder_sizes=(64, 32))
KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def trained():
    """200 gradient steps, one per epoch."""
    return quick_jit(lambda key, levels: train_vae(key, VAE, levels, num_epochs=200, batch_size=16))(KEY, LEVELS)


# --- The graph network --------------------------------------------------------------------------------------------------


def test_features_of_cells():
    level = CaveLevel(jnp.array([[[EMPTY, WALL], [LAVA, MOSS]]], jnp.int8), jnp.array([0]), jnp.array([3]))
    expected = [[[1, 0, 0, 0, 1, 0], [0, 1, 0, 0, 0, 0]], [[0, 0, 1, 0, 0, 0], [0, 0, 0, 1, 0, 1]]]
    np.testing.assert_array_equal(cell_features(level)[0], expected)


def test_neighbours_are_those_of_the_graph():
    """Edges of the grid within ground and within the rest, never across."""
    layout = jax.random.randint(KEY, (3, 4, 5), 0, 4)
    h = jax.random.normal(KEY, (3, 4, 5, 2))
    sums = np.asarray(quick_jit(sum_of_neighbours)(h, is_ground(layout)))
    ground = np.isin(np.asarray(layout), [EMPTY, MOSS])
    for index, *cell in np.ndindex(3, 4, 5):
        expected = np.zeros(2)
        for other in np.ndindex(4, 5):
            touch = np.abs(np.subtract(cell, other)).sum() == 1
            if touch and ground[index][other] == ground[index, *cell]:
                expected += np.asarray(h)[index][other]
        np.testing.assert_allclose(sums[index, *cell], expected, rtol=1e-5, atol=1e-6)


# --- The loss -----------------------------------------------------------------------------------------------------------


def test_the_loss_by_hand():
    """A row of ground, goal, start and wall. Uniform logits: of 4 codes, of 3 cells for the goal, of 2 for the start."""
    level = CaveLevel(jnp.array([[[EMPTY, EMPTY, MOSS, WALL]]], jnp.int8), jnp.array([1]), jnp.array([2]))
    uniform = Logits(jnp.zeros((1, 4, 4)), jnp.zeros((1, 4)), jnp.zeros((1, 4)))
    log_prob = reconstruction_log_prob(uniform, level)
    np.testing.assert_allclose(log_prob["layout"], -np.log(4), rtol=1e-6)
    np.testing.assert_allclose(log_prob["goal"], -np.log(3), rtol=1e-6)
    np.testing.assert_allclose(log_prob["start"], -np.log(2), rtol=1e-6)
    mean, deviation = jnp.array([[1.0, 0.0]]), jnp.array([[1.0, 2.0]])
    kl = (0.5 + (0.5 * 4 - 0.5 - np.log(2))) / 2  # of two entries
    expected = 0.04 * np.log(4) + 0.013 * (np.log(3) + np.log(2)) + 0.1 * kl
    np.testing.assert_allclose(vae_loss(uniform, mean, deviation, level, 0.1), expected, rtol=1e-5)


def test_goal_and_start_are_half_empty_and_half_moss():
    level = CaveLevel(jnp.array([[[EMPTY, EMPTY, WALL]]], jnp.int8), jnp.array([0]), jnp.array([1]))
    likely = lambda code: Logits(
        jnp.log(jnp.full((1, 3, 4), 0.1).at[:, :, code].set(0.7)), jnp.zeros((1, 3)), jnp.zeros((1, 3))
    )
    by_hand = {EMPTY: (np.log(0.7) + np.log(0.1) + np.log(0.1)) / 3, MOSS: (np.log(0.7) + np.log(0.1) + np.log(0.1)) / 3}
    for code, expected in by_hand.items():
        np.testing.assert_allclose(reconstruction_log_prob(likely(code), level)["layout"], expected, rtol=1e-5)


def test_the_loss_falls(trained):
    _, losses = trained
    assert losses.shape == (200,)
    assert losses[-10:].mean() < 0.7 * losses[:5].mean()


def test_it_reconstructs_its_levels(trained):
    """Better than the frequency of every code in every cell; of 16 levels, held-out ones could not be learned."""
    variables, _ = trained
    mean, _ = VAE.apply(variables, LEVELS, method=LevelVAE.encode)
    logits = VAE.apply(variables, mean, method=LevelVAE.decode)
    shares = jax.nn.one_hot(LEVELS.layout, 4).mean(0).reshape(SIZE * SIZE, 4)
    baseline = logits._replace(layout=jnp.broadcast_to(jnp.log(shares + 1e-6), logits.layout.shape))
    found, expected = (reconstruction_log_prob(x, LEVELS)["layout"].mean() for x in (logits, baseline))
    assert found > expected


# --- Generation ---------------------------------------------------------------------------------------------------------


def test_slerp_by_hand():
    """Between perpendicular vectors along the circle; between nearly parallel ones along the line."""
    a, b = jnp.array([1.0, 0.0]), jnp.array([0.0, 1.0])
    np.testing.assert_allclose(slerp(a, b, 1 / 3), [np.cos(np.pi / 6), np.sin(np.pi / 6)], rtol=1e-5)
    near = jnp.array([1.0, 0.1])
    np.testing.assert_allclose(slerp(a, near, 0.25), [1.0, 0.025], rtol=1e-5)
    for share, end in ((0.0, a), (1.0, b)):
        np.testing.assert_allclose(slerp(a, b, share), end, atol=1e-6)
    assert jnp.isfinite(jax.grad(lambda a: slerp(a, a, 0.3).sum())(a)).all()


def test_codes_lie_between_different_levels():
    """Without spread: of every three codes the outer ones are means of two levels, and no level is used twice."""
    means = jax.random.normal(KEY, (6, 4))
    codes = np.asarray(interpolate(KEY, means, jnp.zeros((6, 4)), 3, 3)).reshape(3, 3, 4)
    ends = codes[:, [0, 2]].reshape(6, 4)
    matches = np.abs(ends[:, None] - np.asarray(means)).max(-1) < 1e-5
    assert (matches.sum(0) == 1).all()
    assert (matches.sum(1) == 1).all()
    assert not np.isclose(codes[:, 1, None], np.asarray(means)).all(-1).any()
    # With spread, at the ends that of the levels.
    deviations = jnp.full((6, 4), 2.0)
    noise = np.asarray(interpolate(KEY, means, deviations, 3, 3)).reshape(3, 3, 4) - codes
    assert 1.0 < noise.std() < 3.0


def assert_valid(levels):
    layout = np.asarray(levels.layout).reshape(len(levels.goal), -1)
    rows = np.arange(len(layout))
    assert (levels.goal != levels.start).all()
    for node in (np.asarray(levels.goal), np.asarray(levels.start)):
        assert (layout[rows, node] == EMPTY).all()
    assert np.isin(layout, [EMPTY, WALL, LAVA, MOSS]).all()


sample_many = quick_jit(lambda key, logits: jax.vmap(lambda key: sample_level(key, logits, (2, 3)))(jax.random.split(key, 64)))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([0.0, 1.0, 30.0]), st.sampled_from([None, WALL, LAVA, EMPTY]))
def test_generated_levels_are_valid(seed, spread, everywhere):
    """Also where there is no ground, or but one cell of it."""
    keys = jax.random.split(jax.random.key(seed), 3)
    layout = spread * jax.random.normal(keys[0], (6, 4))
    if everywhere is not None:
        layout = layout.at[: 6 if seed % 2 else 5, everywhere].add(1000.0)
    logits = Logits(layout, *(spread * jax.random.normal(key, (6,)) for key in keys[1:]))
    levels = sample_many(keys[0], logits)
    assert_valid(levels)
    ground = np.asarray(jax.nn.softmax(layout))[:, [EMPTY, MOSS]].sum(-1) > 0.5
    if ground.sum() >= 2:  # then the map is as the decoder has it
        assert ground[np.asarray(levels.goal)].all()
        assert ground[np.asarray(levels.start)].all()
        found = np.isin(np.asarray(levels.layout).reshape(64, 6), [EMPTY, MOSS])
        assert (found == ground).all()


def test_goal_and_start_follow_their_logits():
    """Everything ground: the goal by softmax, the start by softmax of the rest."""
    logits = Logits(jnp.zeros((6, 4)).at[:, EMPTY].set(9.0), jnp.log(jnp.array([0.75, 0.25, 0, 0, 0, 0]) + 1e-9), jnp.zeros(6))
    goals, starts = [], []
    for key in jax.random.split(KEY, 40):
        levels = sample_many(key, logits)
        goals, starts = [*goals, *levels.goal.tolist()], [*starts, *levels.start.tolist()]
    np.testing.assert_allclose(np.mean(np.array(goals) == 0), 0.75, atol=0.04)
    after_first = np.array(starts)[np.array(goals) == 0]
    np.testing.assert_allclose(np.bincount(after_first, minlength=6) / len(after_first), [0] + [0.2] * 5, atol=0.04)


def test_decoded_levels_are_valid_and_resemble_the_set(trained):
    """Of the posterior means: much closer to the levels than levels are to each other; one level's code at a time or all."""
    variables, _ = trained
    mean, _ = VAE.apply(variables, LEVELS, method=LevelVAE.encode)
    decoder = {kind: {"decoder": parts["decoder"]} for kind, parts in variables.items()}
    levels = quick_jit(lambda key, codes: generate(key, VAE, decoder, codes, (SIZE, SIZE)))(KEY, mean)
    assert_valid(levels)
    # Evaluation mode: what a code decodes to does not depend on the others in the batch.
    alone = VAE.apply(variables, mean[:1], method=LevelVAE.decode)
    together = VAE.apply(variables, mean, method=LevelVAE.decode)
    np.testing.assert_allclose(alone.layout, row(together.layout, slice(1)), rtol=1e-4, atol=1e-5)
    ground, decoded = is_ground(LEVELS.layout), is_ground(levels.layout)
    same = (ground == decoded).mean()
    others = (ground == jnp.roll(ground, 1, axis=0)).mean()
    assert same > others
