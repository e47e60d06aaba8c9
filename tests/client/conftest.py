import pytest
import tiny_study
import torch

from fedcad.client.workbench import Workbench, freeze


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture
def bench():
    return Workbench(freeze(tiny_study.make_study()))
