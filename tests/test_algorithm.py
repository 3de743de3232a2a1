"""Configurations, the registry, and what they answer to mistakes."""

import dataclasses
import json
import math
import re
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checks import assert_same
from environments import Box, Cycle, Walk

import jaxpg
from jaxpg.algorithm import (
    REGISTRY,
    Algorithm,
    InputError,
    configure,
    fields,
    hyperparameter,
    lookup,
    plain_value,
    register,
    shortest,
    static,
    written,
)
from jaxpg.algorithms.online.pmoe_ppo import PMOEPPOConfig
from jaxpg.algorithms.online.ppo import PPOConfig

CYCLE, WALK = Cycle(), Walk()


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
    assert "ppo takes Box, Discrete and MultiDiscrete actions, but Many has namespace(spaces={})" in refusal(
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
    assert len(leaves) == sum(field.is_leaf for field in fields(PPOConfig)) == 8
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
