"""What benchmarks say of experts on target reaching: who arrives, by which way, and how far apart."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxpg
import jaxpg_envs
from benchmarks._target_reaching import Paths, Success, make, primitives, way
from jaxpg.algorithm import Policy

START, TARGET = (-4.5, -4.5), (3.0, 3.0)
LEFT, RIGHT = (-4.5, 3.0), (3.0, -4.5)  # corners of the ways round all discs
ROUND = ((-2.5, -1.6), (-3.4, -2.5), (-2.5, -3.4), (-1.6, -2.5))  # counterclockwise about the first disc alone


def path(*corners):
    """A path through points, at even steps between two."""
    corners = np.array(corners)
    pieces = [np.linspace(a, b, 25, endpoint=False) for a, b in itertools.pairwise(corners)]
    return np.concatenate([*pieces, corners[-1:]])


@pytest.mark.parametrize(
    ("corners", "turns"),
    [
        ((START, LEFT, TARGET), (-1, -1, -1)),
        ((START, RIGHT, TARGET), (0, 0, 0)),
        ((START, (-3.4, -2.0), (-2.0, -1.4), TARGET), (-1, 0, -1)),  # between the first disc and the second
        ((START, (-2.0, -3.4), (-1.4, -2.0), TARGET), (0, 0, -1)),  # between the first and the third
        ((START, (-3.9, -2.6), *ROUND, ROUND[0], TARGET), (0, 0, -1)),  # round the first disc instead of left past it
    ],
)
def test_ways_by_hand(corners, turns):
    assert way(path(*corners)) == turns
    bent = path(*corners) + 0.1 * np.sin(np.linspace(0, np.pi, len(path(*corners))))[:, None]
    assert way(bent) == turns


def test_only_experts_that_arrive_count():
    """Two seeds of three experts with four starts: one seed with two ways, one of whose experts mostly fails, and one alone."""
    left, right = path(START, LEFT, TARGET), path(START, RIGHT, TARGET)
    off = lambda positions: np.stack([positions + shift for shift in (-0.1, -0.1, 0.1, 0.1)])
    both = np.stack([off(left), off(right), off(right)])
    arrived = np.array([[True] * 4, [True, True, False, False], [True, False, False, False]])
    alone = np.array([[True] * 4, [False] * 4, [False] * 4])
    found = primitives(Paths(np.stack([both, both]), np.stack([arrived, alone])))
    assert found["arriving experts"] == [2, 1]
    assert found["ways"] == [2, 1]
    # Of four starts the first expert's mean is its path, of two the second's is 0.1 off along the diagonal.
    expected = np.linalg.norm(left - (right - 0.1), axis=-1).mean()
    np.testing.assert_allclose([found["apart"][0], found["spread"][0]], [expected, 0.05 * np.sqrt(2)], rtol=1e-6)
    assert (found["apart"][1], found["spread"][1]) == (None, None)


def test_success_is_the_flag():
    """Steering right at the target arrives where no disc is in the way, standing still never does; no other reward counts."""
    env, params = make(anew=False, centres=((5.0, -5.0),) * 3)
    ahead = Policy((), lambda params, key, observation, carry: (jnp.sign(observation[6:8]), carry))
    still = Policy((), lambda params, key, observation, carry: (jnp.zeros(2), carry))
    rates = [jaxpg.evaluate(policy, Success(env), params, jax.random.key(0), 2) for policy in (ahead, still)]
    np.testing.assert_array_equal(rates, [[1, 1], [0, 0]])


def test_both_variants_differ_in_their_layouts_alone():
    for anew, name in ((False, "TargetReaching-v0"), (True, "RandomTargetReaching-v0")):
        registered = jaxpg_envs.make(name)[1].replace(max_steps_in_episode=1_000, obstacle_reward=-10.0)
        jax.tree.map(np.testing.assert_array_equal, make(anew)[1], registered)
