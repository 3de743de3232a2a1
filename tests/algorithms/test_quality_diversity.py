"""MAP-Elites and its relatives: the repertoire's invariants, variation, memory, episodes, and what each emitter learns."""

import itertools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from checks import assert_close, assert_same, numbers, quick_jit, row
from environments import Walk
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxpg
import jaxpg_envs
from jaxpg.algorithm import InputError
from jaxpg.algorithms.quality_diversity.cma_me import improvement_ranks, make_strategy
from jaxpg.algorithms.quality_diversity.dcrl_map_elites import specialize
from jaxpg.algorithms.quality_diversity.episodes import (
    Controller,
    as_task,
    controller_network,
    network_controller,
    run_genotypes,
)
from jaxpg.algorithms.quality_diversity.gradients import similarity
from jaxpg.algorithms.quality_diversity.me_es import NEIGHBOURS, ascent_direction, elite_probabilities, novelty
from jaxpg.algorithms.quality_diversity.memory import grow_memory, init_memory, random_rows, remember
from jaxpg.algorithms.quality_diversity.repertoire import (
    add,
    init_repertoire,
    nearest,
    sample,
    score,
    unit_centroids,
)
from jaxpg.algorithms.quality_diversity.reproducibility import distilled_policy, reproducibility
from jaxpg.algorithms.quality_diversity.variation import isoline, policy_gradient
from jaxpg.training import advance
from jaxpg_envs.point_omni import PointOmni

KEY = jax.random.key(0)
NAMES = ("map_elites", "cma_me", "me_es", "pga_map_elites", "dcg_map_elites", "dcrl_map_elites")
STEPS = 6
EDGE = 0.01
SMALL = {"num_cells": 16, "num_offspring": 8, "hidden_sizes": (4,), "total_steps": 8 * STEPS * 10}
LEARNING = {"critic_hidden_sizes": (4,), "critic_steps": 3, "policy_gradient_steps": 2, "batch_size": 5}


class Cliff(PointOmni):
    """An episode ends early where x passes `EDGE`; counts its traces."""

    traces = 0

    def step_env(self, key, state, action, params):
        Cliff.traces += 1
        return super().step_env(key, state, action, params)

    def is_terminated(self, state, params):
        return state.position[0] > EDGE


CLIFF = Cliff()
PARAMS = CLIFF.default_params.replace(max_steps_in_episode=STEPS, half_width=0.2)
TASK = as_task("a test", CLIFF, PARAMS)


def small(name, **fields):
    own = {
        "map_elites": {},
        "cma_me": {"num_emitters": 2},
        "me_es": {"num_offspring": 9, "generations_per_elite": 2, "sigma": 0.1},
    }
    learning = own.get(name, LEARNING)
    actor = {"actor_hidden_sizes": (5,)} if name == "dcg_map_elites" else {}
    return jaxpg.make(name, CLIFF, PARAMS, **(SMALL | learning | actor | fields))


# --- The repertoire -----------------------------------------------------------------------------------------------------


def test_centroids_divide_the_space_evenly():
    centroids = unit_centroids(64, 2)
    assert centroids.shape == (64, 2)
    assert np.abs(centroids).max() < 1
    shares = np.bincount(nearest(jnp.array(centroids), jax.random.uniform(KEY, (20_000, 2), minval=-1)), minlength=64) / 20_000
    assert shares.min() > 0.4 / 64
    assert shares.max() < 2 / 64
    assert unit_centroids(64, 2) is centroids


CELLS = jnp.array([[-0.5, -0.5], [0.5, -0.5], [-0.5, 0.5], [0.5, 0.5]])
ADD = quick_jit(add)


def empty():
    return init_repertoire({"a": jnp.zeros(4), "b": jnp.zeros((4, 2))}, CELLS)


def individuals(identities):
    identities = jnp.asarray(identities, jnp.float32)
    return {"a": identities, "b": jnp.stack([identities, -identities], 1)}


generation = st.lists(
    st.tuples(st.sampled_from([0.0, 1.0, 1.0, 2.0, -1.0, np.nan]), st.floats(-1, 1, width=32), st.floats(-1, 1, width=32)),
    min_size=6,
    max_size=6,
)


