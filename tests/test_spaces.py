"""Observations as vectors, actions as the environment wants them."""

import re
from types import SimpleNamespace

import gymnasium.spaces as gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checks import quick_jit
from environments import Aim, Box, Cycle, Discrete, Walk
from gymnax.environments import spaces as gymnax
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxpg
from jaxpg.algorithm import InputError
from jaxpg.off_policy import bounded_actions, discrete_actions
from jaxpg.spaces import (
    action_decoder,
    difference,
    is_box,
    is_discrete,
    locate_image,
    observation_encoder,
    observation_size,
    require_box_actions,
)

INF, KEY = np.inf, jax.random.key(0)


def observing(space):
    return SimpleNamespace(name="Env", observation_space=lambda params: space)


def acting(space):
    return SimpleNamespace(name="Env", action_space=lambda params: space)


def decode(space, actions):
    return np.asarray(action_decoder(acting(space), None)(jnp.asarray(actions)))


@pytest.mark.parametrize("discrete", [Discrete(4), gymnax.Discrete(4)])
@pytest.mark.parametrize("box", [Box(0, 1, (2,)), gymnax.Box(0, 1, (2,))])
def test_kinds_of_spaces(discrete, box):
    assert (is_discrete(discrete), is_box(discrete)) == (True, False)
    assert (is_discrete(box), is_box(box)) == (False, True)
    for other in (gymnax.Dict({"a": box}), gymnax.Tuple((box, discrete))):
        assert not is_discrete(other)
        assert not is_box(other)
    with pytest.raises(InputError, match=r"observations of Env are .*object.*Box, Discrete.*\s?are supported"):
        observation_size(observing(object), None)


def test_dictionaries_and_tuples_are_concatenated():
    """In the order of the names, whatever that of the dictionary; nested as deep as one likes."""
    box, discrete, multi = Box(0, 1, (2, 2)), Discrete(3), SimpleNamespace(nvec=(2, 3))
    env = observing(gymnax.Dict({"b": box, "a": gymnax.Tuple((discrete, multi)), "c": Box(0, 1, ())}))
    assert observation_size(env, None) == 3 + 5 + 4 + 1
    observation = {
        "c": jnp.full(2, 9.0),
        "b": jnp.arange(8.0).reshape(2, 2, 2),
        "a": (jnp.array([2, 0]), jnp.array([[1, 2], [0, 1]])),
    }
    features = observation_encoder(env, None)(observation)
    expected = [[0, 0, 1, 0, 1, 0, 0, 1, 0, 1, 2, 3, 9], [1, 0, 0, 1, 0, 0, 1, 0, 4, 5, 6, 7, 9]]
    np.testing.assert_array_equal(features, np.array(expected, np.float32))


def test_an_image_is_found_among_the_encoded_features():
    image = Box(0, 1, (5, 4, 3))
    for space, offset in ((image, 0), (gymnax.Dict({"image": image, "compass": Discrete(4), "ink": Box(0, 1, (2,))}), 4)):
        env = observing(space)
        assert locate_image("ppo", env, None) == (offset, (5, 4, 3))
        pixels = jnp.arange(60.0).reshape(5, 4, 3)
        whole = {"image": pixels, "compass": jnp.int32(1), "ink": jnp.ones(2)}
        features = observation_encoder(env, None)(pixels if space is image else whole)
        np.testing.assert_array_equal(features[offset : offset + 60].reshape(5, 4, 3), pixels)


@pytest.mark.parametrize("space", [Discrete(4), Box(0, 1, (5, 4)), Box(0, 1, (2, 9, 1)), gymnax.Dict({"a": Box(0, 1, (9,))})])
def test_what_has_no_image_cannot_be_convolved(space):
    with pytest.raises(InputError, match=r"ppo: .*at least 3 x 3 pixels, but observations of Env .*choose encoder = dense"):
        locate_image("ppo", observing(space), None)


