"""`hindi-babylm COMMAND ...`, also as `python -m hindi_babylm COMMAND ...`."""

from hindi_babylm import commands
from hindi_babylm.signals import end_process


def main() -> None:
    """Carry out a command and end its process."""
    commands.main()
    end_process()


if __name__ == "__main__":
    main()
