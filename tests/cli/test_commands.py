"""The commands as a user calls them: what they print, what they leave, and how they end on bad input."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from PIL import Image

from convatlas.cli import main

PROGRAM = Path(sys.executable).with_name("convatlas")
QUICK = ["--network", "resnet20", "--size", "16", "--epochs", "1", "--batch", "16", "--warmup", "0"]


def photos(folder, classes=("cat", "dog"), count=10, side=24):
    """Small coloured noise, a colour a class."""
    generator = torch.Generator().manual_seed(0)
    for c, name in enumerate(classes):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            pixels = torch.randint(0, 100, (side, side, 3), dtype=torch.uint8, generator=generator)
            pixels[..., c % 3] += 150
            Image.fromarray(pixels.numpy()).save(folder / name / f"{i}.png")
    return folder


@pytest.fixture
def run(capsys):
    """Call a command; exit code, standard output, standard error."""

    def call(*args):
        code = main([str(arg) for arg in args])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A finished run on a folder of photos."""
    folder = tmp_path_factory.mktemp("trained")
    photos(folder / "photos", count=20)
    command = ["train", "--data", folder / "photos", "--out", folder / "run", *QUICK, "--epochs", "2"]
    assert main([str(arg) for arg in command]) == 0
    return folder


def refused(result, code, *texts):
    """One line on standard error with the texts, and the exit code."""
    assert result[0] == code, result
    lines = [line for line in result[2].splitlines() if line.startswith("error[")]
    assert len(lines) == 1, result[2]
    assert "Remedy:" in lines[0]
    assert "Traceback" not in result[2]
    for text in texts:
        assert text in lines[0], (text, lines[0])


class TestLooking:
    def test_list(self, run):
        code, out, _ = run("list", "resnet5*", "--json")
        nets = {net["name"]: net for net in json.loads(out)}
        assert code == 0
        assert nets["resnet50"]["params"] == 25_557_032
        assert nets["resnet50"]["macs"] == 3_857_973_248
        assert nets.keys() == {"resnet50", "resnet50.c", "resnet50.v1_5", "resnet56", "resnet56.b"}
        assert "25,557,032" in run("list", "resnet5*")[1]

    def test_show(self, run, tmp_path):
        code, out, _ = run("show", "vgg16", "--diagram", tmp_path / "vgg.svg")
        assert code == 0
        for text in ("138,357,544", "15,470,264,320", "Simonyan", "138 M", "agrees", "212x212"):
            assert text in out, text
        assert (tmp_path / "vgg.svg").read_text().count("<svg") == 1

    def test_show_json(self, run):
        about = json.loads(run("show", "resnet20", "--json")[1])
        assert {"name", "paper", "params", "macs", "input_size", "receptive_field", "layers"} <= about.keys()
        assert (about["params"], about["input_size"], about["receptive_field"]) == (269_722, 32, [81, 81])
        assert sum(layer["params"] for layer in about["layers"]) == about["params"]

    def test_show_layers(self, run):
        assert "stage1.0.res.body.conv1.conv" in run("show", "resnet20", "--layers")[1]

    def test_audit(self, run):
        code, out, _ = run("audit", "resnet*", "--json")
        rows = json.loads(out)
        assert code == 0
        assert {"paper", "network", "quantity", "printed", "exact", "convention", "verdict"} <= rows[0].keys()
        assert {row["verdict"] for row in rows} >= {"agrees", "agrees (floor)"}
        assert "differs" not in {row["verdict"] for row in rows}

    def test_audit_fails_on_an_unexplained_difference(self, run, monkeypatch):
        """The network is changed under the audit's feet: ResNet-34 with projections, as others build it."""
        from dataclasses import replace

        from convatlas.zoo.spec import REGISTRY

        monkeypatch.setitem(REGISTRY, "resnet34", replace(REGISTRY["resnet34"], shortcut="B"))
        code, out, _ = run("audit", "resnet34")
        assert code == 1
        assert "differs: ResNet" in out

    @pytest.mark.parametrize("command", ["show", "train --network"])
    def test_unknown_network(self, run, command):
        refused(run(*command.split(), "resnt50"), 2, "no network is called 'resnt50'", "did you mean resnet50")

    def test_nothing_matches(self, run):
        refused(run("audit", "zzz*"), 2, "zzz*")


