"""Environment design: which levels come next under each method, and that the student learns from them."""

import importlib
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checks import assert_close, assert_same, numbers, quick_jit, row
from environments import Walk

import jaxpg
from jaxpg.algorithm import REGISTRY, InputError, configure
from jaxpg.algorithms.environment_design import accel, dred, level_buffer, plr, scores
from jaxpg.algorithms.environment_design.curriculum import Choice, Outcome, make_student, own_slots, split_params
from jaxpg.algorithms.environment_design.measures import (
    distribution_distance,
    mutual_information_probe,
    returns_on_levels,
    statistics_of,
)
from jaxpg.algorithms.environment_design.paired import Building, paid
from jaxpg.experiment.checkpoints import from_host, to_host
from jaxpg.rollout import Transition
from jaxpg.spaces import observation_encoder, observation_size
from jaxpg_envs.cave_escape import cave_escape
from jaxpg_envs.grid_worlds import grid_worlds
from jaxpg_envs.levels import CaveLevel, level_set
from jaxpg_envs.maze import maze

KEY = jax.random.key(0)
ENV, ONE = cave_escape(5, 12)
NUM_LEVELS = 10
LEVELS = jax.vmap(ENV.sample_level)(jax.random.split(KEY, NUM_LEVELS))
PARAMS = ONE.replace(level=LEVELS)
SMALL = {"num_envs": 4, "num_steps": 16, "num_epochs": 2, "hidden_sizes": (8,), "memory": "none", "learning_rate": 0.02}
SMALL |= {"total_steps": 20 * 2 * 4 * 16}
VAE = {"vae_latent_size": 4, "vae_hidden_sizes": (16,), "vae_epochs": 4, "vae_batch_size": 8, "num_points": 2}
SIZES = {
    "domain_randomization": {},
    "plr": {},
    "robust_plr": {"buffer_size": 8},
    "accel": {"buffer_size": 8},
    "sfl": {"buffer_size": 4, "period": 3, "copies": 2},
    "paired": {"num_walls": 3},
    "dred": {"buffer_size": 14, **VAE},
    "el_dred": {"buffer_size": 14, "generation": "edits"},
}
DESIGNERS = sorted(SIZES)


def make(name, params=PARAMS, **fields):
    return jaxpg.make("dred" if name == "el_dred" else name, ENV, params, **{**SMALL, **SIZES[name], **fields})


@cache
def compiled(name, **fields):
    """`(init, update)`, compiled once for all tests."""
    algorithm = make(name, **fields)
    return quick_jit(algorithm.init), quick_jit(algorithm.update)


@cache
def states(name, number=6, **fields):
    """The states of a run, the first one before any update, and the metrics of every update."""
    init, update = compiled(name, **fields)
    run, rows = [init(KEY)], []
    for _ in range(number):
        state, metrics = update(run[-1])
        run.append(state)
        rows.append(metrics)
    return run, rows


def as_rows(levels):
    """Levels as a set of tuples."""
    return {(*np.asarray(layout).ravel().tolist(), int(goal), int(start)) for layout, goal, start in zip(*levels, strict=True)}


def differs(a, b):
    return any((x != y).any() for x, y in zip(*map(jax.tree.leaves, (numbers(a), numbers(b))), strict=True))


# --- What all of them promise -------------------------------------------------------------------------------------------


def test_all_are_tested():
    found = {entry.name for entry in REGISTRY.values() if entry.field == "environment_design"}
    assert found == set(DESIGNERS) - {"el_dred"}


@pytest.mark.parametrize("name", DESIGNERS)
def test_an_update_keeps_the_state_in_shape(name):
    algorithm = make(name)
    before = jax.eval_shape(algorithm.init, KEY)
    after, metrics = jax.eval_shape(algorithm.update, before)
    describe = lambda tree: jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), tree)
    assert describe(after) == describe(before)
    assert {x.shape for x in metrics.values()} == {()}
    assert {"episodes", "episode_return", "episode_length", "episode_solved"} <= set(metrics)
    assert {"nonfinite_rewards", "nonfinite_observations"} <= set(metrics)


