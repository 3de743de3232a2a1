"""Update rules as files: what is written is read to the bit, and whatever else stands there is refused in words."""

import hashlib
import io
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checks import assert_same

from jaxpg.algorithm import InputError
from jaxpg.algorithms.meta_learning.rule_file import SHIPPED, load_rule, save_rule, shipped_rules
from jaxpg.algorithms.meta_learning.update_rule import UpdateRule

KEY = jax.random.key(0)
RULE = UpdateRule(3, 2)
PARAMS = RULE.initial(KEY)


@pytest.fixture
def saved(tmp_path):
    save_rule(tmp_path / "rule", RULE, PARAMS, {"by": "hand"})
    return tmp_path / "rule"


@pytest.mark.parametrize("temporally_aware", [False, True])
def test_a_rule_is_read_as_it_was_written(tmp_path, temporally_aware):
    rule = UpdateRule(3, 2, temporally_aware)
    params = rule.initial(KEY)
    save_rule(tmp_path / "new" / "rule.v1.5", rule, params, {"updates": 7})
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["rule.v1.5.json", "rule.v1.5.npz"]
    found, read = load_rule(tmp_path / "new" / "rule.v1.5")
    assert (found.hidden_size, found.num_bins, found.temporally_aware) == (3, 2, temporally_aware)
    assert jax.tree.structure(read) == jax.tree.structure(params)
    assert_same(read, params)
    assert json.loads((tmp_path / "new" / "rule.v1.5.json").read_text())["provenance"] == {"updates": 7}


def test_the_rules_that_are_shipped():
    assert "grid_worlds" in shipped_rules()
    assert {path.name for path in SHIPPED.iterdir()} == {f"{name}.{end}" for name in shipped_rules() for end in ("json", "npz")}
    for name in shipped_rules():
        rule, params = load_rule(name)
        like = jax.eval_shape(rule.initial, KEY)
        assert jax.tree.map(lambda x: (x.shape, x.dtype), params) == jax.tree.map(lambda x: (x.shape, x.dtype), like)


def flipped(path):
    content = bytearray(path.with_suffix(".npz").read_bytes())
    content[len(content) // 2] ^= 1
    path.with_suffix(".npz").write_bytes(content)


def says(**changes):
    def change(path):
        file = path.with_suffix(".json")
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    return change


def described(content):
    """By these bytes in the place of the arrays, with the checksum that they have."""

    def change(path):
        path.with_suffix(".npz").write_bytes(content)
        says(sha256=hashlib.sha256(content).hexdigest())(path)

    return change


def written(text):
    return lambda path: path.with_suffix(".json").write_text(text)


def archive(**arrays):
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


ARRAYS = {
    jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf)
    for path, leaf in jax.tree_util.tree_flatten_with_path(PARAMS)[0]
}
BIAS = "params/Dense_0/bias"
DAMAGES = {
    "a flipped bit": (flipped, r"rule\.npz is not the file that it describes"),
    "other sizes": (says(hidden_size=4), "its arrays are not those of a rule of these sizes"),
    "other inputs": (says(temporally_aware=True), "its arrays are not those of a rule of these sizes"),
    "no size": (says(num_bins="2"), "num_bins must be a whole number, got '2'"),
    "too large": (says(hidden_size=10**9), "hidden_size must be at most 1048576"),
    "no switch": (says(temporally_aware=1), "temporally_aware is neither true nor false"),
    "another format": (says(format="x"), "its format is 'x', not 'jaxpg update rule, 1'"),
    "no format": (written("{}"), "'format'"),
    "no JSON": (written("{"), "Expecting property name"),
    "no object": (written("[1]"), "list indices must be integers"),
    "too deep": (written("[" * 10**5), "recursion"),
    "no letters": (lambda path: path.with_suffix(".json").write_bytes(b"\xff"), "can't decode byte"),
    "not finite": (described(archive(**ARRAYS | {BIAS: ARRAYS[BIAS] * np.nan})), "some of its numbers are not finite"),
    "too few": (described(archive(**{BIAS: ARRAYS[BIAS]})), "its arrays are not those of a rule of these sizes"),
    "wide": (described(archive(**ARRAYS | {BIAS: ARRAYS[BIAS].astype(float)})), "its arrays are not those of a rule"),
    "a pickle in it": (described(archive(**ARRAYS | {BIAS: np.array([print], object)})), "allow_pickle=False"),
    "a pickle": (described(b"\x80\x04K\x01."), "is no archive of arrays"),
    "an archive that breaks off": (described(archive(**ARRAYS)[:-30]), "is no archive of arrays"),
    "nothing": (described(b""), "is no archive of arrays"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_no_rule_is_refused(saved, damage):
    change, words = DAMAGES[damage]
    change(saved)
    with pytest.raises(InputError, match=f"the rule {saved} cannot be read: .*{words}.*: write it anew with save_rule"):
        load_rule(saved)


def test_what_is_not_there_is_answered_with_what_there_is(saved):
    with pytest.raises(InputError, match=r"rule = 'grid_world'; did you mean 'grid_worlds'\? There is: .*\. A rule of"):
        load_rule("grid_world")
    (saved.parent / "rule.npz").unlink()
    with pytest.raises(InputError, match=f"there is none at {saved}, where it must stay"):
        load_rule(saved)
    with pytest.raises(InputError, match="cannot be read: File name too long"):
        load_rule("x" * 1000)


@pytest.mark.parametrize(
    "params", [jax.tree.map(lambda x: jnp.stack([x, x]), PARAMS), UpdateRule(4, 2).initial(KEY), PARAMS["params"]]
)
def test_only_the_parameters_of_one_rule_are_saved(tmp_path, params):
    with pytest.raises(InputError, match="no parameters of one rule of these sizes: of several seeds, give one's"):
        save_rule(tmp_path / "rule", RULE, params, {})
    assert list(tmp_path.iterdir()) == []
