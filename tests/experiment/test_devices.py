import os

import jax
import pytest

from jaxpg.algorithm import InputError
from jaxpg.experiment import cache_compiled_programs, use_cpu_devices
from jaxpg.experiment.devices import seed_mesh


def test_seeds_must_divide_among_the_devices():
    with pytest.raises(InputError, match="num_seeds = 6 does not divide among num_devices = 4; it divides among 1, 2, 3, 6"):
        seed_mesh(6, 4)
    with pytest.raises(InputError, match=r"num_devices is 64, but JAX sees .*use_cpu_devices\(64\)"):
        seed_mesh(64, 64)
    for num_seeds, num_devices in ((0, 1), (1, 0), (-2, 1), (2, -1)):
        with pytest.raises(InputError, match=f"must be at least 1, got {num_seeds} and {num_devices}"):
            seed_mesh(num_seeds, num_devices)
    mesh = seed_mesh(6, 1)
    assert (mesh.axis_names, mesh.size) == (("seed",), 1)


def test_the_number_of_devices_cannot_change_once_jax_runs(monkeypatch):
    monkeypatch.setenv("NPROC", "as it was")
    monkeypatch.setenv("XLA_FLAGS", "")
    in_use = len(jax.devices("cpu"))
    use_cpu_devices(in_use)
    with pytest.raises(InputError, match=rf"cannot make {in_use + 1} CPU devices: .*use_cpu_devices\({in_use + 1}\) first"):
        use_cpu_devices(in_use + 1)
    with pytest.raises(InputError, match="at least 1, got 0"):
        use_cpu_devices(0)


@pytest.mark.parametrize(
    ("count", "linear_algebra", "threads"), [(1, True, 1), (2, True, 3), (8, True, 9), (1, False, 1), (2, False, 2)]
)
def test_linear_algebra_has_more_threads_than_devices(monkeypatch, count, linear_algebra, threads):
    """With no more, it can wait for ever; what a parent process had set must not matter."""
    settings = {}
    monkeypatch.setattr("jaxpg.experiment.devices.HAS_ACCELERATOR", False)
    monkeypatch.setattr(jax.config, "update", settings.__setitem__)
    for inherited in ("1", "2", "64"):
        monkeypatch.setenv("NPROC", inherited)
        monkeypatch.setenv("XLA_FLAGS", "--xla_some_flag=1")
        use_cpu_devices(count, linear_algebra)
        assert int(os.environ["NPROC"]) == threads
        assert os.environ["XLA_FLAGS"] == "--xla_some_flag=1 --xla_cpu_opt_preset=CPU_OPT_PRESET_FAST_COMPILE"
    assert settings == {"jax_num_cpu_devices": count}


def test_the_users_preset_is_kept(monkeypatch):
    monkeypatch.setattr(jax.config, "update", lambda *_: None)
    monkeypatch.setenv("NPROC", "as it was")
    for flags in ("--xla_cpu_opt_preset=CPU_OPT_PRESET_DEFAULT", "--a=1 --xla_cpu_opt_preset=CPU_OPT_PRESET_FAST_RUNTIME"):
        monkeypatch.setenv("XLA_FLAGS", flags)
        use_cpu_devices(1)
        assert os.environ["XLA_FLAGS"] == flags


def test_the_users_cache_folder_is_kept(monkeypatch, tmp_path):
    settings = {}
    monkeypatch.setattr(jax.config, "update", settings.__setitem__)
    assert jax.config.jax_compilation_cache_dir is not None  # by the tests themselves
    cache_compiled_programs()
    assert settings == {}
    monkeypatch.setattr("jaxpg.experiment.devices.jax", type("", (), {"config": _Config(settings)}))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cache_compiled_programs()
    assert settings == {
        "jax_compilation_cache_dir": str(tmp_path / "jaxpg" / "xla"),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
    }


class _Config:
    jax_compilation_cache_dir = None

    def __init__(self, settings):
        self.update = settings.__setitem__
