"""Configurations, the registry, and what they answer to mistakes."""

import dataclasses
import itertools
import json
import math
import re
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checks import assert_same, numbers, quick_jit
from environments import Box, Cycle, Walk

import jaxpg
import jaxpg_envs
from jaxpg.algorithm import (
    REGISTRY,
    Algorithm,
    InputError,
    configure,
    fields,
    hyperparameter,
    lookup,
    plain_value,
    rebuild,
    register,
    shortest,
    static,
    still_read,
    written,
)
from jaxpg.algorithms.online.pmoe_ppo import PMOEPPOConfig
from jaxpg.algorithms.online.ppo import PPOConfig
from jaxpg.errors import counted
from jaxpg_envs.cave_escape import cave_escape

CYCLE, WALK, KEY = Cycle(), Walk(), jax.random.key(0)


def make(**hyperparameters):
    return jaxpg.make("ppo", CYCLE, CYCLE.params([1.0, 2.0], 5), **hyperparameters)


def refusal(call, *arguments, **hyperparameters):
    with pytest.raises(InputError) as raised:
        call(*arguments, **hyperparameters)
    return str(raised.value)


# --- Mistakes ----------------------------------------------------------------------------------------------------------


def test_unknown_names_are_answered_with_the_nearest():
    assert re.search(r"'pppo'; did you mean 'ppo'\?.*pmoe_sac, ppo, pqn", refusal(lookup, "pppo"))
    assert "did you mean" not in refusal(lookup, "zzzzzz")
    message = refusal(make, learnin_rate=1e-3)
    assert message.startswith("ppo has no hyperparameter 'learnin_rate'; did you mean 'learning_rate'?")


def test_sizes_beyond_32_bits_keep_their_digits():
    steps = 2**32 + 640
    assert jaxpg.make("ppo", WALK, WALK.params(), total_steps=np.int64(steps)).config.total_steps == steps


@pytest.mark.parametrize(
    "value", ["fast", "1e-3", None, True, np.bool_(True), jnp.array(False), [1e-3], np.ones(2), jnp.ones(1), 1j, {}]
)
def test_what_is_not_a_number_is_refused(value):
    message = refusal(make, learning_rate=value)
    assert message.startswith("ppo: learning_rate must be a number, got")
    assert written(value) in message


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("discount", 1.5, "[0, 1]"),
        ("discount", -0.1, "[0, 1]"),
        ("gae_lambda", float("nan"), "[0, 1]"),
        ("learning_rate", -1e-3, "[0, inf)"),
        ("clip_epsilon", np.float32("nan"), "[0, inf)"),
        ("entropy_coefficient", -jnp.inf, "[0, inf)"),
        ("learning_rate", math.inf, "[0, inf)"),
    ],
)
def test_numbers_out_of_range_are_refused(name, value, allowed):
    message = refusal(make, **{name: value})
    assert message == f"ppo: {name} must lie in {allowed}, got {float(value)!r}"


def test_traced_arrays_are_no_numbers():
    """A sweep that forgot its `vmap` is told so where it happens."""
    with pytest.raises(InputError, match=r"learning_rate must be a number"):
        jax.eval_shape(lambda rates: make(learning_rate=rates).init(jax.random.key(0)), jnp.ones(3))


@pytest.mark.parametrize("name", ["total_steps", "num_envs", "num_steps", "num_epochs", "num_minibatches"])
def test_sizes_are_positive_whole_numbers(name):
    for value in (0, -3):
        assert refusal(make, **{name: value}) == f"ppo: {name} must be at least 1, got {value}"
    for value in (2.5, "8", True, None, float("nan"), float("inf"), [4]):
        assert refusal(make, **{name: value}) == f"ppo: {name} must be a whole number, got {value!r}"


