"""Recipes: what a file may say, and that whatever it must not say is named with its line."""

import json
import time
import tomllib
from dataclasses import asdict, fields

import pytest
import yaml

from convatlas.errors import ConfigError
from convatlas.train.recipe import MAX_BYTES, Recipe, builtin, scaled

AS_TOML = {True: "true", False: "false"}


def refused(path) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        pytest.fail(f"accepted as {Recipe.load(path)}")
    assert "\n" not in str(caught.value)
    return caught.value


def write(folder, text, name="run.yaml"):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


# --- what is read ---


@pytest.mark.parametrize("name", builtin())
def test_every_builtin_recipe_loads_by_name_by_path_and_as_toml(tmp_path, name):
    recipe = Recipe.load(name)
    values = yaml.safe_load(builtin()[name].read_text())
    assert values
    for key, value in values.items():
        assert getattr(recipe, key) == (tuple(value) if isinstance(value, list) else value)
    assert Recipe.load(builtin()[name]) == recipe
    toml = "".join(f"{key} = {AS_TOML[v] if isinstance(v, bool) else json.dumps(v)}\n" for key, v in values.items())
    assert tomllib.loads(toml) == values
    assert Recipe.load(write(tmp_path, toml, f"{name}.toml")) == recipe


def test_yaml_and_toml_with_every_field_give_the_same_recipe(tmp_path):
    wanted = Recipe(
        epochs=3, batch=7, accumulate=2, optimizer="rmsprop_tf", lr=0.045, momentum=0.8, nesterov=False, rho=0.8,
        eps=0.1, weight_decay=1e-5, decay_norm=True, decay_depthwise=False, schedule="step", warmup=0.5, warmup_lr=0.01,
        milestones=(0.25, 0.5, 1), gamma=0.3, every=2.5, patience=7, label_smoothing=0.2, class_weights="balanced",
        aux_weight=0.4, ema=0.9, clip=2.0, freeze="stem stage1*", backbone_lr=0.1, augment="photo",
        policy="randaugment", erasing=0.25, mixup=0.2, cutmix=1.0, precision="bf16",
    )  # fmt: skip
    default = Recipe()
    alike = [f.name for f in fields(Recipe) if getattr(wanted, f.name) == getattr(default, f.name)]
    assert alike == ["polyak"]  # which does not go with ema
    values = json.loads(json.dumps(asdict(wanted)))
    toml = "".join(f"{key} = {AS_TOML[v] if isinstance(v, bool) else json.dumps(v)}\n" for key, v in values.items())
    assert Recipe.load(write(tmp_path, yaml.safe_dump(values))) == wanted
    assert Recipe.load(write(tmp_path, toml, "run.toml")) == wanted
    assert hash(wanted) != hash(default)


@pytest.mark.parametrize("text", ["", "\n", "# nothing yet\n", "---\n", "null\n"], ids=repr)
def test_an_empty_file_is_the_default_recipe(tmp_path, text):
    assert Recipe.load(write(tmp_path, text)) == Recipe()


def test_an_empty_toml_file_is_the_default_recipe(tmp_path):
    assert Recipe.load(write(tmp_path, "# nothing\n", "run.toml")) == Recipe()


def test_whole_numbers_are_numbers_too(tmp_path):
    assert Recipe.load(write(tmp_path, "lr: 1\nmilestones: [0, 1]\n")) == Recipe(lr=1, milestones=(0, 1))


def test_replaced_fields_are_checked():
    assert Recipe().replaced(lr=0.3, epochs=2) == Recipe(lr=0.3, epochs=2)
    with pytest.raises(ConfigError, match=r"error\[L2\]: lr = -1 is out of range. Remedy: at least 0"):
        Recipe().replaced(lr=-1)