@pytest.mark.parametrize("axes", [(), (3,), (5, 3)])
def test_discrete_observations_are_one_hot(axes):
    observation = jax.random.randint(jax.random.key(0), axes, 0, 4)
    features = observation_encoder(observing(Discrete(4)), None)(observation)
    np.testing.assert_array_equal(features, np.eye(4, dtype=np.float32)[np.asarray(observation)])
    assert features.dtype == jnp.float32


def test_truths_are_one_hot_where_the_space_is_discrete():
    env = observing(gymnax.Dict({"a": Discrete(2), "b": SimpleNamespace(nvec=[2, 2])}))
    features = observation_encoder(env, None)({"a": jnp.array(True), "b": jnp.array([False, True])})
    assert features.tolist() == [0, 1, 1, 0, 0, 1]


@pytest.mark.parametrize("axes", [(), (3,), (5, 3)])
@pytest.mark.parametrize("shape", [(), (4,), (2, 2, 3)])
def test_boxes_are_flattened(shape, axes):
    env = observing(Box(0, 255, shape))
    observation = np.arange(np.prod(axes + shape), dtype=np.uint8).reshape(axes + shape)
    features = observation_encoder(env, None)(jnp.asarray(observation))
    size = observation_size(env, None)
    assert size == int(np.prod(shape))
    assert features.dtype == jnp.float32
    np.testing.assert_array_equal(features, observation.reshape(*axes, size))


def test_box_actions_are_required():
    walk, cycle = Walk(3), Cycle()
    assert require_box_actions("x", walk, walk.params()).shape == (3,)
    with pytest.raises(InputError, match=r"x needs continuous actions, but Cycle has Discrete\(n=3"):
        require_box_actions("x", cycle, cycle.params([1.0, 2.0], 3))


# --- Boxes of actions --------------------------------------------------------------------------------------------------


bounds = st.floats(-(2.0**100), 2.0**100, width=32, allow_subnormal=False)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(bounds, bounds).map(sorted), min_size=1, max_size=4), st.integers(0, 2**31))
def test_a_finite_box_reaches_from_minus_one_to_one(pairs, seed):
    low, high = (np.array(side, np.float32) for side in zip(*pairs, strict=True))
    space, width = Box(low, high, low.shape), np.asarray(high, np.float64) - low
    ends = decode(space, [np.full(len(low), u, np.float32) for u in (-1.0, 0.0, 1.0)])
    for end, expected in zip(ends, (low, low + 0.5 * width, high), strict=True):
        assert (np.abs(end - expected) <= 1e-6 * np.maximum(np.abs(low), np.abs(high))).all()
    drawn = decode(space, 2.0 * jax.random.normal(jax.random.key(seed), (50, len(low))))
    assert ((drawn >= low) & (drawn <= high)).all()


def test_values_within_minus_one_and_one_stay_equal_to_the_bit():
    actions = jnp.concatenate([jax.random.normal(KEY, (1000, 2)), jnp.array([[-0.0, 0.0], [1e-40, -1e-30]])])
    for space in (Box(-1.0, 1.0, (2,)), gymnax.Box(-1, 1, (2,)), gymnasium.Box(-1, 1, (2,)), Box([-1, -1], 1, (2,))):
        expected = np.asarray(jnp.clip(actions, -1.0, 1.0))
        np.testing.assert_array_equal(decode(space, actions).view(np.int32), expected.view(np.int32))


def test_half_open_and_infinite_components():
    """0 is one within the only bound; without any, numbers stay as they are. Beside finite ones, each for itself."""
    space = Box([3.0, -INF, -INF, 5.0], [INF, -2.0, INF, 9.0], (4,))
    actions = [[0.0] * 4, [0.5] * 4, [-9.0] * 4, [9.0] * 4]
    expected = [[4, -3, 0, 7], [4.5, -2.5, 0.5, 8], [3, -12, -9, 5], [13, -2, 9, 9]]
    np.testing.assert_allclose(decode(space, actions), expected)
    with pytest.raises(InputError, match=r"sac needs actions within finite bounds, but Env has Box\(low=\[3.0"):
        bounded_actions("sac", acting(space), None)


