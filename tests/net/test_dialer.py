"""The dialler: one link a target, back-off, restarts, MEET's single dials, and nothing left at its end."""

from __future__ import annotations

import asyncio
import random
import socket
import ssl
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from recorder import CONFIG, HELLO, PATIENCE, Recorder, entries

from loop_turns import cancelled_after, turns
from raftfast.config import Config
from raftfast.errors import NodeClosed
from raftfast.net import Dialer, Listener, listen
from raftfast.net import link as link_module
from raftfast.net.dialer import backoff_delay

HOST = "127.0.0.1"


class NotedRandom(random.Random):
    """Keeps the ranges that were asked for."""

    def __init__(self) -> None:
        super().__init__(1)
        self.ranges: list[tuple[float, float]] = []

    def uniform(self, a: float, b: float) -> float:
        self.ranges.append((a, b))
        return super().uniform(a, b)


def new_dialer(owner: Recorder, **knobs: Any) -> Dialer:
    knobs = {"rng": random.Random(1), "backoff": (0.001, 0.004)} | knobs
    return Dialer(owner, CONFIG, **knobs)


async def open_port(owner: Recorder, port: int = 0) -> Listener:
    return await listen(HOST, port, owner, CONFIG)


async def closed_port() -> int:
    """A port on which nobody listens."""
    listener = await open_port(Recorder())
    port = listener.port
    await listener.close()
    return port


def test_exactly_what_is_wanted_is_linked(run: Any) -> None:
    async def main() -> None:
        ours, theirs = Recorder(), Recorder()
        ports = [await open_port(theirs) for _ in range(3)]
        dialer = new_dialer(ours)
        addresses = {f"n{number}": (HOST, each.port) for number, each in enumerate(ports)}
        dialer.want({"n0": addresses["n0"], "n1": addresses["n1"]})
        await ours.until(lambda: len(ours.opened) == 2)
        links = {link.key: link for link in ours.opened}
        assert set(links) == {"n0", "n1"}
        assert all(link.outbound for link in ours.opened)
        dialer.want({"n1": addresses["n1"], "n2": addresses["n2"]})
        await ours.until(lambda: len(ours.opened) == 3 and ours.closed)
        assert ours.closed == [(links["n0"], "no longer wanted")]
        assert ours.opened[2].key == "n2"
        assert links["n1"].send(HELLO), "what is still wanted is left alone"
        dialer.want({"n1": addresses["n1"], "n2": addresses["n2"]})
        await theirs.until(lambda: theirs.messages)
        assert dialer.stats.dials == 3
        await dialer.close("good night")
        assert sorted(ours.reasons()) == ["good night", "good night", "no longer wanted"]
        for each in ports:
            await each.close()

    run(main())


def test_a_changed_address_is_dialled_anew(run: Any) -> None:
    async def main() -> None:
        ours, before, after = Recorder(), Recorder(), Recorder()
        first, second = await open_port(before), await open_port(after)
        dialer = new_dialer(ours)
        dialer.want({"n": (HOST, first.port)})
        await ours.until(lambda: ours.opened)
        dialer.want({"n": (HOST, second.port)})
        await after.until(lambda: after.opened)
        await before.until(lambda: before.closed)
        assert ours.told == ["opened", "closed", "opened"], "never two links of one key"
        assert ours.reasons() == ["its address changed"]
        await dialer.close()
        await first.close()
        await second.close()

    run(main())


def test_an_open_link_is_not_dialled_beside(run: Any) -> None:
    async def main() -> None:
        ours, theirs = Recorder(), Recorder()
        listener = await open_port(theirs)
        dialer = new_dialer(ours)
        dialer.want({"up": (HOST, listener.port), "down": (HOST, await closed_port())})
        # the other's dials show that time went by
        await ours.until(lambda: ours.opened and len(ours.failed) >= 10)
        assert len(ours.opened) == len(theirs.opened) == 1
        assert dialer.stats.dials == 1 + len(ours.failed)
        await dialer.close()
        await listener.close()

    run(main())


def test_it_comes_back_after_the_peer_restarts(run: Any) -> None:
    async def main() -> None:
        ours, theirs = Recorder(), Recorder()
        listener = await open_port(theirs)
        port = listener.port
        dialer = new_dialer(ours)
        dialer.want({"n": (HOST, port)})
        await theirs.until(lambda: theirs.opened)
        await listener.close()
        await ours.until(lambda: len(ours.failed) >= 3)
        assert set(ours.failed) == {("n", "Connection refused")}
        assert dialer.stats.dial_failures == len(ours.failed)
        listener = await open_port(theirs, port)
        await ours.until(lambda: len(ours.opened) == 2)
        assert ours.opened[1].key == "n"
        assert ours.opened[1].send(HELLO)
        await theirs.until(lambda: theirs.messages)
        assert len(ours.closed) == 1, "one link at a time"
        await dialer.close()
        await listener.close()

    run(main())


