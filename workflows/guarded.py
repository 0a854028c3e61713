"""Runs a Python script that ends, and takes its folder with it, as soon as whoever started it is gone.

    python guarded.py FOLDER SCRIPT ARGUMENTS...

The starter holds the other end of this process's standard input. The system closes that end however the starter
ends, by kill -9 too, and on every platform.
"""

import os
import runpy
import shutil
import sys
import threading
import time


def end_with_starter(folder: str, gone: threading.Event) -> None:
    while os.read(0, 1):
        pass
    gone.set()
    for _ in range(100):  # the script, at work in its own thread until the end, may still be writing
        shutil.rmtree(folder, ignore_errors=True)
        if not os.path.exists(folder):
            break
        time.sleep(0.02)
    os._exit(1)


if __name__ == "__main__":
    folder, script, *_ = sys.argv[1:]
    gone = threading.Event()
    guard = threading.Thread(target=end_with_starter, args=(folder, gone), daemon=True)
    guard.start()
    sys.argv = sys.argv[2:]
    sys.path[0] = os.path.dirname(script)  # as if Python had been given the script itself
    try:
        runpy.run_path(script, run_name="__main__")
    finally:
        if gone.is_set():  # the script may fail first, its folder being gone: the guard still has to finish
            guard.join()
