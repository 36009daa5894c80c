"""Training on shards gives what training on the folder gives, whoever reads them and wherever it stops."""

import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from convatlas.data import open_data, parquet, shards
from convatlas.data.folder import read_folder
from convatlas.data.sharding import write_shards
from convatlas.errors import StoppedError
from convatlas.train import checkpoint
from convatlas.train.loop import train
from convatlas.train.order import Order
from convatlas.train.run import Run, png
from convatlas.train.task import Machine
from convatlas.weights import read_tensors

from tiny import RECIPE, Notes, images, same, task

KINDS = ("webdataset", "parquet")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """90 pictures in three classes, and in shards of 20 beside them."""
    root, pictures = tmp_path_factory.mktemp("data"), images(90, 0)
    for index in range(len(pictures)):
        pixels, label = pictures[index]
        path = root / "folder" / pictures.classes[label] / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(pixels))
    for kind in KINDS:
        write_shards(read_folder(root / "folder"), root / kind, kind, per_shard=20)
    return root


@pytest.fixture
def scarce(monkeypatch):
    """Memory for a part of the images only."""
    monkeypatch.setattr(shards, "_BLOCK_BYTES", 4096)
    monkeypatch.setattr(shards, "_WINDOW_BYTES", 8000)
    monkeypatch.setattr(parquet, "_HELD_BYTES", 30_000)


def fit(data: Path, out: Path, notes=None, **machine) -> dict[str, torch.Tensor]:
    """Network, average and optimizer after training that reads every image when it is needed."""
    splits = open_data(data, on_bad_file="lazy")
    train(task(RECIPE, data=splits), Run(out), notes or Notes(), Machine(**machine))
    return read_tensors(checkpoint.saved(out)[0])[0]


@pytest.mark.parametrize("kind", KINDS)
def test_the_weights_are_bitwise_those_of_the_folder(folder, tmp_path, kind):
    assert same(fit(folder / kind, tmp_path / kind), fit(folder / "folder", tmp_path / "folder"))


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_on_shards_larger_than_memory_ends_bitwise_alike_however_it_went(folder, tmp_path, kind, scarce):
    def stop(state):
        if state.step == 6:
            signal.raise_signal(signal.SIGTERM)

    whole = fit(folder / kind, tmp_path / "whole")
    with pytest.raises(StoppedError):
        fit(folder / kind, tmp_path / "parts", Notes(stop), workers=2)
    assert same(fit(folder / kind, tmp_path / "parts", workers=1), whole)
    assert not same(fit(folder / "folder", tmp_path / "folder"), whole)  # the order is another: near what lies near


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [1, 3, 4])
def test_the_processes_of_a_job_read_every_image_once(folder, scarce, kind, size):
    data = open_data(folder / kind, on_bad_file="lazy").train
    assert data.blocks is not None
    one, some = (Order(len(data), 16, 0, 0, 0, size=size, blocks=data.blocks) for size in (1, size))
    alone = [place for step in replace(one, stop=2 * one.steps_per_epoch) for place in step]
    ranks = [list(replace(some, rank=rank, stop=2 * some.steps_per_epoch)) for rank in range(size)]
    together = [place for shares in zip(*ranks, strict=True) for share in shares for place in share]
    for epoch in range(2):
        seen, whole = ([index for e, index in places if e == epoch] for places in (together, alone))
        assert seen == whole[: len(seen)]
        assert len(set(seen)) == len(seen) >= len(data) - 15
    assert [index for _, index in alone[: len(alone) // 2]] != [index for _, index in alone[len(alone) // 2 :]]
