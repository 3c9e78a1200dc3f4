from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fastseg.cohort.stream import batching
from fastseg.cohort.stream.batching import Batch, Batcher
from tests.fake_engines import FakeEngine

_Images = NDArray[np.float32]


class OneAtATime(FakeEngine):
    @property
    def concurrent(self) -> bool:
        return False


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(batching.time, "monotonic", lambda: now[0])
    return now


def images(n: int, side: int = 2, first: int = 0) -> _Images:
    """Images that are all different."""
    return np.arange(first, first + n, dtype=np.float32)[:, None, None, None] * np.ones(
        (side, side), np.float32
    )


def tripled(batch: _Images) -> _Images:
    return 3 * batch


def run_all(batcher: Batcher[str]) -> dict[str, list[_Images]]:
    told = {}
    while (batch := batcher.take(idle=True)) is not None:
        told.update(batcher.answer(batch, batch.infer()))
    return told


def test_images_of_several_volumes_share_a_batch_and_each_gets_its_own_answers() -> None:
    engine, batcher = FakeEngine(tripled), Batcher[str](flush_seconds=1)
    batcher.ask("a", engine, (images(3),))
    batcher.ask("b", engine, (images(5, first=10),))
    told = run_all(batcher)
    assert [len(batch) for batch in engine.batches] == [8]
    np.testing.assert_array_equal(told["a"][0], 3 * images(3))
    np.testing.assert_array_equal(told["b"][0], 3 * images(5, first=10))


def test_images_of_other_shapes_and_engines_are_never_put_together() -> None:
    two, other = FakeEngine(tripled), FakeEngine(tripled)
    batcher = Batcher[str](flush_seconds=1)
    batcher.ask("a", two, (images(2, side=2),))
    batcher.ask("b", two, (images(2, side=3),))
    batcher.ask("c", other, (images(2, side=2),))
    run_all(batcher)
    assert [batch.shape for batch in two.batches] == [(2, 1, 2, 2), (2, 1, 3, 3)]
    assert [batch.shape for batch in other.batches] == [(2, 1, 2, 2)]


def test_a_batch_waits_until_it_is_full(clock: list[float]) -> None:
    engine, batcher = FakeEngine(), Batcher[str](flush_seconds=1)
    batcher.ask("a", engine, (images(engine.batch - 1),))
    assert batcher.take() is None
    assert batcher.wait_seconds() == 1
    batcher.ask("b", engine, (images(1),))
    batch = batcher.take()
    assert batch is not None
    assert batch.askers == ["a", "b"]


def test_a_batch_that_does_not_fill_goes_when_its_first_image_has_waited_long_enough(
    clock: list[float],
) -> None:
    engine, batcher = FakeEngine(), Batcher[str](flush_seconds=1)
    batcher.ask("a", engine, (images(1),))
    clock[0] += 0.75
    batcher.ask("b", engine, (images(1),))
    assert batcher.take() is None
    assert batcher.wait_seconds() == 0.25
    clock[0] += 0.25
    assert batcher.take() is not None
    assert batcher.wait_seconds() is None


def test_who_has_nothing_else_to_do_takes_a_batch_that_is_not_full() -> None:
    engine, batcher = FakeEngine(), Batcher[str](flush_seconds=10)
    batcher.ask("a", engine, (images(1),))
    assert batcher.take(idle=True) is not None


def test_long_questions_are_cut_into_batches_that_several_workers_can_run() -> None:
    engine, batcher = FakeEngine(tripled), Batcher[str](flush_seconds=10)
    batcher.ask("a", engine, (images(40),))
    batches = list(iter(lambda: batcher.take(idle=True), None))
    assert [sum(len(piece.images) for piece in batch.pieces) for batch in batches] == [16, 16, 8]
    assert len(batcher) == 0
    answers = [batcher.answer(batch, batch.infer()) for batch in reversed(batches)]
    assert answers[:2] == [[], []]
    ((asker, (answer,)),) = answers[2]
    assert asker == "a"
    np.testing.assert_array_equal(answer, 3 * images(40))


def test_an_engine_for_one_thread_gets_one_batch_at_a_time() -> None:
    engine, batcher = OneAtATime(), Batcher[str](flush_seconds=0)
    batcher.ask("a", engine, (images(40),))
    first = batcher.take()
    assert first is not None
    assert batcher.take(idle=True) is None
    assert batcher.wait_seconds() is None  # time alone changes nothing
    batcher.answer(first, first.infer())
    assert batcher.take() is not None


def test_a_batch_that_failed_frees_its_engine_and_names_those_who_waited() -> None:
    engine, batcher = OneAtATime(), Batcher[str](flush_seconds=0)
    batcher.ask("a", engine, (images(2),))
    batcher.ask("b", engine, (images(2),))
    batch = batcher.take()
    assert batch is not None
    batcher.withdraw("a")
    assert batcher.failed(batch) == ["b"]
    assert batcher.failed(batch) == []  # once only: a volume must not end twice
    assert len(batcher) == 0
    batcher.ask("c", engine, (images(1),))
    assert batcher.take() is not None


