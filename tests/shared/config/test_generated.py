from pathlib import Path

import pytest

from fedcad.shared.config import generated
from fedcad.shared.config.generated import configs_folder, generated_files


@pytest.mark.parametrize("name", list(generated_files()))
def test_committed_files_are_fresh(name: str) -> None:
    committed = (configs_folder() / name).read_text(encoding="utf-8")
    assert committed == generated_files()[name], (
        f"configs/{name} is stale; run: python -m fedcad.shared.config.generated"
    )


def test_no_generated_file_is_left_over() -> None:
    committed = {f"schemas/{path.name}" for path in (configs_folder() / "schemas").iterdir()}
    assert committed == {name for name in generated_files() if name.startswith("schemas/")}


def test_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generated, "configs_folder", lambda: tmp_path)
    generated.main()
    written = {
        str(path.relative_to(tmp_path)): path.read_text() for path in tmp_path.rglob("*.*") if path.is_file()
    }
    assert written == generated_files()
