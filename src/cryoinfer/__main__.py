"""Run the command line as ``python -m cryoinfer``."""

from cryoinfer.cli.app import main

if __name__ == "__main__":
    main()
