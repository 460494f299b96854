"""``python -m restorekit`` is the command line."""

from restorekit.cli import main

if __name__ == "__main__":
    main()