@pytest.mark.parametrize("dtype", [np.float16, jnp.bfloat16, np.float32, np.float64])
def test_the_largest_numbers_of_a_dtype_are_infinite(dtype):
    largest = jnp.finfo(dtype).max
    spaces = [Box(-largest, largest, (2,)), gymnax.Box(np.full(2, -largest), np.full(2, largest), (2,))]
    if dtype != jnp.bfloat16:  # which gymnasium does not know
        spaces += [gymnasium.Box(-largest, largest, (2,), dtype), gymnax.Box(-float(largest), float(largest), (2,), dtype)]
    for space in [*spaces, Box(-1e39, 1e300, (2,))]:
        np.testing.assert_array_equal(decode(space, [2.5, -2.5]).astype(np.float32), [2.5, -2.5])
        with pytest.raises(InputError, match="sac needs actions within finite bounds"):
            bounded_actions("sac", acting(space), None)
    np.testing.assert_array_equal(decode(Box(0, largest, (1,)), [2.5]), [3.5])


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.int64])
def test_boxes_of_integers_receive_integers_of_equal_shares(dtype):
    space = gymnasium.Box(3, 7, (1,), dtype)
    for to_env in (action_decoder(acting(space), None), bounded_actions("sac", acting(space), None).to_env):
        actions = np.asarray(to_env(jnp.linspace(-1.0, 1.0, 5001)[:, None]))
        assert actions.dtype == (np.int32 if dtype == np.int64 else dtype)  # JAX has no int64
        values, counts = np.unique(actions, return_counts=True)
        assert values.tolist() == [3, 4, 5, 6, 7]
        np.testing.assert_allclose(counts, 1000, atol=2)
        assert (np.diff(actions.astype(int), axis=0) >= 0).all()
        assert to_env(jnp.array([[-99.0], [99.0]])).ravel().tolist() == [3, 7]


def test_actions_lie_within_bounds_that_float32_does_not_have():
    """Those of float64, of large integers, and of integers between two of them."""
    cases = [(0.1, 0.3, np.float64), (-0.3, -0.1, np.float64), (-16777219, 16777219, np.int32), (1e6, 1e6 + 0.3, np.float64)]
    for low, high, dtype in cases:
        actions = decode(gymnasium.Box(low, high, (1,), dtype), np.linspace(-2.0, 2.0, 101, dtype=np.float32)[:, None])
        assert low <= actions.astype(np.float64).min() < actions.astype(np.float64).max() <= high
    assert decode(gymnax.Box(0.5, 2.5, (1,), jnp.int32), [[-9.0], [-0.1], [0.1], [9.0]]).ravel().tolist() == [1, 1, 2, 2]
    with pytest.raises(InputError, match="is empty"):
        decode(gymnax.Box(0.2, 0.8, (1,), jnp.int32), [[0.0]])


def test_what_has_bounds_but_no_shape_is_refused():
    with pytest.raises(InputError, match=r"ppo takes Box, .* but Aim has namespace\(low=0"):
        jaxpg.make("ppo", Aim(SimpleNamespace(low=0.0, high=1.0)), {"time_limit": jnp.int32(1)})


def test_integers_without_bounds_and_booleans():
    assert decode(gymnasium.Box(-INF, INF, (3,), np.int32), [0.4, -2.6, 7.0]).tolist() == [0, -3, 7]
    assert decode(gymnasium.Box(0, np.iinfo(np.uint32).max, (2,), np.uint32), [1.4, -9.0]).tolist() == [2, 0]
    assert decode(gymnasium.Box(0, 255, (3,), np.uint8), [-1.0, 0.0, 1.0]).tolist() == [0, 128, 255]
    truths = decode(gymnax.Box(0, 1, (2,), bool), [-0.2, 0.2])
    assert (truths.dtype, truths.tolist()) == (bool, [False, True])


