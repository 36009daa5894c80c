"""A small bundle and its exports, which no test changes."""

from pathlib import Path

import pytest

from convatlas.data import Preprocess
from convatlas.deploy import export_program
from convatlas.deploy.export import SUFFIXES
from convatlas.weights import Bundle

from bundles import bundle_of


@pytest.fixture(scope="session")
def bundle() -> Bundle:
    return bundle_of("resnet20", Preprocess(16, 18))


@pytest.fixture(scope="session")
def exported(bundle, tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("exported")
    return {to: export_program(bundle, to, folder / f"model{SUFFIXES[to]}") for to in ("onnx", "openvino")}