@pytest.mark.parametrize("name", DESIGNERS)
def test_the_student_learns_and_nothing_is_traced_again(name):
    run, rows = states(name)
    assert compiled(name)[1]._cache_size() == 1
    assert differs(run[-1].learner.params, run[0].learner.params)
    assert all(jnp.isfinite(value) for metrics in rows for value in metrics.values())
    assert all(metrics["nonfinite_rewards"] == metrics["nonfinite_observations"] == 0 for metrics in rows)
    assert run[-1].updates == len(rows)


@pytest.mark.parametrize(
    ("student", "memory"), [("a2c", "gru"), ("impala", "lstm"), ("ppo", "gru"), ("ppo", "lstm"), ("trpo", "gru")]
)
def test_any_student_with_any_memory(student, memory):
    epochs = SMALL["num_epochs"] if student == "ppo" else 5  # the default: the others have none
    algorithm = make("plr", student=student, memory=memory, memory_size=5, num_epochs=epochs)
    before = jax.eval_shape(algorithm.init, KEY)
    after, _ = jax.eval_shape(algorithm.update, before)
    assert jax.tree.map(jnp.shape, after) == jax.tree.map(jnp.shape, before)
    assert ("memory" in before.learner.params) == (memory != "none")


def test_seeds_side_by_side_are_the_seeds_alone():
    run, _ = states("dred")
    algorithm = make("dred")
    two = jax.tree.map(lambda *x: jnp.stack(x), run[2], run[3])
    following, _ = quick_jit(jax.vmap(algorithm.update))(two)
    for index, expected in enumerate((run[3], run[4])):
        assert_close(row(following, index), expected, rtol=1e-3, atol=1e-4)


def on_grid_worlds(name):
    """Levels of the generator, seen as one-hot vectors; those of ACCEL are edited, those of PAIRED built."""
    sizes = SMALL | SIZES[name] | {"encoder": "dense", "num_epochs": 1, "num_steps": 32}
    sizes |= {} if name == "paired" else {"levels": "generator"}
    sizes |= {"buffer_size": 8} if name == "plr" else {}
    return jaxpg.make(name, *grid_worlds("small"), **sizes)


@pytest.mark.parametrize("name", ["accel", "domain_randomization", "plr"])
def test_grid_worlds_are_learned_too(name):
    algorithm = on_grid_worlds(name)

    def run(key):
        first = algorithm.init(key)
        return first, *jax.lax.scan(lambda state, _: algorithm.update(state), first, length=5)

    first, last, metrics = quick_jit(run)(KEY)
    assert differs(last.learner.params, first.learner.params)
    assert jnp.isfinite(metrics["parameter_norm"]).all()
    assert (metrics["nonfinite_rewards"] + metrics["nonfinite_observations"] == 0).all()
    assert metrics["episodes"].sum() > 0
    if name != "domain_randomization":
        assert metrics["replayed"][-1] > 0


@pytest.mark.parametrize("name", ["paired", "robust_plr", "sfl"])
def test_other_curricula_fit_grid_worlds(name):
    algorithm = on_grid_worlds(name)
    before = jax.eval_shape(algorithm.init, KEY)
    after = jax.eval_shape(algorithm.update, before)[0]
    assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(lambda x: (x.shape, x.dtype), before)


def test_a_saved_run_goes_on_to_the_same_bits():
    run, _ = states("dred")
    restored = from_host(to_host(run[3]), jax.eval_shape(lambda x: x, run[3]))
    for expected in run[4:6]:
        restored, _ = compiled("dred")[1](restored)
        assert_same(restored, expected)


# --- Where levels come from ---------------------------------------------------------------------------------------------


def test_the_set_is_given_in_params_or_made():
    one, given = split_params("plr", configure("plr", plr.PLRConfig, {}), ENV, PARAMS)
    assert_same(given, LEVELS)
    assert one.level.goal.shape == ()
    small, params = cave_escape(7, 12)
    _, made = split_params("plr", configure("plr", plr.PLRConfig, {"num_levels": 5}), small, params)
    assert_same(made, level_set("train", 0, 5, 7))
    # Where hyperparameters are traced, the set is still made on the host.
    make = lambda rate: jaxpg.make("plr", small, params, **{**SMALL, "num_levels": 5, "learning_rate": rate}).init(KEY)
    shapes = jax.eval_shape(jax.vmap(make), jnp.ones(2))
    assert shapes.memory.level.layout.shape == (2, 5, 7, 7)


