"""Physics as parameters: equal to what brax builds from a model with these changes, row by row of one batch."""

import copy
from functools import partial

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest
from brax.io import mjcf
from checks import row
from numpy.testing import assert_allclose
from test_conformance import quickly_compiled

import jaxpg_envs
from jaxpg_envs import EnvironmentInputError
from jaxpg_envs.brax_adapter import BraxEnvironment
from jaxpg_envs.brax_physics import with_physics

STEPS = 50

# What the compiler derives from masses and no pipeline reads: cameras, lights, the strength of muscles.
UNREAD = {".dof_M0", ".actuator_acc0", ".cam_poscom0", ".light_poscom0"}


def rebuilt(system, mass_scale, friction_scale, damping_scale, gear_scale, gravity):
    """The same robot, built by brax's loader from a MuJoCo model with other numbers."""
    model = copy.copy(system.mj_model)
    model.body_mass[1:] *= mass_scale
    model.body_inertia[1:] *= mass_scale[:, None]
    model.geom_friction[:] *= friction_scale[:, None]
    model.dof_damping[:] *= damping_scale[model.dof_jntid]
    model.actuator_gear[:] *= gear_scale[:, None]
    model.opt.gravity[2] = -gravity
    mujoco.mj_setConst(model, mujoco.MjData(model))
    return mjcf.load_model(model)


# A free joint (ant), contacts (hopper), bodies that only slide and masses over ten decades (pusher, reacher).
@pytest.mark.parametrize("robot", ["ant", "hopper", "pusher", "reacher"])
def test_the_system_is_the_one_that_the_loader_builds(robot):
    env, _ = jaxpg_envs.make(f"brax/{robot}")
    rng = np.random.default_rng(0)
    physics = {name: rng.uniform(0.3, 3, len(parts)) for name, parts in env.physics_names.items()} | {"gravity": 3.7}
    change = jax.jit(lambda physics: jax.tree.leaves(with_physics(env.brax.sys, **physics)))
    expected = jax.tree_util.tree_leaves_with_path(rebuilt(env.brax.sys, **physics))
    for (path, theirs), ours in zip(expected, change(physics), strict=True):
        if jax.tree_util.keystr(path) not in UNREAD:
            assert_allclose(ours, theirs, rtol=1e-4, err_msg=jax.tree_util.keystr(path))


def test_a_model_file_with_another_density():
    """A body's mass and moments of inertia are proportional to its density; everything else is the compiler's."""
    env, _ = jaxpg_envs.make("brax/inverted_pendulum")
    spec = mujoco.MjSpec.from_file(str(mjcf.epath.resource_path("brax") / "envs/assets/inverted_pendulum.xml"))
    spec.geom("cart").density, spec.geom("cpole").density = 2500, 400  # 1000 is the default
    scale = [{"cart": 2.5, "pole": 0.4}[body] for body in env.physics_names["mass_scale"]]
    ours, theirs = with_physics(env.brax.sys, mass_scale=jnp.array(scale)), mjcf.load_model(spec.compile())
    for name in ("body_mass", "body_inertia", "body_subtreemass", "body_invweight0", "dof_invweight0"):
        assert_allclose(getattr(ours, name), getattr(theirs, name), rtol=1e-5)
    jax.tree.map(partial(assert_allclose, rtol=1e-5), ours.link, theirs.link)


def rollout(step, reset, actions, rows):
    """Every row from one key with the same actions: observations and rewards, leading axes time and row."""
    key = jax.random.key(0)
    observation, state = jax.vmap(reset, (None, 0))(key, rows)

    def advance(state, action):
        observation, state, reward, _, _ = jax.vmap(step, (None, 0, None, 0))(key, state, action, rows)
        return state, (observation, reward)

    observations, rewards = jax.lax.scan(advance, state, actions)[1]
    return jnp.concatenate([observation[None], observations]), rewards


@pytest.mark.parametrize("backend", [pytest.param("generalized", marks=pytest.mark.thorough), "mjx"])
def test_trajectories_are_those_of_separately_built_robots(backend):
    env, params = jaxpg_envs.make("brax/hopper", backend=backend)
    system = env.brax.sys
    neutral = {name: np.ones(len(parts)) for name, parts in env.physics_names.items()} | {"gravity": 9.81}
    foot, actuators = env.physics_names["mass_scale"].index("foot"), neutral["gear_scale"]
    changes = {
        "nothing": {},
        "all masses": {"mass_scale": 2 * neutral["mass_scale"]},
        "one mass": {"mass_scale": np.where(np.arange(len(neutral["mass_scale"])) == foot, 4.0, 1.0)},
        "friction": {"friction_scale": 0.2 * neutral["friction_scale"]},
        "damping": {"damping_scale": 3 * neutral["damping_scale"]},
        "gear": {"gear_scale": actuators * np.linspace(0.5, 2, len(actuators))},
        "gravity": {"gravity": 5.0},
    }
    physics = [neutral | change for change in changes.values()]

    ours = jax.tree.map(lambda *values: jnp.stack([jnp.asarray(v, jnp.float32) for v in values]), *physics)
    ours = jax.vmap(lambda physics: params.replace(**physics))(ours)
    theirs = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(jax.tree.leaves(rebuilt(system, **p)) for p in physics))

    def separate(leaves):
        brax = copy.copy(env.brax)
        brax.sys = jax.tree.unflatten(jax.tree.structure(system), leaves)
        return BraxEnvironment(brax)

    their_step = lambda key, state, action, leaves: separate(leaves).step_env(key, state, action, params)
    their_reset = lambda key, leaves: separate(leaves).reset_env(key, params)
    # Small actions: where a foot touches down, rounding errors grow a thousandfold.
    actions = jax.random.uniform(jax.random.key(0), (STEPS, 3), minval=-0.2, maxval=0.2)
    observation, reward = quickly_compiled(partial(rollout, env.step_env, env.reset_env), actions, ours)(actions, ours)
    expected = quickly_compiled(partial(rollout, their_step, their_reset), actions, theirs)(actions, theirs)
    assert_allclose(observation, expected[0], rtol=0, atol=1e-4)
    assert_allclose(reward, expected[1], rtol=0, atol=1e-4)

    apart = np.abs(observation - observation[:, :1]).max(axis=(0, 2))
    for name, distance in zip(list(changes)[1:], apart[1:], strict=True):
        assert distance > 0.03, name


