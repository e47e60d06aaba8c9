import pytest

from fedcad.client.doctor.remembered import Remembered
from fedcad.shared.errors import DataError


@pytest.mark.parametrize("value", [7, None])
def test_value_is_found_once(value):
    calls = []
    remembered = Remembered(lambda: calls.append(1) or value)
    assert calls == []
    assert remembered() == remembered() == value
    assert calls == [1]


@pytest.mark.parametrize("error", [DataError("no"), TimeoutError("late")])
def test_reason_is_found_once(error):
    calls = []

    def find():
        calls.append(1)
        raise error

    remembered = Remembered(find)
    for _ in range(2):
        with pytest.raises(type(error)) as caught:
            remembered()
        assert caught.value is error
    assert calls == [1]


def test_a_defect_is_not_remembered():
    remembered = Remembered(lambda: 1 // 0)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            remembered()
