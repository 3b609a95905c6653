"""`python -m ima`: the command line."""

from ima.cli import main

main()