def test_a_box_without_width_is_a_constant():
    space = Box([0.1, -1.0], [0.1, 1.0], (2,))
    actions = decode(space, [[-3.0, 0.5], [0.0, 0.5], [9.0, 0.5]])
    np.testing.assert_array_equal(actions, np.array([[0.1, 0.5]] * 3, np.float32))
    assert bounded_actions("sac", acting(space), None).size == 2


EMPTY = [(1.0, -1.0), ([0.0, 2.0], 1.0), (np.nan, 1.0), (0.0, np.nan), (INF, INF), (-INF, -INF)]


@pytest.mark.parametrize("name", ["ppo", "pmoe_ppo", "td3", "map_elites"])
@pytest.mark.parametrize(("low", "high"), EMPTY)
def test_empty_boxes_are_refused(name, low, high):
    env = Aim(Box(low, high, (2,)), np.zeros(2))
    with pytest.raises(InputError, match=r"actions of Aim are Box\(low=.* is empty: every lower bound must be a number"):
        jaxpg.make(name, env, env.params())


@pytest.mark.parametrize("name", ["ppo", "td3"])
def test_bounds_of_another_shape_and_boxes_without_components_are_refused(name):
    with pytest.raises(InputError, match=r"the bounds of Box\(.* do not have its shape \(2,\)"):
        jaxpg.make(name, Aim(Box(np.zeros(3), 1.0, (2,)), np.zeros(2)), None)
    with pytest.raises(InputError, match=r"actions of Aim are Box\(.* has no components"):
        jaxpg.make(name, Aim(Box(0.0, 1.0, (0,)), np.zeros(0)), None)


@pytest.mark.parametrize("low", [5.0, [[5.0] * 3] * 2, np.full((2, 3), 5), jnp.full((2, 3), 5.0), [5.0, 5.0, 5.0]])
def test_actions_take_the_shape_of_the_box(low):
    env = acting(Box(low, 10.0, (2, 3)))
    expected = [[[7.5, 8.5, 10], [5, 7, 8]], [[7.5] * 3] * 2]
    actions = jnp.array([[0.0, 0.4, 9.0, -9.0, -0.2, 0.2], [0.0] * 6])
    for to_env in (action_decoder(env, None), bounded_actions("sac", env, None).to_env):
        np.testing.assert_allclose(to_env(actions), expected, rtol=1e-6)
        np.testing.assert_allclose(to_env(actions[0]), expected[0], rtol=1e-6)
    assert decode(Box(5.0, 10.0, ()), [[0.0], [9.0]]).tolist() == [7.5, 10]  # one number, no axis


def test_bounds_may_depend_on_traced_parameters():
    env = SimpleNamespace(name="Env", action_space=lambda params: Box(-params, 3.0 * params, (2,)))
    of = lambda params: action_decoder(env, params)(jnp.array([0.5, 9.0]))
    np.testing.assert_allclose(quick_jit(jax.vmap(of))(jnp.array([1.0, 10.0, INF])), [[2, 3], [20, 30], [0.5, 9]])


