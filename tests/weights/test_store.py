"""No changed bit, torn write or hostile header gets past the store."""

import json
import os
import random
import resource
import signal
import struct
import subprocess
import sys
import threading
import time

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from convatlas.errors import ResourceError, WeightsError
from convatlas.weights.store import DTYPES, KEY, _canonical, _sha256, read_tensors, write_tensors

RECORD = {"spec": {"depths": [2, 2]}, "classes": ["chat", "Käfer", "犬"], "nested": {"top1": 0.5, "none": None}}


def tensors():
    generator = torch.Generator().manual_seed(0)
    return {
        "conv.weight": torch.randn(4, 3, 3, 3, generator=generator),
        "conv.half": torch.randn(5, generator=generator).half(),
        "norm.num_batches_tracked": torch.tensor(7),
        "fc.bias": torch.randn(11, generator=generator).bfloat16(),
        "void": torch.empty(0, 3),
    }


@pytest.fixture
def path(tmp_path):
    return write_tensors(tmp_path / "model.safetensors", tensors(), RECORD)


def layout(content):
    """{tensor: (first byte, behind its last byte)} in the file."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    return {
        name: tuple(8 + length + offset for offset in entry["data_offsets"])
        for name, entry in header.items()
        if name != "__metadata__"
    }


def same(found, expected):
    return found.keys() == expected.keys() and all(
        found[k].dtype == t.dtype and found[k].shape == t.shape and torch.equal(found[k], t)
        for k, t in expected.items()
    )


def sealed(record, header=None, data=b""):
    """A file whose checksum of the record is right, whatever the record."""
    text = record if isinstance(record, str) else json.dumps(record)
    encoded = _canonical({"__metadata__": {KEY: _sha256(text.encode()) + text}, **(header or {})}).encode()
    return struct.pack("<Q", len(encoded)) + encoded + data


# --- round trips ---


def test_tensors_and_record_come_back(path):
    found, record = read_tensors(path)
    assert same(found, tensors())
    assert list(found) == ["norm.num_batches_tracked", "conv.weight", "void", "conv.half", "fc.bias"]  # widest first
    assert {key: record[key] for key in RECORD} == RECORD


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype_comes_back(tmp_path, dtype):
    expected = {"x": torch.arange(-3, 3).reshape(2, 3).to(dtype), "scalar": torch.ones((), dtype=dtype)}
    assert same(read_tensors(write_tensors(tmp_path / "x", expected, {}))[0], expected)


def test_nan_payloads_and_negative_zero_keep_their_bits(tmp_path):
    bits = torch.tensor([0x7FC00001, 0x7F800001, -0x80000000, 0x00000001], dtype=torch.int32)
    found, _ = read_tensors(write_tensors(tmp_path / "x", {"x": bits.view(torch.float32)}, {}))
    assert torch.equal(found["x"].view(torch.int32), bits)


def test_views_shared_memory_and_gradients_are_written_as_values(tmp_path):
    base = torch.randn(4, 6, requires_grad=True)
    given = {"base": base, "twin": base, "turned": base.t(), "row": base[1], "channels": base[None, None].to(
        memory_format=torch.channels_last)}  # fmt: skip
    found, _ = read_tensors(write_tensors(tmp_path / "x", given, {}))
    assert same(found, {name: t.detach() for name, t in given.items()})
    assert not any(t.requires_grad for t in found.values())


def test_the_file_is_ordinary_safetensors(path):
    with safe_open(path, "pt") as file:
        assert same({name: file.get_tensor(name) for name in file.keys()}, tensors())  # noqa: SIM118
        assert list(file.metadata()) == [KEY]
    for name, (start, _) in layout(path.read_bytes()).items():
        assert start % tensors()[name].element_size() == 0, f"{name} is not aligned"


def test_equal_content_gives_equal_bytes(tmp_path, path):
    again = write_tensors(tmp_path / "again", dict(reversed(tensors().items())), RECORD)
    assert again.read_bytes() == path.read_bytes()


# --- damage (C4, C5) ---


def test_every_flipped_bit_is_refused_and_names_its_tensor(path):
    content = path.read_bytes()
    spans = layout(content)
    with path.open("r+b", buffering=0) as file:
        for at, byte in enumerate(content):
            hit = [name for name, (start, end) in spans.items() if start <= at < end]
            for bit in range(8):
                file.seek(at)
                file.write(bytes([byte ^ 1 << bit]))
                with pytest.raises(WeightsError) as caught:
                    pytest.fail(f"byte {at} bit {bit}: {read_tensors(path)}")
                message = str(caught.value)
                assert str(path) in message
                assert message.isprintable()
                assert not hit or message.startswith(f"error[C4]: {path}: tensor {hit[0]!r} fails its checksum")
            file.seek(at)
            file.write(bytes([byte]))
    assert same(read_tensors(path)[0], tensors())


def test_a_file_cut_anywhere_is_refused(tmp_path, path):
    content = path.read_bytes()
    short = tmp_path / "short"
    for length in [*range(16), *range(16, len(content), 7), len(content) - 1]:
        short.write_bytes(content[:length])
        with pytest.raises(WeightsError, match=r"error\[C5\]: .*short"):
            read_tensors(short)


def test_a_tail_of_zeros_is_refused(tmp_path, path):  # what a power loss leaves: the size is right
    content = path.read_bytes()
    for kept in (0, 8, 100, len(content) // 2, len(content) - 64):
        path.write_bytes(content[:kept] + bytes(len(content) - kept))
        with pytest.raises(WeightsError):
            read_tensors(path)


@pytest.mark.parametrize("extra", [b"\0", b" ", bytes(4096)])
def test_appended_bytes_are_refused(path, extra):
    path.write_bytes(path.read_bytes() + extra)
    with pytest.raises(WeightsError, match="C5"):
        read_tensors(path)


def test_swapped_blocks_are_refused(tmp_path, seed):
    path = write_tensors(tmp_path / "x", {"a": torch.randn(4096), "b": torch.randn(4096)}, {})
    content, block = path.read_bytes(), 512
    first = min(start for start, _ in layout(content).values())
    for _ in range(50):
        i, j = sorted(random.sample(range(first, len(content) - block, block), 2))
        a, b = content[i : i + block], content[j : j + block]
        path.write_bytes(content[:i] + b + content[i + block : j] + a + content[j + block :])
        with pytest.raises(WeightsError, match=r"tensor '[ab]' fails its checksum"):
            read_tensors(path)


def test_tensors_that_changed_their_names_are_refused(tmp_path):
    path = write_tensors(tmp_path / "x", {"a": torch.zeros(3), "b": torch.ones(3)}, {})
    content = path.read_bytes()
    for old, new in ((b'"a":{', b'"c":{'), (b'"shape":[3]', b'"shape":[3,1]')):
        changed = content[8:].replace(old, new, 1)
        length = int.from_bytes(content[:8], "little") + len(changed) - len(content) + 8
        path.write_bytes(struct.pack("<Q", length) + changed)
        with pytest.raises(WeightsError, match=r"tensor '[ac]' fails its checksum"):
            read_tensors(path)


def test_a_file_that_changes_while_it_is_read_is_read_whole_or_refused(tmp_path):  # C13
    expected = {"x": torch.randn(300_000)}
    path = write_tensors(tmp_path / "x", expected, {})
    content, stop = path.read_bytes(), threading.Event()

    def overwrite():
        while not stop.is_set():
            with path.open("r+b") as file:
                file.truncate(len(content) // 2)
                file.seek(0)
                file.write(bytes(len(content)))
                file.seek(0)
                file.write(content)

    writer = threading.Thread(target=overwrite)
    writer.start()
    refused, deadline = 0, time.monotonic() + 30
    try:
        while refused < 10 and time.monotonic() < deadline:
            try:
                assert same(read_tensors(path)[0], expected)
            except WeightsError:
                refused += 1
    finally:
        stop.set()
        writer.join()
    assert refused > 0  # or the writer never got in between
    assert same(read_tensors(path)[0], expected)


# --- files that are not ours, or not ours yet ---


def test_a_file_by_others_is_refused_with_the_remedy(tmp_path):
    for metadata in (None, {"format": "pt"}):
        save_file(tensors(), tmp_path / "theirs.safetensors", metadata)
        with pytest.raises(WeightsError, match=r"C8.*theirs.safetensors was not written by .*`convatlas import`"):
            read_tensors(tmp_path / "theirs.safetensors")


def test_a_newer_format_is_refused(tmp_path):  # C10
    path = tmp_path / "newer"
    path.write_bytes(sealed({"format": 2, "sha256": {}}))
    with pytest.raises(WeightsError, match=r"C10.*newer has format 2, newer than 1. Remedy: update convatlas"):
        read_tensors(path)


@pytest.mark.parametrize(
    "record",
    ["", "{", "[]", "null", "1", '"x"', "{}", '{"format":1}', '{"format":"1","sha256":{}}', '{"format":1,"sha256":3}',
     '{"format":1,"sha256":[1]}', '{"format":null,"sha256":{}}', "[" * 100_000, "9" * 10_000],
)  # fmt: skip
def test_a_sealed_record_that_is_none_of_ours_is_refused(tmp_path, record):
    path = tmp_path / "x"
    path.write_bytes(sealed(record))
    with pytest.raises(WeightsError, match=r"error\[C4\]: .*x: its record is none that convatlas writes"):
        read_tensors(path)


def test_a_missing_file_a_folder_and_a_pipe_are_named(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path, message in (
        (tmp_path / "nothing", "there is no file .*nothing"),
        (tmp_path, "is not a regular file"),
        (tmp_path / "pipe", "pipe is not a regular file"),
    ):
        with pytest.raises(WeightsError, match=message):
            read_tensors(path)


def test_an_unreadable_place_is_a_resource_error(path):
    with pytest.raises(ResourceError, match=r"cannot read .*: Not a directory"):
        read_tensors(path / "inside")


def test_a_file_larger_than_memory_is_refused(tmp_path):
    huge = tmp_path / "huge"
    with huge.open("wb") as file:
        try:
            file.truncate(1 << 43)  # 8 TiB, sparse
        except OSError:
            pytest.skip("this file system has no sparse files of 8 TiB")
    with pytest.raises(ResourceError, match="huge does not fit into memory"):
        read_tensors(huge)


# --- hostile headers (C7) ---


def raw(header, data=b"", length=None):
    text = header if isinstance(header, str) else json.dumps(header)
    return struct.pack("<Q", len(text.encode()) if length is None else length) + text.encode() + data


def entry(shape, start, end, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


HOSTILE = {
    "length 2^63": raw("{}", length=1 << 63),
    "length 2^64 - 1": raw("{}", length=(1 << 64) - 1),
    "100 MB header claimed": raw("{}", length=100_000_000),
    "more than 100 MB claimed": raw("{}", length=100_000_001),
    "overlap": raw({"a": entry([2], 0, 8), "b": entry([2], 4, 12)}, bytes(12)),
    "hole": raw({"a": entry([1], 0, 4), "b": entry([1], 8, 12)}, bytes(12)),
    "end before start": raw({"a": entry([1], 4, 0)}, bytes(4)),
    "negative offset": raw({"a": entry([1], -4, 0)}, bytes(4)),
    "offset 2^64": raw({"a": entry([1], 0, 1 << 64)}, bytes(4)),
    "offset 2^63": raw({"a": entry([1 << 61], 0, 1 << 63)}, bytes(4)),
    "shape that overflows": raw({"a": entry([1 << 32, 1 << 32], 0, 0)}),
    "huge shape of nothing": raw({"a": entry([0, 1 << 62, 1 << 62], 0, 0)}),
    "huge shape, no data": raw({"a": entry([1 << 40], 0, 0)}),
    "unknown dtype": raw({"a": entry([1], 0, 4, "F33")}, bytes(4)),
    "duplicate key": raw(f'{{"a":{json.dumps(entry([1], 0, 4))},"a":{json.dumps(entry([1], 4, 8))}}}', bytes(8)),
    "deep nesting": raw("[" * 100_000),
    "null metadata": raw({"__metadata__": None}),
    "number as metadata": raw({"__metadata__": {KEY: 3}}),
    "list as header": raw("[]"),
    "control characters": raw({"\x1b[2J\n": entry([1], 4, 8)}, bytes(8)),
    "nothing": b"",
    "eight bytes": bytes(8),
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_hostile_headers_are_refused_at_once(tmp_path, content):
    path = tmp_path / "hostile.safetensors"
    path.write_bytes(content)
    memory, begin = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    with pytest.raises(WeightsError, match=r"hostile\.safetensors") as caught:
        read_tensors(path)
    assert time.perf_counter() - begin < 1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 50_000  # KiB
    assert str(caught.value).isprintable()


def test_a_key_given_twice_in_a_file_of_ours_is_refused(path):
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    text = content[8 : 8 + length].decode().rstrip()
    twice = text.replace('"void":', '"void":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},"void":')
    path.write_bytes(raw(twice, content[8 + length :]))
    with pytest.raises(WeightsError):
        read_tensors(path)


# --- writing ---


@pytest.fixture
def small_files():
    """No file of this process may grow beyond 64 KiB: what a full disk looks like."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (65536, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_leaves_the_old_file(path, small_files):
    old = path.read_bytes()
    with pytest.raises(ResourceError, match=r"error\[C2\]: cannot write .*model.safetensors: File too large"):
        write_tensors(path, {"x": torch.zeros(100_000)}, {})
    assert path.read_bytes() == old
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_killed_writers_leave_the_old_file_or_the_new_one(tmp_path, seed):
    versions = [{"x": torch.full((200_000,), float(i))} for i in range(2)]
    for i, version in enumerate(versions):
        write_tensors(tmp_path / f"version{i}", version, {})
    path = write_tensors(tmp_path / "run" / "model", versions[0], {})
    writer = (
        "import sys; from pathlib import Path; from convatlas.files import write_bytes\n"
        "contents = [Path(p).read_bytes() for p in sys.argv[2:]]; print(flush=True)\n"
        "while True:\n    for content in contents: write_bytes(sys.argv[1], content)"
    )
    found, torn = set(), 0
    for _ in range(20):
        command = [sys.executable, "-c", writer, path, tmp_path / "version0", tmp_path / "version1"]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            process.stdout.readline()
            time.sleep(random.uniform(0, 0.1))
            process.send_signal(signal.SIGKILL)
        value = read_tensors(path)[0]["x"]
        assert same({"x": value}, versions[int(value[0])]), f"seed {seed}"
        found.add(int(value[0]))
        torn = len(list(path.parent.glob(".*.part")))
    assert found == {0, 1}, "the writers never got far enough to be tested"
    assert torn > 0, "no writer was killed in the middle"


def test_memory_stays_below_twice_the_file(tmp_path):
    script = (
        "import sys, torch; from convatlas.weights import read_tensors, write_tensors\n"
        "def peak(): return int(open('/proc/self/status').read().split('VmHWM:')[1].split()[0]) / 1024\n"
        "x = {str(i): torch.randn(1_000_000) for i in range(10)}; before = peak()\n"  # 38 MiB
        "write_tensors(sys.argv[1], x, {}); written = peak(); del x\n"
        "read_tensors(sys.argv[1]); print(written - before, peak() - before)"
    )
    done = subprocess.run([sys.executable, "-c", script, tmp_path / "x"], capture_output=True, text=True, check=True)
    writing, reading = map(float, done.stdout.split())
    assert writing < 10  # MiB over the tensors
    assert reading < 50  # MiB over them, who are gone by then: the file and a copy
