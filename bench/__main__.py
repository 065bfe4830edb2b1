"""The entry point of ``python -m bench``."""

from bench.cli import main

if __name__ == "__main__":  # a study's processes import the main module anew
    main()
