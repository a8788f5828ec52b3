"""`python -m infer.fhir`: writes the documents of a finished run later, from what it left in OUT."""

from infer.machine.encoding import use_utf8

if __name__ == "__main__":
    use_utf8()

    from infer.fhir.command import command
    from infer.machine.console import run_command

    run_command(command)