def test_numbers_beyond_32_bits_are_refused_at_once():
    for name, value, words in (  # pytest cannot write some of them
        ("num_envs", 2**31, "must be at most 2147483647, got 2147483648"),
        ("num_steps", 1e300, "must be at most 2147483647, got 1e+300"),
        ("num_steps", 10**26, "must be at most 2147483647, got 100000000000000000000000000"),
        ("num_epochs", 10**5000, "must be at most 2147483647, got a number of more than 4300 digits"),
        ("total_steps", 10**26, "must be at most 1000000000000000000, got 100000000000000000000000000"),
        ("hidden_sizes", (8, 2**20 + 1), "must be at most 1048576, got 1048577"),
        ("memory_size", 2**31 - 1, "must be at most 1048576, got 2147483647"),
        ("hidden_sizes", itertools.count(1), f"must be at most 100 integers, got {str(tuple(range(1, 102)))[:200]}..."),
        ("learning_rate", 1e39, "must lie in [0, inf) in 32 bits, got 1e+39"),
        ("learning_rate", 10**400, f"must lie in [0, inf) in 32 bits, got 1{'0' * 199}..."),
        ("learning_rate", 10**5000, "must lie in [0, inf) in 32 bits, got a number of more than 4300 digits"),
        ("activation", "x" * 300, f"cannot be '{'x' * 199}...; There is: relu, swish, tanh"),
    ):
        assert refusal(make, **{name: value}) == f"ppo: {name} {words}"


@pytest.mark.parametrize(
    ("name", "sizes"),
    [("ppo", {"num_envs": 2**20, "num_steps": 2**20}), ("trpo", {"num_steps": 2**31 - 1}), ("ppo", {"num_envs": 2**31 - 1})],
)
def test_batches_beyond_32_bits_are_refused_at_once(name, sizes):
    """The search for a number that divides would take hours."""
    call = lambda **hyperparameters: jaxpg.make(name, CYCLE, CYCLE.params([1.0, 2.0], 5), num_minibatches=7, **hyperparameters)
    assert "steps is more than 32 bits can number: take at most 2147483647" in refusal(call, **sizes)


def test_sizes_whose_product_is_beyond_32_bits_are_named():
    env, params = jaxpg_envs.make("CartPole-v1")
    algorithm = jaxpg.make("a2c", env, params, num_steps=2**31 - 1)
    words = "a2c: its sizes make an array of more rows than 32 bits can number; the largest of them is num_steps = 2147483647: "
    assert refusal(jax.eval_shape, lambda key: algorithm.update(algorithm.init(key)), KEY).startswith(words)


def test_sizes_by_which_the_host_counts_are_bounded():
    """Cells of a repertoire and levels are made one by one, before anything is compiled."""
    for name, env, size, most in (
        ("map_elites", jaxpg_envs.make("PointOmni-v0"), "num_cells", 20_000),
        ("plr", jaxpg_envs.make("CaveEscape-v0"), "num_levels", 100_000),
        ("plr", jaxpg_envs.make("CaveEscape-v0"), "buffer_size", 1_000_000),
    ):
        assert refusal(jaxpg.make, name, *env, **{size: most + 1}) == f"{name}: {size} must be at most {most}, got {most + 1}"


def test_without_an_environment_there_is_no_algorithm():
    env, _ = jaxpg_envs.make("CartPole-v1")
    give = "got None; env, params = jaxpg_envs.make(name) gives both"
    for name in REGISTRY:
        assert refusal(jaxpg.make, name, None, None).startswith(f"{name} ")
    assert refusal(jaxpg.make, "ppo", None, None) == f"ppo needs an environment, {give}"
    wanted = f"ppo needs the environment's parameters, such as env.default_params, {give}"
    assert refusal(jaxpg.make, "ppo", env, None) == wanted


@pytest.mark.parametrize("value", ["", "a\nb", "\0", "\x1b[31m", "\udc80", None, 3, b"rule", ["rule"], True])
def test_texts_are_of_letters_that_can_be_shown(value):
    """A field that is a text: the name of a rule."""
    env, params = jaxpg_envs.make("CartPole-v1")
    message = refusal(jaxpg.make, "learned_rule", env, params, rule=value)
    assert message == f"learned_rule: rule must be a text of printable letters, got {value!r}"