@settings(max_examples=60, deadline=None)
@given(st.lists(generation, min_size=1, max_size=3))
def test_a_repertoire_is_what_a_loop_over_its_offspring_makes_of_it(generations):
    repertoire, kept = empty(), {}
    for index, offspring in enumerate(generations):
        fitnesses, *descriptor = (np.array(x, np.float32) for x in zip(*offspring, strict=True))
        descriptors = np.stack(descriptor, 1)
        identities = np.arange(1, 7) + 10 * index
        before = repertoire
        repertoire, added = ADD(repertoire, individuals(identities), jnp.array(fitnesses), jnp.array(descriptors))
        for identity, fitness, descriptor in zip(identities, fitnesses, descriptors, strict=True):
            cell = int(np.square(descriptor - np.array(CELLS)).sum(1).argmin())
            if not np.isnan(fitness) and fitness > kept.get(cell, (-np.inf,))[0]:
                kept[cell] = (fitness, identity, descriptor)
        assert (repertoire.fitnesses >= before.fitnesses).all()
        winners = {identity for _, identity, _ in kept.values()}
        assert set(identities[np.array(added)]) == winners & set(identities)
    np.testing.assert_array_equal(np.flatnonzero(repertoire.filled), sorted(kept))
    for cell, (fitness, identity, descriptor) in kept.items():
        assert repertoire.fitnesses[cell] == fitness
        assert repertoire.genotypes["a"][cell] == identity
        assert repertoire.genotypes["b"][cell].tolist() == [identity, -identity]
        np.testing.assert_array_equal(repertoire.descriptors[cell], descriptor)
    measured = score(repertoire)
    np.testing.assert_allclose(measured["qd_score"], sum(fitness for fitness, *_ in kept.values()), atol=1e-6)
    assert measured["coverage"] == len(kept) / 4


def test_of_equally_fit_offspring_the_first_gets_in_whole():
    repertoire, added = ADD(empty(), individuals(range(1, 6)), jnp.ones(5), jnp.full((5, 2), 0.4))
    assert added.tolist() == [True, False, False, False, False]
    assert repertoire.genotypes["a"][3] == 1
    again, added = ADD(repertoire, individuals(range(6, 11)), jnp.ones(5), jnp.full((5, 2), 0.6))
    assert not added.any()  # not strictly better
    assert_same(again, repertoire)


def test_parents_are_drawn_evenly_from_filled_cells():
    repertoire = empty()._replace(fitnesses=jnp.array([1.0, -jnp.inf, 5.0, 0.0]))
    counts = np.bincount(sample(KEY, repertoire, 9_000), minlength=4)
    assert counts[1] == 0
    np.testing.assert_allclose(counts[[0, 2, 3]], 3_000, atol=200)


# --- Variation ----------------------------------------------------------------------------------------------------------


def test_offspring_lie_on_the_line_between_parents_and_around_it():
    keys = jax.random.split(KEY, 4)
    shapes = {"a": (2_000, 3), "b": (2_000,)}
    x, y = (
        {name: jax.random.normal(k, shapes[name]) for name, k in zip(shapes, pair, strict=True)}
        for pair in (keys[:2], keys[2:])
    )
    offspring = isoline(KEY, x, y, 0.0, 0.5)
    steps = jax.tree.map(lambda z, x, y: (z - x) / (y - x), offspring, x, y)
    np.testing.assert_allclose(steps["a"], np.broadcast_to(steps["b"][:, None], (2_000, 3)), rtol=1e-2, atol=1e-3)
    np.testing.assert_allclose([np.mean(steps["b"]), np.std(steps["b"])], [0.0, 0.5], atol=0.04)
    assert_same(isoline(KEY, x, y, 0.0, 0.0), x)
    around = jax.tree.map(lambda z, x: np.ravel(z - x), isoline(KEY, x, y, 0.3, 0.0), x)
    np.testing.assert_allclose([np.std(around["a"]), np.std(around["b"])], 0.3, atol=0.02)
    assert abs(np.corrcoef(around["a"][::3], around["b"])[0, 1]) < 0.08


def test_gradients_are_an_adam_of_each_parent_s_own():
    observations = jax.random.normal(KEY, (5, 7, 2))
    scales = jnp.array([1.0, 10.0, 0.0])
    parents = {"w": jnp.array([[1.0, 2.0], [-1.0, 0.5], [3.0, 3.0]])}
    of_one = lambda w, scale, batch: -scale * jnp.square(batch @ w - 1.0)
    value = lambda genotypes, batch: jax.vmap(of_one, (0, 0, None))(genotypes["w"], scales, batch)
    improved = policy_gradient(value, parents, observations, 0.1)
    for i, scale in enumerate(scales):
        w, adam = parents["w"][i], optax.adam(0.1)
        state = adam.init(w)
        for batch in observations:
            gradient = jax.grad(lambda w, scale=scale, batch=batch: -of_one(w, scale, batch).mean())(w)
            change, state = adam.update(gradient, state)
            w = w + change
        np.testing.assert_allclose(improved["w"][i], w, rtol=1e-5)


# --- Memory -------------------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.booleans(), min_size=4, max_size=4), min_size=1, max_size=6))
def test_a_memory_is_a_ring_of_the_valid_rows(writes):
    memory, written = init_memory(5, 2), []
    for index, valid in enumerate(writes):
        numbers = 4 * index + np.arange(4)
        memory = REMEMBER(memory, jnp.stack([jnp.array(numbers, jnp.float32)] * 2, 1), jnp.array(valid))
        written += numbers[valid].tolist()
    assert memory.count == len(written)
    expected = np.zeros(5)
    for index, number in enumerate(written):
        expected[index % 5] = number
    np.testing.assert_array_equal(memory.rows, np.stack([expected] * 2, 1))
    if written:
        assert set(np.unique(random_rows(KEY, memory, 200))) == set(range(min(len(written), 5)))


