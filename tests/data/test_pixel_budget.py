"""The budget of pixels over the threads of a process."""

from __future__ import annotations

import os
import threading
import time

import pytest

from singleshot.data.pixel_budget import PixelBudget


def test_threads_hold_no_more_than_the_budget_together() -> None:
    budget, lock = PixelBudget(100), threading.Lock()
    held = most = 0

    def work(pixels: int) -> None:
        nonlocal held, most
        with budget.hold(pixels):
            with lock:
                held += min(pixels, 100)
                most = max(most, held)
            time.sleep(0.002)
            with lock:
                held -= min(pixels, 100)

    # 250 is more than the whole budget: it is decoded alone, and nobody waits for ever
    threads = [threading.Thread(target=work, args=(pixels,)) for pixels in (60, 30, 50, 250, 1, 99, 40, 20) * 4]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert not any(thread.is_alive() for thread in threads)
    assert 0 < most <= 100
    with budget.hold(100):  # all is free again
        pass


def test_an_error_gives_the_pixels_back() -> None:
    budget = PixelBudget(10)
    for _ in range(3):
        with pytest.raises(KeyError), budget.hold(10):
            raise KeyError


def test_small_images_do_not_overtake_a_large_one() -> None:
    budget, order, threads = PixelBudget(10), [], []

    def work(name: str, pixels: int) -> None:
        with budget.hold(pixels):
            order.append(name)

    with budget.hold(5):
        for name, pixels in (("large", 10), ("small", 1)):
            threads.append(threading.Thread(target=work, args=(name, pixels)))
            threads[-1].start()
            while len(budget._waiting) < len(threads):
                time.sleep(0.001)
    for thread in threads:
        thread.join(10)
    assert order == ["large", "small"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_has_a_budget_of_its_own() -> None:
    budget, inside, done = PixelBudget(10), threading.Event(), threading.Event()

    def work() -> None:
        with budget.hold(10):
            inside.set()
            done.wait(10)

    thread = threading.Thread(target=work)
    thread.start()
    inside.wait(10)
    child = os.fork()
    if child == 0:
        with budget.hold(10):
            os._exit(0)
    until = time.monotonic() + 10
    while (state := os.waitpid(child, os.WNOHANG)) == (0, 0) and time.monotonic() < until:
        time.sleep(0.005)
    done.set()
    thread.join(10)
    if state == (0, 0):
        os.kill(child, 9)
        os.waitpid(child, 0)
    assert state == (child, 0)
