"""`python -m infer.report`: writes the pages of a finished run later, from what it left in OUT."""

from infer.machine.encoding import use_utf8

if __name__ == "__main__":
    use_utf8()

    from infer.machine.console import run_command
    from infer.report.command import command

    run_command(command)
