"""The demonstration: what it says while it works, and what it leaves. Its runs are stood in for."""

import json

import pytest

from jaxpg.algorithm import configure, lookup
from jaxpg.experiment import demo


@pytest.mark.parametrize("algorithm", demo.ALGORITHMS)
def test_its_settings_are_the_algorithms(algorithm):
    fields = {"total_steps": demo.TOTAL_STEPS, **demo.ALGORITHMS[algorithm]}
    config = configure(algorithm, lookup(algorithm).config_class, fields)
    assert config.total_steps == demo.TOTAL_STEPS


def test_it_says_what_it_does_and_where_the_results_are(tmp_path, monkeypatch, capsys):
    ran = []

    def run(algorithm, env, out, **settings):
        ran.append(algorithm)
        out.mkdir(parents=True)
        (out / "config.json").write_text(json.dumps({"algorithm": algorithm, "env": env, "seed": 0}))
        (out / "metrics.jsonl").write_text(
            json.dumps({"update": 1, "env_steps": 10, "seconds": 1.0, "episode_return": [1.0, 2.0]}) + "\n"
        )
        return {"initial_iqm": -1200.0, "iqm": -200.0}

    monkeypatch.setattr(demo, "run", run)
    monkeypatch.setattr(demo, "use_cpu_devices", lambda count: None)
    monkeypatch.setattr(demo, "cache_compiled_programs", lambda: None)
    demo.main(tmp_path / "demo")
    said = capsys.readouterr()
    assert ran == ["ppo", "pmoe_ppo"]
    assert "drawing the learning curves of both …\n" in said.err
    assert "-1,200.0 untrained,    -200.0 after training" in said.out
    for path in ("learning_curves.png", "summary.json"):
        assert (tmp_path / "demo" / path).stat().st_size > 0
        assert str(tmp_path / "demo" / path) in said.out
