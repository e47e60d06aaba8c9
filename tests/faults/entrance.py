"""Who may not take part, and why: missing, misdated, of another version, started twice, expired, revoked."""

import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from consortium_processes import Supervised
from deployed_study import SITES, DeployedStudy
from faults.disks import waits_for
from faults.kills import end
from faults.table import Bench
from faults.tools import Changed, other_version, wrong_clock

from fedcad.client.enrolment import install
from fedcad.client.supernode import read_contact
from fedcad.server.enrolment import renew, revoke
from fedcad.shared.instance_lock import holder_of

_SKEW_S = -1200
_WAITS = "the study waits, its reason names the site; it goes on when the cause is gone"


def _told(deployed: DeployedStudy, site: str, words: str) -> str:
    """Wait until a hospital is told why it is not connected; return the reason."""
    run = deployed.hospitals[site].run
    deployed.wait(lambda: words in read_contact(run).get("reason", ""), f"{words!r} at {site}")
    return f"{site} is told: {read_contact(run)['reason'][:160]}"


def _stays(deployed: DeployedStudy, site: str, changed: Changed) -> None:
    """Stop a changed node and start the site's right one."""
    changed.end()
    deployed.nodes[site] = Supervised("client", changed.folder).start()


def wrong_nodes(bench: Bench) -> None:
    """Below quorum: a hospital's clock is wrong, another runs another version, the third is not started."""
    with DeployedStudy(bench.folder / "entrance", bench.runs["strict"], bench.archives) as deployed:
        for name in SITES:
            deployed.make_site(name)
        environment = wrong_clock(bench.folder, _SKEW_S)
        python = other_version(bench.folder / "other", "9.9.9")
        nodes = {
            "site-2": Changed("client", deployed.hospitals["site-2"].folder, environment=environment),
            "site-3": Changed("client", deployed.hospitals["site-3"].folder, python=python),
        }
        deployed.nodes.update(nodes)
        deployed.submit()
        deployed.coordinator.start()
        for node in nodes.values():
            node.start()
        _refused(bench, deployed, nodes, has_clock=environment is not None)
        deployed.nodes["site-1"].start()
        end(bench, deployed, "all of these, remedied")


def _refused(bench: Bench, deployed: DeployedStudy, nodes: dict[str, Changed], *, has_clock: bool) -> None:
    with bench.table.row("too few sites for the quorum", "at the start", _WAITS) as row:
        row.measured = waits_for(deployed, "site-1", "not connected")
    with bench.table.row("another version of FedCAD at a site", "at the start", _WAITS) as row:
        row.measured = waits_for(deployed, "site-3", "9.9.9")
        _stays(deployed, "site-3", nodes["site-3"])
    if not has_clock:
        bench.table.leave_out(
            "a hospital's clock is 20 minutes slow", "no C compiler is here to change a clock"
        )
    else:
        with bench.table.row("a hospital's clock is 20 minutes slow", "at the start", _WAITS) as row:
            row.measured = _told(deployed, "site-2", "clock is more than five minutes off")
            assert deployed.closed() == 0
    _stays(deployed, "site-2", nodes["site-2"])


def certificates(bench: Bench) -> None:
    """The server's certificate is not valid yet; a node is started twice, and from a copy."""
    with DeployedStudy(bench.folder / "certificates", bench.runs["strict"], bench.archives) as deployed:
        now = datetime.now(UTC)
        for name in SITES:
            deployed.make_site(name)
        deployed.consortium.renew_server_certificate(now=now + timedelta(days=2))
        deployed.start()
        with bench.table.row("the server's certificate begins in two days", "at the start", _WAITS) as row:
            row.measured = _told(deployed, "site-1", "not certified by this consortium")
            assert deployed.closed() == 0
            deployed.consortium.renew_server_certificate(now=now)
            deployed.kill("superlink")
            deployed.until_closed(1)
        with bench.table.row("a node is started twice", "while sites train", "the second is refused by name"):
            deployed.wait(lambda: deployed.has_plan("site-1", 2), "training")
            _second_is_refused(deployed)
        with bench.table.row(
            "a copy of a hospital's folder is started on another machine",
            "while sites train",
            "the copy is not let in and told why; the first goes on",
        ) as row:
            row.measured = _copy_is_refused(deployed)
        end(bench, deployed, "all of these")


