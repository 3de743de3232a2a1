import dataclasses
import json
import re

import brax.envs
import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxpg_envs
from jaxpg.algorithm import InputError, Policy
from jaxpg.experiment.behaviour import (
    plot_brax_strobe,
    plot_experts,
    principal_components,
    record_episode,
    save_brax_html,
)
from jaxpg.experiment.classic_control import find_scene, plot_film
from jaxpg.experiment.pictures import draw_behaviour
from jaxpg_envs.brax_adapter import BraxEnvironment

PNG = b"\x89PNG\r\n\x1a\n"


# --- Recording ----------------------------------------------------------------------------------------------


def lean_and_wobble(params, key, observation, carry):
    """Pushes towards the lean, sometimes at random; its memory counts the steps."""
    lean = (observation[2] > params).astype(jnp.int32)
    return jnp.where(carry % 5 == 4, jax.random.bernoulli(key).astype(jnp.int32), lean), carry + 1


@pytest.fixture(scope="module")
def cart_pole():
    env, params = gymnax.make("CartPole-v1")
    return env, params, Policy(jnp.float32(0.0), lean_and_wobble, initial_carry=jnp.int32(0))


def test_recording_equals_a_loop_in_python(cart_pole):
    env, params, policy = cart_pole
    key = jax.random.key(3)
    episode = record_episode(policy, env, params, key, max_steps=200)

    reset_key, step_key = jax.random.split(key)
    observation, state = env.reset(reset_key, params)
    carry = policy.initial_carry
    observations, actions, rewards, angles = [], [], [], []
    for key in jax.random.split(step_key, 200):
        act_key, env_key = jax.random.split(key)
        action, carry = policy.act(policy.params, act_key, observation, carry)
        observations, actions, angles = (
            [*observations, observation],
            [*actions, action],
            [*angles, state.theta],
        )
        observation, state, reward, terminated, truncated, _ = env.step(env_key, state, action, params)
        rewards.append(reward)
        if terminated | truncated:
            break

    assert episode.ended
    assert 5 < episode.length == len(rewards) < 200
    np.testing.assert_allclose(episode.observations, observations, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(episode.actions, actions)
    np.testing.assert_array_equal(episode.rewards, rewards)
    np.testing.assert_allclose(episode.states.theta, angles, rtol=1e-5, atol=1e-6)


def test_recording_stops_at_max_steps_and_says_so(cart_pole):
    env, params, policy = cart_pole
    episode = record_episode(policy, env, params, jax.random.key(3), max_steps=4)
    assert (episode.length, episode.ended, episode.observations.shape) == (4, False, (4, 4))
    with pytest.raises(InputError, match="max_steps must be positive, got 0"):
        record_episode(policy, env, params, jax.random.key(0), max_steps=0)


# --- Robots -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pendulum():
    """Pushed to the right all the time: the pole falls to the left."""
    env = BraxEnvironment(brax.envs.get_environment("inverted_pendulum", backend="spring"))
    policy = Policy((), lambda params, key, observation, carry: (jnp.full(1, 0.3), carry))
    return env, record_episode(policy, env, env.default_params, jax.random.key(0), max_steps=50)


def test_brax_page_holds_every_frame_and_all_that_shows_them(pendulum, tmp_path):
    env, episode = pendulum
    assert episode.ended
    save_brax_html(episode, env, tmp_path / "new" / "page.html", "ppo on <that>, seed 3")
    page = (tmp_path / "new" / "page.html").read_text()
    assert not re.search(r"https?:|//cdn|src=|href=|import", page)  # it works without a network
    assert page.count("ppo on &lt;that&gt;, seed 3") == 2
    motion = json.loads(re.search(r'<script id="motion" type="application/json">(.*?)</script>', page, re.DOTALL)[1])
    frames, links = np.array(motion["frames"]), episode.states.brax.pipeline_state.x
    np.testing.assert_allclose(frames[..., :3], links.pos, atol=1e-4)
    np.testing.assert_allclose(frames[..., 3:], links.rot, atol=1e-4)
    np.testing.assert_allclose(motion["returns"], np.cumsum(episode.rewards), rtol=1e-4)
    assert motion["dt"] == pytest.approx(float(env.brax.dt))
    assert [(solid["link"], len(solid["points"])) for solid in motion["solids"]][-2:] == [(0, 2), (1, 2)]  # capsules


def test_strobe_draws_the_parts_where_they_are(pendulum, tmp_path):
    env, episode = pendulum
    figure = plot_brax_strobe({"pushed": episode}, env, tmp_path / "strobe.png", num_poses=4)
    assert (tmp_path / "strobe.png").read_bytes().startswith(PNG)
    assert len(figure.axes) == 4  # it stays where it is: a film
    assert figure.axes[0].get_title("left") == "pushed"
    links = episode.states.brax.pipeline_state.x
    for axes, time in ((figure.axes[0], 0), (figure.axes[-1], episode.length - 1)):
        cart, pole = (path.vertices for path in axes.collections[-1].get_paths())
        x, _, z = links.pos[time, 0]
        # a capsule along x, radius 0.1 and half-length 0.1, seen from the side
        np.testing.assert_allclose([cart[:, 0].min(), cart[:, 0].max()], [x - 0.2, x + 0.2], atol=5e-3)
        np.testing.assert_allclose([cart[:, 1].min(), cart[:, 1].max()], [z - 0.1, z + 0.1], atol=5e-3)
        # the pole's upper end: 0.6 from the hinge, at the angle that the observation tells
        angle = episode.observations[time][1]
        tip = links.pos[time, 1][[0, 2]] + 0.6 * np.array([np.sin(angle), np.cos(angle)])
        np.testing.assert_allclose(pole[pole[:, 1].argmax()], tip + np.array([0, 0.049]), atol=2e-2)


def test_strobe_of_a_traveller_shows_its_places(pendulum):
    env, episode = pendulum
    physics = episode.states.brax.pipeline_state
    travelled = physics.x.pos + np.linspace(0, 5, episode.length)[:, None, None] * np.array([1.0, 0, 0])
    physics = physics.replace(x=physics.x.replace(pos=travelled))
    brax_state = episode.states.brax.replace(pipeline_state=physics)
    moving = dataclasses.replace(episode, states=episode.states.replace(brax=brax_state))
    figure = plot_brax_strobe({"before": episode, "after": moving}, env)
    before, after = figure.axes[:2]
    assert before.get_xlim() == after.get_xlim()
    assert len(after.collections) > len(before.collections)
    assert after.collections[-1].get_paths()[0].vertices[:, 0].max() > 4.5


def test_pictures_of_what_brax_does_not_simulate_are_refused(cart_pole, pendulum, tmp_path):
    env, params, policy = cart_pole
    episode = record_episode(policy, env, params, jax.random.key(3), max_steps=4)
    with pytest.raises(InputError, match=r"CartPole.*not simulated by Brax"):
        plot_brax_strobe({"a": episode}, env)
    with pytest.raises(InputError, match="not Brax's"):
        save_brax_html(episode, pendulum[0], tmp_path / "page.html")
    with pytest.raises(InputError, match="at least one"):
        plot_brax_strobe({}, pendulum[0])
    with pytest.raises(InputError, match="'below'"):
        plot_brax_strobe({"a": pendulum[1]}, pendulum[0], view="below")


# --- Mixtures of experts ------------------------------------------------------------------------------------


def test_principal_components_of_points_on_a_line():
    # (1, 2, 3, 4) and its double standardise to the same numbers; the third feature never changes.
    samples = np.array([[1.0, -2.0, 7.0], [2.0, -4.0, 7.0], [3.0, -6.0, 7.0], [4.0, -8.0, 7.0]])
    places, directions, variances = principal_components(samples)
    np.testing.assert_allclose(np.abs(directions[0]), [np.sqrt(0.5), np.sqrt(0.5), 0], atol=1e-12)
    np.testing.assert_allclose(variances, [1, 0], atol=1e-12)
    standardised = np.array([-1.5, -0.5, 0.5, 1.5]) / np.sqrt(1.25)
    np.testing.assert_allclose(np.abs(places[:, 0]), np.abs(np.sqrt(2) * standardised))
    assert principal_components(samples[:, :1])[0].shape == (4, 2)


def test_experts_are_shown_where_and_when_they_act(tmp_path):
    rng = np.random.default_rng(0)
    observations = rng.normal(size=(10, 3))
    experts = np.array([0, 0, 1, 1, 1, 1, 1, 1, 2, 2])
    weights = 0.7 * np.eye(4)[experts] + 0.3 / 4
    figure = plot_experts(observations, weights, experts, tmp_path / "experts.png", state_labels=["x", "y", "z"])
    assert (tmp_path / "experts.png").read_bytes().startswith(PNG)
    plane, over_time, acting, shares = figure.axes
    places, _, _ = principal_components(observations)
    np.testing.assert_allclose(plane.collections[0].get_offsets(), places)
    colours = plane.collections[0].get_facecolors()
    bars = shares.patches
    assert [bar.get_width() for bar in bars] == [0.2, 0.6, 0.2, 0.0]
    for step, expert in enumerate(experts):  # one colour per expert, in all panels
        np.testing.assert_allclose(colours[step], bars[expert].get_facecolor())
        np.testing.assert_allclose(acting.images[0].get_array()[0, step], colours[step][:3])
    tops = [area.get_paths()[0].vertices[:, 1].max() for area in over_time.collections]
    np.testing.assert_allclose(tops, np.cumsum(weights, axis=1).max(axis=0))
    assert re.search(r"[+-]\d\.\d [xyz]", plane.get_xlabel())


def test_experts_that_do_not_fit_are_refused():
    observations, weights = np.zeros((3, 2)), np.full((3, 2), 0.5)
    with pytest.raises(InputError, match=r"at least 2, got 1, 1 and 1"):
        plot_experts(observations[:1], weights[:1], np.array([0]))
    with pytest.raises((InputError, TypeError)):  # TypeError where the shapes in the signature are checked first
        plot_experts(observations, weights, np.array([0, 1]))
    with pytest.raises(InputError, match=r"must lie in 0 \.\.\. 1, got 0 \.\.\. 2"):
        plot_experts(observations, weights, np.array([0, 1, 2]))
    with pytest.raises(InputError, match="must name 2 components, got 1"):
        plot_experts(observations, weights, np.array([0, 1, 1]), state_labels=["x"])


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ([[0.2] * 5] * 10, "largest weight 0.20 on average (equal weights: 0.20): the mixture has hardly specialised"),
        ([[0.9, 0.1]] * 5 + [[0.1, 0.9]] * 5, "largest weight 0.90 on average (equal weights: 0.50); 2 experts lead"),
        ([[0.9, 0.1]] * 10, "largest weight 0.90 on average (equal weights: 0.50); one expert leads nearly always"),
        ([[1.0]] * 10, "a single expert"),
    ],
)
def test_the_picture_of_experts_says_how_far_they_have_specialised(weights, words):
    weights = np.array(weights)
    observations = np.random.default_rng(0).normal(size=(len(weights), 3))
    figure = plot_experts(observations, weights, weights.argmax(1), caption="pmoe_ppo on Some-v0, seed 3")
    first, second = figure.get_suptitle().split("\n")
    assert first == "pmoe_ppo on Some-v0, seed 3"
    assert words in second