# Finite, half-open and infinite components of all sizes; where one is not bounded by both, the width is that of the policy's.
LOW = np.array([[5, 0, 0.001, -3], [-1e6, 3, -INF, -INF]])
HIGH = np.array([[10, 100, 0.002, -1], [3e6, INF, -2, INF]])
BEST = np.array([[7.5, 25, 0.0018, -2], [0, 5, -2.5, 1]])
WIDTH = np.where(np.isfinite(LOW) & np.isfinite(HIGH), HIGH - LOW, 2.0)


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("ppo", {"num_epochs": 8, "num_minibatches": 4, "learning_rate": 2e-2, "total_steps": 60 * 256}),
        ("pmoe_ppo", {"num_epochs": 8, "num_minibatches": 4, "learning_rate": 2e-2, "total_steps": 60 * 256, "num_experts": 2}),
        ("trpo", {"num_minibatches": 4, "total_steps": 150 * 256}),
        ("a2c", {"learning_rate": 3e-2, "total_steps": 250 * 256}),
        ("impala", {"learning_rate": 5e-2, "total_steps": 400 * 256}),
        ("reinforce", {"learning_rate": 3e-2, "total_steps": 250 * 256}),
    ],
)
def test_the_best_action_is_found_in_any_box(name, fields):
    """To 2 % of the width of each component."""
    env = Aim(Box(LOW, HIGH, LOW.shape), BEST, WIDTH)
    sizes = {"num_envs": 64, "num_steps": 4, "hidden_sizes": (4,), "discount": 0.0, "normalize_observations": False}
    algorithm = jaxpg.make(name, env, env.params(), **sizes, **fields)
    policy = algorithm.policy(quick_jit(lambda key: jaxpg.train(algorithm, key)[0])(KEY))
    action, _ = policy.act(policy.params, KEY, jnp.zeros(8), ())
    assert (np.abs((action - BEST) / WIDTH) < 0.02).all()


@pytest.mark.parametrize("name", ["td3", "soft_option_critic"])  # which stores the option as well; the others are like td3
def test_what_is_remembered_is_what_arrived(name):
    """On the policy's scale, in any finite box: what was taken lies as far between the bounds."""
    finite = np.isfinite(LOW) & np.isfinite(HIGH)
    low, high = LOW[finite].reshape(5, 1), HIGH[finite].reshape(5, 1)
    env = Aim(Box(low, high, low.shape), 0.5 * (low + high), high - low)
    sizes = {"hidden_sizes": (4,), "batch_size": 8, "num_envs": 8, "total_steps": 400, "learning_starts": 16}
    algorithm = jaxpg.make(name, env, env.params(), **sizes)
    steps = quick_jit(lambda key: jaxpg.train(algorithm, key)[0])(KEY).buffer.steps
    stored, arrived = (np.asarray(x).reshape(400, -1)[:, :5] for x in (steps.action, steps.next_observation))
    assert stored.min() < -0.9
    assert stored.max() > 0.9
    fraction = (arrived - low.ravel()) / (high - low).ravel()
    np.testing.assert_allclose(fraction, 0.5 * (stored + 1.0), atol=1e-5)


# --- Look-alikes -------------------------------------------------------------------------------------------------------


def named(**fields):
    return SimpleNamespace(**fields)


def test_kinds_of_look_alikes():
    for space in (gymnasium.Discrete(3, start=1), named(n=np.int64(3)), named(n=3, shape=(), dtype=np.int32, start=2)):
        assert is_discrete(space)
    for space in (gymnasium.MultiBinary(3), gymnasium.MultiBinary((2, 3)), gymnasium.MultiDiscrete([2, 3]), gymnasium.Text(3)):
        assert not is_discrete(space)
        assert not is_box(space)


