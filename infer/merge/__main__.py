"""`python -m infer.merge`."""

from infer.machine.encoding import use_utf8

if __name__ == "__main__":
    use_utf8()

    from infer.machine.console import run_command
    from infer.merge.command import command

    run_command(command)
