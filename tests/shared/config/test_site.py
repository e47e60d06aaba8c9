import pytest
from pydantic import ValidationError

from fedcad.shared.config.site import SiteConfig

SITE = {"name": "hospital-a", "archive": "dicom", "labels": "labels.csv", "state": "state"}


def test_the_device_is_the_processor_unless_said() -> None:
    assert SiteConfig.model_validate(SITE).device == "cpu"


@pytest.mark.parametrize(
    "change",
    [{"name": "Hospital A"}, {"name": "../up"}, {"device": "tpu"}, {"epsilon": 8.0}, {"archive": None}],
)
def test_wrong_sites_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        SiteConfig.model_validate(SITE | change)
