"""`python -m optaware`."""

from optaware.cli import main

if __name__ == "__main__":
    main()