# --- Classic control ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["CartPole-v1", "StatelessCartPole-v1", "Pendulum-v1", "Acrobot-v1", "MountainCar-v0", "MountainCarContinuous-v0"]
)
def test_classic_control_is_filmed(name, tmp_path):
    env, params = jaxpg_envs.make(name)
    still = jnp.zeros(env.action_space(params).shape, env.action_space(params).dtype)
    policy = Policy((), lambda params, key, observation, carry: (still, carry))
    files = draw_behaviour(policy, policy, env, params, jax.random.key(0), tmp_path, f"ppo on {name}, seed 0")
    assert files == [tmp_path / "behaviour.png"]
    assert files[0].read_bytes().startswith(PNG)


def test_a_film_shows_the_states_of_its_times(cart_pole):
    env, params, policy = cart_pole
    episode = record_episode(policy, env, params, jax.random.key(3), max_steps=60)
    figure = plot_film({"before": episode, "after": episode}, find_scene(episode.states, params), caption="ppo, seed 0")
    assert len(figure.axes) == 20
    assert figure.get_suptitle() == "ppo, seed 0"
    last = figure.axes[9]
    assert last.get_xlabel() == f"{(episode.length - 1) * 0.02:.3g} s"
    x, y = last.lines[-2].get_data()  # the pole, of the state itself
    angle, place = episode.states.theta[-1], episode.states.x[-1]
    np.testing.assert_allclose(x, [place, place + np.sin(angle)], rtol=1e-5)
    np.testing.assert_allclose(y, [0.0, np.cos(angle)], rtol=1e-5)


def test_what_is_no_classic_control_is_not_filmed():
    for name in ("PointOmni-v0", "TargetReaching-v0", "Catch-bsuite"):
        env, params = jaxpg_envs.make(name)
        assert find_scene(env.reset(jax.random.key(0), params)[1], params) is None
