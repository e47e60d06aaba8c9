import pytest
from pydantic import ValidationError

from fedcad.shared.config.site import SiteConfig

SITE = {"name": "hospital-a", "archive": "dicom", "labels": "labels.csv", "state": "state"}


def test_a_site_says_where_its_data_lie() -> None:
    assert SiteConfig.model_validate(SITE).model_dump() == SITE


@pytest.mark.parametrize(
    "change",
    [{"name": "Hospital A"}, {"name": "../up"}, {"device": "cuda"}, {"epsilon": 8.0}, {"archive": None}],
)
def test_wrong_sites_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        SiteConfig.model_validate(SITE | change)
