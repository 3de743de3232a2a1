"""Parameters replaced and drawn at random, with what follows from them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checks import assert_same, quick_jit
from jax.interpreters import partial_eval
from numpy.testing import assert_allclose

import jaxpg_envs
from jaxpg_envs import EnvironmentInputError, registry, replace_params, sample_params
from jaxpg_envs.brax_adapter import BraxParams
from jaxpg_envs.params import _rules

KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def cartpole():
    return jaxpg_envs.make("CartPole-v1")


def test_cartpole_keeps_the_laws_of_physics(cartpole):
    """Against the equations of a cart of mass M and a uniform pole of mass m and length 2 l, solved as a linear system.

    (M + m) a + m l cos(t) b = F + m l w^2 sin(t);  cos(t) a + 4/3 l b = g sin(t)
    """
    env, params = cartpole
    changed = replace_params(params, masspole=0.7, masscart=1.5, pole_length=1.8, gravity=3.7)
    assert (changed.total_mass, changed.length) == pytest.approx((2.2, 0.9))
    assert changed.polemass_length == pytest.approx(0.63)
    _, state = env.reset(KEY, params)
    state = state.replace(theta=0.15, theta_dot=1.1, x_dot=0.3)
    _, after, *_ = env.step_env(KEY, state, 1, changed)
    m, half, c, s = 0.7, 0.9, np.cos(0.15), np.sin(0.15)
    matrix = [[2.2, m * half * c], [c, 4 / 3 * half]]
    a, b = np.linalg.solve(matrix, [10 + m * half * 1.1**2 * s, 3.7 * s])
    assert_allclose([after.x_dot, after.theta_dot], [0.3 + 0.02 * a, 1.1 + 0.02 * b], rtol=1e-5)


def test_derived_values_of_the_defaults_are_the_defaults(cartpole):
    bandit = jaxpg_envs.make("BernoulliBandit-misc")[1]
    for params in (cartpole[1], bandit):
        assert jax.tree.leaves(replace_params(params)) == pytest.approx(jax.tree.leaves(params))
    assert replace_params(bandit, max_steps_in_episode=30.0).t_max == 30


GYMNAX = [id for id in registry._GYMNAX if id != "MNISTBandit-bsuite"]  # downloads its data


@pytest.mark.parametrize("id", GYMNAX)
def test_what_is_called_unread_is_exactly_what_is_never_read(id):
    env, params = jaxpg_envs.make(id)

    def everything(params):
        params = replace_params(params)
        observation, state = env.reset(KEY, params)
        action = env.action_space(params).sample(KEY)
        space = env.observation_space(params)
        bounds = (jnp.asarray(getattr(space, end, 0)) for end in ("low", "high"))
        _, successor, *rest = env.step_env(KEY, state, action, params)
        return observation, state, successor, rest, env.is_truncated(successor, params), *bounds

    arrays = jax.tree.map(jnp.asarray, params)
    program = jax.make_jaxpr(everything)(arrays).jaxpr
    _, used = partial_eval.dce_jaxpr(program, [True] * len(program.outvars))
    fields = [path[0].name for path, _ in jax.tree_util.tree_leaves_with_path(arrays)]
    unread = {name for name, is_used in zip(fields, used, strict=True) if not is_used}
    assert unread == {*_rules(params).unread, *_rules(params).derived}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"total_mass": 2.0}, r'"total_mass" follows from others \(total_mass = masscart \+ masspole\); change those'),
        ({"pole_lenght": 2.0}, r'unknown parameter "pole_lenght"; did you mean "pole_length"\? it takes max_steps.*'),
        ({"xyz": 2.0}, r'unknown parameter "xyz"; it takes max_steps_in_episode, gravity, masscart'),
        ({"length": 1.0, "pole_length": 2.0}, '"pole_length" and "length" are the same parameter'),
        ({"gravity": np.nan}, "gravity=nan is not finite"),
        ({"gravity": None}, "gravity=None is not a number"),
        ({"gravity": "low"}, "gravity='low' is not a number"),
        ({"max_steps_in_episode": 10.5}, "max_steps_in_episode=10.5 is not an integer"),
    ],
)
def test_changes_that_are_refused(cartpole, change, message):
    with pytest.raises(EnvironmentInputError, match=message):
        replace_params(cartpole[1], **change)
    if len(change) == 1:
        with pytest.raises(EnvironmentInputError, match=message):
            sample_params(KEY, cartpole[1], {name: (value, value) for name, value in change.items()})


def test_flags_are_refused_as_numbers():
    with pytest.raises(EnvironmentInputError, match=r"dense_reward=0.5 is not a flag"):
        replace_params(jaxpg_envs.make("PointRobot-misc")[1], dense_reward=0.5)


def test_an_integer_for_a_real_number_does_not_make_the_field_an_integer(cartpole):
    params = replace_params(cartpole[1], masscart=2)
    assert sample_params(KEY, params, {"masscart": (0.5, 0.6)}).total_mass == pytest.approx(0.65, abs=0.05)
    params = sample_params(KEY, replace_params(BraxParams(), gear_scale=2), {"gear_scale": (jnp.zeros(3), jnp.ones(3))})
    assert params.gear_scale.shape == (3,)


def test_a_change_without_effect_is_refused():
    params = jaxpg_envs.make("Acrobot-v1")[1]
    with pytest.raises(EnvironmentInputError, match='"link_length_2" has no effect'):
        replace_params(params, link_length_2=2.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mass_scale": 0.0}, "mass_scale=0.0; it must be positive"),
        ({"mass_scale": [1.0, -1.0]}, "it must be positive"),
        ({"friction_scale": -0.1}, "it must be at least 0"),
        ({"mass": 2.0}, 'did you mean "mass_scale"'),
    ],
)
def test_senseless_physics(change, message):
    with pytest.raises(EnvironmentInputError, match=message):
        replace_params(BraxParams(), **change)


def test_physics_can_be_taken_back():
    params = replace_params(BraxParams(), mass_scale=[1.0, 2.0], gravity=3.0)
    assert_same(params.mass_scale, np.array([1.0, 2.0], np.float32))
    assert replace_params(params, mass_scale=None, gravity=None) == BraxParams()
    with pytest.raises(EnvironmentInputError, match="dataclass, not dict"):
        replace_params({"mass": 1.0}, mass=2.0)


RANGES = {"pole_length": (0.3, 1.2), "masspole": (0.1, 0.5), "max_steps_in_episode": (3, 5)}


def test_draws_of_many_environments(cartpole):
    env, params = cartpole
    keys = jax.random.split(KEY, 2000)
    drawn = jax.jit(jax.vmap(lambda key: sample_params(key, params, RANGES)))(keys)
    for values, low, high in [(2 * drawn.length, 0.3, 1.2), (drawn.masspole, 0.1, 0.5)]:
        assert low <= values.min() < low + 0.01 * (high - low)
        assert high - 0.01 * (high - low) < values.max() <= high
        assert values.mean() == pytest.approx((low + high) / 2, abs=4 * (high - low) / np.sqrt(12 * 2000))
    assert abs(np.corrcoef(drawn.length, drawn.masspole)[0, 1]) < 0.1
    assert drawn.max_steps_in_episode.dtype == jnp.int32
    assert set(np.asarray(drawn.max_steps_in_episode)) == {3, 4, 5}
    assert_allclose(drawn.polemass_length, drawn.masspole * drawn.length, rtol=1e-6)
    assert_allclose(drawn.total_mass, 1 + drawn.masspole, rtol=1e-6)
    assert_same(drawn.gravity, np.full(2000, 9.8, np.float32))

    # Stepped side by side, each with its own physics and its own time limit.
    @quick_jit
    def truncated(keys, drawn):
        _, state = jax.vmap(env.reset)(keys, drawn)
        for _ in range(3):
            _, state, _, _, truncated, _ = jax.vmap(env.step, (0, 0, None, 0))(keys, state, 1, drawn)
        return truncated, state.theta_dot

    ends, velocity = truncated(keys, drawn)
    assert_same(ends, drawn.max_steps_in_episode == 3)
    assert len(np.unique(velocity)) > 1000


def test_a_draw_depends_on_its_own_range_alone(cartpole):
    together = sample_params(KEY, cartpole[1], RANGES)
    alone = sample_params(KEY, cartpole[1], {"masspole": (0.1, 0.5)})
    assert together.masspole == alone.masspole
    assert sample_params(KEY, cartpole[1], {}) == cartpole[1]


def test_one_draw_for_all_entries_or_one_for_each():
    pair = sample_params(KEY, BraxParams(), {"mass_scale": (0.5, 2.0), "gravity": (8.0, 12.0)})
    assert pair.mass_scale.shape == pair.gravity.shape == ()
    assert 8 <= pair.gravity < 12
    each = sample_params(KEY, BraxParams(), {"mass_scale": (jnp.array([0.5, 1.0, 3.0]), jnp.array([0.6, 1.0, 4.0]))})
    assert 0.5 <= each.mass_scale[0] < 0.6 < each.mass_scale[1] == 1 < 3 <= each.mass_scale[2] < 4

    params = jaxpg_envs.make("Acrobot-v1")[1]
    torque = sample_params(KEY, params, {"available_torque": (0.0, 1.0)}).available_torque
    assert torque.shape == (3,)
    assert (torque == torque[0]).all()


def test_the_ends_of_a_range_may_be_traced(cartpole):
    draw = lambda high: sample_params(KEY, cartpole[1], {"masspole": (0.1, high)}).masspole
    highs = jnp.linspace(0.2, 1, 5)
    assert_allclose(jax.jit(jax.vmap(draw))(highs), [draw(high) for high in highs], rtol=1e-6)


@pytest.mark.parametrize(
    ("id", "ranges", "message"),
    [
        ("CartPole-v1", {"length": (1.0, 0.5)}, "the range of length is reversed"),
        ("CartPole-v1", {"length": (0.5, np.inf)}, "length=inf is not finite"),
        ("CartPole-v1", {"length": 0.5}, r"the range of length is \(low, high\), not 0.5"),
        ("CartPole-v1", {"length": (0.5, 0.6, 0.7)}, "the range of length is"),
        (
            "CartPole-v1",
            {"length": (jnp.zeros(2), jnp.ones(2))},
            "the ends of the range of length must be numbers: ",
        ),
        ("Acrobot-v1", {"available_torque": (jnp.zeros(2), jnp.ones(2))}, r"numbers or arrays of the shape \(3,\)"),
        ("PointRobot-misc", {"dense_reward": (0, 1)}, "dense_reward is a flag"),
    ],
)
def test_ranges_that_are_refused(id, ranges, message):
    with pytest.raises(EnvironmentInputError, match=message):
        sample_params(KEY, jaxpg_envs.make(id)[1], ranges)