def test_a_link_that_its_owner_closes_is_dialled_again(run: Any) -> None:
    async def main() -> None:
        ours, theirs = Recorder(), Recorder()
        ours.on_opened = lambda link: link.close("silent") if len(ours.opened) < 4 else None
        listener = await open_port(theirs)
        dialer = new_dialer(ours)
        dialer.want({"n": (HOST, listener.port)})
        await ours.until(lambda: len(ours.opened) == 4)
        assert ours.told == ["opened", "closed"] * 3 + ["opened"]
        await dialer.close()
        await listener.close()

    run(main())


def test_delays_grow_until_the_owner_says_it_succeeded(run: Any) -> None:
    async def main() -> None:
        rng, ours, theirs = NotedRandom(), Recorder(), Recorder()
        port = await closed_port()
        dialer = new_dialer(ours, rng=rng)
        dialer.want({"n": (HOST, port)})
        await ours.until(lambda: len(ours.failed) >= 5)
        assert rng.ranges[:4] == [(0.001, 0.002), (0.002, 0.004), (0.002, 0.004), (0.002, 0.004)]
        listener = await open_port(theirs, port)
        await ours.until(lambda: ours.opened)
        number = len(rng.ranges)
        ours.opened[0].close("no HI came")
        await ours.until(lambda: len(ours.opened) == 2)
        dialer.succeeded("n")
        dialer.succeeded("unknown")
        ours.opened[1].close("after HI")
        await ours.until(lambda: len(ours.opened) == 3)
        assert rng.ranges[number:] == [(0.002, 0.004), (0.001, 0.002)]
        await dialer.close()
        await listener.close()

    run(main())


@given(
    failures=st.integers(0, 10_000),
    seed=st.integers(),
    first=st.floats(0.0001, 2),
    longest=st.floats(0.0001, 100),
)
def test_a_delay_is_never_below_the_first_nor_above_the_longest(
    failures: int, seed: int, first: float, longest: float
) -> None:
    delay = backoff_delay(failures, random.Random(seed), first, longest)
    assert min(first, longest) <= delay <= longest
    assert delay >= min(first * 2 ** min(failures, 64), longest / 2)


def test_default_delays_are_50_ms_to_1_s() -> None:
    rng = NotedRandom()
    dialer = Dialer(Recorder(), Config(), rng=rng)
    for failures in range(7):
        backoff_delay(failures, rng, *dialer._backoff)
    assert rng.ranges == [(0.05, 0.1), (0.1, 0.2), (0.2, 0.4), (0.4, 0.8)] + [(0.5, 1.0)] * 3


def test_a_single_dial_is_not_repeated(run: Any) -> None:
    async def main() -> None:
        ours, theirs = Recorder(), Recorder()
        listener = await open_port(theirs)
        dialer = new_dialer(ours)
        dialer.dial_once("meet", HOST, listener.port)
        with pytest.raises(ValueError, match="meet is dialled already"):
            dialer.dial_once("meet", HOST, listener.port)
        await ours.until(lambda: ours.opened)
        with pytest.raises(ValueError, match="meet is dialled already"):
            dialer.dial_once("meet", HOST, listener.port)
        dialer.want({})
        assert ours.opened[0].key == "meet"
        assert ours.opened[0].send(HELLO), "want leaves single dials alone"
        await theirs.until(lambda: theirs.messages)
        ours.opened[0].close("answered")
        await ours.opened[0].wait_released()
        await asyncio.wait_for(asyncio.gather(*dialer._tasks), PATIENCE)  # it ends by itself
        assert (len(ours.opened), dialer.stats.dials) == (1, 1)
        dialer.dial_once("meet", HOST, listener.port)
        await ours.until(lambda: len(ours.opened) == 2)
        await dialer.close()
        await listener.close()

    run(main())


def test_a_single_dial_can_be_made_anew_as_its_end_is_told(run: Any) -> None:
    async def main() -> None:
        ours, theirs = Recorder(), Recorder()
        listener = await open_port(theirs)
        dialer = new_dialer(ours)
        ours.on_failed = lambda key: dialer.dial_once(key, HOST, listener.port)
        ours.on_closed = lambda link: dialer.dial_once("meet", HOST, listener.port)
        dialer.dial_once("meet", HOST, await closed_port())
        await ours.until(lambda: ours.opened)
        ours.opened[0].close("again")
        await ours.until(lambda: len(ours.opened) == 2)
        assert ours.told == ["failed", "opened", "closed", "opened"]
        with pytest.raises(ValueError, match="meet is dialled already"):
            dialer.dial_once("meet", HOST, listener.port)
        ours.on_closed = lambda link: None
        await dialer.close()
        await listener.close()

    run(main())