def _second_is_refused(deployed: DeployedStudy) -> None:
    folder = deployed.hospitals["site-1"].folder
    first = holder_of(folder / "run" / "supervisor.lock")
    second = Supervised("client", folder).start()
    assert second.process is not None
    assert second.process.wait(60.0) != 0
    said = (folder / "terminal.txt").read_text()
    assert f"the node of site-1 is running already (process {first})" in said, said[-500:]
    assert deployed.nodes["site-1"].process.poll() is None


def _copy_is_refused(deployed: DeployedStudy) -> str:
    folder, copy = deployed.hospitals["site-2"].folder, deployed.root / "copy"
    shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("run", "outbox", "logs"))
    node = Supervised("client", copy).start()
    try:
        deployed.wait(
            lambda: "a copy of this folder" in read_contact(copy / "run").get("reason", ""),
            "the copy's refusal",
        )
    finally:
        node.end()
    return read_contact(copy / "run")["reason"][:160]


def memberships(bench: Bench) -> None:
    """An expired site is renewed and joins; another is revoked; the study goes on under its quorum."""
    with DeployedStudy(bench.folder / "members", bench.runs["lenient"], bench.archives) as deployed:
        now, table = datetime.now(UTC), bench.table
        deployed.make_site("site-3", now=now - timedelta(days=900))
        deployed.start()
        deployed.until_closed(1)
        with table.row(
            "a site's certificate has expired", "before round 1", "left out by name with reason"
        ) as row:
            status, reason = deployed.participation(1)["site-3"]
            assert (status, "certificate ended" in reason) == ("lost", True), (status, reason)
            row.measured = reason
        with table.row("it is renewed and joins", "between rounds", "counted from then on") as row:
            install(deployed.hospitals["site-3"], renew(deployed.consortium, "site-3"))
            joined = _wait_for_status(deployed, "site-3", "counted")
            row.measured = f"counted in round {joined}"
        with table.row("a site is revoked", "between rounds", "left out by name with reason") as row:
            revoke(deployed.consortium, "site-2", "left the study")
            left = _wait_for_status(deployed, "site-2", "lost")
            row.measured = f"round {left}: {deployed.participation(left)['site-2'][1]}"
            assert "revoked: left the study" in row.measured
        with table.row("all of these", "in one study", "every round names every site once; complete") as row:
            deployed.until_ended()
            row.measured = _counts(deployed)


def _wait_for_status(deployed: DeployedStudy, site: str, status: str) -> int:
    """Wait until a round from the present one on was closed with a site in a status; return its number."""
    for number in range(deployed.closed() + 1, deployed.rounds + 1):
        deployed.until_closed(number)
        if deployed.participation(number)[site][0] == status:
            return number
    raise AssertionError(f"{site} was never {status}: {deployed.participation(deployed.rounds)}")


def _counts(deployed: DeployedStudy) -> str:
    outcome = deployed.study.outcome()
    assert outcome is not None
    assert outcome.status == "completed", outcome
    events = [each for each in deployed.study.events() if each["event"] == "round"]
    assert [each["round"] for each in events] == list(range(1, deployed.rounds + 1))
    for event in events:
        assert [part["site"] for part in event["participation"]] == list(SITES)
        assert all((part["weight"] > 0) == (part["status"] == "counted") for part in event["participation"])
    return "; ".join(
        f"round {event['round']}: "
        + ", ".join(part["site"] for part in event["participation"] if part["status"] == "counted")
        for event in events
    )


SCENARIOS: tuple[Callable[[Bench], None], ...] = (wrong_nodes, certificates, memberships)
