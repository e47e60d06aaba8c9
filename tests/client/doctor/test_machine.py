import importlib.metadata
import os

import pytest
import torch

from fedcad.client.doctor import machine
from fedcad.client.doctor.check import Verdict
from fedcad.client.doctor.machine import disk, existing, gib, gpu, memory_bytes, versions, wrong_packages


def test_this_installation_is_in_order_and_names_flower():
    finding = versions()
    assert finding.verdict is Verdict.OK
    assert f"flwr {importlib.metadata.version('flwr')}" in finding.found


def test_wrong_packages_are_named_with_what_is_needed():
    torch_version = importlib.metadata.version("torch").partition("+")[0]
    assert wrong_packages(
        [
            "flwr==0.9.0",
            f"torch=={torch_version}",
            "numpy<3,>=2.0",
            "no-such-package-x>=1",
            'pydicom<4,>=3.0; extra == "client"',
            'also-absent==1; extra == "client"',
            'ray==1.0; extra == "simulation"',
            'fedcad[client]; extra == "simulation"',
        ]
    ) == [
        f"flwr {importlib.metadata.version('flwr')} (needed: 0.9.0)",
        "no-such-package-x is not installed",
        "also-absent is not installed",
    ]


def test_old_python_is_refused(monkeypatch):
    monkeypatch.setattr(machine.sys, "version_info", (3, 10, 2, "final", 0))
    finding = versions()
    assert finding.verdict is Verdict.FAILED
    assert "Python 3.10.2" in finding.found
    assert "pip install" in finding.remedy


def test_memory_is_plausible():
    total, free = memory_bytes()
    assert 2**26 < free <= total < 2**50


@pytest.mark.parametrize(
    ("free", "verdict"), [(8, Verdict.OK), (4, Verdict.OK), (3.9, Verdict.WARNING), (0.9, Verdict.FAILED)]
)
def test_memory_needed(monkeypatch, free, verdict):
    monkeypatch.setattr(machine, "memory_bytes", lambda: (2**40, int(free * 2**30)))
    assert machine.memory().verdict is verdict


@pytest.mark.parametrize(("cores", "verdict"), [(1, Verdict.WARNING), (2, Verdict.OK)])
def test_cores(monkeypatch, cores, verdict):
    monkeypatch.setattr(machine, "usable_cores", lambda: cores)
    assert machine.processor().verdict is verdict


def test_cores_are_those_of_this_process():
    assert machine.usable_cores() == len(os.sched_getaffinity(0))


def test_gpu_is_named_or_its_absence_explained():
    finding = gpu("cpu")
    assert finding.verdict is Verdict.OK
    assert "training runs on the processor" in finding.found
    if torch.cuda.is_available():
        assert torch.cuda.get_device_name(0) in finding.found


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_gpu_that_is_not_there_fails_with_what_to_do():
    finding = gpu("cuda")
    assert finding.verdict is Verdict.FAILED
    assert finding.found.startswith("site.yaml: device: got cuda; torch ")
    assert finding.remedy.endswith("or set device: cpu.")


class Card:
    """A GPU as torch describes it."""

    name = "Tesla T4"
    total_memory = 15 * 2**30


@pytest.mark.parametrize(
    ("device", "opened", "says"),
    [
        ("cpu", "cpu", "training runs on the processor: device is cpu in site.yaml"),
        ("cuda", "cuda:0", "training runs on cuda:0"),
    ],
)
def test_gpus_are_listed_with_the_one_that_trains(monkeypatch, device, opened, says):
    """The real calls need a GPU; see the tests marked gpu."""
    monkeypatch.setattr("fedcad.client.device.open_device", lambda name: torch.device(opened))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda number: Card)
    finding = gpu(device)
    assert finding.verdict is Verdict.OK
    assert finding.found == f"cuda:0 is Tesla T4 with 15.0 GiB, cuda:1 is Tesla T4 with 15.0 GiB; {says}"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_gpu_that_trains_is_named():
    finding = gpu("cuda")
    assert finding.verdict is Verdict.OK
    assert torch.cuda.get_device_name(0) in finding.found
    assert finding.found.endswith("training runs on cuda:0")
    assert "this machine has" in gpu("cuda:99").found


def test_disk_is_measured_where_the_folder_will_be(tmp_path):
    state = tmp_path / "not" / "yet"
    assert existing(state) == tmp_path
    assert disk(state, 1, "index").verdict is Verdict.OK
    short = disk(state, 2**60, "images")
    assert short.verdict is Verdict.FAILED
    assert "images" in short.found
    assert "state" in short.remedy
    free = os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize
    assert disk(state, int(free * 0.7), "images").verdict is Verdict.WARNING
    assert not state.exists()


def test_sizes_for_people():
    assert gib(2**30 * 3.25) == "3.2 GiB"
    assert gib(2**20 * 5) == "5 MiB"
