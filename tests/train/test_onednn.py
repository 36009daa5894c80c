"""Narrow projections with a stride train without a crash, and compute what they did."""

import copy
import subprocess
import sys

import pytest
import torch

from convatlas.train.onednn import spare_narrow_strides
from convatlas.zoo import create, spec

PROGRAM = """
import sys, torch
from convatlas.train.loop import begin
from convatlas.train.recipe import Recipe
from convatlas.train.step import learn
from convatlas.train.task import Machine, Task
from convatlas.data.open import open_data
from convatlas.train.choose import preprocess_for
from convatlas.zoo import spec

torch.set_num_threads(int(sys.argv[1]))
splits = open_data("digits")
arch = spec("resnet20", shortcut="B", width=4, depths=(1, 1, 1), classes=10, size=16)
task = Task(arch=arch, splits=splits, pre=preprocess_for(splits.train, 16), recipe=Recipe.load("digits"), seed=0)
machine = Machine()
state = begin(task, machine)
pixels = torch.randint(0, 256, (61, 16, 16, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
for step in range(200):
    assert learn(state, task, machine, pixels, torch.arange(61) % 10, 0.1, 61)
"""


@pytest.mark.parametrize("threads", [2, 3])
def test_narrow_projections_with_a_stride_train(threads):
    command = [sys.executable, "-c", PROGRAM, str(threads)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def test_they_compute_what_they_did():
    plain = create("resnet20", shortcut="B", width=4, depths=(1, 1, 1)).double().train()
    spared = copy.deepcopy(plain)
    spare_narrow_strides(spared)
    images = torch.randn(5, 3, 15, 17, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for net in (plain, spared):
        net(images).square().sum().backward()
    grads = [{name: p.grad for name, p in net.named_parameters()} for net in (plain, spared)]
    torch.testing.assert_close(grads[1], grads[0])
    assert spared.state_dict().keys() == plain.state_dict().keys()


@pytest.mark.parametrize(("width", "strides"), [(4, 2), (8, 1), (16, 0)])
def test_only_narrow_ones_are_touched(width, strides):
    net = spec("resnet20", shortcut="B", width=width).skeleton()
    before = sum(m.stride != (1, 1) for m in net.modules() if isinstance(m, torch.nn.Conv2d))
    spare_narrow_strides(net)
    assert before - sum(m.stride != (1, 1) for m in net.modules() if isinstance(m, torch.nn.Conv2d)) == strides