@pytest.mark.parametrize(
    ("host", "port", "reason"),
    [
        (HOST, None, "Connection refused"),
        (HOST, 70_000, ""),
        (HOST, -1, ""),
        ("a..b", 1, ""),
        ("nul\0", 1, ""),
    ],
)
def test_a_dial_that_fails_is_told_once_with_a_reason(run: Any, host: str, port: int | None, reason: str) -> None:
    async def main() -> None:
        ours = Recorder()
        dialer = new_dialer(ours)
        dialer.dial_once("meet", host, await closed_port() if port is None else port)
        await ours.until(lambda: ours.failed)
        await asyncio.wait_for(asyncio.gather(*dialer._tasks), PATIENCE)
        assert ours.told == ["failed"]
        assert ours.failed[0][0] == "meet"
        assert ours.failed[0][1].startswith(reason)
        assert "Errno" not in ours.failed[0][1]
        await dialer.close()

    run(main())


def test_a_bad_address_among_the_wanted_harms_no_other(run: Any) -> None:
    async def main() -> None:
        ours, theirs = Recorder(), Recorder()
        listener = await open_port(theirs)
        dialer = new_dialer(ours)
        dialer.want({"bad": ("a..b", 99_999), "good": (HOST, listener.port)})
        await ours.until(lambda: ours.opened and len(ours.failed) >= 2)
        assert ours.opened[0].key == "good"
        await dialer.close()
        await listener.close()

    run(main())


def silent_port() -> socket.socket:
    """A port that connects, and then says nothing for ever."""
    sock = socket.socket()
    sock.bind((HOST, 0))
    sock.listen(16)
    return sock


def test_a_dial_without_an_answer_fails_in_time(run: Any) -> None:
    async def main() -> None:
        ours = Recorder()
        with silent_port() as port:
            dialer = new_dialer(ours, ssl=ssl.create_default_context(), connect_timeout=0.02)
            dialer.dial_once("meet", *port.getsockname())
            await ours.until(lambda: ours.failed)
            assert ours.failed == [("meet", "no connection in time")]
            assert ours.told == ["failed"]
            await dialer.close()

    run(main())


def test_a_dial_under_way_is_given_up_in_silence(run: Any) -> None:
    async def main() -> None:
        ours = Recorder()
        with silent_port() as port:
            dialer = new_dialer(ours, ssl=ssl.create_default_context())
            dialer.want({"n": port.getsockname()})
            await turns()
            dialer.want({})
            dialer.dial_once("meet", *port.getsockname())
            await turns()
            await dialer.close()
            assert not dialer._tasks
            assert ours.told == []

    run(main())


@pytest.mark.parametrize("turns", range(8))
def test_what_connects_as_it_is_given_up_never_reaches_the_owner_as_open(run: Any, turns: int) -> None:
    """The want is taken back after each possible number of turns of the loop."""

    async def main() -> None:
        ours, theirs = Recorder(), Recorder()
        listener = await open_port(theirs)
        dialer = new_dialer(ours)
        dialer.want({"n": (HOST, listener.port)})
        for _ in range(turns):
            await asyncio.sleep(0)
        known = len(ours.opened)
        dialer.want({})
        dialer.want({"other": (HOST, listener.port)})
        await ours.until(lambda: [link for link in ours.opened if link.key == "other"])
        assert len([link for link in ours.opened if link.key == "n"]) == known
        await ours.until(lambda: len(ours.closed) == known)
        await dialer.close()
        await theirs.until(lambda: len(theirs.closed) == len(theirs.opened))
        await listener.close()

    run(main())


def test_an_owner_that_raises_on_a_failure_does_not_stop_the_dialling(run: Any) -> None:
    async def main() -> None:
        reported: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
        ours, theirs = Recorder(), Recorder()

        def fail(key: str) -> None:
            raise ZeroDivisionError("owner's bug")

        ours.on_failed = fail
        port = await closed_port()
        dialer = new_dialer(ours)
        dialer.want({"n": (HOST, port)})
        await ours.until(lambda: ours.failed)
        listener = await open_port(theirs, port)
        await ours.until(lambda: ours.opened)
        assert {type(each["exception"]) for each in reported} == {ZeroDivisionError}
        await dialer.close()
        await listener.close()

    run(main())


