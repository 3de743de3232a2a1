"""Another physics for a brax system that is built already: masses, friction, damping, gears, gravity.

Everything may be traced, so one compiled program holds as many different robots as a batch has rows.
"""

from typing import Any

import jax.numpy as jnp
import mujoco
import numpy as np
from jaxtyping import Array, Float

from jaxpg_envs.registry import EnvironmentInputError

BACKENDS = ("generalized", "mjx")
"""The pipelines that honour the changes. "spring" and "positional" have masses, damping and gears of their own
tuning: the ant and the hopper, for example, set every mass to 1 there."""


def with_physics(
    system: Any,
    mass_scale: Any = None,
    friction_scale: Any = None,
    damping_scale: Any = None,
    gear_scale: Any = None,
    gravity: Any = None,
) -> Any:
    """The system that brax would have built from a model with these changes; `None` leaves a part as it is.

    Args:
        system: a `brax.base.System` made by brax's loader. It is not changed.
        mass_scale, friction_scale, damping_scale, gear_scale, gravity: see `BraxParams`.

    Raises:
        EnvironmentInputError: a shape fits neither all parts nor each, or the model has something that depends
            on the change in a way that is not recomputed (tendons, muscles, explicit contact pairs).
    """
    model = system.mj_model
    names = part_names(system)

    def scale_of(name: str, value: Any) -> Float[Array, " part"]:
        value, parts = jnp.asarray(value), names[name]
        if value.shape not in ((), (len(parts),)):
            raise EnvironmentInputError(
                f"{name} has the shape {value.shape}; allowed are one number, or {len(parts)}, for {', '.join(parts)}"
            )
        return jnp.broadcast_to(value, (len(parts),))

    if mass_scale is not None:
        muscle = mujoco.mjtGain.mjGAIN_MUSCLE
        if model.ntendon or (model.actuator_gaintype == muscle).any():
            raise EnvironmentInputError("mass_scale: models with tendons or muscles are not supported")
        system = _with_masses(system, scale_of("mass_scale", mass_scale))
    if friction_scale is not None:
        if model.npair:
            raise EnvironmentInputError("friction_scale: models with explicit contact pairs are not supported")
        scale = scale_of("friction_scale", friction_scale)
        system = system.replace(geom_friction=system.geom_friction * scale[:, None])
    if damping_scale is not None:
        scale = scale_of("damping_scale", damping_scale)[model.dof_jntid]
        dof = system.dof.replace(damping=system.dof.damping * scale)
        system = system.replace(dof_damping=system.dof_damping * scale, dof=dof)
    if gear_scale is not None:
        scale = scale_of("gear_scale", gear_scale)
        gear = system.actuator.gear * scale[_drives_joint(model)]  # brax's own copy has these alone
        actuator = system.actuator.replace(gear=gear)
        system = system.replace(actuator_gear=system.actuator_gear * scale[:, None], actuator=actuator)
    if gravity is not None:
        gravity = jnp.asarray(gravity)
        if gravity.shape:
            raise EnvironmentInputError(f"gravity has the shape {gravity.shape}; allowed is one number, in m/s^2")
        vector = system.gravity.at[2].set(-gravity)
        system = system.replace(gravity=vector, opt=system.opt.replace(gravity=vector))
    return system


def part_names(system: Any) -> dict[str, list[str]]:
    """What the entries of each array of scales belong to, by the model's names.

    A motor without a name is called after the joint that it drives; other parts without one `geom3`, by number.
    """
    model = system.mj_model

    def names(kind: str, number: int) -> list[str]:
        return [getattr(model, kind)(i).name or f"{kind}{i}" for i in range(number)]

    joints = names("joint", model.njnt)
    actuators = names("actuator", model.nu)
    for i in np.flatnonzero(_drives_joint(model)):
        actuators[i] = model.actuator(i).name or joints[model.actuator_trnid[i, 0]]
    return {
        "mass_scale": names("body", model.nbody)[1:],  # without the world
        "friction_scale": names("geom", model.ngeom),
        "damping_scale": joints,
        "gear_scale": actuators,
    }


def _drives_joint(model: mujoco.MjModel) -> np.ndarray:
    return model.actuator_trntype == mujoco.mjtTrn.mjTRN_JOINT


