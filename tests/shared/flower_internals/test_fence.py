import types

import pytest

from fedcad.shared.errors import UnsupportedError
from fedcad.shared.flower_internals import fence


def test_the_installed_flower_is_the_one_whose_inside_is_known():
    fence.require_flower()


def test_another_flower_is_refused_with_the_remedy(monkeypatch):
    monkeypatch.setattr(fence, "version", lambda _name: "1.42.0")
    with pytest.raises(UnsupportedError, match=r"flwr 1\.42\.0 is installed.*pip install flwr==1\.41\.0"):
        fence.require_flower()


def test_only_what_exists_is_replaced():
    module = types.ModuleType("some_module")
    module.known = 1
    assert fence.replace(module, "known", 2) == 1
    assert module.known == 2
    with pytest.raises(UnsupportedError, match=r"flwr has no some_module\.unknown"):
        fence.replace(module, "unknown", 2)
