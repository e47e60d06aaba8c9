"""Waiting below the quorum: shown, limited, begun anew after a closed round."""

from fedcad.server.conduct import AtOnce, Patient

ABSENT = ("b", "c")


class Time:
    def __init__(self) -> None:
        self.now = 1000.0
        self.set_by = 0.0
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def patient(time: Time, shown: list[tuple[str, list[str], float]], wait_s: float = 25.0) -> Patient:
    return Patient(
        lambda: True,
        lambda reason, sites, until: shown.append((reason, list(sites), until)),
        wait_s=wait_s,
        clock=lambda: time.now + time.set_by,
        timer=lambda: time.now,
        sleep=time.sleep,
    )


def test_a_simulation_never_waits() -> None:
    assert AtOnce().goes_on()
    assert not AtOnce().waits("too few", ABSENT)


def test_waiting_ends_at_its_limit_and_is_shown_each_time() -> None:
    time, shown = Time(), []
    conduct = patient(time, shown)
    assert [conduct.waits("too few", ABSENT) for _ in range(4)] == [True, True, True, False]
    assert time.slept == [10.0, 10.0, 5.0]
    assert shown == [("too few", ["b", "c"], 1025.0)] * 3


def test_a_closed_round_begins_the_limit_anew() -> None:
    time, shown = Time(), []
    conduct = patient(time, shown)
    conduct.waits("too few", ABSENT)
    conduct.closed()
    time.now += 100.0
    assert conduct.waits("too few", ABSENT)
    assert shown[-1][2] == 1135.0


def test_a_clock_that_is_set_ends_no_wait_and_prolongs_none() -> None:
    time, shown = Time(), []
    conduct = patient(time, shown)
    conduct.waits("too few", ABSENT)
    time.set_by = 86400.0
    assert conduct.waits("too few", ABSENT)
    assert shown[-1][2] == 1025.0 + 86400.0
    time.set_by = -86400.0
    assert [conduct.waits("too few", ABSENT) for _ in range(2)] == [True, False]


def test_no_limit_of_zero_waits() -> None:
    time, shown = Time(), []
    assert not patient(time, shown, wait_s=0.0).waits("too few", ABSENT)
    assert not shown


def test_what_is_no_longer_wanted_does_not_go_on() -> None:
    wanted = [True]
    conduct = Patient(lambda: wanted[0], lambda *_: None, wait_s=1.0)
    assert conduct.goes_on()
    wanted[0] = False
    assert not conduct.goes_on()
