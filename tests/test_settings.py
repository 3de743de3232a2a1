"""No setting is accepted and ignored: what a configuration accepts changes the program, and what would not is refused.

Programs are compared as traced, without the equations that neither the state nor the policy's actions depend on: a
hyperparameter that only a metric reads counts as read by nobody.
"""

import typing

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from environments import Box, Cycle
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal
from jax.interpreters.partial_eval import dce_jaxpr

import jaxpg_envs
from jaxpg.algorithm import REGISTRY, InputError, configure, fields
from jaxpg.algorithms.environment_design.curriculum import StudentConfig
from jaxpg.algorithms.meta_learning.rule_agent import AgentConfig
from jaxpg.algorithms.meta_learning.rule_file import save_rule
from jaxpg.algorithms.meta_learning.update_rule import UpdateRule
from jaxpg_envs.cave_escape import cave_escape

KEY = jax.random.key(0)


class Screens(Cycle):
    """A cycle seen as a picture, in which one of nine pixels is bright."""

    def observe(self, state):
        return jax.nn.one_hot(state["place"], 9).reshape(3, 3, 1)

    def observation_space(self, params):
        return Box(0, 1, (3, 3, 1))


class Levers(Screens):
    """The same with continuous actions."""

    def action_space(self, params):
        return Box(-1.0, 1.0, (2,))


DISCRETE, CONTINUOUS = Screens(), Levers()
CYCLE = DISCRETE.params([1.0, 2.0], 3)
OMNI, OMNI_PARAMS = jaxpg_envs.make("PointOmni-v0")
OMNI_PARAMS = OMNI_PARAMS.replace(max_steps_in_episode=3)
CAVE, CAVE_PARAMS = cave_escape(5, 12)
GRID, GRID_PARAMS = jaxpg_envs.make("GridWorlds-v0", levels="small")

ON_POLICY = {"num_envs": 4, "num_steps": 4, "hidden_sizes": (4,), "total_steps": 160}
MINIBATCHES = {"num_minibatches": 2}
OFF_POLICY = ON_POLICY | {"batch_size": 8, "buffer_size": 64, "learning_starts": 4}
REPERTOIRE = {"num_cells": 8, "num_offspring": 8, "hidden_sizes": (4,), "total_steps": 240}
CRITICS = REPERTOIRE | {"critic_hidden_sizes": (4,), "buffer_size": 96, "batch_size": 8, "critic_steps": 2}
CRITICS |= {"policy_gradient_steps": 2}
STUDENT = ON_POLICY | {"memory": "none", "num_epochs": 2, "total_steps": 640}
LEVELS = STUDENT | {"num_levels": 8}
AGENTS = {"num_envs": 2, "num_steps": 3, "hidden_sizes": (), "num_minibatches": 1}
RULES = AGENTS | {"lifetime": 2, "rule_size": 4, "num_bins": 3, "total_steps": 1000}
META = RULES | {"num_agents": 4, "num_inner_updates": 1, "max_endings": 1, "buffer_size": 8}
CODES = {"vae_latent_size": 4, "vae_hidden_sizes": (8,), "vae_epochs": 2, "vae_batch_size": 4, "num_points": 2}

SIZES = {
    "a2c": ON_POLICY,
    "accel": LEVELS | {"buffer_size": 16},
    "cma_me": REPERTOIRE | {"num_emitters": 2},
    "dcg_map_elites": CRITICS | {"actor_hidden_sizes": (4,)},
    "dcrl_map_elites": CRITICS,
    "ddpg": OFF_POLICY,
    "domain_randomization": LEVELS,
    "dqn": OFF_POLICY,
    "dred": LEVELS | CODES | {"buffer_size": 16},
    "evolved_rule": RULES | {"num_pairs": 2},
    "groove": META,
    "impala": ON_POLICY,
    "learned_rule": ON_POLICY,
    "lpg": META,
    "map_elites": REPERTOIRE,
    "me_es": REPERTOIRE | {"num_offspring": 5},
    "paired": STUDENT | {"num_walls": 3},
    "pga_map_elites": CRITICS,
    "plr": LEVELS,
    "pmoe_ppo": ON_POLICY | MINIBATCHES | {"num_epochs": 2, "num_experts": 2},
    "pmoe_sac": OFF_POLICY | {"num_experts": 2},
    "ppo": ON_POLICY | MINIBATCHES | {"num_epochs": 2},
    "pqn": ON_POLICY | MINIBATCHES,
    "qr_dqn": OFF_POLICY | {"num_quantiles": 3},
    "reinforce": ON_POLICY,
    "robust_plr": LEVELS | {"buffer_size": 16},
    "sac": OFF_POLICY,
    "sac_discrete": OFF_POLICY,
    "sfl": LEVELS | {"buffer_size": 4, "copies": 2, "period": 2},
    "soft_option_critic": OFF_POLICY | {"num_experts": 2},
    "td3": OFF_POLICY,
    "trpo": ON_POLICY | MINIBATCHES,
}
# Other values than twice the one above.
OTHERS = {"learning_starts": 40, "num_offspring": 12, "me_es num_offspring": 7, "copies": 1, "dred num_points": 4}