def test_a_memory_that_was_written_for_ages_stays_within_its_rows():
    """Over the limit of int32: what is drawn is there, and rows are written one after the other."""
    write = quick_jit(remember)
    memory = init_memory(5, 1)._replace(count=jnp.int32(2**31 - 3))  # the last digit's place: 2^31 - 3 = 0 modulo 5
    for number in range(9):
        memory = write(memory, jnp.full((2, 1), float(number)), jnp.array([True, False]))
        assert memory.rows[number % 5] == number
        drawn = random_rows(KEY, memory, 200)
        assert drawn.min() >= 0
        assert drawn.max() < 5
        assert set(np.unique(drawn)) == set(range(5))


def test_a_grown_memory_goes_on_where_it_was():
    """As one that was large from the beginning."""
    memories = init_memory(4, 1), init_memory(7, 1)
    write = lambda memory, start: REMEMBER(memory, jnp.arange(start, start + 3.0)[:, None], jnp.array([True, False, True]))
    small, large = (write(write(memory, 1), 4) for memory in memories)
    assert_same(write(grow_memory(small, 7), 7), write(large, 7))


@pytest.mark.parametrize("lost", [[np.nan, 0.5], [0.5, np.inf]])
def test_who_has_no_finite_descriptor_does_not_get_in(lost):
    descriptors = jnp.array([lost, [0.5, 0.5]])
    repertoire, added = ADD(empty(), individuals([1, 2]), jnp.array([9.0, 1.0]), descriptors)
    assert added.tolist() == [False, True]
    assert np.isfinite(repertoire.descriptors).all()


REMEMBER = quick_jit(remember)


@pytest.mark.parametrize("name", NAMES[3:])
def test_a_memory_too_small_for_a_generation_is_refused(name):
    steps = 8 * STEPS * (2 if name == "dcg_map_elites" else 1)
    small(name, buffer_size=steps)
    with pytest.raises(InputError, match=f"{steps - 1} steps cannot hold the {steps}.*buffer_size"):
        small(name, buffer_size=steps - 1)


# --- Evolution strategies -----------------------------------------------------------------------------------------------


def test_improvements_are_ranked_discoveries_first():
    """Two discoveries by fitness, two improvements by how much (4 and 3), one that is worse, one without a fitness."""
    fitnesses = jnp.array([5.0, 1.0, jnp.nan, 2.0, 7.0, -3.0])
    elites = jnp.array([1.0, -jnp.inf, -jnp.inf, 3.0, 4.0, -jnp.inf])
    ranks, improves = quick_jit(improvement_ranks)(fitnesses, elites)
    np.testing.assert_array_equal(ranks, [2, 0, 5, 4, 3, 1])
    np.testing.assert_array_equal(improves, [True, True, False, False, True, True])


def test_strategies_move_towards_what_they_discovered(runs):
    """The mean is a mean of the better half of the offspring, or a random elite where none got in."""
    states = runs["cma_me"].states
    flat = lambda genotypes, axes: np.concatenate(
        [np.asarray(x).reshape(*x.shape[:axes], -1) for x in jax.tree.leaves(genotypes)], axis=-1
    )
    for before, after in itertools.pairwise(states[1:]):
        offspring = flat(before.emitter.offspring, 2)
        evaluated = flat(after.repertoire.genotypes, 1)
        np.testing.assert_array_equal(before.emitter.fitnesses, before.repertoire.fitnesses)
        for index in range(2):
            got_in = [any(np.array_equal(x, elite) for elite in evaluated) for x in offspring[index]]
            mean = after.emitter.states.mean[index]
            if any(got_in):
                weights, *_ = np.linalg.lstsq(offspring[index].T, mean, rcond=None)
                np.testing.assert_allclose(weights.sum(), 1.0, atol=1e-3)
                np.testing.assert_allclose(weights @ offspring[index], mean, atol=1e-4)
            else:
                assert any(np.allclose(mean, elite, atol=1e-6) for elite in flat(before.repertoire.genotypes, 1))


