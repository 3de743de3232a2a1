"""Checks the shapes in signatures while the tests run, and keeps compiled programs between runs."""

import gc
import os
from pathlib import Path

import jaxtyping

jaxtyping.install_import_hook(["jaxpg", "jaxpg_envs"], "beartype.beartype")

import jax  # noqa: E402

from jaxpg.randomness import use_fast_random_bits  # noqa: E402

# Compiling is most of what the tests cost. Programs of so few threads need not be compiled in parts; the bits are the same.
use_fast_random_bits()
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_parallel_codegen_split_count=1")
gc.set_threshold(50_000, 10, 10)  # what JAX traces is many objects, most of which stay; programs have to go some day
jax.config.update("jax_compilation_cache_dir", str(Path(__file__).parents[1] / ".cache" / "jax"))
