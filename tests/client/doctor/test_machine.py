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
    finding = gpu()
    assert finding.verdict is Verdict.OK
    if torch.cuda.is_available():
        assert torch.cuda.get_device_name(0) in finding.found
    else:
        assert "processor" in finding.found


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