@pytest.fixture(scope="module", autouse=True)
def other_rule(tmp_path_factory):
    """A second value of `rule`."""
    rule, OTHERS["rule"] = UpdateRule(4, 3), str(tmp_path_factory.mktemp("rules") / "other")
    save_rule(OTHERS["rule"], rule, rule.initial(KEY), {})


def environment(name):
    entry = REGISTRY[name]
    if entry.field == "environment_design":
        return CAVE, CAVE_PARAMS
    if entry.field == "meta_learning":
        return GRID, GRID_PARAMS
    if entry.field == "quality_diversity":
        return OMNI, OMNI_PARAMS
    return (DISCRETE if "discrete" in entry.actions else CONTINUOUS), CYCLE


def defaults(name):
    return {field.name: field.default for field in fields(REGISTRY[name].config_class)}


def choices(field):
    """The values of a switch or choice; none of a size."""
    return (True, False) if field.kind is bool else typing.get_args(field.kind) if is_choice(field) else ()


def is_choice(field):
    return typing.get_origin(field.kind) is typing.Literal


def other_value(name, field, value):
    if field.is_leaf:
        return 0.7 * value or 0.5
    if choices(field):
        return next((choice for choice in choices(field) if choice != value), None)
    if isinstance(value, tuple):
        return (*value, 5)
    if field.name == "num_minibatches":
        return 3 - value
    return OTHERS.get(f"{name} {field.name}", OTHERS.get(field.name, 2 * value or 2))


def accepts(name, values, field):
    """Whether one may give the field another value than the default."""
    value = other_value(name, field, field.default)
    try:
        configure(name, REGISTRY[name].config_class, {field.name: value} | values | {field.name: value})
    except InputError as error:
        return f"{name}: {field.name} is read only with" not in str(error)
    return True


def build(name, values):
    """Around `configure`, which would refuse what is not read."""
    entry = REGISTRY[name]
    return entry.factory(entry.config_class(**(defaults(name) | values)), *environment(name))


def program(name, values):
    """What a state and its policy's actions are computed with, and which leaves of the configuration that reads."""
    env, params = environment(name)
    leaves = {field.name: jnp.float32(field.default) for field in fields(REGISTRY[name].config_class) if field.is_leaf}

    def run(leaves, key):
        algorithm = build(name, values | leaves)
        state, _ = algorithm.update(algorithm.init(key))
        observation, _ = env.reset(key, params)
        policies = [algorithm.policy(state, deterministic) for deterministic in (True, False)]
        return state, [policy.act(policy.params, key, observation, policy.initial_carry) for policy in policies]

    traced = jax.make_jaxpr(run)(leaves, KEY)
    jaxpr, used = dce_jaxpr(traced.jaxpr, [True] * len(traced.jaxpr.outvars))
    return (fingerprint(jaxpr), tuple(map(constant, traced.consts))), dict(zip(sorted(leaves), used, strict=False))


def constant(x):
    return np.asarray(x).tobytes() if not jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else "key"


