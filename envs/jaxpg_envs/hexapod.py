"""A hexapod of our own: a flat body of 1.5 kg on six legs of three joints each, whose servos are told angles.

It stands where they are told 0. Told the gait of insects, three legs in turn with the other three, it walks 3 m in 12.5 s.
"""

import math
from typing import Any

from brax import envs
from brax.io import mjcf

COXA, FEMUR, TIBIA = 0.06, 0.1, 0.15  # lengths of a leg's links, from the body outwards, in m
FOOT = 0.02  # radius, in m
HEIGHT = 0.14  # of the body's centre above the ground when all joints are at 0, in m
RANGE = 0.5  # how far from there a servo is told to turn to each side, in rad
DIRECTIONS = (40.0, 90.0, 140.0, 220.0, 270.0, 320.0)  # of the legs, in degrees; x is forwards

_HEAD = f"""
<mujoco model="hexapod">
  <compiler angle="radian" inertiafromgeom="true"/>
  <option timestep="0.005" iterations="4"/>
  <custom>
    <numeric data="1000" name="constraint_limit_stiffness"/>
    <numeric data="4000" name="constraint_stiffness"/>
    <numeric data="10" name="constraint_ang_damping"/>
    <numeric data="20" name="constraint_vel_damping"/>
    <numeric data="0.5" name="joint_scale_pos"/>
    <numeric data="0.2" name="joint_scale_ang"/>
    <numeric data="0.0" name="ang_damping"/>
    <numeric data="1" name="spring_mass_scale"/>
    <numeric data="1" name="spring_inertia_scale"/>
    <numeric data="15" name="solver_maxls"/>
  </custom>
  <default>
    <joint type="hinge" armature="0.02" damping="4" limited="true" range="{-RANGE} {RANGE}"/>
    <geom contype="0" conaffinity="0" condim="3" density="400" friction="1 0.5 0.5"/>
    <position kp="20" ctrlrange="-1 1" ctrllimited="true" gear="{1 / RANGE}"/>
  </default>
  <worldbody>
    <geom name="floor" type="plane" size="40 40 40" conaffinity="1"/>
    <body name="torso" pos="0 0 {HEIGHT}">
      <freejoint name="root"/>
      <geom name="torso_geom" type="box" size="0.12 0.08 0.03"/>
"""


def _leg(index: int, direction: float) -> str:
    """A leg: the coxa turns about the vertical, femur and tibia about the horizontal across the leg."""
    angle = math.radians(direction)
    x, y = math.cos(angle), math.sin(angle)
    start = f"{0.12 * x} {0.08 * y} 0"
    drop = HEIGHT - FOOT
    reach = math.sqrt(TIBIA**2 - drop**2)
    along = lambda length, down=0.0: f"{length * x} {length * y} {-down}"
    bone = lambda name, end: f'<geom name="{name}_{index}_geom" type="capsule" size="0.015" fromto="0 0 0 {end}"/>'
    return f"""
      <body name="coxa_{index}" pos="{start}">
        <joint name="coxa_{index}" axis="0 0 1"/>
        {bone("coxa", along(COXA))}
        <body name="femur_{index}" pos="{along(COXA)}">
          <joint name="femur_{index}" axis="{-y} {x} 0"/>
          {bone("femur", along(FEMUR))}
          <body name="tibia_{index}" pos="{along(FEMUR)}">
            <joint name="tibia_{index}" axis="{-y} {x} 0"/>
            {bone("tibia", along(reach, drop))}
            <geom name="foot_{index}_geom" type="sphere" size="{FOOT}" pos="{along(reach, drop)}" contype="1" mass="0"/>
          </body>
        </body>
      </body>"""


def model() -> str:
    """The robot and the floor, in MuJoCo's XML; only feet meet the floor."""
    joints = [f"{link}_{index}" for index in range(6) for link in ("coxa", "femur", "tibia")]
    motors = "".join(f'<position name="{joint}" joint="{joint}"/>' for joint in joints)
    legs = "".join(_leg(index, direction) for index, direction in enumerate(DIRECTIONS))
    return f"{_HEAD}{legs}</body></worldbody><actuator>{motors}</actuator></mujoco>"


def make(backend: str) -> Any:
    """brax's ant with this body, without noise at the start: what is observed and rewarded is as in the ant.

    The reward is 1 for being upright, less a quarter of the sum of the squared actions. A step is 0.05 s.

    Args:
        backend: "spring" or "mjx".
    """
    ant = envs.get_environment(
        "ant", backend=backend, reset_noise_scale=0.0, n_frames=10, ctrl_cost_weight=0.25, healthy_z_range=(0.05, 0.35)
    )
    ant.sys = mjcf.loads(model()).replace(opt=ant.sys.opt).tree_replace({"opt.timestep": 0.005})
    return ant
