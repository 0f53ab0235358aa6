"""Measures on a machine that others use too: waits until it is idle enough, and measures again after a pause of the whole machine, such as a
suspended virtual machine or processes that someone stopped."""
import sys
import threading
import time
from pathlib import Path


def busy_share(seconds):
    """The share of the cores' time that all processes take for some seconds."""
    def ticks():
        fields = [int(word) for word in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
        return sum(fields), fields[3] + fields[4]  # all, idle
    before, idle_before = ticks()
    time.sleep(seconds)
    after, idle_after = ticks()
    return 1 - (idle_after - idle_before) / max(1, after - before)


def undisturbed(measure, most_busy=1.0, pause=1.0):
    """Returns measure(), called when others take at most this share of the cores, and again until this process never waited for a core for
    `pause` seconds."""
    while True:
        while most_busy < 1 and busy_share(2) > most_busy:
            pass
        done = threading.Event()
        longest = 0.0

        def watch(done=done):
            nonlocal longest
            last = time.monotonic()
            while not done.wait(0.1):
                now = time.monotonic()
                longest = max(longest, now - last)
                last = now

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            result = measure()
        finally:
            done.set()
            watcher.join()
        if longest < pause:
            return result
        print(f"measured again: the machine paused for {longest:.1f} s", file=sys.stderr, flush=True)
