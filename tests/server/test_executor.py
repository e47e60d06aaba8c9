import subprocess
import sys

from consortium_processes import make_consortium


def test_the_executor_imports_neither_torch_nor_the_study(tmp_path):
    code = (
        "import sys; import fedcad.server.executor; from fedcad.shared.flower_internals import tasks; "
        "print([name for name in ('torch', 'pydicom', 'fedcad.server.rounds') if name in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_a_folder_that_is_no_consortium_is_refused(tmp_path):
    run = subprocess.run(
        [sys.executable, "-m", "fedcad.server.executor", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert run.returncode != 0
    assert "no consortium's folder" in run.stderr


def test_the_secret_that_both_sides_need_exists(tmp_path):
    assert len((make_consortium(tmp_path / "c").keys / "superexec.secret").read_bytes()) >= 32
