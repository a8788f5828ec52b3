"""`python -m infer`."""

from infer.machine.encoding import use_utf8

if __name__ == "__main__":
    use_utf8()

    from infer.cli import main

    main()