class TestTraining:
    def test_everything_is_left_in_the_run(self, trained):
        left = {path.name for path in (trained / "run").iterdir()}
        assert left >= {"model.safetensors", "report.html", "result.json", "run.json", "split.json", "log.csv",
                        "log.jsonl", "test.jsonl", "samples", "mistakes", "tensorboard"}  # fmt: skip
        assert not [name for name in left if name.endswith(".part")]
        result = json.loads((trained / "run" / "result.json").read_text())
        assert result["images"] == {"train": 28, "val": 6, "test": 6}
        assert len(json.loads((trained / "run" / "split.json").read_text())["train"]) == 28

    def test_a_finished_run_is_read_not_repeated(self, run, trained):
        model = trained / "run" / "model.safetensors"
        before = model.stat().st_mtime_ns
        code, out, _ = run("train", "--data", trained / "photos", "--out", trained / "run", *QUICK, "--epochs", "2")
        assert code == 0
        assert "test accuracy" in out
        assert model.stat().st_mtime_ns == before

    def test_another_run_in_the_same_folder_is_refused(self, run, trained):
        again = (
            "train",
            "--data",
            trained / "photos",
            "--out",
            trained / "run",
            *QUICK,
            "--epochs",
            "2",
            "--lr",
            "0.3",
        )
        refused(run(*again), 2, "holds another run", "recipe.lr 0.00625 -> 0.3")

    def test_eval_restores_the_runs_own_parts(self, run, trained):
        result = json.loads((trained / "run" / "result.json").read_text())
        for data in ((), ("--data", trained / "photos")):
            code, out, _ = run("eval", trained / "run", *data, "--json")
            figures = json.loads(out)
            assert code == 0
            assert figures["images"] == 6
            assert figures["accuracy"] == result["test"]["accuracy"]
            assert figures["loss"] == pytest.approx(result["test"]["loss"], abs=1e-6)

    def test_eval_on_other_classes_is_refused(self, run, trained, tmp_path):
        photos(tmp_path / "others", classes=("cat", "horse"))
        refused(run("eval", trained / "run", "--data", tmp_path / "others"), 3, "horse")

    def test_an_exported_file_gives_the_answers_of_its_run(self, run, trained, tmp_path, monkeypatch):
        monkeypatch.setenv("CONVATLAS_CACHE", str(tmp_path / "cache"))
        photo, file = trained / "photos" / "cat" / "0.png", tmp_path / "model.onnx"
        assert run("export", trained / "run", "--to", "onnx", "--out", file)[0] == 0
        wanted = json.loads(run("predict", trained / "run", photo, "--json")[1])["top"]
        for engine in ("onnxruntime", "openvino", "auto"):
            code, out, err = run("predict", file, photo, "--engine", engine, "--json")
            assert code == 0
            assert json.loads(out)["top"] == pytest.approx(wanted, abs=1e-5)
            assert ("measured now" in err) == (engine == "auto")
        refused(
            run("export", trained / "run", "--to", "onnx", "--out", file, "--max-drop", "1"), 2, "--max-drop is for"
        )
        refused(
            run("export", trained / "run", "--to", "openvino", "--out", file, "--int8"), 2, "--int8 with --to openvi"
        )
        assert run("export", trained / "run", "--to", "onnx", "--out", file, "--size", "24")[0] == 0
        assert json.loads(run("predict", file, photo, "--json")[1])["top"] != pytest.approx(wanted, abs=1e-5)
        refused(run("export", trained / "run", "--to", "timm", "--out", file, "--size", "24"), 2, "--size is for runt")

    def test_predict_gives_one_row_for_each_input(self, run, trained, tmp_path):
        good = trained / "photos" / "cat" / "0.png"
        bad = tmp_path / "bad.png"
        bad.write_bytes(good.read_bytes()[:60])
        code, out, _ = run("predict", trained / "run", good, bad, tmp_path / "none.png", good, "--json")
        rows = [json.loads(line) for line in out.splitlines()]
        assert code == 3
        assert [row["path"] for row in rows] == [str(p) for p in (good, bad, tmp_path / "none.png", good)]
        assert [row.get("error", {}).get("id") is not None for row in rows] == [False, True, True, False]
        assert rows[0]["class"] in ("cat", "dog")
        assert sum(rows[0]["top"].values()) == pytest.approx(1, abs=1e-5)
        assert run("predict", trained / "run", bad, "--allow-failures")[0] == 0

    def test_report_is_written_again(self, run, trained):
        page = trained / "run" / "report.html"
        page.unlink()
        assert run("report", trained / "run")[0] == 0
        assert page.stat().st_size > 10_000


