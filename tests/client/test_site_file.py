import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedcad.client.site_file import make_site, make_site_config, site_text
from fedcad.shared.config.load import load_site
from fedcad.shared.config.site import SiteConfig
from fedcad.shared.errors import ConfigError

VALUES = {"name": "north", "archive": "dicom", "labels": "labels.csv", "state": "state"}


def test_the_folder_is_private_and_its_file_says_what_was_answered(tmp_path: Path) -> None:
    hospital = make_site(tmp_path / "node", make_site_config(VALUES))
    assert hospital.site.model_dump(exclude_defaults=True) == VALUES
    assert stat.S_IMODE(hospital.folder.stat().st_mode) == 0o700


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    hospital = make_site(tmp_path / "node", make_site_config(VALUES))
    before = hospital.site_file.read_bytes()
    with pytest.raises(ConfigError, match="exists already"):
        make_site(tmp_path / "node", make_site_config({**VALUES, "name": "south"}))
    assert hospital.site_file.read_bytes() == before
    with pytest.raises(ConfigError, match="is no folder"):
        make_site(hospital.site_file, make_site_config(VALUES))
    with pytest.raises(ConfigError, match="no such folder"):
        make_site(tmp_path / "absent" / "node", make_site_config(VALUES))


def test_an_existing_folder_keeps_what_is_in_it(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("x")
    make_site(tmp_path, make_site_config(VALUES))
    assert (tmp_path / "labels.csv").read_text() == "x"


@pytest.mark.parametrize(
    ("key", "value"),
    [("name", "St. Mary"), ("name", ""), ("proxy", "proxy:3128"), ("proxy", "http://u:p@h:1")],
)
def test_wrong_answers_are_explained(key: str, value: str) -> None:
    with pytest.raises(ConfigError, match=f"{key}: got .*; expected"):
        make_site_config({**VALUES, key: value})


paths = st.text(st.characters(exclude_categories=["C", "Z"]) | st.just(" "), min_size=1, max_size=40)


@given(
    archive=paths,
    labels=paths,
    proxy=st.sampled_from([None, "", "http://p:1"]),
    threads=st.integers(1, 9),
    device=st.sampled_from(["cpu", "cuda", "cuda:3"]),
)
def test_any_path_survives_the_file(
    archive: str, labels: str, proxy: str | None, threads: int, device: str
) -> None:
    import tempfile

    site = SiteConfig(
        name="north",
        archive=archive,
        labels=labels,
        state="s",
        proxy=proxy,
        threads=threads,
        device=device,
        worker_idle_s=2.5,
    )
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "site.yaml"
        path.write_text(site_text(site), encoding="utf-8")
        assert load_site(path) == site
