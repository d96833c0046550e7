"""What a method reaches for through another file."""

import time


def take_note():
    return time.time()