def test_a_text_is_kept_as_it_is():
    field = next(field for field in fields(lookup("learned_rule").config_class) if field.name == "rule")
    assert (field.kind, field.is_leaf, field.default) == (str, False, "grid_worlds")
    for text in ("1", "True", " an ü, 64x64", "x" * 5000):
        config = configure("learned_rule", lookup("learned_rule").config_class, {"rule": text})
        assert config.rule == plain_value(field, config.rule) == text
        assert still_read("learned_rule", {"rule": text, "gone": 1}) == {"rule": text}
    make = lambda **rule: configure("learned_rule", lookup("learned_rule").config_class, rule)
    assert jax.tree.structure(make(rule="other")) != jax.tree.structure(make())


@pytest.mark.parametrize("value", [8, "88", (8, 0), (8.5,), (8, "8"), (True,), None])
def test_layers_are_sequences_of_positive_whole_numbers(value):
    assert refusal(make, hidden_sizes=value).startswith("ppo: hidden_sizes must be")


@pytest.mark.parametrize("value", [1, "yes", None, 0.0])
def test_switches_are_booleans(value):
    assert refusal(make, normalize_rewards=value) == f"ppo: normalize_rewards must be True or False, got {value!r}"


def test_unknown_choices_are_answered_with_the_nearest():
    message = refusal(make, surrogate="clipp")
    assert message == "ppo: surrogate cannot be 'clipp'; did you mean 'clip'? There is: clip, kl"
    assert "did you mean 'bootstrap'?" in refusal(make, time_limit="bootstraping")
    assert refusal(make, activation=3) == "ppo: activation cannot be '3'; There is: relu, swish, tanh"


def test_minibatches_that_do_not_divide_are_answered_with_a_number_that_does():
    message = refusal(make, num_envs=4, num_steps=9, num_minibatches=8)
    assert "4 * 9 = 36" in message
    offered = int(re.search(r"the nearest that does is (\d+)", message)[1])
    assert offered == 9
    make(num_envs=4, num_steps=9, num_minibatches=offered)


def test_continuous_algorithms_refuse_discrete_environments():
    message = refusal(jaxpg.make, "pmoe_ppo", CYCLE, CYCLE.params([1.0, 2.0], 5))
    assert "pmoe_ppo needs continuous actions, but Cycle has Discrete(n=3" in message
    assert "(ppo)" in message


def test_a_mixture_needs_an_expert():
    message = refusal(jaxpg.make, "pmoe_ppo", WALK, WALK.params(), num_experts=0)
    assert message == "pmoe_ppo: num_experts must be at least 1, got 0"
    assert "argmax_expert_mean" in refusal(jaxpg.make, "pmoe_ppo", WALK, WALK.params(), evaluation="argmax")


@pytest.mark.parametrize("name", ["ppo", "pmoe_ppo"])
def test_unsupported_observations_are_refused(name):
    env = SimpleNamespace(name="Nested", observation_space=lambda params: SimpleNamespace(), action_space=WALK.action_space)
    assert "observations of Nested are namespace(): Box, Discrete, MultiDiscrete" in refusal(jaxpg.make, name, env, None)


def test_unsupported_actions_are_refused():
    env = SimpleNamespace(
        name="Many", observation_space=lambda params: Box(0, 1, (2,)), action_space=lambda params: SimpleNamespace(spaces={})
    )
    assert "ppo takes Box, Discrete, MultiDiscrete and MultiBinary actions, but Many has namespace(spaces={})" in refusal(
        jaxpg.make, "ppo", env, None
    )


