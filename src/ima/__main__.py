"""`python -m ima`: the command line."""

import sys


def main() -> None:
    """The command line; where its extra is missing, how to get it."""
    from ima.extras import lacking

    if told := lacking("cli"):
        sys.exit(f"ima: the command line needs what is {told}")
    from ima.cli import main as run

    run()


if __name__ == "__main__":
    main()