class TestBadInput:
    def test_no_such_folder(self, run, tmp_path):
        refused(run("train", "--data", tmp_path / "none"), 2, "No such file or directory", str(tmp_path / "none"))

    def test_empty_folder(self, run, tmp_path):
        refused(run("train", "--data", tmp_path), 3, str(tmp_path))

    def test_one_class(self, run, tmp_path):
        refused(run("train", "--data", photos(tmp_path, classes=("cat",))), 3, "class")

    def test_one_image(self, run, tmp_path):
        refused(run("train", "--data", photos(tmp_path, count=1)), 3, "1 images")

    def test_fewer_images_than_the_batch(self, run, tmp_path):
        data = photos(tmp_path / "data", count=5)
        assert run("train", "--data", data, "--out", tmp_path / "run", *QUICK, "--batch", "64")[0] == 0

    def test_class_folders_differ(self, run, tmp_path):
        photos(tmp_path / "train", classes=("cat", "dog"))
        photos(tmp_path / "val", classes=("cat", "horse"))
        refused(run("train", "--data", tmp_path), 3, "horse")

    @pytest.mark.parametrize("damage", ["truncated", "empty", "html", "bomb"])
    def test_bad_images_stop_or_are_left_out(self, run, tmp_path, damage):
        data = photos(tmp_path / "data")
        bad = data / "cat" / "3.png"
        if damage == "bomb":
            Image.new("1", (13_000, 13_000)).save(bad)
        else:
            content = {"truncated": bad.read_bytes()[:-200], "empty": b"", "html": b"<html>not found</html>"}[damage]
            bad.write_bytes(content)
        refused(run("train", "--data", data, "--out", tmp_path / "a", *QUICK), 3, "3.png")
        code, _, _ = run("train", "--data", data, "--out", tmp_path / "b", *QUICK, "--on-bad-file", "skip")
        assert code == 0
        assert json.loads((tmp_path / "b" / "result.json").read_text())["left_out"] == 1
        (row,) = (tmp_path / "b" / "bad_files.jsonl").read_text().splitlines()
        assert json.loads(row)["name"] == "cat/3.png"
        assert len(json.loads(row)["sha256"]) == 64

    def test_animated_images_warn_once(self, run, tmp_path):
        data = photos(tmp_path / "data")
        frames = [Image.new("RGB", (24, 24), colour) for colour in ("red", "blue")]
        frames[0].save(data / "cat" / "a.gif", save_all=True, append_images=frames[1:])
        code, _, err = run("train", "--data", data, "--out", tmp_path / "run", *QUICK)
        assert code == 0
        assert "animated" in err
        assert "a.gif" in err
        again = ("train", "--data", data, "--out", tmp_path / "again", *QUICK, "--on-animated", "fail")
        refused(run(*again), 3, "error[D6]", "a.gif")

    def test_run_folder_that_cannot_be(self, run, tmp_path):
        (tmp_path / "file").write_text("")
        data = photos(tmp_path / "data")
        started = time.monotonic()
        refused(run("train", "--data", data, "--out", tmp_path / "file" / "run", *QUICK), 6, "cannot write to")
        assert time.monotonic() - started < 20

    def test_mistyped_recipe_key(self, run, tmp_path):
        (tmp_path / "r.yaml").write_text("epochs: 2\nlearning_rate: 0.1\nweigth_decay: 0\n")
        refused(run("train", "--recipe", tmp_path / "r.yaml"), 2, "r.yaml:2: unknown key 'learning_rate'")
        (tmp_path / "r.yaml").write_text("epochs: 2\nweigth_decay: 0\n")
        refused(run("train", "--recipe", tmp_path / "r.yaml"), 2, "r.yaml:2", "did you mean 'weight_decay'?")

    def test_value_out_of_range(self, run):
        refused(run("train", "--lr", "-1"), 2, "lr = -1.0 is out of range")

    def test_image_too_small_for_the_network(self, run, tmp_path):
        data = photos(tmp_path / "data")
        result = run("train", "--data", data, "--network", "vgg11", "--size", "16", "--out", tmp_path / "run")
        refused(result, 2, "vgg11 cannot take 16x16 images")

    def test_divergence(self, run, tmp_path):
        data = photos(tmp_path / "data", count=40)
        result = run("train", "--data", data, "--out", tmp_path / "run", *QUICK, "--epochs", "3", "--lr", "1e30")
        refused(result, 5, "not finite in 3 steps", "at lr ", "cat/")
        assert not (tmp_path / "run" / "model.safetensors").exists()

    def test_weights_of_another_network(self, run, tmp_path):
        torch.save({"weight": torch.zeros(3)}, tmp_path / "w.pth")
        refused(run("import", tmp_path / "w.pth", "--network", "resnet20", "--out", tmp_path / "b"), 4, "w.pth")

    def test_damaged_model(self, run, trained, tmp_path):
        content = bytearray((trained / "run" / "model.safetensors").read_bytes())
        content[-1000] ^= 4
        (tmp_path / "bad.safetensors").write_bytes(content)
        photo = trained / "photos" / "cat" / "0.png"
        refused(run("predict", tmp_path / "bad.safetensors", photo), 4, "fails its checksum", "tensor '")

    def test_what_is_not_a_run(self, run, tmp_path):
        refused(run("report", tmp_path), 2, str(tmp_path))