def test_a_meet_link_can_be_kept(run: Any) -> None:
    async def main() -> None:
        ours, theirs = Recorder(), Recorder()
        listener = await open_port(theirs)
        port = listener.port
        dialer = new_dialer(ours)
        dialer.dial_once("meet", "localhost", port)
        await ours.until(lambda: ours.opened)
        link = ours.opened[0]
        assert dialer.adopt(link, "n", HOST, port)
        assert link.key == "n"
        dialer.want({"n": (HOST, port)})
        dialer.succeeded("n")
        assert link.send(HELLO)
        await theirs.until(lambda: theirs.messages)
        assert dialer.stats.dials == 1
        assert not dialer.adopt(link, "m", HOST, port), "it is a single dial no more"
        link.close("lost")
        await ours.until(lambda: len(ours.opened) == 2)
        assert ours.opened[1].key == "n"
        await dialer.close()
        await listener.close()

    run(main())


def test_adopting_gives_up_a_dial_but_not_a_link(run: Any) -> None:
    async def main() -> None:
        ours, theirs = Recorder(), Recorder()
        listener = await open_port(theirs)
        here = (HOST, listener.port)
        dialer = new_dialer(ours)
        dialer.want({"up": here, "down": (HOST, await closed_port())})
        dialer.dial_once("meet", *here)
        await ours.until(lambda: len(ours.opened) == 2 and ours.failed)
        meet = next(link for link in ours.opened if link.key == "meet")
        assert not dialer.adopt(meet, "up", *here)
        assert meet.key == "meet"
        assert ours.closed == []
        assert dialer.adopt(meet, "down", *here)
        failed = len(ours.failed)
        dialer.want({"up": here, "down": here})
        dialer.dial_once("fence", HOST, await closed_port())
        await ours.until(lambda: ("fence", "Connection refused") in ours.failed)
        assert len(ours.failed) == failed + 1, "the old dial goes on"
        assert len(ours.opened) == 2
        await dialer.close()
        await listener.close()

    run(main())


def test_a_closed_link_is_not_adopted(run: Any) -> None:
    async def main() -> None:
        ours, theirs = Recorder(), Recorder()
        listener = await open_port(theirs)
        dialer = new_dialer(ours)
        dialer.dial_once("meet", HOST, listener.port)
        await ours.until(lambda: ours.opened)
        ours.opened[0].close("gone")
        assert not dialer.adopt(ours.opened[0], "n", HOST, listener.port)
        await dialer.close()
        await listener.close()

    run(main())


def test_close_waits_for_what_is_still_being_sent(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_module, "LINGER", 0.05)

    async def main() -> None:
        ours = Recorder()
        with silent_port() as port:
            dialer = new_dialer(ours)
            dialer.want({"n": port.getsockname()})
            await ours.until(lambda: ours.opened)
            await turns()  # a dial given up as it succeeds is cut instead
            link = ours.opened[0]
            assert link.send(entries(8000, 1000))
            assert link.buffered, "the test needs bytes that wait"
            dialer.want({})
            await dialer.close()
            assert ours.reasons() == ["no longer wanted"]
            assert link._released.done(), "its socket is gone, though it was no target any more"

    run(main())


def test_after_close_it_dials_no_more(run: Any) -> None:
    async def main() -> None:
        ours, theirs = Recorder(), Recorder()
        listener = await open_port(theirs)
        dialer = new_dialer(ours)
        dialer.want({"up": (HOST, listener.port), "down": (HOST, await closed_port())})
        dialer.dial_once("meet", HOST, listener.port)
        await ours.until(lambda: len(ours.opened) == 2 and ours.failed)
        await dialer.close("good night")
        assert ours.reasons() == ["good night"] * 2, "told before close returns"
        assert not dialer._tasks
        assert all(link._released.done() for link in ours.opened), "no socket is left"
        with pytest.raises(NodeClosed):
            dialer.want({})
        with pytest.raises(NodeClosed):
            dialer.dial_once("meet", HOST, listener.port)
        await dialer.close()
        await theirs.until(lambda: len(theirs.closed) == 2)
        await listener.close()

    run(main())


def test_a_close_that_is_cancelled_cuts_what_is_left(run: Any, monkeypatch: Any) -> None:
    """At each of its awaits, the last of which is for a peer that reads nothing."""
    monkeypatch.setattr(link_module, "LINGER", 2 * PATIENCE)

    async def main() -> None:
        with socket.create_server((HOST, 0)) as silent:
            for count in range(6):
                owner = Recorder()
                dialer = new_dialer(owner)
                dialer.want({"n": (HOST, silent.getsockname()[1])})
                await owner.until(lambda owner=owner: owner.opened)
                (link,) = owner.opened
                while not link.buffered:
                    assert link.send(entries(500))
                assert (await cancelled_after(count, dialer.close("good night"))).cancelled()
                if not count:  # it never began
                    link.abort("good night")
                await asyncio.wait_for(link.wait_released(), PATIENCE)
                await dialer.close()
                assert owner.reasons() == ["good night"]

    run(main())