@pytest.mark.parametrize("kind", [float, np.float32, np.float64, jnp.float32, lambda x: float(np.float32(x))])
def test_messages_and_files_have_the_shortest_decimal(kind):
    """Of 0.1 as float32, not 0.10000000149011612, nor Array(0.1, dtype=float32)."""
    assert refusal(make, discount=kind(1.1)) == "ppo: discount must lie in [0, 1], got 1.1"
    assert refusal(make, num_envs=kind(0.1)) == "ppo: num_envs must be a whole number, got 0.1"
    assert refusal(make, hidden_sizes=kind(0.1)) == "ppo: hidden_sizes must be a sequence of integers, got 0.1"
    assert refusal(make, normalize_rewards=kind(0.1)) == "ppo: normalize_rewards must be True or False, got 0.1"
    assert shortest(kind(3e-4)) == 3e-4
    config = make(learning_rate=kind(3e-4)).config
    plain = {field.name: plain_value(field, getattr(config, field.name)) for field in fields(type(config))}
    assert json.loads(json.dumps(plain))["learning_rate"] == 3e-4
    assert_same(list(jax.tree.leaves(make(**plain).config)), list(jax.tree.leaves(config)))


def test_a_number_that_is_no_float32_keeps_its_digits():
    assert [shortest(x) for x in (0.1 + 0.2, 1e39, math.inf, 16777217.0)] == [0.1 + 0.2, 1e39, math.inf, 16777217.0]
    assert written(np.int64(3)) == written(jnp.int32(3)) == "3"
    assert written("x") == "'x'"


# --- Configurations ----------------------------------------------------------------------------------------------------


def test_hyperparameters_are_leaves_and_sizes_are_not():
    config = make(learning_rate=1, discount=np.float64(0.5), num_envs=8.0, hidden_sizes=[16, np.int32(8)]).config
    assert (config.num_envs, config.hidden_sizes) == (8, (16, 8))
    assert type(config.num_envs) is int
    assert config.learning_rate.dtype == jnp.float32
    np.testing.assert_array_equal([config.learning_rate, config.discount], [1, 0.5])
    leaves, structure = jax.tree.flatten(config)
    assert len(leaves) == sum(field.is_leaf for field in fields(PPOConfig)) == 10
    assert structure == jax.tree.structure(make(discount=0.1, num_envs=8, hidden_sizes=(16, 8)).config)
    assert structure != jax.tree.structure(make(num_envs=9).config)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.discount = 0.9


@pytest.mark.parametrize("config_class", [entry.config_class for entry in REGISTRY.values()])
def test_every_field_is_described_and_has_a_valid_default(config_class):
    described = fields(config_class)
    assert [field.name for field in described] == [field.name for field in dataclasses.fields(config_class)]
    config = configure("x", config_class, {})
    for field in described:
        assert field.help
        assert field.kind is float or not field.is_leaf
        np.testing.assert_array_equal(
            getattr(config, field.name), np.float32(field.default) if field.is_leaf else field.default
        )


def test_an_algorithm_inherits_the_hyperparameters_it_builds_upon():
    names = [field.name for field in fields(PMOEPPOConfig)]
    assert names[: len(fields(PPOConfig))] == [field.name for field in fields(PPOConfig)]
    assert {"num_experts", "routing_coefficient"} < set(names)


def test_a_run_is_rounded_up_to_whole_updates():
    algorithm = make(num_envs=4, num_steps=10, total_steps=81)
    assert (algorithm.env_steps_per_update, algorithm.num_updates) == (40, 3)
    assert make(num_envs=4, num_steps=10, total_steps=80).num_updates == 2
    assert make(num_envs=4, num_steps=10, total_steps=1).num_updates == 1


# --- Settings that nobody reads (`test_settings.py` finds them) -----------------------------------------------------------


def test_a_setting_that_is_not_read_is_refused():
    message = "ppo: kl_coefficient is read only with surrogate = kl, but surrogate is clip: "
    assert refusal(make, kl_coefficient=0.5) == message + "leave kl_coefficient at 1, or set surrogate"
    message = "ppo: memory_size is read only with memory = gru or lstm, but memory is none: "
    assert refusal(make, memory_size=64) == message + "leave memory_size at 128, or set memory"
    message = "ppo: activation is read only with hidden_sizes that are not empty, but hidden_sizes is (): "
    assert refusal(make, hidden_sizes=(), activation="relu") == message + "leave activation at tanh, or set hidden_sizes"
    assert "chunk_size is read only with memory = none" in refusal(make, memory="gru", chunk_size=2)
    make(surrogate="kl", kl_coefficient=0.5, memory="gru", memory_size=4, num_envs=8)