def test_a_diagonal_covariance_is_learned_as_quickly_as_it_can_be():
    """Axes of an ellipsoid a thousand times as long as others, against the rates of full covariances that evosax has."""
    size, generations = 50, 300
    strategy, options = make_strategy(16, jnp.zeros(size))
    weights = np.log(17 / 2) - np.log(np.arange(1, 9))
    mu_eff = weights.sum() ** 2 / (weights**2).sum()
    c_1, c_mu = 2 / ((size + 1.3) ** 2 + mu_eff), 2 * (mu_eff + 1 / mu_eff - 2) / ((size + 2) ** 2 + mu_eff)
    np.testing.assert_allclose([options.c_1, options.c_mu], np.array([c_1, c_mu]) * (size + 2) / 3, rtol=1e-4)
    for huge in (2, 1000):  # rates stay rates, whatever the sizes
        rates = make_strategy(huge, jnp.zeros(3))[1]
        assert 0 < rates.c_1 + rates.c_mu <= 1

    @quick_jit
    def best(options):
        def generation(state, key):
            points, state = strategy.ask(key, state, options)
            values = (1e6 ** jnp.linspace(0, 1, size) * points**2).sum(-1)
            return strategy.tell(key, points, values, state, options)[0], values.min()

        state = strategy.init(KEY, jnp.ones(size), options)
        state = jax.tree.map(lambda x: jax.lax.convert_element_type(x, jnp.asarray(x).dtype), state)
        return jax.lax.scan(generation, state, jax.random.split(KEY, generations))[1][-1]

    assert best(options) < 0.1 * best(strategy.default_params)


def test_strategies_share_the_offspring_evenly():
    with pytest.raises(InputError, match="num_offspring = 8 does not divide into num_emitters = 3"):
        small("cma_me", num_emitters=3)
    with pytest.raises(InputError, match=r"num_offspring = num_emitters = 8 leaves one offspring to each, .* at least 16"):
        small("cma_me", num_emitters=8)


def test_the_direction_of_ascent_is_that_of_evosax():
    """But for its scale: 1 / (2 sigma)."""
    from evosax.algorithms import Open_ES

    sigma, mean = 0.3, jnp.array([1.0, -2.0, 0.5])
    strategy = Open_ES(8, mean, optimizer=optax.sgd(1.0), std_schedule=optax.constant_schedule(sigma))
    options = strategy.default_params
    samples, state = strategy.ask(KEY, strategy.init(KEY, mean, options), options)
    values = -jnp.square(samples - jnp.array([2.0, -2.0, 0.0])).sum(1)
    state, _ = strategy.tell(KEY, samples, -values, state, options)
    direction = ascent_direction(values.reshape(2, 4), (samples[:4] - mean) / sigma)
    np.testing.assert_allclose(direction / (2 * sigma), state.mean - mean, rtol=1e-4, atol=1e-6)
    assert direction @ jnp.array([1.0, 0.0, -0.5]) > 0


def test_novelty_is_the_mean_squared_distance_to_the_nearest():
    achieved = np.asarray(jax.random.normal(KEY, (30, 2)))
    descriptors = jax.random.normal(jax.random.key(1), (5, 2))
    distances = np.sort(np.square(np.asarray(descriptors)[:, None] - achieved).sum(-1), axis=1)
    rows = jnp.concatenate([achieved, jnp.full((7, 2), jnp.nan)])
    np.testing.assert_allclose(novelty(descriptors, rows), distances[:, :NEIGHBOURS].mean(1), rtol=1e-5)
    few = jnp.where(jnp.arange(len(rows))[:, None] < 3, rows, jnp.nan)
    expected = np.square(np.asarray(descriptors)[:, None] - achieved[:3]).sum(-1).mean(1)
    np.testing.assert_allclose(novelty(descriptors, few), expected, rtol=1e-5)
    np.testing.assert_array_equal(novelty(descriptors, jnp.full_like(rows, jnp.nan)), 0.0)


def test_a_climb_begins_at_the_fittest_or_most_novel_elites():
    fitnesses = jnp.array([3.0, -jnp.inf, 5.0, 1.0, 2.0, 0.0, 4.0, 3.5])
    novelties = jnp.array([0.1, 9.0, 0.2, 4.0, 3.0, 1.0, 1.5, 0.5])
    for_fitness = elite_probabilities(fitnesses, novelties, jnp.bool_(False))
    np.testing.assert_allclose(for_fitness, np.array([1, 0, 8, 1, 1, 1, 1, 1]) / 14, rtol=1e-6)
    for_novelty = elite_probabilities(fitnesses, novelties, jnp.bool_(True))
    best = np.array([0, 0, 0, 4.0, 3.0, 1.0, 1.5, 0.5])
    np.testing.assert_allclose(for_novelty, 0.1 * np.array([1, 0, 1, 1, 1, 1, 1, 1]) / 7 + 0.9 * best / 10, rtol=1e-6)
    unknown = elite_probabilities(fitnesses, jnp.zeros(8), jnp.bool_(True))
    np.testing.assert_allclose(unknown, np.array([1, 0, 1, 1, 1, 1, 1, 1]) / 7, rtol=1e-6)


