"""Bulk prediction: one row for each input, a file that is whole or not there, whatever happens meanwhile (I1 to I5)."""

import csv
import io
import itertools
import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from convatlas import decode
from convatlas import features as parts
from convatlas.cli import main
from convatlas.deploy import Prediction, bulk
from convatlas.deploy import rows as rows_module
from convatlas.deploy.bulk import Partial, Piece, gaps
from convatlas.deploy.rows import Table

from bundles import bundle_of
from commands import ENVIRONMENT

pq = pytest.importorskip("pyarrow.parquet")

FORMS = ("csv", "jsonl", "parquet")


def png(seed: int) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    Image.fromarray(pixels // 2 + np.uint8(seed % 100)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def model(bundle, tmp_path_factory) -> Path:
    return bundle.save(tmp_path_factory.mktemp("model") / "model.safetensors")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """90 images, of which three cannot be read."""
    root = tmp_path_factory.mktemp("pictures")
    for index in range(90):
        path = root / f"{index % 3}" / f"{index:03}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(png(index)[: 60 if index % 30 == 7 else None])
    return root


def predict(model: Path, *words) -> int:
    return main(["predict", str(model), *map(str, words)])


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def rows(path: Path) -> list[dict]:
    """What a results file says, as JSON lines say it."""
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    found = []
    records = pq.read_table(path).to_pylist() if path.suffix == ".parquet" else read_csv(path)
    for record in records:
        if record["error"]:
            found.append({"path": record["path"], "error": {"id": record["error"], "message": record["message"]}})
            assert not record["class"]
            continue
        assert not record["error"]
        if path.suffix == ".parquet":
            top = dict(zip(record["top_classes"], record["top_probabilities"], strict=True))
        else:
            places = ["", *(f"_{place}" for place in range(2, 9) if f"class_{place}" in record)]
            top = {record[f"class{place}"]: float(record[f"probability{place}"]) for place in places}
        found.append({"path": record["path"], "class": record["class"], "probability": float(record["probability"])})
        found[-1]["top"] = top
    return found


# --- what is in the file ---


@pytest.mark.parametrize("form", FORMS)
def test_the_file_says_what_is_printed(model, folder, tmp_path, capsys, form):
    assert predict(model, folder, "--json") == 3
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    out = tmp_path / f"r.{form}"
    assert predict(model, folder, "--out", out) == 3
    assert capsys.readouterr().out == f"{out}: 90 rows, 3 of them errors\n"
    assert rows(out) == printed
    assert [row["path"] for row in printed] == sorted(map(str, folder.rglob("*.png")))
    assert names(tmp_path) == [out.name]
    assert predict(model, folder, "--out", out, "--allow-failures", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"out": str(out), "rows": 90, "errors": 3}


@pytest.mark.parametrize("form", FORMS)
def test_probabilities_and_features(bundle, model, folder, tmp_path, form):
    out, image = tmp_path / f"r.{form}", folder / "0/000.png"
    assert predict(model, image, "--out", out, "--probabilities", "--features", "stage2", "--top", 2) == 0
    if form == "csv":
        (record,) = read_csv(out)
        probabilities = [float(record[f"p({name})"]) for name in bundle.classes]
        features = [float(record[f"feature_{number}"]) for number in range(32)]
        assert "feature_32" not in record
    else:
        (record,) = rows(out) if form == "jsonl" else pq.read_table(out).to_pylist()
        probabilities, features = record["probabilities"], record["features"]
    net, x = bundle.build(), bundle.preprocess(decode(image))[None]
    assert probabilities == pytest.approx(net(x).softmax(1)[0].tolist(), abs=1e-5)
    assert features == pytest.approx(parts(net, ["stage2"])(x)["stage2"].mean((2, 3))[0].tolist(), abs=1e-4)
    assert max(probabilities) == float(record["probability"])


def test_features_need_a_name_and_a_bundle(model, exported, folder, capsys):
    assert predict(model, folder, "--features", "stage9", "--json") == 2
    assert "stage9" in capsys.readouterr().err
    assert predict(exported["onnx"], folder, "--features", "stage2", "--json") == 2
    assert predict(model, folder, "--features", "stage2") == 2


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_every_engine_writes_the_same(model, exported, folder, tmp_path, engine):
    assert predict(model, folder, "--out", tmp_path / "a.jsonl") == 3
    assert predict(exported["onnx"], folder, "--engine", engine, "--out", tmp_path / "b.jsonl") == 3
    same(rows(tmp_path / "a.jsonl"), rows(tmp_path / "b.jsonl"))


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("batch", [1, 7, 64])
def test_batch_and_workers_do_not_matter(model, folder, tmp_path, undisturbed, batch, workers):
    out = tmp_path / "r.jsonl"
    assert predict(model, folder, "--out", out, "--batch", batch, "--workers", workers) == 3
    same(rows(out), rows(undisturbed / "r.jsonl"))


def same(found: list[dict], expected: list[dict]) -> None:
    """All of it, and probabilities within 1e-5."""
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        assert (a["path"], a.get("class"), a.get("error")) == (b["path"], b.get("class"), b.get("error"))
        assert a.get("top", {}) == pytest.approx(b.get("top", {}), abs=1e-5)


NAMES = ["=cmd()", "+1", "-1", "@x", 'quote".png', "comma,.png", "two\nlines.png", os.fsdecode(b"\xff.png"), "犬.png"]


@pytest.mark.parametrize("form", FORMS)
def test_names_of_any_kind_are_one_row_each(model, tmp_path, monkeypatch, form):
    monkeypatch.chdir(tmp_path)
    for name in NAMES:
        Path(name).write_bytes(png(1))
    assert predict(model, "--out", f"r.{form}", "--", *NAMES) == 0
    found = [row["path"] for row in rows(Path(f"r.{form}"))]
    assert found == [*NAMES[:6], r"two\nlines.png", r"\udcff.png", "犬.png"]


def test_csv_safe_leaves_no_formula(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert predict(model, "--csv-safe", "--out", "r.csv", "--", *NAMES) == 3  # they are not there
    cells = [cell for record in read_csv(Path("r.csv")) for cell in record.values()]
    assert [cell for cell in cells if cell.startswith(("=", "+", "-", "@"))] == []
    assert [row["path"] for row in rows(Path("r.csv"))][:4] == ["'=cmd()", "'+1", "'-1", "'@x"]


# --- whatever ends it ---


def command(model: Path, folder: Path, out: Path) -> list[str]:
    return ["predict", str(model), str(folder), "--out", str(out), "--batch", "2"]


def start(argv: list[str], output: Path, limit: int | None = None) -> int:
    """A process of the command, with a piece for each batch and files of at most `limit` bytes; its id."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of a fork beside a thread of pytest-xdist
        pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        sys.stdout = sys.stderr = os.fdopen(file, "w", buffering=1)
        bulk.SECONDS = 0
        if limit is not None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        code = main(argv)
    finally:
        os._exit(code)


def ended(pid: int) -> int:
    """The exit code, or minus the number of the signal."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def wait_for_pieces(out: Path, count: int) -> None:
    deadline = time.monotonic() + 60
    while len(list(out.parent.glob(f"{out.name}.partial/0*"))) < count and not out.exists():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def killed(argv: list[str], output: Path, pieces: int) -> None:
    """Start it and kill it after so many pieces."""
    pid = start(argv, output)
    wait_for_pieces(Path(argv[4]), pieces)
    os.kill(pid, signal.SIGKILL)
    assert ended(pid) == -signal.SIGKILL


@pytest.fixture(scope="module")
def undisturbed(model, folder, tmp_path_factory) -> Path:
    """The folder of the files that a command leaves to which nothing happens."""
    root = tmp_path_factory.mktemp("undisturbed")
    for form in FORMS:
        assert main(command(model, folder, root / f"r.{form}")) == 3
    return root


@pytest.mark.parametrize(
    ("form", "kills"), [*((form, 4) for form in FORMS), pytest.param("csv", 50, marks=pytest.mark.slow)]
)
def test_killed_at_any_moment_the_same_command_leaves_the_same_file(model, folder, tmp_path, undisturbed, form, kills):
    chance, out, output, survived = random.Random(kills), tmp_path / f"r.{form}", tmp_path / "output", 0
    argv = command(model, folder, out)
    while kills:
        pid = start(argv, output)
        wait_for_pieces(out, chance.randrange(45))
        time.sleep(chance.uniform(0, 0.02))
        os.kill(pid, signal.SIGKILL)
        if ended(pid) == -signal.SIGKILL:
            kills -= 1
        else:
            survived += 1
        if out.exists():  # then it is whole
            assert rows(out) == rows(undisturbed / out.name)
            out.unlink()
    assert ended(start(argv, output)) == 3, output.read_text()
    if form == "parquet":
        assert pq.read_table(out).equals(pq.read_table(undisturbed / out.name))
    else:
        assert out.read_bytes() == (undisturbed / out.name).read_bytes()
    assert names(tmp_path) == ["output", out.name]


@pytest.mark.parametrize("point", ["flush", "done"])
@pytest.mark.parametrize("number", [1, 2, 20, 47])  # the note, the first piece, another, the whole
def test_killed_while_it_writes(model, folder, tmp_path, monkeypatch, undisturbed, point, number):
    out, output = tmp_path / "r.csv", tmp_path / "output"
    with monkeypatch.context() as patch:
        patch.setenv("CONVATLAS_FAULT", f"kill@{point}:{number}")
        assert ended(start(command(model, folder, out), output)) == -signal.SIGKILL, output.read_text()
    assert not out.exists()
    assert main(command(model, folder, out)) == 3
    assert out.read_bytes() == (undisturbed / "r.csv").read_bytes()
    assert names(tmp_path) == ["output", "r.csv"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_and_the_same_command_goes_on(model, folder, tmp_path, undisturbed, number):
    out, output = tmp_path / "r.csv", tmp_path / "output"
    pid = start(command(model, folder, out), output)
    wait_for_pieces(out, 5)
    os.kill(pid, number)
    assert ended(pid) == 128 + number, output.read_text()
    assert output.read_text().startswith(f"error[T2]: stopped by signal {int(number)}; ")
    assert not out.exists()
    assert len(Partial(out, Table("csv", (), 3), 90).pieces()) >= 5
    assert main(command(model, folder, out)) == 3
    assert out.read_bytes() == (undisturbed / "r.csv").read_bytes()


def test_what_is_there_is_not_made_again(model, folder, tmp_path):
    out = tmp_path / "r.csv"
    killed(command(model, folder, out), tmp_path / "output", 9)
    pieces = {path: path.stat().st_mtime_ns for path in out.parent.glob("r.csv.partial/0*")}
    pid = start(command(model, folder, out), tmp_path / "output")
    wait_for_pieces(out, len(pieces) + 3)
    os.kill(pid, signal.SIGKILL)
    ended(pid)
    assert {path: path.stat().st_mtime_ns for path in pieces} == pieces


def test_a_piece_that_is_damaged_is_made_again(model, folder, tmp_path, undisturbed):
    out = tmp_path / "r.csv"
    killed(command(model, folder, out), tmp_path / "output", 9)
    pieces = sorted(out.parent.glob("r.csv.partial/0*"))
    pieces[1].write_bytes(pieces[1].read_bytes().replace(b",", b";", 1))
    pieces[3].write_bytes(pieces[3].read_bytes()[:-1])
    pieces[5].unlink()
    assert main(command(model, folder, out)) == 3
    assert out.read_bytes() == (undisturbed / "r.csv").read_bytes()


def test_a_full_disk_leaves_what_is_there(model, folder, tmp_path, undisturbed):
    out, output = tmp_path / "r.csv", tmp_path / "output"
    out.write_text("of before")
    assert ended(start(command(model, folder, out), output, limit=2000)) == 6  # pieces fit, the whole does not
    assert output.read_text().startswith("error[C2]: cannot write ")
    assert out.read_text() == "of before"
    assert len(list(tmp_path.glob("r.csv.partial/0*"))) == 45
    assert main(command(model, folder, out)) == 3
    assert out.read_bytes() == (undisturbed / "r.csv").read_bytes()


def test_what_is_there_of_something_else_is_refused(bundle, model, folder, tmp_path, capsys):
    out = tmp_path / "r.csv"
    killed(command(model, folder, out), tmp_path / "output", 3)
    (tmp_path / "r.csv.partial/lock").unlink()
    before = names(tmp_path / "r.csv.partial")
    other = bundle_of("resnet20", replace(bundle.preprocess, resize=17)).save(tmp_path / "other.safetensors")
    for argv, changed in (
        ([*command(model, folder, out), "--top", "2"], "top"),
        ([*command(model, folder, out), "--csv-safe"], "csv_safe"),
        ([*command(model, folder, out), "--probabilities"], "probabilities"),
        ([*command(model, folder, out), "--features", "stage1"], "features"),
        (["predict", str(model), str(folder), *command(model, folder, out)[2:]], "inputs, count"),
        (command(other, folder, out), "model"),
    ):
        assert main(argv) == 2
        assert f"r.csv.partial holds rows of other {changed}. Remedy: " in capsys.readouterr().err
        assert names(tmp_path / "r.csv.partial") == before
    assert predict(model, folder, "--out", out, "--batch", 64, "--workers", 0) == 3  # how it is done may change


def test_a_strange_folder_is_left_alone(model, folder, tmp_path, capsys):
    mine = tmp_path / "r.csv.partial" / "mine"
    mine.parent.mkdir()
    mine.write_text("mine")
    assert main(command(model, folder, tmp_path / "r.csv")) == 2
    assert "error[L4]" in capsys.readouterr().err
    assert mine.read_text() == "mine"


def test_two_at_once_are_refused(model, folder, tmp_path, capsys, undisturbed):
    out = tmp_path / "r.csv"
    pid = start(command(model, folder, out), tmp_path / "output")
    wait_for_pieces(out, 1)
    os.kill(pid, signal.SIGSTOP)
    try:
        assert main(command(model, folder, out)) == 6
        assert f"is in use by pid {pid} on host" in capsys.readouterr().err
    finally:
        os.kill(pid, signal.SIGCONT)
    assert ended(pid) == 3
    assert out.read_bytes() == (undisturbed / "r.csv").read_bytes()


def test_small_pieces_share_a_row_group_of_parquet(monkeypatch):
    table = Table("parquet", ("a", "b"), 1)
    pieces = [table.encode([Prediction(f"{number}", (("a", 0.5),))] * 3) for number in range(8)]
    sizes = []
    for limit in (1 << 20, 1):
        monkeypatch.setattr(rows_module, "GROUP_BYTES", limit)
        file = pq.ParquetFile(io.BytesIO(b"".join(table.join([lambda piece=piece: piece for piece in pieces]))))
        assert file.read()["path"].to_pylist() == [f"{number}" for number in range(8) for _ in range(3)]
        sizes.append(file.num_row_groups)
    assert sizes == [1, 8]


@pytest.mark.parametrize("form", FORMS)
def test_nothing_to_predict_is_a_file_without_rows(tmp_path, form):
    partial = Partial(tmp_path / f"r.{form}", Table(form, ("a", "b"), 1), 0)
    partial.claim({})
    assert list(bulk.write_rows(partial, lambda spans: pytest.fail("nothing to make"))) == [(0, 0)]
    assert rows(partial.out) == []


@pytest.mark.parametrize(("where", "code"), [("file/r.csv", 6), ("folder.csv", 2)])
def test_a_place_that_cannot_be_written_is_told_at_once(model, folder, tmp_path, capsys, where, code):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.csv").mkdir()
    assert predict(model, folder, "--out", tmp_path / where) == code
    assert "error[" in capsys.readouterr().err
    assert names(tmp_path) == ["file", "folder.csv"]


def test_another_suffix_is_refused(model, folder, capsys):
    assert predict(model, folder, "--out", "r.txt") == 2
    assert "give a name that ends in .parquet, .csv, .jsonl" in capsys.readouterr().err


# --- printing ---


def test_a_full_disk_under_standard_output(model, folder):
    code = "import sys; from convatlas.cli import main; sys.exit(main(sys.argv[1:]))"
    argv = [sys.executable, "-c", code, "predict", str(model), str(folder)]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(argv, stdout=full, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
    assert done.returncode == 6
    assert done.stderr.startswith("error[C2]: cannot write to standard output: No space left on device. Remedy: ")
    assert done.stderr.count("\n") == 1


def test_a_closed_pipe_is_no_error(model, folder):
    ours, its = os.pipe()
    os.close(ours)
    assert ended(start(["predict", str(model), str(folder)], Path(f"/dev/fd/{its}"))) == 0
    os.close(its)


# --- gaps ---


@given(st.lists(st.integers(0, 12), max_size=12), st.integers(0, 12))
def test_gaps_are_what_pieces_leave(lengths, more):
    ends = list(itertools.accumulate(lengths, initial=0))
    pieces = [Piece(start, stop, 0, "") for start, stop in list(itertools.pairwise(ends))[::2]]
    left = gaps(pieces, ends[-1] + more)
    made = [index for piece in pieces for index in range(piece.start, piece.stop)]
    assert sorted(made + [index for span in left for index in span]) == list(range(ends[-1] + more))
    assert all(left)
