"""`python -m hindi_babylm COMMAND ...`."""

from hindi_babylm.commands import main

if __name__ == "__main__":
    main()