@pytest.mark.parametrize("generation", [1, 3])
def test_me_es_climbs_for_fitness_and_then_for_novelty(generation, runs):
    """From a random elite, by Adam's first step (the sign of the direction, mostly) after the samples are run again."""
    run = runs["me_es"]
    before, after = (run.states[i].emitter for i in (generation, generation + 1))
    flat = lambda genotypes, axes=0: np.concatenate(
        [np.asarray(x).reshape(*x.shape[:axes], -1) for x in jax.tree.leaves(genotypes)], axis=-1
    )
    elites = flat(run.states[generation].repertoire.genotypes, 1)
    assert any(np.array_equal(flat(before.mean), elite) for elite in elites)
    controller = network_controller(controller_network(TASK, (4,)), TASK)
    moved = lambda sign: jax.tree.map(lambda x, e: x + sign * 0.1 * e, before.mean, before.noise)
    rows = jax.tree.map(lambda *x: jnp.concatenate(x), jax.tree.map(lambda x: x[None], before.latest), moved(1.0), moved(-1.0))
    episodes = quick_jit(lambda rows: run_genotypes(KEY, TASK, controller, rows))(rows)
    np.testing.assert_allclose(after.achieved[generation - 1], episodes.descriptors[0], atol=1e-6)
    assert np.isfinite(after.achieved).all(1).sum() == generation
    values = episodes.fitnesses[1:]
    if generation == 3:
        known = np.asarray(after.achieved[:3])
        values = np.square(np.asarray(episodes.descriptors[1:])[:, None] - known).sum(-1).mean(1)
    ranks = np.argsort(np.argsort(values))
    direction = ((ranks[:4] - ranks[4:])[:, None] * flat(before.noise, 1)).sum(0) / (4 * 7) - 0.005 * flat(before.mean)
    stepped = flat(before.mean) + 0.01 * direction / (np.abs(direction) + 1e-8)
    np.testing.assert_allclose(flat(after.mean), stepped, atol=1e-5)
    np.testing.assert_array_equal(flat(after.latest), flat(after.mean))


def test_where_a_climb_ended_is_evaluated_though_another_begins(runs):
    states = runs["me_es"].states
    ended = states[3].emitter
    elites = jax.tree.leaves(states[3].repertoire.genotypes)
    same = np.all(
        [(x == y).reshape(len(x), -1).all(1) for x, y in zip(elites, jax.tree.leaves(ended.mean), strict=True)], axis=0
    )
    assert same.any()
    assert not all(np.array_equal(x, y) for x, y in zip(*map(jax.tree.leaves, (ended.latest, ended.mean)), strict=True))
    assert not any(leaf.any() for leaf in jax.tree.leaves(ended.optimizer_state))


def test_me_es_needs_a_mean_besides_its_pairs():
    with pytest.raises(InputError, match=r"num_offspring = 8 must be odd.*take 7 or 9"):
        small("me_es", num_offspring=8)


# --- Episodes -----------------------------------------------------------------------------------------------------------


def test_episodes_are_those_that_one_steps_by_hand():
    network = controller_network(TASK, (4,))
    controller = network_controller(network, TASK)
    genotypes = jax.vmap(controller.init)(jax.random.split(KEY, 8))
    episodes = quick_jit(lambda genotypes: run_genotypes(KEY, TASK, controller, genotypes))(genotypes)
    assert len(set(episodes.lengths.tolist())) > 1  # some fall, some do not
    for i in range(8):
        observation, state = CLIFF.reset(KEY, PARAMS)
        fitness, ended = 0.0, False
        for time in range(STEPS):
            assert bool(episodes.steps.valid[time, i]) == (not ended)
            if ended:
                continue
            np.testing.assert_allclose(episodes.steps.features[time, i], observation, rtol=1e-5, atol=1e-6)
            action = network.apply(row(genotypes, i), observation)
            observation, state, reward, terminated, truncated, info = CLIFF.step(KEY, state, action, PARAMS)
            np.testing.assert_allclose(episodes.steps.next_features[time, i], info["final_observation"], rtol=1e-5, atol=1e-6)
            assert bool(episodes.steps.terminated[time, i]) == bool(terminated)
            fitness, ended = fitness + float(reward), bool(terminated | truncated)
            descriptor, length = info["descriptor"], time + 1
        np.testing.assert_allclose(episodes.fitnesses[i], fitness, rtol=1e-5)
        np.testing.assert_allclose(episodes.descriptors[i], descriptor, rtol=1e-5, atol=1e-7)
        assert episodes.lengths[i] == length


def test_an_open_loop_genotype_is_the_actions():
    env, params = jaxpg_envs.make("PlanarArm-v0", num_joints=5)
    algorithm = jaxpg.make("map_elites", env, params, controller="open_loop", num_cells=32, num_offspring=64, total_steps=2_000)
    state, _ = quick_jit(lambda key: advance(algorithm.update, algorithm.init(key), 20))(KEY)
    measured = score(state.repertoire)
    assert measured["coverage"] > 0.5
    cell = int(jnp.argmax(state.repertoire.fitnesses))
    angles = np.clip(np.array(state.repertoire.genotypes[cell, 0]), -1, 1)
    np.testing.assert_allclose(state.repertoire.fitnesses[cell], 0.5 - np.std(angles / 2), rtol=1e-4)
    policy = algorithm.policy(state)
    np.testing.assert_allclose(jaxpg.evaluate(policy, env, params, KEY, 3), measured["max_fitness"], rtol=1e-5)
    assert algorithm.env_steps_per_update == 64


