import threading

import numpy as np
import pytest

from denoisecli.cleaning.stream import DenoiseStream, Piece
from denoisecli.errors import ModelError
from denoisecli.live import filter as live_filter
from denoisecli.live.filter import LiveFilter

RATE = 16000
BLOCK = 160


class Half(DenoiseStream):
    """A stream that returns half of what it takes, at once."""

    def __init__(self):
        pass

    def pieces(self, block):
        yield Piece(block, block / 2)

    def last_pieces(self):
        yield from ()


class Driven:
    """A filter whose two devices a test plays, without its thread."""

    def __init__(self, **options):
        self.pieces = []
        self.filter = LiveFilter(Half(), RATE, 1, on_piece=self.pieces.append, **options)

    def put(self, block, **options):
        self.filter.put(block, **options)
        self.filter.clean_next()

    def run(self, sound, taken=BLOCK):
        """Put blocks of BLOCK samples, get as many of ``taken``; return what came."""
        out = []
        for start in range(0, sound.shape[1] - BLOCK + 1, BLOCK):
            self.put(sound[:, start : start + BLOCK])
            out.append(self.filter.get(taken))
        return np.concatenate(out, axis=1)


def test_sound_passes_with_the_delay_of_the_buffer(noise):
    sound = noise(1, RATE)[None]
    driven = Driven(buffer=0.02)
    out = driven.run(sound)
    delay = 320
    np.testing.assert_array_equal(out[:, :delay], 0)
    np.testing.assert_allclose(out[:, delay:], sound[:, :-delay] / 2, atol=1e-7)
    meters = driven.filter.meters
    assert (meters.dropouts, meters.lost, meters.stretched) == (0, 0, 0)
    assert meters.seconds == pytest.approx(1)
    assert meters.gain == pytest.approx(-6.02, abs=0.01)
    assert meters.waiting == pytest.approx(0.02)
    noisy = np.concatenate([piece.noisy for piece in driven.pieces], axis=1)
    np.testing.assert_array_equal(noisy, sound)


def test_bypass_returns_the_noisy_sound_without_a_step():
    driven = Driven(buffer=0.0)
    ones = np.ones((1, BLOCK * 10), np.float32)
    assert (driven.run(ones) == 0.5).all()
    driven.filter.bypass = True
    out = driven.run(ones)
    assert np.abs(np.diff(out)).max() < 0.01
    assert (out[:, BLOCK:] == 1).all()
    driven.filter.bypass = False
    assert driven.run(ones)[0, -1] == 0.5


@pytest.mark.slow
@pytest.mark.parametrize("taken", [BLOCK - 0.3, BLOCK + 0.3])
def test_clocks_that_differ_neither_drop_out_nor_delay(taken):
    """By 0.2 %, far more than any two sound cards: 30 min of 60 ppm are a minute of that."""
    driven = Driven(buffer=0.02)
    t = np.arange(BLOCK * 6000) / RATE
    tone = np.sin(2 * np.pi * 100 * t).astype(np.float32)[None]
    waiting, out, owed = [], [], 0.0
    for start in range(0, tone.shape[1], BLOCK):
        driven.put(tone[:, start : start + BLOCK])
        owed += taken
        out.append(driven.filter.get(int(owed)))
        owed -= int(owed)
        waiting.append(driven.filter.meters.waiting)
    meters = driven.filter.meters
    assert meters.dropouts == 0
    expected = (taken - BLOCK) * 6000
    # All but the tolerance and what is not observed yet, 96 and 64 samples.
    assert meters.stretched == pytest.approx(expected, abs=200)
    assert min(waiting[10:]) > 0 and max(waiting) < 0.04
    sound = np.concatenate(out, axis=1)[0, BLOCK * 3 :]
    assert np.abs(np.diff(sound)).max() < 1.05 * 0.5 * 2 * np.pi * 100 / RATE  # no clicks


def test_an_output_without_sound_counts_once_and_recovers():
    driven = Driven(buffer=0.01)
    ones = np.ones((1, BLOCK), np.float32)
    for _ in range(3):
        driven.put(ones)
    assert driven.filter.get(300).all()
    assert driven.filter.get(BLOCK).all()
    last = driven.filter.get(BLOCK)
    assert last[:, :20].all() and not last[:, 20:].any()
    assert not driven.filter.get(BLOCK).any()
    assert driven.filter.meters.dropouts == 1
    driven.put(ones)
    assert not driven.filter.get(BLOCK).any()  # waits until the buffer is full
    driven.put(ones)
    assert driven.filter.get(BLOCK).all()
    assert driven.filter.meters.dropouts == 1