def fingerprint(jaxpr):
    """A hash of a program that does not depend on the names of variables."""
    number = {}

    def atom(x):
        return (str(x.aval), np.asarray(x.val).tobytes()) if isinstance(x, Literal) else number.setdefault(x, len(number))

    def part(x):
        if isinstance(x, ClosedJaxpr):
            return fingerprint(x.jaxpr), tuple(map(constant, x.consts))
        if isinstance(x, Jaxpr):
            return fingerprint(x)
        if isinstance(x, tuple | list):
            return tuple(map(part, x))
        return "function" if callable(x) and not isinstance(x, type) else str(x)

    return hash(
        (
            tuple(str(x.aval) for x in jaxpr.invars),
            tuple(
                (
                    str(equation.primitive),
                    tuple(map(atom, equation.invars)),
                    tuple((key, part(value)) for key, value in sorted(equation.params.items())),
                    tuple((atom(x), str(x.aval)) for x in equation.outvars),
                )
                for equation in jaxpr.eqns
            ),
            tuple(map(atom, jaxpr.outvars)),
        )
    )


def size(name, values):
    """What tells most programs apart without tracing an update."""
    algorithm = build(name, values)
    leaves, structure = jax.tree.flatten(jax.eval_shape(algorithm.init, KEY))
    shapes = tuple((leaf.shape, str(leaf.dtype)) for leaf in leaves)
    return algorithm.num_updates, algorithm.env_steps_per_update, shapes, str(structure)


# Switches that select nothing but themselves.
ALONE = {"activation", "double", "dueling", "encoder", "evaluation", "grounded", "layer_norm", "prioritization", "time_limit"}
ALONE |= {"initial_actions", "initialization", "normalize_observations", "normalize_rewards", "route_ppo_gradient"}
ALONE |= {"legacy_frozen_critic", "legacy_row_advantage", "remat", "temporally_aware"}
# Of two switches, either of which is enough to read something.
TOGETHER = {name: [{"student": "impala", "score": "max_mc"}] for name in ("plr", "robust_plr", "accel")}
TOGETHER |= {name: [{"score": "value_l1", "prioritization": "proportional"}] for name in ("lpg", "groove")}
# What the program reads, but to no effect: the similarity of a descriptor to itself is 1 at any length, and where nothing
# is worth anything beyond a time limit, it is an end.
WITHOUT_EFFECT = {
    ("dcg_map_elites", "kernel_length"): {"ablation": "no_actor_episodes"},
    ("reinforce", "time_limit"): {"baseline": "mean"},
}


STUDENT_FIELDS = [field for field in fields(StudentConfig) if field.name != "student"]
AGENT_FIELDS = fields(AgentConfig)


def is_the_same_elsewhere(name, field):
    """Of a student: all curricula hand its settings to it in one place, and PLR stands for them. So learned_rule for agents."""
    is_of_student = REGISTRY[name].field == "environment_design" and name != "plr" and field in STUDENT_FIELDS
    return is_of_student or (name in ("lpg", "groove", "evolved_rule") and field in AGENT_FIELDS)


def combinations(name):
    """What differs from the sizes: nothing, then each other value of each switch and choice."""
    yield {}
    for field in fields(REGISTRY[name].config_class):
        if field.name not in ALONE and not is_the_same_elsewhere(name, field):
            yield from ({field.name: value} for value in choices(field) if value != field.default)
    yield from TOGETHER.get(name, [])


THOROUGH = ("accel", "dred", "groove", "lpg", "robust_plr")
ALL = [pytest.param(name, marks=[pytest.mark.thorough] * (name in THOROUGH)) for name in sorted(SIZES)]


@pytest.mark.parametrize("name", ALL)
def test_every_field_is_read_or_refused(name):
    """Hyperparameters are read, sizes and choices make a difference: beside the default choices, all; beside another, those
    that need it."""
    wrong = {}
    for chosen in combinations(name):
        values = SIZES[name] | chosen
        (base, read), sized = program(name, values), size(name, values)
        for field in fields(REGISTRY[name].config_class):
            other = other_value(name, field, values.get(field.name, field.default))
            concerns = not chosen or any(set(chosen) & set(case) for case in field.needs)
            concerns &= other is not None and not is_the_same_elsewhere(name, field)
            if not (field.is_leaf or concerns) or WITHOUT_EFFECT.get((name, field.name)) == chosen:
                continue
            changed = values | {field.name: other}
            matters = read[field.name] if field.is_leaf else size(name, changed) != sized or program(name, changed)[0] != base
            if matters != accepts(name, values, field):
                wrong[str(chosen), field.name] = f"matters: {matters}"
    assert wrong == {}


def test_all_algorithms_are_tested():
    assert set(SIZES) == set(REGISTRY)