class TestProcess:
    """What needs a process of its own."""

    def test_help_is_quick_and_loads_no_torch(self):
        code = "import sys; from convatlas.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
        code += "assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
        subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)

    def test_import_loads_nothing_heavy(self):
        code = (
            "import sys, convatlas; assert 'torch' not in sys.modules; convatlas.create; assert 'torch' in sys.modules"
        )
        subprocess.run([sys.executable, "-c", code], check=True)

    def test_every_public_name_is_there(self):
        import convatlas

        for name in convatlas.__all__:
            assert getattr(convatlas, name) is not None

    def test_a_closed_pipe_is_no_error(self):
        done = subprocess.run(f"{PROGRAM} list | head -1", shell=True, capture_output=True, text=True)
        assert done.stderr == ""

    def test_a_dumb_terminal_and_a_plain_locale(self):
        env = {**os.environ, "TERM": "dumb", "LANG": "C", "LC_ALL": "C", "PYTHONIOENCODING": "ascii"}
        done = subprocess.run([PROGRAM, "list", "resnet20"], env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert "269,722" in done.stdout

    def test_unknown_flag(self):
        done = subprocess.run([PROGRAM, "train", "--learning-rate", "1"], capture_output=True, text=True)
        assert done.returncode == 2
        assert "--learning-rate" in done.stderr

    @pytest.mark.parametrize(
        "flag", ["--workers=-1", "--read-timeout=0", "--save-every=nan", "--processes=0", "--threads=x", "--size=0"]
    )
    def test_impossible_numbers(self, flag, capsys):
        with pytest.raises(SystemExit) as caught:
            main(["train", flag])
        assert caught.value.code == 2
        assert flag.split("=")[0] in capsys.readouterr().err

    def test_closed_outputs(self):
        for closing in (">&-", "2>&-", ">&- 2>&-"):
            done = subprocess.run(f"{PROGRAM} list resnet20 {closing}", shell=True, capture_output=True, text=True)
            assert done.returncode == 0, (closing, done.stderr)

    @pytest.mark.parametrize(("package", "extra"), [("sklearn", "train"), ("pyarrow", "parquet")])
    def test_a_missing_package_is_named_with_the_line_that_installs_it(self, tmp_path, package, extra):
        (tmp_path / "x.parquet").write_bytes(b"PAR1")
        data = {"sklearn": "digits", "pyarrow": tmp_path / "x.parquet"}[package]
        blocked = f"import sys; sys.modules[{package!r}] = None; from convatlas.cli import main; sys.exit(main())"
        done = subprocess.run(
            [sys.executable, "-c", blocked, "train", "--data", data, "--out", tmp_path / "run"],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 6, done.stderr
        assert "error[L5]" in done.stderr
        assert f"pip install 'convatlas[{extra}]'" in done.stderr
        assert "Traceback" not in done.stderr

    def test_no_gpu(self, run):
        if torch.cuda.is_available():
            pytest.skip("this machine has a GPU")
        refused(run("train", "--device", "cuda"), 2, "there is no device 'cuda'")


class TestPaths:
    """Case L7: whatever a path looks like, it works or is refused in one line."""

    def test_spaces_accents_a_trailing_slash_and_home(self, run, tmp_path, monkeypatch):
        monkeypatch.setenv("HOME", str(tmp_path))
        photos(tmp_path / "my photos é" / "set")
        code, _, err = run("train", "--data", "~/my photos é/set/", "--out", "~/a run/", *QUICK)
        assert code == 0, err
        assert (tmp_path / "a run" / "model.safetensors").exists()
        assert run("predict", tmp_path / "a run", tmp_path / "my photos é" / "set")[0] == 0

    def test_a_relative_path_means_the_same_later(self, run, tmp_path, monkeypatch):
        photos(tmp_path / "here" / "set")
        monkeypatch.chdir(tmp_path / "here")
        assert run("train", "--data", "set", "--out", "run", *QUICK)[0] == 0
        monkeypatch.chdir(tmp_path)
        assert run("eval", "here/run")[0] == 0

    def test_a_path_longer_than_the_system_allows(self, run, tmp_path):
        long = tmp_path / ("x" * 300)
        refused(run("train", "--data", long), 2, "xxx")
        refused(run("predict", long, long), 6, "xxx", "File name too long")


def test_a_stem_too_large_for_the_images_warns_in_one_line(tmp_path):
    data = photos(tmp_path / "data", side=32)
    flags = ["--network", "resnet18", "--size", "32", "--epochs", "1", "--batch", "16"]
    done = subprocess.run(
        [PROGRAM, "train", "--data", data, "--out", tmp_path / "run", *flags], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if "1x1 map" in line]
    assert line.startswith("warning: resnet18 shrinks a 32x32 image to a 1x1 map")
    assert "resnet20" in line


def test_ctrl_c_while_an_object_is_cleared_up_still_ends_the_command():
    """Python lets no exception out of a finalizer: it would print a traceback and go on."""
    program = """
import argparse, signal, weakref
from convatlas.cli.parts import run

class Object: pass

def command(args):
    it = Object()
    keep = weakref.ref(it, lambda gone: signal.raise_signal(signal.SIGINT))
    del it
    print("went on")

signal.signal(signal.SIGINT, signal.default_int_handler)  # not so in what a shell began
raise SystemExit(run(argparse.Namespace(run=command, debug=False)))
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "")