@pytest.fixture(scope="module")
def steps():
    """Inverted pendulums of three masses, each step of which ends an episode; and resets with the same keys."""
    env, params = jaxpg_envs.make("brax/inverted_pendulum", max_steps_in_episode=1)
    scale = jnp.array([[1.0, 1.0], [3.0, 0.5], [1.0, 6.0]])
    rows = jax.vmap(lambda scale: params.replace(mass_scale=scale))(scale)
    keys = jax.random.split(jax.random.key(0), 3)

    def step(key, params):
        _, state = env.reset(key, params)
        _, after, *_ = env.step(key, state, jnp.zeros(1), params)
        return state, after, env.reset(jax.random.split(key)[1], params)[1]

    assert env.physics_names["mass_scale"] == ["cart", "pole"]
    return env, scale, quickly_compiled(jax.vmap(step), keys, rows)(keys, rows)


def test_the_cart_moves_all_that_stands_on_it(steps):
    env, scale, (state, *_) = steps
    cart, pole = env.brax.sys.link.inertia.mass
    inertia = state.brax.pipeline_state.mass_mx
    assert_allclose(inertia[:, 0, 0], scale[:, 0] * cart + scale[:, 1] * pole, rtol=1e-5)
    assert_allclose(inertia[:, 1, 1] / inertia[0, 1, 1], scale[:, 1], rtol=1e-5)  # about the hinge: the pole's alone


def test_an_automatic_reset_keeps_the_physics_of_its_row(steps):
    _, _, (_, after, fresh) = steps
    jax.tree.map(partial(assert_allclose, rtol=1e-5, atol=1e-5), after.brax, fresh.brax)
    inertia = after.brax.pipeline_state.mass_mx
    assert len({float(row(inertia, i, 0, 0)) for i in range(3)}) == 3


@pytest.mark.parametrize("backend", ["spring", "positional"])
@pytest.mark.parametrize("physics", [{"mass_scale": 2.0}, {"gravity": 9.81, "gear_scale": 1.0}])
def test_other_backends_refuse(backend, physics):
    env, params = jaxpg_envs.make("brax/inverted_pendulum", backend=backend)
    message = f'"{backend}" does not honour {", ".join(sorted(physics))[:4]}.*choose one of generalized, mjx'
    with pytest.raises(EnvironmentInputError, match=message):
        env.reset(jax.random.key(0), params.replace(**physics))


def test_default_parameters_leave_the_system_alone():
    env, params = jaxpg_envs.make("brax/inverted_pendulum")
    assert jax.tree.leaves(params) == [1000]
    assert env._with_physics(params) is env.brax
    before = env.brax.sys
    changed = env._with_physics(params.replace(gravity=3.0))
    assert env.brax.sys is before
    assert changed.sys.gravity[2] == -3
    assert before.gravity[2] == np.float32(-9.81)


def test_names_of_the_parts():
    env, _ = jaxpg_envs.make("brax/swimmer")
    geoms = ["floor", "geom1", "geom2", "geom3"]
    joints = ["slider1", "slider2", "rot", "rot2", "rot3"]
    assert env.physics_names == {
        "mass_scale": ["torso", "mid", "back"],
        "friction_scale": geoms,
        "damping_scale": joints,
        "gear_scale": ["rot2", "rot3"],
    }


def test_wrong_shapes():
    env, params = jaxpg_envs.make("brax/inverted_pendulum")
    for physics, message in [
        ({"mass_scale": jnp.ones(3)}, r"mass_scale has the shape \(3,\); allowed are one number, or 2, for cart, pole"),
        ({"damping_scale": jnp.ones((2, 1))}, "damping_scale .* for slider, hinge"),
        ({"gravity": jnp.ones(3)}, "gravity .* one number"),
    ]:
        with pytest.raises(EnvironmentInputError, match=message):
            env.reset(jax.random.key(0), params.replace(**physics))


@pytest.mark.parametrize(
    ("part", "field"),
    [
        ('<tendon><fixed name="t"><joint joint="j" coef="1"/></fixed></tendon>', "mass_scale"),
        ('<actuator><muscle joint="j"/></actuator>', "mass_scale"),
        ('<contact><pair geom1="a" geom2="b"/></contact>', "friction_scale"),
    ],
)
def test_models_whose_derived_numbers_are_not_recomputed(part, field):
    body = '<body name="{0}" pos="{1} 0 0"><joint {2} type="slide"/><geom name="{0}" size="0.1"/></body>'
    bodies = body.format("a", 0, 'name="j" limited="true" range="-1 1"') + body.format("b", 1, "")
    system = mjcf.loads(f"<mujoco><worldbody>{bodies}</worldbody>{part}</mujoco>")
    with pytest.raises(EnvironmentInputError, match=f"{field}: models with .* not supported"):
        with_physics(system, **{field: 2.0})
