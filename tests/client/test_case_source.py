"""Whatever archive the cases come from, training and evaluation see the same."""

import inspect
import json

import numpy as np
import pytest
import tiny_study
import torch

from fedcad.client.archive.site_data import SiteData, open_archive
from fedcad.client.case_source import CaseSource
from fedcad.shared.config.load import load_site
from fedcad.simulations.pooling import PARTS, PooledCases

METHODS = ("patients", "labels", "inputs", "summary")


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    root = tmp_path_factory.mktemp("archives")
    archives = tiny_study.build_archives(root, patients=20, sites=2)
    study = tiny_study.make_study()
    opened = [open_archive(load_site(a.site_file), a.folder, study) for a in archives.values()]
    return [*opened, PooledCases(opened), tiny_study.spread_cases()]


@pytest.mark.parametrize("kind", [SiteData, PooledCases, tiny_study.MemoryCases])
def test_every_source_has_the_methods(kind):
    for name in METHODS:
        expected = list(inspect.signature(getattr(CaseSource, name)).parameters)
        assert list(inspect.signature(getattr(kind, name)).parameters) == expected


def test_sources_keep_the_contract(sources):
    for source in sources:
        for part in PARTS:
            patients, labels = source.patients(part), source.labels(part)
            assert patients.dtype == np.int64
            assert len(patients) == len(labels) > 0
            inputs = source.inputs(part, [0, len(labels) - 1, 0])
            assert list(inputs) == ["image"]
            images = inputs["image"]
            assert images.shape == (3, 1, 32, 32)
            assert images.dtype == torch.float32
            assert torch.equal(images[0], images[2])
            images.zero_()
            assert source.inputs(part, [0])["image"].abs().sum() > 0
        json.dumps(source.summary())
