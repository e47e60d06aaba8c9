import pytest
from pydantic import ValidationError

from fedcad.shared.config.site import SiteConfig

SITE = {"name": "hospital-a", "archive": "dicom", "labels": "labels.csv", "state": "state"}


def test_a_site_says_where_its_data_lie() -> None:
    site = SiteConfig.model_validate(SITE)
    assert site.model_dump(exclude_defaults=True) == SITE
    assert (site.proxy, site.worker_idle_s, site.threads, site.device, site.largest_payload_mb) == (
        None,
        600.0,
        1,
        "cpu",
        4096,
    )


@pytest.mark.parametrize("device", ["cpu", "cuda", "cuda:0", "cuda:12"])
def test_a_site_may_train_on_a_gpu(device: str) -> None:
    assert SiteConfig.model_validate(SITE | {"device": device}).device == device


@pytest.mark.parametrize("proxy", ["", "http://proxy.hospital.example:3128", "https://10.0.0.1:8080/"])
def test_a_site_may_have_a_proxy_or_expressly_none(proxy: str) -> None:
    assert SiteConfig.model_validate(SITE | {"proxy": proxy}).proxy == proxy


@pytest.mark.parametrize(
    "change",
    [
        {"name": "Hospital A"},
        {"name": "../up"},
        {"gpu": True},
        {"device": "gpu"},
        {"device": "cuda:"},
        {"device": "cuda:01"},
        {"device": "cuda:-1"},
        {"device": "cuda:0\n"},
        {"device": "cpu:0"},
        {"device": ""},
        {"epsilon": 8.0},
        {"archive": None},
        {"proxy": "proxy:3128"},
        {"proxy": "http://user:secret@proxy:1"},
        {"threads": 0},
        {"worker_idle_s": 0.0},
        {"largest_payload_mb": 0},
    ],
)
def test_wrong_sites_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        SiteConfig.model_validate(SITE | change)
