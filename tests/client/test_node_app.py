"""The node's Flower app on a real archive: what leaves the hospital, and what does not."""

import json
import logging

import numpy as np
import pytest
import tiny_study
import yaml
from flwr.app import Context, Message, RecordDict
from toy_algorithms import plan_for

from fedcad.client.node_app import make_client_app, open_node
from fedcad.client.workbench import Workbench, freeze
from fedcad.shared.config.load import load_site
from fedcad.shared.errors import ArchiveError
from fedcad.shared.flower_internals.messages import enter_task, name_message
from fedcad.shared.flower_records import array_record, plan_content, read_answer, read_site_info
from fedcad.shared.messages import Update, encode

READY = "query.ready"


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    return next(iter(tiny_study.build_archives(tmp_path_factory.mktemp("archives"), patients=24).values()))


@pytest.fixture
def contract(tmp_path):
    contract = freeze(tiny_study.make_study())
    contract.save(tmp_path / "contract")
    return contract


def send(app, content, kind, config):
    enter_task()
    message = Message(content, 1, kind)
    name_message(message, "m1")
    context = Context(run_id=1, node_id=1, node_config=config, state=RecordDict(), run_config={})
    return app(message, context)


@pytest.fixture
def config(archive, contract, tmp_path):
    return {"site-file": str(archive.site_file), "contract": str(tmp_path / "contract")}


def train_content(contract, work=("validate", "train", "test")):
    plan, vectors, _ = plan_for(Workbench(contract), {"model": contract.initial}, work=work, site="site-1")
    return plan_content(plan, array_record(vectors)), plan


def test_ready_and_train_on_a_real_archive(config, contract):
    app = make_client_app()
    info = read_site_info(send(app, RecordDict(), READY, config).content)
    assert sum(info.cases.values()) == 24
    content, plan = train_content(contract)
    reply = send(app, content, "train", config)
    answer = read_answer(reply.content)
    assert isinstance(answer, Update)
    assert answer.header.plan == plan.identity
    assert set(answer.statistics) == {"validation", "test"}
    assert np.isfinite(answer.vectors["model"]).all()
    assert np.abs(answer.vectors["model"]).max() > 0


def identifiers(archive):
    """All strings that name a patient, an image or a file of the archive."""
    rows = (archive.folder / "labels.csv").read_text().splitlines()[1:]
    found = {cell for row in rows for cell in row.split(",")[:2]}
    found |= {path.name for path in (archive.folder / "dicom").rglob("*")}
    return {name for name in found if len(name) > 3}


def test_nothing_that_leaves_has_an_identifier(config, contract, archive):
    app = make_client_app()
    info = read_site_info(send(app, RecordDict(), READY, config).content)
    answer = read_answer(send(app, train_content(contract)[0], "train", config).content)
    text = (
        encode(info) + encode(answer.header) + json.dumps([sorted(answer.vectors), sorted(answer.statistics)])
    )
    names = identifiers(archive)
    assert len(names) > 40
    assert [name for name in names if name in text] == []
    assert str(archive.folder) not in text


def test_errors_do_not_tell_the_coordinator_what_they_say(contract, caplog):
    def fails(context):
        raise ArchiveError("/archive/DOE^JOHN/1.dcm: cannot be read")

    app = make_client_app(fails)
    with caplog.at_level(logging.ERROR, "fedcad.client"):
        ready = send(app, RecordDict(), READY, {})
        trained = send(app, train_content(contract)[0], "train", {})
    for reply in (ready, trained):
        assert reply.has_error()
        assert "ArchiveError" in reply.error.reason
        assert "DOE" not in reply.error.reason
    assert "/archive/DOE^JOHN/1.dcm" in caplog.text


def test_unforeseen_error_is_logged_by_place_only(contract, caplog):
    def fails(context):
        return {}["DOE^JOHN"]

    with caplog.at_level(logging.ERROR, "fedcad.client"):
        reply = send(make_client_app(fails), RecordDict(), READY, {})
    assert "KeyError" in reply.error.reason
    assert "DOE" not in reply.error.reason + caplog.text.replace('return {}["DOE^JOHN"]', "")
    assert "test_node_app.py" in caplog.text


def test_broken_message_is_an_error_reply(config):
    reply = send(make_client_app(), RecordDict(), "train", config)
    assert reply.has_error()
    assert "ProtocolError" in reply.error.reason


def test_missing_site_file_is_an_error_reply(config, tmp_path):
    reply = send(make_client_app(), RecordDict(), READY, config | {"site-file": str(tmp_path / "none.yaml")})
    assert "ConfigError" in reply.error.reason


def test_paths_of_the_site_file_are_relative_to_it(config, archive):
    site = load_site(archive.site_file)
    assert yaml.safe_load(archive.site_file.read_text())["archive"] == "dicom"
    context = Context(run_id=1, node_id=1, node_config=config, state=RecordDict(), run_config={})
    assert open_node(context).info().site == site.name