@pytest.mark.parametrize(
    ("space", "actions", "expected"),
    [
        (Discrete(8), [0, 7], [0, 7]),
        (gymnasium.Discrete(3, start=1), [0, 1, 2], [1, 2, 3]),
        (gymnasium.Discrete(3, start=-1), [0, 1, 2], [-1, 0, 1]),
        (named(n=np.int64(2), start=np.int64(5)), [[0, 1]], [[5, 6]]),
        (named(nvec=(2, 8)), [[1, 2], [0, 7]], [[1, 2], [0, 7]]),
        (gymnasium.MultiDiscrete([2, 3], start=[1, -2]), [[0, 0], [1, 2]], [[1, -2], [2, 0]]),
        (named(nvec=[2, 3], start=4), [[1, 2]], [[5, 6]]),
        (gymnasium.MultiDiscrete([[2, 3], [4, 5]]), [[1, 2, 3, 4]], [[[1, 2], [3, 4]]]),
        (gymnasium.MultiDiscrete([[2, 3]], start=[[1, 2]]), [1, 2], [[2, 4]]),
        (gymnasium.MultiBinary(3), [[1, 0, 1]], [[1, 0, 1]]),
        (gymnasium.MultiBinary((2, 2)), [[1, 0, 0, 1]], [[[1, 0], [0, 1]]]),
        (named(n=(2, 2)), [[1, 0, 0, 1]], [[[1, 0], [0, 1]]]),
        (named(n=np.int64(2), shape=[2]), [[1, 0]], [[1, 0]]),
        (type("MultiBinary", (), {"n": 2})(), [[1, 0]], [[1, 0]]),
    ],
)
def test_integer_actions_are_those_of_the_environment(space, actions, expected):
    decoded = decode(space, actions)
    np.testing.assert_array_equal(decoded, expected)
    assert decoded.dtype == (np.int8 if isinstance(space, gymnasium.MultiBinary) else np.int32)


@pytest.mark.parametrize(
    ("space", "observation", "features"),
    [
        (gymnasium.Discrete(3, start=1), 3, [0, 0, 1]),
        (gymnasium.Discrete(2, start=-1), -1, [1, 0]),
        (named(n=np.int64(1)), 0, [1]),
        (gymnasium.MultiDiscrete([2, 3], start=[1, -1]), [2, -1], [0, 1, 1, 0, 0]),
        (gymnasium.MultiDiscrete([[2], [3]]), [[1], [2]], [0, 1, 0, 0, 1]),
        (gymnasium.MultiBinary(3), [1, 0, 1], [1, 0, 1]),
        (gymnasium.MultiBinary((2, 2)), [[1, 0], [1, 1]], [1, 0, 1, 1]),
        (gymnasium.Box(0, 255, (2, 1), np.uint8), [[255], [7]], [255, 7]),
        (gymnax.Box(0, 1, (2,), bool), [True, False], [1, 0]),
        (gymnasium.Tuple((gymnasium.Discrete(2, start=4), gymnasium.MultiBinary(1))), (5, [1]), [0, 1, 1]),
    ],
)
def test_look_alikes_are_observed(space, observation, features):
    env = observing(space)
    assert observation_size(env, None) == len(features)
    observation = jax.tree.map(jnp.asarray, observation, is_leaf=lambda x: isinstance(x, list))
    batch = jax.tree.map(lambda x: jnp.broadcast_to(x, (4, 2, *x.shape)), observation)
    for x, axes in ((observation, ()), (batch, (4, 2))):
        encoded = observation_encoder(env, None)(x)
        assert encoded.dtype == jnp.float32
        np.testing.assert_array_equal(encoded, np.broadcast_to(np.array(features, np.float32), (*axes, len(features))))


def test_dictionaries_of_gymnasium_nest():
    space = gymnasium.Dict(b=gymnasium.Dict(c=gymnasium.Discrete(2, start=1)), a=gymnasium.Box(0, 1, (2,)))
    observation = {"b": {"c": jnp.int32(2)}, "a": jnp.array([0.25, 0.5])}
    assert observation_encoder(observing(space), None)(observation).tolist() == [0.25, 0.5, 0, 1]


STRANGE = [
    gymnasium.Text(3),
    gymnasium.Sequence(gymnasium.Discrete(2)),
    gymnasium.Graph(gymnasium.Box(0, 1, (2,)), gymnasium.Discrete(2)),
    gymnasium.OneOf([gymnasium.Discrete(2), gymnasium.Box(0, 1, (2,))]),
]
SEVERAL = [
    gymnasium.Dict(a=gymnasium.Discrete(2)),
    gymnasium.Tuple([gymnasium.Discrete(2)]),
    gymnax.Dict({"a": gymnax.Discrete(2)}),
]