def test_dropouts_of_the_device_count_once_sound_passes():
    """Before that, the output has no sound anyway."""
    driven = Driven(buffer=0.0)
    driven.filter.get(BLOCK, lost=True)
    assert driven.filter.meters.dropouts == 0
    driven.put(np.ones((1, 3 * BLOCK), np.float32))
    for _ in range(2):
        assert driven.filter.get(BLOCK).all()
    driven.filter.get(BLOCK, lost=True)
    assert driven.filter.meters.dropouts == 1


def test_sound_from_before_the_devices_were_opened_again_is_not_heard():
    driven = Driven(buffer=0.01)
    driven.put(np.ones((1, 3 * BLOCK), np.float32))
    assert driven.filter.get(BLOCK).all()
    driven.filter.restart()
    assert not driven.filter.get(BLOCK).any()
    driven.put(np.full((1, BLOCK), 0.5, np.float32))
    assert not driven.filter.get(BLOCK).any()  # the buffer is filled again
    driven.put(np.full((1, BLOCK), 0.5, np.float32))
    assert (driven.filter.get(BLOCK) == 0.25).all()
    assert driven.filter.meters.dropouts == 0


def test_sound_that_nobody_takes_does_not_pile_up():
    driven = Driven()
    for _ in range(200):
        driven.put(np.ones((1, BLOCK), np.float32))
    assert driven.filter._out.shape[1] <= 0.3 * RATE


def test_input_that_is_too_fast_is_left_out():
    hold = threading.Event()

    class Slow(Half):
        def pieces(self, block):
            hold.wait(30)
            yield from super().pieces(block)

    slow = LiveFilter(Slow(), RATE, 1)
    with slow:
        for _ in range(100):
            slow.put(np.ones((1, BLOCK), np.float32))
        assert 60 < slow.meters.lost < 100
        assert slow._in.qsize() <= 27
        hold.set()


def test_the_caller_may_use_its_buffer_again():
    driven = Driven(buffer=0.0)
    buffer = np.ones((1, BLOCK), np.float32)
    driven.put(buffer, lost=True)
    buffer[:] = 7
    assert (driven.filter.get(BLOCK) == 0.5).all()
    assert driven.filter.meters.lost == 1


def test_the_thread_cleans(noise):
    sound, pieces = noise(0.1, RATE)[None], []
    with LiveFilter(Half(), RATE, 1, on_piece=pieces.append) as running:
        running.put(sound)
    assert len(pieces) == 1
    np.testing.assert_array_equal(pieces[0].clean, sound / 2)


def test_what_the_model_holds_at_the_end_is_recorded():
    class Late(Half):
        def pieces(self, block):
            self.held = block
            yield Piece(block[:, :0], block[:, :0])

        def last_pieces(self):
            yield Piece(self.held, self.held / 2)

    pieces = []
    with LiveFilter(Late(), RATE, 1, on_piece=pieces.append) as running:
        running.put(np.ones((1, BLOCK), np.float32))
    assert [piece.clean.shape for piece in pieces] == [(1, BLOCK)]


def test_sound_is_handed_over_before_it_is_recorded():
    heard = []
    running = LiveFilter(
        Half(), RATE, 1, buffer=0.0, on_piece=lambda piece: heard.append(running.get(BLOCK))
    )
    running.put(np.ones((1, BLOCK), np.float32))
    running.clean_next()
    assert heard[0].all()


@pytest.mark.parametrize("error", [ModelError, RuntimeError])
def test_any_error_is_kept(error):
    class Broken(Half):
        def pieces(self, block):
            raise error("broken")
            yield

    broken = LiveFilter(Broken(), RATE, 1)
    with broken:
        broken.put(np.ones((1, BLOCK), np.float32))
        broken._thread.join(30)
    assert str(broken.error) == "broken"


def test_the_least_of_a_span():
    least = live_filter._Least(300)
    for value in (5, 3, 9):
        assert least.value() is None
        least.add(value, 100)
    assert least.value() == 3
    least.add(8, 300)
    assert least.value() == 8
    least.reset()
    assert least.value() is None


def test_the_least_may_be_reset_while_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    values = [3.0, np.inf]
    changing = property(lambda self: values.pop(0), lambda self, value: None)
    monkeypatch.setattr(live_filter._Least, "_least", changing, raising=False)
    assert live_filter._Least(300).value() == 3