def test_a_default_may_always_be_given():
    defaults = {field.name: field.default for field in fields(PPOConfig)}
    make(**defaults | {"kl_coefficient": np.float64(1), "memory_size": 128.0})
    make(**defaults | {"kl_coefficient": jnp.float32(1), "hidden_sizes": [64, 64]})


def test_what_is_swept_must_be_read():
    """Also where one of the values is the default."""
    swept = lambda coefficient: make(kl_coefficient=coefficient).config.kl_coefficient
    with pytest.raises(InputError, match="kl_coefficient is read only with surrogate = kl"):
        jax.vmap(swept)(jnp.ones(2))


def test_alternatives_are_in_words():
    cave, params = cave_escape(5, 12)
    with pytest.raises(InputError) as raised:
        jaxpg.make("plr", cave, params, student="impala", score="max_mc", gae_lambda=0.5)
    assert str(raised.value) == (
        "plr: gae_lambda is read only with student = ppo or a2c or trpo, or score = value_l1 or grounded_value_l1 or "
        "positive_value_loss, but student is impala and score is max_mc: leave gae_lambda at 0.95, or set student or score"
    )
    jaxpg.make("plr", cave, params, student="impala", gae_lambda=0.5)


def test_help_says_when_a_field_is_read():
    found = {field.name: field.help for field in fields(PPOConfig)}
    assert found["kl_coefficient"] == "weight of the KL penalty (surrogate = kl)"
    assert found["memory_size"] == "units of the recurrent cell (memory = gru or lstm)"
    assert found["discount"] == "gamma"


def test_students_read_what_they_share_with_ppo():
    cave, params = cave_escape(5, 12)
    for setting in ({"clip_epsilon": 0.9}, {"surrogate": "kl"}, {"num_epochs": 7}, {"num_minibatches": 2}):
        assert "is read only with student = ppo" in refusal(jaxpg.make, "plr", cave, params, student="a2c", **setting)
    assert "student = ppo or a2c or impala" in refusal(jaxpg.make, "sfl", cave, params, student="trpo", value_coefficient=0.1)


def test_the_size_of_a_training_set_that_is_given_is_not_asked_for():
    cave, params = cave_escape(5, 12)
    levels = jax.vmap(cave.sample_level)(jax.random.split(jax.random.key(0), 40))
    for setting in ({"num_levels": 40}, {"dataset_seed": 1}):
        message = refusal(jaxpg.make, "plr", cave, params.replace(level=levels), **setting)
        assert f"{next(iter(setting))} is read only where params hold no training set" in message
        jaxpg.make("plr", cave, params, **{"num_levels": 36, **setting})


def test_what_an_algorithm_never_reads_is_none_of_its_fields():
    for name, gone in (("trpo", {"value_coefficient"}), ("paired", {"levels", "num_levels", "dataset_seed"})):
        assert not gone & {field.name for field in fields(lookup(name).config_class)}


def test_a_saved_configuration_is_built_again_whatever_earlier_versions_accepted():
    params = CYCLE.params([1.0, 2.0], 5)
    saved = {field.name: field.default for field in fields(lookup("trpo").config_class)} | {"num_envs": 4}
    old = saved | {"memory_size": 7, "value_coefficient": 0.3}
    assert still_read("trpo", old) == {name: value for name, value in saved.items() if name != "memory_size"}
    expected = jaxpg.make("trpo", CYCLE, params, **saved).config
    assert jax.tree.structure(rebuild("trpo", CYCLE, params, old).config) == jax.tree.structure(expected)
    short = {"total_steps": 100, "learning_starts": 1000}
    assert rebuild("dqn", CYCLE, params, short).num_updates == 10


# --- Runs that cannot learn -----------------------------------------------------------------------------------------------

