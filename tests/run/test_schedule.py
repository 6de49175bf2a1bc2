"""Every block is handed out until it is done or lost three times, whatever happens to the workers."""

from __future__ import annotations

from unittest.mock import patch

from hypothesis import given
from hypothesis import strategies as st

from geoseg.grid.lattice import Block
from geoseg.grid.window import Window
from geoseg.run import schedule
from geoseg.run.schedule import ATTEMPTS, Feed, Schedule


def blocks(count: int, row: int = 0) -> list[Block]:
    return [Block(row, col, Window(row, col, 1, 1)) for col in range(count)]


def drain(plan: Schedule, now: float = 0.0) -> list:
    return list(iter(lambda: plan.next(now), None))


@given(
    st.lists(st.integers(0, 12), min_size=1, max_size=4), st.integers(1, 4), st.integers(1, 3),
    st.lists(st.tuples(st.sampled_from(["done", "die", "join"]), st.integers(0, 99)), max_size=80),
)  # fmt: skip
def test_each_block_is_done_or_lost_exactly_once(sizes, workers, depth, events):
    plan = Schedule(depth)
    feeds = [Feed.of(blocks(size, row)) for row, size in enumerate(sizes)]
    for feed in feeds:
        plan.add(feed)
    seats: dict[int, list] = {number: [] for number in range(workers)}
    ended: list[str] = []
    for number in seats:
        plan.join(number)
    for kind, pick in [*events, *[("finish", 0)] * 400]:
        for worker, ticket in drain(plan):
            seats[worker].append(ticket)
            assert len(seats[worker]) <= depth
        if kind == "join" or not seats:
            workers += 1
            seats[workers] = []
            plan.join(workers)
        elif kind == "die":
            worker = sorted(seats)[pick % len(seats)]
            lost = plan.leave(worker)
            assert {ticket.losses for ticket in lost} <= {ATTEMPTS}
            del seats[worker]
            ended += [ticket.block.name for ticket in lost]
        else:
            busy = sorted(worker for worker, tickets in seats.items() if tickets)
            if busy:
                worker = busy[pick % len(busy)]
                ticket = seats[worker].pop(pick % len(seats[worker]))
                plan.done(worker, ticket, 0.0)
                ended.append(ticket.block.name)
    assert sorted(ended) == sorted(
        block.name for row, size in enumerate(sizes) for block in blocks(size, row)
    )
    assert plan.demand == 0


def test_scenes_take_turns():
    plan = Schedule(depth=4)
    big, small = Feed.of(blocks(100)), Feed.of(blocks(2, row=1))
    plan.add(big)
    plan.join("a")
    first = drain(plan)
    plan.add(small)
    for worker, ticket in first:
        plan.done(worker, ticket, 0.0)
    assert [ticket.feed for _, ticket in drain(plan)].count(small) == 2


def test_work_is_spread_over_the_workers():
    plan = Schedule(depth=3)
    for name in "abc":
        plan.join(name)
    plan.add(Feed.of(blocks(6)))
    given = [worker for worker, _ in drain(plan)]
    assert sorted(given) == ["a", "a", "b", "b", "c", "c"]


def test_a_block_that_ends_its_workers_costs_no_other_block():
    """One that was with a lost worker twice goes to a worker of its own, and so do the neighbors that it had twice."""
    plan = Schedule(depth=4)
    feed = Feed.of(blocks(12))
    plan.add(feed)
    bad, lost, done, number = "r000000_c000002", [], [], 0
    plan.join(number)
    for _ in range(100):
        for worker, ticket in drain(plan):
            if ticket.block.name == bad:
                lost += [t.block.name for t in plan.leave(worker)]
                number += 1
                plan.join(number)
                break
        else:
            for worker, seat in list(plan._seats.items()):
                for ticket in list(seat.tickets):
                    plan.done(worker, ticket, 0.0)
                    done.append(ticket.block.name)
    assert lost == [bad]
    assert len(done) == 11
    assert plan.demand == 0


def test_a_scene_that_is_dropped_leaves_nothing_behind():
    plan = Schedule(depth=2)
    feed, other = Feed.of(blocks(9)), Feed.of(blocks(1, row=1))
    for one in (feed, other):
        plan.add(one)
    plan.join("a")
    assert drain(plan)
    plan.drop(feed)
    assert plan.leave("a") == []
    plan.join("b")
    assert {ticket.feed for _, ticket in drain(plan)} <= {other}
    assert plan.demand == 1


def test_a_worker_is_late_by_what_others_took_and_has_longer_for_a_block_that_was_late_before():
    with patch.multiple(schedule, FIRST_LIMIT_S=100.0, LEAST_LIMIT_S=5.0, SLOWER=10.0):
        plan = Schedule(depth=1)
        plan.add(Feed.of(blocks(4)))
        plan.join("a"), plan.join("b")
        given = dict(drain(plan, now=0.0))
        assert plan.late(99.0) == []
        plan.done("a", given["a"], 2.0)
        assert plan.late(19.0) == []
        assert plan.late(21.0) == ["b"]
        plan.leave("b")
        ((_, again),) = drain(plan, now=30.0)
        assert again.losses == 1
        assert plan.late(69.0) == []
        assert plan.late(71.0) == ["a"]
