"""A whole study between real processes over TLS, in which every kind of process is killed once."""

import pytest
from deployed_study import DeployedStudy, reference


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, archives):
    return reference(tmp_path_factory.mktemp("undisturbed") / "run", archives, rounds=2, epochs=60)


@pytest.mark.timeout(600)
def test_a_study_in_which_every_kind_of_process_is_killed_ends_with_the_same_model(
    tmp_path, archives, undisturbed
):
    with DeployedStudy(tmp_path / "study", undisturbed, archives) as deployed:
        deployed.start()

        # Round 1: every process of a hospital, each at another one; then the coordinator's network.
        deployed.wait(lambda: deployed.trains("site-1", 1), "training")
        deployed.kill("worker", "site-1")
        deployed.wait(lambda: deployed.has_plan("site-3", 1), "training")
        deployed.kill("clientapp", "site-3")
        deployed.wait(lambda: deployed.has_answered("site-2", 1), "an answer")
        deployed.kill("supernode", "site-2")
        deployed.kill("superlink")
        deployed.until_closed(1)

        # Round 2: what computes at the coordinator, and a whole hospital; then all of the coordinator.
        deployed.wait(lambda: deployed.trains("site-1", 2), "training")
        deployed.kill("superexec")
        killed = deployed.kill("serverapp")
        deployed.kill("node", "site-3")
        deployed.wait(lambda: deployed.pid_of("serverapp") not in (None, killed), "a new run of the study")
        deployed.kill("coordinator")
        deployed.until_ended()
        deployed.require_undisturbed()