CAVE, CAVE_PARAMS = cave_escape(5, 12)
OMNI, OMNI_PARAMS = jaxpg_envs.make("PointOmni-v0")
OMNI_PARAMS = OMNI_PARAMS.replace(max_steps_in_episode=5)
FIVE = CYCLE.params([1.0, 2.0], 5)
LEVELS = {"num_envs": 4, "num_steps": 10, "memory": "none"}
SET = LEVELS | {"levels": "dataset", "num_levels": 8}
SHORT = {  # the fewest steps, and the update that learns
    "dqn": (
        ("dqn", CYCLE, FIVE, {"learning_starts": 95, "num_envs": 10}),
        91,
        10,
        "learning_starts = 95",
    ),
    "sac": (("sac", WALK, WALK.params(), {"learning_starts": 50}), 50, 50, "learning_starts = 50"),
    "td3": (("td3", WALK, WALK.params(), {"learning_starts": 50, "policy_delay": 3}), 52, 52, "policy_delay = 3"),
    "map_elites": (("map_elites", OMNI, OMNI_PARAMS, {"num_offspring": 8}), 41, 2, "num_offspring = 8"),
    "pga_map_elites": (
        ("pga_map_elites", OMNI, OMNI_PARAMS, {"num_offspring": 8, "critic_steps": 2, "policy_delay": 9}),
        161,
        5,
        "critic_steps = 2, policy_delay = 9",
    ),
    "plr": (("plr", CAVE, CAVE_PARAMS, LEVELS | {"levels": "generator", "buffer_size": 24}), 121, 4, "buffer_size = 24"),
    "robust_plr": (("robust_plr", CAVE, CAVE_PARAMS, LEVELS | {"buffer_size": 32}), 161, 3, "minimum_fill = 0.5"),
    "accel": (("accel", CAVE, CAVE_PARAMS, LEVELS | {"buffer_size": 10, "minimum_fill": 0.3}), 81, 2, "minimum_fill = 0.3"),
    "sfl": (("sfl", CAVE, CAVE_PARAMS, LEVELS | {"period": 3}), 241, 4, "period = 3"),
}


def differ(a, b):
    return any((x != y).any() for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


@pytest.mark.parametrize("case", SHORT)
def test_a_run_that_would_end_before_it_learns_is_refused(case):
    (name, env, params, settings), fewest, update, words = SHORT[case]
    algorithm = jaxpg.make(name, env, params, **settings, total_steps=fewest)
    assert algorithm.num_updates == algorithm.learns_from == update
    message = refusal(jaxpg.make, name, env, params, **settings, total_steps=fewest - algorithm.env_steps_per_update)
    assert message.startswith(f"{name}: a run of total_steps = ")
    assert words in message
    assert f"take at least {update * algorithm.env_steps_per_update} steps" in message
    with pytest.raises(InputError, match=f"^{counted(update - 1, 'update')} of"):
        jaxpg.train(algorithm, jax.random.key(0), update - 1)


@pytest.mark.parametrize("name", ["dqn", "td3"])
def test_learning_begins_where_it_is_said(name):
    """In that update the policy's parameters move, and in none before."""
    (_, env, params, settings), steps, update, _ = SHORT[name]
    sizes = {"hidden_sizes": (4,), "batch_size": 4, "total_steps": 2 * steps}
    algorithm = jaxpg.make(name, env, params, **settings, **sizes)
    policy = lambda state: numbers(algorithm.policy(state).params)
    start = algorithm.init(jax.random.key(0))
    state, step, moved = start, quick_jit(algorithm.update), []
    for _ in range(update):
        state, _ = step(state)
        moved.append(differ(policy(state), policy(start)))
    assert moved == [False] * (update - 1) + [True]


def test_a_training_set_must_fit():
    """Into the buffer, and a batch of environments or of the autoencoder into the set."""
    message = "a training set of 8 levels does not fit into buffer_size = 6"
    for name in ("robust_plr", "accel"):
        assert message in refusal(jaxpg.make, name, CAVE, CAVE_PARAMS, **SET, buffer_size=6)
        many = SET | {"num_envs": 9}
        assert "need as many levels, but there are 8" in refusal(jaxpg.make, name, CAVE, CAVE_PARAMS, **many)
    message = refusal(jaxpg.make, "dred", CAVE, CAVE_PARAMS, **SET, num_points=2, vae_batch_size=9)
    assert message == "dred: vae_batch_size = 9 levels per step are more than the training set's 8: give at most 8"


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("ppo", {"num_envs": 2, "num_steps": 4, "num_minibatches": 8}),
        ("pmoe_ppo", {"num_envs": 3, "num_steps": 1, "num_minibatches": 3, "memory": "gru"}),
        ("trpo", {"num_envs": 1, "num_steps": 1, "num_minibatches": 1}),
        ("reinforce", {"num_envs": 1, "num_steps": 1, "baseline": "mean"}),
    ],
)
def test_advantages_are_compared_among_several_steps(name, sizes):
    """Of a single one nothing is left once the mean is subtracted."""
    with pytest.raises(InputError, match=r"(a minibatch|the batch) is a single step, of whose advantage nothing is left"):
        jaxpg.make(name, WALK, WALK.params(), **sizes)
    jaxpg.make(name, WALK, WALK.params(), **sizes | {"num_steps": 2 * sizes["num_steps"]})