def test_an_actor_specialised_is_the_conditioned_actor():
    network = controller_network(TASK, (7, 3))
    actor = jax.tree.map(lambda x: x + 0.1, network.init(KEY, jnp.zeros(5 + 2)))  # biases too
    features, descriptors = jax.random.normal(KEY, (9, 5)), jax.random.normal(KEY, (9, 2))
    folded = jax.vmap(specialize, (None, 0))(actor, descriptors)
    np.testing.assert_allclose(
        jax.vmap(network.apply)(folded, features),
        network.apply(actor, jnp.concatenate([features, descriptors], 1)),
        atol=1e-6,
    )
    shapes = lambda tree: jax.tree.map(jnp.shape, tree)
    assert shapes(row(folded, 0)) == shapes(network.init(KEY, jnp.zeros(5)))
    with pytest.raises(InputError, match="hidden_sizes"):
        specialize(controller_network(TASK, ()).init(KEY, jnp.zeros(7)), jnp.zeros(2))


def test_similarity_is_one_at_the_target_and_falls_with_distance():
    targets = jnp.array([[0.0, 0.0], [0.3, 0.4], [0.0, 1.0]])
    np.testing.assert_allclose(similarity(jnp.zeros((3, 2)), targets, 0.5), np.exp([0.0, -1.0, -2.0]), rtol=1e-6)


# --- The algorithms -----------------------------------------------------------------------------------------------------

ABLATIONS = ("no_actor_episodes", "relabelled_negatives", "unconditioned_actor")


class Runs(dict):
    """Each algorithm, once it is asked for, after 0 to 4 generations, and the last one's repertoire run again."""

    def __missing__(self, name):
        algorithm = small(name)
        init, update = quick_jit(algorithm.init), quick_jit(algorithm.update)
        states = [init(KEY)]
        for _ in range(4):
            state, metrics = update(states[-1])
            states.append(state)
        measure = quick_jit(lambda state: reproducibility(KEY, algorithm, CLIFF, PARAMS, state))
        run = {"algorithm": algorithm, "states": states, "metrics": metrics, "update": update, "again": measure(states[-1])}
        self[name] = SimpleNamespace(**run)
        return self[name]


@pytest.fixture(scope="module")
def runs():
    return Runs()


@pytest.mark.parametrize("name", NAMES)
def test_generations_keep_the_state_in_shape_trace_once_and_never_lose(name, runs):
    run = runs[name]
    describe = lambda tree: jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), tree)
    before = jax.eval_shape(run.algorithm.init, KEY)
    assert describe(jax.eval_shape(run.algorithm.update, before)[0]) == describe(before)
    traces = Cliff.traces
    run.update(run.states[-1])
    assert Cliff.traces == traces
    assert run.update._cache_size() == 1
    assert all(np.isfinite(value) for value in run.metrics.values())
    assert run.metrics["rejected"] == 0
    for before, after in zip(run.states, run.states[1:], strict=False):
        assert (after.repertoire.fitnesses >= before.repertoire.fitnesses).all()
    filled = run.states[-1].repertoire.filled
    assert filled.sum() > 1
    cells = nearest(run.states[-1].repertoire.centroids, run.states[-1].repertoire.descriptors)
    np.testing.assert_array_equal(cells[filled], np.flatnonzero(filled))


@pytest.mark.parametrize("name", NAMES)
def test_elites_do_again_what_their_cells_say(name, runs):
    run = runs[name]
    measured = run.again
    np.testing.assert_allclose(measured["qd_score"], run.metrics["qd_score"], rtol=1e-5)
    np.testing.assert_allclose(measured["corrected_qd_score"], run.metrics["qd_score"], rtol=1e-5)
    np.testing.assert_allclose(measured["descriptor_error"], 0.0, atol=1e-6)
    policy = run.algorithm.policy(run.states[-1])
    returns = jaxpg.evaluate(policy, CLIFF, PARAMS, KEY, 2)
    np.testing.assert_allclose(returns, run.metrics["max_fitness"], rtol=1e-5)
    np.testing.assert_allclose(measured["descriptor_error_in_cells"], 0.0, atol=1e-5)
    assert ("actor_qd_score" in measured) == (name in ("dcg_map_elites", "dcrl_map_elites"))


