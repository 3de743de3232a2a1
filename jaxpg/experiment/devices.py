"""Which devices a run uses, and the cache of compiled programs; both must be set before JAX wakes its backend."""

import importlib.util
import os
from pathlib import Path

import jax
import jaxlib.version
import numpy as np
from jax.sharding import Mesh

from jaxpg.algorithm import InputError, whole_number
from jaxpg.counting import divisors
from jaxpg.randomness import use_fast_random_bits

HAS_ACCELERATOR = importlib.util.find_spec("jax_plugins") is not None
PRESET = "CPU_OPT_PRESET_FAST_COMPILE"
KNOWS_PRESET = jaxlib.version.__version_info__ >= (0, 10)  # XLA dies of flags it does not know
COMPILER_OPTIONS = (
    {"xla_cpu_opt_preset": PRESET}
    if KNOWS_PRESET and not HAS_ACCELERATOR and "xla_cpu_opt_preset" not in os.environ.get("XLA_FLAGS", "")
    else None
)
"""Of a run's programs: the same bits whether or not `use_cpu_devices` was called."""


MOST_CPU_DEVICES = 256  # where there are fewer cores: each takes threads and memory


def use_cpu_devices(count: int, linear_algebra: bool = True) -> None:
    """Makes the CPU appear as `count` devices: with one per core, the fastest way to use several cores.

    XLA splits the small matrix products of reinforcement learning badly over threads; seeds split over devices scale almost
    with the cores. Accelerators, if there are any, are not touched. Call it before JAX is used for the first time. XLA's preset
    for fast compilation is chosen too, unless `XLA_FLAGS` names another: here its programs are quicker as well. Random bits are
    made as `jaxpg.randomness` has them, which compiles sooner.

    Args:
      linear_algebra: whether programs may factorise batches of matrices, as rigid-body physics does on the backends
        generalized and mjx. Without it, two devices are a third faster, and such a program never ends.

    Raises:
      InputError: `count` is not positive or beyond all cores, or JAX is already in use with another number of devices.
    """
    count = whole_number("the number of devices", count, 1, max(MOST_CPU_DEVICES, os.cpu_count() or 1))
    if not HAS_ACCELERATOR:
        # Threads of XLA's pool. A batched LAPACK kernel on each of several devices blocks a thread while it waits for work that
        # needs one more; otherwise, threads beyond the devices only get into each other's way.
        os.environ["NPROC"] = str(count + 1) if linear_algebra and count > 1 else str(count)
    flags = os.environ.get("XLA_FLAGS", "")
    if KNOWS_PRESET and "xla_cpu_opt_preset" not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} --xla_cpu_opt_preset={PRESET}".strip()
    use_fast_random_bits()
    try:
        jax.config.update("jax_num_cpu_devices", count)
    except RuntimeError as error:
        if len(jax.devices("cpu")) != count:
            raise InputError(
                f"cannot make {count} CPU devices: JAX is already in use in this process with "
                f"{len(jax.devices('cpu'))}. Call jaxpg.experiment.use_cpu_devices({count}) first of all"
            ) from error


def seed_mesh(num_seeds: int, num_devices: int) -> Mesh:
    """A mesh of `num_devices` devices whose one axis, "seed", shares out the seeds.

    Raises:
      InputError: there are fewer devices, or the seeds do not divide among them.
    """
    if num_devices < 1 or num_seeds < 1:
        raise InputError(f"num_seeds and num_devices must be at least 1, got {num_seeds} and {num_devices}")
    if num_seeds % num_devices:
        possible = ", ".join(map(str, divisors(num_seeds)))
        raise InputError(
            f"num_seeds = {num_seeds} does not divide among num_devices = {num_devices}; it divides among {possible}"
        )
    available = jax.devices()
    if num_devices > len(available):
        raise InputError(
            f"num_devices is {num_devices}, but JAX sees {len(available)} ({available[0].platform}); on a CPU, call "
            f"jaxpg.experiment.use_cpu_devices({num_devices}) before anything else (the command line does)"
        )
    return Mesh(np.array(available[:num_devices]), ("seed",))


def cache_compiled_programs() -> None:
    """Keeps compiled programs on disk between processes, unless the user has set a folder for it already.

    The folder is `$JAX_COMPILATION_CACHE_DIR`, or `jaxpg/xla` in `$XDG_CACHE_HOME` (default `~/.cache`).
    """
    if jax.config.jax_compilation_cache_dir is None:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        jax.config.update("jax_compilation_cache_dir", str(Path(base) / "jaxpg" / "xla"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)  # a run begins with many small programs