def test_training_beyond_the_end_of_an_annealed_run_is_refused():
    sizes = {"num_envs": 2, "num_steps": 4, "num_minibatches": 1, "num_epochs": 1, "hidden_sizes": (4,), "total_steps": 16}
    message = refusal(jaxpg.train, make(**sizes), jax.random.key(0), 3)
    start = "num_updates = 3, but after 2, the end of the run of total_steps = 16, the learning rate has fallen to its end: "
    assert message.startswith(start)
    assert "make the algorithm with total_steps = 24, or with anneal_learning_rate = False" in message
    for settings in ({"total_steps": 24}, {"anneal_learning_rate": False}):
        algorithm = make(**sizes | settings)
        _, metrics = jax.eval_shape(lambda key, algorithm=algorithm: jaxpg.train(algorithm, key, 3), jax.random.key(0))
        assert metrics["policy_loss"].shape == (3,)


def test_schedules_stay_at_their_end():
    """Far beyond a run's end, the temperature of the gumbel estimator is that of its last update, and not below zero."""
    sizes = {"num_envs": 4, "batch_size": 4, "hidden_sizes": (4,), "buffer_size": 12, "num_experts": 2, "learning_starts": 4}
    algorithm = jaxpg.make("pmoe_sac", WALK, WALK.params(), estimator="gumbel", total_steps=20, **sizes)
    update = quick_jit(algorithm.update)
    state, _ = update(algorithm.init(jax.random.key(0)))
    at_end, beyond = (update(state._replace(updates=jnp.int32(updates)))[0].learner for updates in (5, 500))
    assert not differ(at_end.actor, beyond.actor)


# --- The registry ------------------------------------------------------------------------------------------------------


def test_ones_own_algorithm_is_two_functions(monkeypatch):
    monkeypatch.setattr("jaxpg.algorithm.REGISTRY", dict(REGISTRY))

    @jaxpg.algorithm.struct.dataclass
    class Config:
        step: jaxpg.algorithm.Scalar = hyperparameter(0.5, "how far", low=0)
        factor: int = static(2, "how often")

    @register("walk", Config, paper="none", field="test", actions="none", status="complete")
    def walk(config, env, params):
        def update(state):
            state = state + config.step * config.factor
            return state, {"position": state}

        return Algorithm(lambda key: jnp.float32(0), update, lambda state: state, config, 1, 3)

    state, metrics = jaxpg.train(jaxpg.make("walk", None, None, step=2.0), jax.random.key(0))
    np.testing.assert_array_equal(metrics["position"], [4, 8, 12])
    assert state == 12
    assert lookup("walk").config_class is Config
    assert "did you mean 'step'" in refusal(jaxpg.make, "walk", None, None, stp=1.0)
    assert "already registered" in refusal(register("walk", Config, paper="", field="", actions="", status=""), walk)