@pytest.mark.parametrize(
    ("values", "what"),
    [({"ema": 0.9, "polyak": 0.1}, "ema = 0.9 and polyak = 0.1"), ({"batch": 4, "accumulate": 5}, "a batch of 4")],
)
def test_values_that_exclude_each_other_are_refused(values, what):
    with pytest.raises(ConfigError, match=rf"error\[L4\]: {what}"):
        Recipe(**values)


# --- a batch of another size ---

PEAK = Recipe(lr=0.1, batch=128)


@pytest.mark.parametrize(
    ("overrides", "lr", "note"),
    [
        ({}, 0.1, None),
        ({"epochs": 3}, 0.1, None),
        ({"batch": 128}, 0.1, None),
        ({"batch": 512}, 0.4, "0.1 at batch 128, scaled linearly"),
        ({"batch": 32}, 0.025, "0.1 at batch 128, scaled linearly"),
        ({"batch": 512, "lr": 0.3}, 0.3, None),
        ({"batch": 512, "lr": 0.1}, 0.1, None),
    ],
)
def test_the_rate_follows_a_batch_that_is_given_alone(overrides, lr, note):
    recipe, said = scaled(PEAK, overrides)
    assert recipe == PEAK.replaced(**{**overrides, "lr": lr})
    assert said == note


def test_the_rate_of_the_warm_up_follows_too_unless_it_is_given():
    constant = PEAK.replaced(warmup_lr=0.01)
    assert scaled(constant, {"batch": 256})[0] == constant.replaced(batch=256, lr=0.2, warmup_lr=0.02)
    assert scaled(constant, {"batch": 256, "warmup_lr": 0.05})[0].warmup_lr == 0.05
    assert scaled(constant, {"batch": 256, "lr": 0.1})[0].warmup_lr == 0.01


@pytest.mark.parametrize("name", ["nothere.yaml", "digit", "."])
def test_a_file_that_cannot_be_read_names_the_builtin_ones(name):
    error = refused(name)
    assert error.id == "L7"
    assert name in error.what
    assert all(known in error.remedy for known in builtin())


# --- L1: unknown keys ---


@pytest.mark.parametrize(
    ("key", "nearest"),
    [("learing_rate", None), ("momentun", "momentum"), ("weight-decay", "weight_decay"), ("LR", "lr"),
     ("epoch", "epochs"), ("labelsmoothing", "label_smoothing")],
)  # fmt: skip
@pytest.mark.parametrize("form", ["yaml", "toml"])
def test_an_unknown_key_names_file_line_and_the_nearest_key(tmp_path, key, nearest, form):
    separator = ": " if form == "yaml" else " = "
    text = f"# a recipe\n\nlr{separator}0.1\n{key}{separator}1\nbatch{separator}4\n"
    path = write(tmp_path, text, f"run.{form}")
    error = refused(path)
    assert error.id == "L1"
    assert error.exit_code == 2
    assert error.what == f"{path}:4: unknown key {key!r}"
    if nearest:
        assert error.remedy == f"did you mean {nearest!r}?"
    else:
        assert "lr, momentum" in error.remedy


@pytest.mark.parametrize("text", ["1: 2\n", "~: 3\n", "true: 1\n", "2001-01-01: 1\n", "'lr ': 1\n"])
def test_a_key_that_is_no_name_is_unknown(tmp_path, text):
    assert refused(write(tmp_path, text)).id == "L1"


# --- L2: values ---

