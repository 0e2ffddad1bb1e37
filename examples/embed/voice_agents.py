"""Clean the microphones of several voice agents at once, in asyncio code.

    python voice_agents.py [SESSIONS [SECONDS]]

Frames of 10 ms of 16-bit PCM go in and come out, as telephony and agent frameworks pass them on.
Cleaning a frame would hold up the event loop, so it is handed to threads: ONNX Runtime releases the
lock of the interpreter meanwhile, and other sessions go on.
"""

import asyncio
import resource
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from denoisecli import Denoiser

RATE = 16000
FRAME = RATE // 100


class DenoiseFilter:
    """An audio filter for one session.

    Args:
        denoiser: The model, which all sessions share.
        threads: Threads that all sessions share.
    """

    def __init__(self, denoiser: Denoiser, threads: ThreadPoolExecutor) -> None:
        self._stream = denoiser.stream(RATE)
        self._threads = threads
        self._ready = bytearray(2 * round(self._stream.delay * RATE))  # silence at the beginning
        self.cpu_seconds = 0.0

    async def process(self, frame: bytes) -> bytes:
        """Take a frame and return as many clean samples, `delay` seconds old."""
        loop = asyncio.get_running_loop()
        self._ready += await loop.run_in_executor(self._threads, self._clean, frame)
        clean, self._ready = self._ready[: len(frame)], self._ready[len(frame) :]
        return bytes(clean)

    def _clean(self, frame: bytes) -> bytes:
        start = time.thread_time()
        samples = np.frombuffer(frame, "<i2").astype(np.float32)[None] / 2**15
        clean = self._stream.process(samples)[0]
        self.cpu_seconds += time.thread_time() - start
        return np.round(clean * 2**15).clip(-(2**15), 2**15 - 1).astype("<i2").tobytes()


async def talk(session: DenoiseFilter, pcm: bytes) -> bytes:
    """Send a recording through a session, frame by frame, as fast as it goes."""
    frames = [pcm[i : i + 2 * FRAME] for i in range(0, len(pcm), 2 * FRAME)]
    return b"".join([await session.process(frame) for frame in frames])


async def main(sessions: int = 4, seconds: float = 10.0) -> None:
    """Run sessions at once, and print what each costs."""
    denoiser = Denoiser("speech-live")
    denoiser.stream(RATE)  # loads the network
    noise = np.random.default_rng(0).normal(0, 1000, round(seconds * RATE)).astype("<i2").tobytes()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with ThreadPoolExecutor() as threads:
        filters = [DenoiseFilter(denoiser, threads) for _ in range(sessions)]
        start = time.perf_counter()
        await asyncio.gather(*(talk(each, noise) for each in filters))
        wall = time.perf_counter() - start
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    cpu = sum(each.cpu_seconds for each in filters) / sessions / seconds
    print(f"{sessions} sessions of {seconds:g} s in {wall:.1f} s")
    print(f"per session: {cpu:.1%} of a core, {memory / 1024 / sessions:.1f} MiB")


if __name__ == "__main__":
    arguments = sys.argv[1:]
    asyncio.run(main(*map(int, arguments[:1]), *map(float, arguments[1:])))