def _with_masses(system: Any, scale: Float[Array, " body"]) -> Any:
    """Masses and inertias of the bodies (without the world) times `scale`, and what MuJoCo's compiler derives.

    The pipelines soften contacts and joint limits by inverse weights at the initial position: those of M^-1, the
    inverse of the joint-space inertia, of a degree of freedom, and of J M^-1 J^T, J the Jacobian of a body's
    centre of mass (`mj_setConst` in MuJoCo). J does not depend on masses, so it is a constant here.
    Not recomputed, because no pipeline reads them: `dof_M0`, `actuator_acc0`, `stat`.
    """
    model = system.mj_model
    of_body = jnp.concatenate([jnp.ones(1), scale])
    mass = system.body_mass * of_body
    inertia = system.body_inertia * of_body[:, None]
    inverse_of_dof, inverse_of_body = _inverse_weights(model, mass, inertia, system.dof_armature)

    link, dof = system.link, system.dof
    link_inertia = link.inertia.replace(mass=link.inertia.mass * scale, i=link.inertia.i * scale[:, None, None])
    return system.replace(
        body_mass=mass,
        body_inertia=inertia,
        body_subtreemass=jnp.asarray(_is_in_subtree(model), mass.dtype) @ mass,
        body_invweight0=inverse_of_body,
        dof_invweight0=inverse_of_dof,
        link=link.replace(inertia=link_inertia, invweight=inverse_of_body[1:, 0]),
        dof=dof.replace(invweight=inverse_of_dof),
    )


def _inverse_weights(
    model: mujoco.MjModel, mass: Float[Array, " body"], inertia: Float[Array, "body 3"], armature: Float[Array, " dof"]
) -> tuple[Float[Array, " dof"], Float[Array, "body 2"]]:
    """Of every degree of freedom, and of every body in translation and rotation."""
    jacobian = jnp.asarray(_centre_of_mass_jacobians(model), mass.dtype)
    weight = jnp.concatenate([jnp.broadcast_to(mass[:, None], (model.nbody, 3)), inertia], axis=1)
    joint_space_inertia = jnp.diag(armature) + jnp.einsum("bi,bij,bik->jk", weight, jacobian, jacobian)
    inverse = jnp.linalg.inv(joint_space_inertia)
    of_dof = jnp.asarray(_averages(model), mass.dtype) @ jnp.diag(inverse)
    of_body = jnp.einsum("bij,jk,bik->bi", jacobian, inverse, jacobian).reshape(model.nbody, 2, 3).mean(axis=2)

    # MuJoCo has two exceptions. A body that slides along its axes and bears no other counts as a free mass.
    slides = model.body_simple == 2
    of_dof = jnp.where(slides[model.dof_bodyid], 1 / mass[model.dof_bodyid], of_dof)
    of_body = jnp.where(slides[:, None], jnp.stack([1 / mass, jnp.zeros_like(mass)], axis=1), of_body)
    # Where a body cannot turn, or not move, some versions have 0 and some its other weight: as the built model.
    is_other = (of_body < mujoco.mjMINVAL) & (model.body_invweight0 > 0)
    return of_dof, jnp.where(is_other, of_body[:, ::-1], of_body)


def _centre_of_mass_jacobians(model: mujoco.MjModel) -> Float[np.ndarray, "body 6 dof"]:
    """At the initial position: velocity, and angular velocity along the principal axes of inertia."""
    data = mujoco.MjData(model)
    mujoco.mj_kinematics(model, data)
    mujoco.mj_comPos(model, data)
    jacobian = np.zeros((model.nbody, 6, model.nv))
    for body in range(model.nbody):
        mujoco.mj_jacBodyCom(model, data, jacobian[body, :3], jacobian[body, 3:], body)
    axes = data.ximat.reshape(-1, 3, 3)
    jacobian[:, 3:] = np.swapaxes(axes, 1, 2) @ jacobian[:, 3:]
    return jacobian


def _averages(model: mujoco.MjModel) -> Float[np.ndarray, "dof dof"]:
    """MuJoCo gives the translations of a free joint one value, and its rotations, and those of a ball joint."""
    first = model.jnt_dofadr[model.dof_jntid]
    is_free = model.jnt_type[model.dof_jntid] == mujoco.mjtJoint.mjJNT_FREE
    is_rotation = is_free & (np.arange(model.nv) >= first + 3)
    group = first + 3 * is_rotation
    alike = group[:, None] == group
    return alike / alike.sum(axis=1, keepdims=True)


def _is_in_subtree(model: mujoco.MjModel) -> np.ndarray:
    """(body, body): whether the second body is the first or one of its descendants."""
    within = np.eye(model.nbody, dtype=bool)
    for body in range(model.nbody - 1, 0, -1):  # children come after their parents
        within[model.body_parentid[body]] |= within[body]
    return within