WRONG = [
    ("lr", '"1e-3"', "write 1.0e-3"),
    ("lr", "1e-3", "write 1.0e-3"),
    ("lr", "-0.1", "at least 0"),
    ("lr", ".nan", "at least 0"),
    ("lr", ".inf", "at least 0"),
    ("lr", "-.inf", "at least 0"),
    ("lr", "9" * 400, "at least 0"),
    ("lr", "true", "give one as in 0.1"),
    ("lr", "null", "give one as in 0.1"),
    ("lr", "[0.1, 0.2]", "give one as in 0.1"),
    ("lr", "{a: 1}", "give one as in 0.1"),
    ("lr", "2001-01-01", "give one as in 0.1"),
    ("epochs", "true", "give one as in 30"),
    ("epochs", "2.5", "give one as in 30"),
    ("epochs", "0", "at least 1"),
    ("batch", "-4", "at least 1"),
    ("batch", "'64'", "give one as in 128"),
    ("momentum", "1", "at most 0.9999"),
    ("label_smoothing", "1.0", "at most 0.999"),
    ("ema", "1.0", "at most 0.99999"),
    ("nesterov", "1", "give true or false"),
    ("nesterov", "'yes'", "give true or false"),
    ("optimizer", "sdg", "one of sgd, sgd_caffe, adamw, rmsprop_tf"),
    ("optimizer", "[sgd]", "one of sgd, sgd_caffe, adamw, rmsprop_tf"),
    ("optimizer", "1", "one of sgd, sgd_caffe, adamw, rmsprop_tf"),
    ("augment", "null", "one of none, digits, small, photo"),
    ("milestones", "0.5", "give numbers as in [0.5, 0.75]"),
    ("milestones", "'0.5'", "give numbers as in [0.5, 0.75]"),
    ("milestones", "[0.5, x]", "give one as in"),
    ("milestones", "[0.5, [0.6]]", "give one as in"),
    ("milestones", "[0.5, 1.5]", "at most 1"),
    ("freeze", "7", "give a text"),
    ("freeze", "[stem]", "give a text"),
    ("freeze", "null", "give a text"),
    ("class_weights", "true", "one of none, balanced"),
    ("policy", "autoaugment", "one of none, trivialaugment, randaugment"),
    ("erasing", "1.1", "at most 1"),
    ("accumulate", "0", "at least 1"),
    ("every", "0", "at least 0.01"),
    ("patience", "0", "at least 1"),
    ("polyak", "-0.1", "at least 0"),
]


@pytest.mark.parametrize(("key", "value", "remedy"), WRONG, ids=[f"{k}={v[:20]}" for k, v, _ in WRONG])
def test_a_wrong_value_names_file_line_key_and_what_is_allowed(tmp_path, key, value, remedy):
    before = "# a recipe\n" + ("gamma: 0.5\n" if key != "gamma" else "")
    path = write(tmp_path, f"{before}{key}: {value}\nclip: 1\n")
    error = refused(path)
    assert error.id == "L2"
    assert error.what.startswith(f"{path}:3: {key} = ")
    assert remedy in error.remedy
    assert len(str(error)) < 250 + len(str(path))


@pytest.mark.parametrize("value", ["inf", "nan", '"0.1"', "true", "-1", "[0.1]", "2001-01-01"])
def test_toml_values_are_checked_alike(tmp_path, value):
    path = write(tmp_path, f"epochs = 2\nlr = {value}\n", "run.toml")
    assert refused(path).what.startswith(f"{path}:2: lr = ")


def test_a_long_value_is_not_printed_whole(tmp_path):
    assert len(refused(write(tmp_path, f"optimizer: {'x' * 5000}\n")).what) < 200
    assert len(refused(write(tmp_path, f"{'y' * 5000}: 1\n")).what) < 200
    assert len(refused(write(tmp_path, f"lr: [{'1, ' * 2000}]\n")).what) < 200


# --- L3: the file itself ---

BOMB = "\n".join(
    ['"epochs": 1', '"milestones":', '  - &a ["x", "x", "x", "x", "x", "x", "x", "x", "x", "x"]']
    + [f"  - &{name} [{', '.join([f'*{below}'] * 10)}]" for below, name in zip("abcdefghi", "bcdefghij", strict=True)]
)