@pytest.mark.parametrize("name", NAMES[4:])
def test_the_actor_is_told_the_elites_descriptors_the_centroids_or_nothing(name, runs):
    """Against episodes of the distilled policy, one by one."""
    run = runs[name]
    repertoire = run.states[-1].repertoire
    cells = np.flatnonzero(repertoire.filled)

    @quick_jit
    @jax.vmap
    def achieved(descriptor):
        policy = distilled_policy(run.algorithm, CLIFF, PARAMS, run.states[-1], descriptor)
        controller = Controller(None, lambda params, features, _: policy.act(params, KEY, features, ())[0])
        episodes = run_genotypes(KEY, TASK, controller, jax.tree.map(lambda x: x[None], policy.params))
        return episodes.fitnesses[0], episodes.descriptors[0]

    descriptors, centroids = (np.asarray(x)[cells] for x in (repertoire.descriptors, repertoire.centroids))
    for actor, told, wanted in (
        ("actor", descriptors, descriptors),
        ("centroid_actor", centroids, centroids),
        ("untold_actor", np.zeros_like(descriptors), descriptors),
    ):
        fitnesses, reached = map(np.asarray, achieved(told))
        error = np.linalg.norm(reached - wanted, axis=1).mean()
        best = {}
        for fitness, cell in zip(fitnesses, np.asarray(nearest(repertoire.centroids, jnp.asarray(reached))), strict=True):
            best[cell] = max(fitness, best.get(cell, -np.inf))
        expected = {
            "qd_score": fitnesses.sum(),
            "corrected_qd_score": sum(best.values()),
            "descriptor_error": error,
            "descriptor_error_in_cells": error / (0.4 / 4),  # 16 cells in a square of 0.4
        }
        for measure, value in expected.items():
            np.testing.assert_allclose(run.again[f"{actor}_{measure}"], value, rtol=1e-4, err_msg=f"{actor} {measure}")
    assert len({float(run.again[f"{actor}_descriptor_error"]) for actor in ("actor", "centroid_actor", "untold_actor")}) == 3


@pytest.mark.parametrize("name", NAMES)
def test_seeds_under_vmap_are_the_seeds_alone(name, runs):
    run = runs[name]
    together = quick_jit(jax.vmap(lambda key: advance(run.algorithm.update, run.algorithm.init(key), 2)[0]))(
        jnp.stack([jax.random.key(7), KEY])
    )
    assert_close(row(together, 1), run.states[2], rtol=1e-3, atol=1e-4)


def remembered(state, size):
    """The parts of the memory's rows, oldest first."""
    rows = np.array(state.emitter.memory.rows[: int(state.emitter.memory.count)])
    observation, following, action, reward, bootstrap = np.split(rows, np.cumsum([size, size, 2, 1]), axis=1)
    return observation, following, action, reward[:, 0], bootstrap[:, 0]


def test_the_first_generation_is_remembered_under_what_it_achieved(runs):
    """Offspring are positives: their rewards stay as they were; rows after an episode's end are missing."""
    states = runs["dcg_map_elites"].states
    observation, following, action, reward, bootstrap = remembered(states[1], 7)
    fell = following[:, 0] * PARAMS.half_width > EDGE
    np.testing.assert_array_equal(bootstrap, 1.0 - fell)
    assert fell.sum() > 0
    starts = np.flatnonzero(observation[:, 4] == 1.0)
    assert len(starts) == 16  # eight offspring, eight episodes of the actor
    earned = 1.0 - 0.5 * np.square(action).sum(1)
    # Time is the leading axis of a write: the actor's rows begin with the second run of starts.
    offspring = np.arange(len(reward)) < starts[8]
    np.testing.assert_allclose(reward[offspring], earned[offspring], rtol=1e-5)
    scale = (reward / earned)[~offspring]
    assert (scale <= 1.0 + 1e-6).all()
    assert scale.min() < 0.9
    np.testing.assert_array_equal(observation[:, 5:], following[:, 5:])  # the target


def test_actor_episodes_are_remembered_under_what_was_asked(runs):
    run = runs["dcg_map_elites"]
    observation, following, action, reward, _ = remembered(run.states[1], 7)
    starts = np.flatnonzero(observation[:, 4] == 1.0)
    rows = np.arange(len(reward)) >= starts[8]
    # Its last rows are the last steps of those episodes that did not end early: their successors are what was achieved.
    last = rows & np.isclose(following[:, 4], 1 - STEPS / 100)
    achieved = np.clip(following[last, :2], -1, 1)
    expected = np.exp(-np.linalg.norm(achieved - observation[last, 5:], axis=1) / 0.1)
    np.testing.assert_allclose(reward[last] / (1.0 - 0.5 * np.square(action[last]).sum(1)), expected, rtol=1e-3)
    stored = TASK.normalize(run.states[1].repertoire.descriptors[run.states[1].repertoire.filled])
    asked = observation[starts[8:], 5:]
    assert np.linalg.norm(asked[:, None] - stored[None], axis=-1).min(1).max() < 5e-3