def play(slots, num_envs=4, **fields):
    """`(transitions, outcome)` of one rollout on `LEVELS`."""
    config = configure("plr", plr.PLRConfig, {**SMALL, "num_envs": num_envs, **fields})
    params, _ = split_params("plr", config, ENV, PARAMS)
    student = make_student(config, ENV, params, 1)
    learner = quick_jit(student.init)(KEY)
    transitions, outcome, _ = quick_jit(student.play)(KEY, learner, LEVELS, slots)
    return transitions, outcome


@pytest.mark.parametrize("keeps", [True, False])
def test_levels_are_played_from_their_own_starts(keeps):
    """Row i meets the levels of its slots, each for one episode from a fresh start; of a single one, to the end."""
    np.testing.assert_array_equal(own_slots(4, 2)[:, 0], [2, 3, 4, 5])
    slots = own_slots(4, 2) if keeps else jax.random.randint(KEY, (4, 16), 0, NUM_LEVELS, jnp.int32)
    t, outcome = play(slots)
    done = np.asarray(t.done)
    number = np.cumsum(done, axis=0) - done
    np.testing.assert_array_equal(t.context.number, number)
    expected = np.asarray(slots)[np.arange(4), 0 * number if keeps else number]
    np.testing.assert_array_equal(t.context.slot, expected)
    encode = observation_encoder(ENV, ONE)
    seen = np.asarray(encode(t.observation))
    looks = [
        encode(jax.vmap(lambda k, at=at: ENV.reset(k, at)[0])(jax.random.split(KEY, 30))) for at in map(at_level, range(10))
    ]
    looks = [{x.tobytes() for x in np.asarray(look)} for look in looks]
    starts = np.concatenate([np.ones((1, 4), bool), done[:-1]])
    for time, env in zip(*np.nonzero(starts), strict=True):
        assert seen[time, env].tobytes() in looks[expected[time, env]]
    assert done.sum() >= 4  # 12 steps at most
    assert (outcome.episodes.completed == done.sum(0)).all()
    assert set(np.flatnonzero(outcome.slots.played)) == set(expected.ravel())
    ended = set(expected[done])
    assert set(np.flatnonzero(outcome.slots.scored)) == ended
    assert (outcome.slots.value_l1 > 0)[np.array(sorted(ended))].all()


def at_level(index):
    return ONE.replace(level=row(LEVELS, index))


def test_an_episode_that_fills_the_rollout_is_scored():
    """Twelve steps of a level that cannot be left do not end in a rollout of eight; its level has a score all the same."""
    t, outcome = play(own_slots(4), num_steps=8)
    assert not t.done.all()
    assert outcome.slots.scored.tolist() == [True] * 4 + [False] * 6
    unfinished = ~np.asarray(t.done).any(0)
    assert unfinished.any()
    assert (outcome.slots.max_return[:4] == 0)[unfinished].all()
    assert (outcome.episodes.completed == 0)[unfinished].all()


def test_who_keeps_a_level():
    """Replay draws one for every episode; what is new, looked at, or random is played for the whole rollout."""
    expected = {"domain_randomization": (4, 1), "plr": (4, 16), "robust_plr": (4, 16), "dred": (4, 16), "sfl": (4, 1)}
    for name, shape in expected.items():
        choice, _ = choose(name, jnp.int32(1))
        assert choice.slots.shape == shape
    uniform, _ = choose("domain_randomization", jnp.int32(1), levels="dataset")
    assert uniform.slots.shape == (4, 16)
    assert len(set(np.asarray(uniform.slots).ravel().tolist())) == NUM_LEVELS
    mixed, buffer = choose("plr", jnp.int32(9), levels="generator", buffer_size=8, replay_probability=0.5)
    kept = np.asarray(mixed.slots[:, 0]) >= 8
    assert set(kept) == {True, False}
    assert (mixed.slots[kept] == np.arange(8, 12)[kept][:, None]).all()
    assert (mixed.slots[~kept] < 8).all()
    assert len(set(np.asarray(mixed.slots[~kept]).ravel().tolist())) > 1
    assert_same(row(mixed.levels, slice(8)), buffer.level)