def test_a_volume_that_is_asked_about_alone_shares_with_nobody_and_image_by_image() -> None:
    engine, batcher = FakeEngine(tripled), Batcher[str](flush_seconds=10)
    batcher.ask("a", engine, (images(2),))
    batcher.ask("b", engine, (images(3),), alone=True)
    batch = batcher.take()  # it does not wait either
    assert batch is not None
    assert batch.askers == ["b"]
    assert len(batch.pieces[0].images) == 1
    told = dict(batcher.answer(batch, batch.infer())) | run_all(batcher)
    assert sorted(len(each) for each in engine.batches) == [1, 1, 1, 2]
    np.testing.assert_array_equal(told["b"][0], 3 * images(3))


def test_answers_to_a_question_that_was_asked_anew_go_nowhere() -> None:
    engine, batcher = FakeEngine(tripled), Batcher[str](flush_seconds=0)
    batcher.ask("a", engine, (images(20),))
    early, late = batcher.take(idle=True), batcher.take(idle=True)
    assert early is not None
    assert late is not None
    assert batcher.failed(early) == ["a"]
    batcher.ask("a", engine, (images(20),), alone=True)
    assert batcher.answer(late, np.full((4, 1, 2, 2), -1, np.float32)) == []
    assert batcher.failed(late) == []
    told = run_all(batcher)
    np.testing.assert_array_equal(told["a"][0], 3 * images(20))


def test_a_batch_says_which_part_of_it_is_whose() -> None:
    engine, batcher = FakeEngine(), Batcher[str](flush_seconds=0)
    batcher.ask("a", engine, (images(1), images(2)))
    batcher.ask("b", engine, (images(1),))
    batch = batcher.take()
    assert batch is not None
    assert batch.shares == {"a": 0.75, "b": 0.25}


# Of each question: for which engine, and for each of its batches how many images of which side.
_QUESTIONS = st.lists(
    st.tuples(
        st.integers(0, 2), st.lists(st.tuples(st.integers(1, 30), st.integers(1, 3)), min_size=1, max_size=4)
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=120, deadline=None)
@given(questions=_QUESTIONS, data=st.data())
def test_every_volume_gets_the_answers_to_its_own_images_in_any_order_of_events(
    questions: list[tuple[int, list[tuple[int, int]]]], data: st.DataObject
) -> None:
    """Asking, taking, answering, failing and withdrawing come in any order, as threads would have it."""
    engines = [FakeEngine(tripled), FakeEngine(tripled), OneAtATime(tripled)]
    batcher = Batcher[int](data.draw(st.sampled_from([0.0, 1e-6, 10.0])), factor=data.draw(st.integers(1, 3)))
    first, asked = 0, {}
    for asker, (_, sizes) in enumerate(questions):
        asked[asker] = []
        for n, side in sizes:
            asked[asker].append(images(n, side, first))
            first += n
    to_ask, under_way = list(asked), list[Batch[int]]()
    told: dict[int, list[_Images]] = {}
    failures, gone = 0, set[int]()
    while to_ask or under_way or len(batcher):
        events = ["answer", "fail"] * bool(under_way) + ["ask"] * bool(to_ask) + ["take"]
        event = data.draw(st.sampled_from(events))
        if event == "ask":
            asker = to_ask.pop(0)
            batcher.ask(asker, engines[questions[asker][0]], tuple(asked[asker]))
        elif event == "take":
            batch = batcher.take(idle=True)
            if batch is not None:
                assert len({piece.images.shape[1:] for piece in batch.pieces}) == 1
                assert {questions[asker][0] for asker in batch.askers} == {engines.index(batch.engine)}
                under_way.append(batch)
        else:
            batch = under_way.pop(data.draw(st.integers(0, len(under_way) - 1)))
            if event == "answer" or failures > 3:
                for asker, answers in batcher.answer(batch, batch.infer()):
                    assert asker not in told
                    assert asker not in gone
                    told[asker] = answers
                continue
            failures += 1
            for asker in batcher.failed(batch):
                assert asker not in told
                if data.draw(st.booleans()):
                    engine = engines[questions[asker][0]]
                    batcher.ask(asker, engine, tuple(asked[asker]), alone=True)
                else:
                    gone.add(asker)
    assert told.keys() | gone == asked.keys()
    assert not told.keys() & gone
    for asker, answers in told.items():
        assert len(answers) == len(asked[asker])
        for answer, own in zip(answers, asked[asker], strict=True):
            np.testing.assert_array_equal(answer, 3 * own)