def test_gradients_offspring_of_dcrl_are_remembered_under_their_parents_descriptors(runs):
    run = runs["dcrl_map_elites"]
    before, after = run.states[1], run.states[2]
    observation, *_ = remembered(after, 7)
    observation = observation[int(before.emitter.memory.count) :]
    asked = observation[observation[:, 4] == 1.0, 5:]  # in the order of the offspring
    stored = np.array(TASK.normalize(before.repertoire.descriptors[before.repertoire.filled]))
    distance = np.linalg.norm(asked[:, None] - stored[None], axis=-1).min(1)
    assert (distance[4:] < 1e-6).all()  # two by gradients, two injected
    assert (distance[:4] > 1e-6).any()


@pytest.mark.parametrize("ablation", ABLATIONS)
def test_ablations_run_what_they_say(ablation):
    algorithm = small("dcg_map_elites", ablation=ablation)

    def after_two(kernel_length):
        length = {} if ablation == "no_actor_episodes" else {"kernel_length": kernel_length}  # which it refuses
        return advance(small("dcg_map_elites", ablation=ablation, **length).update, algorithm.init(KEY), 2)[0]

    states = quick_jit(jax.vmap(after_two))(jnp.array([0.1, 1.0]))
    own_episodes = ablation == "unconditioned_actor"
    assert algorithm.env_steps_per_update == 8 * STEPS * (1 + own_episodes)
    observation, *_, reward, _ = remembered(row(states, 0), 7)
    assert (observation[:, 4] == 1.0).sum() == 2 * 8 * (1 + own_episodes)
    critics, actor = states.emitter.learner.critics, states.emitter.learner.actor
    assert actor["params"]["Trunk_0"]["Dense_0"]["kernel"].shape[1] == (7 if ablation != "unconditioned_actor" else 5)
    # Rewards of the actor's episodes are scaled where they are stored, those of other descriptors where they are drawn.
    assert (reward < 0.3).any() == own_episodes
    same = all(np.array_equal(*leaf) for leaf in jax.tree.leaves(numbers(critics)))
    assert same == (ablation == "no_actor_episodes")


def test_the_distilled_policy_is_the_actor_towards_a_descriptor(runs):
    run = runs["dcg_map_elites"]
    state, target = run.states[-1], jnp.array([0.05, -0.1])
    policy = distilled_policy(run.algorithm, CLIFF, PARAMS, state, target)
    observation, _ = CLIFF.reset(KEY, PARAMS)
    action, _ = policy.act(policy.params, KEY, observation, policy.initial_carry)
    network = controller_network(TASK, (5,))
    expected = network.apply(state.emitter.learner.actor, jnp.concatenate([observation, target / 0.2]))
    np.testing.assert_allclose(action, expected, atol=1e-6)
    with pytest.raises(InputError, match="only dcg_map_elites"):
        distilled_policy(runs["map_elites"].algorithm, CLIFF, PARAMS, runs["map_elites"].states[-1], target)


def test_tasks_without_a_descriptor_or_a_limit_are_refused():
    walk = Walk()
    with pytest.raises(InputError, match=r"map_elites needs a task with a descriptor, but Walk has none.*PointOmni-v0"):
        jaxpg.make("map_elites", walk, walk.params())
    with pytest.raises(InputError, match="max_steps_in_episode"):
        jax.eval_shape(lambda limit: small_with(limit).init(KEY), jnp.int32(5))
    env, params = jaxpg_envs.make("CartPole-v1")
    with pytest.raises(InputError, match="continuous"):
        jaxpg.make("dcg_map_elites", env, params)


def small_with(limit):
    return jaxpg.make("map_elites", CLIFF, PARAMS.replace(max_steps_in_episode=limit), **SMALL)


def test_conditioned_gradients_fill_the_plane_and_the_actor_goes_where_it_is_asked():
    """Measured over 8 seeds: coverage 0.66 to 0.89 (MAP-Elites: 0.17 to 0.27), errors 2.2 to 6.1, 25 to 29 where the actor is
    told nothing, and 22 to 35 where rewards are not scaled by similarity or the descriptor is withheld in training."""
    env, params = jaxpg_envs.make("PointOmni-v0")
    fields = {"num_cells": 64, "num_offspring": 32, "hidden_sizes": (16, 16), "critic_hidden_sizes": (32, 32)}
    fields |= {"critic_steps": 100, "policy_gradient_steps": 20, "total_steps": 20 * 32 * 100}
    algorithm = jaxpg.make("dcrl_map_elites", env, params, **fields)
    state, _ = quick_jit(lambda key: advance(algorithm.update, algorithm.init(key), 20))(KEY)
    assert score(state.repertoire)["coverage"] > 0.45
    measured = quick_jit(lambda state: reproducibility(KEY, algorithm, env, params, state))(state)
    assert measured["actor_descriptor_error"] < 12 < 20 < measured["untold_actor_descriptor_error"]
    assert measured["actor_corrected_qd_score"] > 0.7 * measured["qd_score"]