def choose(name, now, **fields):
    """What the curriculum of a name chooses from a buffer in which everything was scored."""
    found = []
    original = as_algorithm_of(name)

    def catch(config, env, params, curriculum, *rest):
        found.append(curriculum)
        return original(config, env, params, curriculum, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(f"jaxpg.algorithms.environment_design.{name}.as_algorithm", catch)
        make(name, **fields)
    memory = quick_jit(found[0].init)(KEY)
    buffer = getattr(memory, "buffer", memory)
    if isinstance(buffer, level_buffer.LevelBuffer):
        seen = buffer._replace(seen=jnp.ones_like(buffer.seen), score=jax.random.uniform(KEY, buffer.score.shape))
        memory = seen if buffer is memory else memory._replace(buffer=seen)
        buffer = seen
    return quick_jit(found[0].choose)(jax.random.key(2), memory, now), buffer


def as_algorithm_of(name):
    return importlib.import_module(f"jaxpg.algorithms.environment_design.{name}").as_algorithm


def test_domain_randomization_of_a_set_stays_in_it():
    from_set, generated = (make("domain_randomization", levels=levels) for levels in ("dataset", "generator"))
    assert as_rows(from_set.init(KEY).memory) == as_rows(LEVELS)
    assert generated.init(KEY).memory is None


# --- PLR ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["plr", pytest.param("robust_plr", marks=pytest.mark.thorough), "accel", "dred"])
def test_nothing_is_learned_from_first_visits(name):
    """They come to an end where a rollout is shorter than an episode, too."""
    fields = {"plr": {"num_steps": 8}, "dred": {}}.get(name, {"buffer_size": 14, "levels": "dataset"})
    run, _ = states(name, **fields)
    assert make(name, **fields).learns_from == 4  # after 4, 4 and 2 levels
    assert_same(run[3].learner, run[0].learner)
    assert differs(run[4].learner.params, run[3].learner.params)


def test_every_level_of_the_set_is_played_once_before_any_is_replayed():
    run, rows = states("plr")
    seen = [np.asarray(state.memory.seen).sum() for state in run[:4]]
    assert seen == [0, 4, 8, 10]
    assert all(metrics["replayed"] == 1 for metrics in rows)
    assert_same(run[-1].memory.level, LEVELS)


def test_replay_probabilities_are_the_mixture():
    """Scores 4, 1, 3 and an unseen 9: ranks 1, 3, 2; ages in update 10: 1, 4 and 5."""
    buffer = level_buffer.init_buffer(4, row(LEVELS, 0), row(LEVELS, slice(4)))._replace(
        score=jnp.array([4.0, 1, 3, 9]),
        seen=jnp.array([True, True, True, False]),
        last_sampled=jnp.array([9, 6, 5, 0], jnp.int32),
    )
    config = configure("plr", plr.PLRConfig, {"temperature": 0.5, "staleness_coefficient": 0.2})
    by_rank = np.array([1, 1 / 9, 1 / 4, 0]) / (1 + 1 / 9 + 1 / 4)
    expected = 0.8 * by_rank + 0.2 * np.array([0.1, 0.4, 0.5, 0])
    np.testing.assert_allclose(plr.priorities(config, buffer, jnp.int32(10)), expected, rtol=1e-5)


def test_robust_plr_learns_from_replayed_levels_only():
    """Two updates, of 4 levels looked at and 4 played, fill half of 16 slots and more; until then nothing is learned."""
    run, rows = states("robust_plr", buffer_size=32)
    filled = [float(metrics["replayed"]) for metrics in rows]
    assert filled == [0, 0, 1, 1, 1, 1]
    assert make("robust_plr", buffer_size=32).learns_from == 3
    assert_same(run[2].learner, run[0].learner)
    assert differs(run[3].learner.params, run[2].learner.params)
    assert run[2].memory.seen.sum() == 16
    assert run[3].memory.seen.sum() == 20


def test_plr_of_random_levels_learns_from_new_ones_as_well():
    run, rows = states("plr", levels="generator", buffer_size=8)
    assert differs(run[1].learner.params, run[0].learner.params)
    assert [float(metrics["buffer_fill"]) for metrics in rows[:2]] == [0.5, pytest.approx(0.75, abs=0.25)]
    assert 0 < np.mean([metrics["replayed"] for metrics in rows]) < 1
    assert rows[0]["replayed"] == 0
    assert make("plr", levels="generator", buffer_size=8).learns_from == 2


@pytest.mark.parametrize("score", ["value_l1", "grounded_value_l1", "positive_value_loss", "max_mc"])
def test_scores_by_name(score):
    found = scores.Scores(None, None, *map(jnp.array, ([2.0, 3.0], [1.0, 1.5], [0.25, 0.25], [0.0, 1.0])))
    config = configure("plr", plr.PLRConfig, {"score": score})
    expected = {"value_l1": [2, 3], "grounded_value_l1": [0, 3], "positive_value_loss": [1, 1.5], "max_mc": [-0.25, 0.75]}
    np.testing.assert_allclose(plr.score_of(config, found, found.max_return), expected[score])


def test_what_is_least_likely_to_be_replayed_makes_room():
    """By staleness alone, the level just played: a new one that scores as much takes its slot; the lowest score stays."""
    buffer = level_buffer.init_buffer(4, row(LEVELS, 0))._replace(
        level=row(LEVELS, slice(4)),
        score=jnp.array([1.0, 2.0, 3.0, 4.0]),
        seen=jnp.ones(4, bool),
        last_sampled=jnp.array([2, 5, 9, 4], jnp.int32),
    )
    config = configure("plr", plr.PLRConfig, {"staleness_coefficient": 1.0})
    new, two = row(LEVELS, slice(8, 10)), jnp.ones(2, bool)
    found = scores.Scores(two, two, jnp.array([0.5, 3.0]), jnp.zeros(2), jnp.zeros(2), jnp.zeros(2))
    after, metrics = plr.insert_levels(config, buffer, new, found, jnp.int32(10))
    assert metrics["admitted"] == 0.5
    assert_same(row(after.level, jnp.array([0, 1, 3])), row(LEVELS, jnp.array([0, 1, 3])))
    assert_same(row(after.level, 2), row(LEVELS, 9))
    assert after.score.tolist() == [1, 2, 3, 4]
    of_set = buffer._replace(is_dataset=jnp.arange(4) == 2)
    after, metrics = plr.insert_levels(config, of_set, new, found, jnp.int32(10))
    assert_same(row(after.level, 2), row(LEVELS, 2))
    assert_same(row(after.level, 1), row(LEVELS, 9))


# --- ACCEL, SFL, PAIRED -------------------------------------------------------------------------------------------------


def test_accel_edits_the_levels_that_four_environments_began_with():
    """Returns 0, 1, 0, 0.5, 0.25, 0 less value losses 0, 2 (at most 1), .125, 0, .5, 0: the smallest are of 4, 2, 0 and 1."""
    num_envs = 6
    choice = Choice(LEVELS, jnp.array([9, 8, 7, 6, 5, 4], jnp.int32)[:, None] * jnp.array([[1, 0]]), jnp.bool_(True))
    episodes = scores.Episodes(*map(jnp.array, ([1.0, 2, 0, 1, 2, 1], [0.0] * 6, [0.0, 2, 0, 0.5, 0.5, 0], [0.0] * 6)))
    outcome = Outcome(None, episodes, jnp.array([0.0, 2.0, 0.125, 0, 0.5, 0.0]))
    edited = quick_jit(lambda key: accel.edit_easiest(ENV, key, choice, outcome, 1))(KEY)
    parents = [5, 7, 9, 8, 5, 7]
    near = lambda a, b: (a.layout != b.layout).sum() <= 3 and {int(a.goal), int(a.start)} & {int(b.goal), int(b.start)}
    for index in range(num_envs):
        assert near(row(edited, index), row(LEVELS, parents[index]))
        assert not any(near(row(edited, index), row(LEVELS, other)) for other in range(10) if other != parents[index])


def test_accel_keeps_the_set():
    run, _ = states("accel", buffer_size=14, levels="dataset")
    buffer = run[-1].memory
    assert_same(row(buffer.level, slice(NUM_LEVELS)), LEVELS)
    assert buffer.is_dataset.tolist() == [True] * 10 + [False] * 4
    assert buffer.seen.all()


def test_sfl_changes_its_buffer_at_the_end_of_a_period():
    run, rows = states("sfl", num_steps=48)
    empty = [not state.memory.current.seen.any() for state in run]
    assert empty == [True] * 3 + [False] * 4
    assert make("sfl").learns_from == 4
    current = run[3].memory.current
    assert ((current.score > 0) == current.seen).all()
    assert_same(run[4].memory.current, current)
    assert not run[3].memory.next.seen.any()
    assert rows[0]["replayed"] == 0 < sum(metrics["replayed"] for metrics in rows[3:])


def test_paired_builds_levels_with_walls_goal_and_start():
    building = Building(CaveLevel(jnp.zeros((2, 3), jnp.int8), jnp.int32(0), jnp.int32(0)), num_walls=3)
    observation, state = building.reset(KEY, ())
    for action in (4, 4, 5, 4, 1):  # the start goes on to 5; neither is walled
        assert observation.shape == building.observation_space(()).shape
        observation, state, _, terminated, _, _ = building.step(KEY, state, jnp.int32(action), ())
    assert terminated
    assert (int(state.level.goal), int(state.level.start)) == (4, 5)
    assert state.level.layout.tolist() == [[0, 1, 0], [0, 0, 0]]


def test_paired_builds_grid_worlds_with_start_objects_and_walls():
    env, params = grid_worlds("small")
    inside = np.indices((6, 6)).max(0) < 2
    level = params.level._replace(walls=jnp.array(~inside | ([[False, True] * 3] * 6)), size=jnp.int32(2))
    building = Building(env.empty_level(level), num_walls=2)
    observation, state = building.reset(KEY, ())
    assert observation[:36].tolist() == (~inside).ravel().tolist()
    for action in (1, 1, 2, 0, 0, 35):  # an object goes on to 6, the next from a wall to 7, the last from 0; no start is walled
        assert observation.shape == building.observation_space(()).shape
        observation, state, _, terminated, _, _ = building.step(KEY, state, jnp.int32(action), ())
    assert terminated
    assert (int(state.level.start), state.level.objects.tolist()) == (1, [6, 7, 0])
    assert state.level.walls.tolist() == (~inside).tolist()
    assert np.flatnonzero(observation[36 : 5 * 36]).tolist() == [1, 36 + 6, 72 + 7, 108 + 0]
    same = [name for name in level._fields if name not in ("walls", "start", "objects")]
    assert_same([getattr(state.level, name) for name in same], [getattr(level, name) for name in same])


def test_paired_pays_the_adversary_the_regret():
    run, rows = states("paired")
    assert differs(run[1].antagonist.params, run[0].antagonist.params)
    assert differs(run[1].adversary.params, run[0].adversary.params)
    assert all(metrics["regret"] > -1 for metrics in rows)
    nothing, end = jnp.zeros((3, 2)), jnp.zeros((3, 2), bool).at[2].set(True)
    steps = Transition(nothing, nothing, nothing, end, jnp.zeros_like(end), nothing, ())
    assert paid(steps, jnp.array([0.5, -0.25])).reward.tolist() == [[0, 0], [0, 0], [0.5, -0.25]]


# --- DRED ---------------------------------------------------------------------------------------------------------------


def dred_buffer():
    """Two levels of the set, of which one was solved, a generated and solved one, and an empty slot."""
    return level_buffer.init_buffer(4, row(LEVELS, 0), row(LEVELS, slice(2)))._replace(
        score=jnp.array([1.0, 4.0, 2.0, 0.0]),
        max_return=jnp.array([0.5, 0.0, 0.5, -jnp.inf]),
        last_sampled=jnp.array([3, 7, 0, 0], jnp.int32),
        seen=jnp.array([True, True, True, False]),
    )


@pytest.mark.parametrize("eta", [0.0, 0.25, 1.0])
def test_the_mixture_of_dred(eta):
    """P_S ranks 2 and 1 within the set; P_S' ranks 2 and 1 of the first and the third; ages 5 and 1 in update 8."""
    config = configure("dred", dred.DREDConfig, {"temperature": 0.5, "second_temperature": 1.0, "staleness_coefficient": 0.3})
    first, second, stale = np.array([[0.2, 0.8, 0, 0], [1 / 3, 0, 2 / 3, 0], [5 / 6, 1 / 6, 0, 0]])
    expected = 0.7 * ((1 - eta) * first + eta * second) + 0.3 * stale
    found = dred.priorities(config, dred_buffer(), jnp.float32(eta), 8)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert (found[2] == 0) == (eta == 0)


def test_without_grounding_levels_that_were_never_solved_count():
    config = configure("dred", dred.DREDConfig, {"grounded": False, "staleness_coefficient": 0.0})
    found = dred.priorities(config, dred_buffer(), jnp.float32(1), 8)
    np.testing.assert_allclose(found, np.array([1 / 3, 1, 1 / 2, 0]) / (11 / 6), rtol=1e-5)


@pytest.mark.parametrize("name", ["dred", "el_dred"])
def test_the_set_stays_and_only_solved_levels_enter(name):
    run, rows = states(name, 12)
    for state, metrics in zip(run[1:], rows, strict=True):
        buffer = state.memory.buffer
        assert_same(row(buffer.level, slice(NUM_LEVELS)), LEVELS)
        assert (np.asarray(buffer.is_dataset) == (np.arange(14) < NUM_LEVELS)).all()
        generated = buffer.seen & ~buffer.is_dataset
        assert (buffer.max_return > 0)[generated].all()
        assert metrics["admitted"] <= metrics["generated_solved"]
    assert run[-1].memory.buffer.seen[NUM_LEVELS:].any()
    assert not run[2].memory.buffer.seen[NUM_LEVELS:].any()  # while the set was visited


def test_at_eta_0_only_the_set_is_played():
    """Of two runs side by side, one whose eta falls to 0 and one in which it is 1 at first."""

    def run(eta_start, eta_end, staleness_coefficient):
        algorithm = make("dred", eta_start=eta_start, eta_end=eta_end, staleness_coefficient=staleness_coefficient)
        return jax.lax.scan(lambda state, _: algorithm.update(state), algorithm.init(KEY), length=12)[1]["generated_played"]

    usual = configure("dred", dred.DREDConfig, {})
    etas = jnp.array([usual.eta_start, 1.0]), jnp.array([0.0, usual.eta_end])
    to_0, from_1 = quick_jit(jax.vmap(run))(*etas, jnp.array([usual.staleness_coefficient, 0.0]))
    assert not to_0.any()
    assert from_1.any()


# --- Does it learn? -----------------------------------------------------------------------------------------------------


def test_replaying_four_levels_solves_them():
    """All can be solved in a few steps; a random policy solves less than half of the episodes."""
    layout = jnp.zeros((4, 5, 5), jnp.int8).at[:, 2].set(jnp.array([0, 1, 1, 1, 0], jnp.int8))
    levels = CaveLevel(layout, jnp.array([20, 24, 14, 10], jnp.int32), jnp.array([0, 4, 0, 4], jnp.int32))
    params = ONE.replace(level=levels, max_steps_in_episode=30)
    sizes = {**SMALL, "num_envs": 16, "num_steps": 32, "num_epochs": 4, "num_minibatches": 4, "hidden_sizes": (32,)}
    sizes["levels"] = "dataset"
    algorithm = jaxpg.make("domain_randomization", ENV, params, **{**sizes, "learning_rate": 1e-2, "total_steps": 40 * 512})

    def run(key):
        state, _ = jaxpg.train(algorithm, key)
        score = lambda state: returns_on_levels(algorithm.policy(state, False), ENV, params, levels, key).mean()
        return score(algorithm.init(key)), score(state)

    before, after = quick_jit(jax.vmap(run))(jax.random.split(KEY, 3))
    assert after.mean() > before.mean() + 0.25


# --- Measures -----------------------------------------------------------------------------------------------------------


def test_returns_on_levels_are_those_of_each_level():
    """A policy that walks straight on: it arrives where the goal lies ahead, and nowhere else."""
    policy = jaxpg.Policy(params=(), act=lambda params, key, observation, carry: (jnp.int32(2), carry))
    env, params = maze(5, 10)
    level = params.level._replace(start=jnp.int32(0), goal=jnp.int32(4), direction=jnp.int32(0))
    away = level._replace(direction=jnp.int32(3))
    levels = jax.tree.map(lambda *x: jnp.stack(x), level, away)
    returns = returns_on_levels(policy, env, params, levels, KEY, 3)
    np.testing.assert_allclose(returns, [[1 - 0.9 * 4 / 10] * 3, [0.0] * 3], rtol=1e-6)


def test_distances_of_distributions():
    """Moved by two standard deviations; a statistic that does not vary is in its own units."""
    reference = {"a": np.array([-1.0, 1.0]), "b": np.array([3.0, 3.0])}
    found = distribution_distance({"a": np.array([1.0, 3.0]), "b": np.array([4.0, 4.5])}, reference)
    assert found == {"a": pytest.approx(2), "b": pytest.approx(1.25)}
    assert distribution_distance(reference, reference) == {"a": 0, "b": 0}
    assert set(statistics_of(LEVELS)) >= {"moss_fraction", "path_length", "moss_distance_correlation"}


@pytest.mark.parametrize(("remembers", "accuracy"), [(True, 1.0), (False, 0.25)])
def test_the_probe_finds_what_is_remembered(remembers, accuracy):
    """A memory of the first observation ever, which tells four mazes apart, and one that holds noise."""
    env, params = maze(5, 1000)

    def act(params, key, observation, carry):
        held = jnp.where(carry.any(), carry, encode(observation))
        return jnp.int32(0), held if remembers else jax.random.normal(key, carry.shape)

    encode = observation_encoder(env, params)
    policy = jaxpg.Policy(params=(), act=act, initial_carry=jnp.zeros(observation_size(env, params)))
    level = params.level._replace(start=jnp.int32(0), goal=jnp.int32(24))
    levels = jax.vmap(lambda d: level._replace(direction=d))(jnp.arange(4))
    probe = quick_jit(lambda key: mutual_information_probe(policy, env, params, levels, key, 32, 100))
    found = probe(KEY)
    assert found["accuracy"] == pytest.approx(accuracy, abs=0.15)
    assert found["information"] > 0.9 * np.log(4) if remembers else found["information"] < 0.1


# --- Mistakes -----------------------------------------------------------------------------------------------------------

MISTAKES = {
    "chooses levels, but Walk has none": ("plr", Walk(), Walk().params(), {}),
    "Maze-v0 has no training set": ("plr", *maze(5, 10), {}),
    "num_envs = 11 environments need as many levels, but there are 10": ("plr", ENV, PARAMS, {"num_envs": 11}),
    "num_envs = 4 does not divide into pairs of num_points = 3": ("dred", ENV, PARAMS, {"num_points": 3}),
    "10 levels of the training set must be at least": ("dred", ENV, PARAMS, {"buffer_size": 9}),
    "autoencoder is one of CaveEscape's levels": ("dred", *maze(5, 10), {"given": True}),
    "does not divide into copies = 3": ("sfl", ENV, PARAMS, {"copies": 3}),
    "more than buffer_size = 1": ("sfl", ENV, PARAMS, {"buffer_size": 1, "copies": 2}),
}


@pytest.mark.parametrize("message", MISTAKES)
def test_mistakes(message):
    name, env, params, fields = MISTAKES[message]
    if fields.pop("given", False):
        params = params.replace(level=jax.vmap(env.sample_level)(jax.random.split(KEY, 8)))
    with pytest.raises(InputError, match=message):
        jaxpg.make(name, env, params, **{**SMALL, **fields})


def test_mistakes_in_measures():
    policy = jaxpg.Policy(params=(), act=lambda params, key, observation, carry: (jnp.int32(2), carry))
    with pytest.raises(InputError, match="this one has none"):
        mutual_information_probe(policy, ENV, ONE, LEVELS, KEY)