MALFORMED = {
    "anchor": ("epochs: &e 3\nwarmup: *e\n", 1, "anchors"),
    "anchor after a quoted key": ('lr: 0.1\n"epochs": &e 3\n', 2, "anchors"),
    "anchor on the next line": ("lr: 0.1\nepochs:\n  &e 3\n", 3, "anchors"),
    "anchor of all": ("&all\nlr: 1\n", 1, "anchors"),
    "merge": ("a: &a {lr: 1}\n<<: *a\n", 1, "anchors"),
    "tag": ("lr: !!float 1\n", 1, "tags"),
    "python tag": ("lr: !!python/object/apply:os.system ['true']\n", 1, "tags"),
    "tag in a list": ("lr: 1\nmilestones: [!x 1]\n", 2, "tags"),
    "doubled key": ("lr: 0.1\nbatch: 3\nlr: 0.2\n", 3, "lr is given twice"),
    "doubled key, indented": ("  lr: 0.1\n  lr: 0.2\n", 2, "lr is given twice"),
    "doubled key, quoted": ('lr: 0.1\n"lr": 0.2\n', 2, "lr is given twice"),
    "doubled key, in braces": ("{lr: 0.1, lr: 0.2}\n", 1, "lr is given twice"),
    "billion laughs": (BOMB, 3, "anchors"),
    "tab": ("lr: 1\n\tbatch: 2\n", 2, ""),
    "unclosed": ("lr: [1, 2\n", 2, ""),
    "two documents": ("lr: 1\n---\nlr: 2\n", 2, ""),
    "an impossible date": ("lr: 2001-99-99\n", None, "month"),
    "an endless number": (f"lr: {'9' * 5000}\n", None, "digits"),
    "a key that is a list": ("[lr]: 1\n", 1, "unhashable"),
    "control characters": (b"lr: \x00\x01\n", None, ""),
    "not text": (b"\xff\xfe\x00\xd8", None, ""),
    "nested lists": ("lr: " + "[" * (MAX_BYTES - 5), 1, "nested too deep"),
    "nested keys": ("{? " * (MAX_BYTES // 3), 1, "nested too deep"),
    "a list": ("- lr: 1\n", None, "not a list of keys and values"),
    "an empty list": ("[]\n", None, "not a list of keys and values"),
    "a number": ("0\n", None, "not a list of keys and values"),
    "a text": ("lr = 0.1\n", None, "not a list of keys and values"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_a_malformed_file_is_refused_quickly_and_by_line(tmp_path, case):
    text, line, reason = MALFORMED[case]
    path = write(tmp_path, text)
    started = time.process_time()
    error = refused(path)
    assert time.process_time() - started < 1
    assert error.id == "L3"
    assert error.what.startswith(f"{path}:{line} " if line else f"{path} ")
    assert reason in error.what


@pytest.mark.parametrize(
    "text",
    ["lr = 0.1\nlr = 0.2\n", "lr: 0.1\n", "lr = \n",
     "a." * (MAX_BYTES // 2 - 10) + "a=1", "lr=" + "[" * (MAX_BYTES - 9),
     "lr = " + "9" * 5000, "lr = 2001-99-99\n"],
    ids=["doubled", "yaml", "no value", "dots", "nested", "endless", "date"],
)  # fmt: skip
def test_malformed_toml_is_refused_quickly(tmp_path, text):
    started = time.process_time()
    error = refused(write(tmp_path, text, "run.toml"))
    assert time.process_time() - started < 1
    assert error.id in ("L3", "L1")  # L1: dots are well-formed
    assert len(error.what) < 500


@pytest.mark.parametrize("name", ["run.yaml", "run.toml"])
def test_a_file_too_large_is_not_read(tmp_path, name):
    path = write(tmp_path, "#", name)
    with path.open("r+b") as file:
        file.truncate(1 << 40)  # a sparse terabyte
    started = time.process_time()
    assert refused(path).id == "L3"
    assert time.process_time() - started < 0.5


def test_an_endless_device_is_not_read_to_its_end():
    assert refused("/dev/zero").id == "L3"