@pytest.mark.parametrize("space", STRANGE, ids=lambda space: type(space).__name__)
def test_strange_observations_are_refused(space):
    for within in (space, gymnasium.Tuple([space])):
        with pytest.raises(InputError, match=f"observations of Env are {re.escape(str(space)[:20])}"):
            observation_size(observing(within), None)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ppo", "ppo takes Box, Discrete, MultiDiscrete and MultiBinary actions"),
        ("pmoe_ppo", "pmoe_ppo needs continuous actions"),
        ("sac", "sac needs continuous actions"),
        ("map_elites", "map_elites needs continuous actions"),
        ("dqn", "dqn needs discrete actions"),
        ("pqn", "pqn needs discrete actions"),
    ],
)
@pytest.mark.parametrize("space", STRANGE + SEVERAL, ids=lambda space: type(space).__name__)
def test_strange_actions_are_refused(name, message, space):
    with pytest.raises(InputError, match=f"{message}, but Aim has {re.escape(str(space)[:20])}"):
        jaxpg.make(name, Aim(space), None)


@pytest.mark.parametrize("name", ["dqn", "qr_dqn", "sac_discrete", "pqn"])
@pytest.mark.parametrize("space", [gymnasium.MultiBinary(2), gymnasium.MultiDiscrete([2, 2]), gymnasium.MultiBinary((2, 2))])
def test_several_actions_at_once_are_refused_where_one_is_needed(name, space):
    env = Aim(space, np.zeros(space.shape))
    with pytest.raises(InputError, match=f"{name} needs discrete actions, but Aim has Multi.*ppo"):
        jaxpg.make(name, env, env.params())


@pytest.mark.parametrize(
    "space", [named(n=0), named(n=-1), named(n=1.5), named(nvec=[2, 0]), named(nvec=[]), named(n=0, shape=(0,))]
)
def test_spaces_without_elements_are_refused(space):
    for name in ("ppo", "dqn"):
        with pytest.raises(InputError, match=r"the space namespace\(.* has no elements: n or nvec must be positive"):
            jaxpg.make(name, Aim(space), None)
    with pytest.raises(InputError, match="has no elements"):
        observation_size(observing(space), None)


@pytest.mark.parametrize("name", ["dqn", "qr_dqn", "sac_discrete"])
def test_remembered_actions_start_at_zero(name):
    env = Aim(gymnasium.Discrete(3, start=1))
    sizes = {"hidden_sizes": (4,), "batch_size": 8, "num_envs": 2, "total_steps": 60, "learning_starts": 16}
    algorithm = jaxpg.make(name, env, env.params(), **sizes)
    steps = quick_jit(lambda key: jaxpg.train(algorithm, key)[0])(KEY).buffer.steps
    assert set(np.unique(steps.action)) == {0, 1, 2}
    np.testing.assert_array_equal(np.asarray(steps.next_observation).ravel(), np.asarray(steps.action).ravel() + 1)


@pytest.mark.parametrize(
    ("name", "space", "best"),
    [
        ("ppo", gymnasium.Discrete(3, start=1), 3),
        ("ppo", gymnasium.MultiBinary(3), [1, 0, 1]),
        ("ppo", gymnasium.MultiDiscrete([[2, 3], [4, 2]], start=[[0, 5], [-1, 0]]), [[1, 7], [-1, 0]]),
        ("pqn", gymnasium.Discrete(3, start=1), 3),
    ],
)
def test_look_alikes_are_learned(name, space, best):
    """Off the mark, an action pays less: what is credited must be what arrived."""
    env = Aim(space, np.array(best))
    sizes = {"num_envs": 16, "num_steps": 8, "num_minibatches": 2, "num_epochs": 4, "hidden_sizes": (8,)}
    numbers = {"discount": 0.0, "learning_rate": 2e-2, "total_steps": 40 * 128, "normalize_observations": False}
    algorithm = jaxpg.make(name, env, env.params(), **sizes, **numbers)
    policy = algorithm.policy(quick_jit(lambda key: jaxpg.train(algorithm, key)[0])(KEY))
    action, _ = policy.act(policy.params, KEY, jnp.zeros(np.size(best)), ())
    np.testing.assert_array_equal(action, best)


