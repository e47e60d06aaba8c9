"""The contract with flwr's Control API; what it does is tested with a real SuperLink in tests/server."""

import inspect

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from flwr.proto.control_pb2 import ListNodesResponse, ListRunsResponse, RegisterNodeRequest, StartRunRequest
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.protobuf.client import ProtobufClient

from fedcad.shared.flower_internals.control import public_key_bytes


def openssh(key) -> str:
    return key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


def test_the_names_behind_the_fence_are_as_expected():
    for call in ("ListNodes", "RegisterNode", "UnregisterNode", "StartRun", "ListRuns", "StopRun"):
        assert list(inspect.signature(getattr(ControlHttpClient, call)).parameters) == ["self", "request"]
    assert list(inspect.signature(ProtobufClient.from_server_address).parameters) == [
        "server_address",
        "insecure",
        "root_certificates",
        "interceptors",
        "retry_invoker",
    ]
    assert {"public_key", "name"} <= set(RegisterNodeRequest.DESCRIPTOR.fields_by_name)
    assert {"fab", "override_config"} <= set(StartRunRequest.DESCRIPTOR.fields_by_name)
    node = ListNodesResponse.DESCRIPTOR.fields_by_name["nodes_info"].message_type.fields_by_name
    assert {"node_id", "name", "public_key", "status", "last_activated_at", "online_until"} <= set(node)
    assert "run_dict" in ListRunsResponse.DESCRIPTOR.fields_by_name


def test_a_key_with_or_without_a_comment_is_the_same_key():
    text = openssh(ec.generate_private_key(ec.SECP384R1()))
    assert public_key_bytes(text) == public_key_bytes(f"{text} north@hospital")


def test_a_key_of_another_kind_is_refused():
    with pytest.raises(ValueError, match="elliptic-curve key"):
        public_key_bytes(openssh(ed25519.Ed25519PrivateKey.generate()))
