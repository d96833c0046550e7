"""`python -m shrinkmark` is the command `shrinkmark`."""

from __future__ import annotations

if __name__ == "__main__":
    from harness.cli.command import main

    main()