def test_a_single_action_is_enough():
    actions = discrete_actions("dqn", acting(named(n=1)), None)
    assert (actions.size, actions.random(KEY, 3).tolist()) == (1, [0, 0, 0])
    env = Aim(named(n=1))
    algorithm = jaxpg.make("ppo", env, env.params(), num_envs=2, num_steps=2, num_minibatches=1)
    assert jax.eval_shape(lambda key: algorithm.update(algorithm.init(key))[1], KEY)["entropy"].shape == ()


# --- Comparing ---------------------------------------------------------------------------------------------------------


BOX = gymnax.Box(0.0, 1.0, (2,))


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (Box(0, 1, (2,)), None),
        (gymnasium.Box(np.zeros(2), np.ones(2)), None),
        (gymnax.Box(0.0, 1.0, (3,)), "the shape differs"),
        (gymnax.Box(0.0, [1.0, 2.0], (2,)), "the upper bound differs"),
        (gymnax.Box(-INF, 1.0, (2,)), "the lower bound differs"),
        (gymnax.Box(0.0, 1.0, (2,), jnp.uint8), "the dtype differs"),
        (gymnax.Discrete(2), "the kind differs"),
        (gymnax.Tuple((BOX,)), "the kind differs"),
        (gymnasium.Text(2), "the kind differs"),
    ],
)
def test_boxes_are_compared(asked, words):
    found = difference("action_space", BOX, "Env", asked)
    assert found == (words and f"the policy was trained with the action_space {BOX}, but Env has {asked}: {words}")


@pytest.mark.parametrize(
    ("trained", "asked", "words"),
    [
        (Discrete(3), gymnax.Discrete(3), None),
        (Discrete(3), gymnasium.Discrete(3), None),
        (Discrete(3), Discrete(4), "number of values"),
        (Discrete(3), gymnasium.Discrete(3, start=1), "start"),
        (Discrete(3), named(n=3, dtype=np.uint8), "dtype"),
        (Discrete(3), named(nvec=[3]), "kind"),
        (named(nvec=[2, 3]), gymnasium.MultiDiscrete([2, 3]), None),
        (named(nvec=[2, 3]), named(nvec=[3, 2]), "number of values"),
        (named(nvec=[2, 3]), named(nvec=[[2, 3]]), "number of values"),
        (named(nvec=[2, 3]), named(nvec=[2, 3], start=[0, 1]), "start"),
        (gymnasium.MultiBinary(2), gymnasium.MultiBinary(3), "number of values"),
        (gymnasium.MultiBinary(2), named(nvec=[2, 2]), "kind"),
        (Box(-INF, INF, (1,)), Box(-np.finfo(np.float32).max, 1e300, (1,)), None),
        (gymnax.Dict({"a": BOX}), gymnax.Dict({"b": BOX}), "set of names"),
        (gymnax.Dict({"a": BOX}), gymnax.Dict({"a": BOX, "b": BOX}), "set of names"),
        (gymnax.Tuple([BOX]), gymnax.Tuple([BOX, BOX]), "set of names"),
    ],
)
def test_other_spaces_are_compared(trained, asked, words):
    found = difference("observation_space", trained, "Env", asked)
    assert found is None if words is None else found.endswith(f": the {words} differs")


def test_differences_of_parts_are_named():
    nested = lambda n: gymnax.Dict({"image": BOX, "rest": gymnax.Tuple((BOX, gymnax.Discrete(n)))})
    assert difference("observation_space", nested(3), "Env", nested(3)) is None
    found = difference("observation_space", nested(3), "Env", nested(4))
    assert found == (
        "the policy was trained with the observation_space['rest'][1] Discrete(3, dtype=int32), but Env has "
        "Discrete(4, dtype=int32): the number of values differs"
    )
