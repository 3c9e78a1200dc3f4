"""What every engine has to do. A test module of an engine subclasses `Conformance` and gives `make`.

Engines may differ in speed and by roundings; never in what they take, give, or refuse.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastseg.engines.base import Engine
from fastseg.errors import EngineBuildError, EngineError, InferenceError
from fastseg.networks.network import Network
from tests.engines.onnx_networks import as_network, convolution, expected


class Conformance:
    """The suite; `test_*` of subclasses run."""

    #: Largest difference between answers of one engine to the same image, alone and in a batch.
    batch_tolerance = 0.0
    #: Largest difference from numpy: sums of 54 products of order 1 in another order, through a sigmoid.
    tolerance = 2e-6
    #: Sizes that a network of free size is asked for.
    free_sizes: tuple[tuple[int, int], ...] = ((48, 48), (33, 57), (1, 1), (200, 3))

    def make(self, network: Network, **options: Any) -> Engine:
        """An engine for a network, not yet entered."""
        raise NotImplementedError  # abstract

    @pytest.fixture
    def network(self, tmp_path: Path) -> Network:
        return convolution(tmp_path, spatial=(64, 64))

    def images(self, count: int, *spatial: int, seed: int = 0) -> Any:
        shape = (count, 1, *(spatial or (64, 64)))
        return np.random.default_rng(seed).normal(0, 1, shape).astype(np.float32)

    def test_it_is_an_engine_with_a_name(self, network: Network) -> None:
        engine = self.make(network)
        assert isinstance(engine, Engine)
        assert engine.name
        with engine as opened, self.make(network) as other:
            assert opened is engine
            assert engine.name == other.name

    def test_answers_are_the_networks(self, network: Network) -> None:
        batch = self.images(3)
        with self.make(network) as engine:
            answer = engine.infer(batch)
        assert answer.dtype == np.float32
        np.testing.assert_allclose(answer, expected(network.path, batch), rtol=0, atol=self.tolerance)

    def test_the_same_batch_gives_the_same_answer_whatever_ran_before(self, network: Network) -> None:
        batch = self.images(9)
        with self.make(network) as engine:
            first = engine.infer(batch)
            engine.infer(self.images(64, seed=1))
            engine.infer(self.images(1, seed=2))
            np.testing.assert_array_equal(engine.infer(batch), first)

    def test_the_batch_is_not_changed(self, network: Network) -> None:
        batch = self.images(9)
        before = batch.copy()
        batch.flags.writeable = False
        with self.make(network) as engine:
            engine.infer(batch)
        np.testing.assert_array_equal(batch, before)

    @pytest.mark.parametrize("count", [0, 1, 9])
    def test_the_answer_is_the_callers(self, count: int, network: Network) -> None:
        batch = self.images(count)
        with self.make(network) as engine:
            answer = engine.infer(batch)
            kept = answer.copy()
            engine.infer(self.images(count, seed=5))
            np.testing.assert_array_equal(answer, kept)
            answer[:] = -1
            np.testing.assert_array_equal(engine.infer(batch), kept)
        answer[:] = -2
        assert answer.flags.c_contiguous
        assert not np.shares_memory(answer, batch)

    @pytest.mark.parametrize("count", [1, 2, 7, 8, 9, 64, 67])
    def test_a_batch_of_any_length_equals_its_images_one_by_one(self, count: int, network: Network) -> None:
        batch = self.images(count)
        with self.make(network) as engine:
            together = engine.infer(batch)
            alone = np.concatenate([engine.infer(batch[i : i + 1]) for i in range(count)])
        assert together.shape == batch.shape
        np.testing.assert_allclose(together, alone, rtol=0, atol=self.batch_tolerance)

    def test_no_images_give_no_answers(self, network: Network) -> None:
        with self.make(network) as engine:
            answer = engine.infer(self.images(0))
        assert answer.shape == (0, 1, 64, 64)
        assert answer.dtype == np.float32

    def test_networks_of_free_size_take_any(self, tmp_path: Path) -> None:
        network = convolution(tmp_path)
        with self.make(network) as engine:
            for k, spatial in enumerate(self.free_sizes):
                batch = self.images(3, *spatial)
                answer = engine.infer(batch)
                engine.infer(self.images(1, *self.free_sizes[k - 1]))
                np.testing.assert_array_equal(engine.infer(batch), answer)
                wanted = expected(network.path, batch)
                np.testing.assert_allclose(answer, wanted, rtol=0, atol=self.tolerance)

    def test_blocks_are_run_too(self, tmp_path: Path) -> None:
        network = convolution(tmp_path, spatial=(16, 12, 8), batch=1)
        batch = self.images(2, 16, 12, 8)
        with self.make(network) as engine:
            answer = engine.infer(batch)
        wanted = np.concatenate([expected(network.path, batch[i : i + 1]) for i in range(2)])
        # Three times as many products are summed.
        np.testing.assert_allclose(answer, wanted, rtol=0, atol=3 * self.tolerance)

    @pytest.mark.parametrize("count", [0, 1, 5])
    def test_channels_last_is_the_networks_own_business(self, count: int, tmp_path: Path) -> None:
        first = convolution(tmp_path, spatial=(24, 20), seed=3)
        (tmp_path / "last").mkdir()
        last = convolution(tmp_path / "last", spatial=(24, 20), seed=3, channels_last=True)
        batch = self.images(count, 24, 20)
        with self.make(first) as one, self.make(last) as other:
            answer = other.infer(batch)
            assert answer.shape == batch.shape
            assert answer.flags.c_contiguous
            # The same sums; a layout may have its own order.
            np.testing.assert_allclose(answer, one.infer(batch), rtol=0, atol=self.tolerance)

    @pytest.mark.parametrize("channels_last", [False, True])
    @pytest.mark.parametrize("count", [0, 1, 4, 5, 11])
    def test_networks_of_a_fixed_batch_take_any(
        self, count: int, channels_last: bool, tmp_path: Path
    ) -> None:
        fixed = convolution(tmp_path, spatial=(16, 16), batch=4, channels_last=channels_last)
        (tmp_path / "free").mkdir()
        free = convolution(tmp_path / "free", spatial=(16, 16))
        batch = self.images(count, 16, 16)
        with self.make(fixed) as one, self.make(free) as other:
            answer = one.infer(batch)
            assert answer.shape == batch.shape
            np.testing.assert_allclose(answer, other.infer(batch), rtol=0, atol=self.tolerance)
            answer[:] = 0  # also where it was cut from a padded batch

    def test_batches_need_not_be_contiguous(self, network: Network) -> None:
        batch = self.images(6)
        turned = np.asfortranarray(batch)
        with self.make(network) as engine:
            np.testing.assert_array_equal(engine.infer(turned), engine.infer(batch))
            np.testing.assert_array_equal(engine.infer(batch[::2]), engine.infer(batch[::2].copy()))

    def test_nan_stays_in_its_own_image(self, network: Network) -> None:
        batch = self.images(3)
        with self.make(network) as engine:
            clean = engine.infer(batch)
            batch[1, 0, 30, 30] = np.nan
            dirty = engine.infer(batch)
        np.testing.assert_allclose(dirty[[0, 2]], clean[[0, 2]], rtol=0, atol=self.batch_tolerance)

    @pytest.mark.parametrize("channels_last", [False, True])
    @pytest.mark.parametrize(
        "shape", [(2, 1, 64, 63), (2, 3, 64, 64), (2, 64, 64), (2, 1, 64, 64, 1), (2, 1, 0, 0)]
    )
    def test_a_batch_that_does_not_fit_is_refused(
        self, shape: tuple[int, ...], channels_last: bool, tmp_path: Path
    ) -> None:
        network = convolution(tmp_path, spatial=(64, 64), channels_last=channels_last)
        with self.make(network) as engine:
            with pytest.raises(InferenceError):
                engine.infer(np.zeros(shape, np.float32))
            engine.infer(self.images(1))  # it still works

    def test_an_engine_that_is_not_open_says_so(self, network: Network) -> None:
        engine = self.make(network)
        for _ in range(2):
            with pytest.raises(InferenceError, match="not open"):
                engine.infer(self.images(1))
            with engine:
                engine.infer(self.images(1))

    def test_it_can_be_opened_again(self, network: Network) -> None:
        engine, batch = self.make(network), self.images(3)
        answers = []
        for _ in range(2):
            with engine:
                answers.append(engine.infer(batch))
        np.testing.assert_array_equal(*answers)

    def test_it_is_closed_by_an_error(self, network: Network) -> None:
        engine = self.make(network)
        with pytest.raises(KeyError), engine:
            raise KeyError
        with pytest.raises(InferenceError):
            engine.infer(self.images(1))

    def test_nothing_is_loaded_before_it_is_entered(self, tmp_path: Path) -> None:
        self.make(as_network(tmp_path / "later.onnx", b"", (64, 64)))

    @pytest.mark.parametrize("damage", ["empty", "text", "truncated", "missing"])
    def test_a_file_that_cannot_be_loaded_is_named(self, damage: str, network: Network) -> None:
        content = network.path.read_bytes()
        damaged = {"empty": b"", "text": b"not a network", "truncated": content[: len(content) // 2]}
        if damage == "missing":
            network.path.unlink()
        else:
            network.path.write_bytes(damaged[damage])
        engine = self.make(network)
        with pytest.raises(EngineBuildError) as caught, engine:
            pass
        assert str(network.path) in str(caught.value)
        assert "\n" not in str(caught.value)
        assert caught.value.__cause__ is not None
        with pytest.raises(EngineError):
            engine.infer(self.images(1))

    def test_two_engines_do_not_disturb_each_other(self, network: Network, tmp_path: Path) -> None:
        (tmp_path / "other").mkdir()
        other = convolution(tmp_path / "other", spatial=(64, 64), seed=9)
        batch = self.images(3)
        with self.make(network) as one, self.make(other) as two:
            first, second = one.infer(batch), two.infer(batch)
            np.testing.assert_array_equal(one.infer(batch), first)
        assert (first != second).any()
