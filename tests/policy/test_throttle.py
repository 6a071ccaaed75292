"""Counting failed logins: delays that grow, lockouts that end, memory that does not grow."""

from __future__ import annotations

from gatepost.policy.throttle import Throttle


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def make(clock: Clock, **more: float) -> Throttle:
    values = {"max_failures": 4, "lockout_s": 900.0, "delay_s": 1.0, "max_delay_s": 6.0, "max_entries": 100} | more
    return Throttle(clock=clock, **values)  # type: ignore[arg-type]


def fail(throttle: Throttle, address: str, user: str) -> float:
    assert throttle.begin(address, user)
    return throttle.delay_s(address, user)


def test_the_delay_grows_and_then_the_address_is_locked_out() -> None:
    clock = Clock()
    throttle = make(clock)
    assert [fail(throttle, "192.0.2.1", f"user{n}") for n in range(4)] == [1.0, 2.0, 4.0, 6.0]
    assert not throttle.begin("192.0.2.1", "another")
    assert throttle.begin("192.0.2.2", "another")
    clock.now_s += 899
    assert not throttle.begin("192.0.2.1", "another")
    clock.now_s += 2
    assert fail(throttle, "192.0.2.1", "another2") == 1.0


def test_a_user_is_locked_out_for_strangers_only() -> None:
    throttle = make(Clock())
    assert throttle.begin("192.0.2.9", "anna")
    throttle.succeeded("192.0.2.9", "anna")
    for n in range(4):
        fail(throttle, f"198.51.100.{n}", "anna")
    assert not throttle.begin("198.51.100.99", "anna")
    assert throttle.begin("192.0.2.9", "anna")


def test_attempts_that_name_nobody_lock_out_nobody() -> None:
    throttle = make(Clock())
    for n in range(10):
        fail(throttle, f"198.51.100.{n}", "")
    assert throttle.begin("192.0.2.1", "")


def test_an_account_of_ones_own_wipes_nothing_away() -> None:
    throttle = make(Clock())
    for n in range(4):
        fail(throttle, "192.0.2.1", f"victim{n}")
        if n < 3:
            assert throttle.begin("192.0.2.1", "mine")
            throttle.succeeded("192.0.2.1", "mine")
    assert not throttle.begin("192.0.2.1", "mine")


def test_attempts_at_once_are_as_many_in_a_row() -> None:
    throttle = make(Clock())
    assert [throttle.begin("192.0.2.1", "anna") for _ in range(6)] == [True] * 4 + [False] * 2
    throttle.withdraw("192.0.2.1", "anna")
    assert throttle.begin("192.0.2.1", "anna")


def test_an_ipv6_network_is_one_client() -> None:
    throttle = make(Clock())
    for n in range(4):
        fail(throttle, f"2001:db8::{n}", f"user{n}")
    assert not throttle.begin("2001:db8::ffff:1", "another")
    assert throttle.begin("2001:db8:0:1::1", "another")
    assert throttle.begin("::ffff:192.0.2.1", "another")


def test_memory_is_bounded() -> None:
    throttle = make(Clock())
    for n in range(1000):
        throttle.begin(f"10.0.{n // 250}.{n % 250}", f"user{n}")
    assert throttle.entries == 200
