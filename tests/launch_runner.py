"""Runs the launch scripts in forks of one process: a script that tests start and talk to.

Most of a script's time is importing JAX and its kind. This one imports once what they import, forks for each
line of its input, a JSON object with

    command     the script's path and its arguments
    variables   what the environment has besides

and runs the script there as `python PATH ARGUMENTS` would. It answers a JSON object: returncode, stdout, stderr.
"""

import json
import os
import runpy
import signal
import sys
import tempfile
import traceback


def _child(order: dict) -> int:
    """Runs the script; what the interpreter's exit status would be."""
    os.environ.update(order["variables"])
    sys.argv = order["command"]
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        print(end.code, file=sys.stderr)
        return 1
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def _run(order: dict) -> dict:
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as errors:
        child = os.fork()
        if not child:
            signal.alarm(300)  # a script that hangs is killed, and so fails its test
            os.dup2(out.fileno(), 1), os.dup2(errors.fileno(), 2)
            status = _child(order)
            sys.stdout.flush(), sys.stderr.flush()
            os._exit(status)
        _, status = os.waitpid(child, 0)
        said = {}
        for name, file in (("stdout", out), ("stderr", errors)):
            file.seek(0)
            said[name] = file.read().decode()
    return {"returncode": os.waitstatus_to_exitcode(status), **said}


if __name__ == "__main__":
    sys.path.insert(0, "launch")  # in the place of this script's folder, as the scripts have it
    import flags  # noqa: F401  which imports the stages

    for line in sys.stdin:
        print(json.dumps(_run(json.loads(line))), flush=True)
